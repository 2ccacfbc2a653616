"""What readers of text build documents of: blocks that know their source lines, and headings that make sections."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gritdesk.records import Section

MAX_TITLE_CHARS = 500
"""A heading's own text is longer only where something is broken; patterns then take long over it."""


@dataclass(frozen=True)
class Block:
    """A piece of text whose lines stand one after another in the source."""

    text: str
    line: int
    """1-based line of the source where it begins."""
    heading: tuple[str, ...] = ()
    before: str = "\n\n"
    """What stands between it and the block before it."""


@dataclass(frozen=True)
class Heading:
    start: int
    """Character where the heading's own text begins, which belongs to its section."""
    line: int
    level: int
    """0 for the title of the document."""
    title: str


def join(blocks: Iterable[Block]) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of blocks without the empty ones; a section begins where counting lines would go wrong."""
    pieces: list[str] = []
    sections: list[Section] = []
    length, line = 0, 1
    for block in blocks:
        if not block.text:
            continue
        before = block.before if pieces else ""
        length, line = length + len(before), line + before.count("\n")
        if not sections or line != block.line or sections[-1].heading != block.heading:
            sections.append(Section(length if sections else 0, block.line, block.heading))
        pieces += before, block.text
        length, line = length + len(block.text), block.line + block.text.count("\n")
    return "".join(pieces), tuple(sections) or (Section(0, 1),)


def outline(headings: Iterable[Heading], first_line: int = 1) -> tuple[Section, ...]:
    """One section per heading, and one for what stands before the first; a heading lies below those of less level."""
    found = [Section(0, first_line)]
    path: list[Heading] = []
    for heading in headings:
        path = [each for each in path if each.level < heading.level] + [heading]
        if found[-1].start == heading.start:  # nothing stands before it, or a heading of which nothing is seen
            found.pop()
        found.append(Section(heading.start, heading.line, tuple(each.title for each in path)))
    return tuple(found)


def with_headings(text: str, lines: Sequence[Section], headings: Sequence[Section]) -> tuple[Section, ...]:
    """Sections with the lines of `lines` and the headings of `headings`, which both are of this text."""
    line_starts, heading_starts = [each.start for each in lines], [each.start for each in headings]
    found = []
    for start in sorted({*line_starts, *heading_starts}):
        placed, titled = lines[bisect_right(line_starts, start) - 1], headings[bisect_right(heading_starts, start) - 1]
        found.append(Section(start, placed.line + text.count("\n", placed.start, start), titled.heading))
    return tuple(found)
