"""The default model ships as a GGUF: what was trained here can be trained on from that file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_checkpoint
from training_data import write_data

from converters.hf_to_gguf import convert
from gritdesk.grit_format import MARKERS
from training.config import ModelShape, TrainConfig
from training.model import load_model
from training.tokenizer import FrameTokenizer
from training.train import train

TEXTS = ("Once a lynx met an otter.", "  déjà vu\n\n\tif x:  # 12345", "日本 <|user|> </s>", "don't — 'tis")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig(
        data_dir=str(write_data(folder / "data")),
        output_dir=str(folder / "model"),
        max_steps=2,
        model=ModelShape(
            vocab_size=400, hidden_size=64, intermediate_size=96, num_layers=2, tied_head=True, embedding_dimension=32
        ),
        pairs={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=4,
        generation_tokens=200,
        passages="bidirectional_blocks",
        num_threads=1,
    )
    return train(config)


def gone_on_from(gguf: Path, folder: Path) -> Path:
    """A run's checkpoint at its first step, whose rates are zero."""
    config = TrainConfig(
        base_model=str(gguf),
        data_dir=str(write_data(folder / "data")),
        output_dir=str(folder / "again"),
        mode="generation",
        max_steps=1,
        muon_lr=0.0,
        embedding_lr=0.0,
        head_lr=0.0,
        text={"animals": 1.0},
        generation_tokens=100,
        passages="bidirectional_blocks",
        num_threads=1,
    )
    return train(config)


def test_training_goes_on_from_the_weights_and_tokens_of_a_gguf(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "model.gguf", "F32")
    again = gone_on_from(tmp_path / "model.gguf", tmp_path)
    before, after = load_model(checkpoint), load_model(again)
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name
    settings = [model.config.to_dict() | {"_name_or_path": ""} for model in (before, after)]
    assert settings[0] == settings[1]
    ours, theirs = FrameTokenizer.from_folder(checkpoint), FrameTokenizer.from_folder(again)
    assert [ours.tokenize(text) for text in TEXTS] == [theirs.tokenize(text) for text in TEXTS]
    assert [ours.control_id(each) for each in MARKERS] == [theirs.control_id(each) for each in MARKERS]
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_id, theirs.eos_id, theirs.pad_id)
    convert(again, tmp_path / "again.gguf", "F32")


def test_quantized_weights_are_read_back_to_within_their_rounding(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "model.gguf", "Q8_0")
    again = load_model(gone_on_from(tmp_path / "model.gguf", tmp_path)).state_dict()
    for name, weight in load_model(checkpoint).state_dict().items():
        if weight.ndim == 2:  # 127 steps to the largest value of a block, and the steps themselves are float16
            assert (weight - again[name]).abs().max() <= weight.abs().max() / 127 + 1e-5, name


def test_a_gguf_that_was_not_trained_here_is_refused_in_one_line(tmp_path: Path) -> None:
    convert(make_checkpoint(tmp_path / "qwen", "qwen3", tokenizer="bpe"), tmp_path / "qwen.gguf", "F32")
    with pytest.raises(ValueError, match="cannot train .*qwen.gguf on: expected a llama .*; name its checkpoint"):
        gone_on_from(tmp_path / "qwen.gguf", tmp_path)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ValueError, match="cannot train .*text.gguf on"):
        gone_on_from(tmp_path / "text.gguf", tmp_path / "other")
