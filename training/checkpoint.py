"""A run's state <-> one folder: a Hugging Face checkpoint plus what resuming needs. Whole or not there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from training.config import TrainConfig, config_to_json

STATE_FILE = "training_state.pt"


@dataclass(frozen=True)
class ResumedState:
    step: int
    """Updates done."""
    optimizers: list[dict[str, Any]]


def save(
    folder: Path, model: PreTrainedModel, optimizers: list[torch.optim.Optimizer], step: int, config: TrainConfig
) -> None:
    """Replace `folder` by the present state: written beside it, then renamed, so that a kill leaves the old one.

    The tokenizer's files are taken over from the old folder.
    """
    beside, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, beside / name)
    (beside / "training_config.json").write_text(config_to_json(config), encoding="utf-8")
    torch.save({"step": step, "optimizers": [each.state_dict() for each in optimizers]}, beside / STATE_FILE)
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)


def recover(folder: Path) -> None:
    """Finish a save that was killed between its two renames."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def load_state(folder: Path) -> ResumedState | None:
    """What resuming needs, or None if the folder holds no started run."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    return ResumedState(state["step"], state["optimizers"])
