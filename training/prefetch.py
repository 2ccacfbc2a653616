"""Batches made ahead of their steps, by processes of their own: one makes some ten thousand tokens a second, and a GPU
trains a small model on a hundred times as many."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset

from training.config import TrainConfig
from training.data import Batches, EmbeddingBatch, GenerationBatch

StepBatches = tuple[EmbeddingBatch | None, GenerationBatch | None]


def each_step(batches: Batches, first_step: int, config: TrainConfig) -> Iterator[tuple[int, StepBatches]]:
    """(step, its batches) from a step to the recipe's last; the same ones whoever makes them.

    What workers drop is not among `sources.dropped()` here.

    Raises: ValueError if the recipe asks for workers and processes cannot be forked.
    """
    steps, of_step = range(first_step, config.max_steps), BatchesOfStep(batches, config)
    if not config.batch_workers:
        yield from ((step, of_step[step]) for step in steps)
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError("batch_workers are forked, which this system cannot: set batch_workers to 0")
    # forked, since open files cannot be sent; and a loader that is left ends its workers
    loader = DataLoader(
        of_step,
        batch_size=None,
        sampler=steps,
        num_workers=config.batch_workers,
        collate_fn=lambda made: made,
        multiprocessing_context="fork",
        prefetch_factor=4,
    )
    yield from zip(steps, loader, strict=True)


class BatchesOfStep(Dataset[StepBatches]):
    """Both batches of a step, by its number."""

    def __init__(self, batches: Batches, config: TrainConfig) -> None:
        self._batches = batches
        self._config = config

    def __getitem__(self, step: int) -> StepBatches:
        embedding = self._batches.embedding(step) if self._config.embeds(step) else None
        return embedding, self._batches.generation(step) if self._config.generates else None
