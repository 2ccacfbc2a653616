"""Markdown: the text stays as it is, its headings make sections. What is fenced is code, not headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gritdesk.extract.source_lines import MAX_TITLE_CHARS, Heading, outline
from gritdesk.records import Section

_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n.*?^(?:\1|\.\.\.)[ \t]*$", re.MULTILINE | re.DOTALL)
_FRONT_TITLE = re.compile(r"""^title[ \t]*[:=][ \t]*(?:"([^"\n]+)"|'([^'\n]+)'|([^\s|>][^\n#]*))""", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_TITLE = re.compile(r"[ \t]*$| {4}|\t|[ \t]*(?:[-*+>|#]|\d+[.)])(?:\s|$)| {0,3}(?:=+|-+)[ \t]*$")


def sections(text: str) -> tuple[Section, ...]:
    """One section per heading, below the front matter's title, and one for what stands before the first."""
    front = _FRONT_MATTER.match(text)
    headings = [*_headings(text, front.end() if front else 0)]
    title = _FRONT_TITLE.search(front[0]) if front else None
    if title and (named := (title[1] or title[2] or title[3]).strip()) not in [each.title for each in headings[:1]]:
        headings.insert(0, Heading(0, 1, 0, named))
    return outline(headings)


def _headings(text: str, at: int) -> Iterator[Heading]:
    """Each heading from `at` on."""
    fence = ""
    before = ("", 0)
    for number, line in enumerate(text[at:].split("\n"), start=1 + text.count("\n", 0, at)):
        marks = match[1] if (match := _FENCE.match(line)) else ""
        if fence:
            fence = "" if marks.startswith(fence) and not line.strip(" \t`~") else fence
            line_or_code = ""
        elif marks:
            fence, line_or_code = marks, ""
        else:
            line_or_code = line
            if heading := _ATX.match(line):
                if title := _plain((heading[2] or "")[:MAX_TITLE_CHARS]):
                    yield Heading(at, number, len(heading[1]), title)
            elif (underline := _SETEXT.match(line)) and not _NO_TITLE.match(before[0]):
                title = _plain(before[0][:MAX_TITLE_CHARS])
                yield Heading(before[1], number - 1, 1 if underline[1].startswith("=") else 2, title)
        before = (line_or_code, at)
        at += len(line) + 1


def _plain(title: str) -> str:
    """A title without emphasis, code marks and link targets."""
    return re.sub(r"[*`]", "", re.sub(r"!?\[([^\]]{0,500})\]\([^)]{0,500}\)", r"\1", title)).strip()
