"""jsonl files -> examples -> EmbeddingBatch and GenerationBatch.

The batch of a step is a pure function of (seed, step): a resumed run draws exactly what an undisturbed one
would, and nothing about the data has to be saved. All pairs of a contrastive batch come from one file, so that
the other passages are negatives of the same kind (GRIT paper, table 22).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import zstandard
from torch import Tensor

from gritdesk.grit_format import BOS, EncodedFrame, chat_frame, embedding_frame, encode
from gritdesk.records import EmbeddingInput, Turn
from training.config import TrainConfig
from training.distributed import Ranks
from training.tokenizer import FrameTokenizer

Example = TypeVar("Example")


@dataclass(frozen=True)
class Pair:
    query: EmbeddingInput
    positive: EmbeddingInput
    negative: EmbeddingInput | None


@dataclass(frozen=True)
class Chat:
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class TokenRows:
    """Some rows of a batch, padded on the right to their longest; row i is number `order[i]` of the batch."""

    ids_BT: Tensor
    mask_BT: Tensor
    counts_BT: Tensor
    """1 where a token is pooled or is a target."""
    order: tuple[int, ...]
    sequence_BT: Tensor | None = None
    """Number of the sequence a token belongs to, from 1, where a row holds several; 0 on padding."""
    positions_BT: Tensor | None = None
    """Where they do not simply run from 0."""

    @property
    def num_tokens(self) -> int:
        return int(self.mask_BT.sum())

    def to(self, device: torch.device) -> TokenRows:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class EmbeddingBatch:
    queries: list[TokenRows]
    passages: list[TokenRows]
    """Positives first, in the order of the queries, then hard negatives."""
    num_queries: int
    keys_N: Tensor
    """Equal numbers for equal passages."""
    source: str

    @property
    def num_passages(self) -> int:
        return len(self.keys_N)


@dataclass(frozen=True)
class GenerationBatch:
    rows: list[TokenRows]
    num_targets: tuple[int, ...]
    """Of each sample, in the order of the batch."""


# ---------------------------------------------------------------- jsonl -> examples


def read_rows(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl or .jsonl.zst file.

    Raises: ValueError naming file and line if a line is not a JSON object.
    """
    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw) if path.suffix == ".zst" else raw
        with io.TextIOWrapper(stream, encoding="utf-8") as lines:
            for number, line in enumerate(itertools.islice(lines, limit), start=1):
                try:
                    row = json.loads(line)
                    assert isinstance(row, dict)
                except (ValueError, AssertionError) as error:
                    raise ValueError(f"{path}, line {number}: expected a JSON object, found {line[:60]!r}") from error
                yield row


def read_pairs(path: Path, limit: int) -> list[Pair]:
    """Rows `{"query": [instruction, text], "pos": [[...]], "neg": [[...]]}`; the first of each list is taken."""
    found = []
    for number, row in enumerate(read_rows(path, limit), start=1):
        try:
            negative = tuple(row["neg"][0]) if row.get("neg") else None
            found.append(Pair(tuple(row["query"]), tuple(row["pos"][0]), negative))
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: expected query, pos and neg as [instruction, text]") from error
    return [pair for pair in found if pair.query[1].strip() and pair.positive[1].strip()]


def read_chats(path: Path, limit: int) -> list[Chat]:
    """Rows `{"messages": [{"role", "content"}, ...]}`."""
    found = []
    for number, row in enumerate(read_rows(path, limit), start=1):
        try:
            found.append(Chat(tuple(Turn(each["role"], each["content"]) for each in row["messages"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: expected messages with role and content") from error
    return found


def read_texts(path: Path, limit: int) -> list[str]:
    """Rows `{"text": ...}`."""
    return [str(row.get("text", "")) for row in read_rows(path, limit) if row.get("text")]


@dataclass(frozen=True)
class Source(Generic[Example]):
    """One file's examples and its share of the draws."""

    name: str
    examples: list[Example]
    weight: float


@dataclass(frozen=True)
class Sources:
    pairs: list[Source[Pair]]
    chats: list[Source[Chat]]
    texts: list[Source[str]]


def read_sources(config: TrainConfig) -> Sources:
    """Everything the recipe names, in memory.

    Raises: ValueError if a named file is missing or a line in it is malformed.
    """
    root = Path(config.data_dir)

    def read(kind: str, weights: dict[str, float], reader: Any) -> list[Any]:
        sources = []
        for name, weight in weights.items():
            path = next((p for p in (root / kind).glob(f"{name}.jsonl*")), None)
            if path is None:
                raise ValueError(f"no file {name}.jsonl or {name}.jsonl.zst in {root / kind}")
            examples = reader(path, config.max_rows_per_file)
            if not examples:
                raise ValueError(f"{path} holds no usable row")
            sources.append(Source(name, examples, weight * math.sqrt(len(examples))))
        return sources

    return Sources(
        read("pairs", config.pairs, read_pairs),
        read("chat", config.chat, read_chats),
        read("text", config.text, read_texts),
    )


def tokenizer_sample(sources: Sources, size_mb: int, seed: int) -> Iterator[str]:
    """Texts for the tokenizer, the same number of characters from each file, up to `size_mb` in all."""
    rng = random.Random(seed)
    every: list[tuple[list[Any], Any]] = [
        *((source.examples, lambda chat: "\n".join(turn.text for turn in chat.turns)) for source in sources.chats),
        *((source.examples, lambda text: text) for source in sources.texts),
        *((source.examples, lambda pair: f"{pair.query[1]}\n{pair.positive[1]}") for source in sources.pairs),
    ]
    for examples, as_text in every:
        left = size_mb * 1_000_000 / len(every)
        for index in rng.sample(range(len(examples)), len(examples)):
            text = as_text(examples[index])[:4000]
            yield text
            left -= len(text)
            if left < 0:
                break


# ---------------------------------------------------------------- examples -> batches


class Batches:
    """Draws the batches of any step. Holds no position: `embedding(step)` is the same whenever it is asked."""

    def __init__(
        self, sources: Sources, tokenizer: FrameTokenizer, config: TrainConfig, ranks: Ranks | None = None
    ) -> None:
        """With several ranks, each gets its part of the same batch."""
        self.sources = sources
        self.tokenizer = tokenizer
        self.config = config
        self.ranks = ranks or Ranks()

    def embedding(self, step: int) -> EmbeddingBatch:
        config = self.config
        rng = random.Random(f"{config.seed}/embedding/{step}")
        source = _draw(self.sources.pairs, rng)
        pairs = rng.sample(source.examples, min(config.embedding_batch_size, len(source.examples)))
        pairs = pairs[self.ranks.share(len(pairs))]
        longest = rng.choice(config.passage_tokens)
        negatives = [pair.negative for pair in pairs if pair.negative is not None and pair.negative[1].strip()]
        queries = [self._embedding_row(pair.query, config.query_tokens) for pair in pairs]
        texts = [*(pair.positive for pair in pairs), *negatives]
        passages = [self._embedding_row(each, longest) for each in texts]
        return EmbeddingBatch(
            _sorted_rows(queries, config.micro_batch_tokens, self.tokenizer.pad_id),
            _sorted_rows(passages, config.micro_batch_tokens, self.tokenizer.pad_id),
            len(queries),
            torch.tensor([passage_key(text) for _, text in texts], dtype=torch.long),
            source.name,
        )

    def generation(self, step: int) -> GenerationBatch:
        config = self.config
        rng = random.Random(f"{config.seed}/generation/{step}")
        progress = min(step / config.max_steps, 1.0)
        chat_share = config.chat_share_start + (config.chat_share_end - config.chat_share_start) * progress
        if not self.sources.texts or not self.sources.chats:
            chat_share = float(bool(self.sources.chats))
        rows: list[EncodedFrame] = []
        left = int(config.generation_tokens * chat_share)
        while left > 0:
            as_text = rng.random() < config.chat_as_text * (1 - progress)
            row = self._chat_row(rng.choice(_draw(self.sources.chats, rng).examples), as_text)
            if row is not None:
                rows.append(row)
                left -= len(row.ids)
        left = config.generation_tokens - int(config.generation_tokens * chat_share)
        while left > 0:
            row = self._text_row(rng.choice(_draw(self.sources.texts, rng).examples), rng)
            rows.append(row)
            left -= len(row.ids)
        rows = rows[self.ranks.share(len(rows))]
        num_targets = tuple(sum(row.counts[1:]) for row in rows)
        return GenerationBatch(_sorted_rows(rows, config.micro_batch_tokens, self.tokenizer.pad_id), num_targets)

    def _embedding_row(self, each: EmbeddingInput, max_tokens: int) -> EncodedFrame:
        # no token is shorter than one character, and few longer than ten: cut before tokenizing
        frame = encode(embedding_frame(each[0], each[1][: max_tokens * 10]), self.tokenizer, "special")
        end = max(max_tokens, frame.num_prefix + 8)
        return EncodedFrame(frame.ids[:end], frame.counts[:end])

    def _chat_row(self, chat: Chat, as_text: bool) -> EncodedFrame | None:
        frame = encode(chat_frame(chat.turns), self.tokenizer, "special")
        if as_text:
            frame = EncodedFrame(frame.ids, [False] + [True] * (len(frame.ids) - 1))
        fits = len(frame.ids) <= self.config.sequence_tokens
        return frame if fits else None  # a chat without its answer teaches nothing

    def _text_row(self, text: str, rng: random.Random) -> EncodedFrame:
        limit = self.config.sequence_tokens
        start = rng.randrange(max(len(text) - limit * 4, 0) + 1)
        ids = self.tokenizer.tokenize(text[start : start + limit * 8])
        ids = [self.tokenizer.control_id(BOS), *ids][:limit]
        return EncodedFrame(ids, [False] + [True] * (len(ids) - 1))


def _draw(sources: Sequence[Source[Example]], rng: random.Random) -> Source[Example]:
    return rng.choices(sources, weights=[source.weight for source in sources])[0]


def passage_key(text: str) -> int:
    """A number that equal texts share, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def _sorted_rows(frames: list[EncodedFrame], micro_batch_tokens: int, pad_id: int) -> list[TokenRows]:
    """Micro-batches of rows of like length, each of at most so many tokens with its padding, or of one row."""
    groups: list[list[int]] = []
    for index in sorted(range(len(frames)), key=lambda index: len(frames[index].ids)):
        if groups and (len(groups[-1]) + 1) * len(frames[index].ids) <= micro_batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [pad_rows([frames[index] for index in group], pad_id, tuple(group)) for group in groups]


def pad_rows(frames: Sequence[EncodedFrame], pad_id: int, order: tuple[int, ...] = ()) -> TokenRows:
    """Frames padded on the right to the longest; `order` says which rows of a batch they are, if not the first."""
    shape = (len(frames), max(len(frame.ids) for frame in frames))
    ids_BT, mask_BT = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    counts_BT = torch.zeros(shape, dtype=torch.long)
    for row, frame in enumerate(frames):
        length = len(frame.ids)
        ids_BT[row, :length] = torch.tensor(frame.ids)
        mask_BT[row, :length] = 1
        counts_BT[row, :length] = torch.tensor(frame.counts, dtype=torch.long)
    return TokenRows(ids_BT, mask_BT, counts_BT, order or tuple(range(len(frames))))
