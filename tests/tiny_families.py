"""Random decoders of the families that training promises, built in memory, with attention windows switched on."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3")


def family_decoder(
    family: str,
    *,
    vocab_size: int = 64,
    num_layers: int = 1,
    window: int = 4,
    attention: str = "eager",
    **settings: Any,
) -> PreTrainedModel:
    """A decoder in evaluation mode, the same at each call.

    Args:
        num_layers: where several have windows, one lets through what that of another keeps out.
        window: tokens that a family with a sliding window sees.
        settings: overrides of the family's config.
    """
    windowed: dict[str, dict[str, Any]] = {
        "Mistral": {"sliding_window": window},
        "Mixtral": {"sliding_window": window, "num_local_experts": 4},
        "Qwen2": {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0},
        "Qwen3": {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0},
        "Gemma2": {"sliding_window": window},
        "Gemma3": {"sliding_window": window},
    }
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
    }
    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    config = config_class(**shape | windowed.get(family, {}) | settings)
    config._attn_implementation = attention
    torch.manual_seed(0)
    decoder: PreTrainedModel = getattr(transformers, f"{family}ForCausalLM")(config)
    return decoder.eval()
