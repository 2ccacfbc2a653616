"""Quantized files beside those of llama.cpp's quantizer: the same type and the same bytes for every tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import reference_quantizer
from gguf import GGMLQuantizationType
from tiny import make_checkpoint, make_encoder

from converters.hf_to_gguf import convert, convert_all
from converters.quantize import FILE_TYPES, Quantization, file_type

MIXTURES = tuple(name for name in FILE_TYPES if name not in ("F32", "F16", "BF16"))
SMALL = {"intermediate_size": 256, "max_position_embeddings": 128}

MODELS: dict[str, dict[str, Any]] = {
    "four heads share a key": {"family": "llama", "num_hidden_layers": 16, "num_key_value_heads": 1},
    "tied": {"family": "qwen3", "num_hidden_layers": 2, "tie_word_embeddings": True},
    "eight experts": {"family": "mixtral", "num_hidden_layers": 2, "num_local_experts": 8},
    "four experts": {"family": "mixtral", "num_hidden_layers": 1, "num_local_experts": 4},
    "one matrix of queries, keys and values": {"family": "phi3", "num_hidden_layers": 3},
    "rows that fill small blocks": {"family": "llama", "hidden_size": 288, "intermediate_size": 320},
    "rows that fill no block": {"family": "llama", "hidden_size": 48, "intermediate_size": 80},
}


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    return {each.name: (each.tensor_type.name, each.data.tobytes()) for each in gguf.GGUFReader(path).tensors}


def assert_as_llama_cpp(checkpoint: Path, folder: Path, names: tuple[str, ...], **extra: Any) -> None:
    """Convert to each type in one reading; compare with llama.cpp's work on the unquantized file."""
    importance, overrides = extra.get("importance", {}), extra.get("overrides", ())
    convert(checkpoint, folder / "F32.gguf", "F32")
    ours = {name: folder / f"{name}.ours.gguf" for name in names}
    theirs = {name: folder / f"{name}.theirs.gguf" for name in names}
    convert_all(checkpoint, {path: Quantization(name, overrides, importance) for name, path in ours.items()})
    numbers = [(pattern, int(GGMLQuantizationType[kind])) for pattern, kind in overrides]
    reference_quantizer.quantize(
        folder / "F32.gguf", {theirs[name]: file_type(name) for name in names}, importance, numbers
    )
    for name in names:
        found, expected = tensors(ours[name]), tensors(theirs[name])
        assert {key: kind for key, (kind, _) in found.items()} == {key: kind for key, (kind, _) in expected.items()}, (
            name
        )
        assert found == expected, name


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_mixture_is_llama_cpps_byte_for_byte(tmp_path: Path, model: dict[str, Any]) -> None:
    sizes = SMALL | model
    sizes["grit"] = {"dimension": sizes.get("hidden_size", 256), "markers": "special"}
    assert_as_llama_cpp(make_checkpoint(tmp_path / "checkpoint", **sizes), tmp_path, MIXTURES)


def test_an_encoder_is_quantized_as_llama_cpp_does(tmp_path: Path) -> None:
    assert_as_llama_cpp(make_encoder(tmp_path / "checkpoint", "bert"), tmp_path, MIXTURES)


def test_seventy_billion_parameters_are_known_by_their_layers(tmp_path: Path) -> None:
    sizes = SMALL | {"num_hidden_layers": 80, "head_dim": 16}
    assert_as_llama_cpp(make_checkpoint(tmp_path / "checkpoint", **sizes), tmp_path, ("Q3_K_S",))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_weighed_columns_give_llama_cpps_bytes(tmp_path: Path, family: Any) -> None:
    sizes = {"num_local_experts": 4, "num_hidden_layers": 1} if family == "mixtral" else {"num_hidden_layers": 8}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", family, **SMALL, **sizes)
    convert(checkpoint, tmp_path / "shapes.gguf", "F32")
    random = np.random.default_rng(0)
    importance = {}
    for tensor in gguf.GGUFReader(tmp_path / "shapes.gguf").tensors:
        columns, _, *num_experts = (int(size) for size in tensor.shape) if len(tensor.shape) > 1 else (0, 0)
        if columns and not tensor.name.startswith("token_embd") and "ffn_gate_inp" not in tensor.name:
            importance[tensor.name] = random.gamma(0.5, size=(*num_experts, columns)).astype(np.float32)
    assert_as_llama_cpp(
        checkpoint, tmp_path, ("Q4_K_M", "Q2_K", "IQ4_XS", "IQ4_NL", "Q5_0", "Q4_0"), importance=importance
    )


def test_overrides_give_llama_cpps_bytes(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **SMALL)
    overrides = ((r"blk\.1\.ffn_down", "Q8_0"), ("ffn_down", "Q3_K"), ("output.weight", "Q4_0"))
    assert_as_llama_cpp(checkpoint, tmp_path, ("Q4_K_M", "Q6_K"), overrides=overrides)
    kinds = {name: kind for name, (kind, _) in tensors(tmp_path / "Q6_K.ours.gguf").items()}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.1.ffn_down.weight"]) == ("Q3_K", "Q8_0")
    assert kinds["blk.0.attn_output.weight"] == "Q4_0", "a pattern is looked for anywhere in a name"
