"""PDF -> text of its text layer, one section per page; lines are counted within a page.

PDFium is not thread-safe; it is only ever called in the reader's child process, which has one thread.
"""

from __future__ import annotations

import re

from gritdesk.errors import ExtractError
from gritdesk.records import Section

_HYPHEN_AT_LINE_END = re.compile("[\x02\ufffe\u00ad]\\s*")
"""How PDFium marks a word that was cut at the end of a line."""


def read(content: bytes) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: ExtractError if it is damaged, asks for a password, or has no text layer.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ExtractError("it is protected by a password; save it without one") from error
        raise ExtractError("it is a damaged PDF; open it in a viewer and save it anew") from error
    try:
        pages = [_page_text(document, index) for index in range(len(document))]
    except pypdfium2.PdfiumError as error:
        raise ExtractError(f"it is a damaged PDF ({error}); open it in a viewer and save it anew") from error
    finally:
        document.close()
    if not any(page.strip() for page in pages):
        raise ExtractError("it has no text layer, as a scan; run text recognition (OCR) over it and save it again")
    return _joined(pages)


def _page_text(document: object, index: int) -> str:
    page = document[index]  # type: ignore[index]  # pypdfium2 ships no types
    text_page = page.get_textpage()
    try:
        text: str = text_page.get_text_bounded()
    finally:
        text_page.close()
        page.close()
    text = _HYPHEN_AT_LINE_END.sub("", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _joined(pages: list[str]) -> tuple[str, tuple[Section, ...]]:
    sections = []
    start = 0
    for number, page in enumerate(pages, start=1):
        sections.append(Section(start, 1, page=number))
        start += len(page) + 2
    return "\n\n".join(pages), tuple(sections)
