"""Hits as rows of three lines: name and place, then heading and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.styles import RulesMap
from textual.geometry import Region, Size
from textual.reactive import Reactive, reactive
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gritdesk.records import Hit
from gritdesk.tui.text import heading_path, place, plain, short_folder, snippet


class HitVisual(Visual):
    """One hit, laid out for the width it gets: the place stands at the right edge."""

    HEIGHT = 3

    def __init__(self, hit: Hit, words: Sequence[str], label: str = "", is_cited: bool = True) -> None:
        self._hit = hit
        self._words = words
        self._label = label
        self._is_cited = is_cited

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self.HEIGHT

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        body = Content("\n").join([self._title(width), *self._text(width)])
        strips = body.render_strips(width, self.HEIGHT, style, options)
        return [*strips, *[Strip.blank(width, style.rich_style)] * (self.HEIGHT - len(strips))]

    def _title(self, width: int) -> Content:
        where = Content.styled(place(self._hit), "$text-primary")
        name = Content.assemble(
            (self._label, "bold $text-accent" if self._is_cited else "$text-muted"),
            (plain(self._hit.path.name), "bold"),
            "  ",
            (short_folder(self._hit.path), "$text-muted"),
        )
        room = max(1, width - where.cell_length - 2)
        return Content.assemble(name.truncate(room, ellipsis=True, pad=True), "  ", where)

    def _text(self, width: int) -> list[Content]:
        indent = " " * len(self._label)
        room = max(8, width - len(indent))
        text = snippet(self._hit.chunk, self._words, room * 2 - 2)
        heading = Content.styled(heading_path(self._hit), "$text-secondary")
        if heading:
            first = Content.assemble(indent, heading.truncate(room, ellipsis=True))
            return [first, Content.assemble(indent, text.truncate(room, ellipsis=True))]
        return [Content.assemble(indent, line.rstrip()) for line in text.wrap(room)[:2]]


class HitList(OptionList):
    """The hits of a search, or the evidence of an answer; the highlight stays on its hit when hits change."""

    HELP = (
        "**Results.** Enter opens the highlighted one in your editor, `v` shows it here, `a` asks about the query, `r` "
        "has the model read all of them again."
    )
    BINDING_GROUP_TITLE = "Results"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Open", id="hits.open", tooltip="Open the highlighted result at its line"),
        Binding("down,j", "cursor_down", "Down", show=False, id="hits.down", tooltip="Next result"),
        Binding("up,k", "cursor_up", "Up", show=False, id="hits.up", tooltip="Previous result"),
    ]

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))
    """Without Textual's layout of the whole screen: the list tells its scrollbar itself."""
    highlighted: reactive[int | None] = reactive(None, repaint=False)
    """Of all rows two look otherwise then."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.hits: tuple[Hit, ...] = ()

    @property
    def highlighted_hit(self) -> Hit | None:
        index = self.highlighted
        return self.hits[index] if index is not None and index < len(self.hits) else None

    def show(
        self,
        hits: Sequence[Hit],
        words: Sequence[str] = (),
        *,
        numbered: bool = False,
        cited: frozenset[int] | None = None,
    ) -> None:
        """Replace the rows.

        Args:
            words: the query's words, marked in the rows.
            numbered: write [1], [2] before the names.
            cited: numbers that the answer cites, None while it is being written.
        """
        kept = self._index_of(self.highlighted_hit, hits)
        self.hits = tuple(hits)
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(
                Option(HitVisual(hit, words, f"[{n}] " if numbered else "", cited is None or n in cited))
                for n, hit in enumerate(hits, 1)
            )
        self.highlighted = kept if hits else None

    def _watch_highlighted(self, before: int | None, now: int | None) -> None:
        for index in (before, now):
            if index is not None and index < len(self.hits):
                top = index * HitVisual.HEIGHT - self.scroll_offset.y
                self.refresh(Region(0, top, self.size.width, HitVisual.HEIGHT))

    def _index_of(self, wanted: Hit | None, hits: Sequence[Hit]) -> int:
        """Where the highlighted hit stands now; 0 if it is gone or nobody chose it."""
        if wanted is None or not self.highlighted:
            return 0
        return next((index for index, hit in enumerate(hits) if hit.chunk_id == wanted.chunk_id), 0)
