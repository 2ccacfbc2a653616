"""Llama, and what Mistral takes over from it."""

from __future__ import annotations

from collections.abc import Iterator

from converters.architectures.base import Architecture, Hyperparameters, TensorSpec
from gritdesk.grit_format import LLAMA_TWIN


class Llama(Architecture):
    hf_class = "LlamaForCausalLM"
    gguf_name = "llama"
    permutes_qk = True
    rope_scalings: tuple[str, ...] = ("linear", "yarn", "llama3")

    def embedding_twin(self, hp: Hyperparameters) -> str:
        return LLAMA_TWIN

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from super().layer_tensors(hp)
        if hp.attention_bias:
            yield from self.qkv_biases(hp)
            yield TensorSpec("attn_output.bias", "self_attn.o_proj.bias", (hp.hidden,))
