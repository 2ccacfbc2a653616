"""Org: the text stays as it is, its headlines make sections. Stars at the margin make one, also in blocks.

Source: https://orgmode.org/worg/org-syntax.html, "Headings".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gritdesk.extract.source_lines import MAX_TITLE_CHARS, Heading, outline
from gritdesk.records import Section

_HEADLINE = re.compile(r"^(\*+)[ \t]+(\S[^\n]*)$", re.MULTILINE)
_TITLE = re.compile(r"^#\+TITLE:[ \t]*(\S[^\n]*)$", re.MULTILINE | re.IGNORECASE)
_STATE = re.compile(r"(?:TODO|DONE|NEXT|WAIT(?:ING)?|HOLD|STARTED|PROJ|CANCELL?ED|KILL)[ \t]+(?=\S)")
_PRIORITY = re.compile(r"\[#\w+\][ \t]*")
_TAGS = re.compile(r"[ \t]+:[\w@#%:]+:[ \t]*$")
_LINK = re.compile(r"\[\[(?:[^\]]{0,500}\]\[)?([^\]]{0,500})\]\]")


def sections(text: str) -> tuple[Section, ...]:
    """One section per headline, below the title if there is one, and one for what stands before the first."""
    return outline(_headings(text))


def _headings(text: str) -> Iterator[Heading]:
    line, counted = 1, 0
    if (title := _TITLE.search(text)) and not _HEADLINE.search(text, 0, title.start()):
        yield Heading(0, 1, 0, title[1].strip())
    for match in _HEADLINE.finditer(text):
        line, counted = line + text.count("\n", counted, match.start()), match.start()
        yield Heading(match.start(), line, len(match[1]), _plain(match[2][:MAX_TITLE_CHARS]))


def _plain(title: str) -> str:
    """A headline without its state, priority, tags and link targets."""
    title = _PRIORITY.sub("", _STATE.sub("", title, count=1) if _STATE.match(title) else title, count=1)
    return _LINK.sub(r"\1", _TAGS.sub("", title)).strip()
