"""A run's state <-> one folder: a Hugging Face checkpoint plus what resuming needs. Whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from training.config import TrainConfig, config_to_json
from training.distributed import Ranks

STATE_FILE = "training_state.pt"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    config: TrainConfig,
    ranks: Ranks | None = None,
) -> None:
    """Replace `folder` by the present state: written beside it, then renamed, so that a kill leaves the old one.

    The tokenizer's files are taken over from the old folder. All ranks gather what they hold, the first one writes:
    the folder does not tell how many there were.
    """
    weights = {name: _gathered(tensor) for name, tensor in model.state_dict().items()}
    state = {"step": step, "optimizers": [_gathered(each.state_dict()) for each in optimizers]}
    if ranks is None or ranks.is_first:
        _write(folder, model, weights, state, config)
    if ranks is not None:
        ranks.wait()


def _write(
    folder: Path, model: PreTrainedModel, weights: dict[str, Tensor], state: dict[str, Any], config: TrainConfig
) -> None:
    beside, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside, state_dict=weights)
    for name in TOKENIZER_FILES:
        if (folder / name).exists():
            shutil.copy(folder / name, beside / name)
    (beside / "training_config.json").write_text(config_to_json(config), encoding="utf-8")
    torch.save(state, beside / STATE_FILE)
    if config.keep_every_steps and state["step"] and state["step"] % config.keep_every_steps == 0:
        # before the renames: a run killed in between comes here again
        _keep(beside, folder.with_name(f"{folder.name}-step-{state['step']}"))
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)


def _keep(folder: Path, kept: Path) -> None:
    """A copy to average or to look at later: all but what resuming needs."""
    beside = kept.with_name(kept.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(folder, beside, ignore=shutil.ignore_patterns(STATE_FILE))
    shutil.rmtree(kept, ignore_errors=True)
    beside.rename(kept)


def recover(folder: Path) -> None:
    """Finish a save that was killed between its two renames."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def load_state(folder: Path, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Give the optimizers what they knew; returns the updates done."""
    state = torch.load(folder / STATE_FILE, weights_only=True)
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, values in saved["state"].items():
            saved["state"][number] = {key: _spread(value, parameters[number]) for key, value in values.items()}
        optimizer.load_state_dict(saved)
    return int(state["step"])


def _gathered(value: Any) -> Any:
    """The same with every tensor whole and on the CPU; all ranks take part."""
    if isinstance(value, dict):
        return {key: _gathered(each) for key, each in value.items()}
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _spread(value: Any, parameter: Tensor) -> Any:
    """A whole tensor as the parameter it belongs to lies on the ranks."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
