"""Rows of the result list, as they are cut to the width they get."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.style import Style

from gritdesk.records import Chunk, Hit
from gritdesk.tui.text import cut_to
from gritdesk.tui.widgets.hit_visual import HitStyles, HitVisual

TEXT = (
    "A bucket holds 60 tokens and refills at one token a second, whatever is asked of it; 漢字 are two cells wide each."
)
PLAIN = Style()
STYLES = HitStyles(PLAIN, PLAIN, PLAIN, Style(bold=True), PLAIN, PLAIN)


def hit_of(text: str, heading: str = "") -> Hit:
    return Hit(1, Path("/notes/api/rate-limits.md"), Chunk(text, 0, len(text), 8, 8, heading), 1.0)


@pytest.mark.parametrize("width", range(24, 140))
def test_rows_take_all_of_their_width_and_leave_nothing_out_in_between(width: int) -> None:
    title, first, second = HitVisual(hit_of(TEXT), ()).draw(width, STYLES)
    assert [each.cell_length for each in (title, first, second)] == [width] * 3
    assert title.text.endswith("L8")
    said = " ".join((first.text + " " + second.text).split())
    assert said.removesuffix("…").rstrip() in TEXT and "…" not in first.text


@pytest.mark.parametrize("width", range(12))
def test_rows_of_next_to_no_width_are_drawn_all_the_same(width: int) -> None:
    for heading in ("", "Rate limits > Decision"):
        rows = HitVisual(hit_of(TEXT, heading), ("bucket",), "[1] ", is_marked=True).draw(width, STYLES)
        assert [each.cell_length for each in rows] == [width] * HitVisual.HEIGHT


def test_words_are_marked_whole_where_a_row_ends_within_them() -> None:
    _, _, text = HitVisual(hit_of("the bucketfuls " * 9, "Heading"), ("bucketful",)).draw(30, STYLES)
    marked = [segment.text for segment in text if segment.style == STYLES.word]
    assert marked == ["bucketful", "bucketfu…"]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("漢字", 3, "漢…"), ("ab", 1, "…"), ("ab", 0, "")],
)
def test_what_is_cut_ends_in_an_ellipsis_within_its_cells(text: str, width: int, shown: str) -> None:
    assert cut_to(text, width) == shown
