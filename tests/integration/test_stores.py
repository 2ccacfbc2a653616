"""What every store does (gritdesk/store/base.py), asked of both: an SQLite file, and a real PostgreSQL server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from postgres_server import PostgresServer

from gritdesk.errors import FingerprintMismatch, StoreError
from gritdesk.records import Chunk, Document, FailedFile, Hit, Scope
from gritdesk.store.base import FileState, Space, Store
from gritdesk.store.postgres import PostgresStore
from gritdesk.store.postgres_connection import parse_address
from gritdesk.store.sqlite import SqliteStore

DIMENSION = 8
SPACE = Space("model-a", DIMENSION, "/models/a.gguf")
STATE = FileState(10, 20, "abc", reading="reading 1")

OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens one and the same index, empty at first, as often as it is called."""
    with ExitStack() as stores:
        if request.param == "sqlite":
            yield lambda: stores.enter_context(SqliteStore(tmp_path / "index.sqlite"))
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            server.empty("gritdesk")
            yield lambda: stores.enter_context(PostgresStore(parse_address(server.url())))


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


def chunks_of(text: str, heading: str = "Top > Below") -> list[Chunk]:
    """One chunk per paragraph."""
    chunks, at = [], 0
    for paragraph in text.split("\n\n"):
        start = text.index(paragraph, at)
        at = start + len(paragraph)
        line = 1 + text.count("\n", 0, start)
        chunks.append(Chunk(paragraph, start, at, line, line, heading, 7, 3))
    return chunks


def hash_of(text: str) -> bytes:
    return b"hash of " + text.encode()


def add(store: Store, path: str | Path, text: str, state: FileState = STATE, heading: str = "Top > Below") -> None:
    chunks = chunks_of(text, heading)
    document = Document(Path(path), text, "markdown")
    store.replace_document(document, state, chunks, [hash_of(chunk.text) for chunk in chunks])


def vector(text: str, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """One that the text alone decides, of length 1."""
    row = np.random.default_rng(list(text.encode())).normal(size=dimension)
    return (row / np.linalg.norm(row)).astype(np.float32)


def embed_all(store: Store, dimension: int = DIMENSION) -> int:
    """Embed whatever awaits it; returns how many."""
    num = 0
    while awaiting := store.awaiting(3):
        store.add_embeddings({hash_: vector(chunk.text, dimension) for hash_, chunk in awaiting})
        num += len(awaiting)
    return num


def names(hits: Sequence[Hit]) -> list[str]:
    return [hit.path.name for hit in hits]


def awaited(store: Store) -> list[str]:
    return [chunk.text for _, chunk in store.awaiting(100)]


# ---------------------------------------------------------------- files


def test_rare_words_are_told_from_frequent_ones(store: Store) -> None:
    text = "A lamp burns.\n\nThe lamps are cleaned.\n\nA fog horn, and lamps."
    chunks = chunks_of(text, "")
    store.replace_document(
        Document(Path("notes.md"), text, "text"), STATE, chunks, [hash_of(each.text) for each in chunks]
    )
    assert store.frequencies(["lamp", "horn", "zebra", "fog horn", "+"]) == (
        3,
        {"lamp": 3, "horn": 1, "zebra": 0, "fog horn": 1, "+": 0},
    )


def test_paths_are_those_of_indexed_files_whatever_their_bytes(store: Store) -> None:
    names_of_bytes = os.fsdecode(b"/docs/bad\xff.txt")
    for path in ("/docs/A.txt", names_of_bytes):
        add(store, path, "text")
    store.record_failure(Path("/docs/c.pdf"), replace(STATE, state="failed", reason="it is broken"))
    assert sorted(store.paths()) == sorted(["/docs/A.txt", names_of_bytes])


def test_what_was_written_is_read_back(store: Store) -> None:
    text = "\n first\n\nsecond paragraph\n\nthird \t 🐋 \\ ' \" {NULL} \n"
    add(store, "/docs/a.txt", text)
    assert store.document_text(Path("/docs/a.txt")) == text
    assert store.chunks_of(Path("/docs/a.txt")) == chunks_of(text)
    assert store.files() == {Path("/docs/a.txt"): STATE}
    assert store.counts() == (1, 3, len(text.encode()))
    assert store.chunk_numbers() == {Path("/docs/a.txt"): 3}
    assert store.integrity() == []
    assert store.format_of(Path("/docs/a.txt")) == "markdown" and store.format_of(Path("/docs/b.txt")) == ""
    assert store.document_text(Path("/docs/b.txt")) is None and store.chunks_of(Path("/docs/b.txt")) == []


def test_replaced_document_leaves_nothing_of_the_old_one(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "old walrus\n\nolder")
    embed_all(store)
    add(store, "/a.txt", "new penguin")
    assert store.keyword("walrus", 5) == [] and names(store.keyword("penguin", 5)) == ["a.txt"]
    assert store.nearest(vector("old walrus"), 5) == []
    assert store.counts()[:2] == (1, 1)
    assert store.prune() == 2
    assert store.integrity() == []


def test_document_without_text_is_held(store: Store) -> None:
    store.replace_document(Document(Path("/a.txt"), " \n", "text"), STATE, [], [])
    assert store.document_text(Path("/a.txt")) == " \n"
    assert store.counts() == (1, 0, 2) and store.chunk_numbers() == {Path("/a.txt"): 0}


def test_deleted_file_leaves_no_rows(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus\n\nmore")
    add(store, "/b.txt", "penguin")
    embed_all(store)
    store.delete_documents([Path("/a.txt"), Path("/never-there.txt")])
    assert store.files().keys() == {Path("/b.txt")}
    assert store.document_text(Path("/a.txt")) is None
    assert store.keyword("walrus", 5) == []
    assert names(store.nearest(vector("walrus"), 5)) == ["b.txt"]
    assert store.counts() == (1, 1, len("penguin"))
    assert store.integrity() == []


def test_copied_file_is_found_under_both_paths_and_embeds_nothing(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "\nwalrus\n\nmore \n")
    embed_all(store)
    state = FileState(10, 30, "abc", reading="reading 1")
    assert store.copy_document(Path("/a.txt"), Path("/new/b.md"), state)
    store.delete_documents([Path("/a.txt")])
    assert store.files() == {Path("/new/b.md"): state}
    assert store.document_text(Path("/new/b.md")) == "\nwalrus\n\nmore \n"
    assert store.chunks_of(Path("/new/b.md")) == chunks_of("\nwalrus\n\nmore \n")
    assert store.awaiting(5) == []
    assert names(store.nearest(vector("walrus"), 1)) == names(store.keyword("walrus", 1)) == ["b.md"]
    assert names(store.keyword("walrus", 5, Scope(folders=("new",)))) == ["b.md"]
    assert store.integrity() == []


def test_nothing_is_copied_from_a_file_that_is_gone_or_failed(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    store.record_failure(Path("/failed.txt"), FileState(1, 2, "abc", "failed", "it is broken"))
    assert not store.copy_document(Path("/gone.txt"), Path("/b.txt"), STATE)
    assert not store.copy_document(Path("/failed.txt"), Path("/b.txt"), STATE)
    assert Path("/b.txt") not in store.files()


def test_failure_is_remembered_with_its_reason_and_replaces_old_rows(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    state = FileState(11, 21, "def", "failed", "the file is empty")
    store.record_failure(Path("/a.txt"), state)
    assert store.failures() == [FailedFile(Path("/a.txt"), "the file is empty")]
    assert store.files() == {Path("/a.txt"): state}
    assert store.counts() == (0, 0, 0)
    assert store.document_text(Path("/a.txt")) is None
    add(store, "/a.txt", "mended")
    assert store.failures() == []


def test_file_that_was_written_anew_meanwhile_is_not_copied(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    assert not store.copy_document(Path("/a.txt"), Path("/b.txt"), FileState(10, 20, "other"))
    assert list(store.files()) == [Path("/a.txt")]


def test_touch_notes_the_reading(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    touched = FileState(10, 99, "abc", reading="reading 2")
    store.touch(Path("/a.txt"), touched)
    assert store.files() == {Path("/a.txt"): touched}


def test_touch_changes_the_time_and_nothing_else(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    touched = FileState(10, 99, "abc", reading="reading 1")
    store.touch(Path("/a.txt"), touched)
    assert store.files() == {Path("/a.txt"): touched}
    assert names(store.keyword("walrus", 5)) == ["a.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs/new\nline.txt",
        "/docs/emoji 🐋.txt",
        "/docs/quote'\".txt",
        "/docs/back\\slash {a,b} %_.txt",
        "/" + "/".join(["a folder of a long name " * 8] * 20) + "/käse.txt",
        pytest.param(os.fsdecode(b"/docs/caf\xe9.txt"), id="not Unicode"),
    ],
)
def test_unusual_paths_come_back_as_they_were(store: Store, path: str) -> None:
    add(store, path, "walrus")
    assert store.files().keys() == {Path(path)}
    assert [hit.path for hit in store.keyword("walrus", 5)] == [Path(path)]
    store.delete_documents([Path(path)])
    assert store.files() == {}


# ---------------------------------------------------------------- embeddings


def test_words_are_found_at_once_and_meaning_once_it_is_embedded(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus\n\nmore")
    assert names(store.keyword("walrus", 5)) == ["a.txt"]
    assert store.nearest(vector("walrus"), 5) == []
    assert store.num_awaiting() == 2 and sorted(awaited(store)) == ["more", "walrus"]
    store.add_embeddings({hash_of("walrus"): vector("walrus")})
    assert [hit.chunk.text for hit in store.nearest(vector("walrus"), 5)] == ["walrus"]
    assert awaited(store) == ["more"]


def test_equal_chunks_are_embedded_once_and_found_everywhere(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "same\n\nsame\n\nonly a")
    add(store, "/b.txt", "same")
    assert store.num_awaiting() == 2 == embed_all(store)
    assert names(store.nearest(vector("same"), 3)) == ["a.txt", "a.txt", "b.txt"]
    store.delete_documents([Path("/a.txt")])
    assert store.prune() == 1
    assert names(store.nearest(vector("same"), 3)) == ["b.txt"]
    assert store.integrity() == []


def test_text_that_comes_back_before_the_embeddings_are_pruned_is_not_embedded_again(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus")
    embed_all(store)
    store.delete_documents([Path("/a.txt")])
    add(store, "/b.txt", "walrus")
    assert store.awaiting(5) == [] and store.num_awaiting() == 0
    assert names(store.nearest(vector("walrus"), 5)) == ["b.txt"]


def test_text_of_a_deleted_file_awaits_no_embedding(store: Store) -> None:
    add(store, "/a.txt", "walrus\n\nboth")
    add(store, "/b.txt", "both")
    store.delete_documents([Path("/a.txt")])
    assert awaited(store) == ["both"] and store.num_awaiting() == 1
    add(store, "/a.txt", "walrus")
    assert sorted(awaited(store)) == ["both", "walrus"]


def test_small_files_are_embedded_first_and_recent_ones_before_old_ones(store: Store) -> None:
    add(store, "/large.txt", "large", FileState(1_000_000, 9000, "a"))
    add(store, "/old.txt", "old", FileState(1000, 1000, "b"))
    add(store, "/recent.txt", "recent one\n\nrecent two", FileState(1000, 5000, "c"))
    assert awaited(store) == ["recent one", "recent two", "old", "large"]
    assert [chunk.text for _, chunk in store.awaiting(2)] == ["recent one", "recent two"]


def test_passage_that_cannot_be_embedded_is_given_up_until_another_model_comes(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus\n\nmore")
    store.give_up(hash_of("walrus"), "it makes no numbers")
    assert awaited(store) == ["more"] and store.num_awaiting() == 1
    ((failed),) = store.failures()
    assert failed.path == Path("/a.txt") and "it makes no numbers" in failed.reason
    assert names(store.keyword("walrus", 5)) == ["a.txt"]
    add(store, "/b.txt", "walrus")
    assert awaited(store) == ["more"]
    embed_all(store)
    assert store.integrity() == []
    store.enter_space(Space("model-b", 4))
    assert sorted(awaited(store)) == ["more", "walrus"]


def test_embeddings_of_a_file_come_in_the_order_of_its_text(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "one\n\ntwo\n\nthree")
    assert store.embeddings_of(Path("/a.txt")).shape == (0, DIMENSION)
    embed_all(store)
    found = store.embeddings_of(Path("/a.txt"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [vector("one"), vector("two"), vector("three")], atol=0.01)
    assert len(store.embeddings_of(Path("/never-there.txt"))) == 0


def test_embedding_of_another_length_is_refused(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus")
    with pytest.raises(FingerprintMismatch, match="8 numbers"):
        store.add_embeddings({hash_of("walrus"): np.ones(5, np.float32)})
    embed_all(store)
    with pytest.raises(FingerprintMismatch, match="8 numbers"):
        store.nearest(np.ones(5, np.float32), 5)


# ---------------------------------------------------------------- spaces


def test_index_without_embeddings_has_no_space_and_nothing_near(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    assert store.space() is None and store.next_space() is None
    assert store.nearest(vector("walrus"), 5) == []
    assert awaited(store) == ["walrus"]


def test_entering_a_space_twice_changes_nothing(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus")
    embed_all(store)
    store.enter_space(SPACE)
    assert store.space() == SPACE and store.next_space() is None and store.num_awaiting() == 0
    with pytest.raises(FingerprintMismatch):
        store.enter_space(Space("model-a", DIMENSION + 1))
    store.enter_space(Space("model-a", DIMENSION, "/moved/a.gguf"))
    assert store.space() == Space("model-a", DIMENSION, "/moved/a.gguf") and store.num_awaiting() == 0


def test_old_space_is_searched_until_the_new_one_is_complete(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus\n\nmore")
    embed_all(store)
    other = Space("model-b", 5)
    store.enter_space(other)
    assert store.space() == SPACE and store.next_space() == other
    assert names(store.nearest(vector("walrus"), 1)) == ["a.txt"]
    assert store.num_awaiting() == 2
    store.add_embeddings({hash_of("walrus"): vector("walrus", 5)})
    store.finish_space()
    assert store.space() == SPACE and len(store.nearest(vector("more"), 5)) == 2
    add(store, "/b.txt", "came in between")
    assert embed_all(store, 5) == 2
    store.finish_space()
    assert store.space() == other and store.next_space() is None
    assert [hit.chunk.text for hit in store.nearest(vector("came in between", 5), 5)][0] == "came in between"
    assert len(store.nearest(vector("walrus", 5), 5)) == 3
    assert store.integrity() == []
    store.finish_space()
    assert store.space() == other


def test_going_back_to_the_old_model_drops_what_was_being_filled(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus")
    embed_all(store)
    store.enter_space(Space("model-b", 5))
    add(store, "/b.txt", "new while it was filled")
    store.add_embeddings({hash_of("walrus"): vector("walrus", 5)})
    store.enter_space(SPACE)
    assert store.space() == SPACE and store.next_space() is None
    assert awaited(store) == ["new while it was filled"]
    embed_all(store)
    assert len(store.nearest(vector("walrus"), 5)) == 2
    store.enter_space(Space("model-c", 6))
    store.enter_space(Space("model-d", 7))
    assert store.next_space() == Space("model-d", 7) and store.num_awaiting() == 2
    assert store.integrity() == []


def test_prune_removes_embeddings_of_both_spaces(store: Store) -> None:
    store.enter_space(SPACE)
    add(store, "/a.txt", "walrus\n\nmore")
    embed_all(store)
    store.enter_space(Space("model-b", 5))
    embed_all(store, 5)
    add(store, "/a.txt", "walrus")
    assert store.prune() == 1 and store.prune() == 0
    store.finish_space()
    assert [hit.chunk.text for hit in store.nearest(vector("more", 5), 5)] == ["walrus"]
    assert store.integrity() == []


# ---------------------------------------------------------------- words


def test_all_words_come_before_any_word(store: Store) -> None:
    add(store, "/one.txt", "spare parts spare parts spare parts")
    add(store, "/both.txt", "where the spare key of the tower hangs in the long hall beside the window")
    add(store, "/none.txt", "nothing of the kind")
    hits = store.keyword("spare key", 5)
    assert names(hits) == ["both.txt", "one.txt"]
    assert [hit.keyword_rank for hit in hits] == [1, 2]
    assert hits[0].chunk == chunks_of("where the spare key of the tower hangs in the long hall beside the window")[0]


def test_rare_words_weigh_more_than_frequent_ones(store: Store) -> None:
    for number in range(20):
        add(store, f"/lamp{number}.txt", f"the lamp of room {number} is lit and the lamp burns")
    add(store, "/rare.txt", "a zygote and so on and on and on at some length with many words")
    hits = store.keyword("lamp zygote", 30, all_first=False)
    assert hits[0].path.name == "rare.txt" and len(hits) == 21
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_more_occurrences_in_a_shorter_text_rank_higher(store: Store) -> None:
    add(store, "/once.txt", "walrus and seal")
    add(store, "/thrice.txt", "walrus walrus walrus")
    add(store, "/long.txt", "walrus " + "and many other beasts " * 20)
    assert names(store.keyword("walrus", 5)) == ["thrice.txt", "once.txt", "long.txt"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("the lamps were running", "lamp run"),
        ("Über den Wolken, café", "uber CAFE"),
        ("see config.toml for it", "toml"),
        ("see config.toml for it", "config.toml"),
        ("mail to keeper@isle.example, please", "isle"),
        ("call parseHTTPRequest here", "request"),
        ("call get_user_name here", "username"),
        ("version 2.10.3-rc1", "2.10.3"),
        ("/usr/local/share/notes.md", "share"),
        ("東京都庁の場所", "都庁"),
        ("the electrified fence", "electri"),
        ("x = a->b && c::d", "a->b"),
        ("to be or not to be", "to be or not to be"),
    ],
)
def test_text_is_found_by_its_words(store: Store, text: str, query: str) -> None:
    add(store, "/a.txt", text)
    add(store, "/b.txt", "something else entirely")
    assert names(store.keyword(query, 5)) == ["a.txt"]


@pytest.mark.parametrize(
    "query",
    ["", " ", "'", '"', '""', "q & | ! z", "<->", ":*", "\\", "(", ")))", "%", "!!x", "q:z", "'; DROP TABLE", "¶"],
)
def test_nothing_a_person_types_is_syntax(store: Store, query: str) -> None:
    add(store, "/a.txt", "walrus")
    assert store.keyword(query, 5) == [] == store.phrase(query, 5)
    assert store.holding(["walrus", "'; DROP"], [1]) == set()


def test_quoted_words_stand_in_every_hit(store: Store) -> None:
    add(store, "/in order.txt", "the spare key hangs here")
    add(store, "/apart.txt", "a key and a spare one, spare and key")
    assert names(store.keyword('tower "spare key"', 5)) == ["in order.txt"]


def test_phrase_is_found_in_its_order_and_not_across_heading_and_text(store: Store) -> None:
    add(store, "/a.txt", "the spare key", heading="Tower rules")
    add(store, "/b.txt", "key the spare", heading="Tower rules")
    assert names(store.phrase("spare keys", 5)) == ["a.txt"]
    assert names(store.phrase("tower rules", 5)) == ["a.txt", "b.txt"]
    assert store.phrase("key tower", 5) == []
    assert store.phrase("of, the", 5) == []


def test_holding_names_the_chunks_that_hold_every_phrase(store: Store) -> None:
    add(store, "/a.txt", "the spare key of the tower")
    add(store, "/b.txt", "the spare key")
    ids = {hit.path.name: hit.chunk_id for hit in store.keyword("spare", 5)}
    assert store.holding(["spare key"], list(ids.values())) == set(ids.values())
    assert store.holding(["spare key", "the tower"], list(ids.values())) == {ids["a.txt"]}
    assert store.holding(["spare key"], []) == set()


@pytest.mark.parametrize("text", ["100%_sure\\", "ELECTRIF", "ÉLAN ÜBER", "東京", "a->b", "two\nlines", "fence"])
def test_literal_finds_whatever_is_there_letter_by_letter(store: Store, text: str) -> None:
    add(store, "/a.txt", "xx100%_sure\\ electrified élan über 東京都 a->b two\nlines, 'fence'")
    add(store, "/b.txt", "100 sure, elan uber, and so on")
    hits = store.literal(text, 5)
    assert names(hits) == ["a.txt"] and hits[0].keyword_rank == 1
    assert names(store.literal(text, 5, Scope(names=("b",)))) == []


def test_literal_finds_more_than_one_page_of_rows(store: Store) -> None:
    for number in range(7):
        add(store, f"/{number}.txt", "über alles" if number > 4 else "aber alles")
    assert names(store.literal("ÜBER", 2)) == ["5.txt", "6.txt"]
    assert store.literal("  ", 5) == []


# ---------------------------------------------------------------- scopes

SCOPES = [
    (Scope(), {"a.md", "b.py", "Notes of May.txt"}),
    (Scope(folders=("/home/me/Work",)), {"a.md", "b.py"}),
    (Scope(folders=("/home/me/wor",)), set()),
    (Scope(folders=("/me",)), set()),
    (Scope(folders=("work/2024",)), {"b.py"}),
    (Scope(folders=("2024", "play")), {"b.py", "Notes of May.txt"}),
    (Scope(folders=("/home/me/work/A.md", "/home/me/play")), {"a.md", "Notes of May.txt"}),
    (Scope(folders=("/home/me/work/a", "a.md")), set()),
    (Scope(folders=("work",), within=("/home/me/work/2024", "/home/me/play/Notes of May.txt")), {"b.py"}),
    (Scope(not_folders=("/home/me/work/a.md", "play")), {"b.py"}),
    (Scope(not_types=("py",), not_names=("may",)), {"a.md"}),
    (Scope(types=("py", "txt")), {"b.py", "Notes of May.txt"}),
    (Scope(types=("markdown",)), {"a.md", "b.py", "Notes of May.txt"}),
    (Scope(names=("may",)), {"Notes of May.txt"}),
    (Scope(names=("notes*txt",)), {"Notes of May.txt"}),
    (Scope(names=("?.",)), {"a.md", "b.py", "Notes of May.txt"}),
    (Scope(names=("?.md",)), {"a.md"}),
    (Scope(names=("%", "_")), set()),
    (Scope(after_ns=2000), {"b.py", "Notes of May.txt"}),
    (Scope(before_ns=3000, after_ns=2000), {"b.py"}),
    (Scope(folders=("work",), types=("py",), names=("b",), after_ns=1), {"b.py"}),
]


@pytest.mark.parametrize(("scope", "expected"), SCOPES)
def test_every_search_stays_within_its_scope(store: Store, scope: Scope, expected: set[str]) -> None:
    store.enter_space(SPACE)
    add(store, "/home/me/Work/a.md", "the walrus swims", FileState(1, 1000, "a"))
    add(store, "/home/me/Work/2024/b.py", "the walrus dives", FileState(1, 2000, "b"))
    add(store, "/home/me/play/Notes of May.txt", "the walrus sleeps", FileState(1, 3000, "c"))
    embed_all(store)
    assert set(names(store.keyword("walrus", 5, scope))) == expected
    assert set(names(store.phrase("the walrus", 5, scope))) == expected
    assert set(names(store.literal("alru", 5, scope))) == expected
    assert set(names(store.nearest(vector("walrus"), 5, scope))) == expected


# ---------------------------------------------------------------- meaning


def test_nearest_is_what_comparing_all_of_them_finds(store: Store) -> None:
    dimension, num = 64, 600
    store.enter_space(Space("model-a", dimension))
    texts = [f"text {number}" for number in range(num)]
    rows = np.stack([vector(text, dimension) for text in texts])
    for start in range(0, num, 100):
        text = "\n\n".join(texts[start : start + 100])
        add(store, f"/folder{start % 300}/{start}.txt", text)
    embed_all(store, dimension)
    for query in (vector(f"query {number}", dimension) for number in range(5)):
        exact = rows @ query
        hits = store.nearest(query, 10)
        order = [texts[number] for number in np.argsort(-exact)[:20]]
        assert {hit.chunk.text for hit in hits[:8]} <= set(order[:12])
        assert [hit.semantic_rank for hit in hits] == list(range(1, 11))
        for hit in hits:
            assert hit.distance == pytest.approx(1 - exact[texts.index(hit.chunk.text)], abs=0.01)
            assert hit.score == pytest.approx(1 - hit.distance)
        within = store.nearest(query, 10, Scope(folders=("folder100",)))
        inside = [number for number in range(num) if (number // 100 * 100) % 300 == 100]
        best = [texts[number] for number in sorted(inside, key=lambda number: -exact[number])]
        assert len(within) == 10 and {hit.chunk.text for hit in within[:8]} <= set(best[:12])


# ---------------------------------------------------------------- more than one


def test_what_one_connection_writes_another_one_finds(open_store: OpenStore) -> None:
    writer, reader = open_store(), open_store()
    writer.enter_space(SPACE)
    add(writer, "/a.txt", "walrus")
    assert names(reader.keyword("walrus", 5)) == ["a.txt"] and reader.num_awaiting() == 1
    embed_all(writer)
    assert names(reader.nearest(vector("walrus"), 5)) == ["a.txt"]
    writer.enter_space(Space("model-b", 5))
    embed_all(writer, 5)
    writer.finish_space()
    assert reader.space() == Space("model-b", 5)
    assert names(reader.nearest(vector("walrus", 5), 5)) == ["a.txt"]
    writer.delete_documents([Path("/a.txt")])
    assert reader.nearest(vector("walrus", 5), 5) == [] == reader.keyword("walrus", 5)


def test_index_is_still_there_when_it_is_opened_again(open_store: OpenStore) -> None:
    first = open_store()
    first.enter_space(SPACE)
    add(first, "/a.txt", "walrus")
    embed_all(first)
    first.close()
    again = open_store()
    assert again.space() == SPACE and again.files() == {Path("/a.txt"): STATE}
    assert names(again.nearest(vector("walrus"), 5)) == ["a.txt"]


def test_use_of_a_closed_index_is_an_error(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.counts()


def test_closing_from_another_thread_ends_a_call_under_way(store: Store) -> None:
    add(store, "/a.txt", "walrus")
    has_begun = threading.Event()
    failures: list[BaseException] = []

    def read_for_ever() -> None:
        try:
            while True:
                store.keyword("walrus", 5)
                has_begun.set()
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read_for_ever)
    reader.start()
    assert has_begun.wait(10)
    time.sleep(0.01)
    store.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [type(each) for each in failures] == [StoreError] and "closed" in str(failures[0])
