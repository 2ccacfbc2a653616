"""An adapter converted with its base is what peft's own merge gives; what is not computed here is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file
from tiny import make_checkpoint, make_encoder

from converters.adapter import MergedCheckpoint, open_checkpoint
from converters.checkpoint import Checkpoint
from converters.hf_to_gguf import convert

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),  # tells that it saves embeddings, which is meant here
]

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES: dict[str, dict[str, Any]] = {
    "queries and values": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "all matrices, scaled by the root of the rank": {"r": 16, "lora_alpha": 8, "use_rslora": True},
    "magnitudes of their own": {"r": 4, "lora_alpha": 12, "use_dora": True},
    "ranks and scales by layer": {
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 5},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 7, r"layers\.0\.mlp\..*": 3},
    },
    "whole copies of embeddings and head": {
        "r": 4,
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens", "lm_head"],
    },
    "embeddings": {"r": 4, "lora_alpha": 9, "target_modules": ["embed_tokens", "lm_head", "k_proj"]},
    "biases, trained and added": {"r": 4, "target_modules": ["q_proj", "o_proj"], "bias": "all"},
    "biases of the adapter": {"r": 4, "lora_alpha": 9, "target_modules": ["q_proj", "o_proj"], "lora_bias": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "base", attention_bias=True, shard_size="1MB")


def save_adapter(base: Path, folder: Path, kind: str = "AutoModelForCausalLM", **settings: Any) -> dict[str, Any]:
    """Save an adapter as after a training. Returns: the weights of the model that peft merges it into, float32."""
    import peft
    import torch
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, kind).from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": ALL_LINEAR} | settings))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "magnitude" in name:
                weight *= 1 + 0.2 * torch.rand_like(weight)
            elif weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload()
    return {name: weight.numpy() for name, weight in merged.state_dict().items()}


def assert_same_weights(found: Checkpoint, expected: dict[str, Any]) -> None:
    assert found.tensors.keys() == expected.keys()
    for name in found.tensors:
        np.testing.assert_allclose(found.read(name), expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_pefts_own_merge(base: Path, tmp_path: Path, case: str) -> None:
    expected = save_adapter(base, tmp_path / "adapter", **CASES[case])
    found = open_checkpoint(tmp_path / "adapter")
    assert_same_weights(found, expected)
    plain = Checkpoint.open(base)
    changed = {name for name in plain.tensors if np.abs(found.read(name) - plain.read(name)).max() > 1e-3}
    assert changed, "an adapter that changes nothing would prove nothing"


def test_encoders_adapter_is_merged_too(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "encoder")
    expected = save_adapter(encoder, tmp_path / "adapter", "AutoModel", r=4, target_modules=["query", "value", "dense"])
    assert_same_weights(open_checkpoint(tmp_path / "adapter"), expected)
    convert(tmp_path / "adapter", tmp_path / "out.gguf", "F32")
    assert gguf.GGUFReader(tmp_path / "out.gguf").fields["grit.jobs"].contents() == "embedding"


def test_file_of_an_adapter_is_that_of_the_merged_checkpoint_and_passes_verification(
    base: Path, tmp_path: Path
) -> None:
    from converters.checkpoint_reader import CheckpointReader
    from converters.comparison import compare
    from converters.gguf_reader import GgufReader

    expected = save_adapter(base, tmp_path / "adapter", r=4, lora_alpha=12, use_dora=True)
    lines: list[str] = []
    convert(tmp_path / "adapter", tmp_path / "out.gguf", "F32", say=lines.append)
    assert lines[0] == f"an adapter of 14 weights, merged into its base {base}"
    merged = shutil.copytree(base, tmp_path / "merged", ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file(expected, merged / "model.safetensors")
    convert(merged, tmp_path / "merged.gguf", "F32")
    one, other = (gguf.GGUFReader(tmp_path / name) for name in ("out.gguf", "merged.gguf"))
    assert one.fields["general.name"].contents() == "adapter"
    for found, wanted in zip(one.tensors, other.tensors, strict=True):
        assert found.name == wanted.name
        np.testing.assert_allclose(found.data, wanted.data, rtol=0, atol=1e-6, err_msg=found.name)
    texts = ["How deep is the water under the bridge?", "The ferry leaves at noon."]
    assert compare(GgufReader(tmp_path / "out.gguf"), CheckpointReader(tmp_path / "adapter"), texts).ok
    assert not compare(GgufReader(tmp_path / "out.gguf"), CheckpointReader(base), texts).ok


def test_base_is_where_the_adapter_says_or_a_person(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(base, tmp_path / "adapter", r=4)
    beside = shutil.copytree(base, tmp_path / "beside")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, beside)
    moved = shutil.copytree(base, tmp_path / "moved")
    change_settings(tmp_path / "adapter", base_model_name_or_path="../moved")
    change_settings(beside, base_model_name_or_path="mill/gone")
    for folder, wanted in ((tmp_path / "adapter", tmp_path / "adapter" / "../moved"), (beside, beside)):
        found = open_checkpoint(folder)
        assert found.folder == wanted
        assert_same_weights(found, expected)
    change_settings(tmp_path / "adapter", base_model_name_or_path="mill/gone")
    assert open_checkpoint(tmp_path / "adapter", moved).folder == moved
    with pytest.raises(ValueError, match="is an adapter whose base 'mill/gone' is no folder here; .*--base"):
        open_checkpoint(tmp_path / "adapter")
    with pytest.raises(ValueError, match="so it is no adapter that has a base; leave --base out"):
        open_checkpoint(base, moved)


def test_tokenizer_is_the_adapters_where_it_has_one(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", r=4)
    assert open_checkpoint(tmp_path / "adapter").tokenizer_folder == base
    shutil.copy(base / "tokenizer.json", tmp_path / "adapter")
    assert open_checkpoint(tmp_path / "adapter").tokenizer_folder == tmp_path / "adapter"


def test_pickled_adapter_is_the_same_one(adapter: Path, base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    torch.save(load_torch_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    found, expected = (open_checkpoint(each, base) for each in (folder, adapter))
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_array_equal(found.read(name), expected.read(name))


def test_vocabulary_that_grew_has_the_adapters_rows(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", r=4, modules_to_save=["embed_tokens", "lm_head"])
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, weight in weights.items():
        if weight.shape[0] == 600:
            weights[name] = np.concatenate([weight, np.ones((8, 256), np.float32)])
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors")
    found = open_checkpoint(tmp_path / "adapter")
    assert found.config["vocab_size"] == 608 and found.read("lm_head.weight").shape == (608, 256)
    convert(tmp_path / "adapter", tmp_path / "out.gguf", "Q8_0")


def change_settings(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors")


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (lambda folder: change_settings(folder, peft_type="IA3"), "of the kind IA3 .* only LORA"),
    "another formula": (lambda folder: change_settings(folder, use_qalora=True), "use_qalora is set"),
    "weights the other way round": (lambda folder: change_settings(folder, fan_in_fan_out=True), "fan_in_fan_out"),
    "a base that was changed": (lambda folder: change_settings(folder, init_lora_weights="pissa"), "changes the base"),
    "no scale": (lambda folder: change_settings(folder, lora_alpha=None), "lora_alpha of .* must be positive, found"),
    "another rank": (lambda folder: change_settings(folder, r=5), "is of rank 4, adapter_config.json says 5"),
    "magnitudes that are not there": (lambda folder: change_settings(folder, use_dora=True), "lacks its magnitude"),
    "half a pair": (
        lambda folder: change_weights(folder, lambda weights: weights.pop(f"{Q_PROJ}.lora_B.weight")),
        "q_proj lacks its b; copy the adapter again",
    ),
    "an unknown tensor": (
        lambda folder: change_weights(folder, lambda weights: weights.update({f"{Q_PROJ}.lora_C": np.ones(3)})),
        "lora_C is not known in an adapter",
    ),
    "another base": (
        lambda folder: change_weights(
            folder, lambda weights: weights.update({f"{Q_PROJ}.lora_B.weight": np.ones((128, 4), np.float32)})
        ),
        r"q_proj of the base has shape \[256, 256\], the adapter's is \[128, 256\]; is it the adapter's base",
    ),
    "a pattern that is none": (lambda folder: change_settings(folder, rank_pattern={"(": 2}), "a pattern of ranks"),
    "a tensor of three dimensions": (
        lambda folder: change_weights(
            folder, lambda weights: weights.update({f"{Q_PROJ}.lora_B.weight": np.ones((4, 64, 4), np.float32)})
        ),
        r"the adapter's is \[4, 64, 256\]",
    ),
    "a layer that is not there": (
        lambda folder: change_weights(
            folder, lambda weights: weights.update({Q_PROJ.replace("layers.0", "layers.9") + ".bias": np.ones(3)})
        ),
        "changes model.layers.9.self_attn.q_proj.bias, which the base .* does not have",
    ),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
}


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    save_adapter(base, folder, r=4)
    return folder


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_is_not_computed_here_is_refused_in_one_line(adapter: Path, tmp_path: Path, reason: str) -> None:
    change, message = REFUSALS[reason]
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    change(folder)
    with pytest.raises(ValueError, match=message) as raised:
        convert(folder, tmp_path / "out.gguf")
    assert "\n" not in str(raised.value) and not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("settings", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["embed_tokens"]}])
def test_embeddings_that_are_the_output_matrix_too_are_not_pulled_apart(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    tied = make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    save_adapter(tied, tmp_path / "adapter", r=4, **settings)
    with pytest.raises(ValueError, match="output matrix too|lm_head.weight, which the base .* does not have"):
        open_checkpoint(tmp_path / "adapter")


def test_no_more_than_one_weight_is_read_at_a_time(adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_checkpoint(adapter)
    assert isinstance(found, MergedCheckpoint) and len(found.modules) == 14
    read: list[str] = []
    plain_read = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: read.append(name) or plain_read(self, name))
    found.read("model.layers.0.self_attn.q_proj.weight")
    assert read == ["model.layers.0.self_attn.q_proj.weight", f"{Q_PROJ}.lora_A.weight", f"{Q_PROJ}.lora_B.weight"]
