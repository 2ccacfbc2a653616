"""Phi-3 and its like: query, key and value in one matrix, gate and up in another, as llama.cpp wants them too.

Long-context models divide their frequencies by one list of factors for texts up to the first context and by another
beyond. llama.cpp chooses by the size of its context and transformers by the text's length, so the GGUF ends where the
first list does, and holds that list under both names: a context that packs many short texts may be larger. It ends at a
window as well, which llama.cpp does not compute for this architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from converters.architectures.base import (
    Architecture,
    Fields,
    Hyperparameters,
    TensorSpec,
    number,
    positive,
    rope_settings,
    rotated_share,
    window_length,
)


class Phi3(Architecture):
    hf_class = "Phi3ForCausalLM"
    gguf_name = "phi3"
    rope_scalings = ("longrope",)
    rotates_in_part = True

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        rope = rope_settings(config)
        if rope.get("rope_type", rope.get("type")) in ("su", "yarn"):  # how early files call it
            config = {**config, "rope_scaling": None, "rope_parameters": {**rope, "rope_type": "longrope"}}
        hp = super().hyperparameters(config)
        if hp.head_dim * hp.num_heads != hp.hidden:
            raise ValueError(
                f"config.json: head_dim {hp.head_dim} is not hidden_size / heads, as llama.cpp's phi3 has it"
            )
        num_rotated = int(hp.head_dim * rotated_share(config))
        window: Fields = {"attention.sliding_window": config.get("sliding_window") or 0}
        hp = replace(hp, family_fields=window | {"rope.dimension_count": num_rotated})
        return with_longrope(hp, config, num_rotated // 2) if hp.rope_scaling else hp

    def context_length(self, config: dict[str, Any]) -> int:
        """At most the sliding window, and where frequencies would change."""
        first = first_context(config) if "long_factor" in rope_settings(config) else 1 << 31
        return min(super().context_length(config), window_length(config), first)

    def tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from super().tensors(hp)
        for kind in ("long", "short") if hp.rope_scaling else ():
            factors = np.array(hp.rope_scaling["short_factor"], dtype=np.float32)
            yield TensorSpec(f"rope_factors_{kind}.weight", "", factors.shape, values=factors)

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        qkv_rows = (hp.num_heads + 2 * hp.num_kv_heads) * hp.head_dim
        yield TensorSpec("attn_norm.weight", "input_layernorm.weight", (hp.hidden,))
        yield TensorSpec("attn_qkv.weight", "self_attn.qkv_proj.weight", (qkv_rows, hp.hidden))
        yield TensorSpec("attn_output.weight", "self_attn.o_proj.weight", (hp.hidden, hp.hidden))
        yield TensorSpec("ffn_norm.weight", "post_attention_layernorm.weight", (hp.hidden,))
        yield TensorSpec("ffn_up.weight", "mlp.gate_up_proj.weight", (2 * hp.ffn, hp.hidden))
        yield TensorSpec("ffn_down.weight", "mlp.down_proj.weight", (hp.hidden, hp.ffn))


def first_context(config: dict[str, Any]) -> int:
    """Tokens up to which the short factors hold; 4096 where a config does not say (transformers Phi3Config)."""
    return number({**rope_settings(config), **config}, "original_max_position_embeddings", 4096)


def with_longrope(hp: Hyperparameters, config: dict[str, Any], num_factors: int) -> Hyperparameters:
    """The keys of "longrope" scaling added; the factors become tensors.

    Raises: ValueError if a list does not hold a positive number for each rotated pair of dimensions.
    Source: transformers modeling_rope_utils `_compute_longrope_parameters`.
    """
    for key in ("short_factor", "long_factor"):
        found = hp.rope_scaling.get(key)
        factors = found if isinstance(found, list) else []
        if len(factors) != num_factors or not all(isinstance(each, int | float) and each > 0 for each in factors):
            raise ValueError(f"config.json: longrope's {key} must be {num_factors} positive numbers, found {found!r}")
    first = first_context(config)
    factor = positive(hp.rope_scaling, "factor", number(config, "max_position_embeddings") / first)
    growth = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(first))
    longrope: Fields = {
        "rope.scaling.original_context_length": first,
        "rope.scaling.attn_factor": positive(hp.rope_scaling, "attention_factor", growth),
    }
    return replace(hp, family_fields=hp.family_fields | longrope)
