"""Question -> [Hit]: words and meaning, a weighted sum of their scores; an exact phrase stays on top.

What a query asks of files (its scope) the store looks at inside its scans. What it asks of passages, phrases, literal
parts and what is left out, is held against what the scans give, and they go deeper while too little remains.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gritdesk.config import SearchConfig
from gritdesk.querying import keyword_text, parse, unrestricted, widened, widest
from gritdesk.records import MOST_COUNTED, Explanation, Hit, Misses, Query, Scope, SearchMode
from gritdesk.store.base import Store
from gritdesk.store.words import unspaced_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_DEPTH = 50
"""Hits taken of each kind before fusion, at least."""
_MAX_DEPTH = 3200
"""Hits of each kind that are held against a query's phrases, literal parts and what it leaves out, at most."""
_PHRASE_BONUS = 4.0
"""Above every other score, which is at most 1; half of it where the words stand in order but in other forms."""
_SPELLING_BONUS = 0.5
"""For what is spelled with more than letters, as C++ or --force, among other words: FTS5 sees only its letters."""

_MAX_LETTER_WORDS = 4
"""Words that are looked for letter by letter when no word is found: each costs a look at all the text."""
_SPELLED_DEPTH = 4
"""How much deeper it is looked for what is spelled with signs: few of the chunks with a c have C++."""
_SIGNS = re.compile(r"^[-_.@#$~+]+[^\W\d]|[+#_]$|::|->|@|\d\.\d")
"""Where signs make a word another one: --force, .NET, C++, std::vector, 1.2.3; not and/or, i.e., well-known."""


class Retriever:
    """Finds chunks in one store; a search by words alone never asks for an embedding.

    Args:
        embed_query: float32[dimension] of a question.
    """

    def __init__(self, store: Store, embed_query: Callable[[str], NDArray[np.float32]], config: SearchConfig) -> None:
        self._store = store
        self._embed_query = embed_query
        self._config = config
        self._embedded: tuple[str, NDArray[np.float32]] | None = None
        """The last text that was embedded: the searches that say what a filter removed ask for it again."""

    def search(
        self, query: Query | str, n: int = 10, mode: SearchMode = "hybrid", *, explain: bool = False
    ) -> list[Hit]:
        """The `n` best chunks, best first, each text once; by words alone while the index has no embeddings.

        Phrases and literal parts of the query stand in every hit; a search by meaning puts those first that are among
        the nearest chunks. Of filters alone the newest files come, each by its first chunk.

        Args:
            explain: say of each hit how its score came about.
        Raises: QueryError if a filter of the line has no meaning.
        """
        asked = parse(query) if isinstance(query, str) else query
        if n < 1 or not asked.line.strip():
            return []
        ranked = sorted(self._candidates(asked, n, mode), key=lambda each: -each.score)
        best = _each_text_once(ranked)[:n]
        return [self._explained(each, asked) if explain else each.as_hit() for each in best]

    def misses(self, query: Query | str, mode: SearchMode = "hybrid", n: int = 3) -> Misses:
        """Of a search that found nothing: which of its restrictions left nothing, and the nearest without any.

        Where none of them alone is to blame, they are named together.
        """
        asked = parse(query) if isinstance(query, str) else query
        each_alone = list(widened(asked))
        if not each_alone:
            return Misses((), ())
        together = [wider] if (wider := widest(asked)) else []
        # by meaning something is always near: how much is tells nothing, unless there are no words to count
        modes: tuple[SearchMode, ...] = ("keyword",) if mode == "keyword" else ("keyword", mode)
        ways = (self._found_in(wider, each) for each in modes for wider in (each_alone, together))
        removed = next(filter(None, ways), ())
        return Misses(removed, tuple(self.search(unrestricted(asked), n, mode)) if asked.text else ())

    def _found_in(self, wider: Iterable[tuple[str, Query]], mode: SearchMode) -> tuple[tuple[str, int], ...]:
        """What finds anything of queries with what each of them leaves out, and how much."""
        counted = [(named, len(self.search(each, MOST_COUNTED, mode))) for named, each in wider]
        return tuple((named, num) for named, num in counted if num)

    # ------------------------------------------------------------ candidates

    def _candidates(self, asked: Query, n: int, mode: SearchMode) -> list[_Candidate]:
        bounds, depth = self._bounds(asked), max(_MIN_DEPTH, 5 * n)

        def deep(fetch: Callable[[int], list[Hit]], max_depth: int = _MAX_DEPTH) -> list[Hit]:
            return self._deep(fetch, bounds, n, depth, max_depth)

        if not asked.text and not asked.literals:
            newest = deep(lambda limit: self._store.newest(limit, asked.scope))
            return [_Candidate(hit, bonus=1.0 / rank) for rank, hit in enumerate(newest, start=1)]
        # hits that hold what is bound come by its words; to look for them by meaning costs a scan each time
        meaning_depth = depth if bounds.holds_something and mode != "semantic" else _MAX_DEPTH
        by_meaning = [] if mode == "keyword" else deep(lambda limit: self._by_meaning(asked, limit), meaning_depth)
        # by words alone all of them come first; in a sum with meaning BM25 of any of them finds more
        all_first = not by_meaning
        by_words = [] if mode == "semantic" else deep(lambda limit: self._by_words(asked, limit, all_first))
        phrases = bounds.words if mode == "semantic" else _phrases(asked)
        in_order = {hit.chunk_id: hit for each in phrases for hit in deep(self._of_phrase(each, asked.scope))}
        others = [hit for each in bounds.letters for hit in deep(self._of_letters(each, asked.scope))]
        if mode != "semantic":
            others += deep(lambda limit: self._as_spelled(asked, limit))
        candidates = self._fuse(by_words, by_meaning, [*in_order.values(), *others])
        if mode != "semantic":
            _add_bonus(candidates, in_order.keys(), asked)
        return candidates

    def _of_phrase(self, phrase: str, scope: Scope) -> Callable[[int], list[Hit]]:
        return lambda limit: self._store.phrase(phrase, limit, scope)

    def _of_letters(self, text: str, scope: Scope) -> Callable[[int], list[Hit]]:
        return lambda limit: self._store.literal(text, limit, scope)

    def _by_meaning(self, asked: Query, depth: int) -> list[Hit]:
        if not asked.text or self._store.space() is None:
            return []
        if self._embedded is None or self._embedded[0] != asked.text:
            self._embedded = asked.text, self._embed_query(asked.text)
        return self._store.nearest(self._embedded[1], depth, asked.scope)

    def _by_words(self, asked: Query, depth: int, all_first: bool) -> list[Hit]:
        """By words; behind them by pairs of letters, where nothing parts the words; or else letter by letter."""
        text = keyword_text(asked)
        if not text.strip():
            return []
        found = {hit.chunk_id: hit for hit in self._store.keyword(text, depth, asked.scope, all_first=all_first)}
        pairs = " ".join(unspaced_pairs(text))
        if pairs and len(found) < depth:
            for hit in self._store.keyword(pairs, depth, asked.scope, all_first=False):
                found.setdefault(hit.chunk_id, hit)
        return [*found.values()][:depth] or self._by_letters(asked, depth)

    def _by_letters(self, asked: Query, depth: int) -> list[Hit]:
        """Chunks that hold words letter by letter, as parts of others, those with most of them first.

        Of one word alone the store has looked for the letters already.
        """
        found: dict[int, Hit] = {}
        words = sorted(asked.words, key=len, reverse=True)[:_MAX_LETTER_WORDS]
        for word in words if len(words) > 1 else ():
            for hit in self._store.literal(word, depth, asked.scope):
                before = found.get(hit.chunk_id)
                found[hit.chunk_id] = dataclasses.replace(hit, score=1.0 + (before.score if before else 0.0))
        return sorted(found.values(), key=lambda hit: -hit.score)[:depth]

    def _as_spelled(self, asked: Query, depth: int) -> list[Hit]:
        """Chunks with a word whose signs mean something, such as C++, of which the words index knows the letters.

        All text is looked through only for a word that is all of the query.
        """
        found: list[Hit] = []
        for word in _spelled(asked):
            by_word = self._store.phrase(word, _SPELLED_DEPTH * depth, asked.scope)
            found += [hit for hit in by_word if word.casefold() in hit.chunk.text.casefold()][:depth]
            if not found and len(asked.words) == 1:
                found = self._store.literal(word, depth, asked.scope)
        return found

    def _fuse(self, by_words: Sequence[Hit], by_meaning: Sequence[Hit], others: Iterable[Hit]) -> list[_Candidate]:
        """Score every hit from 0 to 1: by its scores in both lists, or by its rank where there is but one.

            (w_words b / max b + w_meaning (c - min c) / (max c - min c)) / (w_words + w_meaning)

        of BM25 b and cosine c; what is not in a list has 0 of it, as those of `others` have that neither holds.

        Source: after the convex combinations of Bruch, Gai and Ingber (TOIS 2023, arXiv 2210.11934); our figures are
        in benchmarks/RESULTS.md.
        """
        config = self._config
        candidates: dict[int, _Candidate] = {}
        total = config.keyword_weight + config.semantic_weight or 1.0
        is_sum = bool(by_words and by_meaning)
        for rank, (hit, share) in enumerate(zip(by_words, _shares_of_best(by_words), strict=True), start=1):
            candidate = candidates.setdefault(hit.chunk_id, _Candidate(hit))
            candidate.words = config.keyword_weight * share / total if is_sum else 1.0 / rank
            candidate.keyword_rank, candidate.bm25 = rank, hit.score
        for rank, (hit, share) in enumerate(zip(by_meaning, _shares_of_range(by_meaning), strict=True), start=1):
            candidate = candidates.setdefault(hit.chunk_id, _Candidate(hit))
            candidate.meaning = config.semantic_weight * share / total if is_sum else 1.0 / rank
            candidate.semantic_rank, candidate.distance = rank, hit.distance
        for rank, hit in enumerate({hit.chunk_id: hit for hit in others}.values(), start=len(by_words) + 1):
            candidates.setdefault(hit.chunk_id, _Candidate(hit, keyword_rank=rank))
        return list(candidates.values())

    # ------------------------------------------------------------ what is bound, and what is left out

    def _bounds(self, asked: Query) -> _Bounds:
        """A phrase whose words the index does not know side by side, as of a script it cannot cut, is letters."""
        as_words = tuple(each for each in asked.phrases if self._store.phrase(each, 1, asked.scope))
        as_letters = tuple(each for each in asked.phrases if each not in as_words)
        return _Bounds(as_words, (*as_letters, *asked.literals), asked.not_phrases, asked.not_literals)

    def _deep(
        self, fetch: Callable[[int], list[Hit]], bounds: _Bounds, n: int, depth: int, max_depth: int
    ) -> list[Hit]:
        """Hits within the bounds, from as deep as it takes to find `n` of them."""
        while True:
            found = fetch(depth)
            within = self._within(bounds, found)
            if len(within) >= n or len(found) < depth or depth >= max_depth:
                return within
            depth = min(8 * depth, max_depth)

    def _within(self, bounds: _Bounds, hits: list[Hit]) -> list[Hit]:
        if bounds == _Bounds():
            return hits
        held = {hit.chunk_id for hit in hits}
        if bounds.words:
            held = self._store.holding(bounds.words, list(held))
        for each in bounds.not_words:
            held -= self._store.holding([each], list(held))
        return [hit for hit in hits if hit.chunk_id in held and bounds.has_letters_of(hit.chunk.text)]

    # ------------------------------------------------------------ why a hit is where it is

    def _explained(self, candidate: _Candidate, asked: Query) -> Hit:
        terms = dict.fromkeys(each for each in (*asked.words, *asked.phrases) if re.search(r"\w", each))
        found = tuple(each for each in terms if self._store.holding([each], [candidate.hit.chunk_id]))
        explanation = Explanation(
            words=candidate.words,
            meaning=candidate.meaning,
            bonus=candidate.bonus,
            bm25=candidate.bm25,
            keyword_weight=self._config.keyword_weight,
            semantic_weight=self._config.semantic_weight,
            terms_found=found,
            terms_missing=tuple(each for each in terms if each not in found),
            restrictions=asked.restrictions,
        )
        return dataclasses.replace(candidate.as_hit(), explanation=explanation)


@dataclass
class _Candidate:
    """A hit on its way through fusion: what adds up to its score."""

    hit: Hit
    words: float = 0.0
    meaning: float = 0.0
    bonus: float = 0.0
    bm25: float | None = None
    keyword_rank: int | None = None
    semantic_rank: int | None = None
    distance: float | None = None

    @property
    def score(self) -> float:
        return self.words + self.meaning + self.bonus

    def as_hit(self) -> Hit:
        return dataclasses.replace(
            self.hit,
            score=self.score,
            distance=self.distance,
            keyword_rank=self.keyword_rank,
            semantic_rank=self.semantic_rank,
        )


@dataclass(frozen=True)
class _Bounds:
    """What every hit holds, and what none does."""

    words: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    not_words: tuple[str, ...] = ()
    not_letters: tuple[str, ...] = ()

    @property
    def holds_something(self) -> bool:
        return bool(self.words or self.letters)

    def has_letters_of(self, text: str) -> bool:
        """Whether the text holds all the letters and none of those to be left out."""
        folded = text.casefold()
        return all(each.casefold() in folded for each in self.letters) and not any(
            each.casefold() in folded for each in self.not_letters
        )


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


def _phrases(asked: Query) -> tuple[str, ...]:
    """The quoted parts of a query, or all of it if it has two words or more, or one with signs in it."""
    if asked.phrases or not asked.text:
        return asked.phrases
    if len(asked.words) > 1:
        return (asked.text.replace('"', " "),)
    return tuple(each for each in _bare_words(asked) if re.search(r"\W", each))


def _spelled(asked: Query) -> list[str]:
    """Words whose signs mean something."""
    return [each for each in dict.fromkeys(_bare_words(asked)) if _SIGNS.search(each)]


def _bare_words(asked: Query) -> list[str]:
    """The words without what ends or opens a sentence."""
    return [each.rstrip(".,;:!?\"'”’)]}…").lstrip("\"'“‘([{") for each in asked.words]


def _add_bonus(candidates: Iterable[_Candidate], in_order: Container[int], asked: Query) -> None:
    """Put the hits with a phrase of the query above all without, highest those that spell it as the query does.

    Args:
        in_order: ids of the chunks with a phrase of the query.
    """
    phrases, spelled = list(map(_plain, _phrases(asked))), list(map(_plain, _spelled(asked)))
    most_of_spelling = _SPELLING_BONUS if len(asked.words) > 1 else _PHRASE_BONUS
    for each in candidates:
        if each.hit.chunk_id in in_order:
            text = _plain(each.hit.chunk.text)
            each.bonus = _PHRASE_BONUS if any(phrase in text for phrase in phrases) else _PHRASE_BONUS / 2
        elif spelled:
            text = _plain(each.hit.chunk.text)
            each.bonus = most_of_spelling * sum(word in text for word in spelled) / len(spelled)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _each_text_once(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Copies of a text are one hit, the best placed."""
    unique: dict[str, _Candidate] = {}
    for each in candidates:
        unique.setdefault(each.hit.chunk.text, each)
    return list(unique.values())
