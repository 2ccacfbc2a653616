"""Hits as rows of three lines: name and place, then heading and text; a mark before the name."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.styles import RulesMap
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive, reactive
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gritdesk.records import Hit
from gritdesk.tui.text import heading_path, place, plain, short_folder, snippet
from gritdesk.tui.widgets.rows import Rows

_MARK = "✓ "
_MARK_WIDTH = 3
"""Cells at the left of a row, with its padding, where a click marks it."""


class HitVisual(Visual):
    """One hit, laid out for the width it gets: the place stands at the right edge."""

    HEIGHT = 3

    def __init__(
        self, hit: Hit, words: Sequence[str], label: str = "", is_cited: bool = True, is_marked: bool | None = False
    ) -> None:
        """Args: is_marked: None where there are no marks, nor room for them."""
        self._hit = hit
        self._words = words
        self._label = label
        self._is_cited = is_cited
        self.is_marked = is_marked
        self._drawn: dict[tuple[int, Style], list[Strip]] = {}

    @property
    def shown(self) -> tuple[Hashable, ...]:
        """All that is seen of it; scores and ranks are not."""
        return self._hit.path, self._hit.chunk, tuple(self._words), self._label, self._is_cited, self.is_marked

    def forget_drawn(self) -> None:
        self._drawn.clear()

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self.HEIGHT

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        if (drawn := self._drawn.get((width, style))) is None:
            body = Content("\n").join([self._title(width), *self._text(width)])
            strips = body.render_strips(width, self.HEIGHT, style, options)
            drawn = [*strips, *[Strip.blank(width, style.rich_style)] * (self.HEIGHT - len(strips))]
            self._drawn[width, style] = drawn
        return drawn

    @property
    def _gutter(self) -> str:
        return "" if self.is_marked is None else " " * len(_MARK)

    def _title(self, width: int) -> Content:
        where = Content.styled(place(self._hit), "$text-primary")
        name = Content.assemble(
            (_MARK if self.is_marked else self._gutter, "bold $text-accent"),
            (self._label, "bold $text-accent" if self._is_cited else "$text-muted"),
            (plain(self._hit.path.name), "bold"),
            "  ",
            (short_folder(self._hit.path), "$text-muted"),
        )
        room = max(1, width - where.cell_length - 2)
        return Content.assemble(name.truncate(room, ellipsis=True, pad=True), "  ", where)

    def _text(self, width: int) -> list[Content]:
        indent = self._gutter + " " * len(self._label)
        room = max(8, width - len(indent))
        text = snippet(self._hit.chunk, self._words, room * 2 - 2)
        heading = Content.styled(heading_path(self._hit), "$text-secondary")
        if heading:
            first = Content.assemble(indent, heading.truncate(room, ellipsis=True))
            return [first, Content.assemble(indent, text.truncate(room, ellipsis=True))]
        return [Content.assemble(indent, line.rstrip()) for line in text.wrap(room)[:2]]


class HitList(Rows):
    """Hits, or the evidence of an answer; the highlight stays on its hit when hits change."""

    HELP = (
        "**Passages.** `hits.open` opens the highlighted one in your editor at its line; what no editor can show is "
        "shown here."
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
        self._words: Sequence[str] = ()
        self._visuals: dict[tuple[Hashable, ...], HitVisual] = {}
        """Rows with what was drawn of them, to be taken again: most hits by words come again with those by meaning."""

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
        marks: Collection[Path] = (),
    ) -> None:
        """Replace the rows.

        Args:
            words: the query's words, marked in the rows.
            numbered: write [1], [2] before the names.
            cited: numbers that the answer cites, None while it is being written.
            marks: files whose rows get a mark.
        """
        kept = self._index_of(self.highlighted_hit, hits)
        self.hits = tuple(hits)
        self._words = words
        new = [
            HitVisual(hit, words, f"[{n}] " if numbered else "", cited is None or n in cited, hit.path in marks)
            for n, hit in enumerate(hits, 1)
        ]
        self._visuals = {each.shown: self._visuals.get(each.shown, each) for each in new}
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(Option(self._visuals[each.shown]) for each in new)
        self.highlighted = kept if hits else None

    def notify_style_update(self) -> None:
        for each in self._visuals.values():
            each.forget_drawn()
        super().notify_style_update()

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


class SearchHits(HitList):
    """The hits of a search, whose files can be marked."""

    HELP = (
        "**Results.** `hits.open` opens the highlighted one in your editor, `search.view` shows it here, "
        "`search.similar` lists files like it, `search.why` says why it stands where it does, `search.rerank` has the "
        "model read all of them again.\n\n"
        "`search.mark` marks its file, a click at the left does it too; marks stay when you search for something else. "
        "`search.ask` asks the query of the marked files, `search.copy` copies their paths, `search.clear_marks` takes "
        "the marks off. Without marks `search.ask` asks all files, and `search.copy` copies one path.\n\n"
        "`search.preview_down` and `search.preview_up` scroll the text beside the list."
    )

    class MarkClicked(Message):
        def __init__(self, hit: Hit) -> None:
            super().__init__()
            self.hit = hit

    def show_marks(self, marks: Collection[Path]) -> None:
        """Change the marks alone; the list stays where it is."""
        for index, (hit, option) in enumerate(zip(self.hits, self.options, strict=True)):
            shown = option.prompt
            if isinstance(shown, HitVisual) and shown.is_marked != (hit.path in marks):
                self.replace_option_prompt_at_index(index, HitVisual(hit, self._words, is_marked=not shown.is_marked))

    def on_click(self, event: events.Click) -> None:
        index = event.style.meta.get("option")
        if event.x < _MARK_WIDTH and index is not None:
            event.prevent_default()  # which opens the file
            event.stop()
            self.highlighted = index
            self.post_message(self.MarkClicked(self.hits[index]))
