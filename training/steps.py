"""One GRIT step: gradients of the next-token loss, then of the contrastive loss, summed into the parameters.

Generation first: the embeddings of all ranks meet in the contrastive loss, and no rank should wait there for the
slowest twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import TrainConfig
from training.data import EmbeddingBatch, GenerationBatch, TokenRows
from training.distributed import Ranks
from training.losses import (
    contrastive_loss,
    distillation_loss,
    false_negatives,
    matryoshka_loss,
    same_passage,
    similarity_distillation_loss,
    spread_out_loss,
    token_weights,
)
from training.memory import give_back_memory
from training.model import GritModel, writing_gradients

_PASSES_PER_TRIM = 8

LossOf = Callable[[Tensor, Tensor], Tensor]
"""Embeddings of this rank's queries and passages -> the loss of all ranks."""


@dataclass(frozen=True)
class StepLosses:
    loss_emb: float | None
    """None in a step without pairs."""
    loss_gen: float | None
    """None in a step without chats and texts."""
    num_tokens: int
    """Tokens this rank read in both modes, padding left out."""


def grit_step(
    model: GritModel,
    embedding: EmbeddingBatch | None,
    generation: GenerationBatch | None,
    config: TrainConfig,
    temperature: float,
    ranks: Ranks | None = None,
) -> StepLosses:
    """Both losses of one step, backpropagated; the optimizer step is the caller's.

    Where only part of the hidden dimensions is pooled, the next-token gradient is kept from writing there: a step of
    language would otherwise undo what many steps of pairs have told apart.

    Raises: ValueError if a loss is not finite or no token counts, before the parameters are touched.
    """
    ranks = ranks or Ranks()
    loss_emb = loss_gen = None
    if generation is not None:
        loss_gen = _backward_generation(model, generation, config, ranks)
        if model.pooled_dimension < model.decoder.config.hidden_size:
            for gradient in writing_gradients(model.decoder):
                gradient[..., : model.pooled_dimension] = 0.0
    if embedding is not None:
        loss_emb = _backward_embedding(model, embedding, config, temperature, ranks)
    rows = [*(generation.rows if generation else ()), *((*embedding.queries, *embedding.passages) if embedding else ())]
    return StepLosses(loss_emb, loss_gen, sum(each.num_tokens for each in rows))


# ---------------------------------------------------------------- next token


def _backward_generation(model: GritModel, batch: GenerationBatch, config: TrainConfig, ranks: Ranks) -> float:
    if ranks.sum(float(sum(batch.num_targets))) == 0:
        raise ValueError("a generation batch has no target token: every chat was cut before its answer")
    weights = token_weights(batch.num_targets, config.generation_averaging, config.mixed_group_size, ranks.sum)
    if batch.importance:
        weights = [weight * each for weight, each in zip(weights, batch.importance, strict=True)]
        total_weight = sum(weight * num for weight, num in zip(weights, batch.num_targets, strict=True))
        total_weight = ranks.sum(total_weight)
        weights = [weight / total_weight for weight in weights]
    weight_of = torch.tensor([0.0, *weights])
    total = 0.0
    for rows in batch.rows:
        number_BT = torch.tensor(rows.order)[:, None] + 1 if rows.sequence_BT is None else rows.sequence_BT
        weight_BT = rows.counts_BT * weight_of[number_BT]
        loss = model(rows, weight_BT)
        _check_finite(loss, "next-token")
        (loss * config.loss_gen_weight * ranks.size).backward()
        total += loss.item()
    return ranks.sum(total)


# ---------------------------------------------------------------- contrastive


def _backward_embedding(
    model: GritModel, batch: EmbeddingBatch, config: TrainConfig, temperature: float, ranks: Ranks
) -> float:
    def loss_of(query_BD: Tensor, passage_ND: Tensor) -> Tensor:
        loss = embedding_loss(query_BD, passage_ND, batch, config, temperature, ranks, model.embedding_dimension)
        _check_finite(loss, f"contrastive ({batch.source})")
        return loss * config.loss_emb_weight * ranks.size

    backward = {"whole": backward_whole, "split": backward_split, "cached": backward_cached}
    return backward[config.contrastive_backward](model, batch, loss_of) / (config.loss_emb_weight * ranks.size)


def embedding_loss(
    query_BD: Tensor,
    passage_ND: Tensor,
    batch: EmbeddingBatch,
    config: TrainConfig,
    temperature: float,
    ranks: Ranks,
    dimension: int,
) -> Tensor:
    """The contrastive loss of the whole batch and what a recipe adds to it; each rank computes it in full.

    Args:
        query_BD: embeddings of `dimension`; behind them, where there is a teacher, what should be like the teacher's.
    """
    query_BD = ranks.gather_rows(query_BD)
    passage_ND = _gather_passages(passage_ND, batch, ranks)
    keys_N = _gather_passages(batch.keys_N.to(query_BD.device), batch, ranks)
    query_BD, student_query_BK = query_BD[:, :dimension], query_BD[:, dimension:]
    passage_ND, student_passage_NK = passage_ND[:, :dimension], passage_ND[:, dimension:]
    taught_query_BK = taught_passage_NK = None
    if batch.taught_query_BK is not None and batch.taught_passage_NK is not None:
        taught_query_BK = ranks.gather_rows(batch.taught_query_BK.to(query_BD.device))
        taught_passage_NK = _gather_passages(batch.taught_passage_NK.to(query_BD.device), batch, ranks)

    ignored_BN = same_passage(keys_N, len(query_BD))
    if config.false_negative_margin is not None:
        if taught_query_BK is not None and taught_passage_NK is not None:
            guide_BN = taught_query_BK @ taught_passage_NK.T
        else:
            guide_BN = (query_BD @ passage_ND.T).detach()
        ignored_BN = ignored_BN | false_negatives(guide_BN, config.false_negative_margin)

    def contrastive(left_BD: Tensor, right_ND: Tensor) -> Tensor:
        return contrastive_loss(
            left_BD, right_ND, temperature, ignored_BN, hard_negative_strength=config.hard_negative_strength
        )

    dimensions = (query_BD.shape[1], *config.matryoshka_dimensions)
    loss = matryoshka_loss(contrastive, query_BD, passage_ND, dimensions)
    if config.spread_out_weight:
        spread = spread_out_loss(query_BD) + spread_out_loss(passage_ND[: len(query_BD)])
        loss = loss + config.spread_out_weight * spread
    if config.distillation_weight or config.similarity_distillation_weight:
        assert taught_query_BK is not None and taught_passage_NK is not None
        taught_XK = torch.cat([taught_query_BK, taught_passage_NK])
        if config.distillation_weight:
            student_XK = torch.cat([student_query_BK, student_passage_NK])
            loss = loss + config.distillation_weight * distillation_loss(student_XK, taught_XK)
        if config.similarity_distillation_weight:
            embedding_XD = torch.cat([query_BD, passage_ND])
            apart = similarity_distillation_loss(embedding_XD, taught_XK, temperature)
            loss = loss + config.similarity_distillation_weight * apart
    return loss


def _gather_passages(rows: Tensor, batch: EmbeddingBatch, ranks: Ranks) -> Tensor:
    """All ranks' positives in order, then all their hard negatives."""
    positives, hard_negatives = rows[: batch.num_queries], rows[batch.num_queries :]
    return torch.cat([ranks.gather_rows(positives), ranks.gather_rows(hard_negatives)])


def backward_whole(model: GritModel, batch: EmbeddingBatch, loss_of: LossOf) -> float:
    """One forward pass of all, held until its backward pass."""
    loss = loss_of(embed_rows(model, batch.queries), embed_rows(model, batch.passages))
    loss.backward()
    return loss.item()


def backward_split(model: GritModel, batch: EmbeddingBatch, loss_of: LossOf) -> float:
    """The passages' gradients with the queries held constant, then the other way round (paper, appendix H).

    dL = dL/dq dq + dL/dp dp, and only one of the two parts is held at a time.
    """
    random = _RandomStates(1, model.device)
    with torch.no_grad():
        random.keep(0)
        query_BD = embed_rows(model, batch.queries)
    passage_ND = embed_rows(model, batch.passages)
    loss_of(query_BD, passage_ND).backward()
    with random.again(0):
        query_BD = embed_rows(model, batch.queries)
    loss = loss_of(query_BD, passage_ND.detach())
    loss.backward()
    return loss.item()


def backward_cached(model: GritModel, batch: EmbeddingBatch, loss_of: LossOf) -> float:
    """GradCache (arXiv 2101.06983): the loss's gradient by embedding first, then micro-batch by micro-batch through
    a second forward pass, with the first one's random numbers."""
    every_rows = [*batch.queries, *batch.passages]
    random = _RandomStates(len(every_rows), model.device)
    query_BD = passage_ND = None
    with torch.no_grad():
        for number, rows in enumerate(every_rows):
            if number % _PASSES_PER_TRIM == 0:
                give_back_memory()
            random.keep(number)
            embedding_BD = model(rows)
            if query_BD is None or passage_ND is None:
                # made once and filled: what stays of each micro-batch would keep apart the memory the others leave
                query_BD = embedding_BD.new_empty(batch.num_queries, embedding_BD.shape[1])
                passage_ND = embedding_BD.new_empty(batch.num_passages, embedding_BD.shape[1])
            is_query = number < len(batch.queries)
            (query_BD if is_query else passage_ND)[list(rows.order)] = embedding_BD
    assert query_BD is not None and passage_ND is not None
    loss = loss_of(query_BD.requires_grad_(True), passage_ND.requires_grad_(True))
    loss.backward()
    for number, rows in enumerate(every_rows):
        gradient = (query_BD if number < len(batch.queries) else passage_ND).grad
        assert gradient is not None
        if number % _PASSES_PER_TRIM == 0:
            give_back_memory()
        with random.again(number):
            embedding_BD = model(rows)
        (embedding_BD * gradient[list(rows.order)]).sum().backward()
    return loss.item()


def embed_rows(model: GritModel, groups: Sequence[TokenRows]) -> Tensor:
    """Embeddings of all rows in the batch's own order, float32[num_rows, D]."""
    return _in_order([model(rows) for rows in groups], groups)


def _in_order(pooled: Sequence[Tensor], groups: Sequence[TokenRows]) -> Tensor:
    order = torch.tensor([index for rows in groups for index in rows.order])
    return torch.cat(list(pooled))[torch.argsort(order).to(pooled[0].device)]


class _RandomStates:
    """The random numbers to come at several moments, to be drawn once more: dropout must drop the same in both forward
    passes."""

    def __init__(self, num: int, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state().repeat(num, 1)
        self._cuda = torch.cuda.get_rng_state(device).repeat(num, 1) if device.type == "cuda" else None

    def keep(self, number: int) -> None:
        """This is moment `number`."""
        self._cpu[number] = torch.get_rng_state()
        if self._cuda is not None:
            self._cuda[number] = torch.cuda.get_rng_state(self._device)

    @contextmanager
    def again(self, number: int) -> Iterator[None]:
        """The numbers of that moment within, those that were to come behind it."""
        with torch.random.fork_rng([self._device] if self._cuda is not None else []):
            # clones, for PyTorch reads the storage from its beginning, whichever row it is given
            torch.set_rng_state(self._cpu[number].clone())
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda[number].clone(), self._device)
            yield


def _check_finite(loss: Tensor, name: str) -> None:
    if not bool(torch.isfinite(loss)):
        raise ValueError(f"the {name} loss is {loss.item()}: lower the learning rate or look at the batch")
