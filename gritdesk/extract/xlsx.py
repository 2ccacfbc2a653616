"""xlsx and its kin -> text, sheet by sheet as sheet.py writes them.

Values are those that a person sees: what formulas came to when the file was saved, dates in ISO form, percents; of
other number formats only leading zeros are kept. Hidden sheets, rows and columns are shown. Comments, text boxes and
charts follow their sheet. Sheets are read as a stream, because one may be many times as large as memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from xml.etree.ElementTree import Element

from gritdesk.extract import drawing
from gritdesk.extract.archive import attribute, local_name, number
from gritdesk.extract.builder import Builder
from gritdesk.extract.opc import Package, listed_parts
from gritdesk.extract.sheet import MAX_REPEATED, add_sheet, cell_text
from gritdesk.records import Section

_BUILT_IN = {9: "0%", 10: "0.00%", 14: "d/m/y", 15: "d-m-y", 16: "d-m", 17: "m-y", 18: "h:m", 19: "h:m:s", 20: "h:m"}
_BUILT_IN |= {21: "h:m:s", 22: "d/m/y h:m", 45: "m:s", 46: "[h]:m:s", 47: "m:s"}
_BUILT_IN |= {each: "d/m/y" for each in (*range(27, 37), *range(50, 59))}
"""Number formats that files need not spell out (ECMA-376 part 1, 18.8.30), as far as they change what is shown."""
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_MAX_COLUMN = 16_384
_DAY_0, _DAY_0_OF_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)
_LEAP_DAY_OF_1900 = 60
"""A day that never was; the days before it are one later than counted from day 0."""


def read(package: Package, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a workbook.

    Raises: Damaged; ExtractError if its text is too large.
    """
    builder = Builder(max_chars)
    workbook = _Workbook(package)
    for sheet, part in listed_parts(package, "sheets"):
        name = attribute(sheet, "name") or ""
        add_sheet(builder, name, workbook.rows(part))
        builder.begin((name,))
        for line, text in _beside(package, part):
            builder.begin((name,), line=line)
            builder.add(text)
    return builder.finish()


class _Workbook:
    """What sheets refer to: shared strings and number formats."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._strings = [
            text
            for part in package.related(package.main_part, "sharedStrings")
            for text in _shared_strings(package, part)
        ]
        self._formats = [
            code
            for part in package.related(package.main_part, "styles")
            for code in _formats(package.archive.xml(part))
        ]
        properties = [each for each in package.main.iter() if local_name(each) == "workbookPr"]
        is_1904 = any(attribute(each, "date1904") in ("1", "true") for each in properties)
        self._day_0 = _DAY_0_OF_1904 if is_1904 else _DAY_0

    def rows(self, part: str) -> Iterator[tuple[int, list[str]]]:
        """(number, cells) of each row of a sheet."""
        last = 0
        for _, row in self._package.archive.elements(part, ("row",)):
            last = number(row.get("r"), last + 1)
            yield last, self._cells(row)
            row.clear()

    def _cells(self, row: Element) -> list[str]:
        cells: list[str] = []
        column = 0
        value_tag = row.tag.removesuffix("row") + "v"
        for cell in row:
            at = _column(cell.get("r", "")) or column + 1
            if at > column + 1:
                cells += [""] * min(at - column - 1, MAX_REPEATED)
            cells.append(cell_text(self._value(cell, cell.findtext(value_tag, ""))))
            column = at
        return cells

    def _value(self, cell: Element, value: str) -> str:
        type_ = cell.get("t", "n")
        if type_ == "inlineStr":
            return _rich_text(cell)
        if type_ == "s":
            index = number(value, len(self._strings))
            return self._strings[index] if index < len(self._strings) else ""
        if type_ == "b":
            return "TRUE" if value == "1" else "FALSE"
        if type_ == "n":
            style = number(cell.get("s"), 0)
            return _shown(value, self._formats[style] if style < len(self._formats) else "", self._day_0)
        return _unescaped(value)


def _shared_strings(package: Package, part: str) -> Iterator[str]:
    for _, string in package.archive.elements(part, ("si",)):
        yield _rich_text(string)
        string.clear()


def _rich_text(parent: Element) -> str:
    """A string that may consist of runs; how it is pronounced is not part of it."""
    pieces = []
    for each in parent:
        match local_name(each):
            case "t":
                pieces.append(each.text or "")
            case "r" | "is":
                pieces.append(_rich_text(each))
    return _unescaped("".join(pieces))


def _unescaped(text: str) -> str:
    """Characters that XML does not allow are written as _x000D_."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "_x" in text else text


def _formats(styles: Element) -> Iterator[str]:
    """Number format of each cell style, without what it only decorates with; "" if it changes nothing."""
    own = {
        attribute(each, "numFmtId"): attribute(each, "formatCode")
        for each in styles.iter()
        if "formatCode" in each.attrib
    }
    for each in styles:
        if local_name(each) == "cellXfs":
            for style in each:
                id_ = attribute(style, "numFmtId")
                code = own.get(id_) or _BUILT_IN.get(number(id_, 0), "")
                yield _LITERAL.sub("", code.partition(";")[0]).lower()


def _shown(value: str, code: str, day_0: datetime) -> str:
    """A number as a person sees it."""
    try:
        amount = float(value)
        if code in ("", "general"):
            return value if len(value) < 16 and "e" not in value.lower() else f"{amount:.15g}"
        if "%" in code:
            return f"{amount * 100:.10g}%"
        if set(code) == {"0"}:
            return f"{amount:0{len(code)}.0f}"
        if set(code) & set("dmyhs") and "general" not in code:
            return _date(amount, code, day_0)
        return f"{amount:.15g}"
    except (ValueError, OverflowError):  # no number, or no day of any calendar
        return value


def _date(days: float, code: str, day_0: datetime) -> str:
    """ISO date, time of day, or hours that passed, by what the format shows."""
    if "[" in code:
        minutes, seconds = divmod(round(days * 86400), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if day_0 == _DAY_0 and days < _LEAP_DAY_OF_1900:
        days += 1
    moment = day_0 + timedelta(seconds=round(days * 86400))
    time = moment.strftime("%H:%M:%S").removesuffix(":00")
    if not set(code) & set("dy") and set(code) & set("hs"):
        return time
    return moment.strftime("%Y-%m-%d") + (f" {time}" if time != "00:00" else "")


def _column(reference: str) -> int:
    """1-based column of a cell such as "AB7"; 0 if it does not say."""
    column = 0
    for letter in reference.rstrip("0123456789"):
        column = column * 26 + ord(letter) - 64  # A is 65
    return column if 0 <= column <= _MAX_COLUMN else 0


def _beside(package: Package, sheet: str) -> Iterator[tuple[int, str]]:
    """(row or 0, text) of comments, text boxes and charts of a sheet."""
    kind = "threadedComment" if any(package.related(sheet, "threadedComment")) else "comments"  # which repeat them
    for part in package.related(sheet, kind):
        for comment in package.archive.xml(part).iter():
            if local_name(comment) in ("comment", "threadedComment"):
                row = re.sub("[^0-9]", "", attribute(comment, "ref") or "")
                texts = (each.text or "" for each in comment.iter() if local_name(each) in ("t", "text"))
                yield number(row, 0), "".join(texts)
    for part in package.related(sheet, "drawing"):
        for text in (*drawing.paragraphs(package.archive.xml(part)), *drawing.drawn(package, part)):
            yield 0, text
