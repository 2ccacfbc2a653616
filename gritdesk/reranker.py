"""Hits -> the same hits, better placed: the model reads each once more, now knowing what is asked.

An embedding is made of a passage before anybody asks. Here the model that writes answers reads the passage and is then
asked how likely it finds the question (query likelihood); a passage that answers it makes its words likely. What that
adds to a hit's score is small and bounded: where words and meaning are sure, it changes nothing, and what stands on top
for its exact phrase stays there.

Source: Sachan et al., Improving Passage Retrieval with Zero-Shot Question Generation (EMNLP 2022, arXiv 2204.07496);
the sum with the first stage, its weight and the figures are ours, in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev

from gritdesk.records import Hit, Reranking

Likelihood = Callable[[str, str, Callable[[], bool]], float | None]
"""(question, passage, is_stopped) -> log probability of the question behind the passage; None once it is stopped."""


def rerank(
    question: str,
    hits: Sequence[Hit],
    likelihood: Likelihood,
    weight: float,
    budget_s: float,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Reranking]:
    """Read the hits one by one, best first; before each comes the order so far, and the last one when all is over.

    Args:
        weight: what a standard deviation of the log probabilities adds to a score.
        budget_s: seconds after which nothing more is read, nor the reading under way waited for.
    """
    started = time.monotonic()
    found: dict[int, float] = {}

    def is_over() -> bool:
        return is_stopped() or time.monotonic() - started >= budget_s

    def so_far() -> Reranking:
        return Reranking(ordered(hits, found, weight), len(found), budget_s, time.monotonic() - started)

    for hit in hits:
        yield so_far()
        log_probability = None if is_over() else likelihood(question, hit.chunk.text, is_over)
        if log_probability is None:
            break
        found[hit.chunk_id] = log_probability
    yield so_far()


def ordered(hits: Sequence[Hit], log_probabilities: Mapping[int, float], weight: float) -> tuple[Hit, ...]:
    """All hits by their score and what reading adds, which is nothing for those that were not read.

    Args:
        log_probabilities: by chunk_id.
    """
    values = list(log_probabilities.values())
    mean, deviation = (fmean(values), pstdev(values)) if values else (0.0, 0.0)

    def reread(hit: Hit) -> Hit:
        if hit.chunk_id not in log_probabilities:
            return hit
        reading = weight * (log_probabilities[hit.chunk_id] - mean) / deviation if deviation else 0.0
        why = hit.explanation and replace(hit.explanation, reading=reading)
        return replace(hit, score=hit.score + reading, explanation=why)

    return tuple(sorted(map(reread, hits), key=lambda hit: -hit.score))
