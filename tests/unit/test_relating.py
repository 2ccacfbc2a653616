import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_engine import DIMENSION, FakeEngine

from gritdesk.errors import QueryError
from gritdesk.records import Chunk, Document
from gritdesk.relating import similar_files
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

CHUNK_WORDS = 50


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        yield store


def add(store: SqliteStore, *, embedded: bool = True, **texts: str) -> None:
    """Files by name, in chunks of a few words, each with an embedding."""
    if embedded:
        store.enter_space(Space("fake", DIMENSION))
    for name, text in texts.items():
        words = text.split()
        parts = [" ".join(words[at : at + CHUNK_WORDS]) for at in range(0, len(words), CHUNK_WORDS)]
        text, chunks = "", []
        for part in parts:
            chunks.append(Chunk(part, len(text), len(text) + len(part), 1, 1))
            text += part + "\n"
        state = FileState(len(text), 0, content_hash=text)
        store.replace_document(Document(Path(name), text, "text"), state, chunks, [each.encode() for each in parts])
        if embedded:
            rows = FakeEngine().embed([("", each) for each in parts])
            store.add_embeddings({each.encode(): row for each, row in zip(parts, rows, strict=True)})


def names(store: SqliteStore, name: str, n: int = 9) -> list[str]:
    hits = similar_files(store, Path(name), n).hits
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [hit.path.name for hit in hits]


def test_similar_files_are_near_in_meaning_each_once(store: SqliteStore) -> None:
    add(
        store,
        a="walrus penguin seal otter " * 30,
        near="walrus penguin seal " * 40,
        far="engine battery starter",
        copy="walrus penguin seal otter " * 30,
    )
    assert names(store, "a") == ["near", "far"] and names(store, "a", 1) == ["near"]
    assert similar_files(store, Path("a")).copies == (Path("copy"),)


@pytest.mark.parametrize("embedded", [True, False])
def test_copies_of_another_file_are_one_hit(store: SqliteStore, embedded: bool) -> None:
    add(store, embedded=embedded, a="walrus penguin", b="walrus seal", copy_of_b="walrus seal", c="walrus otter")
    assert len(names(store, "a")) == 2 and len(set(names(store, "a")) & {"b", "copy_of_b"}) == 1


def test_file_with_all_of_it_comes_before_one_that_shares_a_passage(store: SqliteStore) -> None:
    half, other = "walrus penguin seal " * 16, "engine battery starter " * 16
    add(store, a=half + other, mixture=f"{other} {half} 1", part=half + " 2" + "ledger audit budget " * 80)
    assert names(store, "a") == ["mixture", "part"]
    mixture, part = similar_files(store, Path("a")).hits
    assert mixture.score > 0.9 > part.score


def test_similar_files_are_found_behind_many_chunks_of_the_file_itself(store: SqliteStore) -> None:
    add(store, long=" ".join(f"walrus penguin {n}" for n in range(6000)), near="walrus penguin")
    assert names(store, "long", 1) == ["near"]


def test_without_embeddings_similar_files_share_rare_words(store: SqliteStore) -> None:
    common = {f"f{n}": f"the report of the week {n}" for n in range(60)}
    rare = {"a": "the report of the walrus and the lagoon", "b": "a lagoon with a walrus", "c": "the report again"}
    add(store, embedded=False, **common, **rare)
    assert names(store, "a")[0] == "b"


def test_without_embeddings_files_of_a_script_without_spaces_share_pairs_of_letters(store: SqliteStore) -> None:
    texts = {"a": "明日の東京の天気は晴れです", "b": "東京の天気は雨", "c": "大阪の料理はおいしい", "d": "weather"}
    add(store, embedded=False, **texts)
    assert names(store, "a")[0] == "b"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_file_is_known_by_a_link_to_it(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("walrus")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    add(store, **{str(tmp_path / "a"): "walrus", "b": "penguin"})
    assert names(store, str(tmp_path / "link")) == ["b"]


def test_file_that_shares_nothing_has_no_similar_ones(store: SqliteStore) -> None:
    add(store, embedded=False, a="walrus", b="penguin", c="...")
    assert names(store, "a") == names(store, "c") == []


def test_similar_to_a_file_that_is_not_indexed_is_refused(store: SqliteStore) -> None:
    with pytest.raises(QueryError, match="nowhere is not in the index"):
        similar_files(store, Path("/nowhere"))
    store.record_failure(Path("b"), FileState(0, 0, "", state="failed", reason="it is broken"))
    with pytest.raises(QueryError, match="b could not be indexed: it is broken"):
        similar_files(store, Path("b"))
