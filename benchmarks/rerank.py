"""`python benchmarks/rerank.py EVAL_DIR [SET...] [--model MODEL] [--queries 60]`: what looking harder at hits gains.

Ranks queries of each retrieval set of EVAL_DIR by hybrid search, as the app does, has several methods read the first
ten hits again, and prints nDCG@10 of each method alone and added to the search's own score at several weights, and the
processor's time for ten hits. A method's values are brought to mean 0 and deviation 1 over the ten before they are
added, as gritdesk/reranker.py does.

    windows      the nearest of the passage's pairs of sentences, each embedded by itself: rerank_by = "windows"
    likelihood   log probability of the question behind the passage: rerank_by = "likelihood"
    tokens       late interaction: for each token of the question the nearest one of the passage, of the last hidden
                 states of the embedding pass; their mean
    cosine       the embeddings once more: what a larger weight of meaning among the ten would do

To choose a method or a weight, give `--pairs DATA/pairs/NAME.jsonl.zst...`, files to train on: `--queries` of each,
over the passages of `--rows` rows, are sets of their own, and EVAL_DIR is left for the report. Of a set of EVAL_DIR
with more passages than `--rows`, as many are drawn, all that are relevant to a query among them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.engine.embedder import Embedder
from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import LlamaModel
from gritdesk.grit_format import encode, query_input
from gritdesk.models import default_model
from gritdesk.records import EmbeddingInput, Hit
from gritdesk.reranker import by_windows, ordered
from training.evaluation_sets import RetrievalSet, read_retrieval_set
from training.examples import read_rows
from training.gguf import GgufEmbedder
from training.metrics import ndcg_at_10
from training.search import AppIndex

WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4)
NUM_HITS = 10
MAX_CHARS = 1000
"""Of a passage: about what a chunk of the app holds."""

Method = Callable[[str, Sequence[Hit]], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval_dir", type=Path, metavar="EVAL_DIR", nargs="?")
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--pairs", type=Path, nargs="+", default=[])
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.pairs:
        sets = {each.name.split(".")[0]: from_pairs(each, given.queries, given.rows) for each in given.pairs}
    else:
        folders = [each for each in sorted(given.eval_dir.iterdir()) if (each / "qrels.tsv").exists()]
        folders = [each for each in folders if not given.sets or each.name in given.sets]
        sets = {each.name: drawn(read_retrieval_set(each, given.queries), given.rows) for each in folders}
    with LlamaModel(given.model) as model:
        table: dict[str, list[float]] = {}
        for name, data in sets.items():
            print(f"{name}: {len(data.queries)} queries, {len(data.texts)} passages", flush=True)
            for row, score in evaluate(data, model, given.threads):
                table.setdefault(row, []).append(score)
    print("| ranking | " + " | ".join(sets) + " | mean |")
    print("|---" * (len(sets) + 2) + "|")
    for row, scores in table.items():
        print(f"| {row} | " + " | ".join(f"{each:.1f}" for each in [*scores, float(np.mean(scores))]) + " |")


def drawn(data: RetrievalSet, num_passages: int) -> RetrievalSet:
    """With all relevant passages and as many others as come to the number, each cut to a chunk's length."""
    relevant = {passage for each in data.relevant.values() for passage in each}
    others = [each for each in data.texts if each not in relevant]
    random.Random(0).shuffle(others)
    kept = relevant | set(others[: max(num_passages - len(relevant), 0)])
    texts = {passage: text[:MAX_CHARS] for passage, text in data.texts.items() if passage in kept}
    return RetrievalSet(texts, data.queries, data.relevant)


def from_pairs(path: Path, num_queries: int, num_rows: int) -> RetrievalSet:
    rows = list(read_rows(path, 100_000))
    random.Random(0).shuffle(rows)
    rows = rows[:num_rows]
    passages: dict[str, str] = {}
    for row in rows:
        for _, text in row["pos"] + row["neg"]:
            passages.setdefault(text[:MAX_CHARS], str(len(passages)))
    asked = {str(number): row for number, row in enumerate(rows[:num_queries])}
    return RetrievalSet(
        {number: text for text, number in passages.items()},
        {number: row["query"][1] for number, row in asked.items()},
        {number: {passages[text[:MAX_CHARS]]: 1 for _, text in row["pos"]} for number, row in asked.items()},
    )


def evaluate(data: RetrievalSet, model: LlamaModel, num_threads: int) -> Iterator[tuple[str, float]]:
    """Name and 100 nDCG@10 of each ranking, and seconds for ten hits of each method."""
    embedder = GgufEmbedder(model, num_threads)
    passages_ND = embedder.embed([("", text) for text in data.texts.values()])
    queries_QD = embedder.embed([query_input(query) for query in data.queries.values()])
    methods = Methods(model, num_threads).all()
    gains: dict[str, list[float]] = {}
    spent_s = dict.fromkeys(methods, 0.0)
    with AppIndex(data.texts, passages_ND) as index:
        for (query_id, query), query_D in zip(data.queries.items(), queries_QD, strict=True):
            hits = index.hits(query, NUM_HITS, "hybrid", query_D)
            relevant = data.relevant[query_id]

            def add(row: str, order: Sequence[Hit], relevant: dict[str, int] = relevant) -> None:
                gains.setdefault(row, []).append(ndcg_at_10([index.id_of(hit) for hit in order], relevant))

            add("hybrid search", hits)
            for name, method in methods.items():
                started = time.process_time()
                values = method(query, hits)
                spent_s[name] += time.process_time() - started
                found = {hit.chunk_id: value for hit, value in zip(hits, values, strict=True)}
                add(f"{name} alone", sorted(hits, key=lambda hit: -found[hit.chunk_id]))
                for weight in WEIGHTS:
                    add(f"+ {weight} x {name}", ordered(hits, found, weight))
    yield from ((row, 100 * float(np.mean(each))) for row, each in gains.items())
    yield from ((f"{name}, ms for {NUM_HITS}", 1000 * each / len(data.queries)) for name, each in spent_s.items())


class Methods:
    """Ways to read a passage again, each giving a value for every hit, larger is better."""

    def __init__(self, model: LlamaModel, num_threads: int) -> None:
        self._model = model
        self._embedder = Embedder(model, n_threads=num_threads)
        self._generator = Generator(model, n_threads=num_threads) if model.grit.generates else None

    def all(self) -> dict[str, Method]:
        found: dict[str, Method] = {"tokens": self.tokens, "windows": self.windows, "cosine": self.cosine}
        return {"likelihood": self.likelihood} | found if self._generator else found

    def likelihood(self, query: str, hits: Sequence[Hit]) -> list[float]:
        assert self._generator
        return [self._generator.log_likelihood(query, hit.chunk.text) for hit in hits]

    def tokens(self, query: str, hits: Sequence[Hit]) -> list[float]:
        query_TD = self._token_states(query_input(query))
        return [float((query_TD @ self._token_states(("", hit.chunk.text)).T).max(axis=1).mean()) for hit in hits]

    def windows(self, query: str, hits: Sequence[Hit]) -> list[float]:
        (query_D,) = self._embedder.embed([query_input(query)])
        read = by_windows(query_D, lambda inputs, _: self._embedder.embed(inputs))
        return [read(hit, lambda: False) or 0.0 for hit in hits]

    def cosine(self, query: str, hits: Sequence[Hit]) -> list[float]:
        embeddings = self._embedder.embed([query_input(query), *(("", hit.chunk.text) for hit in hits)])
        return [float(each) for each in embeddings[1:] @ embeddings[0]]

    def _token_states(self, given: EmbeddingInput) -> NDArray[np.float32]:
        """float32[T, D] of the tokens that count, each of length 1."""
        frame = encode(self._model.grit.frame(*given), self._model, self._model.grit.markers)
        room = self._embedder.context.max_tokens
        (hidden_TD,) = self._embedder.context.hidden_states([frame.ids[:room]])
        counted_TD = hidden_TD[np.asarray(frame.counts[:room]), : self._embedder.dimension]
        states_TD: NDArray[np.float32] = counted_TD / np.linalg.norm(counted_TD, axis=1, keepdims=True)
        return states_TD


if __name__ == "__main__":
    main()
