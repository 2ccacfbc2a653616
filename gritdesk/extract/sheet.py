"""Rows of cells -> text: a row a line, cells apart by " | "; lines are the sheet's row numbers.

A section's heading is the sheet's name and, where the first row names the columns, that row, so that it is at hand
wherever a chunk of the sheet begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gritdesk.extract.builder import Builder

MAX_REPEATED = 64
"""Cells that a gap or a repetition stands for at most: it may say 16,384, or millions."""
_MAX_GAP = 3
"""Empty rows that the text keeps, so that its lines need no new section to stay the sheet's."""
_MAX_HEADER_CHARS = 160
_NUMBER = re.compile(r"[-+(]?[\d.,:/ -]*\d[\d.,:/ -]*\)?%?")


def add_sheet(builder: Builder, name: str, rows: Iterable[tuple[int, Sequence[str]]]) -> None:
    """Append a sheet: (1-based number, cells) of each row; rows of no text may be left out."""
    heading: tuple[str, ...] = (name,)
    last = 0
    header = ""
    for row_number, cells in rows:
        text = _row_text(cells)
        if not text:
            continue
        if not last:
            header = text[:_MAX_HEADER_CHARS] if _names_columns(cells) else ""
            builder.begin(heading, line=row_number)
            builder.add(text)
        elif header:
            builder.begin((name, header), line=row_number)
            builder.add(text, "\n")
            heading, header = (name, header), ""
        elif row_number - last <= _MAX_GAP:
            builder.add(text, "\n" * (row_number - last))
        else:
            builder.begin(heading, line=row_number)
            builder.add(text)
        last = row_number


def cell_text(text: str) -> str:
    """What a cell holds, on one line."""
    return " ".join(text.split())


def _row_text(cells: Sequence[str]) -> str:
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return " | ".join(cells[:end])


def _names_columns(cells: Sequence[str]) -> bool:
    """Whether a first row is a header: two names or more, all different, no numbers and no gap."""
    names = [each for each in cells if each]
    return (
        len(names) >= 2
        and len(set(names)) == len(names)
        and all(cells[: len(names)])
        and not any(_NUMBER.fullmatch(each) for each in names)
    )
