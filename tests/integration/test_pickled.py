"""Checkpoints that torch pickled: the same weights as torch reads, and no stranger's program run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from converters.checkpoint import Checkpoint
from converters.hf_to_gguf import convert


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def pickled(folder: Path, weights: dict[str, Any] | None = None, **options: Any) -> Path:
    """The folder with its weights as torch.save writes them, in place of safetensors."""
    safe = folder / "model.safetensors"
    torch.save(weights or load_file(safe), folder / "pytorch_model.bin", **options)
    safe.unlink(missing_ok=True)
    return folder


def test_pickled_checkpoint_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "safe.gguf", "F16")
    convert(pickled(folder), tmp_path / "pickled.gguf", "F16")
    assert (tmp_path / "pickled.gguf").read_bytes() == (tmp_path / "safe.gguf").read_bytes()


def test_shards_are_found_by_their_index(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "safe.gguf")
    weights = list(load_file(folder / "model.safetensors").items())
    halves = {"pytorch_model-1.bin": dict(weights[:9]), "pytorch_model-2.bin": dict(weights[9:])}
    for name, half in halves.items():
        torch.save(half, folder / name)
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, half in halves.items() for name in half}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    convert(folder, tmp_path / "pickled.gguf")
    assert (tmp_path / "pickled.gguf").read_bytes() == (tmp_path / "safe.gguf").read_bytes()
    (folder / "pytorch_model-2.bin").unlink()
    with pytest.raises(ValueError, match=r"has no pytorch_model-2\.bin; copy the checkpoint again"):
        convert(folder, tmp_path / "pickled.gguf")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_of_every_dtype_views_and_parameters_are_torchs(folder: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = {"whole": whole, "below": whole[2:], "parameter": torch.nn.Parameter(whole), "vector": whole[3]}
    checkpoint = Checkpoint.open(pickled(folder, weights))
    assert checkpoint.tensors.keys() == weights.keys()
    for name, expected in weights.items():
        assert np.array_equal(checkpoint.read(name), expected.detach().float().numpy()), name


class Stranger:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_program_in_a_pickle_is_refused_and_never_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled(folder, {"weight": Stranger()})
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin asks to run (posix|nt)\.system, which weights do not need"
    ):
        convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "ran").exists()


def cut(folder: Path) -> None:
    os.truncate(folder / "pytorch_model.bin", 100_000)


def transpose(folder: Path) -> None:
    torch.save({"a": torch.randn(3, 4).T}, folder / "pytorch_model.bin")


def keep_the_old_format(folder: Path) -> None:
    torch.save({"a": torch.ones(3)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def keep_no_weights(folder: Path) -> None:
    torch.save([1, 2], folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "is damaged or of an old format; copy it again"),
        (transpose, "tensor a does not lie there in one piece; save it again as safetensors"),
        (keep_the_old_format, "or save it as safetensors"),
        (keep_no_weights, "is damaged or of an old format"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(folder: Path, damage: Any, reason: str) -> None:
    damage(pickled(folder))
    with pytest.raises(ValueError, match=reason) as refusal:
        Checkpoint.open(folder)
    assert "\n" not in str(refusal.value)


def test_torch_is_not_needed(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from converters.hf_to_gguf import convert; from pathlib import Path;"
    )
    code += "convert(Path(sys.argv[1]), Path(sys.argv[2]))"
    arguments = [sys.executable, "-c", code, str(pickled(folder)), str(tmp_path / "out.gguf")]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "out.gguf").exists()
