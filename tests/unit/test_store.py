import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from gritdesk.errors import FingerprintMismatch, StoreBusy, StoreError
from gritdesk.records import Chunk, Document, FailedFile, Scope
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

DIMENSION = 4
STATE = FileState(10, 20, "abc")
SPACE = Space("model-a", DIMENSION)


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        store.enter_space(SPACE)
        yield store


def chunks_of(text: str) -> list[Chunk]:
    """One chunk per paragraph."""
    chunks, at = [], 0
    for paragraph in text.split("\n\n"):
        start = text.index(paragraph, at)
        at = start + len(paragraph)
        line = 1 + text.count("\n", 0, start)
        chunks.append(Chunk(paragraph, start, at, line, line, "A > B", 7, 3))
    return chunks


def add(
    store: SqliteStore,
    path: str | Path,
    text: str,
    vectors: Sequence[Sequence[float]] | None = None,
    state: FileState = STATE,
) -> None:
    """A file with its embeddings; by default random ones."""
    chunks = chunks_of(text)
    hashes = [b"hash of " + chunk.text.encode() for chunk in chunks]
    rows = vectors or [np.random.default_rng(len(each)).normal(size=DIMENSION) for each in hashes]
    embeddings = {each: np.asarray(row, np.float32) for each, row in zip(hashes, rows, strict=True)}
    store.replace_document(Document(Path(path), text, "text"), state, chunks, hashes)
    store.add_embeddings(embeddings)


def found(store: SqliteStore, query: str, limit: int = 10) -> list[str]:
    return [hit.path.name for hit in store.keyword(query, limit)]


# ---------------------------------------------------------------- rows


def test_what_was_written_is_read_back(store: SqliteStore) -> None:
    text = "\n first\n\nsecond paragraph\n\nthird \n"
    add(store, "/docs/a.txt", text)
    assert store.document_text(Path("/docs/a.txt")) == text
    assert store.chunks_of(Path("/docs/a.txt")) == chunks_of(text)
    assert store.files() == {Path("/docs/a.txt"): STATE}
    assert store.counts() == (1, 3, len(text))
    assert store.integrity() == []


def test_replaced_document_leaves_nothing_of_the_old_one(store: SqliteStore) -> None:
    add(store, "/a.txt", "old walrus\n\nolder")
    add(store, "/a.txt", "new penguin")
    assert found(store, "walrus") == []
    assert found(store, "penguin") == ["a.txt"]
    assert store.counts()[:2] == (1, 1)
    assert store.prune() == 2
    assert store.integrity() == []


def test_deleted_file_leaves_no_rows(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus\n\nmore")
    store.delete_documents([Path("/a.txt")])
    store.prune()
    assert store.document_text(Path("/a.txt")) is None
    assert store.keyword("walrus", 5) == []
    assert store.nearest(np.ones(DIMENSION, np.float32), 5) == []
    assert store.counts() == (0, 0, 0)
    assert store.integrity() == []


def test_equal_chunks_share_one_embedding(store: SqliteStore) -> None:
    add(store, "/a.txt", "same\n\nonly a", [[1, 0, 0, 0], [0, 1, 0, 0]])
    add(store, "/b.txt", "same\n\nonly b", [[1, 0, 0, 0], [0, 0, 1, 0]])
    assert [hit.path.name for hit in store.nearest(np.array([1, 0, 0, 0], np.float32), 2)] == ["a.txt", "b.txt"]
    store.delete_documents([Path("/a.txt")])
    assert store.prune() == 1
    assert len(store.embeddings_of(Path("/b.txt"))) == 2 and len(store.embeddings_of(Path("/a.txt"))) == 0
    assert store.integrity() == []


def test_failure_is_remembered_with_its_reason_and_replaces_old_rows(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    state = FileState(11, 21, "def", "failed", "the file is empty")
    store.record_failure(Path("/a.txt"), state)
    assert store.failures() == [FailedFile(Path("/a.txt"), "the file is empty")]
    assert store.files() == {Path("/a.txt"): state}
    assert store.counts() == (0, 0, 0)
    assert store.document_text(Path("/a.txt")) is None
    add(store, "/a.txt", "mended")
    assert store.failures() == []


def test_touch_changes_the_time_and_nothing_else(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    store.touch(Path("/a.txt"), FileState(10, 99, "abc"))
    assert store.files() == {Path("/a.txt"): FileState(10, 99, "abc")}
    assert found(store, "walrus") == ["a.txt"]


@pytest.mark.parametrize("name", ["new\nline.txt", "emoji 🐋.txt", "quote'\".txt", "käse.txt"])
def test_unusual_names_come_back_as_they_were(store: SqliteStore, name: str) -> None:
    add(store, Path("/docs") / name, "walrus")
    assert [hit.path for hit in store.keyword("walrus", 1)] == [Path("/docs") / name]
    assert list(store.files()) == [Path("/docs") / name]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_name_that_is_not_valid_unicode_comes_back_as_it_was(store: SqliteStore) -> None:
    path = Path(os.fsdecode(b"/docs/caf\xe9.txt"))
    add(store, path, "walrus")
    assert list(store.files()) == [path]
    assert store.document_text(path) == "walrus"
    store.delete_documents([path])
    assert store.files() == {}


def test_failed_write_leaves_the_old_rows(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    with pytest.raises(ValueError):
        store.replace_document(Document(Path("/a.txt"), "penguin", "text"), STATE, chunks_of("penguin"), [])
    with pytest.raises(FingerprintMismatch):
        store.add_embeddings({b"hash of walrus": np.ones(2, np.float32)})
    assert found(store, "walrus") == ["a.txt"]
    assert found(store, "penguin") == []
    assert store.integrity() == []


# ---------------------------------------------------------------- words


def test_chunks_with_all_words_come_before_those_with_some(store: SqliteStore) -> None:
    add(store, "/some.txt", "walrus walrus walrus")
    add(store, "/all.txt", "a long text about a walrus that lives beside one penguin and many other animals")
    assert found(store, "walrus penguin") == ["all.txt", "some.txt"]


def test_words_are_found_in_other_forms_and_without_accents(store: SqliteStore) -> None:
    add(store, "/a.txt", "The Café was running experiments")
    for query in ("cafe", "CAFÉ", "run experiment", "experim"):
        assert found(store, query) == ["a.txt"], query


def test_stop_words_of_a_question_do_not_count(store: SqliteStore) -> None:
    add(store, "/the.txt", "what is the how of the where")
    add(store, "/walrus.txt", "walrus weight: 900 kg")
    assert found(store, "what is the weight of the walrus?") == ["walrus.txt"]
    assert found(store, "what is the") == ["the.txt"]


def test_quoted_part_must_stand_as_it_is(store: SqliteStore) -> None:
    add(store, "/right.txt", "the token bucket is full")
    add(store, "/wrong.txt", "the bucket of one token")
    assert found(store, 'decision "token bucket"') == ["right.txt"]
    assert found(store, '"bucket token"') == []


def test_dotted_and_joined_words_are_found_as_they_are_written(store: SqliteStore) -> None:
    add(store, "/a.txt", "released v1.2.3 with read_file and C++")
    add(store, "/b.txt", "3 of 1 and 2, a file to read")
    assert found(store, "v1.2.3")[0] == "a.txt"
    assert found(store, "read_file") == ["a.txt"]


@pytest.mark.parametrize(
    "query",
    ['"', '""', "'", "*", "a*", "^x", "x:y", "(", ")", "NOT", "a AND", '"a" OR', "NEAR(a b)"]
    + ["-x", "+", "a\0b", "{a b}:c", "\\", "%", "_"],
)
def test_search_syntax_in_a_query_is_only_text(store: SqliteStore, query: str) -> None:
    add(store, "/a.txt", "walrus")
    store.keyword(query, 5)
    store.phrase(query, 5)


def test_last_word_may_be_half_typed_and_whole_words_come_first(store: SqliteStore) -> None:
    add(store, "/long.txt", "walruses sleep")
    add(store, "/short.txt", "wal is a word here")
    add(store, "/both.txt", "seals beside walruses")
    assert found(store, "walr") == ["long.txt", "both.txt"]
    assert found(store, "wal")[0] == "short.txt" and len(found(store, "wal")) == 3
    assert found(store, "seals wal") == ["both.txt", "short.txt", "long.txt"]


def test_one_letter_is_a_word_of_its_own_and_not_yet_the_beginning_of_one(store: SqliteStore) -> None:
    add(store, "plan.txt", "plan t is to wait")
    add(store, "tide.txt", "the plan of a tide")
    assert found(store, "plan t") == ["plan.txt", "tide.txt"]
    assert found(store, "plan ti") == ["tide.txt", "plan.txt"]
    assert found(store, "t") == ["plan.txt"]
    assert sorted(found(store, "l")) == ["plan.txt", "tide.txt"], "where it is no word, by letters"


def test_query_of_thousands_of_words_is_searched(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    query = " ".join(f"word{n}" for n in range(5_000)) + " abominable-walrus walrus"
    assert found(store, query) == ["a.txt"]
    assert store.phrase(query, 5) == []


@pytest.mark.parametrize("letter", ["x", "東", "%"])
def test_word_of_thousands_of_letters_finds_nothing(store: SqliteStore, letter: str) -> None:
    add(store, "/a.txt", "walrus")
    assert found(store, letter * 60_000) == []


@pytest.mark.parametrize("query", ["", " ", "\n", '" "'])
def test_empty_query_finds_nothing(store: SqliteStore, query: str) -> None:
    add(store, "/a.txt", "walrus and more")
    assert store.keyword(query, 5) == []
    assert store.phrase(query, 5) == []


def test_part_of_a_word_is_found_when_no_whole_word_is(store: SqliteStore) -> None:
    add(store, "/a.txt", "the antidisestablishment")
    add(store, "/b.txt", "東京都の天気は晴れ")
    assert found(store, "establish") == ["a.txt"]
    assert found(store, "天気") == ["b.txt"]
    assert found(store, "100%") == []


def test_any_word_ranks_as_bm25_alone_does(store: SqliteStore) -> None:
    texts = {
        "all": "walrus and seal " + "filler " * 40,
        "rare": "walrus",
        "none": "penguin",
        "often": "seal seal seal",
        "some": "a seal sleeps on ice",
    }
    for name, text in texts.items():
        add(store, name, text)
    plain = sqlite3.connect(":memory:")
    plain.execute("CREATE VIRTUAL TABLE word USING fts5(name UNINDEXED, text, tokenize='porter unicode61')")
    plain.executemany("INSERT INTO word VALUES (?, ?)", texts.items())
    ranked = plain.execute("SELECT name FROM word WHERE word MATCH 'seals OR walrus' ORDER BY bm25(word)").fetchall()
    names = [hit.path.name for hit in store.any_word('where do "seals" and walrus? seals,', 9)]
    assert names == [name for (name,) in ranked] and len(names) == 4 and names[0] != "all"
    assert found(store, "seals walrus")[0] == "all"  # with all words, so first where a person searches
    assert store.any_word("what is it", 9) == [] == store.any_word("", 9)
    assert len(store.any_word(" ".join(f"word{n}" for n in range(3000)) + " seal", 9)) == 3


def test_of_very_many_rows_those_with_the_rarest_words_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gritdesk.store.sqlite._MAX_RANKED", 20)
    with SqliteStore(":memory:") as store:
        store.enter_space(SPACE)
        add(store, "/rare.txt", "a walrus among " + "many other words " * 5)
        add(store, "/both.txt", "seal and otter and heron " + "filler " * 30)
        add(store, "/often.txt", "\n\n".join(f"{word} {n}" for n in range(60) for word in ("seal", "otter", "heron")))
        add(store, "/far/often.txt", "heron and more")
        query = "walrus seal otter heron"
        names = [hit.path.name for hit in store.keyword(query, 20, all_first=False)]
        assert names[0] == "rare.txt" and "both.txt" in names
        assert len(store.keyword(query, 50, all_first=False)) >= 20
        (hit,) = store.keyword(query, 5, Scope(folders=("far",)), all_first=False)
        assert str(hit.path.parent.name) == "far"
        assert len(store.keyword("seal", 50)) == 20 and len(store.keyword("seal otter", 10)) == 10


@pytest.mark.parametrize("query", ["user", "username", "name", "getUserName", "get_user_name"])
def test_identifiers_are_found_by_their_parts(store: SqliteStore, query: str) -> None:
    add(store, "/camel.py", "value = getUserName(request)")
    add(store, "/snake.py", "value = get_user_name(request)")
    assert sorted(found(store, query)) == ["camel.py", "snake.py"]


def test_runs_of_capitals_and_digits_are_parts_of_identifiers(store: SqliteStore) -> None:
    add(store, "/a.py", "class HTTPServer2: pass")
    for query in ("server", "http", "httpserver2", "server2"):
        assert store.keyword(query, 5)[0].score > 0, query


@pytest.mark.parametrize("query", ["天気", "東京", "京都", "都", "の天気は", "한국", "東京 天気", '"天気は晴れ"'])
def test_words_of_scripts_without_spaces_are_found_by_the_words_index(store: SqliteStore, query: str) -> None:
    add(store, "/a.txt", "今日、東京都の天気は晴れ。 한국어를 배운다")
    add(store, "/b.txt", "気天 京東 れ晴")
    hits = store.keyword(query, 5)
    assert hits[0].path.name == "a.txt" and hits[0].score > 0
    assert store.phrase("東京都の天気", 5) and not store.phrase("天気東京", 5)


@pytest.mark.parametrize("text", ["ALRUS PEN", "%", "_x", "\\", "über straße", "ÜBER STRASSE", "天気", "'; --"])
def test_literal_finds_whatever_is_there(store: SqliteStore, text: str) -> None:
    add(store, "/a.txt", "walrus penguin 100% a_x \\ Über Straße über strasse 天気 '; --")
    add(store, "/b.txt", "nothing of it")
    assert [hit.path.name for hit in store.literal(text, 5)] == ["a.txt"]


def test_phrase_finds_only_that_order(store: SqliteStore) -> None:
    add(store, "/right.txt", "to be or not to be")
    add(store, "/wrong.txt", "not to be or to be")
    assert [hit.path.name for hit in store.phrase("to be or not", 5)] == ["right.txt"]


def test_hits_by_words_carry_rank_and_a_falling_score(store: SqliteStore) -> None:
    for n in range(5):
        add(store, f"/{n}.txt", "walrus " + "filler " * n)
    hits = store.keyword("walrus", 3)
    assert [hit.keyword_rank for hit in hits] == [1, 2, 3]
    assert [hit.path.name for hit in hits] == ["0.txt", "1.txt", "2.txt"]
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
    assert hits[0].chunk == Chunk("walrus ", 0, 7, 1, 1, "A > B", 7, 3)


# ---------------------------------------------------------------- meaning


def test_nearest_is_exact_cosine_search() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 64)).astype(np.float32)
    query = rng.normal(size=64).astype(np.float32)
    with SqliteStore(":memory:") as store:
        store.enter_space(Space("model-a", 64))
        add(store, "/a.txt", "\n\n".join(f"p{n}" for n in range(300)), vectors.tolist())
        hits = store.nearest(query, 10)
    distances = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert [hit.chunk.text for hit in hits][:5] == [f"p{n}" for n in np.argsort(distances)[:5]]
    np.testing.assert_allclose([hit.distance for hit in hits], np.sort(distances)[:10], atol=0.003)  # they are int8
    assert [hit.semantic_rank for hit in hits] == list(range(1, 11))


def test_index_without_embeddings_has_words_only() -> None:
    with SqliteStore(":memory:") as store:
        document = Document(Path("/a.txt"), "walrus", "text")
        store.replace_document(document, STATE, chunks_of("walrus"), [b"hash"])
        assert store.space() is None
        assert found(store, "walrus") == ["a.txt"]
        assert store.nearest(np.ones(DIMENSION, np.float32), 5) == []
        assert store.integrity() == []


def test_query_of_another_length_is_refused_with_what_to_do(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    with pytest.raises(FingerprintMismatch, match=r"4 numbers.*gritdesk index"):
        store.nearest(np.ones(5, np.float32), 5)
    with pytest.raises(FingerprintMismatch):
        store.enter_space(Space("model-a", 5))
    assert store.space() == SPACE


# ---------------------------------------------------------------- words first, embeddings later


def write(store: SqliteStore, path: str, text: str, state: FileState = STATE) -> None:
    """A file without its embeddings."""
    chunks = chunks_of(text)
    hashes = [b"hash of " + chunk.text.encode() for chunk in chunks]
    store.replace_document(Document(Path(path), text, "text"), state, chunks, hashes)


def awaited(store: SqliteStore) -> list[str]:
    return [chunk.text for _, chunk in store.awaiting(99)]


def embed_awaiting(store: SqliteStore, dimension: int = DIMENSION) -> None:
    """An embedding for all that await one, with a 1 where the text's length says."""
    rows = np.eye(dimension, dtype=np.float32)
    store.add_embeddings({hash_: rows[len(chunk.text) % dimension] for hash_, chunk in store.awaiting(10_000)})


def test_words_are_found_before_their_embedding_is_stored(store: SqliteStore) -> None:
    write(store, "/a.txt", "walrus\n\npenguin")
    assert found(store, "walrus") == ["a.txt"]
    assert store.nearest(np.ones(DIMENSION, np.float32), 5) == []
    assert store.awaiting(1) == [(b"hash of walrus", chunks_of("walrus\n\npenguin")[0])]
    assert store.num_awaiting() == 2
    embed_awaiting(store)
    assert store.num_awaiting() == 0
    assert [hit.chunk.text for hit in store.nearest(np.ones(DIMENSION, np.float32), 5)] == ["walrus", "penguin"]
    assert store.integrity() == []


def test_chunks_of_equal_text_await_one_embedding(store: SqliteStore) -> None:
    write(store, "/a.txt", "walrus\n\nwalrus")
    write(store, "/b.txt", "walrus")
    assert awaited(store) == ["walrus"] and store.num_awaiting() == 1
    embed_awaiting(store)
    assert len(store.nearest(np.ones(DIMENSION, np.float32), 5)) == 3
    write(store, "/c.txt", "walrus")
    assert store.num_awaiting() == 0


def test_small_files_are_embedded_first_and_recent_ones_of_about_their_size(store: SqliteStore) -> None:
    write(store, "/large.txt", "large", FileState(10_000_000, 99, ""))
    write(store, "/old.txt", "old", FileState(2000, 10, ""))
    write(store, "/new.txt", "new", FileState(3000, 20, ""))
    assert awaited(store) == ["new", "old", "large"]


def test_chunks_that_are_gone_await_nothing(store: SqliteStore) -> None:
    write(store, "/a.txt", "walrus\n\nseal")
    write(store, "/b.txt", "seal\n\notter")
    store.delete_documents([Path("/a.txt")])
    write(store, "/b.txt", "seal\n\nheron")
    assert awaited(store) == ["seal", "heron"] and store.num_awaiting() == 2
    store.prune()
    assert store.integrity() == []


def test_what_cannot_be_embedded_is_given_up_and_listed(store: SqliteStore) -> None:
    write(store, "/a.txt", "walrus\n\nseal")
    store.give_up(b"hash of walrus", "the engine died of it twice")
    assert awaited(store) == ["seal"]
    assert store.failures() == [FailedFile(Path("/a.txt"), "the engine died of it twice")]
    assert found(store, "walrus") == ["a.txt"]
    write(store, "/b.txt", "walrus")
    assert awaited(store) == ["seal"]
    assert store.integrity() == []
    store.enter_space(Space("model-b", 2))
    assert sorted(awaited(store)) == ["seal", "walrus"] and store.failures() == []


def test_index_awaits_embeddings_before_it_has_a_space() -> None:
    with SqliteStore(":memory:") as store:
        write(store, "/a.txt", "walrus")
        assert awaited(store) == ["walrus"]
        store.enter_space(SPACE)
        assert awaited(store) == ["walrus"]
        embed_awaiting(store)
        assert len(store.nearest(np.ones(DIMENSION, np.float32), 5)) == 1
        assert store.integrity() == []


def test_copied_file_has_words_and_embeddings_at_once(store: SqliteStore) -> None:
    text = " first walrus\n\nsecond getUserName\n"
    add(store, "/a.txt", text)
    assert store.copy_document(Path("/a.txt"), Path("/new/b.md"), FileState(10, 99, "abc", reading="r1"))
    assert store.document_text(Path("/new/b.md")) == text
    assert store.chunks_of(Path("/new/b.md")) == store.chunks_of(Path("/a.txt"))
    assert store.files()[Path("/new/b.md")] == FileState(10, 99, "abc", reading="r1")
    assert store.num_awaiting() == 0
    store.delete_documents([Path("/a.txt")])
    assert found(store, "walrus") == ["b.md"] == found(store, "username")
    assert len(store.nearest(np.ones(DIMENSION, np.float32), 5, Scope(types=("md",)))) == 2
    assert store.prune() == 0 and store.integrity() == []
    assert not store.copy_document(Path("/gone.txt"), Path("/c.txt"), STATE)
    assert list(store.files()) == [Path("/new/b.md")]


def test_copy_of_a_file_that_awaits_embeddings_awaits_them_too(store: SqliteStore) -> None:
    write(store, "/a.txt", "walrus")
    store.copy_document(Path("/a.txt"), Path("/b.txt"), STATE)
    store.delete_documents([Path("/a.txt")])
    assert awaited(store) == ["walrus"]


def test_embeddings_of_a_file_come_in_the_order_of_its_text(store: SqliteStore) -> None:
    rows = np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32)
    add(store, "/a.txt", "walrus\n\nseal", rows.tolist())
    np.testing.assert_allclose(store.embeddings_of(Path("/a.txt")), rows, atol=0.01)
    assert store.embeddings_of(Path("/gone.txt")).shape == (0, DIMENSION)


# ---------------------------------------------------------------- another model


def test_old_space_is_searched_until_the_next_one_is_complete(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus\n\nseal", [[1, 0, 0, 0], [0, 1, 0, 0]])
    store.enter_space(Space("model-b", 2, "b.gguf"))
    assert (store.space(), store.next_space()) == (SPACE, Space("model-b", 2, "b.gguf"))
    assert sorted(awaited(store)) == ["seal", "walrus"]
    store.add_embeddings({b"hash of walrus": np.array([0, 1], np.float32)})
    store.finish_space()
    assert store.space() == SPACE and awaited(store) == ["seal"]
    assert [hit.chunk.text for hit in store.nearest(np.array([1, 0, 0, 0], np.float32), 5)] == ["walrus", "seal"]
    store.add_embeddings({b"hash of seal": np.array([1, 0], np.float32)})
    assert store.space() == SPACE
    store.finish_space()
    assert (store.space(), store.next_space()) == (Space("model-b", 2, "b.gguf"), None)
    assert [hit.chunk.text for hit in store.nearest(np.array([1, 0], np.float32), 5)] == ["seal", "walrus"]
    with pytest.raises(FingerprintMismatch, match="2 numbers"):
        store.nearest(np.ones(DIMENSION, np.float32), 5)
    tables = {name for (name,) in store._run("SELECT name FROM sqlite_schema WHERE name GLOB 'vector_*'")}
    assert len(tables) == 1 and store.integrity() == []


def test_going_back_to_the_searched_model_drops_the_other_and_embeds_only_what_is_new(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    store.enter_space(Space("model-b", 2))
    embed_awaiting(store, 2)
    write(store, "/b.txt", "seal")
    store.enter_space(SPACE)
    assert (store.space(), store.next_space()) == (SPACE, None)
    assert awaited(store) == ["seal"]
    embed_awaiting(store)
    store.finish_space()
    assert store.space() == SPACE and store.integrity() == []


def test_third_model_takes_the_place_of_the_second(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    store.enter_space(Space("model-b", 2))
    embed_awaiting(store, 2)
    store.enter_space(Space("model-c", 3))
    assert store.next_space() == Space("model-c", 3) and awaited(store) == ["walrus"]
    embed_awaiting(store, 3)
    store.finish_space()
    assert store.space() == Space("model-c", 3) and store.integrity() == []


def test_prune_reaches_both_spaces(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus\n\nseal")
    store.enter_space(Space("model-b", 2))
    embed_awaiting(store, 2)
    write(store, "/a.txt", "seal")
    assert store.prune() == 1
    assert len(store.nearest(np.ones(DIMENSION, np.float32), 5)) == 1
    store.finish_space()
    assert len(store.nearest(np.ones(2, np.float32), 5)) == 1 and store.integrity() == []


def test_entering_a_space_again_changes_nothing(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    store.enter_space(SPACE)
    store.enter_space(Space("model-b", 2))
    embed_awaiting(store, 2)
    store.enter_space(Space("model-b", 2))
    assert store.num_awaiting() == 0 and store.next_space() == Space("model-b", 2)


# ---------------------------------------------------------------- within a scope


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (Scope(), {"a.txt", "B.md", "c.py", "über.txt"}),
        (Scope(folders=("/home/Me/notes",)), {"a.txt", "B.md"}),
        (Scope(folders=("/me/notes",)), set()),
        (Scope(folders=("notes",)), {"a.txt", "B.md", "c.py"}),
        (Scope(folders=("me/Notes",)), {"a.txt", "B.md"}),
        (Scope(folders=("note",)), set()),
        (Scope(folders=("2024", "code")), {"B.md", "c.py"}),
        (Scope(folders=("/home/me/notes/A.txt", "/srv/notes")), {"a.txt", "c.py"}),
        (Scope(folders=("/home/me/notes/a", "a.txt")), set()),
        (Scope(folders=("notes",), within=("/srv", "/home/me/notes/2024/b.md")), {"B.md", "c.py"}),
        (Scope(not_folders=("/srv/notes/code/c.py",)), {"a.txt", "B.md", "über.txt"}),
        (Scope(types=("md", "py")), {"B.md", "c.py"}),
        (Scope(types=("text",)), {"a.txt", "B.md", "c.py", "über.txt"}),
        (Scope(names=("b",)), {"B.md", "über.txt"}),
        (Scope(names=("ÜBER",)), {"über.txt"}),
        (Scope(names=("b*.md",)), {"B.md"}),
        (Scope(names=("?.py",)), {"c.py"}),
        (Scope(names=("[abc]",)), set()),
        (Scope(after_ns=20, before_ns=40), {"B.md", "c.py"}),
        (Scope(folders=("notes",), types=("md",), after_ns=20), {"B.md"}),
        (Scope(not_folders=("/home/Me/notes", "x")), {"c.py", "über.txt"}),
        (Scope(not_folders=("2024",), not_types=("py",)), {"a.txt", "über.txt"}),
        (Scope(not_types=("text",)), set()),
        (Scope(not_names=("b", "?.py")), {"a.txt"}),
        (Scope(folders=("notes",), not_folders=("2024",)), {"a.txt", "c.py"}),
    ],
)
def test_every_search_stays_within_its_scope(store: SqliteStore, scope: Scope, names: set[str]) -> None:
    paths = ["/home/me/notes/a.txt", "/home/me/notes/2024/B.md", "/srv/notes/code/c.py", "/srv/über.txt"]
    for n, path in enumerate(paths, start=1):
        add(store, path, f"walrus {n}", state=FileState(10, 10 * n, ""))
    searches = [
        store.keyword("walrus", 9, scope),
        store.phrase("walrus", 9, scope),
        store.literal("ALRU", 9, scope),
        store.nearest(np.ones(DIMENSION, np.float32), 9, scope),
        store.newest(9, scope),
    ]
    assert [{hit.path.name for hit in hits} for hits in searches] == [names] * 5


def test_newest_files_are_listed_by_their_first_chunk(store: SqliteStore) -> None:
    for time, path in ((20, "/b"), (30, "/c"), (10, "/a")):
        add(store, path, f"first {path}\n\nsecond {path}", state=FileState(10, time, ""))
    store.record_failure(Path("/d"), FileState(10, 40, "", state="failed", reason="it is broken"))
    assert [(hit.path.name, hit.chunk.text) for hit in store.newest(2)] == [("c", "first /c"), ("b", "first /b")]
    assert [hit.path.name for hit in store.newest(9)] == ["c", "b", "a"]


def test_scope_counts_before_the_limit(store: SqliteStore) -> None:
    for n in range(50):
        add(store, f"/near/{n}.txt", f"walrus {n}", [[1, 0.01 * n, 0, 0]])
    add(store, "/far/a.txt", "a walrus among " + "many other words " * 20, [[0, 0, 0, 1]])
    scope = Scope(folders=("far",))
    for hits in (store.keyword("walrus", 1, scope), store.nearest(np.array([1, 0, 0, 0], np.float32), 1, scope)):
        assert [hit.path.name for hit in hits] == ["a.txt"]


# ---------------------------------------------------------------- the file


def test_index_is_made_with_its_folder_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "index.sqlite"
    with SqliteStore(path) as store:
        store.enter_space(SPACE)
        add(store, "/a.txt", "walrus")
    with SqliteStore(path) as store:
        assert found(store, "walrus") == ["a.txt"]
        assert store.space() == SPACE
        assert store.integrity() == []


def test_foreign_and_damaged_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    text, foreign, folder = tmp_path / "text.sqlite", tmp_path / "foreign.sqlite", tmp_path / "folder.sqlite"
    text.write_text("not a database " * 1000)
    folder.mkdir()
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs(x)")
    connection.close()
    before = foreign.read_bytes()
    for path in (text, foreign, folder):
        with pytest.raises(StoreError) as refused:
            SqliteStore(path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
    assert foreign.read_bytes() == before
    with pytest.raises(StoreError, match="another program.*gritdesk index"):
        SqliteStore(foreign)


def test_overwritten_index_is_refused_or_answers_with_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with SqliteStore(path) as store:
        store.enter_space(SPACE)
        add(store, "/a.txt", "\n\n".join(f"walrus {n}" for n in range(500)))
    whole = path.read_bytes()
    for start in range(100, len(whole), len(whole) // 7):
        path.write_bytes(whole[:start] + bytes([255]) * 20_000 + whole[start + 20_000 :])
        try:
            with SqliteStore(path) as store:
                store.keyword("walrus", 5)
                problems = store.integrity()
        except StoreError as error:
            problems = [str(error)]
            assert str(path) in str(error)
        assert problems


def test_truncated_index_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with SqliteStore(path) as store:
        store.enter_space(SPACE)
        add(store, "/a.txt", "walrus")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(StoreError, match="move it away"):
        SqliteStore(path).keyword("walrus", 5)


def test_writer_that_waits_in_vain_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gritdesk.store.sqlite._BUSY_MS", 20)
    with SqliteStore(tmp_path / "index.sqlite") as first, SqliteStore(tmp_path / "index.sqlite") as second:
        first._connection.execute("BEGIN IMMEDIATE")
        assert second.files() == {}
        with pytest.raises(StoreBusy, match="another program"):
            second.delete_documents([Path("/a.txt")])


def test_reader_sees_whole_documents_while_another_connection_writes(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "index.sqlite") as writer, SqliteStore(tmp_path / "index.sqlite") as reader:
        writer.enter_space(SPACE)
        add(writer, "/a.txt", "walrus")
        assert found(reader, "walrus") == ["a.txt"]
        assert len(reader.nearest(np.ones(DIMENSION, np.float32), 5)) == 1


def test_close_ends_what_another_thread_is_doing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "index.sqlite")
    started = threading.Event()
    errors: list[StoreError] = []
    store._connection.create_scalar_function("started", lambda: started.set(), 0)

    def count() -> None:
        try:
            store._run(
                "WITH RECURSIVE n(x) AS (SELECT started() UNION ALL SELECT 1 FROM n LIMIT 1000000000) SELECT x FROM n "
                "WHERE x = 2"
            )
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    assert started.wait(20)
    store.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in str(errors[0])
    with pytest.raises(StoreError, match="closed"):
        store.files()
    store.close()


def test_a_search_by_words_imports_no_numpy(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "index.sqlite") as store:
        store.enter_space(SPACE)
        add(store, "/a.txt", "walrus")
    code = (
        "import sys, pathlib; from gritdesk.store.sqlite import SqliteStore\n"
        f"assert SqliteStore(pathlib.Path({str(tmp_path / 'index.sqlite')!r})).keyword('walrus', 1)\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_index_that_is_being_written_is_not_called_damaged(tmp_path: Path) -> None:
    path, stop = tmp_path / "index.sqlite", threading.Event()
    with SqliteStore(path) as store:
        store.enter_space(SPACE)

    def write() -> None:
        with SqliteStore(path) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                add(writer, f"/{number % 20}.txt", f"walrus {number}\n\npenguin {number % 7}")
                writer.prune()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with SqliteStore(path) as reader:
            assert [reader.integrity() for _ in range(30)] == [[]] * 30
    finally:
        stop.set()
        thread.join()
