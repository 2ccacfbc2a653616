"""LoRA and QLoRA: small matrices beside a frozen model, and a checkpoint that looks as if there were none."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_checkpoint
from tiny_families import family_decoder
from training_data import write_data
from transformers import AutoModelForCausalLM, PreTrainedModel

from converters.hf_to_gguf import convert
from gritdesk.engine.llama import LlamaModel
from training import checkpoint
from training.adapters import add_adapters, load_adapted, merged_weights, plain_model, target_names
from training.config import TrainConfig, config_from_dict
from training.distributed import Ranks
from training.progress import log_path, read_log
from training.train import learning_rate_factor, train

FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen3Moe", "Gemma", "Gemma2", "Gemma3")
FUSED_EXPERTS = {"Mixtral", "Qwen3Moe"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a base model that drops attention, and data."""
    folder = tmp_path_factory.mktemp("adapters")
    write_data(folder / "data")
    make_checkpoint(folder / "base", "qwen3", num_hidden_layers=1, attention_dropout=0.1)
    return folder


def config_of(base: Path, output: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data_dir=str(base / "data"),
        base_model=str(base / "base"),
        output_dir=str(output),
        lora_rank=4,
        lora_alpha=8,
        optimizer="adamw",
        learning_rate=0.01,
        max_steps=6,
        warmup_steps=0,
        log_every_steps=1,
        save_every_steps=2,
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=8,
        generation_tokens=120,
        precision="fp32",
        num_threads=1,
    )
    return dataclasses.replace(config, **changes)


def tiny_model(family: str) -> PreTrainedModel:
    experts = {"moe_intermediate_size": 64} if family == "Qwen3Moe" else {}
    model = family_decoder(family, num_layers=2, **experts)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model


def adapted(model: PreTrainedModel, **changes: Any) -> PreTrainedModel:
    """The model with adapters that already do something."""
    config = TrainConfig(base_model="x", optimizer="adamw", lora_rank=4, lora_alpha=8, **changes)
    add_adapters(model, config)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(1, 20)[None]).logits
    return found


# ---------------------------------------------------------------- families


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_blocks_is_a_target_in_every_family(family: str) -> None:
    modules, parameters = target_names(tiny_model(family))
    of_a_block = {name.removeprefix("model.layers.1.").split(".")[-1] for name in modules if ".layers.1." in name}
    experts = {name.removeprefix("model.layers.1.") for name in parameters if ".layers.1." in name}
    assert len(modules) == 2 * len(of_a_block) and len(parameters) == 2 * len(experts)
    if family in FUSED_EXPERTS:
        assert (of_a_block, experts) == (ATTENTION, {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"})
    else:
        assert (of_a_block, experts) == (ATTENTION | {"gate_proj", "up_proj", "down_proj"}, set())


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_model_computes_what_the_one_with_adapters_does(family: str) -> None:
    base = tiny_model(family)
    names, before = set(base.state_dict()), logits(base)
    model = adapted(base)
    assert all(weight.requires_grad == (".lora_" in name) for name, weight in model.named_parameters())
    expected = logits(model)
    assert (expected - before).abs().max() > 0.01

    plain, weights = plain_model(model), merged_weights(model, model.state_dict())
    assert type(plain) is type(tiny_model(family)) and set(weights) == names
    found = tiny_model(family)
    found.load_state_dict(weights)
    assert (logits(found) - expected).abs().max() < 1e-5


def test_targets_can_be_named_and_unknown_ones_are_refused_with_those_there_are() -> None:
    model = tiny_model("Mixtral")
    assert target_names(model, ("v_proj",))[0] == [f"model.layers.{number}.self_attn.v_proj" for number in (0, 1)]
    assert len(target_names(model, ("v_proj", "down_proj"))[1]) == 2
    with pytest.raises(ValueError, match="no w1 in the blocks; there are down_proj, gate_up_proj, k_proj"):
        target_names(model, ("w1", "q_proj"))


# ---------------------------------------------------------------- runs


def test_checkpoint_of_a_lora_run_is_a_plain_model_that_loads_and_converts(base: Path, tmp_path: Path) -> None:
    folder = train(config_of(base, tmp_path / "model"))
    log = read_log(log_path(folder))
    assert log[-1]["loss_emb"] < log[0]["loss_emb"]

    before, after = (load_file(each / "model.safetensors") for each in (base / "base", folder))
    assert before.keys() == after.keys()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {f"{name}.weight" for name in target_names(AutoModelForCausalLM.from_pretrained(folder))[0]}

    model = load_adapted(config_of(base, folder))
    checkpoint.load_adapters(folder, model)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is type(plain) and plain.config.grit == model.config.grit
    assert (logits(plain) - logits(model.eval())).abs().max() < 1e-5
    convert(folder, tmp_path / "model.gguf", "F32")
    with LlamaModel(tmp_path / "model.gguf") as gguf:
        assert gguf.grit.markers


@pytest.mark.parametrize("quantized", [False, True], ids=["lora", "qlora"])
def test_resumed_run_of_adapters_has_the_same_curve_to_the_last_bit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantized: bool
) -> None:
    whole, parts = (
        config_of(base, tmp_path / name, quantized_base=quantized, projection_dimension=32)
        for name in ("whole", "parts")
    )
    train(whole)

    def stop(step: int, config: TrainConfig, *times: float) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate_factor(step, config, *times)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("training.train.learning_rate_factor", stop)
        train(parts)
    train(parts)

    folders = [Path(config.output_dir) for config in (whole, parts)]
    curves = [[(row["loss_emb"], row["loss_gen"]) for row in read_log(log_path(folder))] for folder in folders]
    assert len(curves[0]) == 6 and curves[0] == curves[1]
    states = [torch.load(folder / checkpoint.STATE_FILE, weights_only=True) for folder in folders]
    ours, theirs = (state["adapters"] | state["heads"] for state in states)
    assert ours.keys() == theirs.keys() and len(ours) == 14 + 1
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_qlora_holds_the_base_in_4_bits_and_saves_what_it_computes_with(base: Path, tmp_path: Path) -> None:
    config = config_of(base, tmp_path / "model", quantized_base=True, max_steps=2, lora_dropout=0.0)
    folder = train(config)
    model = load_adapted(config)
    checkpoint.load_adapters(folder, model)
    packed = model.model.layers[0].mlp.down_proj.base_layer.weight
    assert packed.dtype == torch.uint8 and packed.numel() == 256 * 256 // 2
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(plain.config, "quantization_config")
    assert {weight.dtype for weight in plain.parameters()} == {torch.float32}
    model.model.layers[0].self_attn.attention_dropout = 0.0
    expected = logits(model.train())  # evaluating, bitsandbytes computes in bfloat16 on some processors
    assert (logits(plain) - expected).abs().max() < 1e-5 * expected.abs().max()
    convert(folder, tmp_path / "model.gguf", "Q8_0")


def test_adapters_of_another_rank_are_not_continued(base: Path, tmp_path: Path) -> None:
    folder = train(config_of(base, tmp_path / "model", max_steps=1))
    for changes, named in (({"lora_rank": 8}, "lora_rank 4 -> 8"), ({"lora_targets": ("q_proj",)}, "lora_targets")):
        changed = config_of(base, folder, **changes)
        with pytest.raises(ValueError, match=f"cannot go on with {named}"):
            train(changed)
        with pytest.raises(ValueError, match="the run has other adapters than the recipe"):
            checkpoint.load_adapters(folder, load_adapted(changed))


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lora_rank": 4, "optimizer": "adamw"}, "lora_rank needs a base_model"),
        ({"lora_rank": 4, "base_model": "x", "optimizer": "muon"}, 'lora_rank needs optimizer = "adamw", found .muon.'),
        ({"quantized_base": True, "base_model": "x"}, "quantized_base needs a lora_rank"),
    ],
)
def test_recipe_whose_adapters_cannot_be_trained_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        config_from_dict(values, "recipe.toml")


def test_4_bits_are_refused_for_several_processes_and_for_fused_experts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(base, tmp_path / "model", quantized_base=True)
    with pytest.raises(ValueError, match="quantized_base is for models without experts"):
        add_adapters(tiny_model("Mixtral"), config)
    monkeypatch.setattr("training.train.Ranks.from_environment", lambda: Ranks(0, 2))
    with pytest.raises(ValueError, match="quantized_base is for one process, found 2"):
        train(config)


def test_missing_package_is_named_with_the_command_that_brings_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(ValueError, match=r"no package peft: run `pip install gritdesk\[lora\]`"):
        train(config_of(base, tmp_path / "model"))
