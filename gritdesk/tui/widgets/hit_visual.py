"""One hit as a row of three lines: name and place, then heading and text; a mark before the name.

The rows of a list are drawn anew at every key, for other words are marked in them then. So they are put together from
segments here: with Textual's Content a draw of the list took 26 ms of the processor, so it takes 14.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Self

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.css.styles import RulesMap
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual

from gritdesk.records import Hit
from gritdesk.tui.text import Span, cut_to, heading_path, place, plain, row_lengths, short_folder, snippet_text

_MARK = "✓ "
MARK_WIDTH = 3
"""Cells at the left of a row, with its padding, where a click marks it."""
_LEAST_ROOM = 8
"""Cells for the text, however narrow the list is."""


class HitStyles(NamedTuple):
    """What the parts of a row look like."""

    text: RichStyle
    name: RichStyle
    aside: RichStyle
    word: RichStyle
    """A word of the query; a mark, and the number of what is cited."""
    place: RichStyle
    heading: RichStyle

    @classmethod
    def upon(cls, style: Style, get_style: Callable[[str], Style]) -> Self:
        """Those of a row that is of `style` itself."""
        added = ("bold", "$text-muted", "bold $text-accent", "$text-primary", "$text-secondary")
        return cls(style.rich_style, *((style + get_style(each)).rich_style for each in added))


class HitVisual(Visual):
    """Laid out for the width it gets: the place stands at the right edge."""

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
        self._drawn: dict[tuple[int, HitStyles], list[Strip]] = {}

    @property
    def shown(self) -> tuple[Hashable, ...]:
        """All that is seen of it; scores and ranks are not."""
        return self._hit.path, self._hit.chunk, tuple(self._words), self._label, self._is_cited, self.is_marked

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self.HEIGHT

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        return self.draw(width, HitStyles.upon(style, options.get_style))

    def draw(self, width: int, styles: HitStyles) -> list[Strip]:
        """Its lines, as they were drawn before if they were."""
        if (drawn := self._drawn.get((width, styles))) is None:
            lines = [self._title(width, styles), *islice(self._text(width, styles), self.HEIGHT - 1)]
            lines += [[]] * (self.HEIGHT - len(lines))
            drawn = self._drawn[width, styles] = [Strip(each).adjust_cell_length(width, styles.text) for each in lines]
        return drawn

    @property
    def _gutter(self) -> str:
        return "" if self.is_marked is None else " " * len(_MARK)

    def _title(self, width: int, styles: HitStyles) -> list[Segment]:
        where = place(self._hit)
        mark = _MARK if self.is_marked else self._gutter
        room = max(1, width - cell_len(where) - 2)
        parts = (
            (mark + self._label, styles.word if self._is_cited else styles.aside),
            (plain(self._hit.path.name), styles.name),
            ("  " + short_folder(self._hit.path), styles.aside),
        )
        segments = []
        for text, style in parts:
            shown = cut_to(text, room)
            segments.append(Segment(shown, style))
            room -= cell_len(shown)
        return [*segments, Segment(" " * (room + 2), styles.text), Segment(where, styles.place)]

    def _text(self, width: int, styles: HitStyles) -> Iterator[list[Segment]]:
        indent = Segment(self._gutter + " " * len(self._label), styles.text)
        room = max(_LEAST_ROOM, width - len(indent.text))
        heading = heading_path(self._hit)
        if heading:
            yield [indent, Segment(cut_to(heading, room), styles.heading)]
        text, spans = snippet_text(self._hit.chunk, self._words, room * 2 - 2)
        lengths = [len(text)] if heading else row_lengths(text, room)
        start = 0
        for length in lengths:
            shown = cut_to(text[start : start + length].rstrip(), room)
            yield [indent, *_marked(shown, start, spans, styles)]
            start += length


def _marked(text: str, start: int, spans: Sequence[Span], styles: HitStyles) -> Iterator[Segment]:
    """The text, which begins at `start` of what the spans are of."""
    position = 0
    for span in spans:
        first, last = (min(max(edge - start, position), len(text)) for edge in span)
        if first < last:
            yield Segment(text[position:first], styles.text)
            yield Segment(text[first:last], styles.word)
            position = last
    yield Segment(text[position:], styles.text)
