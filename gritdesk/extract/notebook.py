"""ipynb -> Markdown: the cells in their order, code and what it printed in fences; pictures are left out.

Lines are those of the .ipynb, where Jupyter writes each line of a cell on a line of its own.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from gritdesk.errors import ExtractError
from gritdesk.extract import markdown
from gritdesk.extract.source_lines import Block, join, with_headings
from gritdesk.records import Section

_MAX_OUTPUT_CHARS = 2000
"""Of one cell; more is a table or a log that its first lines tell of."""
_MAX_MISSES = 100
"""Each goes through all of the file."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read(text: str) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a notebook of any format since 3.

    Raises: ExtractError if it is none.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExtractError("it is a damaged notebook: its content is not JSON") from error
    cells = [cell for cell in _cells(notebook) if isinstance(cell, dict)]
    if not cells:
        raise ExtractError("it is a notebook without cells")
    language = _language(notebook)
    lines = _Lines(text)
    shown, sections = join(block for cell in cells for block in _blocks(cell, language, lines))
    return shown, with_headings(shown, sections, markdown.sections(shown))


def _cells(notebook: Any) -> list[Any]:
    """The cells; format 3 had sheets of them."""
    sheets = [notebook, *_list(_get(notebook, "worksheets"))]
    return [cell for sheet in sheets for cell in _list(_get(sheet, "cells"))]


def _language(notebook: Any) -> str:
    metadata = _get(notebook, "metadata")
    name = _get(_get(metadata, "language_info"), "name") or _get(_get(metadata, "kernelspec"), "language")
    return name if isinstance(name, str) and re.fullmatch(r"[\w+#-]{1,20}", name) else ""


def _blocks(cell: dict[str, Any], language: str, lines: _Lines) -> Iterator[Block]:
    lines.begin_cell()
    source = _get(cell, "source") or _get(cell, "input")
    kind = _get(cell, "cell_type")
    if kind == "code":
        yield from _fenced(lines.of(source), language)
        for output in _list(_get(cell, "outputs")):
            yield from _fenced(_bounded(lines.of(_output(output))), "")
    elif kind == "heading":  # of format 3
        level = _get(cell, "level")
        marks = "#" * level if isinstance(level, int) and 0 < level < 7 else "#"
        yield from (Block(f"{marks} {line}", number) for line, number in lines.of(source))
    else:
        yield from _plain(lines.of(source))


def _output(output: Any) -> Any:
    """What an output shows as text."""
    if _get(output, "ename"):
        return f"{_get(output, 'ename')}: {_get(output, 'evalue')}"
    return _get(output, "text") or _get(_get(output, "data"), "text/plain")


def _bounded(lines: list[tuple[str, int]]) -> list[tuple[str, int]]:
    kept: list[tuple[str, int]] = []
    num_chars = 0
    for line, number in lines:
        if num_chars + len(line) > _MAX_OUTPUT_CHARS:
            return [*kept, (f"{line[: _MAX_OUTPUT_CHARS - num_chars]} …", number)]
        kept.append((line, number))
        num_chars += len(line)
    return kept


def _fenced(lines: list[tuple[str, int]], language: str) -> Iterator[Block]:
    if any(line.strip() for line, _ in lines):
        fence = "```"
        while any(fence in line for line, _ in lines):
            fence += "`"
        yield Block(f"{fence}{language}", lines[0][1])
        yield from _plain(lines, "\n")
        yield Block(fence, lines[-1][1], before="\n")


def _plain(lines: list[tuple[str, int]], before: str = "\n\n") -> Iterator[Block]:
    for line, number in lines:
        if line.strip():
            yield Block(line, number, before=before)
            before = "\n"
        else:
            before += "\n"


class _Lines:
    """The source lines of a notebook's strings; cells stand in it in their order, within a cell output may be first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._cell_start = self._at = 0
        self._num_misses = 0

    def begin_cell(self) -> None:
        self._cell_start = self._at

    def of(self, value: Any) -> list[tuple[str, int]]:
        """(line, its line in the source) of a text, which a notebook has whole or as a list of its lines."""
        strings = [each for each in _list(value) if isinstance(each, str)] or [value if isinstance(value, str) else ""]
        found = []
        at = self._cell_start
        for string in strings:
            at = self._find(string, at)
            number = 1 + bisect_left(self._newlines, at)
            found += [(line, number) for line in _ANSI.sub("", string).removesuffix("\n").split("\n")]
        self._at = max(self._at, at)
        return found

    def _find(self, string: str, start: int) -> int:
        """Behind where the string stands, or `start` if it is spelled in another way than Jupyter does."""
        for ascii_only in (False, True):
            spelled = json.dumps(string, ensure_ascii=ascii_only)
            if self._num_misses < _MAX_MISSES and (at := self._text.find(spelled, start)) >= 0:
                return at + len(spelled)
        self._num_misses += 1
        return start


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
