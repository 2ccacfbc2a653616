"""Qwen2 and Qwen2.5: biases on query, key and value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.architectures.base import Architecture, Hyperparameters, TensorSpec, window_length


class Qwen2(Architecture):
    hf_class = "Qwen2ForCausalLM"
    gguf_name = "qwen2"
    qkv_bias = True

    def context_length(self, config: dict[str, Any]) -> int:
        """At most the sliding window, where one is switched on."""
        longest = super().context_length(config)
        return min(longest, window_length(config)) if config.get("use_sliding_window") else longest

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from super().layer_tensors(hp)
        if self.qkv_bias:
            yield from self.qkv_biases(hp)
