"""Two processes get what one gets: the same losses, and gradients of the same size, not their half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_data import write_data
from two_ranks import step

from gritdesk.grit_format import BOS
from training.config import ModelShape, TrainConfig
from training.data import tokenizer_sample
from training.distributed import Ranks
from training.examples import read_sources
from training.model import new_model
from training.progress import log_path, read_log
from training.tokenizer import FrameTokenizer, save_tokenizer, train_tokenizer
from training.train import main, train

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


def torchrun(*arguments: object) -> str:
    """What the two processes wrote to stderr."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


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


@pytest.fixture(scope="module")
def runs(checkpoint: Path) -> Path:
    """A folder with runs of two recipes, `muon` and `adamw`, each by one process and by two, and what these told.

    Muon's is begun by the two and continued by one. AdamW's the two continue themselves, with a head and optimizer
    state whose rows they cannot share evenly, and with dropped pairs; either time it ends on quantized weights.
    """
    pairs = [{"query": ["word " * 200 if n % 5 == 0 else "Find", f"q{n}"], "pos": [f"answer {n}"]} for n in range(40)]
    (checkpoint / "data" / "pairs" / "long.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    shape = "model = {vocab_size = 400, hidden_size = 64, intermediate_size = 64, num_layers = 2, context_length = 256}"
    common = f"{shape}\nlog_every_steps = 1\nsave_every_steps = 100\nmax_steps = 12"
    adamw = 'optimizer = "adamw"\nlearning_rate = 0.003\nquantization_aware_steps = 2'
    adamw += "\nprojection_dimension = 33\npairs.long = 3.0"
    recipes = {
        name: write_recipe(checkpoint, f"{common}\n{settings}", f"{name}.toml")
        for name, settings in (("muon", ""), ("adamw", adamw))
    }

    def arguments(name: str, ranks: str, steps: int) -> list[str]:
        return [str(recipes[name]), "--output", str(checkpoint / f"{name}-{ranks}"), "--max-steps", str(steps)]

    together = [("muon", 4), ("adamw", 4), ("adamw", 6)]
    told = torchrun(HERE / "two_rank_runs.py", *(json.dumps(arguments(name, "two", steps)) for name, steps in together))
    (checkpoint / "told.txt").write_text(told)
    for run in [("muon", "two", 6), *((name, "one", steps) for name in recipes for steps in (4, 6))]:
        assert main(arguments(*run)) == 0
    return checkpoint


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_run_of_two_ranks_has_the_curve_of_one(runs: Path, name: str) -> None:
    one, two = (
        [
            (row["step"], row["loss_emb"], row["loss_gen"], row["dropped"])
            for row in read_log(log_path(runs / f"{name}-{ranks}"))
        ]
        for ranks in ("one", "two")
    )
    assert [row[0] for row in two] == [1, 2, 3, 4, 5, 6]
    for ours, expected in zip(two, one, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)


def test_dropped_draws_are_told_once_at_the_end_of_a_run(runs: Path) -> None:
    told = [line for line in (runs / "told.txt").read_text().splitlines() if line.startswith("dropped")]
    num_dropped = [row["dropped"] for row in read_log(log_path(runs / "adamw-two")) if row["step"] in (4, 6)]
    assert all(num_dropped)
    assert told == [f"dropped {num} draws of long: instruction fills the length limit" for num in num_dropped]


def test_recipe_that_several_processes_cannot_run_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, embedding_dimension=32)
    config = TrainConfig(data_dir=str(tmp_path / "data"), output_dir=str(tmp_path / "model"), model=shape)
    monkeypatch.setattr("training.train.Ranks.from_environment", lambda: Ranks(0, 2))
    with pytest.raises(ValueError, match="pools 32 of its 64 dimensions is trained whole and by one process"):
        train(config)
    assert list(tmp_path.iterdir()) == []
