"""Question -> [Hit]: words and meaning, a weighted sum of their scores; an exact phrase stays on top."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gritdesk.config import SearchConfig
from gritdesk.records import Hit, SearchMode
from gritdesk.store.sqlite import SqliteStore
from gritdesk.store.words import quoted_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_DEPTH = 50
"""Hits taken of each kind before fusion, at least."""
_PHRASE_BONUS = 4.0
"""Above every other score, which is at most 1; half of it where the words stand in order but in other forms."""


class Retriever:
    """Finds chunks in one store; a search by words alone never asks for an embedding.

    Args:
        embed_query: float32[dimension] of a question.
    """

    def __init__(
        self, store: SqliteStore, embed_query: Callable[[str], NDArray[np.float32]], config: SearchConfig
    ) -> None:
        self._store = store
        self._embed_query = embed_query
        self._config = config

    def search(self, query: str, n: int = 10, mode: SearchMode = "hybrid") -> list[Hit]:
        """The `n` best chunks, best first, each text once; by words alone while the index has no embeddings.

        "Quoted parts" of the query stand in every hit; a search by meaning finds such among the nearest chunks.
        """
        if n < 1 or not query.strip():
            return []
        depth = max(_MIN_DEPTH, 5 * n)
        in_order = {} if mode == "semantic" else self._in_order(query, depth)
        by_meaning = [] if mode == "keyword" else self._by_meaning(query, depth)
        # by words alone all of them come first; in a sum with meaning BM25 of any of them finds more
        by_words = [] if mode == "semantic" else self._store.keyword(query, depth, all_first=not by_meaning)
        fused = self._bound(self._fuse(by_words, by_meaning, in_order), quoted_parts(query))
        ranked = [_raised(hit, query) if hit.chunk_id in in_order else hit for hit in fused]
        ranked.sort(key=lambda hit: -hit.score)
        return _each_text_once(ranked)[:n]

    def _in_order(self, query: str, depth: int) -> dict[int, Hit]:
        """By chunk id, the hits that hold a phrase of the query: its words in their order."""
        return {hit.chunk_id: hit for phrase in _phrases(query) for hit in self._store.phrase(phrase, depth)}

    def _bound(self, hits: list[Hit], parts: Sequence[str]) -> list[Hit]:
        """The hits that hold every quoted part as words in order; if none does, those that hold it letter by letter."""
        if not parts:
            return hits
        holding = self._store.holding(parts, [hit.chunk_id for hit in hits])
        return [hit for hit in hits if hit.chunk_id in holding] or [
            hit for hit in hits if all(_plain(part) in _plain(hit.chunk.text) for part in parts)
        ]

    def _by_meaning(self, query: str, depth: int) -> list[Hit]:
        if self._store.space() is None:
            return []
        return self._store.nearest(self._embed_query(query), depth)

    def _fuse(self, by_words: Sequence[Hit], by_meaning: Sequence[Hit], in_order: dict[int, Hit]) -> list[Hit]:
        """Score every hit from 0 to 1: by its scores in both lists, or by its rank where there is but one.

            (w_words b / max b + w_meaning (c - min c) / (max c - min c)) / (w_words + w_meaning)

        of BM25 b and cosine c; what is not in a list has 0 of it, as hits of `in_order` have that neither holds.

        Source: after the convex combinations of Bruch, Gai and Ingber (TOIS 2023, arXiv 2210.11934); our figures are
        in benchmarks/RESULTS.md.
        """
        config = self._config
        fused: dict[int, Hit] = {}
        words, meaning = config.keyword_weight, config.semantic_weight
        total = words + meaning or 1.0
        is_sum = bool(by_words and by_meaning)
        for rank, (hit, share) in enumerate(zip(by_words, _shares_of_best(by_words), strict=True), start=1):
            score = words * share / total if is_sum else 1.0 / rank
            fused[hit.chunk_id] = dataclasses.replace(hit, score=score, keyword_rank=rank)
        for rank, (hit, share) in enumerate(zip(by_meaning, _shares_of_range(by_meaning), strict=True), start=1):
            score = meaning * share / total if is_sum else 1.0 / rank
            if before := fused.get(hit.chunk_id):
                hit = dataclasses.replace(hit, keyword_rank=before.keyword_rank)
                score += before.score
            fused[hit.chunk_id] = dataclasses.replace(hit, score=score, semantic_rank=rank)
        for rank, hit in enumerate(in_order.values(), start=len(by_words) + 1):
            fused.setdefault(hit.chunk_id, dataclasses.replace(hit, score=0.0, keyword_rank=rank))
        return list(fused.values())


def _shares_of_best(hits: Sequence[Hit]) -> list[float]:
    """BM25 of each as a share of the best; 1 where no word was found and letters were."""
    best = max((hit.score for hit in hits), default=0.0)
    return [hit.score / best if best > 0 else 1.0 for hit in hits]


def _shares_of_range(hits: Sequence[Hit]) -> list[float]:
    """Cosine of each between that of the last of the nearest _MIN_DEPTH, 0, and the best, 1.

    Models differ in how far apart they put texts; and the first hits must not depend on how many are asked for.
    """
    scores = [hit.score for hit in hits]
    least, best = min(scores[:_MIN_DEPTH], default=0.0), max(scores, default=0.0)
    return [max(score - least, 0.0) / (best - least) if best > least else 1.0 for score in scores]


def _phrases(query: str) -> list[str]:
    """The quoted parts of a query, or all of it if it has two words or more."""
    return quoted_parts(query) or ([query.replace('"', " ")] if len(query.split()) > 1 else [])


def _raised(hit: Hit, query: str) -> Hit:
    """A hit with a phrase of the query, above all without; highest where it is spelled as in the query."""
    text = _plain(hit.chunk.text)
    is_literal = any(_plain(phrase) in text for phrase in _phrases(query))
    return dataclasses.replace(hit, score=hit.score + (_PHRASE_BONUS if is_literal else _PHRASE_BONUS / 2))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _each_text_once(hits: Iterable[Hit]) -> list[Hit]:
    """Copies of a text are one hit, the best placed."""
    unique: dict[str, Hit] = {}
    for hit in hits:
        unique.setdefault(hit.chunk.text, hit)
    return list(unique.values())
