"""Answers that are copied from passages: where each token stands there, and heads that learn to look at it.

The next-token loss tells a model what to write and leaves it to find out that it stood in a passage, three steps away:
which passage the question is about, where in it the answer begins, what follows. A small model does not find it in
the steps it has. Where the copied tokens stand is known, so a head of each of the last blocks is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NOWHERE = -1
"""In place of a position: the token is not copied."""

_LABEL = 3
"""Tokens of "[1]"."""


def copied_from(
    ids: Sequence[int], counts: Sequence[bool], blocks: Sequence[int], branches: Sequence[int]
) -> list[int]:
    """For each token the position it is copied from, or NOWHERE.

    Only answers to questions about passages copy: a label's number from the label behind its passage, the words from
    where they stand there. The first token decides whether there is an answer at all: it looks where the first word
    stands, and at position 0 where no passage is named.

    Args:
        ids, counts, blocks, branches: of an encoded chat whose passages are blocks (`data.BranchedFrame`).
    """
    found = [NOWHERE] * len(ids)
    if not any(blocks):
        return found
    labels = _labels_behind(ids, blocks)
    for start, end in _answers(counts, branches):
        label = labels.get(tuple(ids[start : start + _LABEL]))
        if label is None:
            found[start] = 0
            continue
        at, block = label
        found[start : start + 2] = [at + 1] * min(2, end - start)
        first_word = start + _LABEL
        passage = [position for position, each in enumerate(blocks) if each == block]
        words = ids[start + _LABEL : end - 1]
        for offset, position in enumerate(_longest_runs(words, [ids[each] for each in passage])):
            if position != NOWHERE:
                found[first_word + offset] = passage[position]
        if first_word < end and found[first_word] != NOWHERE:
            found[start] = found[first_word]
    return found


def cited_blocks(
    ids: Sequence[int], counts: Sequence[bool], blocks: Sequence[int], branches: Sequence[int]
) -> list[tuple[int, int]]:
    """(position of its number, number of the passage among the blocks) of each answer that begins with a label."""
    labels = _labels_behind(ids, blocks)
    starts = [start for start, end in _answers(counts, branches) if end - start >= _LABEL]
    cited = [(start + 1, labels.get(tuple(ids[start : start + _LABEL]))) for start in starts]
    return [(at, label[1]) for at, label in cited if label is not None]


def _answers(counts: Sequence[bool], branches: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stretches of targets, [start, end)."""
    start = None
    for at in range(len(counts) + 1):
        goes_on = at < len(counts) and counts[at]
        if start is not None and not (goes_on and branches[at] == branches[start]):
            yield start, at
            start = None
        if goes_on and start is None:
            start = at


def _labels_behind(ids: Sequence[int], blocks: Sequence[int]) -> dict[tuple[int, ...], tuple[int, int]]:
    """A label's tokens -> where it begins behind its passage, and the passage's number.

    Between the two stands a line break, one token.
    """
    found = {}
    for at in range(len(ids) - _LABEL - 1 if any(blocks) else 0):
        if blocks[at] and not blocks[at + 1]:
            found[tuple(ids[at + 2 : at + 2 + _LABEL])] = (at + 2, blocks[at])
    return found


def _longest_runs(words: Sequence[int], passage: Sequence[int]) -> list[int]:
    """For each word its position within the longest stretch that both share there, or NOWHERE."""
    places: dict[int, list[int]] = {}
    for position, word in enumerate(passage):
        places.setdefault(word, []).append(position)
    pairs = [(number, position) for number, word in enumerate(words) for position in places.get(word, ())]
    before, behind = dict.fromkeys(pairs, 1), dict.fromkeys(pairs, 1)
    for number, position in pairs:
        before[number, position] += before.get((number - 1, position - 1), 0)
    for number, position in reversed(pairs):
        behind[number, position] += behind.get((number + 1, position + 1), 0)
    best = [(0, NOWHERE)] * len(words)
    for number, position in pairs:
        best[number] = max(best[number], (before[number, position] + behind[number, position], position))
    return [position for _, position in best]


# ---------------------------------------------------------------- heads


@contextmanager
def watched_heads(
    decoder: PreTrainedModel, num_layers: int, source_BT: Tensor, weight_BT: Tensor, mask_B1TT: Tensor
) -> Iterator[list[Tensor]]:
    """Collect, while the decoder runs, how little the last head of each of its last blocks looks where it should.

        sum_t weight_t * -log a_{t-1}(source_t), a: attention of the token before

    Args:
        source_BT: where token t is copied from, or NOWHERE.
        weight_BT: of the targets.
        mask_B1TT: additive mask of the same pass.
    Returns: one scalar a block, once the decoder has run.
    """
    source_BT, weight_BT, mask_BTT = source_BT[:, 1:], weight_BT[:, 1:], mask_B1TT[:, 0, :-1]
    weight_BT = weight_BT * (source_BT != NOWHERE)
    at_BT1 = source_BT.clamp(min=0)[:, :, None]
    losses: list[Tensor] = []

    def look(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        # all tokens' scores and not those of the copied ones alone: a GPU adds up gradients of gathered rows slowly
        scores_BTT = _scores(layer, given[0], named["position_embeddings"])[:, :-1].float() + mask_BTT.float()
        missed_BT = scores_BTT.logsumexp(dim=-1) - scores_BTT.gather(2, at_BT1)[:, :, 0]
        losses.append((missed_BT * weight_BT).sum())

    # on whole layers, which call their forward themselves: torch.compile leaves out hooks within what it compiled
    with _hooks(decoder.model.layers[-num_layers:], look):
        yield losses


def _scores(layer: nn.Module, hidden_BTD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Scores of the last head, before mask and softmax: float[B, T, T]."""
    attention = layer.self_attn
    hidden_BTD = layer.input_layernorm(hidden_BTD)
    size, (cos, sin) = attention.head_dim, turns
    query_BTE, key_BTE = attention.q_proj(hidden_BTD)[..., -size:], attention.k_proj(hidden_BTD)[..., -size:]
    if hasattr(attention, "q_norm"):  # Qwen3
        query_BTE, key_BTE = attention.q_norm(query_BTE), attention.k_norm(key_BTE)
    query_BTE, key_BTE = (each * cos + _rotate_half(each) * sin for each in (query_BTE, key_BTE))
    return query_BTE @ key_BTE.transpose(1, 2) * attention.scaling


def _rotate_half(vectors: Tensor) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


@contextmanager
def _hooks(modules: Sequence[nn.Module], look: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
