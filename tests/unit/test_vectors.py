"""Stored embeddings, codes and the search among them, against plain float32."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gritdesk.records import Chunk, Document, Scope
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import Shared, SqliteStore
from gritdesk.store.vectors import codes, cosines, num_bits, restored, stored

NUM_FILES, CHUNKS_PER_FILE = 25, 200


def clustered(num: int, dimension: int, num_queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings in groups of 8 in groups of 16 and so on, of a falling spectrum: neighbours come without gaps."""
    rng = np.random.default_rng(0)
    rank = min(dimension, 256)
    spectrum = ((np.arange(rank) + 3.0) ** -0.375).astype(np.float32)
    basis = rng.standard_normal((rank, dimension), np.float32)
    levels = [rng.standard_normal((max(1, num >> n), rank), np.float32) * spectrum for n in range(3, 12)]

    def drawn(count: int, own: float) -> NDArray[np.float32]:
        group = rng.integers(0, len(levels[0]), count)
        rows = rng.standard_normal((count, rank), np.float32) * spectrum * np.float32(own**0.5)
        for n, level in enumerate(levels):
            rows += level[np.minimum(group >> n, len(level) - 1)] * np.float32((0.5 / len(levels)) ** 0.5)
        rows = rows @ basis
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return drawn(num, 0.5), drawn(num_queries, 0.6)


def fill(store: SqliteStore, vectors: NDArray[np.float32]) -> None:
    """A file of CHUNKS_PER_FILE chunks for each as many embeddings; chunk and embedding have one number as text."""
    for first in range(0, len(vectors), CHUNKS_PER_FILE):
        rows = vectors[first : first + CHUNKS_PER_FILE]
        texts = [f"{first + n:6}" for n in range(len(rows))]
        chunks = [Chunk(text, 6 * n, 6 * n + 6, 1, 1) for n, text in enumerate(texts)]
        number = first // CHUNKS_PER_FILE
        document = Document(Path(f"/{number % 10}/{number}.txt"), "".join(texts), "text")
        hashes = [text.encode() for text in texts]
        store.replace_document(document, FileState(9, number, ""), chunks, hashes)
        store.add_embeddings(dict(zip(hashes, rows, strict=True)))


def nearest(store: SqliteStore, query: NDArray[np.float32], scope: Scope = Scope()) -> set[int]:  # noqa: B008
    return {int(hit.chunk.text) for hit in store.nearest(query, 10, scope)}


@pytest.mark.parametrize("dimension", [256, 384, 1024, 4096])
def test_nearly_all_of_the_ten_nearest_are_found(dimension: int) -> None:
    num = NUM_FILES * CHUNKS_PER_FILE
    vectors, queries = clustered(num, dimension, 30)
    inside = np.arange(num) // CHUNKS_PER_FILE % 10 < 3
    scope = Scope(folders=("0", "1", "2"))
    with SqliteStore(":memory:") as store:
        store.enter_space(Space("m", dimension))
        fill(store, vectors)
        found, found_inside, expected, expected_inside = [], [], [], []
        for query in queries:
            similarity = vectors @ query
            expected.append(set(np.argsort(-similarity)[:10].tolist()))
            expected_inside.append(set(np.argsort(np.where(inside, -similarity, 9))[:10].tolist()))
            found.append(nearest(store, query))
            found_inside.append(nearest(store, query, scope))
    for ones, others in ((found, expected), (found_inside, expected_inside)):
        assert np.mean([len(one & other) / 10 for one, other in zip(ones, others, strict=True)]) >= 0.99


@pytest.mark.parametrize("dimension", [3, 64, 384, 1000, 2000])
def test_stored_embedding_is_the_embedding_but_for_its_rounding(dimension: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, dimension), np.float32) * 5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [row.tobytes() for row in stored(vectors)]
    largest = np.abs(unit).max(axis=1, keepdims=True)
    steps = largest / {3: 32767, 64: 32767, 384: 255, 1000: 255, 2000: 127}[dimension]
    found = restored(rows, codes(vectors), dimension)
    assert (np.abs(found - unit) <= steps * 0.51).all()
    np.testing.assert_allclose(cosines(rows, codes(vectors), unit[0]), found @ unit[0], atol=1e-5)


def test_embedding_of_zeros_is_stored_and_far_from_all() -> None:
    zeros = np.zeros((1, 384), np.float32)
    rows = [row.tobytes() for row in stored(zeros)]
    assert not restored(rows, codes(zeros), 384).any()
    assert cosines(rows, codes(zeros), np.ones(384, np.float32)) == [0]


def test_codes_are_the_same_in_every_process() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 384), np.float32)
    assert (np.unpackbits(codes(vectors), axis=1) == (vectors > 0)).all()
    assert [num_bits(each) for each in (3, 383, 384, 400, 1024, 1025, 4096)] == [768, 768, 384, 448, 1024, 768, 768]
    # stored codes are compared with those that later versions make
    assert codes(np.arange(1, 5, dtype=np.float32)[None])[0, :4].tolist() == [146, 162, 129, 27]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "index.sqlite"
    vectors, _ = clustered(3000, 384, 1)
    with SqliteStore(path) as store:
        store.enter_space(Space("m", 384))
        fill(store, vectors)
    yield path


def test_codes_in_memory_follow_what_other_connections_write(path: Path) -> None:
    """Additions within a block and over several, removals, another space."""
    rng = np.random.default_rng(1)
    query = rng.standard_normal(384, np.float32)
    with SqliteStore(path) as reader, SqliteStore(path) as writer:
        for num_new in (1, 1, 700, 3000):
            reader.nearest(query, 1)
            new = {rng.bytes(8): rng.standard_normal(384, np.float32) for _ in range(num_new - 1)}
            new[rng.bytes(8)] = query
            text = "".join("x" * len(new))
            chunks = [Chunk("x", n, n + 1, 1, 1) for n in range(len(new))]
            writer.replace_document(Document(Path("/new.txt"), text, "text"), FileState(1, 1, ""), chunks, [*new])
            writer.add_embeddings(new)
            (hit,) = reader.nearest(query, 1)
            assert hit.path == Path("/new.txt") and hit.distance == pytest.approx(0, abs=1e-3)
        writer.delete_documents([Path("/new.txt")])
        writer.prune()
        assert reader.nearest(query, 1)[0].path != Path("/new.txt")
        writer.enter_space(Space("other", 8))
        writer.add_embeddings({hash_: rng.standard_normal(8, np.float32) for hash_, _ in writer.awaiting(9999)})
        writer.finish_space()
        assert len(reader.nearest(np.ones(8, np.float32), 3000)) == 3000
        assert reader.integrity() == []


def test_threads_of_a_process_share_the_codes(path: Path) -> None:
    shared = Shared()
    queries = np.random.default_rng(1).standard_normal((8, 384), np.float32)
    with SqliteStore(path) as store:
        expected = [[hit.chunk_id for hit in store.nearest(query, 10)] for query in queries]
    found: dict[int, list[int]] = {}

    def search(n: int) -> None:
        with SqliteStore(path, shared) as store:
            for _ in range(5):
                found[n] = [hit.chunk_id for hit in store.nearest(queries[n], 10)]

    threads = [threading.Thread(target=search, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(8)] == expected
    assert shared.codes() is shared.codes()


def test_hits_of_files_that_are_gone_hide_none_that_are_there(path: Path) -> None:
    vectors, _ = clustered(3000, 384, 1)
    with SqliteStore(path) as store:
        gone = [each for each in store.files() if each.name != "7.txt"]
        store.delete_documents(gone)  # their embeddings stay until they are pruned
        hits = store.nearest(vectors[0], 300)
        assert {hit.path.name for hit in hits} == {"7.txt"} and len(hits) == CHUNKS_PER_FILE


def test_scope_that_holds_few_chunks_is_searched_exactly(path: Path) -> None:
    vectors, _ = clustered(3000, 384, 1)
    query = np.random.default_rng(5).standard_normal(384, np.float32)
    with SqliteStore(path) as store:
        hits = store.nearest(query, 5, Scope(names=("7.txt",)))
    nearest_ones = np.sort(1 - vectors[1400:1600] @ query / np.linalg.norm(query))[:5]
    np.testing.assert_allclose([hit.distance for hit in hits], nearest_ones, atol=2e-3)


def test_damaged_embedding_or_code_is_told(path: Path) -> None:
    with SqliteStore(path) as store:
        store._run("UPDATE vector_1 SET embedding = zeroblob(length(embedding)) WHERE passage_id = 7")
        store._run("DELETE FROM vector_1 WHERE passage_id = 8")
        store._run("DELETE FROM code_1 WHERE rowid = 9")
        store._run("UPDATE vector_1 SET embedding = x'00' WHERE passage_id = 10")
        problems = "\n".join(store.integrity())
    for told in ("embedding 7 does not", "passage 8 neither", "1 codes belong", "embedding 9 has no", "embedding 10"):
        assert told in problems, told
