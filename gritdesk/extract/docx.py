"""docx -> text: a paragraph or table row a line, headings make sections. Lines are those of this text."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from gritdesk.errors import ExtractError
from gritdesk.records import Section


def read(content: bytes, max_unpacked_bytes: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: ExtractError if it is damaged, or unpacks to more than a document ever does.
    """
    import docx

    _refuse_bomb(content, max_unpacked_bytes)
    try:
        document = docx.Document(io.BytesIO(content))
        blocks = [*_blocks(document)]
    except Exception as error:  # python-docx lets through whatever zipfile, lxml and its own parts raise
        raise ExtractError("it is a damaged docx; open it in an office program and save it anew") from error
    return _joined(blocks)


def _refuse_bomb(content: bytes, max_unpacked_bytes: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked_bytes = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ExtractError("it is a damaged docx; open it in an office program and save it anew") from error
    if unpacked_bytes > max_unpacked_bytes:
        raise ExtractError(
            f"it unpacks to {unpacked_bytes / 1e6:.0f} MB, more than a document needs; it was not opened"
        )


def _blocks(document: Any) -> Iterator[tuple[int, str]]:
    """(heading level or 0, text) of each paragraph and table in their order."""
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            yield 0, "\n".join(_row_text(row) for row in block.rows)
        else:
            yield _heading_level(block), block.text


def _row_text(row: Any) -> str:
    cells = {id(cell._tc): cell.text for cell in row.cells}  # a merged cell comes once per column
    return " | ".join(" ".join(text.split()) for text in cells.values())


def _heading_level(paragraph: Any) -> int:
    style = paragraph.style.name if paragraph.style is not None else ""
    match = re.fullmatch(r"[Hh]eading ([1-9])", style or "")
    return int(match[1]) + 1 if match else 1 if style == "Title" else 0  # the title is above all headings


def _joined(blocks: list[tuple[int, str]]) -> tuple[str, tuple[Section, ...]]:
    sections = [Section(0, 1)]
    path: list[tuple[int, str]] = []
    pieces: list[str] = []
    start, line = 0, 1
    for level, text in blocks:
        if not text.strip():
            continue
        if level:
            path = [each for each in path if each[0] < level] + [(level, " ".join(text.split()))]
            sections = sections if start else []
            sections.append(Section(start, line, tuple(title for _, title in path)))
        pieces.append(text)
        start += len(text) + 2
        line += text.count("\n") + 2
    return "\n\n".join(pieces), tuple(sections)
