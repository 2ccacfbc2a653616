"""What OpenDocument texts, sheets and presentations share (OASIS ODF 1.3): paragraphs, their inside, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from gritdesk.errors import ExtractError
from gritdesk.extract.archive import Archive, attribute, local_name, number

CONTENT = "content.xml"
_MANIFEST = "meta-inf/manifest.xml"
_ENCRYPTED = ("encryption-data", "encrypted-key")
_SKIPPED = frozenset({"tracked-changes", "table-of-content", "note-citation", "ruby-text", "creator", "date", "forms"})
_ASIDE = frozenset({"annotation", "note", "frame", "custom-shape", "g", "rect", "text-box"})
"""What may stand inside a paragraph but is no part of its line."""
_WHITE_SPACE = re.compile("[ \\t\\r\\n]+")
_MAX_SPACES = 100
"""What one element for spaces may stand for; it may say billions."""

Block = tuple[int, str]
"""(heading level or 0, text)."""


def refuse_encrypted(archive: Archive) -> None:
    """Raises: ExtractError if the document asks for a password."""
    encrypted = "encrypted-package" in archive
    if _MANIFEST in archive:
        root = archive.xml(_MANIFEST, may_have_dtd=True)  # the first OpenOffice wrote one
        encrypted = encrypted or any(local_name(each) in _ENCRYPTED for each in root.iter())
    if encrypted:
        raise ExtractError("it is protected by a password; save it without one")


def blocks(parent: Element, titles: frozenset[str] = frozenset()) -> Iterator[Block]:
    """Paragraphs, headings and tables below an element, in their order.

    Args:
        titles: names of the paragraph styles of a document's title, which is above all headings.
    """
    for child in parent:
        match local_name(child):
            case "h" | "p":
                yield from _paragraph(child, titles)
            case "table":
                yield 0, "\n".join(filter(None, (_row(each, titles) for each in _rows(child))))
            case name if name not in _SKIPPED:
                yield from blocks(child, titles)


def text_of(parent: Element) -> str:
    """All paragraphs below an element, one a line."""
    return "\n".join(text for _, text in blocks(parent) if text.strip())


def _paragraph(paragraph: Element, titles: frozenset[str]) -> Iterator[Block]:
    aside: list[Element] = []
    text = "".join(_inline(paragraph, aside)).strip()
    level = 0
    if local_name(paragraph) == "h":
        level = number(attribute(paragraph, "outline-level"), 1) + 1
    elif attribute(paragraph, "style-name") in titles:
        level = 1
    yield level, text
    for each in aside:
        yield from blocks(each, titles)


def _inline(parent: Element, aside: list[Element]) -> Iterator[str]:
    """The text of a paragraph; boxes, notes and comments in it go to `aside`."""
    yield _collapsed(parent.text)
    for child in parent:
        match local_name(child):
            case "s":
                yield " " * min(number(attribute(child, "c"), 1), _MAX_SPACES)
            case "tab":
                yield "\t"
            case "line-break":
                yield "\n"
            case name if name in _ASIDE:
                aside.append(child)
            case name if name not in _SKIPPED:
                yield from _inline(child, aside)
        yield _collapsed(child.tail)


def _collapsed(text: str | None) -> str:
    return _WHITE_SPACE.sub(" ", text or "")


def _rows(table: Element) -> Iterator[Element]:
    for child in table:
        if local_name(child) == "table-row":
            yield child
        else:  # groups and headers of rows
            yield from _rows(child)


def _row(row: Element, titles: frozenset[str]) -> str:
    cells = [" ".join(" ".join(text for _, text in blocks(each, titles)).split()) for each in row]
    return " | ".join(cells) if any(cells) else ""
