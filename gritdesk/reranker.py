"""Hits -> the same hits, better placed: the model reads each once more, now knowing what is asked.

An embedding is made of a passage before anybody asks. Two ways to look closer, each a number for a hit:

- windows: the passage's sentences, two and two, are embedded, and the nearest to the question counts; a passage that
  speaks of many things is not punished for the others. Any model that embeds can do it.
- likelihood: the model that writes answers is asked how likely it finds the question behind the passage.

What it adds to a hit's score is small and bounded: where words and meaning are sure it changes nothing, and what stands
on top for its exact phrase stays there.

Source of likelihood: Sachan et al., Improving Passage Retrieval with Zero-Shot Question Generation (EMNLP 2022, arXiv
2204.07496). The sum with the first stage is ours; the figures of both are in docs/looking-harder.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from gritdesk.grit_format import passage_input
from gritdesk.records import EmbeddingInput, Hit, Reranking

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stop = Callable[[], bool]
Reading = Callable[[Hit, Stop], float | None]
"""How well a hit fits, larger is better, comparable within one search; None once it is stopped."""

_SENTENCE_END = re.compile(r"(?<=[.!?…\n])(?=\s)|(?<=[。！？])")
"""An abbreviation ends one, too: that makes a window shorter, and the next one holds the rest."""


def by_windows(
    question_D: NDArray[np.float32], embed: Callable[[list[EmbeddingInput], Stop], NDArray[np.float32] | None]
) -> Reading:
    """Reads by the best window.

    Args:
        question_D: its embedding.
        embed: float32[num, D] of inputs; None once it is stopped.
    """

    def read(hit: Hit, is_stopped: Stop) -> float | None:
        chunks = [replace(hit.chunk, text=text) for text in windows(hit.chunk.text)]
        embeddings_ND = embed([passage_input(chunk) for chunk in chunks], is_stopped)
        return None if embeddings_ND is None else float((embeddings_ND @ question_D).max())

    return read


def by_likelihood(question: str, log_likelihoods: Callable[[str, list[str], Stop], list[float] | None]) -> Reading:
    """Reads by how likely the question is behind the passage.

    Args:
        log_likelihoods: as engine.host.EngineHost has it.
    """

    def read(hit: Hit, is_stopped: Stop) -> float | None:
        found = log_likelihoods(question, [hit.chunk.text], is_stopped)
        return found[0] if found else None

    return read


def windows(text: str) -> list[str]:
    """Pairs of sentences, each sentence in two of them; the whole text where it has no more than two."""
    sentences = [each.strip() for each in _SENTENCE_END.split(text) if any(map(str.isalnum, each))]
    return [" ".join(pair) for pair in zip(sentences, sentences[1:], strict=False)] or [text]


def rerank(
    hits: Sequence[Hit], read: Reading, weight: float, budget_s: float, is_stopped: Stop = lambda: False
) -> Iterator[Reranking]:
    """Read the hits one by one, best first; before each comes the order so far, and the last one when all is over.

    Args:
        weight: what a standard deviation of the readings adds to a score.
        budget_s: seconds after which nothing more is read, nor the reading under way waited for.
    """
    started = time.monotonic()
    readings: dict[int, float] = {}

    def is_over() -> bool:
        return is_stopped() or time.monotonic() - started >= budget_s

    def so_far() -> Reranking:
        return Reranking(ordered(hits, readings, weight), len(readings), budget_s, time.monotonic() - started)

    for hit in hits:
        yield so_far()
        reading = None if is_over() else read(hit, is_over)
        if reading is None:
            break
        readings[hit.chunk_id] = reading
    yield so_far()


def ordered(hits: Sequence[Hit], readings: Mapping[int, float], weight: float) -> tuple[Hit, ...]:
    """All hits by their score and what reading adds, which is nothing for those that were not read.

    Args:
        readings: by chunk_id.
    """
    values = list(readings.values())
    mean, deviation = (fmean(values), pstdev(values)) if values else (0.0, 0.0)

    def reread(hit: Hit) -> Hit:
        if hit.chunk_id not in readings:
            return hit
        added = weight * (readings[hit.chunk_id] - mean) / deviation if deviation else 0.0
        why = hit.explanation and replace(hit.explanation, reading=added)
        return replace(hit, score=hit.score + added, explanation=why)

    return tuple(sorted(map(reread, hits), key=lambda hit: -hit.score))
