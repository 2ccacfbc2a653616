"""Source code: the text stays as it is, its top-level definitions make sections.

A definition is known by its first line at the left margin, in the spelling that most languages share. Comments and
decorators right above it belong to it.
"""

from __future__ import annotations

import re

from gritdesk.records import Section

_DEFINITION = re.compile(
    r"""^(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([a-z]+\))?|unsafe
        |open|sealed|data)\ +)*
        (?:def|class|function\*?|func|fun|fn|struct|enum|interface|trait|impl(?:<[^>]*>)?|module|namespace|object
        |protocol|type|sub|macro_rules!)\ +(?:\([^)]*\)\ *)?([A-Za-z_$][\w$.]*(?:::[\w$]+)*)""",
    re.MULTILINE | re.VERBOSE,
)
_ABOVE = re.compile(r"[@#*]|//|--|/\*|\*/| \*")


def sections(text: str) -> tuple[Section, ...]:
    """One section per top-level definition, and one for what stands before the first."""
    found = [Section(0, 1)]
    line, counted = 1, 0
    for match in _DEFINITION.finditer(text):
        start = _with_lines_above(text, match.start(), found[-1].start)
        line, counted = line + text.count("\n", counted, start), start
        found = found if start else []
        found.append(Section(start, line, (match[1],)))
    return tuple(found)


def _with_lines_above(text: str, start: int, floor: int) -> int:
    while start > floor:
        above = text.rfind("\n", 0, start - 1) + 1
        if above <= floor or not _ABOVE.match(text, above):
            break
        start = above
    return start
