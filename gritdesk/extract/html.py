"""HTML -> text as a browser shows it, every stretch with its line in the source.

Line breaks of the source stay in the text, so lines are counted from them; where the text runs ahead or falls
behind (a blank line between blocks, a tag over several lines), a new section says the true line. What is not read
by people (scripts, styles, navigation) is dropped. Nothing is fetched.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from gritdesk.records import Section

_DROPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "iframe", "object", "select", "button"})
_BLOCKS = frozenset(
    """address article aside blockquote body br caption center dd details dialog div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header hr html li main ol option p pre section summary table tbody td tfoot th thead
    title tr ul""".split()
)
_LINES = frozenset({"br", "dd", "dt", "li", "td", "th", "tr", "option"})
"""Blocks that begin a line of their own but no paragraph."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read(text: str) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a page."""
    parser = _Page()
    parser.feed(text)
    parser.close()
    return "".join(parser.pieces).rstrip(), tuple(parser.sections)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.sections = [Section(0, 1)]
        self._length = 0
        self._line = 1  # that the text's end would have, counted from the last section
        self._break = ""  # what to write before the next visible text
        self._dropped: list[str] = []
        self._preformatted = 0
        self._heading: list[tuple[int, str]] = []
        self._heading_level = 0
        self._heading_pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropped.append(tag)
        self._begin_block(tag)
        self._preformatted += tag == "pre"
        if tag in _HEADINGS and not self._dropped:
            self._heading_level, self._heading_pieces = _HEADINGS[tag], []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin_block(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._dropped:  # and with it what was left open inside
            del self._dropped[self._dropped.index(tag) :]
        self._begin_block(tag)
        self._preformatted -= tag == "pre" and self._preformatted > 0
        if tag in _HEADINGS:
            self._heading_level = 0

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if not self._preformatted:
            data = re.sub(r" ?\n ?", "\n", re.sub(r"[^\S\n]+", " ", data))
        visible = data
        if self._break or not self._length:  # a block does not begin with white space; code keeps its indentation
            visible = data.lstrip("\n" if self._preformatted else None)
        line = self.getpos()[0] + data[: len(data) - len(visible)].count("\n")
        trailing = "" if self._preformatted else visible[len(visible.rstrip()) :]
        visible = visible[: len(visible) - len(trailing)]
        if visible:
            if self._heading_level:
                self._add_heading(visible, line)
            self._add(visible, line)
        self._break = self._break or trailing or (data if not visible else "")[:1]

    def _begin_block(self, tag: str) -> None:
        if tag in _BLOCKS and not self._dropped:
            wanted = "\n" if tag in _LINES else "\n\n"
            self._break = max(self._break.strip(" "), wanted, key=len)

    def _add_heading(self, text: str, line: int) -> None:
        """Begin the heading's section with its first text; the title grows with each further piece."""
        is_new = not self._heading_pieces
        self._heading_pieces.append(text)
        title = " ".join("".join(self._heading_pieces).split())
        above = [each for each in self._heading if each[0] < self._heading_level]
        self._heading = [*above, (self._heading_level, title)]
        if is_new:
            self._write_break()
            self._begin_section(line)
        else:
            last = self.sections[-1]
            self.sections[-1] = Section(last.start, last.line, self._titles)

    def _add(self, text: str, line: int) -> None:
        self._write_break()
        if self._line != line:
            self._begin_section(line)
        self._write(text)

    def _write_break(self) -> None:
        if self._length:
            self._write(self._break)
        self._break = ""

    def _write(self, text: str) -> None:
        self.pieces.append(text)
        self._length += len(text)
        self._line += text.count("\n")

    def _begin_section(self, line: int) -> None:
        section = Section(self._length, line, self._titles)
        if self.sections[-1].start == section.start:
            self.sections.pop()
        self.sections.append(section)
        self._line = line

    @property
    def _titles(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._heading)
