"""The two losses of GRIT as pure functions of tensors.

    L = loss_emb_weight * contrastive_loss + loss_gen_weight * next_token_loss      (arXiv 2402.09906, eq. 3)

Letters: B sequences, T tokens, D hidden size, N passages, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    query_BD: Tensor, passage_ND: Tensor, temperature: float, ignored_BN: Tensor | None = None
) -> Tensor:
    """InfoNCE: each query against every passage of the batch, its own being passage number b.

        -1/B sum_b log( exp(q_b.p_b / t) / sum_n exp(q_b.p_n / t) )

    Args:
        query_BD: L2-normalised, float32.
        passage_ND: L2-normalised, float32; the first B are the positives in order, the rest hard negatives.
        ignored_BN: True where a passage is no negative of a query, such as its own positive drawn once more.
    Raises: ValueError if there are fewer passages than queries, or nothing to tell apart.
    """
    num_queries, num_passages = len(query_BD), len(passage_ND)
    if num_passages < max(num_queries, 2):
        raise ValueError(f"{num_queries} queries need as many passages and at least 2, found {num_passages}")
    similarity_BN = query_BD @ passage_ND.T / temperature
    if ignored_BN is not None:
        similarity_BN = similarity_BN.masked_fill(ignored_BN, float("-inf"))
    return F.cross_entropy(similarity_BN, torch.arange(num_queries, device=similarity_BN.device))


def same_passage(passages: Sequence[str], num_passages: int) -> Tensor:
    """True where another query's positive is the query's own text, bool[B, N]: no negative, though it looks like one.

    Args:
        passages: the positives' texts, in the order of the queries.
        num_passages: N, with the hard negatives, which count in full.
    """
    group_of = {text: number for number, text in enumerate(dict.fromkeys(passages))}
    group_B = torch.tensor([group_of[text] for text in passages])
    same_BN = torch.zeros(len(passages), num_passages, dtype=torch.bool)
    same_BN[:, : len(passages)] = group_B[:, None] == group_B[None, :]
    same_BN.fill_diagonal_(False)
    return same_BN


def next_token_loss(hidden_BTD: Tensor, head_VD: Tensor, ids_BT: Tensor, counts_BT: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy of the tokens that count, each predicted from the one before; summed, and how many.

    Sum and count are returned apart, so that micro-batches add up to the plain mean over the batch's tokens.
    Logits are computed for those positions alone: in a grounded chat one token in ten counts.
    """
    is_target = counts_BT[:, 1:].bool()
    hidden_KD = hidden_BTD[:, :-1][is_target]
    if not len(hidden_KD):
        return hidden_BTD.sum() * 0.0, 0
    logits_KV = (hidden_KD @ head_VD.T.to(hidden_KD.dtype)).float()
    return F.cross_entropy(logits_KV, ids_BT[:, 1:][is_target], reduction="sum"), len(hidden_KD)
