"""A question and its passages -> the prompt that fits the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import documents_turn
from gritdesk.records import Chunk, Hit, Prompt, Turn

NO_EVIDENCE = "Nothing in these files answers this."
"""The answer when nothing was found; no model is asked."""


def no_evidence(scope: str = "") -> str:
    """The same of what was asked, as a person calls it."""
    return f"Nothing in {scope} answers this." if scope else NO_EVIDENCE


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


def _halved(hit: Hit) -> Hit:
    chunk: Chunk = hit.chunk
    text = chunk.text[: len(chunk.text) // 2]
    is_same = chunk.text.count("\n") == chunk.line_end - chunk.line_start
    last = chunk.line_start + text.count("\n") if is_same else chunk.line_end
    return replace(hit, chunk=replace(chunk, text=text, char_end=chunk.char_start + len(text), line_end=last))
