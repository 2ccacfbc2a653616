"""Attention heads that begin with something to do, for a model that has few steps to find it.

To answer from a passage is to find in it what the question says and to copy what stands there: a chain of heads of
which none is of use before the others are. Each begins as a sketch of its part, which training is free to redraw.

    matching     every block           looks for tokens like its own: a question's words in the passages
    near         first block           look at the token before, at the one behind, and over the last words
    pointing     last blocks           looks where the token before is its own, and the words around are alike

Copying by a head that knows the token before: "In-context learning and induction heads" (Olsson et al., 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

SHARED = 0.15
"""Share of a token embedding's length that all tokens have in common, in the last dimension: what looks by position
alone needs something that every token has."""

MATCHING_HEADS = (1.5, 3.0)
"""How sharply each of a layer's first heads looks for its own token at the start."""

_NEAR_HEADS = 4
_NEAR_KEYS = 4.0
"""Length of the near heads' keys in each of the dimensions that turn."""
_POINTING_LAYERS = 2


def start_heads(model: PreTrainedModel, pooled_dimension: int) -> None:
    """Give the heads that a Llama's shape has room for their start.

    Args:
        pooled_dimension: the first dimensions of a token embedding, those that tell what it is about.
    """
    config = model.config
    _start_matching(model, pooled_dimension)
    per_key = config.num_attention_heads // config.num_key_value_heads
    if config.num_key_value_heads > 1 and per_key >= _NEAR_HEADS and config.num_hidden_layers > _POINTING_LAYERS:
        _start_reading(model, pooled_dimension)


def _start_matching(model: PreTrainedModel, pooled_dimension: int) -> None:
    """Let the first heads of each block look for what is like their own token.

    Token embeddings that tell texts apart are alike for like words, and long for telling ones: their product, through
    the same random projection on both sides, finds where a question's words stand in a passage. It lies in the
    rotary dimensions that turn least, so that it holds over a whole prompt. What to do with a match is learned.
    """
    config = model.config
    slow = _slow_dimensions(config.head_dim)
    num_slow = min(len(slow), pooled_dimension)
    for layer in model.model.layers:
        projection_SP = torch.linalg.qr(torch.randn(pooled_dimension, num_slow))[0].T
        attention = layer.self_attn
        attention.k_proj.weight[: config.head_dim] = 0.0
        attention.k_proj.weight[slow[:num_slow], :pooled_dimension] = projection_SP
        per_key = config.num_attention_heads // config.num_key_value_heads
        for head, sharpness in enumerate(MATCHING_HEADS[:per_key]):
            first = head * config.head_dim
            attention.q_proj.weight[first : first + config.head_dim] = 0.0
            attention.q_proj.weight[first + slow[:num_slow], :pooled_dimension] = projection_SP * sharpness


def _start_reading(model: PreTrainedModel, pooled_dimension: int) -> None:
    """Let the last heads of the first block read what stands near, and the last head of the last blocks point.

    What each near head reads goes where only it writes, so that a pointing head can tell the token before a place from
    the words around it: it looks for places before which its own token stands, in surroundings like its own.
    """
    config, layers = model.config, model.model.layers
    size, hidden = config.head_dim, config.hidden_size
    # what the near heads read of a token, mostly what it is about, and where each writes it
    read_EH = torch.linalg.qr(torch.randn(hidden, size))[0].T * (hidden / size) ** 0.5
    read_EH[:, pooled_dimension:] *= 0.4
    read_EH[:, -1] = 0.0
    read_EH = F.normalize(read_EH, dim=1)
    room = hidden - 1 - pooled_dimension
    writes_HE = torch.zeros(_NEAR_HEADS, hidden, size)
    for each in writes_HE:
        each[pooled_dimension:-1] = torch.linalg.qr(torch.randn(max(room, size), size))[0][:room]

    attention = layers[0].self_attn
    last_key = size * (config.num_key_value_heads - 1)
    attention.k_proj.weight[last_key:] = 0.0
    attention.k_proj.weight[last_key : last_key + size // 2, -1] = _NEAR_KEYS / _shared_size(hidden)
    attention.v_proj.weight[last_key:] = read_EH
    looks = (_wide(64.0, config), _wide(16.0, config), _sharp(1, config), _sharp(-1, config))
    first = size * (config.num_attention_heads - _NEAR_HEADS)
    for number, (look_E, write_HE) in enumerate(zip(looks, writes_HE, strict=True)):
        at = slice(first + number * size, first + (number + 1) * size)
        attention.q_proj.weight[at] = 0.0
        attention.q_proj.weight[at, -1] = look_E / _shared_size(hidden)
        attention.o_proj.weight[:, at] = write_HE

    slow = _slow_dimensions(size)
    wide_HE, _, _, before_HE = writes_HE
    for layer in layers[-_POINTING_LAYERS:]:
        attention = layer.self_attn
        same_SE, alike_SE = torch.randn(2, len(slow), size) * size**-0.5
        attention.k_proj.weight[last_key + slow] = 2 * (same_SE @ before_HE.T + alike_SE @ wide_HE.T)
        last = size * (config.num_attention_heads - 1)
        attention.q_proj.weight[last + slow] = 4 * same_SE @ read_EH + alike_SE @ wide_HE.T


def _shared_size(hidden_size: int) -> float:
    """What stands in a token's last dimension behind a norm."""
    return SHARED * hidden_size**0.5


def _sharp(offset: int, config: PreTrainedConfig) -> Tensor:
    """A query that finds the key `offset` tokens away (-1: the token before), by the dimensions that turn fastest."""
    angle_F = _angles(config)
    strength_F = torch.where(angle_F > 0.08, 10.5, 0.0)
    return torch.cat([strength_F * torch.cos(offset * angle_F), strength_F * torch.sin(offset * angle_F)])


def _wide(num_tokens: float, config: PreTrainedConfig) -> Tensor:
    """A query for about so many tokens before it and behind it."""
    angle_F = _angles(config) * num_tokens
    strength_F = torch.where((angle_F > 0.25) & (angle_F < 2.2), 2.0, 0.0)
    return torch.cat([strength_F, torch.zeros_like(strength_F)])


def _angles(config: PreTrainedConfig) -> Tensor:
    """How far each pair of a head's dimensions turns from a token to the next, radians[head_dim / 2]."""
    half = config.head_dim // 2
    return config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)


def _slow_dimensions(head_dim: int) -> Tensor:
    half = head_dim // 2
    return torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, head_dim)])
