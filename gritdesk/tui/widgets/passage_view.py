"""A stretch of a document with a passage marked in it, wrapped to the width, only the visible rows drawn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, takewhile
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.text import Surroundings, plain, row_lengths, word_spans

_CONTEXT_ROWS = 3
"""Rows left above the passage when it is scrolled to, in a view of some height."""
_LONGEST_ROW = 110
"""Longer ones are hard to read, however wide the screen is."""

_PARTS = ("number", "passage", "bar", "word", "cited")
_UNDERLINED = RichStyle(underline=True)

Row = tuple[int, int, int]
"""(line number, start, end): a slice of the shown text; the line number is 0 on continued rows."""


class PassageView(Guarded, ScrollView, can_focus=True):
    HELP = "**Text.** The passage is marked by a bar at its left. Scroll with the arrow keys and the page keys."
    BINDING_GROUP_TITLE = "Text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="text.down", tooltip="Scroll down"),
        Binding("k", "scroll_up", "Up", show=False, id="text.up", tooltip="Scroll up"),
    ]
    COMPONENT_CLASSES = {f"passage-view--{each}" for each in _PARTS}

    # of Textual's own a change has the whole screen laid out anew; the scrollbars are all that it can move
    virtual_size: Reactive[Size] = Reactive(Size(0, 0))

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = ""
        self._passage = (0, 0)
        self._first_line = 1
        self._is_numbered = True
        self._word_spans: list[tuple[int, int]] = []
        """Where the query's words stand in the shown text, in order."""
        self._cited = (0, 0)
        self._styles: dict[str, RichStyle] = {}
        """Of this draw: to look them up at every line takes a third of its time."""
        self._number_width = 0
        self._rows: list[Row] = []
        self._wrapped_width = 0

    def show(
        self, surroundings: Surroundings, words: Sequence[str] = (), *, numbered: bool = True, cited: str = ""
    ) -> None:
        """Show the text, scrolled to the passage, or to what is `cited` of it.

        `words` are marked in all of the text, and stand out in the passage.
        """
        before, passage, after = (
            plain(surroundings.text[: surroundings.start]),
            plain(surroundings.text[surroundings.start : surroundings.end]),
            plain(surroundings.text[surroundings.end :]),
        )
        self._text = before + passage + after
        self._passage = (len(before), len(before) + len(passage.rstrip()))
        self._first_line = surroundings.first_line
        self._is_numbered = numbered
        self._word_spans = word_spans(self._text, words)
        cited = plain(cited)
        cited_from = passage.find(cited) if cited else -1
        start = len(before) + cited_from
        self._cited = (start, start + len(cited)) if cited_from >= 0 else (0, 0)
        self._wrap()
        self.scroll_to_passage()

    def clear(self) -> None:
        self.show(Surroundings("", 0, 0))

    def scroll_to_passage(self) -> None:
        start = self._cited[0] if any(self._cited) else self._passage[0]
        row = next((index for index, (_, _, end) in enumerate(self._rows) if end >= start), 0)
        above = min(_CONTEXT_ROWS, self.scrollable_content_region.height // 4)
        self.scroll_to(y=max(0, row - above), animate=False, force=True)

    @property
    def passage(self) -> str:
        return self._text[slice(*self._passage)]

    @property
    def cited(self) -> str:
        return self._text[slice(*self._cited)]

    def on_resize(self, event: events.Resize) -> None:
        if self._text_width() != self._wrapped_width:
            self._wrap()
        self.scroll_to_passage()

    def _gutter_width(self) -> int:
        """Bar, line number, space."""
        if not self._is_numbered:
            return 2
        return max(3, len(str(self._first_line + self._text.count("\n")))) + 3

    def _text_width(self) -> int:
        return max(1, min(_LONGEST_ROW, self.scrollable_content_region.width - self._gutter_width()))

    def _wrap(self) -> None:
        self._wrapped_width = self._text_width()
        self._rows = list(wrapped_rows(self._text, self._first_line, self._wrapped_width)) if self._text else []
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._rows))
        self._scroll_update(self.virtual_size)
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        self._styles = {name: self.get_component_rich_style(f"passage-view--{name}") for name in _PARTS}
        self._styles["text"] = self.rich_style
        word = self._styles["word"]
        self._styles["word"] = RichStyle(color=word.color, bold=True, underline=word.underline)
        self._styles["cited"] = RichStyle(bgcolor=self._styles["cited"].bgcolor)
        self._number_width = self._gutter_width() - 3
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        index = y + self.scroll_offset.y
        if index >= len(self._rows):
            return Strip.blank(width, self._styles["text"])
        line_number, start, end = self._rows[index]
        in_passage = max(start, self._passage[0]) < min(end, self._passage[1])
        base = self._styles["passage" if in_passage else "text"]
        segments = [*self._gutter(line_number, in_passage), *self._segments(start, end, base, in_passage)]
        return Strip(segments).adjust_cell_length(width, base)

    def _gutter(self, line_number: int, in_passage: bool) -> Iterator[Segment]:
        yield Segment("▌", self._styles["bar"]) if in_passage else Segment(" ", self._styles["text"])
        shown = str(line_number) if line_number else ""
        yield Segment(f"{shown:>{self._number_width}}  " if self._is_numbered else " ", self._styles["number"])

    def _segments(self, start: int, end: int, base: RichStyle, in_passage: bool) -> Iterator[Segment]:
        word_style = self._styles["word"] if in_passage else _UNDERLINED
        first = bisect_right(self._word_spans, start, key=lambda span: span[1])
        words = takewhile(lambda span: span[0] < end, islice(self._word_spans, first, None))
        marks = [(span, word_style) for span in words]
        if self._cited[0] < end and start < self._cited[1]:
            marks.append((self._cited, self._styles["cited"]))
        if not marks:
            yield Segment(self._text[start:end], base)
            return
        edges = {start, end, *(edge for span, _ in marks for edge in span if start < edge < end)}
        for piece_start, piece_end in pairwise(sorted(edges)):
            held = [style for span, style in marks if span[0] <= piece_start and piece_end <= span[1]]
            yield Segment(self._text[piece_start:piece_end], sum(held, base))


def wrapped_rows(text: str, first_line: int, width: int) -> Iterator[Row]:
    """Break text into rows of at most `width` cells and a space, between words where that is possible."""
    position = 0
    for line_number, line in enumerate(text.split("\n"), first_line):
        start = 0
        for length in row_lengths(line, width):
            yield line_number if start == 0 else 0, position + start, position + start + length
            start += length
        position += len(line) + 1
