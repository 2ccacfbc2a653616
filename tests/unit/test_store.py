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
from gritdesk.records import Chunk, Document, FailedFile
from gritdesk.store.base import FileState
from gritdesk.store.sqlite import SqliteStore

DIMENSION = 4
STATE = FileState(10, 20, "abc")


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        store.set_fingerprint("model-a", DIMENSION)
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


def add(store: SqliteStore, path: str | Path, text: str, vectors: Sequence[Sequence[float]] | None = None) -> None:
    chunks = chunks_of(text)
    hashes = [b"hash of " + chunk.text.encode() for chunk in chunks]
    rows = vectors or [np.random.default_rng(len(each)).normal(size=DIMENSION) for each in hashes]
    embeddings = {each: np.asarray(row, np.float32) for each, row in zip(hashes, rows, strict=True)}
    known = store.known_embeddings(hashes)
    new = {each: row for each, row in embeddings.items() if each not in known}
    store.replace_document(Document(Path(path), text, "text"), STATE, chunks, hashes, new)


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
    assert store.known_embeddings([b"hash of same", b"hash of only a", b"hash of only b"]) == {
        b"hash of same",
        b"hash of only b",
    }


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
    with pytest.raises(FingerprintMismatch):
        add(store, "/a.txt", "penguin", [[1.0, 2.0]])
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


def test_nearest_is_exact_cosine_search(store: SqliteStore) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, DIMENSION)).astype(np.float32)
    add(store, "/a.txt", "\n\n".join(f"p{n}" for n in range(300)), vectors.tolist())
    query = rng.normal(size=DIMENSION).astype(np.float32)
    distances = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    expected = np.argsort(distances)[:10]
    hits = store.nearest(query, 10)
    assert [hit.chunk.text for hit in hits] == [f"p{n}" for n in expected]
    np.testing.assert_allclose([hit.distance for hit in hits], distances[expected], atol=1e-6)
    assert [hit.semantic_rank for hit in hits] == list(range(1, 11))


def test_index_without_embeddings_has_words_only() -> None:
    with SqliteStore(":memory:") as store:
        document = Document(Path("/a.txt"), "walrus", "text")
        store.replace_document(document, STATE, chunks_of("walrus"), [], {})
        assert store.fingerprint is None
        assert found(store, "walrus") == ["a.txt"]
        assert store.nearest(np.ones(DIMENSION, np.float32), 5) == []
        assert store.integrity() == []


def test_embeddings_of_two_models_are_never_mixed(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    assert store.fingerprint == "model-a"
    store.check_fingerprint("model-a")
    for refused in (lambda: store.check_fingerprint("model-b"), lambda: store.set_fingerprint("model-b", DIMENSION)):
        with pytest.raises(FingerprintMismatch, match="gritdesk index"):
            refused()
    with pytest.raises(FingerprintMismatch, match="4 numbers"):
        store.nearest(np.ones(5, np.float32), 5)


def test_cleared_embeddings_leave_words_and_make_every_file_pending(store: SqliteStore) -> None:
    add(store, "/a.txt", "walrus")
    store.clear_embeddings()
    assert store.fingerprint is None
    assert found(store, "walrus") == ["a.txt"]
    assert store.files()[Path("/a.txt")].size_bytes != STATE.size_bytes
    store.set_fingerprint("model-b", 2)
    assert store.known_embeddings([b"hash of walrus"]) == set()
    assert store.integrity() == []


def test_another_model_tries_failed_files_again(store: SqliteStore) -> None:
    failed = FileState(10, 20, "abc", "failed", "the engine died of it twice")
    store.record_failure(Path("/a.txt"), failed)
    store.clear_embeddings()
    assert store.files()[Path("/a.txt")].size_bytes != failed.size_bytes
    assert store.failures() == [FailedFile(Path("/a.txt"), failed.reason)]


# ---------------------------------------------------------------- the file


def test_index_is_made_with_its_folder_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "index.sqlite"
    with SqliteStore(path) as store:
        store.set_fingerprint("model-a", DIMENSION)
        add(store, "/a.txt", "walrus")
    with SqliteStore(path) as store:
        assert found(store, "walrus") == ["a.txt"]
        assert store.fingerprint == "model-a"
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
        store.set_fingerprint("model-a", DIMENSION)
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
        store.set_fingerprint("model-a", DIMENSION)
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
        writer.set_fingerprint("model-a", DIMENSION)
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
        store.set_fingerprint("model-a", DIMENSION)
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
        store.set_fingerprint("model-a", DIMENSION)

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
