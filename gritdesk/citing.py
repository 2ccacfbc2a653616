"""An answer and its passages -> the places that its [n] name, and whether what it says stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from gritdesk.records import Citation, Hit

_CITATION = re.compile(r"\[[1-9]\d?(?:\s*[,;]\s*[1-9]\d?)*\]")
"""[1], and [1, 2] as some models write it; [0] is code."""
_CITATIONS = re.compile(rf"(\s*)({_CITATION.pattern}(?:\s*{_CITATION.pattern})*)")
"""Those that stand behind one another, with the space before them."""
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
FUNCTION_WORDS = frozenset(
    """a about all also am an and any are as at be because been being but by can could did do does for from had has
    have he her his how i if in into is it its me more most my no nor not of on or our she should so some such than
    that the their them then there these they this those to too was we were what when where which who whom whose why
    will with would yes you your""".split()
)


def settle(answer: str, num_passages: int) -> tuple[str, tuple[int, ...]]:
    """The answer with only such [n] as name a passage, each once where several stand together.

    Returns: the text as it is shown, and the numbers that name no passage.
    """
    dropped: dict[int, None] = {}

    def settled(found: re.Match[str]) -> str:
        numbers = cited_numbers(found.group(2))
        kept = [n for n in dict.fromkeys(numbers) if 1 <= n <= num_passages]
        dropped.update((n, None) for n in numbers if n not in kept)
        return found.group() if kept == numbers else (found.group(1) + "".join(f"[{n}]" for n in kept) if kept else "")

    return _CITATIONS.sub(settled, answer).strip(), tuple(dropped)


def cited_numbers(text: str) -> list[int]:
    """Every n of the [n] in a text, in their order."""
    return [int(n) for found in _CITATION.finditer(text) for n in re.findall(r"\d+", found.group())]


def without_citations(text: str) -> str:
    """The text without its [n] and the space before them."""
    return _CITATIONS.sub("", text).strip()


def answer_sentences(answer: str) -> list[tuple[int, int]]:
    """Spans of an answer's sentences, each with the [n] behind it; in an answer that opens with one, before it."""
    opens = _CITATION.match(answer) is not None
    spans: list[tuple[int, int]] = []
    for start, end in sentences(answer):
        marks = _CITATIONS.match(answer, start, end)
        if marks and spans and not opens:  # `It is so. [1] And so on.`
            spans[-1] = (spans[-1][0], marks.end())
            start = end - len(answer[marks.end() : end].lstrip())
        if _WORD.search(_CITATION.sub("", answer[start:end])):
            spans.append((start, end))
    return spans


def resolve_citations(answer: str, hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """Every [n] of the answer that names a passage, in order of appearance, each once.

    The quote is the sentence of the passage that shares most words with what cites it, before the [n] or, in an answer
    that opens with one, as the default model writes, behind it; the lines are that sentence's own.
    """
    found: dict[int, Citation] = {}
    opens = _CITATION.match(answer) is not None
    for start, end in answer_sentences(answer):
        sentence = answer[start:end]
        for marks in _CITATIONS.finditer(sentence):
            parts = _CITATION.split(sentence[marks.end() :] if opens else sentence[: marks.start()])
            claim = next((part for part in (parts if opens else parts[::-1]) if _WORD.search(part)), sentence)
            for n in cited_numbers(marks.group()):
                if 1 <= n <= len(hits) and n not in found:
                    found[n] = cite(n, hits[n - 1], claim)
    return tuple(found.values())


def share_of_words(claim: str, question: str, passage: str) -> tuple[float, bool]:
    """How much of what a claim adds to its question a passage holds, and whether it holds every name and number of it.

    Returns: the share of the added words that mean something, and True if no name and no number is missing.
    """
    there, asked = set(words(passage)), set(words(question))
    telling = [word for word in words(claim) if word not in FUNCTION_WORDS] or words(claim)
    added = [word for word in telling if word not in asked] or telling
    is_there = {word: _is_form_of_one(word, there) for word in added}
    names = {word.casefold() for word in _NAME.findall(claim)} & is_there.keys()
    return sum(map(is_there.__getitem__, added)) / max(1, len(added)), all(is_there[name] for name in names)


def _is_form_of_one(word: str, words: set[str]) -> bool:
    """Whether a word is among others, endings of two letters aside; a number has none."""
    if word in words or word[0].isdigit():
        return word in words
    stem = word[: max(4, len(word) - 2)]
    return any(each.startswith(stem) for each in words)


def closest(question: str, hits: Sequence[Hit]) -> Citation:
    """The sentence of the best passage that shares most words with the question: a place to look, not an answer."""
    return cite(1, hits[0], question)


def cite(n: int, hit: Hit, claim: str) -> Citation:
    """The sentence of passage [n] that shares most words with a claim."""
    return cite_span(n, hit, best_sentence(claim, hit.chunk.text))


def cite_span(n: int, hit: Hit, span: tuple[int, int]) -> Citation:
    """A stretch of passage [n] with its own lines, or the passage's where those of text and file run apart."""
    chunk, (start, end) = hit.chunk, span
    quote = chunk.text[start:end]
    first, last = chunk.line_start, chunk.line_end
    if chunk.text.count("\n") == last - first:  # otherwise lines of the text are not lines of the source: HTML
        first += chunk.text.count("\n", 0, start)
        last = first + quote.count("\n")
    return Citation(n, hit.path, first, last, quote, chunk.page, chunk.heading)


def best_sentence(claim: str, text: str) -> tuple[int, int]:
    """Span of the sentence of `text` that shares most words with the claim; the whole text if none shares any."""
    wanted = set(words(claim))
    # of sentences that share as many words the shorter says it more plainly
    spans = [span for span in sentences(text) if not text.startswith("#", span[0])] or sentences(text)
    scored = [(len(wanted & set(words(text[start:end]))), start - end, start, end) for start, end in spans]
    if not scored or max(scored)[0] == 0:
        return 0, len(text)
    _, _, start, end = max(scored)
    return start, end


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans without the white space around them; a sentence may go over lines, a heading or list item is one."""
    borders = [0, *(border for match in _SENTENCE_BREAK.finditer(text) for border in match.span()), len(text)]
    spans = []
    for start, end in pairwise(borders):
        stripped = text[start:end].strip()
        if stripped:
            first = start + text[start:end].index(stripped)
            spans.append((first, first + len(stripped)))
    return spans


def words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
