"""csv and tsv -> text: a row a line, each value with the name of its column, so that a row says what it means alone.

    Port,Fare,Open          Port | Fare | Open
    North,5,                Port: North | Fare: 5

Of a table so wide or long that the names would be most of the text, rows are `North | 5` below a heading of names.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from gritdesk.extract.source_lines import Block, join
from gritdesk.records import Section

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 64_000
_NUM_ROWS_ABOVE = 20
"""Lines above the header (a report's title, remarks) that are looked through for it."""
_MAX_CHARS_NAMED = 4_000_000
_NUMBER = re.compile(r"(?!(?:19|20)\d\d$)[-+(]?[$€£]?[\d.,' ]*\d[\d.,' ]*%?\)?|\d{1,4}[-/.]\d\d?[-/.]\d{1,4}.*")
"""A number or date, as no column is called; a year may be one's name."""

_Row = tuple[int, list[str]]
"""The line where it begins, and its cells."""


def read(text: str, suffix: str) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a table; a file that is no table after all keeps its lines."""
    text, first_line = _without_excel_hint(text)
    delimiter = "\t" if suffix in (".tsv", ".tab") else _delimiter(text)
    rows = _rows(text, delimiter)
    header = _header(rows)
    names = rows[header][1] if header is not None else []
    is_named = len(text) + len(rows) * sum(len(name) + 2 for name in names) <= _MAX_CHARS_NAMED
    heading = () if is_named or not names else (" | ".join(names)[:200],)
    blocks = (
        Block(
            _named(cells, names) if is_named and header is not None and number > header else _plain(cells),
            first_line - 1 + line,
            heading,
            "\n",
        )
        for number, (line, cells) in enumerate(rows)
    )
    return join(blocks)


def _without_excel_hint(text: str) -> tuple[str, int]:
    """The text below a first line as "sep=;", which Excel writes and reads, and the line where it begins."""
    match = re.match(r"sep=.\n", text)
    return (text[match.end() :], 2) if match else (text, 1)


def _delimiter(text: str) -> str:
    """The one that cuts most rows of a sample into one and the same number of cells, and into the most of them."""

    def evenness(delimiter: str) -> float:
        widths = Counter(len(cells) for _, cells in _parsed(text[:_SAMPLE_CHARS], delimiter) if any(cells))
        return max((num / widths.total() * (1 - 1 / width) for width, num in widths.items()), default=0.0)

    return max(_DELIMITERS, key=evenness)


def _rows(text: str, delimiter: str) -> list[_Row]:
    try:
        return [*_parsed(text, delimiter)]
    except csv.Error:  # a quote that is never closed swallows the rest
        return [
            (number, [" ".join(cell.split()) for cell in line.split(delimiter)])
            for number, line in enumerate(text.split("\n"), start=1)
        ]


def _parsed(text: str, delimiter: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    line = 1
    for cells in reader:
        yield line, [" ".join(cell.split()) for cell in cells]
        line = reader.line_num + 1


def _header(rows: Sequence[_Row]) -> int | None:
    """Which row names the columns: the first of full width, if it has no number and no name twice."""
    widths = Counter(len(cells) for _, cells in rows[:1000] if any(cells))
    width = max(widths, key=lambda each: widths[each], default=0)
    for number, (_, cells) in enumerate(rows[:_NUM_ROWS_ABOVE]):
        if width > 1 and len(cells) == width and all(cells[1:]):
            is_header = not any(map(_NUMBER.fullmatch, cells)) and len(set(cells)) == width
            return number if is_header and number + 1 < len(rows) else None
    return None


def _named(cells: Sequence[str], names: Sequence[str]) -> str:
    pairs = zip(cells, [*names, *[""] * (len(cells) - len(names))], strict=False)
    return " | ".join(f"{name}: {cell}" if name else cell for cell, name in pairs if cell)


def _plain(cells: Iterable[str]) -> str:
    return " | ".join(cell for cell in cells if cell)
