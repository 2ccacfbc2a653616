"""Gemma 2: norms on both sides of attention and feed-forward, attention by turns windowed and whole, capped logits.

llama.cpp multiplies embeddings by sqrt(hidden) itself, and norms here multiply by 1 + weight, where it knows weights
only. Its window is one of causal attention: it looks back so far, and ahead to the end. Embeddings, which see all of a
text, are what the checkpoint computes for texts within the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from converters.architectures.base import Architecture, Fields, Hyperparameters, TensorSpec, number, positive

WINDOWED, WHOLE = "sliding_attention", "full_attention"


class Gemma2(Architecture):
    hf_class = "Gemma2ForCausalLM"
    gguf_name = "gemma2"
    rope_scalings = ("linear",)
    pattern = 2
    """Every how many layers one sees the whole text."""
    num_layers_27b = 46
    """llama.cpp scales the queries of the largest model otherwise, and knows it by its number of layers."""

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        # What a config leaves out is what transformers' Gemma2Config and Gemma3TextConfig have.
        config = {"head_dim": 256, "sliding_window": 4096, "tie_word_embeddings": True, **config}
        for key, fixed in (("hidden_activation", "gelu_pytorch_tanh"), ("attention_bias", False)):
            if (config.get(key) or fixed) != fixed:
                raise ValueError(f"config.json: {key} is {config[key]!r}, {self.gguf_name} has {fixed!r}")
        if config.get("use_bidirectional_attention"):
            raise ValueError("config.json: use_bidirectional_attention is true; such a model cannot generate")
        hp = super().hyperparameters({**config, "hidden_act": "silu"})  # what is computed is hidden_activation
        uses = hp.hidden // hp.num_heads if hp.num_layers == self.num_layers_27b else hp.head_dim
        if (asked := config.get("query_pre_attn_scalar", 256)) != uses:
            raise ValueError(f"config.json: query_pre_attn_scalar is {asked!r}, llama.cpp computes with {uses}")
        return replace(hp, family_fields=self.window_fields(config, hp.num_layers) | self.cap_fields(config, hp))

    def window_fields(self, config: dict[str, Any], num_layers: int) -> Fields:
        """The window, and which layers have it where that is not llama.cpp's own pattern."""
        default = [WHOLE if layer % self.pattern == 0 else WINDOWED for layer in range(1, num_layers + 1)]
        kinds = config.get("layer_types") or default
        if not isinstance(kinds, list) or len(kinds) != num_layers or not {WINDOWED, WHOLE}.issuperset(kinds):
            raise ValueError(
                f"config.json: layer_types must name {WINDOWED} or {WHOLE} for each of {num_layers} layers"
            )
        window: Fields = {"attention.sliding_window": number(config, "sliding_window")}
        return (
            window
            if kinds == default
            else window | {"attention.sliding_window_pattern": [kind == WINDOWED for kind in kinds]}
        )

    def cap_fields(self, config: dict[str, Any], hp: Hyperparameters) -> Fields:
        """How far attention's and the output's logits may go."""
        if not hp.tied:
            raise ValueError("config.json: tie_word_embeddings is false, gemma2 has no output matrix of its own")
        caps = (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0))
        return {key: positive(config, key, default) for key, default in caps}

    def tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        for spec in super().tensors(hp):
            yield replace(spec, added=1.0) if spec.target.endswith("norm.weight") else spec

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        for spec in super().layer_tensors(hp):
            before_ffn = spec.target == "ffn_norm.weight"
            yield replace(spec, source="pre_feedforward_layernorm.weight") if before_ffn else spec
        yield TensorSpec("post_attention_norm.weight", "post_attention_layernorm.weight", (hp.hidden,))
        yield TensorSpec("post_ffw_norm.weight", "post_feedforward_layernorm.weight", (hp.hidden,))
