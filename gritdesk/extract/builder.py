"""Blocks of text, one after the other -> a text and its sections, within a limit."""

from __future__ import annotations

from gritdesk.errors import ExtractError
from gritdesk.records import Section


class Builder:
    """A text that grows by blocks, its sections, and the headings above its end.

    Args:
        max_chars: what is longer is refused while it grows: a few bytes of some formats stand for any number of cells.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._pieces: list[str] = []
        self._length = 0
        self._line = 1
        self._headings: list[tuple[int, str]] = []
        self._sections: list[Section] = []
        self._begun: Section | None = Section(0, 1)
        """The section that begins with the next text, its start and, if 0, its line not known yet."""

    def add(self, text: str, gap: str = "\n\n") -> None:
        """Append a block; blank ones are left out.

        Raises: ExtractError if the text is too large.
        """
        if not text.strip():
            return
        if self._pieces:
            self._write(gap)
        if self._begun is not None:
            begun, self._begun = self._begun, None
            line = begun.line or self._line
            self._line = line
            self._sections.append(Section(self._length, line, begun.heading, begun.page))
        self._write(text)

    def begin(self, heading: tuple[str, ...] = (), *, line: int = 0, page: int | None = None) -> None:
        """Let a section begin with the next text; a line of 0 goes on counting the lines of the text itself."""
        self._begun = Section(0, line, heading, page)

    def add_heading(self, level: int, text: str) -> None:
        """Append a heading, 1 the outermost; it begins a section below those of lower levels."""
        title = " ".join(text.split())
        if title:
            self._headings = [each for each in self._headings if each[0] < level] + [(level, title)]
            self.begin(tuple(title for _, title in self._headings))
            self.add(text)

    def finish(self) -> tuple[str, tuple[Section, ...]]:
        """(text, sections)."""
        return "".join(self._pieces), tuple(self._sections) or (Section(0, 1),)

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._max_chars:
            raise too_much_text(self._max_chars)
        self._line += text.count("\n")
        self._pieces.append(text)


def too_much_text(max_chars: int) -> ExtractError:
    return ExtractError(f"its text is larger than {max_chars / 1e6:g} MB; raise index.max_file_mb to include it")
