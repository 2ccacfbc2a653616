"""How long searches take in the store: `python benchmarks/store.py [NUM_CHUNKS] [DIMENSION]`, by default 10000 and 256.

Prints a table row: `gritdesk --help` and `gritdesk search --mode keyword` as processes of their own (start, imports
and opening included, page cache warm), then words and exact nearest neighbours in a warm one, and the file's size.
Text is made of words with the frequencies of writing (Zipf), 120 words a chunk; embeddings are random.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from gritdesk.records import Chunk, Document
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

CHUNKS_PER_FILE = 20
WORDS_PER_CHUNK = 120


def main(num_chunks: int = 10_000, dimension: int = 256) -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"{prefix}{n}" for n in range(5_000) for prefix in ("ba", "ke", "to", "mi")])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        with SqliteStore(path) as store:
            seconds = _seconds(lambda: _fill(store, words, num_chunks, dimension, rng))
            queries = [" ".join(words[10 + rng.zipf(1.3, 3) % len(words)]) for _ in range(30)]
            by_words = [_seconds(lambda query=query: store.keyword(query, 50)) for query in queries]  # type: ignore[misc]
            vectors = rng.normal(size=(30, dimension)).astype(np.float32)
            nearest = [_seconds(lambda vector=vector: store.nearest(vector, 50)) for vector in vectors]  # type: ignore[misc]
        cold = [
            _seconds(lambda query=query: _run(path.parent, "search", query, "--mode", "keyword")) for query in queries
        ]  # type: ignore[misc]
        help_ = [_seconds(lambda: _run(path.parent, "--help")) for _ in range(20)]
        size_mb = path.stat().st_size / 1e6
    print("| chunks | dimension | fill s | MB | --help ms | words, cold ms | words ms | nearest ms |   (p50 / p95)")
    columns = [_milliseconds(each) for each in (help_, cold, by_words, nearest)]
    print(f"| {num_chunks:,} | {dimension} | {seconds:.1f} | {size_mb:.0f} | {' | '.join(columns)} |")


def _run(home: Path, *arguments: str) -> None:
    program = Path(sys.executable).with_name("gritdesk")
    environment = os.environ | {"GRITDESK_HOME": str(home)}
    done = subprocess.run([program, *arguments], check=True, capture_output=True, env=environment)
    assert done.stdout


def _fill(store: SqliteStore, words: np.ndarray, num_chunks: int, dimension: int, rng: np.random.Generator) -> None:
    store.enter_space(Space("benchmark", dimension))
    for first in range(0, num_chunks, CHUNKS_PER_FILE):
        drawn = rng.zipf(1.3, (CHUNKS_PER_FILE, WORDS_PER_CHUNK)) % len(words)
        texts = [" ".join(words[row]) for row in drawn]
        hashes = [f"{first + n}".encode() for n in range(CHUNKS_PER_FILE)]
        vectors = rng.normal(size=(CHUNKS_PER_FILE, dimension)).astype(np.float32)
        document = Document(Path(f"/library/{first}.txt"), "\n\n".join(texts), "text")
        embeddings = dict(zip(hashes, vectors, strict=True))
        store.replace_document(document, FileState(0, 0, ""), list(_chunks(texts)), hashes)
        store.add_embeddings(embeddings)


def _chunks(texts: Iterable[str]) -> Iterable[Chunk]:
    start = 0
    for n, text in enumerate(texts):
        yield Chunk(text, start, start + len(text), 2 * n + 1, 2 * n + 1, num_tokens=2 * WORDS_PER_CHUNK)
        start += len(text) + 2


def _seconds(act: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    act()
    return time.perf_counter() - started_at


def _milliseconds(seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return f"{1000 * statistics.median(seconds):.1f} / {1000 * p95:.1f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
