"""Hits read again: the same ones, better placed, for no longer than was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gritdesk import reranker
from gritdesk.records import Chunk, Explanation, Hit
from gritdesk.reranker import by_windows, ordered, rerank, windows

WHY = Explanation(0.5, 0.2, 0.0, 1.0, 1.0, 0.3, (), (), ())


def hits_of(*scores: float) -> list[Hit]:
    return [Hit(n, Path(f"{n}.md"), Chunk(f"text {n}", 0, 6, 1, 1), score) for n, score in enumerate(scores)]


def order(hits: tuple[Hit, ...]) -> list[int]:
    return [hit.chunk_id for hit in hits]


class Clock:
    """Stands for the time: a second goes by with each reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, readings: dict[int, float]) -> None:
        self.now = 0.0
        self.read: list[int] = []
        self._readings = readings
        monkeypatch.setattr(reranker.time, "monotonic", lambda: self.now)

    def reading(self, hit: Hit, is_stopped: Callable[[], bool]) -> float | None:
        self.now += 1.0
        if is_stopped():
            return None
        self.read.append(hit.chunk_id)
        return self._readings[hit.chunk_id]


LAST_IS_BEST = {0: -9.0, 1: -5.0, 2: -1.0}


def test_order_gets_better_with_every_hit_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, LAST_IS_BEST)
    hits = hits_of(0.52, 0.51, 0.5)
    steps = list(rerank(hits, clock.reading, 0.1, 60))
    assert [(step.num_read, order(step.hits)) for step in steps] == [
        (0, [0, 1, 2]),
        (1, [0, 1, 2]),
        (2, [1, 2, 0]),
        (3, [2, 1, 0]),
    ]
    assert steps[-1].is_complete and not steps[-2].is_complete and steps[-1].seconds == 3


def test_budget_ends_the_reading_and_what_was_not_read_keeps_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, LAST_IS_BEST)
    hits = hits_of(0.52, 0.51, 0.5)
    *_, last = rerank(hits, clock.reading, 0.1, 2.5)
    assert clock.read == [0, 1] and (last.num_read, last.seconds, last.is_complete) == (2, 3, False)
    assert sorted(order(last.hits)) == [0, 1, 2] and last.hits[1] == hits[2]
    *_, last = rerank(hits, clock.reading, 0.1, 0)
    assert (last.num_read, last.hits) == (0, tuple(hits))


def test_person_ends_it_with_the_order_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, LAST_IS_BEST)
    *_, last = rerank(hits_of(0.52, 0.51, 0.5), clock.reading, 0.1, 60, lambda: len(clock.read) == 2)
    assert (last.num_read, order(last.hits)) == (2, [1, 2, 0])


def test_sure_hit_stays_on_top_and_explanations_add_up() -> None:
    phrase, other, third = hits_of(4.7, 0.6, 0.5)
    third = Hit(third.chunk_id, third.path, third.chunk, 0.5, explanation=WHY)
    found = ordered([phrase, other, third], LAST_IS_BEST, 0.1)
    assert order(found) == [0, 2, 1]
    why = found[1].explanation
    assert why is not None and why.reading is not None and found[1].score == pytest.approx(0.5 + why.reading)


def test_best_window_of_a_passage_counts_and_each_is_read_with_its_heading() -> None:
    text = "The lamp is lit. Tea is at four! Who has it?\nNobody knows."
    assert windows(text) == [
        "The lamp is lit. Tea is at four!",
        "Tea is at four! Who has it?",
        "Who has it? Nobody knows.",
    ]
    assert (
        windows("One. Two.") == ["One. Two."]
        and windows("one") == ["one"]
        and windows("茶。灯。船。") == ["茶。 灯。", "灯。 船。"]
    )
    seen: list[str] = []

    def embed(inputs: list[tuple[str, str]], is_stopped: Callable[[], bool]) -> NDArray[np.float32] | None:
        seen.extend(text for _, text in inputs)
        return None if is_stopped() else np.array([[0.1, 0], [0.9, 0], [0.3, 0]], np.float32)

    hit = Hit(1, Path("a.md"), Chunk(text, 0, len(text), 1, 2, "House > Rules"), 0.5)
    read = by_windows(np.array([1, 0], np.float32), embed)
    assert read(hit, lambda: False) == pytest.approx(0.9) and read(hit, lambda: True) is None
    assert seen[0] == "Rules The lamp is lit. Tea is at four!"


def test_reading_that_tells_nothing_changes_nothing() -> None:
    hits = hits_of(0.5, 0.4)
    assert ordered(hits, {0: -3.0, 1: -3.0}, 0.1) == tuple(hits)
    assert ordered(hits, {}, 0.1) == tuple(hits)
    assert list(rerank([], lambda *_: 0.0, 0.1, 1.0))[-1].is_complete
