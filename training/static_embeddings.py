"""Token embeddings fitted as a bag of tokens before any block learns: minutes, where the blocks take hours.

A text is the plain sum of its tokens' vectors, so a step of a thousand pairs costs less than one of thirty-two
through the blocks. A vector's length is its token's weight: frequent tokens come out short, names long. The loss is
that of the steps that follow, with all that a recipe adds to it but the teacher. The model takes the vectors over in
`model.place_token_embeddings`, whose blocks start as the identity.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.config import TrainConfig
from training.data import EmbeddingBatch, in_lower_case, passage_key
from training.distributed import Ranks
from training.embedders import load_embedder
from training.examples import Pair, Source
from training.losses import similarity_distillation_loss
from training.steps import embedding_loss
from training.tokenizer import FrameTokenizer

FREQUENT = 1e-3
"""Share of the text above which a token starts short (the `a` of smooth inverse frequency, Arora et al. 2017)."""
ROWS_PER_SOURCE = 20_000


@dataclass(frozen=True)
class TokenizedSource:
    """One file's pairs as token ids; without instructions, which are never pooled."""

    queries: list[NDArray[np.int64]]
    positives: list[NDArray[np.int64]]
    negatives: list[NDArray[np.int64]]
    """Empty where a pair has none."""
    keys: list[int]
    """Equal numbers for equal positives."""
    weight: float


def fit_static_embeddings(
    start_VK: Tensor | None, pairs: Sequence[Source[Pair]], tokenizer: FrameTokenizer, config: TrainConfig
) -> Tensor:
    """Token vectors by which the sum over a query's tokens finds its passage, float32[V, K].

    Args:
        start_VK: unit vectors to start from, zeros for tokens without one; random if None.
    """
    sources = [tokenize_source(source, tokenizer, config) for source in pairs]
    taught = taught_texts(pairs, tokenizer, config) if config.static_teacher else None
    return fit_tokenized(start_VK, sources, tokenizer.tokenizer.get_vocab_size(), config, taught)


def fit_tokenized(
    start_VK: Tensor | None,
    sources: Sequence[TokenizedSource],
    num_tokens: int,
    config: TrainConfig,
    taught: TaughtTexts | None = None,
) -> Tensor:
    """As `fit_static_embeddings`, of texts that are token ids already."""
    torch.manual_seed(config.seed)
    if start_VK is None:
        start_VK = F.normalize(torch.randn(num_tokens, start_dimension(config)), dim=-1)
    counts_V = np.bincount(
        np.concatenate([ids for source in sources for ids in source.positives]), minlength=num_tokens
    )
    share_V1 = torch.from_numpy(counts_V / counts_V.sum()).float()[:, None]
    vectors_VK = (start_VK * FREQUENT / (FREQUENT + share_V1)).requires_grad_(True)
    optimizer = torch.optim.Adam([vectors_VK], betas=(0.9, 0.98))
    rng = random.Random(f"{config.seed}/static")
    for step in range(config.static_steps):
        loss = _static_loss(vectors_VK, rng.choices(sources, [each.weight for each in sources])[0], rng, config)
        if taught is not None:
            loss = loss + config.static_distillation_weight * _distillation_loss(vectors_VK, taught, rng, config)
        loss.backward()
        done = step / config.static_steps
        for group in optimizer.param_groups:
            group["lr"] = config.static_lr * min((step + 1) / 20, 1.0, 2 * (1 - done))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"static embeddings  step {step + 1}  loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return vectors_VK.detach()


@dataclass(frozen=True)
class TaughtTexts:
    """Texts as token ids, and what a teacher makes of each: float16[N, T], L2-normalised."""

    texts: list[NDArray[np.int64]]
    embeddings_NT: NDArray[np.float16]


def taught_texts(pairs: Sequence[Source[Pair]], tokenizer: FrameTokenizer, config: TrainConfig) -> TaughtTexts:
    """Queries, and stretches of passages, as the teacher embeds them: some thousand words a second on two cores."""
    rng = random.Random(f"{config.seed}/taught")
    found: set[str] = set()
    while len(found) < config.static_teacher_texts:
        source = rng.choices(pairs, [each.weight for each in pairs])[0]
        for pair in source.draw(rng, 20):
            words = rng.choice(pair.positives)[1].split()
            length = rng.choice(TAUGHT_WORDS)
            start = rng.randrange(max(1, len(words) - length + 1)) if rng.random() < 0.5 else 0
            found |= {pair.query[1].strip()[:300], " ".join(words[start : start + length])[:400]} - {""}
    texts = sorted(found)
    embed = load_embedder(config.static_teacher, num_threads=config.num_threads).embed
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    parts = []
    for at in range(0, len(order), TAUGHT_PART):
        parts.append(embed([("", texts[number]) for number in order[at : at + TAUGHT_PART]]).astype(np.float16))
        print(f"static teacher  {at + len(parts[-1])} of {len(texts)} texts", file=sys.stderr, flush=True)
    encoded = tokenizer.tokenizer.encode_batch([texts[number] for number in order], add_special_tokens=False)
    return TaughtTexts([np.array(each.ids, dtype=np.int64) for each in encoded], np.concatenate(parts))


TAUGHT_WORDS = (12, 24, 24, 48, 48)
"""Lengths of the stretches, drawn alike."""
TAUGHT_PART = 4096


def _distillation_loss(vectors_VK: Tensor, taught: TaughtTexts, rng: random.Random, config: TrainConfig) -> Tensor:
    chosen = rng.sample(range(len(taught.texts)), min(config.static_batch_size, len(taught.texts)))
    student_BK = bag(vectors_VK, [taught.texts[index] for index in chosen])
    teacher_BT = torch.from_numpy(taught.embeddings_NT[chosen].astype(np.float32))
    return similarity_distillation_loss(student_BK, teacher_BT, config.static_temperature)


def start_dimension(config: TrainConfig) -> int:
    """K: as many as are pooled."""
    return config.model.pooled_dimension


def tokenize_source(source: Source[Pair], tokenizer: FrameTokenizer, config: TrainConfig) -> TokenizedSource:
    pairs = source.draw(random.Random(config.seed), ROWS_PER_SOURCE)
    longest = max(config.passage_tokens)

    def ids(texts: list[str], max_tokens: int) -> list[NDArray[np.int64]]:
        encoded = tokenizer.tokenizer.encode_batch(
            [text[: max_tokens * 10] for text in texts], add_special_tokens=False
        )
        return [np.array(each.ids[:max_tokens], dtype=np.int64) for each in encoded]

    rng = random.Random(f"{config.seed}/{source.name}/lower")
    if config.lowercase_queries:
        pairs = [in_lower_case(pair) if rng.random() < config.lowercase_queries else pair for pair in pairs]
    return TokenizedSource(
        ids([pair.query[1] for pair in pairs], config.query_tokens),
        ids([pair.positives[0][1] for pair in pairs], longest),
        ids([pair.negatives[0][1] if pair.negatives else "" for pair in pairs], longest),
        [passage_key(pair.positives[0][1]) for pair in pairs],
        source.weight,
    )


def _static_loss(vectors_VK: Tensor, source: TokenizedSource, rng: random.Random, config: TrainConfig) -> Tensor:
    chosen = rng.sample(range(len(source.queries)), min(config.static_batch_size, len(source.queries)))
    longest = rng.choice(config.passage_tokens)
    positives = [source.positives[index][:longest] for index in chosen]
    negatives = [source.negatives[index][:longest] for index in chosen if len(source.negatives[index])]
    query_BK = bag(vectors_VK, [source.queries[index] for index in chosen])
    passage_NK = bag(vectors_VK, positives + negatives)
    keys = [source.keys[index] for index in chosen] + [0] * len(negatives)
    batch = EmbeddingBatch([], [], len(chosen), torch.tensor(keys), "static embeddings")
    return embedding_loss(query_BK, passage_NK, batch, config, config.static_temperature, Ranks(), query_BK.shape[1])


def bag(vectors_VK: Tensor, texts: Sequence[NDArray[np.int64]]) -> Tensor:
    """Normalised sum of each text's token vectors, [B, K]."""
    starts_B = np.cumsum([0, *(len(ids) for ids in texts[:-1])])
    summed_BK = F.embedding_bag(
        torch.from_numpy(np.concatenate(texts)), vectors_VK, torch.from_numpy(starts_B), mode="sum"
    )
    return F.normalize(summed_BK, dim=-1)
