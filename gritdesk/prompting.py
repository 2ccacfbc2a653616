"""A question and its passages -> the prompt that fits the context; an answer's [n] -> the places it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import documents_turn
from gritdesk.records import Chunk, Citation, Hit, Prompt, Turn

NO_EVIDENCE = "Nothing in these files answers this."
"""The answer when nothing was found; no model is asked."""

_CITATION = re.compile(r"\[(\d{1,2})\]")
_SENTENCE_BREAK = re.compile(
    r"""(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\b[DM]r\.)(?<!\b(?:Ms|St|No)\.)(?<!\bMrs\.)["'”’)\]]*\s+(?=[^a-z\s])"""
    r"""|(?<=[。！？])|\n[ \t]*\n"""
    r"""|\n(?=[ \t]*(?:[-*+•|#]|\d{1,3}[.)]))"""  # a list item, table row or heading
    r"""|^#[^\n]*\n""",  # a heading is a stretch of its own
    re.MULTILINE,
)
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"\w*\d\w*|(?<=[^.!?…\s] )[^\W\d_a-z]\w*")
"""Numbers, and words with a capital that begin no sentence."""
_FUNCTION_WORDS = frozenset(
    """a about all also am an and any are as at be because been being but by can could did do does for from had has
    have he her his how i if in into is it its me more most my no nor not of on or our she should so some such than
    that the their them then there these they this those to too was we were what when where which who whom whose why
    will with would you your""".split()
)


def build_prompt(
    question: str,
    hits: Sequence[Hit],
    history: Sequence[Turn],
    count_tokens: Callable[[Sequence[Turn]], int],
    max_prompt_tokens: int,
) -> Prompt:
    """The fullest prompt that fits: first the oldest turns go, then the last passages, then the end of the first.

    Args:
        hits: best first, which is the order of the prompt (benchmarks/passage_order.py); passage [n] is the n-th.
        count_tokens: tokens of a whole chat frame.
        max_prompt_tokens: what the context leaves once room for the answer is taken.
    Raises: ContextOverflow if the question alone does not fit.
    """
    past, passages = list(history), list(hits)
    while True:
        turns = (*past, Turn("user", question_turn(question, passages)))
        if (num_tokens := count_tokens(turns)) <= max_prompt_tokens:
            return Prompt(turns, tuple(passages), num_tokens)
        if past:
            past = past[2:]
        elif len(passages) > 1:
            passages.pop()
        elif passages and len(passages[0].chunk.text) > 80:
            passages = [_halved(passages[0])]
        else:
            raise question_too_long(max_prompt_tokens)


def question_too_long(max_prompt_tokens: int) -> ContextOverflow:
    """The question is not cut: what is left of it would be another one."""
    return ContextOverflow(
        f"the question is too long for this model: it and its frame need more than {max_prompt_tokens} "
        "tokens; shorten it"
    )


def question_turn(question: str, hits: Sequence[Hit]) -> str:
    """The user turn, spelled by gritdesk.grit_format; without passages the question alone.

    A question over several lines becomes one: a line of it that begins with a number in brackets is no passage.
    """
    question = " ".join(question.split())
    return documents_turn([hit.chunk.text for hit in hits], question) if hits else question


def resolve_citations(answer: str, hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """Every [n] of the answer that names a passage, in order of appearance, each once.

    The quote is the sentence of the passage that shares most words with the sentence that cites it, before the [n] or
    behind it, and the lines are that sentence's own.
    """
    found: dict[int, Citation] = {}
    for match in _CITATION.finditer(answer):
        n = int(match.group(1))
        if 1 <= n <= len(hits) and n not in found:
            found[n] = _cite(n, hits[n - 1], _sentence_at(answer, match))
    return tuple(found.values())


def attribute(answer: str, hits: Sequence[Hit], min_share: float = 0.7) -> tuple[Citation, ...]:
    """The passage an answer without [n] was taken from: the one that holds most of its words, if it holds enough."""
    shares = [_shared_words(answer, hit.chunk.text) for hit in hits]
    if not shares or max(shares) < min_share:
        return ()
    best = shares.index(max(shares))
    return (_cite(best + 1, hits[best], answer),)


def is_supported(
    answer: str, question: str, citations: Sequence[Citation], hits: Sequence[Hit], min_share: float = 0.6
) -> bool:
    """Whether the cited passages hold what an answer adds to its question: a floor against made-up text.

    That is every number and every name in it, and at least `min_share` of its other words that mean something.
    """
    claim = _CITATION.sub(" ", answer)
    cited = set(_words(" ".join(hits[citation.n - 1].chunk.text for citation in citations)))
    asked = set(_words(question))
    telling = [word for word in _words(claim) if word not in _FUNCTION_WORDS] or _words(claim)
    added = [word for word in telling if word not in asked] or telling
    is_there = {word: _is_form_of_one(word, cited) for word in added}
    names = {word.casefold() for word in _NAME.findall(claim)} & is_there.keys()
    return all(is_there[name] for name in names) and sum(map(is_there.__getitem__, added)) >= min_share * len(added)


def _is_form_of_one(word: str, words: set[str]) -> bool:
    """Whether a word is among others, endings of two letters aside; a number has none."""
    if word in words or word[0].isdigit():
        return word in words
    stem = word[: max(4, len(word) - 2)]
    return any(each.startswith(stem) for each in words)


def closest(question: str, hits: Sequence[Hit]) -> Citation:
    """The sentence of the best passage that shares most words with the question: a place to look, not an answer."""
    return _cite(1, hits[0], question)


def _cite(n: int, hit: Hit, claim: str) -> Citation:
    chunk = hit.chunk
    start, end = best_sentence(claim, chunk.text)
    quote = chunk.text[start:end]
    first, last = chunk.line_start, chunk.line_end
    if chunk.text.count("\n") == last - first:  # otherwise lines of the text are not lines of the source: HTML
        first += chunk.text.count("\n", 0, start)
        last = first + quote.count("\n")
    return Citation(n, hit.path, first, last, quote, chunk.page, chunk.heading)


def best_sentence(claim: str, text: str) -> tuple[int, int]:
    """Span of the sentence of `text` that shares most words with the claim; the whole text if none shares any."""
    wanted = set(_words(claim))
    # of sentences that share as many words the shorter says it more plainly
    spans = [span for span in _sentences(text) if not text.startswith("#", span[0])] or _sentences(text)
    scored = [(len(wanted & set(_words(text[start:end]))), start - end, start, end) for start, end in spans]
    if not scored or max(scored)[0] == 0:
        return 0, len(text)
    _, _, start, end = max(scored)
    return start, end


def _sentences(text: str) -> list[tuple[int, int]]:
    """Spans without the white space around them; a sentence may go over lines, a heading or list item is one."""
    borders = [0, *(border for match in _SENTENCE_BREAK.finditer(text) for border in match.span()), len(text)]
    spans = []
    for start, end in pairwise(borders):
        stripped = text[start:end].strip()
        if stripped:
            first = start + text[start:end].index(stripped)
            spans.append((first, first + len(stripped)))
    return spans


def _sentence_at(answer: str, citation: re.Match[str]) -> str:
    """What a citation stands behind; in an answer that opens with one, as the default model writes, what follows it."""
    if answer.startswith("["):
        return re.split(r"(?<=[.!?])\s+|\[\d", answer[citation.end() :].lstrip())[0]
    return re.split(r"(?<=[.!?\]])\s+", answer[: citation.start()].rstrip())[-1]


def _shared_words(answer: str, text: str) -> float:
    words, there = _words(answer), set(_words(text))
    return sum(word in there for word in words) / len(words) if words else 0.0


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _halved(hit: Hit) -> Hit:
    chunk: Chunk = hit.chunk
    text = chunk.text[: len(chunk.text) // 2]
    is_same = chunk.text.count("\n") == chunk.line_end - chunk.line_start
    last = chunk.line_start + text.count("\n") if is_same else chunk.line_end
    return replace(hit, chunk=replace(chunk, text=text, char_end=chunk.char_start + len(text), line_end=last))
