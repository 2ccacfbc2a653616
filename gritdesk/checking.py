"""A citation -> where its words stand in the file now: unchanged, moved, changed or gone.

An index is as old as its last look at a file, and an answer as old as its asking; what a person is led to must be what
they were told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gritdesk import citing
from gritdesk.chunking import LineFinder
from gritdesk.errors import ExtractError
from gritdesk.extract import ZIP_SUFFIXES
from gritdesk.records import Citation, Document, Place

_NOT_AS_IT_STANDS = ZIP_SUFFIXES | {".pdf", ".rtf"}
_MIN_LIKENESS = 0.5
"""Below half of the words in common a sentence is another one, not the same one changed."""


def locate(citation: Citation, read: Callable[[Path], Document], max_bytes: int) -> Place:
    """Look for a citation's quote in its file as it is now.

    A text is looked through as it stands, in this process; what is not found so is read anew, as for the index.

    Args:
        read: as extract.worker.Reader.read.
        max_bytes: largest file that is looked through.
    """
    text = _text_as_it_stands(citation.path, max_bytes)
    if text is not None and (place := _find(citation, Document(citation.path, text, "text"))):
        return place
    try:
        document = read(citation.path)
    except ExtractError as error:
        return Place("gone", citation.line_start, citation.line_end, page=citation.page, reason=str(error))
    return _find(citation, document) or _nearest(citation, document)


def told(citation: Citation, place: Place) -> str:
    """A place in one line for a person; "" of what is unchanged."""
    now = f"page {place.page}" if place.page is not None else f"line {place.line_start}"
    before = f"page {citation.page}" if citation.page is not None else f"line {citation.line_start}"
    match place.state:
        case "unchanged":
            return ""
        case "moved":
            return f"it stood at {before} and stands at {now} now"
        case "changed":
            return f"the file has changed: these words are not in it any more; the nearest are at {now}"
        case "gone":
            return f"these words are not in the file any more ({place.reason}); they are shown as they were indexed"


def _text_as_it_stands(path: Path, max_bytes: int) -> str | None:
    """The text of a file of plain UTF-8; None of any other, and of what cannot be read."""
    if path.suffix.lower() in _NOT_AS_IT_STANDS:
        return None
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:
            return None
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return None


def _find(citation: Citation, document: Document) -> Place | None:
    """Where the quote stands, however its lines are broken: of several places the one nearest to where it stood."""
    words = citation.quote.split()
    if not words:
        return None
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    lines = LineFinder(document)
    places = [_place(citation, found.span(), document, lines) for found in pattern.finditer(document.text)]
    return min(places, key=lambda place: _shift(citation, place), default=None)


def _place(citation: Citation, span: tuple[int, int], document: Document, lines: LineFinder) -> Place:
    start, end = span
    section = lines.section(start)
    place = Place("unchanged", lines.line(start), lines.line(end - 1), document.text[start:end], section.page)
    return replace(place, state="moved") if _shift(citation, place) else place


def _shift(citation: Citation, place: Place) -> int:
    """Pages, or else lines, between where the quote stood and where it stands; of some formats many lines are cited."""
    if citation.page is not None and place.page is not None:
        return abs(place.page - citation.page)
    return max(citation.line_start - place.line_start, place.line_start - citation.line_end, 0)


def _nearest(citation: Citation, document: Document) -> Place:
    quoted = set(citing.words(citation.quote))
    best, likeness = (0, 0), 0.0
    for start, end in citing.sentences(document.text):
        words = set(citing.words(document.text[start:end]))
        shared = 2 * len(words & quoted) / max(1, len(words) + len(quoted))
        if shared > likeness:
            best, likeness = (start, end), shared
    if likeness < _MIN_LIKENESS:
        reason = "nothing like them stands there"
        return Place("gone", citation.line_start, citation.line_end, page=citation.page, reason=reason)
    lines = LineFinder(document)
    start, end = best
    quote, page = document.text[start:end], lines.section(start).page
    return Place("changed", lines.line(start), lines.line(end - 1), quote, page)
