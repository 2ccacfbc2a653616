"""What each process of a two-rank step does; started by torchrun from test_training_distributed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from training.config import read_recipe
from training.data import Batches
from training.distributed import Ranks, shard
from training.examples import read_sources
from training.model import grit_model, load_model
from training.steps import grit_step
from training.tokenizer import FrameTokenizer


def step(recipe: Path, checkpoint: Path, ranks: Ranks, dropout: float = 0.0) -> dict[str, Any]:
    """Losses and whole gradients of one step on this rank's part of the batch."""
    config = read_recipe(recipe)
    batches = Batches(read_sources(config), FrameTokenizer.from_folder(checkpoint), config, ranks)
    model = grit_model(load_model(checkpoint), config).train()
    for layer in model.decoder.model.layers:
        layer.self_attn.attention_dropout = dropout
    torch.manual_seed(ranks.rank)
    shard(model, model.decoder.model.layers, ranks)
    losses = grit_step(model, batches.embedding(0), batches.generation(0), config, 0.05, ranks)
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradients[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return {"gradients": gradients, "losses": (losses.loss_emb, losses.loss_gen), "size": ranks.size}


if __name__ == "__main__":
    torch.set_num_threads(1)
    every_rank = Ranks.from_environment()
    checkpoint_folder, out, drop, *recipes = sys.argv[1:]
    found = [step(Path(each), Path(checkpoint_folder), every_rank, float(drop)) for each in recipes]
    if every_rank.is_first:
        torch.save(found, out)
    every_rank.leave()
