"""Gemma 3, the text model: a Gemma 2 that normalises queries and keys and caps no attention.

Windowed layers rotate by a base of their own, and only the others stretch it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from converters.architectures.base import Fields, Hyperparameters, TensorSpec, positive, rope_settings
from converters.architectures.gemma2 import WHOLE, WINDOWED, Gemma2


class Gemma3(Gemma2):
    hf_class = "Gemma3ForCausalLM"
    gguf_name = "gemma3"
    pattern = 6
    num_layers_27b = 62

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        if config.get("attn_logit_softcapping"):
            raise ValueError("config.json: attn_logit_softcapping is set, which llama.cpp's gemma3 does not compute")
        if config.get("sliding_window_pattern", self.pattern) != self.pattern and not config.get("layer_types"):
            raise ValueError("config.json: sliding_window_pattern must be 6; write out layer_types for another")
        whole, windowed = rope_of_layer_types(config)
        if windowed.get("rope_type", "default") != "default":
            raise ValueError(
                f"config.json: rope scaling {windowed['rope_type']!r} of windowed layers must be 'default'"
            )
        hp = super().hyperparameters({**config, "rope_scaling": None, "rope_parameters": whole})
        local_base: Fields = {"rope.freq_base_swa": positive(windowed, "rope_theta", 10000.0)}
        return replace(hp, family_fields=hp.family_fields | local_base)

    def cap_fields(self, config: dict[str, Any], hp: Hyperparameters) -> Fields:
        key = "final_logit_softcapping"
        return {key: positive(config, key, 0.0)} if config.get(key) else {}

    def embedding_twin(self, hp: Hyperparameters) -> str:
        """None for the largest model, whose queries it would scale otherwise, nor where all layers are of one kind, for
        which llama.cpp ends the process."""
        windowed = hp.family_fields.get("attention.sliding_window_pattern")
        has_both = len(set(windowed)) == 2 if isinstance(windowed, list) else hp.num_layers >= self.pattern
        return "gemma-embedding" if has_both and hp.num_layers != self.num_layers_27b else ""

    def twin_values(self, hp: Hyperparameters) -> Fields:
        """Its window looks half as far to each side, and none was there when the model learned to embed."""
        return super().twin_values(hp) | {"attention.sliding_window": 2 * hp.n_ctx}

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from super().layer_tensors(hp)
        yield TensorSpec("attn_q_norm.weight", "self_attn.q_norm.weight", (hp.head_dim,))
        yield TensorSpec("attn_k_norm.weight", "self_attn.k_norm.weight", (hp.head_dim,))


def rope_of_layer_types(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rotary settings of layers that see all, and of windowed ones.

    transformers 5 keeps both in rope_parameters; 4 kept rope_theta and rope_scaling for the first and
    rope_local_base_freq for the second.
    """
    found = rope_settings(config)
    whole, windowed = ({**(found.pop(kind, None) or {})} for kind in (WHOLE, WINDOWED))
    whole = {"rope_theta": 1000000.0, **found, **whole}
    if config.get("rope_local_base_freq") is not None:
        windowed.setdefault("rope_theta", config["rope_local_base_freq"])
    return whole, windowed
