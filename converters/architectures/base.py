"""The contract of an architecture: what it writes into a GGUF, and from which tensors.

A decoder family's file states what differs from the common decoder drawn here: a class name, a GGUF name, extra
tensors, whether the query and key rows change their order. Whatever a config asks for that is not written
into the GGUF must be refused, since llama.cpp would compute something else without a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FieldValue = str | bool | int | float | bytes | list[str] | list[int] | list[float] | list[bool]
Fields = dict[str, FieldValue]
"""GGUF keys and values; int is written as uint32 (int32 in arrays), float as float32, bytes as an array of uint8."""


@dataclass(frozen=True)
class Hyperparameters:
    """The numbers of one model, read from config.json."""

    num_layers: int
    hidden: int
    ffn: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    n_ctx: int
    norm_eps: float
    tied: bool
    """The output matrix is the embedding matrix, or there is none."""
    rope_theta: float = 0.0
    attention_bias: bool = False
    rope_scaling: dict[str, Any] = field(default_factory=dict)
    """Empty, or a scaling that this package can write."""
    num_experts: int = 0
    num_token_types: int = 0
    first_position: int = 0
    """Row of a text's first position, where positions are learned."""
    num_positions: int = 0
    """Rows that learned positions have in the checkpoint."""
    family_fields: Fields = field(default_factory=dict)
    """Keys that only this family has, without the architecture's name in front."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the GGUF, and what it is made from in the checkpoint."""

    target: str
    source: str
    """Name in the checkpoint, with {} for an expert's number; "" for a tensor that is computed (`values`)."""
    shape: tuple[int, ...]
    permuted_heads: int = 0
    """Number of heads whose rows are reordered, see `permute`; 0 for none."""
    num_experts: int = 0
    """Number of tensors of the checkpoint that lie one behind the other here; 0 for one that is kept as it is."""
    added: float = 0.0
    """What is added to each value."""
    first_row: int = 0
    num_source_rows: int = 0
    """Rows in the checkpoint, of which those from `first_row` on are kept; 0 where all are."""
    values: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def sources(self) -> list[str]:
        """Names in the checkpoint, in order."""
        if self.num_experts:
            return [self.source.format(expert) for expert in range(self.num_experts)]
        return [self.source] if self.source else []

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Of each of the sources."""
        if self.num_source_rows:
            return self.num_source_rows, *self.shape[1:]
        return self.shape[1:] if self.num_experts else self.shape


class Architecture:
    hf_class: str
    """Name under `architectures` in config.json."""
    gguf_name: str
    """llama.cpp's name: value of general.architecture and prefix of its keys."""
    is_encoder = False
    """An encoder only embeds."""
    unused_tensors: tuple[str, ...] = ("rotary_emb.inv_freq",)
    """Endings of tensors that may be left behind."""
    permutes_qk = False
    rotates_in_part = False
    """It can rotate only the first dimensions of a head."""
    rope_scalings: tuple[str, ...] = ("linear", "yarn")

    def __init__(self, *, has_head: bool = True) -> None:
        """Arguments: `has_head` is False for a checkpoint of the body alone, which only embeds."""
        self.has_head = has_head

    @property
    def generates(self) -> bool:
        return self.has_head and not self.is_encoder

    def hyperparameters(self, config: dict[str, Any]) -> Hyperparameters:
        """Read and check config.json.

        Raises: ValueError naming the key that is missing or asks for what cannot be written.
        """
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise ValueError(f"config.json: hidden_act is {config['hidden_act']!r}, {self.gguf_name} has silu")
        heads, hidden = number(config, "num_attention_heads"), number(config, "hidden_size")
        if not config.get("head_dim") and hidden % heads:
            raise ValueError(f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}")
        kv_heads = number(config, "num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(
                f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            )
        return Hyperparameters(
            num_layers=number(config, "num_hidden_layers"),
            hidden=hidden,
            ffn=number(config, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=number(config, "head_dim", hidden // heads),
            vocab_size=number(config, "vocab_size"),
            n_ctx=self.context_length(config),
            norm_eps=positive(config, "rms_norm_eps", 1e-6),
            rope_theta=positive(rope_settings(config), "rope_theta", 10000.0),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            rope_scaling=self._rope_scaling(config),
        )

    def context_length(self, config: dict[str, Any]) -> int:
        """Longest text for which the GGUF computes what the checkpoint computes."""
        return number(config, "max_position_embeddings")

    def fields(self, hp: Hyperparameters) -> Fields:
        """Keys that llama.cpp builds the model from."""
        values: Fields = {
            "block_count": hp.num_layers,
            "context_length": hp.n_ctx,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.num_heads,
            "attention.head_count_kv": hp.num_kv_heads,
            "attention.key_length": hp.head_dim,
            "attention.value_length": hp.head_dim,
            "attention.layer_norm_rms_epsilon": hp.norm_eps,
            "rope.dimension_count": hp.head_dim,
            "rope.freq_base": hp.rope_theta,
            "vocab_size": hp.vocab_size,
        }
        if (rope_type := hp.rope_scaling.get("rope_type")) in ("linear", "yarn"):
            values |= {"rope.scaling.type": rope_type, "rope.scaling.factor": _scaling(hp, "factor")}
        if rope_type == "yarn":
            values |= yarn_fields(hp)
        values |= hp.family_fields
        fields: Fields = {f"{self.gguf_name}.{key}": value for key, value in values.items()}
        if twin := self.embedding_twin(hp):
            fields |= {f"{twin}.{key}": value for key, value in (values | self.twin_values(hp)).items()}
        return fields

    def embedding_twin(self, hp: Hyperparameters) -> str:
        """llama.cpp's name of the same network without output head and KV cache; "" where it has none.

        A program that loads the file under this name finds the twin's keys, and embeds from the same weights.
        """
        return ""

    def twin_values(self, hp: Hyperparameters) -> Fields:
        """Keys in which the twin differs, without its name in front."""
        return {"attention.causal": False}

    def tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        """Every tensor of the GGUF, in the order in which they are written."""
        yield TensorSpec("token_embd.weight", "model.embed_tokens.weight", (hp.vocab_size, hp.hidden))
        if hp.rope_scaling.get("rope_type") == "llama3":
            factors = llama3_rope_factors(hp)
            yield TensorSpec("rope_freqs.weight", "", factors.shape, values=factors)
        for layer in range(hp.num_layers):
            for spec in self.layer_tensors(hp):
                yield replace(spec, target=f"blk.{layer}.{spec.target}", source=f"model.layers.{layer}.{spec.source}")
        yield TensorSpec("output_norm.weight", "model.norm.weight", (hp.hidden,))
        if self.has_head and not hp.tied:
            yield TensorSpec("output.weight", "lm_head.weight", (hp.vocab_size, hp.hidden))

    def layer_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        """Tensors of one layer, named within the layer."""
        q_rows, kv_rows = hp.num_heads * hp.head_dim, hp.num_kv_heads * hp.head_dim
        q_heads, k_heads = (hp.num_heads, hp.num_kv_heads) if self.permutes_qk else (0, 0)
        yield TensorSpec("attn_norm.weight", "input_layernorm.weight", (hp.hidden,))
        yield TensorSpec("attn_q.weight", "self_attn.q_proj.weight", (q_rows, hp.hidden), q_heads)
        yield TensorSpec("attn_k.weight", "self_attn.k_proj.weight", (kv_rows, hp.hidden), k_heads)
        yield TensorSpec("attn_v.weight", "self_attn.v_proj.weight", (kv_rows, hp.hidden))
        yield TensorSpec("attn_output.weight", "self_attn.o_proj.weight", (hp.hidden, q_rows))
        yield TensorSpec("ffn_norm.weight", "post_attention_layernorm.weight", (hp.hidden,))
        yield from self.ffn_tensors(hp)

    def ffn_tensors(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        """The feed-forward part of one layer, named within the layer."""
        yield TensorSpec("ffn_gate.weight", "mlp.gate_proj.weight", (hp.ffn, hp.hidden))
        yield TensorSpec("ffn_up.weight", "mlp.up_proj.weight", (hp.ffn, hp.hidden))
        yield TensorSpec("ffn_down.weight", "mlp.down_proj.weight", (hp.hidden, hp.ffn))

    def qkv_biases(self, hp: Hyperparameters) -> Iterator[TensorSpec]:
        q_rows, kv_rows = hp.num_heads * hp.head_dim, hp.num_kv_heads * hp.head_dim
        q_heads, k_heads = (hp.num_heads, hp.num_kv_heads) if self.permutes_qk else (0, 0)
        yield TensorSpec("attn_q.bias", "self_attn.q_proj.bias", (q_rows,), q_heads)
        yield TensorSpec("attn_k.bias", "self_attn.k_proj.bias", (kv_rows,), k_heads)
        yield TensorSpec("attn_v.bias", "self_attn.v_proj.bias", (kv_rows,))

    def _rope_scaling(self, config: dict[str, Any]) -> dict[str, Any]:
        rope = rope_settings(config)
        if not self.rotates_in_part and rotated_share(config) != 1.0:
            raise ValueError("config.json: partial_rotary_factor must be 1; a part-rotated head cannot be converted")
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type == "default":
            return {}
        if rope_type not in self.rope_scalings:
            known = ", ".join(("default", *self.rope_scalings))
            raise ValueError(f"config.json: rope scaling {rope_type!r} cannot be converted; known: {known}")
        return {**rope, "rope_type": rope_type}


def permute(weight: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Reorder a projection's rows from halves (x0..,y0..) to pairs (x0,y0,x1,y1,..) within each head.

    Args:
        weight: [num_heads * head_dim, ...], query or key projection as transformers keeps it.
    Source: llama.cpp rotates neighbouring rows in its `llama` architecture, transformers rotates halves.
    """
    rows = weight.shape[0]
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def llama3_rope_factors(hp: Hyperparameters) -> NDArray[np.float32]:
    """Divisors of the rotary frequencies under "llama3" scaling: float32[head_dim / 2].

    Long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
    Source: transformers modeling_rope_utils `_compute_llama3_parameters`; llama.cpp divides by rope_freqs.
    """
    factor, low, high = (_scaling(hp, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    old_n_ctx = _scaling(hp, "original_max_position_embeddings")
    # in float32 and step by step as torch does it in llama.cpp's converter, so that it rounds the same: powers to the
    # nearest, and where a number is divided, times the inverse
    exponents = np.arange(0, hp.head_dim, 2, dtype=np.float32) / hp.head_dim
    frequencies = 1 / (hp.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    wavelengths = 1 / frequencies * (2 * math.pi)
    smooth = (1 / wavelengths * old_n_ctx - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    stretched = np.where(wavelengths > old_n_ctx / low, np.float32(factor), between)
    return np.where(wavelengths < old_n_ctx / high, np.float32(1), stretched)


def yarn_fields(hp: Hyperparameters) -> Fields:
    """What "yarn" scaling has beyond a factor: the context it stretches, and how much larger rotated heads are made.

    llama.cpp makes them 1 + 0.1 ln(factor) times larger by itself, and `attn_factor` times on top; it reads no
    `yarn_attn_factor` and no `yarn_beta_*` in these architectures, whatever a file says.

    Raises: ValueError if the frequencies are to be blended otherwise than llama.cpp does.
    Source: transformers modeling_rope_utils `_compute_yarn_parameters`; llama.cpp llama-context.cpp, constructor.
    """
    for key, fixed in (("beta_fast", 32), ("beta_slow", 1), ("truncate", True)):
        if (found := hp.rope_scaling.get(key)) not in (None, fixed):
            raise ValueError(f"config.json: {key} is {found!r}, llama.cpp computes yarn rope scaling with {fixed} only")
    values: Fields = {"rope.scaling.original_context_length": int(_scaling(hp, "original_max_position_embeddings"))}
    factor, asked = _scaling(hp, "factor"), hp.rope_scaling.get("attention_factor")
    scales = [hp.rope_scaling.get(key) for key in ("mscale", "mscale_all_dim")]
    if asked is not None:
        values["rope.scaling.attn_factor"] = _scaling(hp, "attention_factor") / _yarn_growth(factor)
    elif all(scales):
        over, under = (_yarn_growth(factor, _scaling(hp, key)) for key in ("mscale", "mscale_all_dim"))
        values["rope.scaling.attn_factor"] = over / under / _yarn_growth(factor)
    return values


def _yarn_growth(factor: float, scale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings; transformers 5 keeps all in rope_parameters, 4 kept rope_theta beside rope_scaling."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key) or {}
        if not isinstance(value, dict):
            raise ValueError(f"config.json: {key} must be an object, found {value!r}")
        found |= value
    if "rope_theta" not in found and config.get("rope_theta") is not None:
        found["rope_theta"] = config["rope_theta"]
    return found


def rotated_share(config: dict[str, Any]) -> float:
    """Share of a head's dimensions that are rotated."""
    both = {"partial_rotary_factor": 1.0, **config, **rope_settings(config)}
    return positive(both, "partial_rotary_factor", 1.0)


def _scaling(hp: Hyperparameters, key: str) -> float:
    value = hp.rope_scaling.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"config.json: {hp.rope_scaling['rope_type']} rope scaling lacks '{key}', found {value!r}")
    return float(value)


def positive(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"config.json: {key} must be a positive number, found {value!r}")
    return float(value)


def window_length(config: dict[str, Any]) -> int:
    """Tokens that attention looks back; more than any text has where there is no window."""
    return number(config, "sliding_window") if config.get("sliding_window") else 1 << 31


def number(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = default if config.get(key) is None else config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"config.json: {key} must be a positive whole number, found {value!r}")
    return value
