"""One GRIT step: gradients of the next-token loss, then of the contrastive loss, summed into the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.config import TrainConfig
from training.data import EmbeddingBatch, GenerationBatch, TokenRows
from training.losses import contrastive_loss, next_token_loss
from training.model import embedding_dimension, hidden_states, mean_pool, writing_gradients


@dataclass(frozen=True)
class StepLosses:
    loss_emb: float | None
    """None in a step without pairs."""
    loss_gen: float
    num_tokens: int
    """Tokens read in both modes, padding left out."""


def grit_step(
    model: PreTrainedModel,
    embedding: EmbeddingBatch | None,
    generation: GenerationBatch,
    config: TrainConfig,
    temperature: float,
) -> StepLosses:
    """Both losses of one step, backpropagated; the optimizer step is the caller's.

    Where only part of the hidden dimensions is pooled, the next-token gradient is kept from writing there: a step of
    language would otherwise undo what many steps of pairs have told apart.

    Raises: ValueError if a loss is not finite or no token counts, before the parameters are touched.
    """
    loss_gen = _backward_generation(model, generation, config.loss_gen_weight)
    pooled = embedding_dimension(model)
    if pooled < model.config.hidden_size:
        for gradient in writing_gradients(model):
            gradient[..., :pooled] = 0.0
    loss_emb, every_rows = None, list(generation.rows)
    if embedding is not None:
        loss_emb = _backward_embedding(model, embedding, config.loss_emb_weight, temperature)
        every_rows += [*embedding.queries, *embedding.passages]
    return StepLosses(loss_emb, loss_gen, sum(int(rows.mask_BT.sum()) for rows in every_rows))


def _backward_generation(model: PreTrainedModel, batch: GenerationBatch, weight: float) -> float:
    num_targets = sum(int(rows.counts_BT[:, 1:].sum()) for rows in batch.rows)
    if num_targets == 0:
        raise ValueError("a generation batch has no target token: every chat was cut before its answer")
    total = 0.0
    head_VD = model.get_output_embeddings().weight
    for rows in batch.rows:
        with _autocast():
            hidden_BTD = hidden_states(model, rows.ids_BT, rows.mask_BT, causal=True)
            summed, _ = next_token_loss(hidden_BTD, head_VD, rows.ids_BT, rows.counts_BT)
        loss = summed / num_targets
        _check_finite(loss, "next-token")
        (loss * weight).backward()
        total += loss.item()
    return total


def _backward_embedding(model: PreTrainedModel, batch: EmbeddingBatch, weight: float, temperature: float) -> float:
    query_BD = embed_rows(model, batch.queries, batch.num_queries)
    passage_ND = embed_rows(model, batch.passages, batch.num_passages)
    loss = contrastive_loss(query_BD, passage_ND, temperature, batch.ignored_BN)
    _check_finite(loss, f"contrastive ({batch.source})")
    (loss * weight).backward()
    return loss.item()


def embed_rows(model: PreTrainedModel, groups: list[TokenRows], num_rows: int) -> Tensor:
    """Embeddings of all rows in the batch's own order, float32[num_rows, D]."""
    pooled = []
    for rows in groups:
        with _autocast():
            hidden_BTD = hidden_states(model, rows.ids_BT, rows.mask_BT, causal=False)
        pooled.append(mean_pool(hidden_BTD[..., : embedding_dimension(model)], rows.counts_BT))
    order = torch.tensor([index for rows in groups for index in rows.order])
    return torch.cat(pooled)[torch.argsort(order)][:num_rows]


def _autocast() -> torch.autocast:
    # twice the speed of float32 on CPUs with bfloat16 instructions; pooling and losses stay float32
    return torch.autocast("cpu", dtype=torch.bfloat16)


def _check_finite(loss: Tensor, name: str) -> None:
    if not bool(torch.isfinite(loss)):
        raise ValueError(f"the {name} loss is {loss.item()}: lower the learning rate or look at the batch")
