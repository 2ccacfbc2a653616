"""What a run tells of itself: a log, TensorBoard's curves and a picture, each step in them once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_data import write_data

from training.config import ModelShape, TrainConfig
from training.distributed import Ranks
from training.progress import Progress, curves_path, cut_log, draw_curves, log_path, read_log, tensorboard_path
from training.steps import StepLosses
from training.train import train


def config_of(folder: Path, **changes: object) -> TrainConfig:
    config = TrainConfig(
        data_dir=str(folder / "data"),
        output_dir=str(folder / "model"),
        max_steps=6,
        log_every_steps=2,
        save_every_steps=3,
        model=ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=1, context_length=256),
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=8,
        generation_tokens=200,
        contrastive_temperature_start=0.06,
        warmup_steps=2,
        num_threads=1,
        precision="fp32",
    )
    return dataclasses.replace(config, **changes)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curves as TensorBoard shows them."""
    events = EventAccumulator(str(tensorboard_path(folder)))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags}


def told(folder: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["loss_emb"], row["loss_gen"]) for row in read_log(log_path(folder))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    write_data(folder / "data")
    return train(config_of(folder))


def test_run_leaves_the_same_curves_in_its_log_and_in_tensorboard_and_draws_them(trained: Path) -> None:
    rows = read_log(log_path(trained))
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        assert row["loss_ratio"] == pytest.approx(row["loss_emb"] / row["loss_gen"], rel=1e-5)
        assert row["tokens_per_s"] > 0 and row["memory_gb"] > 0
    assert rows[-1]["eta_min"] == 0
    curves = scalars(trained)
    assert set(curves) == {"loss/emb", "loss/gen", "loss/ratio", "lr_factor", "tokens_per_s", "memory_gb"}
    assert curves["loss/emb"] == [(row["step"], pytest.approx(row["loss_emb"])) for row in rows]
    assert curves_path(trained).read_bytes().startswith(b"\x89PNG")


def test_progress_line_says_how_far_how_good_how_fast_and_how_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(config_of(tmp_path, log_every_steps=1), tmp_path / "model", 0, Ranks()) as progress:
        progress.stepped(0, StepLosses(1.0, 4.0, 100), 0.5, {})
    line = capsys.readouterr().err
    for part in ("step 1/6", "loss_emb 1.0", "loss_gen 4.0", "loss_ratio 0.25", "lr_factor 0.5", "tokens_per_s", "eta"):
        assert part in line


def test_run_resumed_between_two_rows_of_its_log_has_each_step_once_and_the_same_means(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data")
    config = config_of(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("training.train.learning_rate_factor", stop_at(5))
        train(config)
    assert [row["step"] for row in read_log(log_path(tmp_path / "model"))] == [2, 4]  # saved at 3
    folder = train(config)
    assert told(folder) == told(trained)
    for tag in ("loss/emb", "loss/gen", "loss/ratio", "lr_factor"):
        assert scalars(folder)[tag] == scalars(trained)[tag]


def stop_at(last_step: int) -> object:
    from training.train import learning_rate_factor

    def factor(step: int, config: TrainConfig, *times: float) -> float:
        if step + 1 == last_step:
            raise KeyboardInterrupt
        return learning_rate_factor(step, config, *times)

    return factor


def test_run_of_one_mode_logs_and_draws_its_loss_alone(tmp_path: Path) -> None:
    with Progress(config_of(tmp_path, log_every_steps=1), tmp_path / "model", 0, Ranks()) as progress:
        progress.stepped(0, StepLosses(None, 4.0, 100), 1.0, {})
    (row,) = read_log(log_path(tmp_path / "model"))
    assert (row["loss_emb"], row["loss_gen"], row["loss_ratio"]) == (None, 4.0, None)
    assert set(scalars(tmp_path / "model")) == {"loss/gen", "lr_factor", "tokens_per_s", "memory_gb"}
    losses, *_ = draw_curves([row], "model").axes
    assert [line.get_label() for line in losses.lines] == ["next token, 4 at the end"]


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    class Second(Ranks):
        def sum(self, value: float) -> float:
            return value

    with Progress(config_of(tmp_path, log_every_steps=1), tmp_path / "model", 0, Second(1, 2)) as progress:
        progress.stepped(0, StepLosses(1.0, 4.0, 100), 1.0, {})
    assert list(tmp_path.iterdir()) == []


def test_log_that_a_kill_left_torn_or_doubled_is_read_once_a_step(tmp_path: Path) -> None:
    path = tmp_path / "model.log.jsonl"
    rows = [{"step": 2, "loss_emb": 3.0}, {"step": 4, "loss_emb": 2.0}, {"step": 4, "loss_emb": 1.5}, {"step": 6}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8, "loss')
    assert read_log(path) == [rows[0], rows[2], rows[3]]
    cut_log(path, 4)
    assert read_log(path) == [rows[0], rows[2]] and path.read_text().count("\n") == 2
