"""Two processes get what one gets: the same losses, and gradients of the same size, not their half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import write_data
from two_ranks import step

from gritdesk.grit_format import BOS
from training.config import ModelShape, TrainConfig, read_recipe
from training.data import tokenizer_sample
from training.distributed import Ranks
from training.examples import read_sources
from training.model import new_model
from training.tokenizer import FrameTokenizer, save_tokenizer, train_tokenizer
from training.train import train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    names = {"animals": 1.0}
    config = TrainConfig(data_dir=str(write_data(folder / "data")), pairs=names, chat=names, text=names)
    tokenizer = train_tokenizer(tokenizer_sample(read_sources(config), 1, 1), 400)
    save_tokenizer(tokenizer, folder / "model", 256)
    framed = FrameTokenizer(tokenizer)
    torch.manual_seed(0)
    shape = ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=2, context_length=256)
    model = new_model(shape, framed.control_id(BOS), framed.eos_id, framed.pad_id)
    for weight in model.parameters():  # what starts at zero would hide what flows through it
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder / "model")
    return folder


def write_recipe(folder: Path, settings: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(
        f"""
        data_dir = {json.dumps(str(folder / "data"))}
        embedding_batch_size = 8
        generation_tokens = 0
        generation_sequences = 16
        micro_batch_tokens = 60
        precision = "fp32"
        num_threads = 1
        {settings}
        pairs.animals = 1.0
        chat.animals = 1.0
        text.animals = 1.0
        """
    )
    return path


def torchrun(*arguments: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stderr[-3000:]


SETTINGS = [
    'contrastive_backward = "cached"\ngeneration_averaging = "sample"\nmatryoshka_dimensions = [16]',
    'contrastive_backward = "split"\ngeneration_averaging = "mixed"\nmixed_group_size = 4\nloss_emb_weight = 0.7',
]


def test_two_ranks_have_the_losses_and_gradients_of_one(checkpoint: Path) -> None:
    recipes = [write_recipe(checkpoint, settings, f"{n}.toml") for n, settings in enumerate(SETTINGS)]
    torchrun(HERE / "two_ranks.py", checkpoint / "model", checkpoint / "two.pt", 0.0, *recipes)
    for recipe, two in zip(recipes, torch.load(checkpoint / "two.pt"), strict=True):
        one = step(recipe, checkpoint / "model", Ranks())
        assert (one["size"], two["size"]) == (1, 2)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
        for name, expected in one["gradients"].items():
            assert (two["gradients"][name] - expected).norm() <= 1e-4 * expected.norm() + 1e-9, name


def test_two_ranks_that_drop_out_have_the_same_gradients_however_much_they_hold(checkpoint: Path) -> None:
    every = [f'mode = "embedding"\ncontrastive_backward = "{backward}"' for backward in ("whole", "cached", "split")]
    recipes = [write_recipe(checkpoint, settings, f"{n}.toml") for n, settings in enumerate(every)]
    torchrun(HERE / "two_ranks.py", checkpoint / "model", checkpoint / "drop.pt", 0.3, *recipes)
    whole, *others = torch.load(checkpoint / "drop.pt")
    exact = step(recipes[0], checkpoint / "model", Ranks())
    assert abs(whole["losses"][0] - exact["losses"][0]) > 1e-4  # something was dropped
    for other in others:
        assert other["losses"][0] == pytest.approx(whole["losses"][0], rel=1e-5)
        for name, expected in whole["gradients"].items():
            if expected is not None:
                assert (other["gradients"][name] - expected).norm() <= 1e-5 * expected.norm() + 1e-9, name


def test_run_of_two_ranks_has_the_curve_of_one_which_continues_it(checkpoint: Path) -> None:
    shape = "model = {vocab_size = 400, hidden_size = 64, intermediate_size = 64, num_layers = 2, context_length = 256}"
    recipe = write_recipe(checkpoint, f"{shape}\nlog_every_steps = 2\nsave_every_steps = 100\nmax_steps = 12")

    def losses(folder: Path) -> list[Any]:
        rows = [json.loads(line) for line in folder.with_name(folder.name + ".log.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss_emb"], row["loss_gen"]) for row in rows]

    alone, together = checkpoint / "alone", checkpoint / "together"
    for folder, steps in ((alone, 4), (together, 4), (alone, 6), (together, 6)):
        if (folder, steps) == (together, 4):
            torchrun("-m", "training.train", recipe, "--output", folder, "--max-steps", steps)
        else:
            train(read_recipe(recipe, output_dir=str(folder), max_steps=steps))
    assert [number for number, _, _ in losses(together)] == [2, 4, 6]
    for ours, expected in zip(losses(together), losses(alone), strict=True):
        assert ours == pytest.approx(expected, rel=2e-3)


def test_recipe_that_several_processes_cannot_run_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, embedding_dimension=32)
    config = TrainConfig(data_dir=str(tmp_path / "data"), output_dir=str(tmp_path / "model"), model=shape)
    monkeypatch.setattr("training.train.Ranks.from_environment", lambda: Ranks(0, 2))
    with pytest.raises(ValueError, match="pools 32 of its 64 dimensions is trained whole and by one process"):
        train(config)
    assert list(tmp_path.iterdir()) == []
