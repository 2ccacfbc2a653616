"""BERT and XLM-RoBERTa: encoders that only embed, such as BGE, E5 and MiniLM.

Positions are learned, one row each, so that a GGUF holds no more rows than texts may be long; XLM-RoBERTa numbers them
from the padding token's id on. llama.cpp computes GELU by its tanh approximation, from a table of F16 values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from converters.architectures.base import Architecture, Fields, Hyperparameters, TensorSpec, number, positive

_GELUS = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


class Bert(Architecture):
    hf_class = "BertModel"
    gguf_name = "bert"
    is_encoder = True
    unused_tensors = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        if (found := config.get("hidden_act", "gelu")) not in _GELUS:
            raise ValueError(f"config.json: hidden_act is {found!r}, llama.cpp's bert has gelu")
        for key, fixed in _FIXED.items():
            if (found := config.get(key, fixed)) != fixed:
                raise ValueError(f"config.json: {key} is {found!r}, llama.cpp's bert has {fixed!r}")
        heads, hidden = number(config, "num_attention_heads"), number(config, "hidden_size")
        if hidden % heads:
            raise ValueError(f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}")
        return Hyperparameters(
            num_layers=number(config, "num_hidden_layers"),
            hidden=hidden,
            ffn=number(config, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=heads,
            head_dim=hidden // heads,
            vocab_size=number(config, "vocab_size"),
            n_ctx=self.context_length(config),
            norm_eps=positive(config, "layer_norm_eps", 1e-12),
            tied=True,
            num_token_types=number(config, "type_vocab_size", 2),
            first_position=self.first_position(config),
            num_positions=number(config, "max_position_embeddings", 512),
        )

    def first_position(self, config: dict[str, Any]) -> int:
        """Row of a text's first position."""
        return 0

    def context_length(self, config: dict[str, Any]) -> int:
        return number(config, "max_position_embeddings", 512) - self.first_position(config)

    def fields(self, hp: Hyperparameters) -> Fields:
        values: Fields = {
            "block_count": hp.num_layers,
            "context_length": hp.n_ctx,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.num_heads,
            "attention.layer_norm_epsilon": hp.norm_eps,
            "attention.causal": False,
            "vocab_size": hp.vocab_size,
        }
        named: Fields = {f"{self.gguf_name}.{key}": value for key, value in values.items()}
        return named | {"tokenizer.ggml.token_type_count": hp.num_token_types}

    def tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield TensorSpec("token_embd.weight", "embeddings.word_embeddings.weight", (hp.vocab_size, hp.hidden))
        types = (hp.num_token_types, hp.hidden)
        yield TensorSpec("token_types.weight", "embeddings.token_type_embeddings.weight", types)
        positions = TensorSpec("position_embd.weight", "embeddings.position_embeddings.weight", (hp.n_ctx, hp.hidden))
        yield replace(positions, first_row=hp.first_position, num_source_rows=hp.num_positions)
        yield from norm("token_embd_norm", "embeddings.LayerNorm", hp)
        for layer in range(hp.num_layers):
            for spec in self.layer_tensors(hp):
                yield replace(spec, target=f"blk.{layer}.{spec.target}", source=f"encoder.layer.{layer}.{spec.source}")

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        yield from linear("attn_q", "attention.self.query", hp.hidden, hp.hidden)
        yield from linear("attn_k", "attention.self.key", hp.hidden, hp.hidden)
        yield from linear("attn_v", "attention.self.value", hp.hidden, hp.hidden)
        yield from linear("attn_output", "attention.output.dense", hp.hidden, hp.hidden)
        yield from norm("attn_output_norm", "attention.output.LayerNorm", hp)
        yield from linear("ffn_up", "intermediate.dense", hp.ffn, hp.hidden)
        yield from linear("ffn_down", "output.dense", hp.hidden, hp.ffn)
        yield from norm("layer_output_norm", "output.LayerNorm", hp)


class XlmRoberta(Bert):
    hf_class = "XLMRobertaModel"

    def first_position(self, config: dict[str, Any]) -> int:
        padding = config.get("pad_token_id", 1)
        if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
            raise ValueError(f"config.json: pad_token_id must be a token's id, found {padding!r}")
        return padding + 1


def linear(target: str, source: str, rows: int, columns: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{target}.weight", f"{source}.weight", (rows, columns))
    yield TensorSpec(f"{target}.bias", f"{source}.bias", (rows,))


def norm(target: str, source: str, hp: Hyperparameters) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{target}.weight", f"{source}.weight", (hp.hidden,))
    yield TensorSpec(f"{target}.bias", f"{source}.bias", (hp.hidden,))
