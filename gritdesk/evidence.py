"""A question and the hits of its search -> whether they hold an answer: found, thin or none.

A small model that is given passages answers from them whether they hold an answer or not, and its own doubt tells next
to nothing. So what decides, before a word is written, are signals of the search; none needs a pass of the model:

    paired   share of the question's neighbouring telling words that stand near each other in one passage, too; rare
             words of the index weigh more, here as below
    ahead    how much more BM25 the best passage has than the others that are read, as a share of the most it could be:
             a subject is in many places, an answer in one
    apart    how much nearer by meaning the best of them is than the other hits; a ratio, for models differ in cosines
    whole    all telling words stand within a sentence or two: that is never called none

`chance` weighs them by logistic regression. `python benchmarks/abstention.py DATA EVAL` finds the weights on questions
of the training data and says how well they do on others; docs/evidence.md has the table, and what was left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from gritdesk.records import Evidence, Hit
from gritdesk.store.words import search_terms, spaced

K = TypeVar("K")

NUM_READ = 3
"""Hits in which words are looked for: as many as an answer is written from."""
NUM_BESIDE = 10
"""Hits whose nearness by meaning is the background of the best."""
_WINDOW = 25
"""Words of a sentence or two."""
_PAIR = 4
"""Words between which two that follow each other in the question count as neighbours in a passage."""

PAIRED, AHEAD, APART, BIAS = 1.28, 5.48, 3.69, -1.49
"""Weights of the signals, and what is added: fitted on 2,400 questions of grounded_trivia and grounded_fairytaleqa."""
NONE_BELOW = 0.51
"""Chance under which nothing is answered: where F1 of "no evidence" is best if two of seven questions have none."""
THIN_BELOW = 0.69
"""Chance under which an answer is marked as resting on little: fewer than 85 of 100 such questions have one then."""

_WORD = re.compile(r"\w+")
_K1, _B = 1.2, 0.75
"""Those of FTS5."""


@dataclass(frozen=True)
class Rarity:
    """How many passages of the index hold each telling word of a question."""

    num_passages: int
    num_with: Mapping[str, int]

    def weight(self, word: str) -> float:
        """Inverse document frequency, as BM25 has it: above 0, larger for a rare word."""
        found = self.num_with.get(word, 0)
        return math.log(1 + (max(self.num_passages, found) - found + 0.5) / (found + 0.5))


@dataclass(frozen=True)
class Signals:
    """All at most 1, larger where an answer is more likely; the module says what each is."""

    paired: float
    ahead: float
    apart: float
    whole: bool


def weigh(question: str, hits: Sequence[Hit], rarity: Rarity) -> Evidence:
    """Whether the hits, best first, hold an answer.

    Args:
        rarity: of `telling_words(question)`.
    """
    if not hits:
        return "none"
    if not telling_words(question):
        return "thin"
    found = chance(signals(question, hits, rarity))
    return "none" if found < NONE_BELOW else "thin" if found < THIN_BELOW else "found"


def chance(found: Signals) -> float:
    """From 0 to 1 how likely it is that the passages hold an answer, where as many questions have one as have none."""
    total = BIAS + PAIRED * found.paired + AHEAD * found.ahead + APART * found.apart
    weighed = 1 / (1 + math.exp(-total))
    return max(weighed, NONE_BELOW) if found.whole else weighed


def telling_words(question: str) -> list[str]:
    """The question's words as search looks for them: without those that stand in any text, each once, as typed."""
    phrases, words = search_terms(question)
    return list(dict.fromkeys(_words(" ".join([*words, *phrases]))))


def signals(question: str, hits: Sequence[Hit], rarity: Rarity) -> Signals:
    """What tells whether the hits hold an answer. Args: as `weigh`; at least one hit."""
    weights = {_stem(word): rarity.weight(word) for word in telling_words(question)}
    read = [_Passage.of(hit, weights) for hit in hits[:NUM_READ]]
    pairs = {(first, second): weights[first] + weights[second] for first, second in pairwise(weights)}
    mean_length = sum(each.length for each in read) / len(read)
    told = sorted((each.bm25(weights, mean_length) for each in read), reverse=True)
    return Signals(
        paired=max(_share(pairs, each.pairs(pairs)) if pairs else _share(weights, each.places) for each in read),
        ahead=told[0] - (sum(told[1:]) / len(told[1:]) if len(told) > 1 else 0.0),
        apart=_apart(hits),
        whole=any(each.has_all_within_a_window(weights) for each in read),
    )


Weights = Mapping[str, float]


@dataclass(frozen=True)
class _Passage:
    """Where a passage holds the words that are asked for."""

    length: int
    """In words."""
    places: Mapping[str, Sequence[int]]
    """Of each word that is asked for and found, its numbers among the passage's words."""

    @staticmethod
    def of(hit: Hit, asked: Weights) -> _Passage:
        words = [_stem(word) for word in _words(f"{hit.chunk.heading} {hit.chunk.text}")]
        places: dict[str, list[int]] = {}
        for place, word in enumerate(words):
            if word in asked:
                places.setdefault(word, []).append(place)
        return _Passage(max(len(words), 1), places)

    def has_all_within_a_window(self, words: Weights) -> bool:
        found = sorted((place, word) for word, places in self.places.items() for place in places)
        return any(
            len({word for place, word in found[number:] if place < start + _WINDOW}) == len(words)
            for number, (start, _) in enumerate(found)
        )

    def pairs(self, asked: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [
            (first, second)
            for first, second in asked
            if any(
                abs(one - other) <= _PAIR for one in self.places.get(first, ()) for other in self.places.get(second, ())
            )
        ]

    def bm25(self, weights: Weights, mean_length: float) -> float:
        """BM25 of the passage as a share of what it would be if every word stood there without end."""
        total = sum(weights.values())
        spread = _K1 * (1 - _B + _B * self.length / mean_length)
        found = sum(weights[word] * len(places) / (len(places) + spread) for word, places in self.places.items())
        return found / total if total else 0.0


def _share(weights: Mapping[K, float], found: Iterable[K]) -> float:
    total = sum(weights.values())
    return sum(weights[each] for each in found) / total if total else 0.0


def _apart(hits: Sequence[Hit]) -> float:
    """How far the best cosine of what is read is from the mean of the other hits on the way to 1; 0 without cosines."""
    cosines = [1 - hit.distance if hit.distance is not None else None for hit in hits[:NUM_BESIDE]]
    read = [each for each in cosines[:NUM_READ] if each is not None]
    others = [each for each in cosines if each is not None]
    if not read or len(others) < 2:
        return 0.0
    best = max(read)
    background = (sum(others) - best) / (len(others) - 1)
    return (best - background) / max(1 - background, 1e-6)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(spaced(text))]


def _stem(word: str) -> str:
    """A word without the ending that its forms differ by; a number as it is."""
    if word[:1].isdigit():
        return word
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
