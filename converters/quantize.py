"""Which quantization type each tensor gets, and who computes it.

A file's type is a mixture: llama.cpp keeps some tensors in more bits than the name says, by rules that are written
down here again, so that weights can be quantized one by one. Tests compare the outcome with llama.cpp's quantizer,
type by type and byte by byte. F32, F16 and BF16 are computed in numpy, blocks by ggml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, quants
from numpy.typing import NDArray

from converters import ggml
from converters.architectures.base import Fields, TensorSpec
from converters.checkpoint import Array

Importance = dict[str, NDArray[np.float32]]
"""Tensor of the GGUF -> float32[columns], or [experts, columns]: what an error in a column weighs."""

FILE_TYPES = {
    **{name: name for name in ("F32", "F16", "BF16", "Q8_0", "Q6_K")},
    **{"Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K", "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K"},
    **{"Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_S": "Q3_K", "Q2_K": "Q2_K"},
    **{name: name for name in ("IQ4_XS", "IQ4_NL", "Q5_1", "Q5_0", "Q4_1", "Q4_0")},
}
"""Type of a file -> type that most of its tensors have."""

TENSOR_TYPES = tuple(dict.fromkeys(FILE_TYPES.values()))

_FLOATS = ("F32", "F16", "BF16")
_UNWEIGHED = (*_FLOATS, "Q8_0")
"""Types that importance does not change: ggml rounds each value of Q8_0 to the nearest."""
_KEPT_WHOLE = ("ffn_gate_inp.weight", "position_embd.weight", "token_types.weight")
_ROLES = ("attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
_FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}


@dataclass(frozen=True)
class Quantization:
    """How the weights of one file are kept."""

    file_type: str
    """Of FILE_TYPES."""
    overrides: tuple[tuple[str, str], ...] = ()
    """Regular expression found in a tensor's name -> its type, of TENSOR_TYPES; the first that is found counts."""
    importance: Importance = field(default_factory=dict)
    importance_fields: Fields = field(default_factory=dict)
    """Keys that tell of the importance in the file."""


@dataclass(frozen=True)
class ModelShape:
    """What of a model the mixtures depend on."""

    num_layers: int
    heads_per_kv_head: int
    num_experts: int
    tied: bool
    """There is no output matrix beside the token embeddings."""
    is_70b: bool = False
    """llama.cpp takes it for a 70B model: Llama 2 and 3 and Qwen2 of 80 layers."""


def parse_quantization_type(name: str) -> str:
    """The canonical name of a file's quantization type.

    Raises: ValueError that lists the known ones.
    """
    if (known := name.upper()) in FILE_TYPES:
        return known
    raise ValueError(f"quantization type {name!r} is unknown; known: {', '.join(FILE_TYPES)}")


def parse_override(text: str) -> tuple[str, str]:
    """PATTERN=TYPE as an entry of Quantization.overrides.

    Raises: ValueError if it is not one, or the type is of files only.
    """
    pattern, _, name = text.rpartition("=")
    if not pattern or name.upper() not in TENSOR_TYPES:
        known = ", ".join(TENSOR_TYPES)
        raise ValueError(f"{text!r} is no PATTERN=TYPE, such as ffn_down=Q6_K; types of tensors: {known}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern, name.upper()


def file_type(quantization_type: str) -> int:
    """llama.cpp's number for a file of this type (general.file_type)."""
    name = "ALL_F32" if quantization_type == "F32" else f"MOSTLY_{quantization_type}"
    return int(getattr(LlamaFileType, name))


def tensor_types(
    specs: Sequence[TensorSpec], quantization: Quantization, model: ModelShape
) -> list[GGMLQuantizationType]:
    """Type of each tensor of a file.

    Raises: ValueError if an override finds no tensor that can have another type.
    """
    unused = dict(quantization.overrides)
    kinds = []
    for spec in specs:
        kind = "F32"
        if not is_kept_whole(spec):
            found = next((each for each in quantization.overrides if re.search(each[0], spec.target)), None)
            if found:
                unused.pop(found[0], None)
            kind = found[1] if found else mixed_type(spec.target, spec.shape[-1], quantization, model)
        kinds.append(GGMLQuantizationType[fitting_type(kind, spec.shape[-1])])
    if unused:
        raise ValueError(
            f"no tensor that can be quantized has {min(unused)!r} in its name; blk.0.ffn_down.weight is one"
        )
    return kinds


def is_kept_whole(spec: TensorSpec) -> bool:
    """Whether a tensor stays F32 in every file.

    Vectors (norms, biases) do, and an encoder's positions and token types: llama.cpp adds them as they are, and aborts
    on another type. So do routers: they are small, and a rounded one sends tokens to other experts.
    """
    return len(spec.shape) == 1 or spec.target.endswith(_KEPT_WHOLE)


def is_weighable(kinds: Sequence[GGMLQuantizationType]) -> bool:
    """Whether importance changes anything of a file whose tensors have these types."""
    return any(kind.name not in _UNWEIGHED for kind in kinds)


def fitting_type(kind: str, num_columns: int) -> str:
    """The type, or the one that llama.cpp takes where rows do not fill its blocks."""
    for each in (kind, _FALLBACKS.get(kind, kind)):
        if num_columns % _block_size(each) == 0:
            return each
    return "F16"


def mixed_type(target: str, num_columns: int, quantization: Quantization, model: ModelShape) -> str:
    """Type of one matrix in a mixture, before its rows are looked at by `fitting_type`.

    Source: llama.cpp src/llama-quant.cpp `llama_tensor_get_type_impl` at 0c1e57098.
    """
    name, base = quantization.file_type, FILE_TYPES[quantization.file_type]
    if base in _FLOATS:
        return base
    if target == "output.weight" or (target == "token_embd.weight" and model.tied):
        return "Q8_0" if base == "Q8_0" or num_columns % _block_size(base) else "Q6_K"
    part = re.fullmatch(r"blk\.(\d+)\.([a-z_]+?)(_exps)?\.weight", target)
    if part is None or part[2] not in _ROLES:
        return base
    layer, role = int(part[1]), "attn_v" if part[2] == "attn_qkv" else part[2]
    if model.num_experts == 8 and role in ("attn_k", "attn_v"):
        return "Q8_0"
    if role == "attn_v":
        return _value_type(name, layer, model)
    if role == "ffn_down":
        return _ffn_down_type(name, layer, model.num_layers, weighed=bool(quantization.importance))
    if role == "attn_output":
        raised = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
        if model.num_experts == 8:
            raised = dict.fromkeys(("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_XS", "IQ4_NL"), "Q5_K")
        return raised.get(name, base)
    return base


def quantize_tensor(
    name: str, weight: Array, kind: GGMLQuantizationType, importance: NDArray[np.float32] | None = None
) -> NDArray[np.generic]:
    """A weight in the bytes of its type.

    Args:
        importance: float32[columns], for types that have blocks.
    Raises: ValueError if a value does not fit into the type.
    """
    try:
        if kind.name not in _FLOATS:
            rows = np.ascontiguousarray(weight).reshape(-1, weight.shape[-1])
            blocks = ggml.quantize_rows(rows, kind, importance)
            return blocks.reshape(*weight.shape[:-1], blocks.shape[-1])
        if kind.name == "F16" and float(np.abs(weight).max(initial=0.0)) > 65504:
            raise ValueError("values beyond 65504 cannot be kept in F16; convert to BF16 or F32")
    except ValueError as error:
        raise ValueError(f"tensor {name}: {error}") from error
    data: NDArray[np.generic] = quants.quantize(np.ascontiguousarray(weight), kind)
    return data


def _value_type(name: str, layer: int, model: ModelShape) -> str:
    base, grouped = FILE_TYPES[name], model.heads_per_kv_head >= 4
    chosen = {
        "Q2_K": "Q4_K" if grouped else "Q3_K",
        "Q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "Q4_K_S": "Q5_K" if layer < 4 else base,
        "Q4_K_M": "Q6_K" if _wants_more_bits(layer, model.num_layers) else base,
        "Q5_K_M": "Q6_K" if _wants_more_bits(layer, model.num_layers) else base,
        "IQ4_XS": "Q5_K" if grouped else base,
        "IQ4_NL": "Q5_K" if grouped else base,
    }.get(name, base)
    return "Q5_K" if model.is_70b and chosen in ("Q3_K", "Q4_K") else chosen


def _ffn_down_type(name: str, layer: int, num_layers: int, *, weighed: bool) -> str:
    base, is_early = FILE_TYPES[name], layer < num_layers // 8
    return {
        "Q2_K": "Q3_K",
        "Q3_K_M": "Q5_K" if layer < num_layers // 16 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "Q4_K_S": "Q5_K" if is_early else base,
        "Q4_K_M": "Q6_K" if _wants_more_bits(layer, num_layers) else base,
        "Q5_K_M": "Q6_K" if _wants_more_bits(layer, num_layers) else base,
        "IQ4_XS": "Q5_K" if is_early and not weighed else base,
        "IQ4_NL": "Q5_K" if is_early and not weighed else base,
        "Q4_0": "Q4_1" if is_early and weighed else base,
        "Q5_0": "Q5_1" if is_early and weighed else base,
    }.get(name, base)


def _wants_more_bits(layer: int, num_layers: int) -> bool:
    """The layers at both ends, and each third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _block_size(kind: str) -> int:
    return int(gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0])
