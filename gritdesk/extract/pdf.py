"""PDF -> text of its text layer, one section per page under its bookmarks; lines are counted within a page.

What was filled into forms and what was remarked follows the page. A page that cannot be loaded costs that page.
PDFium is not thread-safe; it is only ever called in the reader's child process, which has one thread.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any

from gritdesk.errors import ExtractError
from gritdesk.extract.builder import Builder
from gritdesk.records import Section

_HYPHEN_AT_LINE_END = re.compile("[\x02\ufffe\u00ad]\\s*")
"""How PDFium marks a word that was cut at the end of a line."""
_MAX_NOTE_BYTES = 1_000_000


def read(content: bytes, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: ExtractError if it is damaged, asks for a password, has no text layer, or too large a text.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ExtractError("it is protected by a password; save it without one") from error
        raise ExtractError("it is a damaged PDF; open it in a viewer and save it anew") from error
    builder = Builder(max_chars)
    num_loaded = 0
    try:
        headings = _Headings(document)
        for index in range(len(document)):
            builder.begin(headings.of_page(index), line=1, page=index + 1)
            try:
                texts = [*_texts(document, index)]
            except pypdfium2.PdfiumError:
                continue
            num_loaded += 1
            for text in texts:
                builder.add(text)
    finally:
        document.close()
    if not num_loaded:
        raise ExtractError("it is a damaged PDF, none of its pages can be loaded; open it in a viewer and save it anew")
    text, sections = builder.finish()
    if not text:
        raise ExtractError("it has no text layer, as a scan; run text recognition (OCR) over it and save it again")
    return text, sections


def _texts(document: Any, index: int) -> Iterator[str]:
    page = document[index]
    text_page = page.get_textpage()
    try:
        text: str = text_page.get_text_bounded()
        notes = [*_notes(page)]
    finally:
        text_page.close()
        page.close()
    text = _HYPHEN_AT_LINE_END.sub("", text)
    for each in (text, *notes):
        yield each.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _notes(page: Any) -> Iterator[str]:
    """Values of form fields and contents of remarks, in their order."""
    from pypdfium2 import raw

    keys = {raw.FPDF_ANNOT_WIDGET: b"V", raw.FPDF_ANNOT_TEXT: b"Contents", raw.FPDF_ANNOT_FREETEXT: b"Contents"}
    keys[raw.FPDF_ANNOT_HIGHLIGHT] = b"Contents"
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        key = keys.get(raw.FPDFAnnot_GetSubtype(annotation))
        num_bytes = raw.FPDFAnnot_GetStringValue(annotation, key, None, 0) if key else 0
        if 2 < num_bytes < _MAX_NOTE_BYTES:  # two are the zero at its end
            buffer = (ctypes.c_ushort * (num_bytes // 2))()
            raw.FPDFAnnot_GetStringValue(annotation, key, buffer, num_bytes)
            yield bytes(buffer).decode("utf-16-le", "replace").rstrip("\0")
        raw.FPDFPage_CloseAnnot(annotation)


def _title(bookmark: Any) -> str:
    try:
        return " ".join(bookmark.get_title().split())
    except UnicodeDecodeError:  # half a character
        return ""


class _Headings:
    """Bookmarks above each page: the first that leads there, or else the last before."""

    def __init__(self, document: Any) -> None:
        self._last: tuple[str, ...] = ()
        self._of_page: dict[int, list[tuple[str, ...]]] = {}
        path: list[str] = []
        for bookmark in document.get_toc():
            path = [*path[: bookmark.level], _title(bookmark)]
            destination = bookmark.get_dest()
            index = destination.get_index() if destination is not None else None
            if index is not None:
                self._of_page.setdefault(index, []).append(tuple(filter(None, path)))

    def of_page(self, index: int) -> tuple[str, ...]:
        """To be asked page by page."""
        found = self._of_page.get(index)
        first = found[0] if found else self._last
        self._last = found[-1] if found else self._last
        return first
