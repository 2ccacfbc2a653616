"""Mistral: a Llama to llama.cpp, but for its sliding window."""

from __future__ import annotations

from typing import Any

from converters.architectures.base import window_length
from converters.architectures.llama import Llama


class Mistral(Llama):
    hf_class = "MistralForCausalLM"
    rope_scalings = ("linear", "yarn")
    default_window: int | None = 4096
    """Where a config leaves it out, as in transformers' MistralConfig."""

    def context_length(self, config: dict[str, Any]) -> int:
        """At most the sliding window: llama.cpp attends to everything, which is the same only within it."""
        return min(super().context_length(config), window_length({"sliding_window": self.default_window, **config}))
