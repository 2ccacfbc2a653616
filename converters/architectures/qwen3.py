"""Qwen3: queries and keys are normalised per head, and there are no biases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.architectures.base import Hyperparameters, TensorSpec
from converters.architectures.qwen2 import Qwen2


class Qwen3(Qwen2):
    hf_class = "Qwen3ForCausalLM"
    gguf_name = "qwen3"
    qkv_bias = False

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        if config.get("attention_bias"):
            raise ValueError("config.json: attention_bias is true, which llama.cpp's qwen3 does not compute")
        # A config without head_dim means 128, not hidden_size / heads (transformers Qwen3Config).
        return super().hyperparameters({"head_dim": 128, **config})

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from super().layer_tensors(hp)
        yield TensorSpec("attn_q_norm.weight", "self_attn.q_norm.weight", (hp.head_dim,))
        yield TensorSpec("attn_k_norm.weight", "self_attn.k_norm.weight", (hp.head_dim,))
