"""A run that is killed at any moment: its folder is a checkpoint or not there, and the same command ends as if nothing
had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_checkpoint
from training_data import write_data

from training import checkpoint
from training.model import PROJECTION_FILE
from training.progress import log_path, read_log

pytestmark = pytest.mark.timeout(300)  # a score of starts, each of which a busy machine makes longer

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(HERE.parents[1]),
}
NUM_STEPS = 8


def write_recipe(folder: Path) -> Path:
    """With all that a run can hold: dropout, draws of empty rows, two optimizers, GradCache, a head, kept copies."""
    base = make_checkpoint(
        folder / "base", hidden_size=64, intermediate_size=64, num_hidden_layers=1, attention_dropout=0.1
    )
    data = write_data(folder / "data")
    for kind, empty in (("pairs", {"query": "", "pos": [""]}), ("text", {"text": " "})):
        with (data / kind / "animals.jsonl").open("a") as rows:
            rows.write((json.dumps(empty) + "\n") * 12)
    path = folder / "recipe.toml"
    path.write_text(
        f"""
        data_dir = {json.dumps(str(data))}
        base_model = {json.dumps(str(base))}
        max_steps = {NUM_STEPS}
        log_every_steps = 3
        save_every_steps = 2
        keep_every_steps = 4
        projection_dimension = 32
        embedding_batch_size = 8
        generation_tokens = 120
        passage_tokens = [24, 32]
        contrastive_backward = "cached"
        micro_batch_tokens = 128
        precision = "fp32"
        num_threads = 1
        pairs.animals = 1.0
        chat.animals = 1.0
        text.animals = 1.0
        """
    )
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, a run without a kill and one that was killed at many places."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(HERE / "killed_runs.py"), str(write_recipe(folder)), str(folder), "6"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 12
    return folder


def assert_same_run(found: Path, expected: Path) -> None:
    """To the last bit: losses, weights, optimizers."""

    def losses(folder: Path) -> list[tuple[float, ...]]:
        return [(row["step"], row["loss_emb"], row["loss_gen"]) for row in read_log(log_path(folder))]

    assert [step for step, _, _ in losses(expected)] == [3, 6, NUM_STEPS]
    assert losses(found) == losses(expected)
    assert len(log_path(found).read_text().splitlines()) == 3
    for ending in ("", "-step-4"):
        for file in ("model.safetensors", PROJECTION_FILE):
            folders = (each.with_name(each.name + ending) for each in (found, expected))
            weights, expected_weights = (load_file(folder / file) for folder in folders)
            assert weights.keys() == expected_weights.keys()
            for name, weight in weights.items():
                assert torch.equal(weight, expected_weights[name]), name
    states = [torch.load(folder / checkpoint.STATE_FILE, weights_only=True) for folder in (found, expected)]
    for ours, theirs in zip(*(state["optimizers"] for state in states), strict=True):
        assert ours["state"].keys() == theirs["state"].keys()
        for number, values in ours["state"].items():
            for name, value in values.items():
                assert torch.equal(value, theirs["state"][number][name])


def test_run_killed_at_each_change_of_a_file_ends_as_if_nothing_had_been(runs: Path) -> None:
    assert_same_run(runs / "killed", runs / "whole")
    endings = ("", "-step-4", "-step-8", ".log.jsonl", ".tensorboard", ".curves.png")
    names = {f"killed{ending}" for ending in endings}
    assert {path.name for path in runs.iterdir() if path.name.startswith("killed")} == names


def test_run_killed_from_outside_while_it_saves_ends_as_if_nothing_had_been(runs: Path) -> None:
    folder = runs / "outside"
    command = [sys.executable, "-m", "training.train", str(runs / "recipe.toml"), "--output", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        while process.poll() is None and not (read_log(log_path(folder)) and folder.with_name("outside.new").exists()):
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it was at its end before it was seen to save"
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(folder, runs / "whole")


def test_folder_that_holds_no_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    from training.train import main

    recipe = write_recipe(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert main([str(recipe), "--output", str(tmp_path / "mine")]) == 1
    assert main([str(recipe), "--output", str(tmp_path / "base")]) == 1
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert (tmp_path / "base" / "model.safetensors").exists()
