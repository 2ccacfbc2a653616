"""Which type a tensor gets, and which types there are."""

from __future__ import annotations

import numpy as np
import pytest

from converters.quantize import (
    NATIVE_TYPES,
    NUMPY_TYPES,
    file_type,
    parse_quantization_type,
    quantize_tensor,
    tensor_type,
)


def test_known_types_are_found_in_any_case_and_unknown_ones_list_them() -> None:
    assert parse_quantization_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(ValueError, match=r"'Q9' is unknown; known: F32, F16, BF16, Q8_0, Q6_K.*Q4_K_M"):
        parse_quantization_type("Q9")


def test_every_type_has_llama_cpps_number() -> None:
    numbers = {name: file_type(name) for name in (*NUMPY_TYPES, *NATIVE_TYPES)}
    assert (numbers["F32"], numbers["F16"], numbers["BF16"], numbers["Q8_0"], numbers["Q4_K_M"]) == (0, 1, 32, 7, 15)
    assert len(set(numbers.values())) == len(numbers)


def test_vectors_and_routers_stay_exact_and_rows_that_fill_no_block_become_f16() -> None:
    assert tensor_type("blk.0.ffn_up.weight", (64,), "Q8_0").name == "F32"
    assert tensor_type("blk.0.ffn_up.weight", (3, 64), "Q8_0").name == "Q8_0"
    assert tensor_type("blk.0.ffn_up.weight", (3, 65), "Q8_0").name == "F16"
    assert tensor_type("blk.0.ffn_up.weight", (3, 65), "BF16").name == "BF16"
    assert tensor_type("blk.0.ffn_gate_inp.weight", (3, 64), "Q8_0").name == "F32"


def test_value_beyond_f16_is_refused_not_turned_into_infinity() -> None:
    weight = np.full((2, 32), 70000.0, dtype=np.float32)
    with pytest.raises(ValueError, match="tensor lm_head holds values beyond 65504"):
        quantize_tensor("lm_head", weight, tensor_type("output.weight", weight.shape, "F16"))
    assert (
        quantize_tensor("lm_head", weight, tensor_type("output.weight", weight.shape, "BF16")).nbytes
        == weight.nbytes // 2
    )


def test_empty_rows_quantize_without_a_warning() -> None:
    assert not quantize_tensor(
        "zero", np.zeros((2, 32), dtype=np.float32), tensor_type("blk.0.ffn_up.weight", (2, 32), "Q8_0")
    ).any()
