"""A list of hits, in the order they are given in."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive, reactive
from textual.strip import Strip
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gritdesk.records import Hit
from gritdesk.tui.widgets.hit_visual import MARK_WIDTH, HitStyles, HitVisual
from gritdesk.tui.widgets.rows import Rows


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
        self._styles: dict[tuple[str, ...], HitStyles] = {}
        """Of this draw, by the component classes of a row."""
        self._strips: dict[tuple[int, int, HitStyles], list[Strip]] = {}
        """Rows as they stand in the list, by index, width and styles."""

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
        self._strips.clear()
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(Option(self._visuals[each.shown]) for each in new)
        self.highlighted = kept if hits else None

    def render_lines(self, crop: Region) -> list[Strip]:
        self._styles.clear()  # looked up once a draw, and not once a line
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        index, line = divmod(y + self.scroll_offset.y, HitVisual.HEIGHT)
        width = self.scrollable_content_region.width
        if index >= len(self.hits):
            return Strip.blank(width, self._styles_of("option-list--option").text)
        if index == self.highlighted:
            styles = self._styles_of("option-list--option", "option-list--option-highlighted")
        elif index == self._mouse_hovering_over:
            styles = self._styles_of("option-list--option", "option-list--option-hover")
        else:
            styles = self._styles_of("option-list--option")
        if (strips := self._strips.get((index, width, styles))) is None:
            strips = self._strips[index, width, styles] = self._row(index, width, styles)
        return strips[line]

    def _row(self, index: int, width: int, styles: HitStyles) -> list[Strip]:
        """What OptionList would make of it, without its general way of doing so, which takes longer."""
        visual = self.options[index].prompt
        assert isinstance(visual, HitVisual)
        _, right, _, left = self.get_component_styles("option-list--option").padding
        margin = Segment(" " * left, styles.text)
        drawn = visual.draw(max(0, width - left - right), styles)
        return [
            Strip([margin, *each]).adjust_cell_length(width, styles.text).apply_meta({"option": index})
            for each in drawn
        ]

    def _styles_of(self, *component_classes: str) -> HitStyles:
        if (styles := self._styles.get(component_classes)) is None:
            style = self.get_visual_style(*component_classes)
            styles = self._styles[component_classes] = HitStyles.upon(style, self._get_style)
        return styles

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
                self._strips.clear()
                self.replace_option_prompt_at_index(index, HitVisual(hit, self._words, is_marked=not shown.is_marked))

    def on_click(self, event: events.Click) -> None:
        index = event.style.meta.get("option")
        if event.x < MARK_WIDTH and index is not None:
            event.prevent_default()  # which opens the file
            event.stop()
            self.highlighted = index
            self.post_message(self.MarkClicked(self.hits[index]))
