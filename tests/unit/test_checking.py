"""A citation is looked for in its file as it is when it is opened: real files, changed under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gritdesk.checking import locate, told
from gritdesk.chunking import split
from gritdesk.extract.worker import Reader
from gritdesk.records import Citation, Document, Place

DATA = Path(__file__).parents[1] / "data"
NOTES = "# Tower\n\nThe lamp is cleaned every Monday.\n\nThe spare key is kept in the tea tin\non the kitchen shelf.\n"
KEY = "The spare key is kept in the tea tin\non the kitchen shelf."


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(1_000_000) as reader:
        yield reader


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.md"
    path.write_text(NOTES, encoding="utf-8")
    return path


def checked(citation: Citation, reader: Reader) -> Place:
    return locate(citation, reader.read, 1_000_000)


def unread(path: Path) -> Document:
    raise AssertionError(f"{path} was read by a child process, though it is plain text that still stands")


def test_words_that_stand_where_they_stood_are_found_without_a_reader(notes: Path) -> None:
    citation = Citation(1, notes, 5, 6, KEY)
    place = locate(citation, unread, 1_000_000)
    assert (place.state, place.line_start, place.line_end, told(citation, place)) == ("unchanged", 5, 6, "")


def test_words_that_moved_are_found_at_their_new_line(notes: Path, reader: Reader) -> None:
    notes.write_text("One more line.\n\n" + NOTES, encoding="utf-8")
    citation = Citation(1, notes, 5, 6, KEY)
    place = checked(citation, reader)
    assert (place.state, place.line_start, place.line_end) == ("moved", 7, 8)
    assert told(citation, place) == "it stood at line 5 and stands at line 7 now"


def test_words_whose_lines_are_broken_anew_still_stand(notes: Path, reader: Reader) -> None:
    notes.write_text(NOTES.replace("tin\non", "tin on"), encoding="utf-8")
    place = checked(Citation(1, notes, 5, 6, KEY), reader)
    assert (place.state, place.line_start, place.line_end) == ("unchanged", 5, 5)


def test_words_that_stand_twice_are_found_where_they_stood(notes: Path, reader: Reader) -> None:
    notes.write_text(NOTES + "\n" * 20 + NOTES, encoding="utf-8")
    place = checked(Citation(1, notes, 33, 33, "The lamp is cleaned every Monday."), reader)
    assert (place.state, place.line_start) == ("moved", 29)


def test_changed_words_lead_to_the_nearest_sentence_that_stands(notes: Path, reader: Reader) -> None:
    notes.write_text(NOTES.replace("tea tin", "blue jar"), encoding="utf-8")
    citation = Citation(1, notes, 5, 6, KEY)
    place = checked(citation, reader)
    assert (place.state, place.line_start) == ("changed", 5)
    assert place.quote == KEY.replace("tea tin", "blue jar")
    assert "not in it any more; the nearest are at line 5" in told(citation, place)


@pytest.mark.parametrize("change", ["delete", "rewrite", "bytes"])
def test_words_that_are_gone_are_said_to_be_gone_with_the_reason(notes: Path, reader: Reader, change: str) -> None:
    if change == "delete":
        notes.unlink()
    else:
        notes.write_bytes(b"Nothing of that kind.\n" if change == "rewrite" else bytes(range(256)) * 8)
    citation = Citation(1, notes, 5, 6, KEY)
    place = checked(citation, reader)
    assert place.state == "gone" and place.reason
    assert "shown as they were indexed" in told(citation, place)


@pytest.mark.parametrize("name", ["report.pdf", "guide.docx", "page.html", "talk.odp", "notes.md", "module.py"])
def test_every_passage_of_every_format_stands_where_the_index_says(name: str, reader: Reader) -> None:
    document = reader.read(DATA / name)
    for chunk in split(document, lambda texts: [len(text) // 4 + 1 for text in texts], 64):
        citation = Citation(1, document.path, chunk.line_start, chunk.line_end, chunk.text, chunk.page)
        place = checked(citation, reader)
        assert place.state == "unchanged", (chunk.text, place)
        assert place.page == chunk.page
