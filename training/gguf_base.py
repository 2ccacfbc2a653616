"""A GGUF of a model that was trained here -> weights and tokenizer to train on, as far as its type kept them.

The default model ships as a GGUF alone. With `base_model = "assets/grit-nano.gguf"` a recipe goes on from what people
have. Only what `training.model.new_model` makes is read back, a Llama with a byte-level BPE: other models have a
checkpoint, which is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor, quants
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedModel

from gritdesk.grit_format import GritMetadata
from training.config import ModelShape
from training.model import new_model
from training.tokenizer import SPECIAL_TOKENS, byte_level, save_tokenizer


def read_gguf(path: Path, folder: Path) -> PreTrainedModel:
    """The model, float32; its tokenizer's files are put into the folder.

    Raises: ValueError if it is no GGUF, or of another kind than is trained here.
    """
    try:
        reader = GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
        grit = GritMetadata.from_gguf(values)
        shape = _shape(values, reader)
        model = new_model(
            shape,
            bos_id=values["tokenizer.ggml.bos_token_id"],
            eos_id=values["tokenizer.ggml.eos_token_id"],
            pad_id=values["tokenizer.ggml.padding_token_id"],
        )
        save_tokenizer(_tokenizer(values), folder, shape.context_length)
    except (OSError, KeyError, ValueError) as error:
        reason = f"it lacks the key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot train {path} on: {reason}; name its checkpoint instead") from error
    model.config.grit = {"dimension": grit.dimension, "markers": grit.markers, "passages": grit.passages}
    _load(model, {tensor.name: tensor for tensor in reader.tensors}, path)
    return model


def _shape(values: dict[str, Any], reader: GGUFReader) -> ModelShape:
    if (found := values["general.architecture"], values["tokenizer.ggml.pre"]) != ("llama", "gpt-2"):
        raise ValueError(f"expected a llama with the pre-tokenizer gpt-2, found {' and '.join(found)}")
    own = {name.removeprefix("llama."): value for name, value in values.items() if name.startswith("llama.")}
    is_own_kind = (
        own["attention.key_length"] * own["attention.head_count"] == own["embedding_length"]
        and np.float32(own["attention.layer_norm_rms_epsilon"]) == np.float32(1e-6)
        and not any(name.startswith("rope.scaling") for name in own)
    )
    if not is_own_kind:
        raise ValueError("its heads, norms or rotation are of a kind that no model trained here has")
    return ModelShape(
        vocab_size=own["vocab_size"],
        hidden_size=own["embedding_length"],
        intermediate_size=own["feed_forward_length"],
        num_layers=own["block_count"],
        num_heads=own["attention.head_count"],
        num_kv_heads=own["attention.head_count_kv"],
        context_length=own["context_length"],
        rope_theta=own["rope.freq_base"],
        tied_head=all(tensor.name != "output.weight" for tensor in reader.tensors),
        embedding_dimension=values["grit.embedding.dimension"],
    )


def _tokenizer(values: dict[str, Any]) -> Tokenizer:
    tokens, merges = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.merges"]
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = byte_level(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=pairs))
    if tokens[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
        raise ValueError(f"its first tokens are not {' '.join(SPECIAL_TOKENS)}")
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer


@torch.no_grad()
def _load(model: PreTrainedModel, tensors: dict[str, ReaderTensor], path: Path) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        stem = name.removesuffix(".weight")
        tensor = tensors.get(f"{names.get_name(stem)}.weight")
        if tensor is None:
            raise ValueError(f"{path} lacks the tensor of {name}")
        weight = torch.from_numpy(quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        num_heads = heads.get(stem.rpartition(".")[2], 0)
        parameter.copy_(_halves(weight, num_heads) if num_heads else weight)


def _halves(weight: Tensor, num_heads: int) -> Tensor:
    """Rows from pairs (x0,y0,x1,y1,..) within each head, which llama.cpp rotates, to halves (x0..,y0..)."""
    pairs = weight.reshape(num_heads, len(weight) // num_heads // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
