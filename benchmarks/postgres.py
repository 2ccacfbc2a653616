"""An index in PostgreSQL: `python benchmarks/postgres.py [NUM_CHUNKS] [DIMENSION]`, by default 20000 and 384.

Starts the server that the tests start, with the settings it comes with, fills an index, and prints a table: writing,
the nearest 10 everywhere and in folders that hold half, a tenth and a hundredth of the chunks, words of a question,
recall against comparing all, and what is on disk beside the text. Times are p50 / p95 of one query at a time.
Text is made of words with the frequencies of writing (Zipf), 120 words a chunk; embeddings lie around 500 centres in a
space of 48 dimensions, as those of texts lie closer than random ones.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_server import PostgresServer  # noqa: E402

from gritdesk.records import Chunk, Document, Scope  # noqa: E402
from gritdesk.store.base import EVERYWHERE, FileState, Space  # noqa: E402
from gritdesk.store.postgres import PostgresStore  # noqa: E402
from gritdesk.store.postgres_connection import parse_address  # noqa: E402

CHUNKS_PER_FILE = 50
NUM_QUERIES = 60
WORDS = np.array([f"{prefix}{n}" for n in range(5_000) for prefix in ("ba", "ke", "to", "mi")])


def main(num_chunks: int = 20_000, dimension: int = 384) -> None:
    rng = np.random.default_rng(0)
    rows = _texts_like(rng, num_chunks + NUM_QUERIES, dimension)
    queries, embeddings = rows[:NUM_QUERIES], rows[NUM_QUERIES:]
    server = PostgresServer()
    try:
        with PostgresStore(parse_address(server.url())) as store:
            started_at = time.perf_counter()
            text_bytes = _fill(store, embeddings, rng)
            fill_s = time.perf_counter() - started_at
            server.run("VACUUM ANALYZE")
            size = store.size_bytes()
            print("| chunks | dimension | ms to write a chunk | bytes a chunk | within | nearest 10 ms | recall@10 |")
            for share in (1, 2, 10, 100):
                scope = Scope(folders=(f"every{share}",)) if share > 1 else EVERYWHERE
                inside = np.array([n for n in range(num_chunks) if n // CHUNKS_PER_FILE % share == 0])
                times, recall = _nearest(store, scope, queries, embeddings[inside], inside)
                print(
                    f"| {num_chunks:,} | {dimension} | {1000 * fill_s / num_chunks:.2f} "
                    f"| {(size - text_bytes) / num_chunks:.0f} | 1/{share} | {times} | {recall:.3f} |",
                    flush=True,
                )
            questions = [" ".join(WORDS[10 + rng.zipf(1.3, 6) % 19_000]) for _ in range(NUM_QUERIES)]
            for all_first in (True, False):
                times = [_seconds(partial(store.keyword, each, 50, all_first=all_first)) for each in questions]
                print(f"six words, {'all first' if all_first else 'any by BM25'}: {_milliseconds(times)} ms")
    finally:
        server.close()


def _texts_like(rng: np.random.Generator, num: int, dimension: int) -> NDArray[np.float32]:
    centres = rng.normal(size=(500, 48))
    low = centres[rng.integers(0, 500, num)] + 0.6 * rng.normal(size=(num, 48))
    rows = low @ rng.normal(size=(48, dimension)) + 1.5 * rng.normal(size=(num, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _fill(store: PostgresStore, embeddings: NDArray[np.float32], rng: np.random.Generator) -> int:
    store.enter_space(Space("benchmark", embeddings.shape[1]))
    num_bytes = 0
    for first in range(0, len(embeddings), CHUNKS_PER_FILE):
        rows = embeddings[first : first + CHUNKS_PER_FILE]
        texts = [" ".join(WORDS[row]) for row in rng.zipf(1.3, (len(rows), 120)) % len(WORDS)]
        chunks, start = [], 0
        for text in texts:
            chunks.append(Chunk(text, start, start + len(text), 1, 1, num_tokens=240))
            start += len(text) + 2
        number = first // CHUNKS_PER_FILE
        folders = "/".join(f"every{share}" for share in (2, 10, 100) if number % share == 0)
        hashes = [f"{first + n}".encode() for n in range(len(rows))]
        document = Document(Path(f"/library/{folders}/{number}.txt"), "\n\n".join(texts), "text")
        store.replace_document(document, FileState(start, 0, ""), chunks, hashes)
        store.add_embeddings(dict(zip(hashes, rows, strict=True)))
        num_bytes += start
    store.finish_space()  # which makes the index
    return num_bytes


def _nearest(
    store: PostgresStore,
    scope: Scope,
    queries: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    numbers: NDArray[np.int64],
) -> tuple[str, float]:
    """Times, and the share of the ten truly nearest that was found."""
    times, found = [], 0
    exact = np.argsort(-(queries @ embeddings.T), axis=1)[:, :10]
    for query, best in zip(queries, exact, strict=True):
        started_at = time.perf_counter()
        hits = store.nearest(query, 10, scope)
        times.append(time.perf_counter() - started_at)
        places = {(int(hit.path.stem), hit.chunk.char_start) for hit in hits}
        wanted = {int(number) for number in numbers[best]}
        ids = _numbers(store, places)
        found += len(wanted & ids)
    return _milliseconds(times), found / (10 * len(queries))


_starts: dict[int, list[int]] = {}


def _numbers(store: PostgresStore, places: set[tuple[int, int]]) -> set[int]:
    """Numbers of embeddings from file and place of their chunks."""
    numbers = set()
    for file, start in places:
        if file not in _starts:
            rows = store._run(
                """SELECT char_start FROM chunk JOIN document ON document.id = document_id
                   WHERE document.name = :name ORDER BY 1""",
                name=f"{file}.txt",
            )
            _starts[file] = [row[0] for row in rows]
        numbers.add(file * CHUNKS_PER_FILE + _starts[file].index(start))
    return numbers


def _seconds(act: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    act()
    return time.perf_counter() - started_at


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} / {1000 * statistics.quantiles(seconds, n=20)[-1]:.1f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
