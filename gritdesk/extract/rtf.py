"""rtf -> text, a paragraph or table row a line; lines are those of this text."""

from __future__ import annotations

import re

from gritdesk.errors import ExtractError
from gritdesk.records import Section

_PICTURE = re.compile(r"(?:[0-9a-fA-F]{64,}\s*){2,}")
"""Bytes of a picture; striprtf looks at each character, which took a second for a megabyte."""


def read(content: bytes) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: ExtractError if it is damaged.
    """
    from striprtf.striprtf import rtf_to_text

    source = _PICTURE.sub("", content.decode("latin-1"))
    source = source.replace("{\\field", "\n{\\field")  # its pattern for links goes through the rest of a line for each
    try:
        text: str = rtf_to_text(source, errors="replace")
    except Exception as error:  # it has no error of its own and lets through whatever a strange number raises
        raise ExtractError("it is a damaged RTF; open it in an office program and save it anew") from error
    return _paragraphs(text), (Section(0, 1),)


def _paragraphs(text: str) -> str:
    """Lines parted by a blank one, as paragraphs are, but for the rows of a table."""
    pieces: list[str] = []
    was_row = False
    for line in text.split("\n"):
        is_row = line.rstrip().endswith("|")
        if is_row:
            line = " | ".join(cell.strip() for cell in line.rstrip(" |").split("|"))
        if line.strip():
            pieces += ["\n" if is_row and was_row else "\n\n" if pieces else "", line.rstrip()]
            was_row = is_row
    return "".join(pieces)
