"""Text of files and names becomes what a terminal may show: never parsed as markup, never obeyed as control codes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from rich.cells import cell_len, get_character_cell_size, set_cell_size
from textual.content import Content

from gritdesk.errors import QueryError
from gritdesk.extract import ZIP_SUFFIXES
from gritdesk.querying import parse
from gritdesk.records import Answer, Chunk, Citation, Hit
from gritdesk.store.words import is_stop_word

if TYPE_CHECKING:
    from gritdesk.model_facts import ModelFacts
    from gritdesk.models import ModelFile

Span = tuple[int, int]
"""Offsets of a text: from, and to."""

_TAB = "    "
# C0 and C1 controls drive terminals; the bidirectional overrides make a line read otherwise than it stands
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"\w+")
_PACKED_SUFFIXES = ZIP_SUFFIXES | {".pdf", ".rtf"}


def plain(text: str) -> str:
    """The text with every control code but the newline made visible or harmless."""
    return _UNSHOWABLE.sub("�", text.replace("\r\n", "\n").replace("\t", _TAB))


def one_line(text: str) -> str:
    """The text on one line, runs of whitespace as one space."""
    return plain(" ".join(text.split()))


def query_words(query: str) -> tuple[str, ...]:
    """The words of a query worth marking, lower case: those that say something, if there are any.

    Filters and what is left out are none of them.
    """
    with suppress(QueryError):
        asked = parse(query)
        query = " ".join((asked.text, *asked.literals))
    words = {word.lower() for word in _WORD.findall(query) if len(word) > 1}
    # "is" and "the" marked in every line hide what was looked for
    words = {word for word in words if not is_stop_word(word)} or words
    return tuple(sorted(words, key=len, reverse=True))


def word_spans(text: str, words: Sequence[str]) -> list[Span]:
    """Where words stand in the text that begin with one of `words`, in order."""
    return [found.span() for found in _beginning_with(tuple(words)).finditer(text)] if words else []


@lru_cache
def _beginning_with(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + ")", re.IGNORECASE)


def snippet_text(chunk: Chunk, words: Sequence[str], max_chars: int) -> tuple[str, list[Span]]:
    """The chunk on one line, from shortly before the first of `words`, and where those words stand in it."""
    text = one_line(chunk.text)
    first = _beginning_with(tuple(words)).search(text) if words else None
    start = 0
    if first is not None and first.start() > max_chars // 2:
        start = text.rfind(" ", 0, max(1, first.start() - max_chars // 4)) + 1
    shown = ("…" if start else "") + text[start : start + max_chars]
    return shown + ("…" if start + max_chars < len(text) else ""), word_spans(shown, words)


def snippet(chunk: Chunk, words: Sequence[str], max_chars: int) -> Content:
    """The text of `snippet_text` with those words marked."""
    text, spans = snippet_text(chunk, words, max_chars)
    content = Content(text)
    for start, end in spans:
        content = content.stylize("bold $text-accent", start, end)
    return content


def row_lengths(line: str, width: int) -> Iterator[int]:
    """Characters in each row of one line, between words where that is possible; an empty line is one row of none.

    A row is of at most `width` cells; the space behind its last word may come on top of them.
    """
    start = 0
    while True:
        fitting = _num_fitting(line, start, width)
        if start + fitting >= len(line):
            yield len(line) - start
            return
        space = line.rfind(" ", start + 1, start + fitting + 1)
        length = space + 1 - start if space > start else fitting
        yield length
        start += length


def _num_fitting(line: str, start: int, width: int) -> int:
    """How many characters from `start` fit `width` cells; at least one."""
    piece = line[start : start + width]
    if piece.isascii() or cell_len(piece) <= width:
        return max(1, len(piece))
    cells = 0
    for index, character in enumerate(piece):
        cells += get_character_cell_size(character)
        if cells > width:
            return max(1, index)
    return max(1, len(piece))


def cut_to(text: str, width: int) -> str:
    """At most so many cells of a text, the last an ellipsis if there was more."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def place(hit: Hit) -> str:
    """Where in its file a hit begins: a page, or a line."""
    return f"p. {hit.chunk.page}" if hit.chunk.page is not None else f"L{hit.chunk.line_start}"


def cited_place(citation: Citation) -> str:
    """Where the cited sentence stands: a page, or a line."""
    return f"p. {citation.page}" if citation.page is not None else f"L{citation.line_start}"


def speed(answer: Answer) -> str:
    """`2.4 s, first 0.4 s, 38 tokens/s`, as far as it was measured: all of it, the first piece, pieces a second."""
    timings, pace = answer.timings, answer.pieces_per_s
    parts = [f"{timings['total_s']:.1f} s"] if timings.get("total_s") else []
    if parts and timings.get("first_piece_s"):
        parts.append(f"first {timings['first_piece_s']:.1f} s")
    if parts and pace is not None:
        parts.append(f"{pace:.0f} tokens/s")
    return ", ".join(parts)


def heading_path(hit: Hit) -> str:
    """The headings above a hit, on one line."""
    return one_line(hit.chunk.heading).replace(" > ", " › ")


def short_folder(path: Path) -> str:
    """The folder of a path, with the home folder as ~."""
    return short_path(path.parent)


def short_path(path: Path) -> str:
    """A path with the home folder as ~; it stays as it is where no home is known."""
    home, shown = os.path.expanduser("~"), str(path)
    return plain("~" + shown[len(home) :] if shown == home or shown.startswith(home + os.sep) else shown)


def model_line(file: ModelFile, facts: ModelFacts | None) -> str:
    """What a person decides by: size, licence, family and quantization type of a model."""
    if facts is None:
        return f"{size(file.size_bytes)}, not to be read"
    licence = facts.licence or ("CC BY-SA 4.0" if file.is_default else "licence not said")
    does = "not usable here"
    if facts.grit is not None:
        does = "embeds and writes" if facts.grit.generates else "only embeds"
    parts = (size(file.size_bytes), licence, facts.family, facts.file_type, does)
    return plain(", ".join(part for part in parts if part))


def size(num_bytes: int) -> str:
    """ "812 B", "1.2 MB": three figures at most, in powers of a thousand."""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def ago(time_ns: int, now_s: float | None = None) -> str:
    """How long a point in time lies back, roughly: "5 minutes ago"; a date beyond a month, and of the future."""
    seconds = (time() if now_s is None else now_s) - time_ns / 1e9
    for limit, length, noun in (
        (90, 1, "second"),
        (5400, 60, "minute"),
        (129_600, 3600, "hour"),
        (2_592_000, 86_400, "day"),
    ):
        if 0 <= seconds < limit:
            number = round(seconds / length)
            return f"{number} {noun}{'' if number == 1 else 's'} ago"
    try:
        return f"on {date.fromtimestamp(time_ns // 1_000_000_000)}"
    except (OverflowError, OSError, ValueError):  # a file may claim to be from whatever year
        return "at a time no calendar has"


def opens_as_text(hit: Hit) -> bool:
    """Whether an editor would show the text we found in the file itself; others it would show as bytes."""
    return hit.chunk.page is None and hit.path.suffix.lower() not in _PACKED_SUFFIXES


@dataclass(frozen=True)
class Surroundings:
    """A stretch of a document around a passage: `text[start:end]` is the passage."""

    text: str
    start: int
    end: int
    first_line: int = 1
    """Line number of the text's first line in the source file."""
    is_whole: bool = True
    """False when the document goes on before or after."""


def surroundings(document_text: str | None, chunk: Chunk, margin_chars: int) -> Surroundings:
    """Cut whole lines around a chunk out of its document, at most `margin_chars` on either side.

    A document that is gone from the index, or changed since the search, gives the chunk alone.
    """
    located = _locate(document_text, chunk) if document_text is not None else None
    if document_text is None or located is None:
        return Surroundings(chunk.text, 0, len(chunk.text), chunk.line_start, is_whole=False)
    start, end = located
    first = 0 if start <= margin_chars else document_text.rfind("\n", 0, start - margin_chars) + 1
    first = max(first, start - 2 * margin_chars)  # one line may be the whole file
    last = len(document_text) if end + margin_chars >= len(document_text) else end + margin_chars
    newline = document_text.find("\n", last)
    last = len(document_text) if newline < 0 else newline
    last = min(last, end + 2 * margin_chars)
    first_line = max(1, chunk.line_start - document_text.count("\n", first, start))
    is_whole = first == 0 and last == len(document_text)
    return Surroundings(document_text[first:last], start - first, end - first, first_line, is_whole)


def _locate(document_text: str, chunk: Chunk) -> tuple[int, int] | None:
    if document_text[chunk.char_start : chunk.char_end] == chunk.text:
        return chunk.char_start, chunk.char_end
    start = document_text.find(chunk.text)
    return None if start < 0 else (start, start + len(chunk.text))
