"""Document -> [Chunk]: whole paragraphs, packed up to a number of the model's tokens.

A text is first cut into atoms, spans that tile it and that are too short to exceed the limit: a token is at least
one byte, so a span of `max_tokens` bytes always fits. Sentences are atoms as a rule; only longer ones are cut at
lines, then words, then characters. All atoms are counted in one call (the counter lives in another process), and
chunks are sums of atoms. A chunk breaks at the strongest border that keeps it within the limit:

    STRETCH     another heading or page begins (small neighbours under one parent are joined afterwards)
    PARAGRAPH   a blank line; a block of code in a text counts as one paragraph while it fits
    SENTENCE    the end of a sentence, a list item; in code, tables and sheets: a line
    PIECE       inside of a sentence

A sum may exceed a chunk's true count by a token or two per atom, never the other way in practice.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby, takewhile

from gritdesk.records import Chunk, Document, Section


class Border(IntEnum):
    PIECE = 0
    SENTENCE = 1
    PARAGRAPH = 2
    STRETCH = 3


_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_FENCES = {
    "markdown": _FENCE,
    "notebook": _FENCE,
    "org": re.compile(
        r"^[ \t]*#\+begin_(\w+)[^\n]*\n.*?(?:^[ \t]*#\+end_\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL | re.IGNORECASE
    ),
    "rst": re.compile(  # what ends in two colons, and what is indented below it
        r"^([ \t]*)(?:\.\. [\w-]+::[^\n]*|(?=\S)[^\n]*::[ \t]*)\n(?:\1[ \t]+:\w[^\n]*\n)*(?:[ \t]*\n)+"
        r"(?:\1[ \t]+\S[^\n]*(?:\n|\Z)(?:[ \t]*\n)*)+",
        re.MULTILINE,
    ),
}
"""How code is set apart in texts of these formats."""
_LINE_FORMATS = frozenset({"code", "csv", "xlsx", "ods"})
"""Where a line is what a sentence is elsewhere: a statement, a row."""
_SENTENCE_END = re.compile(
    r"""[.!?…]["'”’)\]]*(?:[ \t]+|[ \t]*\n)(?=\s*[^a-z\s])"""  # a small letter goes on after an abbreviation
    r"""|[。！？]\s*"""
    r"""|\n(?=[ \t]*(?:[-*+•|]|\d{1,3}[.)])[ \t])"""  # a list item or table row
)
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")

_SMALL = 4
"""A chunk of less than 1/_SMALL of the limit is joined with its neighbour where headings and page allow."""


@dataclass(frozen=True)
class _Atom:
    start: int
    end: int
    border: Border
    """What stands before it."""
    num_tokens: int = 0


@dataclass(frozen=True)
class _Span:
    """A chunk before it has its text: characters, the place they belong to, and tokens."""

    start: int
    end: int
    heading: tuple[str, ...]
    page: int | None
    num_tokens: int


def split(document: Document, count_tokens: Callable[[Sequence[str]], list[int]], max_tokens: int = 256) -> list[Chunk]:
    """Cut a document into chunks of at most `max_tokens` tokens; together they hold all of it but white space.

    Args:
        count_tokens: number of tokens of each text; called once, not at all for a text of white space.
    """
    stretches = _stretches(document)
    atoms = [atom for start, end, _ in stretches for atom in _atoms(document, start, end, max_tokens)]
    if not document.text.strip():
        return []
    counts = count_tokens([document.text[atom.start : atom.end] for atom in atoms])
    atoms = [_Atom(atom.start, atom.end, atom.border, count) for atom, count in zip(atoms, counts, strict=True)]
    spans = []
    for start, end, section in stretches:
        for group in _pack(_between(atoms, start, end), max_tokens, Border.PARAGRAPH):
            if visible := _without_blank_ends(document.text, group):
                place = (visible[0].start, visible[-1].end, section.heading, section.page)
                spans.append(_Span(*place, num_tokens=_sum(visible)))
    lines = LineFinder(document)
    return [_chunk(document, span, lines) for span in _join_small(document.text, spans, max_tokens)]


def _stretches(document: Document) -> list[tuple[int, int, Section]]:
    """(start, end, first section) of each run of sections with one heading and page."""
    runs = [next(run) for _, run in groupby(document.sections, key=lambda each: (each.heading, each.page))]
    ends = [*(section.start for section in runs[1:]), len(document.text)]
    return [(section.start, end, section) for section, end in zip(runs, ends, strict=True) if section.start < end]


# ---------------------------------------------------------------- atoms


def _atoms(document: Document, start: int, end: int, max_bytes: int) -> Iterator[_Atom]:
    """Spans that tile a stretch, each of at most `max_bytes` bytes."""
    text = document.text[start:end]
    paragraphs = _paragraph_starts(text, document.format)
    sentence_end = _LINE_END if document.format in _LINE_FORMATS else _SENTENCE_END
    sentences = {match.end() for match in sentence_end.finditer(text)} | paragraphs
    if fences := _fences(text, document.format):
        lines = {match.end() for fence in fences for match in _LINE_END.finditer(text, *fence)}
        sentences = _outside(sentences, fences) | lines  # code has lines, not sentences
    starts = [0, *sorted(each for each in sentences if 0 < each < len(text))]
    for at, next_at in zip(starts, [*starts[1:], len(text)], strict=True):
        border = Border.STRETCH if at == 0 else Border.PARAGRAPH if at in paragraphs else Border.SENTENCE
        for piece_start, piece_end in _pieces(text, at, next_at, max_bytes):
            yield _Atom(start + piece_start, start + piece_end, border)
            border = Border.PIECE


def _paragraph_starts(text: str, format_: str) -> set[int]:
    starts = {match.end() for match in _BLANK_LINES.finditer(text)}
    if fences := _fences(text, format_):
        starts = _outside(starts, fences) | {fence_start for fence_start, _ in fences}
    return starts


def _fences(text: str, format_: str) -> list[tuple[int, int]]:
    return [match.span() for match in _FENCES[format_].finditer(text)] if format_ in _FENCES else []


def _outside(positions: set[int], fences: Sequence[tuple[int, int]]) -> set[int]:
    """The positions that lie in none of the fences, which are sorted; a fence's own borders do not lie in it."""
    fence_starts = [fence_start for fence_start, _ in fences]

    def is_outside(position: int) -> bool:
        number = bisect_left(fence_starts, position) - 1
        return number < 0 or position >= fences[number][1]

    return {each for each in positions if is_outside(each)}


def _pieces(text: str, start: int, end: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut one sentence at lines, where still too long at words, where still too long at characters."""
    if _num_bytes(text[start:end]) <= max_bytes:
        yield start, end
        return
    for line_start, line_end in _cut(text, start, end, _LINE_END):
        if _num_bytes(text[line_start:line_end]) <= max_bytes:
            yield line_start, line_end
            continue
        words = [
            piece
            for word in _cut(text, line_start, line_end, _WORD_END)
            for piece in _characters(text, *word, max_bytes)
        ]
        yield from _grouped(text, words, max_bytes)


def _cut(text: str, start: int, end: int, after: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    at = start
    for match in after.finditer(text, start, end):
        if match.end() < end:
            yield at, match.end()
            at = match.end()
    yield at, end


def _characters(text: str, start: int, end: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a word that is too long, not between a letter and what combines with it."""
    if _num_bytes(text[start:end]) <= max_bytes:
        yield start, end
        return
    step = max(1, max_bytes // 4)  # a character is at most four bytes
    while end - start > step:
        cut = start + step
        while cut > start + 1 and _combines(text, cut):
            cut -= 1
        if cut == start + 1 and _combines(text, cut):  # nothing but combining characters: cut among them
            cut = start + step
        yield start, cut
        start = cut
    yield start, end


def _combines(text: str, at: int) -> bool:
    """Whether the character at `at` belongs to the one before it: accents, emoji joined to one or coloured."""
    character = text[at]
    return (
        unicodedata.combining(character) != 0
        or character in "\u200d\ufe0e\ufe0f"
        or text[at - 1] == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _grouped(text: str, pieces: Sequence[tuple[int, int]], max_bytes: int) -> Iterator[tuple[int, int]]:
    start, end = pieces[0]
    for piece_start, piece_end in pieces[1:]:
        if _num_bytes(text[start:piece_end]) > max_bytes:
            yield start, end
            start = piece_start
        end = piece_end
    yield start, end


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# ---------------------------------------------------------------- packing


def _pack(atoms: Sequence[_Atom], max_tokens: int, border: Border) -> Iterator[list[_Atom]]:
    """Groups of neighbouring atoms within the limit, broken at `border` where possible and of about equal size."""
    remaining = _sum(atoms)
    group: list[_Atom] = []
    size = 0
    for unit in _units(atoms, border):
        unit_size = _sum(unit)
        fair_size = remaining / max(1, -(-remaining // max_tokens))
        if group and (size + unit_size > max_tokens or size >= fair_size):
            yield group
            remaining -= size
            group, size = [], 0
        if unit_size > max_tokens and border > Border.PIECE:
            *whole, group = _pack(unit, max_tokens, Border(border - 1))
            yield from whole
            remaining -= sum(map(_sum, whole))
            size = _sum(group)
        else:
            group = group + unit
            size += unit_size
    if group:
        yield group


def _units(atoms: Sequence[_Atom], border: Border) -> Iterator[list[_Atom]]:
    unit: list[_Atom] = []
    for atom in atoms:
        if unit and atom.border >= border:
            yield unit
            unit = []
        unit.append(atom)
    if unit:
        yield unit


def _join_small(text: str, spans: Sequence[_Span], max_tokens: int) -> list[_Span]:
    """Join a small span with the one before it where both are of one page and of one parent heading."""
    joined: list[_Span] = []
    for span in spans:
        while joined and (both := _joined(text, joined[-1], span, max_tokens)):
            joined.pop()
            span = both
        joined.append(span)
    return joined


def _joined(text: str, first: _Span, second: _Span, max_tokens: int) -> _Span | None:
    gap = text[first.end : second.start]  # blank atoms that neither holds: at most a token per byte
    size = first.num_tokens + _num_bytes(gap) + second.num_tokens
    common = _common(first.heading, second.heading)
    is_neighbour = first.page == second.page and len(common) >= max(len(first.heading), len(second.heading)) - 1
    small = [span.num_tokens * _SMALL < max_tokens for span in (first, second)]
    may_join = any(small) if first.heading == second.heading else small[0] if common == first.heading else all(small)
    if not is_neighbour or not may_join or size > max_tokens:
        return None
    num_lines = sum(1 for line in text[first.start : first.end].splitlines() if line.strip())
    is_heading_only = common == first.heading and num_lines <= len(common)
    return _Span(first.start, second.end, second.heading if is_heading_only else common, first.page, size)


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))]


def _without_blank_ends(text: str, group: Sequence[_Atom]) -> Sequence[_Atom]:
    visible = [at for at, atom in enumerate(group) if not text[atom.start : atom.end].isspace()]
    return group[visible[0] : visible[-1] + 1] if visible else []


def _sum(atoms: Sequence[_Atom]) -> int:
    return sum(atom.num_tokens for atom in atoms)


def _between(atoms: Sequence[_Atom], start: int, end: int) -> Sequence[_Atom]:
    first = bisect_right(atoms, start - 1, key=lambda atom: atom.start)
    return atoms[first : bisect_right(atoms, end - 1, key=lambda atom: atom.start)]


# ---------------------------------------------------------------- places


def _chunk(document: Document, span: _Span, lines: LineFinder) -> Chunk:
    text = document.text[span.start : span.end]
    first_visible = span.start + len(text) - len(text.lstrip())
    start = max(span.start, document.text.rfind("\n", 0, first_visible) + 1)  # keeps the first line's indentation
    end = span.start + len(text.rstrip())
    return Chunk(
        document.text[start:end],
        start,
        end,
        lines.line(start),
        lines.line(end - 1),
        " > ".join(span.heading),
        span.page,
        span.num_tokens,
    )


class LineFinder:
    """Source line of a character: the section's line plus the newlines since its start, counted once forward."""

    def __init__(self, document: Document) -> None:
        self._sections = document.sections
        self._starts = [section.start for section in document.sections]
        self._newlines = [match.start() for match in _LINE_END.finditer(document.text)]

    def section(self, at: int) -> Section:
        return self._sections[bisect_right(self._starts, at) - 1]

    def line(self, at: int) -> int:
        section = self.section(at)
        return section.line + bisect_right(self._newlines, at - 1) - bisect_right(self._newlines, section.start - 1)
