"""The exchanges of a conversation -> what of them goes into the next prompt: turns, and passages beside the new ones.

What an earlier answer said stands in turns; the passages it cited are carried as passages of the new question, so that
one numbering holds and the new answer may cite them. Passages that no answer cited are not kept: those that matter are
found again. When the context is short, old exchanges go first, with what they cited, the oldest before the others, and
what the last answer cited goes last. A question that stands alone has no use for old passages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gritdesk.records import Exchange, Hit, Turn

_MAX_CARRIED = 3
"""Passages of earlier answers, since every one costs time to read."""
_NUMBERS = re.compile(r"[ \t]?\[\d{1,2}\]")


@dataclass(frozen=True)
class Recalled:
    """What a prompt is to hold beside the question."""

    turns: tuple[Turn, ...]
    """Of earlier exchanges, oldest first, question and answer in turn."""
    hits: tuple[Hit, ...]
    """All passages, best first: those that were found, then those that are carried."""


def recalled(
    past: Sequence[Exchange],
    found: Sequence[Hit],
    fits: Callable[[Sequence[Turn], Sequence[Hit]], bool],
    *,
    carries: bool = True,
) -> Recalled:
    """The most that fits, in the order above; what was found for the question itself is never given up for it.

    Args:
        past: oldest first; one without a text, as after a stop, says nothing, nor does one without evidence.
        fits: whether a prompt of these turns and passages leaves room for an answer.
        carries: whether passages of earlier answers are of use.
    """
    past = [each for each in past if each.answer.text.strip() and each.answer.evidence != "none"]
    kept = Recalled((), tuple(found))
    if carries and past:
        carried = _with(found, past[-1].cited[:_MAX_CARRIED])
        kept = Recalled((), carried) if fits((), carried) else kept
    for each in reversed(past):
        has_room = carries and len(kept.hits) < len(found) + _MAX_CARRIED
        more = Recalled((*_turns(each), *kept.turns), _with(kept.hits, each.cited) if has_room else kept.hits)
        if not fits(more.turns, more.hits):
            break
        kept = more
    return kept


def _turns(exchange: Exchange) -> tuple[Turn, ...]:
    """Without [n], which meant the passages of another prompt."""
    return Turn("user", exchange.question), Turn("assistant", _NUMBERS.sub("", exchange.answer.text).strip())


def _with(hits: Sequence[Hit], more: Sequence[Hit]) -> tuple[Hit, ...]:
    """Each passage once, be it by its place or by its text."""
    known = {(hit.path, hit.chunk.char_start) for hit in hits}
    texts = {hit.chunk.text for hit in hits}
    new = [hit for hit in more if (hit.path, hit.chunk.char_start) not in known and hit.chunk.text not in texts]
    return (*hits, *new)
