"""A run's state <-> one folder: a Hugging Face checkpoint plus what resuming needs. Whole or not there.

Beside the folder NAME, while it is written: NAME.start with the tokenizer of a run that has no checkpoint yet,
NAME.new, and NAME.old between two renames. What a kill leaves of them, the next start takes away.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoConfig, PreTrainedModel

from training.adapters import adapter_weights, merged_weights, plain_model, restore_adapters
from training.config import TrainConfig, config_to_json
from training.distributed import Ranks
from training.model import PROJECTION_FILE
from training.steps import StepLosses

STATE_FILE = "training_state.pt"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on."""

    step: int
    """Updates done."""
    recent: tuple[StepLosses, ...]
    """Of the last of them, of which the log has no row yet."""


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    config: TrainConfig,
    ranks: Ranks | None = None,
    recent: Sequence[StepLosses] = (),
    tokenizer: Path | None = None,
    heads: Mapping[str, Tensor] | None = None,
) -> None:
    """Replace `folder` by the present state: written beside it, then renamed, so that a kill leaves the old one.

    All ranks gather what they hold, the first one keeps it and writes: the folder does not tell how many there were.
    The first one's memory has to hold all of it, with Adam three times the weights; the others' a tensor at a time.

    Args:
        step: updates done.
        recent: losses of the last of them, which the next row of the log is the mean of.
        tokenizer: folder with the tokenizer's files; none: that of the checkpoint which is replaced.
        heads: weights beside the decoder's, by name.
    """
    keeps = ranks is None or ranks.is_first
    weights = _gathered(model.state_dict(), keeps)
    state = {
        "step": step,
        "optimizers": [_gathered(each.state_dict(), keeps) for each in optimizers],
        "adapters": adapter_weights(weights),
        "recent": [astuple(each) for each in recent],
        "heads": _gathered(dict(heads or {}), keeps),
    }
    if keeps:
        _write(folder, tokenizer or folder, model, weights, state, config)
    if ranks is not None:
        ranks.wait()


def _write(
    folder: Path,
    tokenizer: Path,
    model: PreTrainedModel,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    config: TrainConfig,
) -> None:
    if state["adapters"]:
        model, weights = plain_model(model), merged_weights(model, weights)
    beside, old = _beside(folder, "new"), _beside(folder, "old")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside, state_dict=weights)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, beside / name)
    (beside / "training_config.json").write_text(config_to_json(config), encoding="utf-8")
    if "projection" in state["heads"]:
        save_file({"weight": state["heads"]["projection"]}, beside / PROJECTION_FILE)
    torch.save(state, beside / STATE_FILE)
    _flush(beside)
    if config.keep_every_steps and state["step"] and state["step"] % config.keep_every_steps == 0:
        # before the renames: a run killed in between comes here again
        _keep(beside, folder.with_name(f"{folder.name}-step-{state['step']}"))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_adapters(folder: Path, model: PreTrainedModel) -> None:
    """Give a run's adapters to a model that has just got them, and what config.json says of their use."""
    model.config.grit = AutoConfig.from_pretrained(folder).grit
    restore_adapters(model, _load(folder).get("adapters", {}))


def start_folder(folder: Path) -> Path:
    """An empty folder for the tokenizer of a run that has no checkpoint yet; `recover` takes it away."""
    start = _beside(folder, "start")
    start.mkdir(parents=True)
    return start


def _keep(folder: Path, kept: Path) -> None:
    """A copy to average or to look at later: all but what resuming needs."""
    beside = kept.with_name(kept.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(folder, beside, ignore=shutil.ignore_patterns(STATE_FILE))
    shutil.rmtree(kept, ignore_errors=True)
    beside.rename(kept)


def recover(folder: Path) -> None:
    """Take away what a killed start or save left; one killed between its two renames leaves the old checkpoint."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for left in ("start", "new", "old"):
        shutil.rmtree(_beside(folder, left), ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


def _flush(folder: Path) -> None:
    """Have everything in a folder on the disk itself.

    The checkpoint before it is deleted right after, and without this a machine that loses its power in the next half
    minute may come back with neither: renames can reach the disk before the bytes they name. A kill needs none of it.
    """
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return  # which opens no folders
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_state(
    folder: Path, optimizers: Sequence[torch.optim.Optimizer], heads: Mapping[str, Tensor] | None = None
) -> Resumed:
    """Give the optimizers what they knew, and the heads what they learned; each rank reads its own part.

    Raises: ValueError if the folder is no run's, or one with another optimizer.
    """
    state = _load(folder)
    with torch.no_grad():
        for name, weight in (heads or {}).items():
            if name in state["heads"]:
                weight.copy_(_spread(state["heads"][name], weight))
    if state["step"] == 0:
        return Resumed(0, ())
    if len(state["optimizers"]) != len(optimizers):
        raise ValueError(f"{folder} was trained with another optimizer; name another output, or the same optimizer")
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, values in saved["state"].items():
            saved["state"][number] = {key: _spread(value, parameters[number]) for key, value in values.items()}
        optimizer.load_state_dict(saved)
    return Resumed(int(state["step"]), tuple(StepLosses(*each) for each in state.get("recent", ())))


def _load(folder: Path) -> dict[str, Any]:
    if not (folder / STATE_FILE).exists():
        raise ValueError(f"{folder} is no run to continue: name another output, or train it on as base_model")
    # mapped: what a rank does not read takes none of its memory
    state: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True, mmap=True)
    return state


def _gathered(value: Any, keeps: bool) -> Any:
    """The same with every tensor whole and on the CPU; all ranks take part, and get None where they do not keep it."""
    if isinstance(value, dict):
        return {key: _gathered(each, keeps) for key, each in value.items()}
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, Tensor):
        return value.detach().cpu() if keeps else None
    return value


def _spread(value: Any, parameter: Tensor) -> Any:
    """A whole tensor as the parameter it belongs to lies on the ranks, out of the file that it is mapped from."""
    if isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape:
        # not distribute_tensor, which has each rank read all of it and takes all of it to the GPU
        mesh, placements = parameter.device_mesh, parameter.placements
        assert placements == (Shard(0),), placements
        num_rows = -(-len(value) // mesh.size())  # as FSDP splits: the last ranks may get fewer, or none
        start = num_rows * mesh.get_local_rank()
        part = value[start : start + num_rows].to(parameter.device, copy=True)
        return DTensor.from_local(part, mesh, placements, run_check=False, shape=value.shape, stride=value.stride())
    return value.clone() if isinstance(value, Tensor) else value
