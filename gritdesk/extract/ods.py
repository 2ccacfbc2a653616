"""OpenDocument sheets -> text, sheet by sheet as sheet.py writes them.

Values are as shown, dates in ISO form. Hidden sheets are shown; rows that are said to repeat are written once. Sheets
are read as a stream, because one may be many times as large as memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from gritdesk.extract import odf
from gritdesk.extract.archive import Archive, attribute, local_name, number
from gritdesk.extract.builder import Builder
from gritdesk.extract.sheet import MAX_REPEATED, add_sheet, cell_text
from gritdesk.records import Section

_LAST_ROW = 1 << 20


def read(archive: Archive, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a workbook.

    Raises: Damaged; ExtractError if it asks for a password or its text is too large.
    """
    odf.refuse_encrypted(archive)
    builder = Builder(max_chars)
    events = archive.elements(odf.CONTENT, ("table", "table-row"), ("start", "end"))
    for event, element in events:
        if event == "start" and local_name(element) == "table":
            add_sheet(builder, attribute(element, "name") or "", _rows(events))
    return builder.finish()


def _rows(events: Iterator[tuple[str, Element]]) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each row up to the end of the table."""
    row_number = 1
    for event, element in events:
        name = local_name(element)
        if event == "end" and name == "table":
            return
        if event == "end" and name == "table-row":
            yield row_number, _cells(element)
            row_number = min(row_number + number(attribute(element, "number-rows-repeated"), 1), _LAST_ROW)
            element.clear()


def _cells(row: Element) -> list[str]:
    cells: list[str] = []
    for cell in row:
        repeated = min(number(attribute(cell, "number-columns-repeated"), 1), MAX_REPEATED)
        cells += [cell_text(_value(cell))] * repeated
    return cells


def _value(cell: Element) -> str:
    """What a cell shows, and then what was remarked about it."""
    remarks = [each for each in cell if local_name(each) == "annotation"]
    for each in remarks:
        cell.remove(each)
    date = attribute(cell, "date-value") or ""
    shown = date.removesuffix("T00:00:00").replace("T", " ") or odf.text_of(cell) or attribute(cell, "value") or ""
    return " ".join([shown, *map(odf.text_of, remarks)])
