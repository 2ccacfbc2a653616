"""Search over many chunks: `python benchmarks/search_scale.py [--chunks N] [--dimension D] [--peers] [--index PATH]`.

Fills an index of N chunks (by default 100,000 of 384 dimensions) and measures in it, one query at a time:

    nearest       the search by meaning alone, ten hits, and how many of the ten an exact search finds are among them
    hybrid        gritdesk.retriever with words and a given embedding; everywhere, and within scopes of three widths
    literal       a text that is nowhere, so that everything is looked at
    cold          a process of its own that imports, opens and asks once, by meaning and words (page cache warm)
    resident      the most memory such a process held after all queries, pages of the mapped file included
    bytes         of the index per chunk beside the text

Peers (`--peers`, those of sqlite-vec, numpy, hnswlib, faiss-cpu and lancedb that are installed) get the same
embeddings and queries. `--index PATH` keeps the index for another run.

Text: about 210 bytes a chunk, ten chunks a file, words of a vocabulary of 100,000 with the frequencies of writing
(Zipf-Mandelbrot), the first of them English stop words. Embeddings: groups of 8 chunks in groups of 16, of 32 and so
on, half of each embedding from these and half its own, so that neighbours come without gaps; all of a spectrum that
falls as that of all-MiniLM-L6-v2 on real text does (measured on 3,840 passages: 10 of 384 directions hold a fifth of
the variance, 100 two thirds). A query is one more of a group, further away.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import SearchConfig
from gritdesk.records import Chunk, Document, Hit
from gritdesk.retriever import Retriever
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

CHUNKS_PER_FILE = 10
WORDS_PER_CHUNK = 34
FILTERS = {
    "everywhere": "",
    "in: 1 folder of 100": "in:7",
    "type: 1 file of 3": "type:md",
    "after: more than half, and in: 20 folders": "after:1970-01-06 " + " ".join(f"in:{n}" for n in range(20, 40)),
}
STOP_WORDS = "the of and to in a is that for it as was with be by on not he his but at are this have from".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--all", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once or given.all:
        ask_as_a_process(given.once or given.all, is_once=given.once is not None)
        return
    with tempfile.TemporaryDirectory() as folder:
        path: Path = given.index or Path(folder) / "index.sqlite"
        measure(path, given.chunks, given.dimension, given.queries, has_peers=given.peers)


def measure(path: Path, num_chunks: int, dimension: int, num_queries: int, *, has_peers: bool) -> None:
    vectors_ND, queries_QD = clustered(num_chunks, dimension, num_queries)
    texts = Texts()
    if not path.exists():
        started_at = time.perf_counter()
        text_bytes = fill(path, vectors_ND, texts)
        print(f"filled in {time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    questions = texts.questions(num_queries)
    asked = path.with_suffix(".queries.json")
    asked.write_text(json.dumps({"questions": questions, "embeddings": queries_QD.tolist()}))
    exact = [set(np.argsort(-(vectors_ND @ query_D), kind="stable")[:10].tolist()) for query_D in queries_QD]
    rows: list[tuple[str, str, str]] = []
    with SqliteStore(path) as store:
        _, num_stored, text_bytes = store.counts()
        assert num_stored == num_chunks, "the index at --index holds other chunks"
        found = [chunk_numbers(store.nearest(query_D, 10)) for query_D in queries_QD]  # also warms up
        recall = statistics.fmean(len(one & other) / 10 for one, other in zip(found, exact, strict=True))
        seconds = [_seconds(lambda query_D=query_D: store.nearest(query_D, 10)) for query_D in queries_QD]  # type: ignore[misc]
        rows.append(("nearest, 10 hits", _milliseconds(seconds), f"recall@10 {recall:.4f}"))
        for name, filters in FILTERS.items():
            seconds = [
                _seconds(lambda n=n, filters=filters: hybrid(store, f"{questions[n]} {filters}", queries_QD[n]))  # type: ignore[misc]
                for n in range(num_queries)
            ]
            rows.append((f"hybrid, {name}", _milliseconds(seconds), ""))
        seconds = [_seconds(lambda: store.literal("qzxj", 50)) for _ in range(5)]
        rows.append(("literal, nowhere", _milliseconds(seconds), ""))
    cold = [_seconds(lambda: _run("--once", path)) for _ in range(5)]
    rows.append(("first query of a cold process", _milliseconds(cold), "imports and opening included"))
    resident = int(_run("--all", path))
    size = path.stat().st_size
    if has_peers:
        rows += [(f"peer: {name}", *measured) for name, measured in peers(vectors_ND, queries_QD, exact)]
    print(f"{num_chunks:,} chunks, {dimension} dimensions, {num_queries} queries\n")
    print("| search | ms, p50 / p95 | of the processor | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\nresident {resident / 1e6:.0f} MB, index {size / 1e6:.0f} MB,", end=" ")
    print(f"{(size - text_bytes) / num_chunks:.0f} bytes per chunk beside {text_bytes / num_chunks:.0f} of text")


def hybrid(store: SqliteStore, query: str, query_D: NDArray[np.float32]) -> list[Hit]:
    return Retriever(store, lambda _: query_D, SearchConfig()).search(query, 10)


def ask_as_a_process(path: Path, *, is_once: bool) -> None:
    asked = json.loads(path.with_suffix(".queries.json").read_text())
    with SqliteStore(path) as store:
        for question, embedding in zip(asked["questions"], asked["embeddings"], strict=True):
            assert hybrid(store, question, np.array(embedding, np.float32))
            if is_once:
                return
    print(most_resident_bytes())


def most_resident_bytes() -> int:
    """Of this process; Linux's getrusage would count what the process that started it held."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [each for each in status.read_text().splitlines() if each.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---------------------------------------------------------------- what is searched


def clustered(num: int, dimension: int, num_queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings float32[num, dimension] of num chunks, and of queries, L2-normalised."""
    rng = np.random.default_rng(0)
    rank = min(dimension, 512)
    spectrum = (np.arange(rank) + 3.0) ** -0.75 * np.sqrt(1 - np.arange(rank) / rank)
    spectrum_R = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)
    basis_RD = rng.standard_normal((rank, dimension), np.float32) / np.sqrt(np.float32(dimension))

    def directions(count: int) -> NDArray[np.float32]:
        return rng.standard_normal((count, rank), np.float32) * spectrum_R

    levels = [directions(max(1, num >> halvings)) for halvings in range(3, max(4, num.bit_length() - 2))]
    within = np.float32((0.5 / len(levels)) ** 0.5)

    def of_groups(count: int, own: float) -> NDArray[np.float32]:
        rows = []
        for start in range(0, count, 50_000):
            some = min(50_000, count - start)
            group = rng.integers(0, len(levels[0]), some)
            chosen = directions(some) * np.float32(own**0.5)
            for halvings, level in enumerate(levels):
                chosen += level[np.minimum(group >> halvings, len(level) - 1)] * within
            chosen = chosen @ basis_RD
            rows.append(chosen / np.linalg.norm(chosen, axis=1, keepdims=True))
        return np.concatenate(rows)

    return of_groups(num, 0.5), of_groups(num_queries, 0.6)


class Texts:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        syllables = [first + last for first in "bdfgklmnprstv" for last in ("a", "e", "i", "o", "u", "an", "er", "is")]
        parts = self._rng.integers(0, len(syllables), (100_000, 4))
        lengths = self._rng.integers(2, 5, 100_000)
        made = ["".join(syllables[n] for n in row[:length]) for row, length in zip(parts, lengths, strict=True)]
        self._words = np.array(STOP_WORDS + made)
        frequency = (np.arange(len(self._words)) + 2.7) ** -1.07
        self._cumulated = np.cumsum(frequency / frequency.sum())

    def words(self, num: int) -> NDArray[np.str_]:
        drawn: NDArray[np.str_] = self._words[np.searchsorted(self._cumulated, self._rng.random(num))]
        return drawn

    def chunk(self) -> str:
        return " ".join(self.words(WORDS_PER_CHUNK))

    def questions(self, num: int) -> list[str]:
        """As questions are: words as they come in writing, stop words among them."""
        return [" ".join(self.words(9)) for _ in range(num)]


def fill(path: Path, vectors_ND: NDArray[np.float32], texts: Texts) -> int:
    """Write all chunks as the indexer does, words first; returns the bytes of text."""
    num_bytes = 0
    with SqliteStore(path) as store:
        store.enter_space(Space("benchmark", vectors_ND.shape[1]))
        for first in range(0, len(vectors_ND), CHUNKS_PER_FILE):
            number = first // CHUNKS_PER_FILE
            rows = vectors_ND[first : first + CHUNKS_PER_FILE]
            pieces = [texts.chunk() for _ in rows]
            hashes = [hashlib.blake2b(each.encode(), digest_size=16).digest() for each in pieces]
            place = Path(f"/library/{number % 100}/{number}.{('txt', 'rst', 'md')[number % 3]}")
            document = Document(place, "\n\n".join(pieces), "text")
            modified_ns = number * (10**15 * CHUNKS_PER_FILE // len(vectors_ND))
            state = FileState(len(document.text), modified_ns, "")
            store.replace_document(document, state, list(_chunks(pieces)), hashes)
            store.add_embeddings(dict(zip(hashes, rows, strict=True)))
            num_bytes += len(document.text)
    return num_bytes


def chunk_numbers(hits: list[Hit]) -> set[int]:
    return {hit.chunk_id - 1 for hit in hits}  # they were written in this order into a new index


def _chunks(texts: list[str]) -> Iterator[Chunk]:
    start = 0
    for n, text in enumerate(texts):
        yield Chunk(text, start, start + len(text), 2 * n + 1, 2 * n + 1, num_tokens=60)
        start += len(text) + 2


# ---------------------------------------------------------------- peers


def peers(
    vectors_ND: NDArray[np.float32], queries_QD: NDArray[np.float32], exact: list[set[int]]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name, (milliseconds, recall and what else is to be known)) of the ten nearest by each peer."""

    def asked(search: Callable[[NDArray[np.float32]], Any], build_s: float) -> tuple[str, str]:
        found = [{int(each) for each in search(query_D)} for query_D in queries_QD]
        recall = statistics.fmean(len(one & other) / 10 for one, other in zip(found, exact, strict=True))
        seconds = [_seconds(lambda query_D=query_D: search(query_D)) for query_D in queries_QD]  # type: ignore[misc]
        return _milliseconds(seconds), f"recall@10 {recall:.4f}, built in {build_s:.0f} s"

    dimension = vectors_ND.shape[1]
    yield (
        "numpy float32 in memory",
        asked(lambda query_D: np.argpartition(-(vectors_ND @ query_D), 10)[:10], 0),
    )
    with tempfile.TemporaryDirectory() as folder:
        yield "sqlite-vec, plain float scan", _sqlite_vec(vectors_ND, Path(folder) / "plain.sqlite", asked)
        if importlib.util.find_spec("lancedb"):
            import lancedb  # type: ignore[import-not-found,unused-ignore]

            started_at = time.perf_counter()
            rows = ({"vector": row, "id": n} for n, row in enumerate(vectors_ND))
            table = lancedb.connect(folder).create_table("chunks", list(rows))
            yield (
                "LanceDB, flat",
                asked(
                    lambda query_D: [each["id"] for each in table.search(query_D).limit(10).to_list()],
                    time.perf_counter() - started_at,
                ),
            )
    if importlib.util.find_spec("faiss"):
        import faiss  # type: ignore[import-not-found,import-untyped,unused-ignore]

        faiss.omp_set_num_threads(1)
        started_at = time.perf_counter()
        flat = faiss.IndexFlatIP(dimension)
        flat.add(vectors_ND)
        yield (
            "faiss, flat",
            asked(lambda query_D: flat.search(query_D[None], 10)[1][0], time.perf_counter() - started_at),
        )
    if importlib.util.find_spec("hnswlib") and len(vectors_ND) <= 200_000:  # takes many minutes beyond
        import hnswlib  # type: ignore[import-not-found,unused-ignore]

        started_at = time.perf_counter()
        graph = hnswlib.Index(space="cosine", dim=dimension)
        graph.init_index(len(vectors_ND), ef_construction=200, M=16)
        graph.add_items(vectors_ND, num_threads=2)
        graph.set_ef(256)
        yield (
            "hnswlib, M 16, ef 256",
            asked(lambda query_D: graph.knn_query(query_D, 10)[0][0], time.perf_counter() - started_at),
        )


def _sqlite_vec(vectors_ND: NDArray[np.float32], path: Path, asked: Callable[..., tuple[str, str]]) -> tuple[str, str]:
    import apsw
    import sqlite_vec

    started_at = time.perf_counter()
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{vectors_ND.shape[1]}] distance_metric=cosine)")
    with connection:
        connection.executemany(
            "INSERT INTO v(rowid, e) VALUES (?, ?)", ((n + 1, row.tobytes()) for n, row in enumerate(vectors_ND))
        )
    sql = "SELECT rowid - 1 FROM v WHERE e MATCH ? AND k = 10"
    measured = asked(
        lambda query_D: [n for (n,) in connection.execute(sql, (query_D.tobytes(),))],
        time.perf_counter() - started_at,
    )
    connection.close()
    return measured


# ---------------------------------------------------------------- measuring


def _run(option: str, path: Path) -> str:
    command = [sys.executable, __file__, option, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _seconds(act: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the processor: this thread's and those of processes that ended."""
    started_at, used_before = time.perf_counter(), _used_s()
    act()
    return time.perf_counter() - started_at, _used_s() - used_before


def _used_s() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + ended.ru_utime + ended.ru_stime


def _milliseconds(seconds: list[tuple[float, float]]) -> str:
    """Two columns, of the clock and of the processor."""
    return " | ".join(
        f"{1000 * statistics.median(each):.1f} / {1000 * statistics.quantiles(each, n=20)[-1]:.1f}"
        for each in zip(*seconds, strict=True)
    )


if __name__ == "__main__":
    main()
