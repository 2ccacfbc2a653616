"""The losses of GRIT as pure functions of tensors.

    L = loss_emb_weight * contrastive_loss + loss_gen_weight * next_token_loss      (arXiv 2402.09906, eq. 3)

Letters: B sequences, T tokens, D hidden size, N passages, V vocabulary, S samples, K counted tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Averaging

# ---------------------------------------------------------------- contrastive

STRIP_QUERIES = 256
"""Queries whose similarities are held at once: of two thousand the whole matrices would take more memory than a
micro-batch does."""


def contrastive_loss(
    query_BD: Tensor,
    passage_ND: Tensor,
    temperature: float,
    ignored_BN: Tensor | None = None,
    *,
    hard_negative_strength: float = 0.0,
) -> Tensor:
    """InfoNCE: each query against every passage of the batch, its own being passage number b.

        -1/B sum_b log( exp(q_b.p_b / t) / sum_n w_bn exp(q_b.p_n / t) )

    Args:
        query_BD: L2-normalised, float32.
        passage_ND: L2-normalised, float32; the first B are the positives in order, the rest hard negatives.
        ignored_BN: True where a passage is no negative of a query, such as its own positive drawn once more.
        hard_negative_strength: a; hard negatives weigh w = exp(a q_b.p_n), the similarity taken as a constant, all
            other passages 1 (EmbeddingGemma's report uses 5).
    Raises: ValueError if there are fewer passages than queries, or nothing to tell apart.
    """
    num_queries, num_passages = len(query_BD), len(passage_ND)
    if num_passages < max(num_queries, 2):
        raise ValueError(f"{num_queries} queries need as many passages and at least 2, found {num_passages}")

    def strip_loss(start: int, query_SD: Tensor, passage_ND: Tensor) -> Tensor:
        rows = torch.arange(start, start + len(query_SD), device=query_SD.device)
        similarity_SN = query_SD @ passage_ND.T
        logits_SN = similarity_SN / temperature
        if hard_negative_strength:
            boost_SN = hard_negative_strength * similarity_SN.detach()
            boost_SN[:, :num_queries] = 0.0
            logits_SN = logits_SN + boost_SN
        if ignored_BN is not None:
            logits_SN = logits_SN.masked_fill(ignored_BN[rows], float("-inf"))
        return F.cross_entropy(logits_SN, rows, reduction="sum")

    return in_strips(strip_loss, query_BD, passage_ND, STRIP_QUERIES) / num_queries


def matryoshka_loss(
    loss_of: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, dims: Sequence[int]
) -> Tensor:
    """Mean of a loss over embeddings cut to their first dimensions and normalised again.

    Source: Matryoshka representation learning (arXiv 2205.13147), all dimensions weighing alike.
    """
    return torch.stack(
        [loss_of(F.normalize(left[:, :dim], dim=-1), F.normalize(right[:, :dim], dim=-1)) for dim in dims]
    ).mean()


def same_passage(keys_N: Tensor, num_queries: int) -> Tensor:
    """True where a passage is the text of a query's own positive once more: no negative, though it looks like one.

    Args:
        keys_N: equal numbers for equal texts; the positives first, in the order of the queries.
    Returns: bool[B, N].
    """
    same_BN = keys_N[:num_queries, None] == keys_N[None, :]
    same_BN.fill_diagonal_(False)
    return same_BN


def false_negatives(similarity_BN: Tensor, margin: float) -> Tensor:
    """True where a passage is more like the query than its positive is, by more than a margin; bool[B, N].

    Args:
        similarity_BN: cosines of a guide, a teacher's or the model's own; the positive of query b is passage b.
        margin: in cosines; below 0 passages are ignored before they reach the positive.
    Source: GISTEmbed (arXiv 2402.16829) with a teacher; Qwen3 Embedding (arXiv 2506.05176) with its own at 0.1.
    """
    positive_B1 = similarity_BN.diagonal()[:, None]
    found_BN = similarity_BN > positive_B1 + margin
    found_BN.fill_diagonal_(False)
    return found_BN


def spread_out_loss(embedding_BD: Tensor) -> Tensor:
    """Mean squared cosine of different texts: embeddings that use the whole sphere lose less when they are quantized.

    Source: global orthogonal regularisation (arXiv 1708.06320), second moment alone, as jina-embeddings-v5 uses it.
    """
    if len(embedding_BD) < 2:
        return embedding_BD.sum() * 0.0
    similarity_BB = embedding_BD @ embedding_BD.T
    others_BB = similarity_BB - torch.diag_embed(similarity_BB.diagonal())
    return others_BB.square().sum() / (len(embedding_BD) * (len(embedding_BD) - 1))


def distillation_loss(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Mean cosine distance to the teacher's embeddings.

        1/B sum_b (1 - s_b.t_b)

    Args:
        student_BK: projected to the teacher's dimension, L2-normalised; a projection of the teacher's side would let
            both collapse.
        teacher_BK: L2-normalised.
    Source: jina-embeddings-v5 (its report finds it better than a contrastive loss at the end of training).
    """
    return (1.0 - (student_BK * teacher_BK).sum(dim=-1)).mean()


def similarity_distillation_loss(student_XK: Tensor, teacher_XT: Tensor, temperature: float) -> Tensor:
    """How far the cosines of a batch of texts are from a teacher's, and each text's nearest from the teacher's nearest.

        1/X^2 sum_ij (s_ij - t_ij)^2 / 0.01 + 1/X sum_i KL(softmax_j(t_ij / T) || softmax_j(s_ij / T)),   j != i

    Args:
        student_XK: L2-normalised; of any dimension, for nothing but cosines is compared.
        teacher_XT: L2-normalised.
        temperature: T; small ones look at the nearest texts alone.
    Source: the distances of relational knowledge distillation (arXiv 1904.05068) as cosines; the second term is ours.
    """
    itself_XX = torch.eye(len(student_XK), dtype=torch.bool, device=student_XK.device)
    student_XX, teacher_XX = (
        (each @ each.T).masked_fill(itself_XX, 0.0) for each in (student_XK, teacher_XT.to(student_XK.dtype))
    )
    nearness = [
        (each.masked_fill(itself_XX, -1e4) / temperature).log_softmax(dim=-1) for each in (student_XX, teacher_XX)
    ]
    apart = F.kl_div(nearness[0], nearness[1], reduction="batchmean", log_target=True)
    return (student_XX - teacher_XX).square().mean() / 0.01 + apart


# ---------------------------------------------------------------- memory


def in_strips(loss_of: Callable[[int, Tensor, Tensor], Tensor], rows: Tensor, shared: Tensor, size: int) -> Tensor:
    """The sum of a loss over strips of rows, whose gradients are taken one strip after the other.

    Args:
        loss_of: number of a strip's first row, the strip, and what all rows share -> its loss, a sum over its rows.
        size: rows of a strip; where there are no more of them nothing is special.
    """
    if len(rows) <= size:
        return loss_of(0, rows, shared)
    total: Tensor = _InStrips.apply(rows, shared, loss_of, size)
    return total


class _InStrips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, shared: Tensor, loss_of: Callable[[int, Tensor, Tensor], Tensor], size: int
    ) -> Tensor:
        total = rows.new_zeros((), dtype=torch.float32)
        # made beforehand: small pieces that stay between large ones keep freed memory from being used again
        of_rows, of_shared = torch.zeros_like(rows), torch.zeros_like(shared)
        shared = shared.detach().requires_grad_(ctx.needs_input_grad[1])
        for start in range(0, len(rows), size):
            strip = rows[start : start + size].detach().requires_grad_()
            with torch.enable_grad():
                loss = loss_of(start, strip, shared)
            if shared.requires_grad:
                of_rows[start : start + size], of_strip = torch.autograd.grad(loss, (strip, shared))
                of_shared += of_strip
            else:  # a frozen head
                (of_rows[start : start + size],) = torch.autograd.grad(loss, strip)
            total += loss.detach()
        ctx.save_for_backward(of_rows, of_shared if shared.requires_grad else None)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        of_rows, of_shared = (
            None if each is None else each * gradients[0].to(each.dtype) for each in ctx.saved_tensors
        )
        return of_rows, of_shared, None, None


# ---------------------------------------------------------------- next token


def token_weights(
    num_targets_S: Sequence[int],
    averaging: Averaging,
    group_size: int = 32,
    sum_over_ranks: Callable[[float], float] = lambda value: value,
) -> list[float]:
    """What each target token of a sample weighs in the loss, one number a sample; over all tokens they sum to 1.

        token   1 / sum_s n_s               every token alike: long answers weigh more
        sample  1 / (S n_s)                 every sample alike, which favours short answers
        mixed   1 / (G sum_{s in g} n_s)    tokens alike within a group of samples, the groups alike

    Args:
        num_targets_S: n_s; samples without a target take no part.
        group_size: samples of a group, in their order. The paper's best is 32 on each of 8 devices (table 25).
        sum_over_ranks: adds up a number over all processes, each of which has its own samples.
    """
    if averaging == "token":
        total = sum_over_ranks(float(sum(num_targets_S)))
        return [1.0 / total if each else 0.0 for each in num_targets_S]
    if averaging == "sample":
        num_samples = sum_over_ranks(float(sum(each > 0 for each in num_targets_S)))
        return [1.0 / (num_samples * each) if each else 0.0 for each in num_targets_S]
    groups = [num_targets_S[at : at + group_size] for at in range(0, len(num_targets_S), group_size)]
    num_groups = sum_over_ranks(float(sum(sum(group) > 0 for group in groups)))
    return [1.0 / (num_groups * sum(group)) if each else 0.0 for group in groups for each in group]


STRIP_LOGITS = 2**26
"""Logits that are held at once, in float32 a quarter of a gigabyte: a micro-batch of plain text is all targets, and a
vocabulary may have a hundred and fifty thousand tokens."""


def next_token_loss(
    hidden_BTD: Tensor, head_VD: Tensor, ids_BT: Tensor, weight_BT: Tensor, softcap: float | None = None
) -> Tensor:
    """Cross-entropy of the target tokens, each predicted from the one before.

        sum_bt w_bt -log p(x_bt | x_b<t)

    Micro-batches add up to the loss of the whole batch. Logits are computed for the targets alone: in a grounded chat
    one token in ten is one.

    Args:
        weight_BT: what a token counts, of `token_weights`; 0 where it is no target, as the first of a row never is.
        softcap: c, of families whose logits z are c tanh(z / c).
    """
    weight_BT = weight_BT[:, 1:]
    is_target = weight_BT > 0
    hidden_KD = hidden_BTD[:, :-1][is_target]
    if not len(hidden_KD):
        return hidden_BTD.sum() * 0.0
    ids_K, weight_K = ids_BT[:, 1:][is_target], weight_BT[is_target]

    def strip_loss(start: int, hidden_SD: Tensor, head_VD: Tensor) -> Tensor:
        strip = slice(start, start + len(hidden_SD))
        logits_SV = (hidden_SD @ head_VD.T.to(hidden_SD.dtype)).float()
        if softcap:
            logits_SV = softcap * torch.tanh(logits_SV / softcap)
        return (F.cross_entropy(logits_SV, ids_K[strip], reduction="none") * weight_K[strip]).sum()

    return in_strips(strip_loss, hidden_KD, head_VD, max(STRIP_LOGITS // len(head_VD), 1))
