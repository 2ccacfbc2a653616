"""What was found and what is right -> scores, by the libraries and protocols that published tables use.

Pure functions of arrays and texts; no model in sight. Scores run from 0 to 1, larger is better; where it is a
correlation from -1; bits per byte are what they are, and smaller is better.
"""

from __future__ import annotations

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytrec_eval
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, v_measure_score

from gritdesk.grit_format import REFUSAL

Relevance = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> how relevant; passages not named are not."""
Run = Mapping[str, Mapping[str, float]]
"""query id -> passage id -> score, larger is better."""


# ---------------------------------------------------------------- rankings


def retrieval_metrics(relevant: Relevance, run: Run) -> dict[str, float]:
    """nDCG@10 (linear gain) and recall@100 as trec_eval and BEIR compute them, the mean over all queries."""
    return _trec_means(relevant, run, {"ndcg@10": "ndcg_cut.10", "recall@100": "recall.100"})


def reranking_metrics(relevant: Relevance, run: Run) -> dict[str, float]:
    """Mean average precision and mean reciprocal rank, as MTEB scores the order of given candidates."""
    return _trec_means(relevant, run, {"map": "map", "mrr": "recip_rank"})


def ndcg_at_10(ranked: Sequence[str], relevant: Mapping[str, int]) -> float:
    """nDCG@10 of one query's passages, best first."""
    return retrieval_metrics({"query": relevant}, {"query": ranked_run(ranked)})["ndcg@10"]


def ranked_run(ranked: Sequence[str]) -> dict[str, float]:
    """Scores that put passages into this order."""
    return {passage_id: float(-rank) for rank, passage_id in enumerate(ranked)}


def _trec_means(relevant: Relevance, run: Run, measures: Mapping[str, str]) -> dict[str, float]:
    """A query that found nothing counts 0; trec_eval would leave it out."""
    evaluator = pytrec_eval.RelevanceEvaluator(
        {query: dict(passages) for query, passages in relevant.items()}, set(measures.values())
    )
    found = evaluator.evaluate({query: dict(passages) for query, passages in run.items()})
    keys = {name: measure.replace(".", "_") for name, measure in measures.items()}
    return {
        name: float(np.mean([found.get(query, {}).get(key, 0.0) for query in relevant])) for name, key in keys.items()
    }


def spearman(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Rank correlation, ties sharing their mean rank. Raises: ValueError if one side is the same everywhere."""
    if len(np.unique(left)) < 2 or len(np.unique(right)) < 2:
        raise ValueError("a correlation needs values that differ on both sides")
    return float(spearmanr(left, right).statistic)


# ---------------------------------------------------------------- labels


def draws_per_label(labels: Sequence[Any], num_per_label: int, num_draws: int, seed: int) -> list[list[int]]:
    """Numbers of `num_per_label` examples of each label, or all there are, drawn anew each time."""
    of_label: dict[Any, list[int]] = {}
    for number, label in enumerate(labels):
        of_label.setdefault(label, []).append(number)
    rng = np.random.default_rng(seed)
    return [
        [int(each) for numbers in of_label.values() for each in rng.permutation(numbers)[:num_per_label]]
        for _ in range(num_draws)
    ]


def classification_metrics(
    train_ND: NDArray[np.float32],
    train_labels: Sequence[Any],
    test_MD: NDArray[np.float32],
    test_labels: Sequence[Any],
    draws: Sequence[Sequence[int]],
    seed: int,
) -> dict[str, float]:
    """Accuracy and macro F1 of a logistic regression on the embeddings, the mean over draws of training examples.

    Source: MTEB (arXiv 2210.07316), section 3.2: at most 100 iterations, 10 draws.
    """
    scores = []
    for draw in draws:
        classifier = LogisticRegression(max_iter=100, random_state=seed)
        with warnings.catch_warnings():
            # the protocol stops after 100 iterations, whether it is done or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train_ND[list(draw)], [train_labels[number] for number in draw])
        predicted = classifier.predict(test_MD)
        scores.append((accuracy_score(test_labels, predicted), f1_score(test_labels, predicted, average="macro")))
    accuracy, f1 = np.mean(scores, axis=0)
    return {"accuracy": float(accuracy), "f1": float(f1)}


def v_measure(embeddings_ND: NDArray[np.float32], labels: Sequence[Any], seed: int) -> float:
    """How well clusters of the embeddings (mini-batch k-means, as many as labels) match the labels.

    Source: MTEB (arXiv 2210.07316), section 3.2: batches of 500.
    """
    clustering = MiniBatchKMeans(n_clusters=len(set(labels)), batch_size=500, n_init="auto", random_state=seed)
    return float(v_measure_score(labels, clustering.fit_predict(embeddings_ND)))


# ---------------------------------------------------------------- answers


def exact_match(answer: str, gold: str) -> bool:
    """Whether the words are the same, as SQuAD normalises them; citations do not count."""
    return _words(answer) == _words(gold)


def token_f1(answer: str, gold: str) -> float:
    """F1 over words, as SQuAD normalises them; citations do not count."""
    left, right = _words(answer), _words(gold)
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def _words(text: str) -> list[str]:
    """Lower case, without citations, punctuation and articles."""
    text = re.sub(r"\[\d+\]", " ", text.lower())
    text = "".join(character for character in text if character not in string.punctuation)
    return [word for word in text.split() if word not in {"a", "an", "the"}]


def is_refusal(answer: str) -> bool:
    """Whether an answer says that the documents hold none."""
    return answer.strip().startswith(REFUSAL.rstrip("."))


def grounded_metrics(rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, float]:
    """Scores of answers from documents.

    Of the answerable questions: exact match and F1 with the nearest reference, and how often the gold document is
    cited. Of all: precision, recall and F1 of refusing.

    Args:
        rows: with `answerable`; `answers` and `gold`, from 1, where there are some.
    """
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True) if row["answerable"]]
    refused = [is_refusal(answer) for answer in answers]
    wanted = [not row["answerable"] for row in rows]
    right = sum(no and needed for no, needed in zip(refused, wanted, strict=True))
    return {
        "em": _mean(
            [max((exact_match(answer, gold) for gold in row["answers"]), default=False) for row, answer in pairs]
        ),
        "f1": _mean([max((token_f1(answer, gold) for gold in row["answers"]), default=0.0) for row, answer in pairs]),
        "cited_gold": _mean([f"[{row.get('gold')}]" in answer for row, answer in pairs]),
        "refusal_precision": right / max(sum(refused), 1),
        "refusal_recall": right / max(sum(wanted), 1),
        "refusal_f1": 2 * right / max(sum(refused) + sum(wanted), 1),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """What a text costs: comparable between tokenizers, as nats per token are not."""
    return nats / math.log(2) / num_bytes
