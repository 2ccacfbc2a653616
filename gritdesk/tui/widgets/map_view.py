"""A map drawn in letters: a few documents as a dot each, many as braille, eight to a cell; their words upon them.

Clusters have colours; where there are none, each has a letter, and a cell that of the cluster with most dots in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from string import ascii_uppercase
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from gritdesk.records import Map, MapPoint
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.text import one_line

if TYPE_CHECKING:
    from gritdesk.tui.app import GritDeskApp

_LETTERS = ascii_uppercase
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of Unicode's braille patterns by row and column."""
_BRAILLE = 0x2800
_WIDE, _HIGH = 2, 4
"""Dots to a cell."""
_CELLS_FOR_DOTS = 6
"""Cells to a document from which on each has a letter of its own, which is easier to see."""
_ANSI = ("ansi_blue", "ansi_yellow", "ansi_green", "ansi_magenta", "ansi_cyan", "ansi_red")
_GOLDEN_ANGLE = 137.5
"""Hues this far apart stay apart, however many there are."""

Cell = tuple[int, int]
"""Column and row."""


class MapView(Guarded, Widget):
    """Where documents lie; one cluster may be picked out, the others are drawn faint."""

    found: reactive[Map] = reactive(Map((), ()))
    chosen: reactive[int | None] = reactive(None)
    """The cluster that is picked out."""
    marked: reactive[MapPoint | None] = reactive(None)
    """The document under the cursor of a list."""

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        ground = self.rich_style
        cells = self._cells().get(y, {})
        segments = [Segment(*cells[x]) if x in cells else Segment(" ", ground) for x in range(width)]
        for start, text, style in self._labels().get(y, ()):
            segments[start : start + len(text)] = [Segment(letter, style) for letter in text]
        return Strip(segments, width).simplify()

    def mark_of(self, cluster: int) -> str:
        """What stands beside a cluster in a list; where there is no colour, for its documents on the map too."""
        return _LETTERS[cluster % len(_LETTERS)] if cast("GritDeskApp", self.app).is_colourless else "●"

    def colour_of(self, cluster: int) -> Color:
        """Of a cluster's dots and its row in a list; light or dark as the theme is not, or one the terminal has."""
        if self.app.native_ansi_color:
            return Color.parse(_ANSI[cluster % len(_ANSI)])
        hue = (cluster * _GOLDEN_ANGLE % 360) / 360
        return Color.from_hsl(hue, 0.55, 0.68 if self.app.current_theme.dark else 0.36)

    def _cells(self) -> dict[int, dict[int, tuple[str, Style]]]:
        """By row, then column: a letter and the style of the cluster that has most dots there."""
        dots: defaultdict[Cell, int] = defaultdict(int)
        whose: defaultdict[Cell, Counter[int]] = defaultdict(Counter)
        for point in self.found.points:
            column, row = self._dot(point.x, point.y)
            cell = (column // _WIDE, row // _HIGH)
            dots[cell] |= _DOTS[row % _HIGH][column % _WIDE]
            whose[cell][point.cluster] += 1 if self.chosen in (None, point.cluster) else 0
        rows: defaultdict[int, dict[int, tuple[str, Style]]] = defaultdict(dict)
        is_colourless = cast("GritDeskApp", self.app).is_colourless
        has_room = self.size.area > _CELLS_FOR_DOTS * len(self.found.points)
        for (column, row), bits in dots.items():
            [(cluster, count)] = whose[column, row].most_common(1)
            letter = self.mark_of(cluster) if is_colourless else "•" if has_room else chr(_BRAILLE + bits)
            rows[row][column] = (letter, self._style(cluster, is_faint=not count))
        if self.marked is not None:
            column, row = self._dot(self.marked.x, self.marked.y)
            style = self.rich_style + self._label_style()
            rows[row // _HIGH][column // _WIDE] = ("◉", style)
        return rows

    def _labels(self) -> dict[int, list[tuple[int, str, Style]]]:
        """By row: where a cluster's words begin, and they; what would lie on a larger cluster's words is left out."""
        taken: defaultdict[int, list[tuple[int, str, Style]]] = defaultdict(list)
        numbers = list(range(len(self.found.clusters)))
        for number in sorted(numbers, key=lambda each: each != self.chosen):
            cluster = self.found.clusters[number]
            text = f" {one_line(' '.join(cluster.words))} "[: self.size.width]
            column, row = self._dot(cluster.x, cluster.y)
            start = max(0, min(column // _WIDE - len(text) // 2, self.size.width - len(text)))
            row //= _HIGH
            others = [each for near in (row - 1, row, row + 1) for each in taken[near]]
            if text.strip() and all(start + len(text) < at or at + len(other) < start for at, other, _ in others):
                is_faint = self.chosen is not None and number != self.chosen
                taken[row].append((start, text, self._label_style(is_faint=is_faint)))
        return taken

    def _dot(self, x: float, y: float) -> Cell:
        columns, rows = max(1, self.size.width * _WIDE), max(1, self.size.height * _HIGH)
        return min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)

    def _style(self, cluster: int, *, is_faint: bool) -> Style:
        _, ground = self.background_colors
        colour = self.colour_of(cluster)
        if self.app.native_ansi_color:
            return self.rich_style + Style(color=colour.rich_color, dim=is_faint)
        return self.rich_style + Style(color=(ground.blend(colour, 0.25) if is_faint else colour).rich_color)

    def _label_style(self, *, is_faint: bool = False) -> Style:
        if self.app.native_ansi_color:
            return Style(dim=True) if is_faint else Style(bold=True, reverse=True)
        _, ground = self.background_colors
        if is_faint:
            return Style(color=ground.get_contrast_text(0.5).hex6, bgcolor=ground.hex6)
        return Style(color=ground.get_contrast_text(0.9).hex6, bgcolor=ground.hex6, bold=True)
