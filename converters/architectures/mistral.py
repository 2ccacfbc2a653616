"""Mistral: a Llama to llama.cpp, but for its sliding window."""

from __future__ import annotations

from typing import Any

from converters.architectures.llama import Llama


class Mistral(Llama):
    hf_class = "MistralForCausalLM"
    rope_scalings = ("linear", "yarn")

    def context_length(self, config: dict[str, Any]) -> int:
        """At most the sliding window: llama.cpp attends to everything, which is the same only within it."""
        return min(super().context_length(config), config.get("sliding_window") or 1 << 31)
