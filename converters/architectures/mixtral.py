"""Mixtral: a Mistral whose feed-forward part is several experts, of which each token takes some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from converters.architectures.base import Fields, Hyperparameters, TensorSpec, number
from converters.architectures.mistral import Mistral


class Mixtral(Mistral):
    hf_class = "MixtralForCausalLM"
    default_window = None

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        # What a config leaves out is what transformers' MixtralConfig has.
        experts, used = number(config, "num_local_experts", 8), number(config, "num_experts_per_tok", 2)
        if used > experts:
            raise ValueError(f"config.json: num_experts_per_tok {used} is more than num_local_experts {experts}")
        counts: Fields = {"expert_count": experts, "expert_used_count": used}
        return replace(super().hyperparameters(config), num_experts=experts, family_fields=counts)

    def ffn_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        """A router, and all experts' matrices of one kind in one tensor."""
        count, expert = hp.num_experts, "block_sparse_moe.experts.{}."
        widening, narrowing = (count, hp.ffn, hp.hidden), (count, hp.hidden, hp.ffn)
        yield TensorSpec("ffn_gate_inp.weight", "block_sparse_moe.gate.weight", (count, hp.hidden))
        yield TensorSpec("ffn_gate_exps.weight", f"{expert}w1.weight", widening, num_experts=count)
        yield TensorSpec("ffn_down_exps.weight", f"{expert}w2.weight", narrowing, num_experts=count)
        yield TensorSpec("ffn_up_exps.weight", f"{expert}w3.weight", widening, num_experts=count)
