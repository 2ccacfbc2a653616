"""An answer, sentence by sentence -> which sentence of its passages supports each, or that none does.

Two signs are taken together, since each alone is fooled more often. Words: what a sentence adds to its question must
stand in the passage, every name and number of it, and a "not" only where the passage says so too. Meaning: question and
sentence together must be near a sentence of that passage, for which one request to the model embeds them all.

A cosine by itself says little, and something else with every model. So it is counted from the prompt's own sentences:
by how many standard deviations it lies above the median of what the same text has with all of them. docs/citations.md
has the measure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gritdesk import citing
from gritdesk.errors import ModelError
from gritdesk.records import Citation, Hit, SentenceSupport

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> float32[num, dimension], rows of length 1. Raises: ModelError."""

MIN_SHARE = 0.7
"""Of the added words, that must stand in the passage; chosen with the next two by benchmarks/support.py."""
MIN_LIKENESS = 0.4
LIKENESS_ENOUGH = 2.9
"""From here on the passage may say it in other words."""
MIN_SHARE_ALONE = 0.6
"""Where meaning was not measured."""
_MAX_SENTENCES = 128
"""Embedded for one answer at most: those that share most words with it and its question."""
_MIN_SENTENCES = 4
"""Fewer make no mean and no deviation."""

_NEGATION = re.compile(r"\b(?:not|never|no|none|nobody|nothing|neither|nor|without|cannot)\b|n['’]t\b", re.IGNORECASE)
_NUMBER = (
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety|hundreds?|thousands?|millions?|half|dozens?|once|twice|thrice|several|few|many|couple|no"
    r"|none|all|every|single|double|both|pair|much|more|most|lots?|little|less|enough|too|very|as|often|always|never"
    r"|far|rarely|seldom)\b"
)
_TIME = (
    r"\b(?:seconds?|minutes?|hours?|days?|weeks?|fortnights?|months?|years?|decades?|century|centuries|nights?"
    r"|mornings?|evenings?|afternoons?|noon|midnight|dawn|dusk|forever|ever|long|until|till|since|lifetime|moments?"
    r"|while|time|indefinitely|permanently)\b"
)
_DATE = (
    r"|\d{3}|\d[:./-]\d|\d(?:st|nd|rd|th|\s?[ap]\.?m)\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|\w+day|tomorrow"
    r"|spring|summer|autumn|fall|winter|christmas|easter|seasons?|when|after|before|during|following|as|once|at|in|on"
    r"|by|from|every|never|always|now|then|first|last|next|wars?|era|period|age|\w+cene)\b"
)
_KINDS = (
    # "when", but not "When it rains, who ...?"
    (
        r"^\W*(?:\w+ )?(?:when|(?:what|which) (?:year|day|date|month|time|century))\b"
        r"(?!.*\b(?:who|what|which|where)\b)",
        _TIME + _DATE,
        "the question asks when, and it names no time",
    ),
    (r"^\W*(?:\w+ ){0,2}how old\b", rf"{_TIME}|{_NUMBER}", "the question asks how old, and it names no age"),
    (
        r"^\W*(?:\w+ ){0,2}how long\b",
        rf"{_TIME}|\d[\d,.]*\s*[^\W\d_]",
        "the question asks how long, and it names neither a time nor a length",
    ),
    (
        r"^\W*(?:\w+ ){0,2}how (?:many|much|far|tall|high|deep|heavy|fast|wide|often)\b",
        _NUMBER,
        "the question asks for a number, and it names none",
    ),
)
"""Beginning of a question, what an answer of the kind it asks for holds, and what is said of one that does not."""
_FITS = tuple((re.compile(q, re.IGNORECASE), re.compile(a, re.IGNORECASE), doubt) for q, a, doubt in _KINDS)


@dataclass(frozen=True)
class Signs:
    """What speaks for a sentence of an answer in one passage."""

    share: float
    """Of the words that it adds to the question, those that the passage holds."""
    has_names: bool
    """Whether the passage holds all its names and numbers."""
    is_negated: bool
    """It says "not" where the passage does not."""
    likeness: float | None
    """Standard deviations of the nearest sentence's cosine above the median; None if it was not measured."""
    span: tuple[int, int]
    """The sentence of the passage."""

    @property
    def are_enough(self) -> bool:
        if not self.has_names or self.is_negated:
            return False
        if self.likeness is None:
            return self.share >= MIN_SHARE_ALONE
        return self.likeness >= MIN_LIKENESS and (self.share >= MIN_SHARE or self.likeness >= LIKENESS_ENOUGH)

    @property
    def doubt(self) -> str:
        if not self.has_names:
            return "a name or number of it stands in no passage"
        return "the passage does not say not" if self.is_negated else "no passage supports it"


_A_HEADING = "it is a heading and no statement"


def check(answer: str, question: str, hits: Sequence[Hit], embed: Embed | None = None) -> tuple[SentenceSupport, ...]:
    """Which passage supports each sentence of an answer.

    Args:
        answer: with such [n] only as name a passage.
        hits: passage [n] is the n-th; at least one.
        embed: words must do without it, and where it fails.
    """
    spans = citing.answer_sentences(answer)
    claims = [citing.without_citations(answer[start:end]) for start, end in spans]
    said = citing.without_citations(answer)
    misfit = _A_HEADING if said.startswith("#") else doubt_of_kind(question, said)
    found = signs(claims, question, hits, embed)
    return tuple(_support(answer, *each, question, hits, misfit) for each in zip(spans, claims, found, strict=True))


def citations(answer: str, sentences: Sequence[SentenceSupport], hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """What a grounded answer cites, with the sentences found to support it, and then what it should have cited."""
    supporting = {each.citation.n: each.citation for each in reversed(sentences) if each.is_supported and each.citation}
    cited = {each.n: supporting.get(each.n, each) for each in citing.resolve_citations(answer, hits)}
    return tuple((cited | {n: each for n, each in sorted(supporting.items()) if n not in cited}).values())


def signs(claims: Sequence[str], question: str, hits: Sequence[Hit], embed: Embed | None) -> list[list[Signs]]:
    """What speaks for each claim in each passage: claims x passages."""
    likeness = _Likeness(claims, question, hits, embed)
    return [
        [_signs(row, claim, question, n, hit, likeness) for n, hit in enumerate(hits)]
        for row, claim in enumerate(claims)
    ]


def doubt_of_kind(question: str, answer: str) -> str:
    """Why an answer cannot answer its question, whatever the passages say; "" if nothing speaks against it."""
    asked, said = citing.words(question), citing.words(answer)
    repeats = set(said) <= {*asked, *citing.FUNCTION_WORDS} and not {"or", "whether"} & set(asked)
    if repeats and said and said[0] not in ("yes", "no"):
        return "it says nothing that the question does not say"
    return next((doubt for asks, fits, doubt in _FITS if asks.search(question) and not fits.search(answer)), "")


def asks_for_a_kind(question: str) -> bool:
    """Whether the kind of answer that a question asks for is known."""
    return any(asks.search(question) for asks, _, _ in _FITS)


def _signs(row: int, claim: str, question: str, n: int, hit: Hit, likeness: _Likeness) -> Signs:
    share, has_names = citing.share_of_words(claim, question, _read(hit))
    span = citing.best_sentence(claim, hit.chunk.text)
    is_negated = bool(_NEGATION.search(claim)) and not _NEGATION.search(hit.chunk.text[slice(*span)])
    like, nearest = likeness.of(row, n)
    # of one that shares no word the whole passage would be quoted
    return Signs(share, has_names, is_negated, like, nearest if span == (0, len(hit.chunk.text)) and nearest else span)


def _support(
    answer: str,
    span: tuple[int, int],
    claim: str,
    found: Sequence[Signs],
    question: str,
    hits: Sequence[Hit],
    misfit: str,
) -> SentenceSupport:
    cited = tuple(dict.fromkeys(citing.cited_numbers(answer[slice(*span)])))
    if len(cited) > 1:
        found = _together(claim, question, cited, found, hits)

    def rank(n: int) -> tuple[bool, bool, float, float]:
        each = found[n - 1]
        return each.are_enough, n in cited, each.share, each.likeness or 0.0

    n = max(range(1, len(hits) + 1), key=rank)
    best = found[n - 1]
    is_supported = best.are_enough and not misfit
    doubt = "" if is_supported else misfit or best.doubt
    citation = citing.cite_span(n, hits[n - 1], best.span)
    return SentenceSupport(*span, is_supported, citation, cited, best.likeness, doubt)


def _together(
    claim: str, question: str, cited: Sequence[int], found: Sequence[Signs], hits: Sequence[Hit]
) -> Sequence[Signs]:
    """The signs, with those of all passages that a claim cites in place of the best one's: each may hold a part."""
    main = max(cited, key=lambda n: (found[n - 1].share, found[n - 1].likeness or 0.0))
    share, has_names = citing.share_of_words(claim, question, " ".join(_read(hits[n - 1]) for n in cited))
    is_negated = all(found[n - 1].is_negated for n in cited)
    joined = replace(found[main - 1], share=share, has_names=has_names, is_negated=is_negated)
    return [joined if n == main else each for n, each in enumerate(found, start=1)]


def _read(hit: Hit) -> str:
    return f"{hit.chunk.heading} {hit.chunk.text}"


class _Likeness:
    """How near in meaning claims are to the sentences of passages, beside those sentences among themselves."""

    def __init__(self, claims: Sequence[str], question: str, hits: Sequence[Hit], embed: Embed | None) -> None:
        everything = [(n, span) for n, hit in enumerate(hits) for span in citing.sentences(hit.chunk.text)]
        texts = [hits[n].chunk.text[slice(*span)] for n, span in everything]
        wanted = set(citing.words(" ".join((question, *claims))))
        order = sorted(range(len(texts)), key=lambda each: -len(wanted & set(citing.words(texts[each]))))
        kept = sorted(order[:_MAX_SENTENCES])
        self._places = [everything[each] for each in kept]
        self._scores: NDArray[np.float32] | None = None
        if embed is None or not claims or len(kept) < _MIN_SENTENCES:
            return
        try:
            embedded = embed([*(f"{question} {claim}" for claim in claims), *(texts[each] for each in kept)])
        except ModelError:  # the time is over, or a text has no embedding: words alone must do
            return
        claims_CD, sentences_SD = embedded[: len(claims)], embedded[len(claims) :]
        cosines_CS = claims_CD @ sentences_SD.T
        # few sentences may happen to be equally far from a claim, and many lines of a log are all but the same
        among = (sentences_SD @ sentences_SD.T)[np.triu_indices(len(kept), 1)].std()
        deviation_C = np.maximum(cosines_CS.std(axis=1, keepdims=True), max(float(among), 1e-6))
        self._scores = (cosines_CS - np.median(cosines_CS, axis=1, keepdims=True)) / deviation_C

    def of(self, row: int, n: int) -> tuple[float | None, tuple[int, int] | None]:
        """Of a claim, the nearest sentence of the n-th passage, counted from 0, and how near it is."""
        scores = self._scores
        if scores is None:
            return None, None
        own = [number for number, (hit, _) in enumerate(self._places) if hit == n]
        if not own:
            return 0.0, None
        nearest = max(own, key=lambda number: float(scores[row, number]))
        return float(scores[row, nearest]), self._places[nearest][1]
