"""A recipe that was changed since its run began: the run goes on and says how, or is left as it is with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import write_data

from training import checkpoint
from training.train import main

RECIPE: dict[str, Any] = {
    "max_steps": 2,
    "embedding_batch_size": 6,
    "generation_tokens": 60,
    "warmup_steps": 0,
    "log_every_steps": 1,
    "num_threads": 1,
    "precision": "fp32",
    "projection_dimension": 32,
    "model": {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 64, "num_layers": 1, "context_length": 256},
    **{kind: {"animals": 1.0} for kind in ("pairs", "chat", "text")},
}


def run(folder: Path, **changes: Any) -> int:
    """Exit status of the run of FOLDER/model by the recipe with changes; a setting of None is left out."""
    values = {key: value for key, value in (RECIPE | changes).items() if value is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for table, settings in values.items():
        if isinstance(settings, dict):
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    (folder / "recipe.toml").write_text("\n".join(lines))
    return main([str(folder / "recipe.toml"), "--data", str(folder / "data"), "--output", str(folder / "model")])


def state(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "model" / checkpoint.STATE_FILE, weights_only=True))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    write_data(folder / "data")
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attention": "causal"}, 'attention "bidirectional" -> "causal"'),
        ({"pooling": "last_token"}, 'pooling "mean" -> "last_token"'),
        ({"projection_dimension": 16}, "projection_dimension 32 -> 16"),
        ({"projection_dimension": None}, "projection_dimension 32 -> 0"),
        ({"optimizer": "adamw"}, 'optimizer "muon" -> "adamw"'),
    ],
)
def test_run_does_not_go_on_as_another(
    begun: Path, change: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (begun / "model" / "training_config.json").read_bytes()
    assert run(begun, max_steps=3, **change) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"model cannot go on with {named}: name another output" in told
    assert state(begun)["step"] == 2 and (begun / "model" / "training_config.json").read_bytes() == before


def test_run_goes_on_with_other_rates_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data")
    assert run(tmp_path, muon_lr=0.003) == 0
    assert state(tmp_path)["optimizers"][0]["param_groups"][0]["initial_lr"] == 0.003
    capsys.readouterr()
    changed = {"muon_lr": 0.001, "muon_weight_decay": 0.3, "weight_decay": 0.5, "pairs": {"animals": 2}}
    assert run(tmp_path, max_steps=3, **changed) == 0
    named = "muon_lr 0.003 -> 0.001, muon_weight_decay 0.01 -> 0.3, pairs.animals 1.0 -> 2.0, weight_decay 0.01 -> 0.5"
    assert capsys.readouterr().err.splitlines()[0] == f"the run goes on with other settings: {named}"
    assert state(tmp_path)["step"] == 3
    (muon,), adamw = (optimizer["param_groups"] for optimizer in state(tmp_path)["optimizers"])
    assert (muon["initial_lr"], muon["weight_decay"]) == (0.001, 0.3)
    assert {group["weight_decay"] for group in adamw} == {0.5}
    assert json.loads((tmp_path / "model" / "training_config.json").read_text())["muon_lr"] == 0.001


def test_run_goes_on_in_silence_with_what_no_number_depends_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(begun, contrastive_backward="cached", micro_batch_tokens=64, save_every_steps=7) == 0
    assert "other settings" not in capsys.readouterr().err


def test_base_model_without_so_many_dimensions_is_told_before_anything_is_made(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "data")
    changes = {"base_model": str(tiny_checkpoint), "model": None, "projection_dimension": None}
    assert run(tmp_path, matryoshka_dimensions=[64, 999], **changes) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "matryoshka_dimensions must be below the embedding's dimension" in told and "found 64, 999" in told
    assert not list(tmp_path.glob("model*"))


def test_mode_without_its_files_is_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, pairs=None) == 1
    assert "in a table [pairs]" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
