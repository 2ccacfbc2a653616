"""Which type a tensor gets, and which types there are."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from converters.architectures.base import TensorSpec
from converters.quantize import (
    FILE_TYPES,
    ModelShape,
    Quantization,
    file_type,
    parse_override,
    parse_quantization_type,
    quantize_tensor,
    tensor_types,
)

SHAPE = ModelShape(num_layers=2, heads_per_kv_head=2, num_experts=0, tied=False)


def type_of(target: str, shape: tuple[int, ...], name: str, *overrides: tuple[str, str]) -> GGMLQuantizationType:
    return tensor_types([TensorSpec(target, "", shape)], Quantization(name, overrides), SHAPE)[0]


def test_known_types_are_found_in_any_case_and_unknown_ones_list_them() -> None:
    assert parse_quantization_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(ValueError, match=r"'Q9' is unknown; known: F32, F16, BF16, Q8_0, Q6_K.*Q4_K_M"):
        parse_quantization_type("Q9")


def test_every_type_has_llama_cpps_number() -> None:
    numbers = {name: file_type(name) for name in FILE_TYPES}
    assert (numbers["F32"], numbers["F16"], numbers["BF16"], numbers["Q8_0"], numbers["Q4_K_M"]) == (0, 1, 32, 7, 15)
    assert len(set(numbers.values())) == len(numbers)


def test_vectors_and_routers_stay_exact_and_rows_that_fill_no_block_become_f16() -> None:
    assert type_of("blk.0.ffn_up.weight", (64,), "Q8_0").name == "F32"
    assert type_of("blk.0.ffn_up.weight", (3, 64), "Q8_0").name == "Q8_0"
    assert type_of("blk.0.ffn_up.weight", (3, 65), "Q8_0").name == "F16"
    assert type_of("blk.0.ffn_up.weight", (3, 65), "BF16").name == "BF16"
    assert type_of("blk.0.ffn_gate_inp.weight", (3, 64), "Q8_0").name == "F32"


def test_value_beyond_f16_is_refused_not_turned_into_infinity() -> None:
    weight = np.full((2, 32), 70000.0, dtype=np.float32)
    with pytest.raises(ValueError, match="tensor lm_head: values beyond 65504"):
        quantize_tensor("lm_head", weight, type_of("output.weight", weight.shape, "F16"))
    assert (
        quantize_tensor("lm_head", weight, type_of("output.weight", weight.shape, "BF16")).nbytes == weight.nbytes // 2
    )


def test_empty_rows_quantize_without_a_warning() -> None:
    assert not quantize_tensor(
        "zero", np.zeros((2, 32), dtype=np.float32), type_of("blk.0.ffn_up.weight", (2, 32), "Q8_0")
    ).any()


def test_value_too_large_for_blocks_is_refused() -> None:
    weight = np.full((2, 256), 1e38, dtype=np.float32)
    with pytest.raises(ValueError, match="tensor x: values are too large for Q4_K; convert to BF16 or F32"):
        quantize_tensor("x", weight, GGMLQuantizationType.Q4_K)


def test_overrides_work_in_files_without_blocks_too() -> None:
    assert type_of("blk.1.ffn_down.weight", (3, 256), "F16", ("ffn_down", "Q8_0")).name == "Q8_0"


def test_override_that_finds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no tensor that can be quantized has 'ffn_norm' in its name"):
        type_of("blk.1.ffn_norm.weight", (256,), "Q8_0", ("ffn_norm", "Q4_0"))


def test_override_is_a_pattern_and_a_type_of_tensors() -> None:
    assert parse_override(r"blk\.[01]\.ffn=q6_k") == (r"blk\.[01]\.ffn", "Q6_K")
    for wrong, reason in (
        ("ffn_down", "is no PATTERN=TYPE"),
        ("x=Q4_K_M", "types of tensors: F32"),
        ("(=Q8_0", "no reg"),
    ):
        with pytest.raises(ValueError, match=reason):
            parse_override(wrong)
