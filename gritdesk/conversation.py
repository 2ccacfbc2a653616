"""The exchanges of a conversation -> what of them goes into the next prompt: turns, and passages beside the new ones.

What an earlier answer said stands in turns; the passages it cited are carried as passages of the new question, so that
one numbering holds and the new answer may cite them. Passages that no answer cited are not kept: those that matter are
found again. When the context is short, old exchanges go first, with what they cited, the oldest before the others, and
what the last answer cited goes last. A question that stands alone has no use for old passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gritdesk.citing import without_citations
from gritdesk.records import Answer, Exchange, Hit, Turn

_MAX_CARRIED = 3
"""Passages of earlier answers, since every one costs time to read."""


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
    still_stands: Callable[[Hit], bool] = lambda hit: True,
    *,
    carries: bool = True,
) -> Recalled:
    """The most that fits, in the order above; what was found for the question itself is never given up for it.

    Args:
        past: oldest first; one without a text, as after a stop, says nothing, nor does one without evidence.
        fits: whether a prompt of these turns and passages leaves room for an answer.
        still_stands: whether the index holds a passage as it was.
        carries: whether passages of earlier answers are of use.
    """
    past = [each for each in past if each.answer.text.strip() and not _says_nothing(each.answer)]
    kept = Recalled((), tuple(found))
    if carries and past:
        carried = _with(found, list(filter(still_stands, past[-1].cited[:_MAX_CARRIED])))
        kept = Recalled((), carried) if fits((), carried) else kept
    for each in reversed(past):
        has_room = carries and len(kept.hits) < len(found) + _MAX_CARRIED
        cited = list(filter(still_stands, each.cited)) if has_room else []
        more = Recalled((*_turns(each), *kept.turns), _with(kept.hits, cited))
        if not fits(more.turns, more.hits):
            break
        kept = more
    return kept


def _turns(exchange: Exchange) -> tuple[Turn, ...]:
    """Without [n], which meant the passages of another prompt."""
    return Turn("user", exchange.question), Turn("assistant", without_citations(exchange.answer.text))


def _says_nothing(answer: Answer) -> bool:
    """Of the files: without evidence, or in the model's own words that they do not say."""
    return answer.evidence == "none" or answer.refused


def _with(hits: Sequence[Hit], more: Sequence[Hit]) -> tuple[Hit, ...]:
    """Each passage once; of two that overlap the longer one."""
    kept = list(hits)
    for hit in more:
        same = [n for n, each in enumerate(kept) if _overlap(each, hit)]
        if not same:
            kept.append(hit)
        elif len(hit.chunk.text) > sum(len(kept[n].chunk.text) for n in same):
            kept[same[0]] = hit
            kept = [each for n, each in enumerate(kept) if n not in same[1:]]
    return tuple(kept)


def _overlap(one: Hit, other: Hit) -> bool:
    """Whether two hits hold the same text, or the same place of one file."""
    if one.path != other.path or one.chunk.text == other.chunk.text:
        return one.chunk.text == other.chunk.text
    return one.chunk.char_start < other.chunk.char_end and other.chunk.char_start < one.chunk.char_end
