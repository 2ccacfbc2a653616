"""Markdown: the text stays as it is, its headings make sections. What is fenced is code, not headings."""

from __future__ import annotations

import re

from gritdesk.records import Section

_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_TITLE = re.compile(r"[ \t]*$| {4}|\t|[ \t]*(?:[-*+>|#]|\d+[.)])(?:\s|$)| {0,3}(?:=+|-+)[ \t]*$")


def sections(text: str) -> tuple[Section, ...]:
    """One section per heading, and one for what stands before the first."""
    found = [Section(0, 1)]
    path: list[tuple[int, str]] = []
    front = _FRONT_MATTER.match(text)
    for start, line, level, title in _headings(text, front.end() if front else 0):
        path = [each for each in path if each[0] < level] + [(level, title)]
        section = Section(start, line, tuple(title for _, title in path))
        found = found if start else []  # a heading on the first line leaves nothing before it
        found.append(section)
    return tuple(found)


def _headings(text: str, at: int) -> list[tuple[int, int, int, str]]:
    """(character, line, level, title) of each heading from `at` on."""
    found = []
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
                found.append((at, number, len(heading[1]), _plain(heading[2] or "")))
            elif (underline := _SETEXT.match(line)) and not _NO_TITLE.match(before[0]):
                found.append((before[1], number - 1, 1 if underline[1].startswith("=") else 2, _plain(before[0])))
        before = (line_or_code, at)
        at += len(line) + 1
    return found


def _plain(title: str) -> str:
    """A title without emphasis, code marks and link targets."""
    return re.sub(r"[*`]", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip()
