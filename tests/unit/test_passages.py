"""Passages hold each text once; what is made longer than a chunk still stands at its lines of its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gritdesk import citing
from gritdesk.answerer import Answerer
from gritdesk.chunking import split
from gritdesk.config import AnswerConfig
from gritdesk.grit_format import chat_frame
from gritdesk.passages import gather, readings
from gritdesk.records import Chunk, Document, Hit, Section
from gritdesk.store.base import FileState
from gritdesk.store.sqlite import SqliteStore

NOTES = """# Lamp

The lamp is cleaned every Monday before ten.

# Horn

The fog horn is tested on Fridays at noon.

# Boat

The boat is called Marigold and was built in Leith.

# Bees

The bees gave thirty kilograms of honey this year.
"""


def stored(
    text: str, name: str = "notes.md", sections: tuple[Section, ...] | None = None
) -> tuple[SqliteStore, list[Hit]]:
    """An index of one file, and its chunks as hits."""
    store = SqliteStore(":memory:")
    add(store, text, name, sections)
    return store, [Hit(n, Path(name), chunk, 1.0 / (n + 1)) for n, chunk in enumerate(store.chunks_of(Path(name)))]


def add(store: SqliteStore, text: str, name: str, sections: tuple[Section, ...] | None = None) -> None:
    headings = (Section(text.index(line), text.count("\n", 0, text.index(line)) + 1, (line[2:],)) for line in HEADINGS)
    document = Document(Path(name), text, "markdown", sections or tuple(headings))
    chunks = split(document, lambda texts: [len(each.split()) for each in texts], 12)
    hashes = [f"{name} {n}".encode() for n in range(len(chunks))]
    store.replace_document(document, FileState(len(text), 0, ""), chunks, hashes)


HEADINGS = ("# Lamp", "# Horn", "# Boat", "# Bees")


def test_neighbours_become_one_passage_at_their_lines_whatever_their_order() -> None:
    store, (lamp, horn, boat, bees) = stored(NOTES)
    for hits in ([lamp, horn, boat], [lamp, boat, horn], [boat, horn, lamp]):
        (passage,) = gather(hits, 3, store, 36)
        assert passage.chunk.text == NOTES[lamp.chunk.char_start : boat.chunk.char_end]
        assert (passage.chunk.line_start, passage.chunk.line_end) == (lamp.chunk.line_start, boat.chunk.line_end)
        assert passage.chunk_id == hits[0].chunk_id
        (citation,) = citing.resolve_citations("It is tested on Fridays at noon [1].", [passage])
        assert (
            NOTES.splitlines()[citation.line_start - 1]
            == citation.quote
            == "The fog horn is tested on Fridays at noon."
        )
    assert [each.chunk for each in gather([lamp, boat, bees], 3, store, 36)][0] == lamp.chunk


def test_passages_keep_the_place_of_their_best_hit() -> None:
    store, (lamp, horn, boat, bees) = stored(NOTES)
    other = replace(lamp, path=Path("other.md"), chunk=replace(lamp.chunk, text="Something else."))
    assert [each.path.name for each in gather([lamp, other, horn], 3, store, 36)] == ["notes.md", "other.md"]
    assert [each.path.name for each in gather([other, lamp, horn], 3, store, 36)] == ["other.md", "notes.md"]


def test_short_file_is_read_as_a_whole() -> None:
    store, (lamp, horn, boat, bees) = stored(NOTES)
    (passage,) = gather([boat, lamp], 3, store, 100)
    assert passage.chunk.text.strip() == NOTES.strip() and passage.chunk_id == boat.chunk_id
    (citation,) = citing.resolve_citations("[1] thirty kilograms", [passage])
    assert NOTES.splitlines()[citation.line_start - 1] == citation.quote
    assert [each.chunk for each in gather([boat, lamp], 3, store, 0)] == [boat.chunk, lamp.chunk]


def test_pages_stay_apart_so_that_a_citation_names_the_right_one() -> None:
    sections = tuple(Section(NOTES.index(each), 1, (), page) for page, each in enumerate(HEADINGS, start=1))
    store, (lamp, horn, *_) = stored(NOTES, "notes.pdf", sections)
    assert [each.chunk.page for each in gather([lamp, horn], 3, store, 100)] == [1, 2]


def test_text_that_was_changed_since_it_was_found_is_not_joined() -> None:
    store, (lamp, horn, *_) = stored(NOTES)
    add(store, NOTES.replace("# Lamp", "# The lamp\n# Lamp"), "notes.md")
    assert gather([lamp, horn], 3, store, 100) == [lamp, horn]


def test_copies_count_once_and_make_room_for_another_text() -> None:
    def hit(text: str, name: str) -> Hit:
        return Hit(1, Path(name), Chunk(text, 0, len(text), 1, 1), 1.0)

    first, copy, part, other = (
        hit("Tea is at  four. Bring cake.", "a"),
        hit("tea is at four.\nBring cake.", "b"),
        hit("Bring cake.", "c"),
        hit("The boat leaves.", "d"),
    )
    assert gather([first, copy, part, other], 2, None, 0) == [first, other]


def test_prompt_that_whole_files_do_not_fit_into_has_the_passages_as_they_were_found() -> None:
    store, (lamp, horn, boat, bees) = stored(NOTES)
    for name in ("second.md", "third.md"):
        add(store, NOTES.replace("lamp", name).replace("horn", name), name)
    hits = [
        Hit(n, Path(name), store.chunks_of(Path(name))[0], 1.0)
        for n, name in enumerate(("notes.md", "second.md", "third.md"))
    ]

    class Engine:
        def count_prompt_tokens(self, turns: object) -> int:
            return sum(len(segment.text.split()) for segment in chat_frame(turns))  # type: ignore[arg-type]

        stream = None

    answerer = Answerer(lambda line, n: hits, Engine(), 120, AnswerConfig(max_tokens=10), files=store)  # type: ignore[arg-type]
    assert answerer.prompt("When is the lamp cleaned?").hits == tuple(hits)
    roomy = Answerer(lambda line, n: hits, Engine(), 400, AnswerConfig(max_tokens=10), files=store)  # type: ignore[arg-type]
    prompt = roomy.prompt("When is the lamp cleaned?")
    assert all("honey" in each.chunk.text for each in prompt.hits) and len(prompt.hits) == 3
    assert prompt.num_tokens == Engine().count_prompt_tokens(prompt.turns)


def test_a_short_file_is_kept_as_prompts_hold_it_and_a_long_one_in_its_chunks() -> None:
    store, hits = stored(NOTES)
    path = Path("notes.md")
    assert readings(path, store, 1000) == [gather(hits[:1], 3, store, 1000)[0].chunk.text]
    assert readings(path, store, 12) == [hit.chunk.text for hit in hits]
    assert readings(Path("none.md"), store, 12) == []
