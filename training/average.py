"""`python -m training.average CHECKPOINT... --output FOLDER`: checkpoints of one shape -> their weighted mean.

The mean of checkpoints that came from the same start, late steps of one run or runs with other data or seeds, is
often better than each of them. Of checkpoints with different starts it is nothing.

Sources: Model soups (arXiv 2203.05482); the reports of Qwen3 Embedding (arXiv 2506.05176) and EmbeddingGemma
(arXiv 2509.20354) merge checkpoints in the end.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.checkpoint import TOKENIZER_FILES
from training.config import read_json
from training.model import PROJECTION_FILE

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_COPIED = ("generation_config.json", "training_config.json", *TOKENIZER_FILES)
_MAY_DIFFER = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
"""Keys of config.json that say nothing about what the weights mean."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.average", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="folders of one shape")
    parser.add_argument("--output", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--weights", type=float, nargs="+", help="one of each checkpoint, not below 0; default: alike")
    given = parser.parse_args(arguments)
    try:
        average(given.checkpoints, given.output, given.weights)
    except ValueError as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    return 0


def average(folders: Sequence[Path], output: Path, weights: Sequence[float] | None = None) -> None:
    """Write the weighted mean as a checkpoint of float32, whole or not at all, holding one tensor at a time.

    Args:
        weights: of each checkpoint; they need not sum to 1. None: all alike.
    Raises: ValueError if the checkpoints do not belong together, naming what differs, or the output is there.
    """
    shares = _shares(len(folders), weights)
    if output.exists():
        raise ValueError(f"{output} exists; name a folder that does not")
    with ExitStack() as opened:
        checkpoints = [Checkpoint(folder, opened) for folder in folders]
        for other in checkpoints[1:]:
            check_alike(checkpoints[0], other)
        beside = output.with_name(output.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _copy_files(checkpoints[0], beside)
        _write_mean(beside / _WEIGHTS, checkpoints, shares)
        if (checkpoints[0].folder / PROJECTION_FILE).exists():
            heads = [load_file(each.folder / PROJECTION_FILE)["weight"] for each in checkpoints]
            mean = sum((share * head for share, head in zip(shares, heads, strict=True)), start=torch.zeros(()))
            save_file({"weight": mean}, beside / PROJECTION_FILE)
    beside.rename(output)


def _shares(num_checkpoints: int, weights: Sequence[float] | None) -> list[float]:
    if num_checkpoints < 2:
        raise ValueError("give at least two checkpoints to average")
    weights = [1.0] * num_checkpoints if weights is None else weights
    if len(weights) != num_checkpoints:
        raise ValueError(f"{num_checkpoints} checkpoints need as many weights, found {len(weights)}")
    total = sum(weights)
    if any(not each >= 0 for each in weights) or not 0 < total < math.inf:
        raise ValueError(f"weights must be numbers from 0 with a sum above 0, found {' '.join(map(str, weights))}")
    return [each / total for each in weights]


# ---------------------------------------------------------------- what is read


class Checkpoint:
    """A checkpoint folder whose tensors are read one by one, from one file or several."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        """Args: opened: closes the files.

        Raises: ValueError if the folder holds no checkpoint in safetensors files.
        """
        self.folder = folder
        self.config = read_json(folder / "config.json")
        self._file_of: dict[str, Any] = {}
        names = [_WEIGHTS]
        if (folder / _INDEX).exists():
            names = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
        for name in names:
            try:
                file = opened.enter_context(safe_open(folder / name, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{folder / name} cannot be read: {error}") from error
            self._file_of |= dict.fromkeys(file.keys(), file)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in sorted(self._file_of.items())}

    def read(self, name: str) -> Tensor:
        """float32. Raises: ValueError if it is not finite, or holds no such numbers."""
        tensor: Tensor = self._file_of[name].get_tensor(name)
        if not tensor.is_floating_point():
            raise ValueError(f"{self.folder}: {name} is {tensor.dtype}, which has no mean")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{self.folder}: {name} holds NaN or infinity")
        return tensor.float()


def check_alike(first: Checkpoint, other: Checkpoint) -> None:
    """Raises: ValueError naming what differs in config, tokenizer or tensors."""
    meant = [{key: value for key, value in each.config.items() if key not in _MAY_DIFFER} for each in (first, other)]
    compared: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("config.json", meant[0], meant[1]),
        ("weights", first.shapes, other.shapes),
    ]
    for kind, left, right in compared:
        for key in sorted(left.keys() | right.keys()):
            if left.get(key) != right.get(key):
                raise ValueError(
                    f"{kind}: {key} is {left.get(key)} in {first.folder} and {right.get(key)} in {other.folder}"
                )
    for name in TOKENIZER_FILES:
        left_bytes, right_bytes = (_bytes(each.folder / name) for each in (first, other))
        if left_bytes != right_bytes:
            raise ValueError(f"{name} is not the same in {first.folder} and {other.folder}")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


# ---------------------------------------------------------------- what is written


def _copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    config = {key: value for key, value in checkpoint.config.items() if key != "torch_dtype"} | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _COPIED:
        if (checkpoint.folder / name).exists():
            shutil.copy(checkpoint.folder / name, folder / name)


def _write_mean(path: Path, checkpoints: Sequence[Checkpoint], shares: Sequence[float]) -> None:
    """A safetensors file, written here because the library's writer wants all tensors at once."""
    shapes = checkpoints[0].shapes
    with path.open("wb") as file:
        _write_header(file, shapes)
        for name in shapes:
            mean = sum(
                (share * checkpoint.read(name) for checkpoint, share in zip(checkpoints, shares, strict=True)),
                start=torch.zeros(()),
            )
            file.write(mean.contiguous().numpy().astype("<f4", copy=False).data)


def _write_header(file: BinaryIO, shapes: dict[str, tuple[int, ...]]) -> None:
    """Length of the header, eight bytes, and as JSON where each tensor lies behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)


if __name__ == "__main__":
    sys.exit(main())
