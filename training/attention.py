"""Who sees whom, as additive masks float[B, 1, T, T] that every decoder of transformers takes as they are.

Causal attention over whole rows is what decoders do by themselves, sliding windows included. All else is said by
a mask: bidirectional attention of embeddings, where a window would bring causality back, and rows that hold
several sequences. `is_causal` alone is honoured by some families and not by others.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bidirectional_mask(mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Every token sees every token of its row that is no padding.

    Args:
        mask_BT: 1 on tokens, 0 on padding.
    """
    seen_B1TT = mask_BT.bool()[:, None, None, :].expand(-1, 1, mask_BT.shape[1], -1)
    return _additive(seen_B1TT, dtype)


def causal_instruction_mask(mask_BT: Tensor, is_text_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """The instruction causal, the text seeing all before and after it (the paper's attention code `cb`)."""
    seen_BTT = _causal(mask_BT.shape[1], mask_BT.device) | is_text_BT.bool()[:, :, None]
    return _additive((seen_BTT & mask_BT.bool()[:, None, :])[:, None], dtype)


def packed_mask(sequence_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Causal within each of the sequences that share a row.

    Args:
        sequence_BT: number of each token's sequence, from 1; 0 is padding.
    """
    return _additive(_causal_within(sequence_BT)[:, None], dtype)


def passage_mask(
    sequence_BT: Tensor,
    block_BT: Tensor | None,
    dtype: torch.dtype,
    *,
    bidirectional: bool,
    branch_BT: Tensor | None = None,
) -> Tensor:
    """Each passage of a chat sees itself alone; what is no passage sees all before it.

    Args:
        sequence_BT: as in `packed_mask`.
        block_BT: number of each token's passage within its sequence, from 1; 0 is no passage.
        bidirectional: a passage's tokens see each other both ways, as when it is embedded.
        branch_BT: number of each token's branch, from 1; 0 is what all branches of a sequence see, and no branch sees
            another.
    """
    block_BT = torch.zeros_like(sequence_BT) if block_BT is None else block_BT
    same_BTT = (block_BT[:, :, None] == block_BT[:, None, :]) & (sequence_BT[:, :, None] == sequence_BT[:, None, :])
    causal_BTT = _causal_within(sequence_BT)
    in_block_BTT = same_BTT if bidirectional else same_BTT & causal_BTT
    seen_BTT = torch.where(block_BT[:, :, None] > 0, in_block_BTT, causal_BTT)
    if branch_BT is not None:
        seen_BTT &= (branch_BT[:, None, :] == 0) | (branch_BT[:, None, :] == branch_BT[:, :, None])
    return _additive(seen_BTT[:, None], dtype)


def _causal_within(sequence_BT: Tensor) -> Tensor:
    same_BTT = sequence_BT[:, :, None] == sequence_BT[:, None, :]
    return same_BTT & _causal(sequence_BT.shape[1], sequence_BT.device) & (sequence_BT > 0)[:, None, :]


def _causal(num_tokens: int, device: torch.device) -> Tensor:
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen, the lowest number where not; padding sees itself, for a row of nothing is NaN."""
    num_tokens = seen.shape[-1]
    seen = seen | torch.eye(num_tokens, dtype=torch.bool, device=seen.device)
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
