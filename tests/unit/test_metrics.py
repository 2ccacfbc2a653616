"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gritdesk.grit_format import REFUSAL
from training.metrics import (
    bits_per_byte,
    classification_metrics,
    draws_per_label,
    exact_match,
    grounded_metrics,
    ndcg_at_10,
    reranking_metrics,
    retrieval_metrics,
    spearman,
    token_f1,
    v_measure,
)


def test_ndcg_is_that_of_the_textbook() -> None:
    assert ndcg_at_10(["a", "b", "c"], {"a": 1}) == 1.0
    assert ndcg_at_10(["b", "a", "c"], {"a": 1}) == pytest.approx(1 / np.log2(3))
    assert ndcg_at_10(["b", "c"], {"a": 1}) == 0.0
    found = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert ndcg_at_10(["a", "b"], {"a": 1, "b": 2}) == pytest.approx(found)
    assert ndcg_at_10([*"0123456789", "a"], {"a": 1}) == 0.0


def test_retrieval_counts_a_query_that_found_nothing() -> None:
    relevant = {"q1": {"a": 1, "b": 1}, "q2": {"c": 1}}
    found = retrieval_metrics(relevant, {"q1": {"a": 0.9, "x": 0.1}})
    assert found["recall@100"] == pytest.approx((0.5 + 0) / 2)
    assert found["ndcg@10"] == pytest.approx(1 / (1 + 1 / np.log2(3)) / 2)


def test_reranking_is_scored_by_average_precision_and_reciprocal_rank() -> None:
    run = {"q1": {"n": 0.9, "p": 0.8, "m": 0.7, "r": 0.6}, "q2": {"p": 0.5, "n": 0.4}}
    found = reranking_metrics({"q1": {"p": 1, "r": 1}, "q2": {"p": 1}}, run)
    assert found == {"map": pytest.approx(((1 / 2 + 2 / 4) / 2 + 1) / 2), "mrr": pytest.approx((1 / 2 + 1) / 2)}


def test_spearman_shares_ranks_among_ties() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.9486833)


def test_spearman_of_values_that_are_all_the_same_is_refused() -> None:
    with pytest.raises(ValueError, match="values that differ"):
        spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0]))


def test_draws_hold_so_many_of_each_label_and_are_the_same_for_the_same_seed() -> None:
    labels = ["a"] * 9 + ["b"] * 2
    draws = draws_per_label(labels, 4, 3, seed=1)
    for draw in draws:
        assert sorted(labels[number] for number in draw) == ["a"] * 4 + ["b"] * 2
        assert len(set(draw)) == len(draw)
    assert draws == draws_per_label(labels, 4, 3, seed=1) != draws_per_label(labels, 4, 3, seed=2)
    assert draws[0] != draws[1]


def groups(num: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Points around three corners, and the corner of each."""
    rng = np.random.default_rng(seed)
    labels = [number % 3 for number in range(num)]
    points = np.eye(3, dtype=np.float32)[labels] + rng.normal(0, 0.05, (num, 3)).astype(np.float32)
    return points, [f"corner {label}" for label in labels]


def test_labels_that_lie_apart_are_told_apart() -> None:
    train, train_labels = groups(60)
    test, test_labels = groups(30, seed=1)
    draws = draws_per_label(train_labels, 8, 10, seed=0)
    assert classification_metrics(train, train_labels, test, test_labels, draws, 0) == {"accuracy": 1.0, "f1": 1.0}
    assert v_measure(test, test_labels, 0) == pytest.approx(1.0)


def test_classification_scores_what_is_missed() -> None:
    train, train_labels = groups(60)
    test, test_labels = groups(30, seed=1)
    wrong = ["corner 0" if label == "corner 1" else label for label in test_labels]
    found = classification_metrics(train, train_labels, test, wrong, draws_per_label(train_labels, 8, 2, 0), 0)
    # 10 of 30 are called corner 1, which none is: F1 of corner 0 is 2 * 10 / (20 + 10), of corner 1 it is 0
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx((2 / 3 + 0 + 1) / 3)}


def test_token_f1_overlooks_articles_case_and_citations() -> None:
    assert token_f1("The Marigold [1].", "marigold") == 1.0
    assert token_f1("at four", "at five") == 0.5
    assert exact_match("The Marigold [1].", "marigold") and not exact_match("at four", "at five")


def test_grounded_answers_are_scored_by_hand_count() -> None:
    rows = [
        {"answerable": True, "answers": ["at four", "four"], "gold": 1},
        {"answerable": True, "answers": ["at five"], "gold": 2},
        {"answerable": True, "answers": ["six"], "gold": 1},
        {"answerable": False, "answers": [], "gold": None},
        {"answerable": False, "answers": [], "gold": None},
    ]
    answers = ["Four [1].", "at four [1].", REFUSAL, REFUSAL, "seven [2]"]
    assert grounded_metrics(rows, answers) == {
        "em": pytest.approx(1 / 3),
        "f1": pytest.approx((1 + 0.5 + 0) / 3),
        "cited_gold": pytest.approx(1 / 3),
        "refusal_precision": 0.5,
        "refusal_recall": 0.5,
        "refusal_f1": 0.5,
    }


def test_a_byte_guessed_among_256_costs_eight_bits() -> None:
    assert bits_per_byte(3 * math.log(256), 3) == pytest.approx(8.0)
