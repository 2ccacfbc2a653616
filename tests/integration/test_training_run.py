"""A run learns, is resumed on the same curve, and its folder converts to a GGUF that finds what it learned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_checkpoint
from training_data import write_data

from converters.hf_to_gguf import convert
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.llama import LlamaModel
from gritdesk.grit_format import embedding_frame, encode
from training import checkpoint
from training.attention import bidirectional_mask
from training.config import ModelShape, TrainConfig
from training.embedders import DecoderEmbedder
from training.examples import read_sources
from training.model import GritModel, hidden_states, load_grit_model, load_model
from training.steps import grit_step
from training.tokenizer import FrameTokenizer
from training.train import prepare, train


def small_config(tmp_path: Path, **changes: object) -> TrainConfig:
    data = tmp_path / "data"
    config = TrainConfig(
        data_dir=str(data if data.exists() else write_data(data)),
        output_dir=str(tmp_path / "model"),
        max_steps=40,
        model=ModelShape(vocab_size=400, hidden_size=256, intermediate_size=256, num_layers=2, context_length=256),
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=8,
        generation_tokens=200,
        contrastive_temperature_start=0.06,
        warmup_steps=5,
        muon_lr=0.002,
        embedding_lr=0.001,
        log_every_steps=5,
        save_every_steps=1000,
        num_threads=1,
    )
    return dataclasses.replace(config, **changes)


def losses_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in folder.with_name(folder.name + ".log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small_config(tmp_path_factory.mktemp("run")))


def test_both_losses_fall_on_data_learned_by_heart(trained: Path) -> None:
    log = losses_of(trained)
    assert log[-1]["loss_emb"] < 0.3 * log[0]["loss_emb"]
    assert log[-1]["loss_gen"] < 0.5 * log[0]["loss_gen"]


def test_tiny_data_is_learned_until_nothing_is_left_of_either_loss(tmp_path: Path) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=2, context_length=256)
    rates = {name: 0.01 for name in ("muon_lr", "embedding_lr", "head_lr")} | {"weight_decay": 0.0}
    config = small_config(tmp_path, model=shape, max_steps=90, text={}, contrastive_temperature_start=0.02, **rates)
    log = losses_of(train(config))
    assert log[-1]["loss_emb"] < 0.01 and log[-1]["loss_gen"] < 0.02


@pytest.mark.parametrize("mode", ["embedding", "generation"])
def test_each_mode_trains_what_it_uses_and_nothing_else(mode: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, mode=mode, max_steps=1, weight_decay=0.0, warmup_steps=0, decay_fraction=0.0)
    folder = Path(config.output_dir)
    prepare(folder, read_sources(config), dataclasses.replace(config, projection_dimension=16))
    before = load_grit_model(folder).state_dict()
    train(dataclasses.replace(config, projection_dimension=16, max_steps=5))
    after = load_grit_model(folder).state_dict()
    kept = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert kept == {"decoder.lm_head.weight" if mode == "embedding" else "projection.weight"}
    assert {row["loss_gen" if mode == "embedding" else "loss_emb"] for row in losses_of(folder)} == {None}


WITH_ALL = {
    "distillation_weight": 1.0,
    "projection_dimension": 32,
    "false_negative_margin": 0.1,
    "quantization_aware_steps": 7,
    "contrastive_backward": "cached",
}


@pytest.mark.parametrize("settings", [{}, WITH_ALL], ids=["plain", "with a teacher, heads and quantized steps"])
def test_stopped_run_continues_on_the_same_curve(
    settings: dict[str, object], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings:
        settings = {"teacher": str(tiny_checkpoint), **settings}
    whole = train(small_config(tmp_path, max_steps=10, output_dir=str(tmp_path / "whole"), **settings))

    def save_and_die(*arguments: object, **named: object) -> None:
        checkpoint.save(*arguments, **named)  # type: ignore[arg-type]
        if arguments[3] == 5:
            raise KeyboardInterrupt

    parts = small_config(tmp_path, max_steps=10, save_every_steps=5, output_dir=str(tmp_path / "parts"), **settings)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("training.train.checkpoint", SimpleNamespace(**vars(checkpoint) | {"save": save_and_die}))
        train(parts)
    train(parts)

    curves = [
        [(row["step"], row["loss_emb"], row["loss_gen"]) for row in losses_of(folder)]
        for folder in (whole, tmp_path / "parts")
    ]
    assert [step for step, _, _ in curves[0]] == [5, 10]
    assert curves[0] == [
        (step, pytest.approx(emb, abs=2e-3), pytest.approx(gen, abs=2e-3)) for step, emb, gen in curves[1]
    ]
    found, expected = (load_grit_model(folder).state_dict() for folder in (tmp_path / "parts", whole))
    assert ("projection.weight" in expected) is bool(settings)
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() < 1e-3, name


def test_run_whose_time_is_over_ends_with_a_checkpoint(tmp_path: Path) -> None:
    config = small_config(tmp_path, max_steps=1_000_000, max_seconds=1, log_every_steps=1)
    folder = train(config)
    rates = [row["lr_factor"] for row in losses_of(folder)]
    assert rates[-1] < 0.5 and len(rates) < config.max_steps
    assert torch.load(folder / checkpoint.STATE_FILE, weights_only=True)["step"] == len(rates)


# torch looks at the gradients of inputs while it traces, and warns of that itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
def test_compiled_layers_have_the_same_curve_and_the_checkpoint_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=1, context_length=256)
    # heads are watched, too, which a compiled layer must not leave out
    watched = {"repeated_text_share": 1.0, "pointing_weight": 1.0, "chat_share_start": 0.0, "chat_share_end": 0.0}
    config = small_config(tmp_path, model=shape, max_steps=3, log_every_steps=1, precision="fp32", **watched)
    plain = train(config)
    compile_forward, compiled = torch.compile, []

    def compile_without_kernels(forward: Any, **settings: Any) -> Any:
        compiled.append(forward)
        return compile_forward(forward, backend="aot_eager", **settings)  # traced all the same, a minute of g++ saved

    monkeypatch.setattr(torch, "compile", compile_without_kernels)
    folder = train(dataclasses.replace(config, output_dir=str(tmp_path / "compiled"), compile_layers=True))
    assert len(compiled) == 1
    for ours, theirs in zip(losses_of(folder), losses_of(plain), strict=True):
        assert ours["loss_emb"] == pytest.approx(theirs["loss_emb"], abs=1e-3)
        assert ours["loss_gen"] == pytest.approx(theirs["loss_gen"], abs=1e-3)
    assert load_file(folder / "model.safetensors").keys() == load_file(plain / "model.safetensors").keys()


def test_language_steps_leave_embeddings_as_they_are_and_learn_language(tmp_path: Path) -> None:
    shape = ModelShape(
        vocab_size=400, hidden_size=256, intermediate_size=256, num_layers=2, context_length=256, embedding_dimension=64
    )
    config = small_config(tmp_path, model=shape, max_steps=1, language_steps=1000, weight_decay=0.0, warmup_steps=0)
    folder = train(config)
    before = load_model(folder).model
    train(dataclasses.replace(config, max_steps=20))
    after = load_model(folder).model

    writers = [
        (before.embed_tokens.weight, after.embed_tokens.weight),
        (before.norm.weight, after.norm.weight),
    ]
    for old_block, new_block in zip(before.layers, after.layers, strict=True):
        writers.append((old_block.mlp.down_proj.weight.T, new_block.mlp.down_proj.weight.T))
        writers.append((old_block.self_attn.o_proj.weight.T, new_block.self_attn.o_proj.weight.T))
    for old, new in writers:
        assert torch.equal(old[..., :64], new[..., :64])
        assert not torch.equal(old[..., 64:], new[..., 64:])
    log = losses_of(folder)
    assert {row["loss_emb"] for row in log} == {None}
    assert log[-1]["loss_gen"] < log[0]["loss_gen"] - 0.5


def test_checkpoint_that_pools_part_of_its_dimensions_embeds_the_same_as_its_gguf(tmp_path: Path) -> None:
    shape = ModelShape(
        vocab_size=400, hidden_size=256, intermediate_size=256, num_layers=2, context_length=256, embedding_dimension=64
    )
    folder = train(small_config(tmp_path, model=shape, max_steps=15, static_steps=20, static_batch_size=8))
    model, tokenizer = GritModel(load_model(folder)).eval(), FrameTokenizer.from_folder(folder)
    inputs = [("", "The otter sleeps."), ("Find the animal", "A word about the badger and the otter")]
    expected = DecoderEmbedder(model, tokenizer).embed(inputs)
    convert(folder, tmp_path / "model.gguf", "F32")
    with LlamaModel(tmp_path / "model.gguf") as gguf:
        found = Embedder(gguf).embed(inputs)
    assert found.shape == expected.shape == (2, 64)
    assert (found * expected).sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-3)


def test_head_of_a_base_model_is_trained_further_or_its_loss_is_refused(tmp_path: Path) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=1)
    base = train(small_config(tmp_path, model=shape, max_steps=1, projection_dimension=8))
    further = {"base_model": str(base), "output_dir": str(tmp_path / "further"), "max_steps": 1}
    with pytest.raises(ValueError, match="has a projection head of 8 dimensions"):
        train(small_config(tmp_path, **further))
    folder = train(small_config(tmp_path, **further, projection_dimension=8, warmup_steps=10**6))
    heads = [load_grit_model(each).projection.weight for each in (base, folder)]
    assert (heads[0] - heads[1]).abs().max() < 1e-5


def test_gradient_that_is_not_finite_stops_the_run_before_a_weight_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, max_steps=3, save_every_steps=1)

    def spoiled(grit: GritModel, *arguments: object) -> object:
        losses = grit_step(grit, *arguments)  # type: ignore[arg-type]
        if grit.decoder.model.norm.weight.sum() != grit.decoder.config.hidden_size:  # a step was done
            grit.decoder.model.norm.weight.grad[0] = float("inf")
        return losses

    monkeypatch.setattr("training.train.grit_step", spoiled)
    with pytest.raises(ValueError, match="the gradient of step 2 is"):
        train(config)
    assert all(bool(weight.isfinite().all()) for weight in load_model(Path(config.output_dir)).parameters())


def test_window_smaller_than_a_row_of_several_sequences_is_refused(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "mistral", sliding_window=64)
    packed = {"pack_generation": True, "optimizer": "adamw", "base_model": str(base), "max_steps": 1}
    with pytest.raises(ValueError, match="a window of 64 tokens"):
        train(small_config(tmp_path, **packed))
    train(small_config(tmp_path, sequence_tokens=64, output_dir=str(tmp_path / "fits"), **packed))


def test_grit_checkpoint_trained_further_keeps_its_dimension(tmp_path: Path) -> None:
    shape = ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=1, embedding_dimension=16)
    base = train(small_config(tmp_path, model=shape, max_steps=1))
    further = train(small_config(tmp_path, base_model=str(base), max_steps=2, output_dir=str(tmp_path / "further")))
    assert load_grit_model(further).embedding_dimension == load_grit_model(base).embedding_dimension == 16


def test_save_killed_between_its_renames_loses_nothing(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained, folder.with_name("model.old"))
    checkpoint.recover(folder)
    assert (folder / checkpoint.STATE_FILE).exists() and load_model(folder)


def test_attention_of_the_trained_model_switches(trained: Path) -> None:
    model, tokenizer = load_model(trained).eval(), FrameTokenizer.from_folder(trained)
    ids = [encode(embedding_frame("", f"The otter met the {end}"), tokenizer, "special").ids for end in ("a", "b")]
    assert ids[0][:-1] == ids[1][:-1]
    mask = torch.ones(1, len(ids[0]), dtype=torch.long)
    with torch.no_grad():
        for causal, changed in ((True, False), (False, True)):
            first, second = (
                hidden_states(model, torch.tensor([each]), mask if causal else bidirectional_mask(mask, model.dtype))
                for each in ids
            )
            assert bool((first[0, 0] - second[0, 0]).abs().max() > 1e-4) is changed


@pytest.mark.parametrize("quantization_type", ["F32", "Q8_0"])
def test_trained_folder_converts_to_a_gguf_with_the_same_embeddings(
    trained: Path, tmp_path: Path, quantization_type: str
) -> None:
    out = tmp_path / "model.gguf"
    convert(trained, out, quantization_type)
    inputs = [("Find the answer", "Where does the heron live?"), ("", "The heron lives by the river."), ("", "Noon")]
    tokenizer = FrameTokenizer.from_folder(trained)
    expected = DecoderEmbedder(GritModel(load_model(trained)), tokenizer).embed(inputs)
    with LlamaModel(out) as model:
        found = Embedder(model).embed(inputs)
    # the trainer computes in bfloat16
    assert float((expected * found).sum(axis=1).min()) > 0.995
    assert np.argmax(found[1:] @ found[0]) == 0
