"""reStructuredText: the text stays as it is, its titles make sections.

A title is known by the line of punctuation under it, or around it. Which of them is above which says only their order
in the document (docutils' specification, "Sections").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gritdesk.extract.source_lines import MAX_TITLE_CHARS, Heading, outline
from gritdesk.records import Section

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*")
_ROLE = re.compile(r"(?::[\w.+:-]+:)?`([^`<]*?)(?:\s*<[^`>]*>)?`_{0,2}")


def sections(text: str) -> tuple[Section, ...]:
    """One section per title, and one for what stands before the first."""
    return outline(_headings(text.split("\n")))


def _headings(lines: list[str]) -> Iterator[Heading]:
    styles: list[tuple[str, bool]] = []
    start = 0
    for at, line in enumerate(lines):
        overlined = _is_overlined(lines, at)
        if overlined or _is_underlined(lines, at):
            title = lines[at + 1] if overlined else line
            style = ((line if overlined else lines[at + 1])[0], overlined)
            if style not in styles:
                styles.append(style)
            yield Heading(start, at + 1, styles.index(style) + 1, _plain(title[:MAX_TITLE_CHARS]))
        start += len(line) + 1


def _is_overlined(lines: list[str], at: int) -> bool:
    above, title, below, *after = [*lines[at : at + 4], "", "", ""][:4]
    return (
        _ADORNMENT.fullmatch(above) is not None
        and above.rstrip() == below.rstrip()
        and bool(title.strip())
        and not _ADORNMENT.fullmatch(title)
        and not any(each.strip() for each in after)  # text there is a row: the lines are those of a table
    )


def _is_underlined(lines: list[str], at: int) -> bool:
    if at + 1 == len(lines) or not lines[at].strip() or lines[at][0] in " \t" or _ADORNMENT.fullmatch(lines[at]):
        return False
    underline = lines[at + 1].rstrip()
    is_long_enough = len(underline) >= min(4, len(lines[at].rstrip()))  # docutils warns of short ones and takes them
    return is_long_enough and _ADORNMENT.fullmatch(underline) is not None and (at == 0 or not lines[at - 1].strip())


def _plain(title: str) -> str:
    """A title without emphasis, roles and link targets."""
    return re.sub(r"[*`|]", "", _ROLE.sub(r"\1", title.replace("``", ""))).strip()
