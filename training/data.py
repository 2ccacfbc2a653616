"""Examples -> EmbeddingBatch and GenerationBatch.

The batch of a step is a pure function of (seed, step): a resumed run draws exactly what an undisturbed one
would, and nothing about the data has to be saved. All pairs of a contrastive batch come from one file, so that
the other passages are negatives of the same kind (GRIT paper, table 22).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gritdesk.grit_format import BOS, REFUSAL, EncodedFrame, chat_frame, embedding_frame, encode
from gritdesk.records import EmbeddingInput
from training.config import TrainConfig
from training.distributed import Ranks
from training.examples import Chat, EmptyExample, Pair, Source, Sources
from training.pointing import NOWHERE, cited_blocks, copied_from
from training.tokenizer import FrameTokenizer

_MAX_DRAWS = 1000


@dataclass(frozen=True)
class TokenRows:
    """Some rows of a batch, padded on the right to their longest; row i is number `order[i]` of the batch, or holds
    the numbers `sequence_BT` tells."""

    ids_BT: Tensor
    mask_BT: Tensor
    counts_BT: Tensor
    """1 where a token is pooled or is a target."""
    order: tuple[int, ...]
    sequence_BT: Tensor | None = None
    """Where a row holds several of the batch: a token's number in it, from 1; 0 on padding."""
    positions_BT: Tensor | None = None
    """Where they do not simply run from 0."""
    block_BT: Tensor | None = None
    """Where chats have passages as blocks: a token's passage within its chat, from 1; 0 outside."""
    branch_BT: Tensor | None = None
    """Where chats have several endings: a token's ending, from 1; 0 in what they share."""
    source_BT: Tensor | None = None
    """Where something is copied: the position in its row that a token is copied from, or NOWHERE."""

    @property
    def num_tokens(self) -> int:
        return int(self.mask_BT.sum())

    def to(self, device: torch.device) -> TokenRows:
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
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
    taught_query_BK: Tensor | None = None
    """A teacher's embeddings of the same texts, L2-normalised."""
    taught_passage_NK: Tensor | None = None

    @property
    def num_passages(self) -> int:
        return len(self.keys_N)


@dataclass(frozen=True)
class GenerationBatch:
    rows: list[TokenRows]
    num_targets: tuple[int, ...]
    """Of each sample, in the order of the batch."""
    importance: tuple[float, ...] = ()
    """What a sample's targets count against those of others; empty: all alike."""


@dataclass(frozen=True)
class BranchedFrame(EncodedFrame):
    """A chat with several endings, one behind the other; each sees what they share and itself."""

    branches: list[int] = field(default_factory=list)
    """One number per id: its ending's, from 1, or 0 in what all share."""
    sources: list[int] = field(default_factory=list)
    """One position per id, that it is copied from, or NOWHERE; empty: nothing is copied."""

    @property
    def positions(self) -> list[int]:
        """As if each ending stood right behind what they share."""
        num_shared = self.branches.count(0)
        starts = {0: 0}
        for at, branch in enumerate(self.branches):
            starts.setdefault(branch, at - num_shared)
        return [at - starts[branch] for at, branch in enumerate(self.branches)]


def join_endings(frames: Sequence[EncodedFrame]) -> EncodedFrame:
    """Frames that begin alike -> one that holds their common beginning once."""
    if len(frames) == 1:
        return frames[0]
    shortest = min(len(frame.ids) for frame in frames)
    columns = zip(
        *(zip(frame.ids, frame.blocks or [0] * len(frame.ids), strict=True) for frame in frames), strict=False
    )
    num_shared = next((at for at, column in enumerate(columns) if len(set(column)) > 1), shortest)
    first_target = min(frame.counts.index(True) for frame in frames if True in frame.counts)
    # the token before an answer is its question's own: no answer may be learned from another's question
    num_shared = min(num_shared, first_target - 1)
    ids, counts, blocks = frames[0].ids[:num_shared], frames[0].counts[:num_shared], frames[0].blocks[:num_shared]
    branches = [0] * num_shared
    for number, frame in enumerate(frames, start=1):
        ids = ids + frame.ids[num_shared:]
        counts = counts + frame.counts[num_shared:]
        blocks = blocks + frame.blocks[num_shared:]
        branches += [number] * (len(frame.ids) - num_shared)
    return BranchedFrame(ids, counts, blocks, branches)


def tokenizer_sample(sources: Sources, size_mb: int, seed: int) -> Iterator[str]:
    """Texts for the tokenizer, the same number of characters from each file, up to `size_mb` in all."""
    rng = random.Random(seed)
    every: list[tuple[Source[Any], Callable[[Any], str]]] = [
        *((source, lambda chat: "\n".join(turn.text for turn in chat.turns)) for source in sources.chats),
        *((source, lambda text: text) for source in sources.texts),
        *((source, lambda pair: f"{pair.query[1]}\n{pair.positives[0][1]}") for source in sources.pairs),
    ]
    for source, as_text in every:
        left = size_mb * 1_000_000 // len(every)
        for index in rng.sample(range(len(source.rows)), len(source.rows)):
            try:
                text = as_text(source.rows[index])[:4000]
            except EmptyExample:
                continue
            yield text
            left -= len(text)
            if left < 0:
                break


# ---------------------------------------------------------------- examples -> batches


class Batches:
    """Draws the batches of any step. Holds no position: `embedding(step)` is the same whenever it is asked."""

    def __init__(
        self,
        sources: Sources,
        tokenizer: FrameTokenizer,
        config: TrainConfig,
        ranks: Ranks | None = None,
        teacher: Callable[[Sequence[EmbeddingInput]], NDArray[np.float32]] | None = None,
    ) -> None:
        """With several ranks, each gets its part of the same batch.

        Args:
            teacher: gives float32[num, K], L2-normalised, to put beside each batch.
        """
        self.sources = sources
        self.tokenizer = tokenizer
        self.config = config
        self.ranks = ranks or Ranks()
        self.teacher = teacher
        self._prefixes: dict[str, int] = {}
        """Tokens before a text, by its instruction: files have one or a few."""

    def embedding(self, step: int) -> EmbeddingBatch:
        """Pairs of one file; one whose instruction leaves its text no room is dropped and counted.

        Raises: ValueError if fewer than two are left.
        """
        config = self.config
        rng = random.Random(f"{config.seed}/embedding/{step}")
        source = _draw(self.sources.pairs, rng)
        pairs = source.draw(rng, config.embedding_batch_size)
        longest = rng.choice(config.passage_tokens)
        if config.lowercase_queries:
            pairs = [in_lower_case(pair) if rng.random() < config.lowercase_queries else pair for pair in pairs]
        positives = [rng.choice(pair.positives) for pair in pairs]
        negatives = [rng.sample(pair.negatives, min(config.hard_negatives, len(pair.negatives))) for pair in pairs]
        # each a query, its positive, its hard negatives
        drawn = [
            [pair.query, positive, *hard] for pair, positive, hard in zip(pairs, positives, negatives, strict=True)
        ]
        kept = [row for row in drawn if self._has_room(row, config.query_tokens, longest)]
        source.dropped["instruction fills the length limit"] += len(drawn) - len(kept)
        if len(kept) < 2:
            raise ValueError(
                f"{source.name}: {len(kept)} of {len(drawn)} pairs are left at step {step}, and a batch needs two; "
                f"dropped so far: {dict(source.dropped)}"
            )
        kept = kept[self.ranks.share(len(kept))]
        queries = [row[0] for row in kept]
        passages = [row[1] for row in kept] + [each for row in kept for each in row[2:]]
        return EmbeddingBatch(
            self._sorted_rows([self._embedding_row(each, config.query_tokens) for each in queries]),
            self._sorted_rows([self._embedding_row(each, longest) for each in passages]),
            len(queries),
            torch.tensor([passage_key(text) for _, text in passages], dtype=torch.long),
            source.name,
            self._taught(queries),
            self._taught(passages),
        )

    def _has_room(self, row: Sequence[EmbeddingInput], query_tokens: int, passage_tokens: int) -> bool:
        """Whether each text has room behind its instruction; the same on all ranks, so that each has its share."""
        limits = [query_tokens] + [passage_tokens] * (len(row) - 1)
        return all(self._num_prefix(each[0]) < limit for each, limit in zip(row, limits, strict=True))

    def _num_prefix(self, instruction: str) -> int:
        if instruction not in self._prefixes:
            frame = encode(embedding_frame(instruction, "-"), self.tokenizer, self.tokenizer.markers)
            self._prefixes[instruction] = frame.num_prefix
        return self._prefixes[instruction]

    def _taught(self, inputs: list[EmbeddingInput]) -> Tensor | None:
        return None if self.teacher is None else torch.from_numpy(self.teacher(inputs))

    def generation(self, step: int) -> GenerationBatch:
        config = self.config
        rng = random.Random(f"{config.seed}/generation/{step}")
        progress = min(step / config.max_steps, 1.0)
        chat_share = config.chat_share_start + (config.chat_share_end - config.chat_share_start) * progress
        if not self.sources.texts or not self.sources.chats:
            chat_share = float(bool(self.sources.chats))
        rows: list[EncodedFrame] = []
        importance: list[float] = []
        if config.generation_sequences:
            num_chats = round(config.generation_sequences * chat_share)
            for number in range(config.generation_sequences):
                is_chat = number < num_chats
                source = _draw(self.sources.chats if is_chat else self.sources.texts, rng)
                rows.append(self._chat_row(source, rng, as_text=False) if is_chat else self._text_row(source, rng))
        left = int(config.generation_tokens * chat_share)
        while left > 0:
            as_text = rng.random() < config.chat_as_text * (1 - progress)
            row = self._chat_row(_draw(self.sources.chats, rng), rng, as_text)
            rows.append(row)
            importance.append(1.0 if as_text else config.chat_weight)
            left -= len(row.ids)
        left = config.generation_tokens - int(config.generation_tokens * chat_share)
        while left > 0:
            row = self._text_row(_draw(self.sources.texts, rng), rng)
            rows.append(row)
            left -= len(row.ids)
        importance += [1.0] * (len(rows) - len(importance))
        share = self.ranks.share(len(rows))
        rows, importance = rows[share], importance[share]
        num_targets = tuple(sum(row.counts[1:]) for row in rows)
        packed = self._sorted_rows(rows, packed=config.pack_generation)
        return GenerationBatch(packed, num_targets, tuple(importance) if set(importance) != {1.0} else ())

    def _sorted_rows(self, frames: list[EncodedFrame], *, packed: bool = False) -> list[TokenRows]:
        """Micro-batches of rows of like length, each of at most so many tokens with its padding, or of one row.

        All ranks have the same number of them: each is a pass in which they wait for each other.
        """
        rows = pack(frames, self.config.sequence_tokens) if packed else [[number] for number in range(len(frames))]
        length_of = {id(row): sum(len(frames[number].ids) for number in row) for row in rows}
        groups: list[list[list[int]]] = []
        for row in sorted(rows, key=lambda row: length_of[id(row)]):
            if groups and (len(groups[-1]) + 1) * length_of[id(row)] <= self.config.micro_batch_tokens:
                groups[-1].append(row)
            else:
                groups.append([row])
        num_groups = self.ranks.max(len(groups))
        while len(groups) < num_groups:
            largest = max(range(len(groups)), key=lambda number: len(groups[number]), default=0)
            group = groups[largest] if groups else []
            if len(group) < 2:
                raise ValueError(f"a batch of {len(rows)} rows is too small for {self.ranks.size} processes")
            groups[largest : largest + 1] = [group[: len(group) // 2], group[len(group) // 2 :]]
        pad = pad_packed if packed else pad_rows
        # the longest first: what does not fit into memory says so at once, and what follows fits where they lay
        return [pad(frames, group, self.tokenizer.pad_id) for group in reversed(groups)]

    def _embedding_row(self, each: EmbeddingInput, max_tokens: int) -> EncodedFrame:
        # no token is shorter than one character, and few longer than ten: cut before tokenizing
        frame = encode(embedding_frame(each[0], each[1][: max_tokens * 10]), self.tokenizer, self.tokenizer.markers)
        end = max(max_tokens, frame.num_prefix + 8)  # an instruction alone says nothing of its text
        return _cut(frame, end)

    def _chat_row(self, source: Source[Chat], rng: random.Random, as_text: bool) -> EncodedFrame:
        for _ in range(_MAX_DRAWS):
            for chat in source.draw(rng, 1):
                if not chat.others and chat.turns[-1].text == REFUSAL and rng.random() >= self.config.kept_refusals:
                    continue
                blocks = self.config.passages != "plain" and rng.random() >= self.config.plain_passages_share
                endings = [chat.turns, *((*chat.turns[:-2], *other) for other in chat.others)]
                frame = join_endings(
                    [
                        encode(chat_frame(turns, blocks=blocks), self.tokenizer, self.tokenizer.markers)
                        for turns in endings
                    ]
                )
                frame = _cut(frame, self.config.sequence_tokens)
                if any(frame.counts[1:]):
                    frame = with_sources(frame) if self.config.pointing_weight else frame
                    if self.config.later_choices < 1:
                        frame = self._mostly_first(frame, rng)
                    return replace(frame, counts=every_target(frame)) if as_text else frame
                source.dropped["no answer within sequence_tokens"] += 1
        raise ValueError(
            f"no chat of {source.name} has an answer within {self.config.sequence_tokens} tokens in {_MAX_DRAWS} "
            "draws; raise sequence_tokens or leave the file out"
        )

    def _mostly_first(self, frame: EncodedFrame, rng: random.Random) -> EncodedFrame:
        """The frame without most of the choices of another passage than the first; what is copied behind them stays."""
        counts = list(frame.counts)
        sources = list(frame.sources) if isinstance(frame, BranchedFrame) else []
        for at, block in cited_blocks(frame.ids, frame.counts, frame.blocks, _branches(frame)):
            if block > 1 and rng.random() >= self.config.later_choices:
                counts[at] = False
                for each in range(at - 1, at + 1) if sources else ():
                    sources[each] = NOWHERE
        return replace(frame, counts=counts, **({"sources": sources} if sources else {}))

    def _text_row(self, source: Source[str], rng: random.Random) -> EncodedFrame:
        limit = self.config.sequence_tokens
        for _ in range(_MAX_DRAWS):
            for text in source.draw(rng, 1):
                start = rng.randrange(max(len(text) - limit * 4, 0) + 1)
                ids = self.tokenizer.tokenize(text[start : start + limit * 8])
                num_before = 0
                if rng.random() < self.config.repeated_text_share:
                    ids = ids[: rng.randrange(16, limit // 2)]
                    num_before, ids = len(ids), ids * 2
                ids = [self.tokenizer.control_id(BOS), *ids][:limit]
                if len(ids) > 1:
                    frame = EncodedFrame(ids, [False] + [True] * (len(ids) - 1))
                    if not num_before or not self.config.pointing_weight:
                        return frame
                    sources = [at - num_before if at > num_before else NOWHERE for at in range(len(ids))]
                    return BranchedFrame(**vars(frame), branches=[0] * len(ids), sources=sources)
        raise ValueError(f"{source.name} holds only empty texts")


def _cut(frame: EncodedFrame, max_tokens: int) -> EncodedFrame:
    every = {name: value[:max_tokens] for name, value in vars(frame).items()}
    return type(frame)(**every)


def every_target(frame: EncodedFrame) -> list[bool]:
    """All that is predicted from what stands before it: not the first token, nothing of a passage that is a block, and
    not where a further ending begins, for there the end of another stands before it."""
    branches = _branches(frame)
    return [
        at > 0 and not (frame.blocks and frame.blocks[at]) and branches[at - 1] in (branches[at], 0)
        for at in range(len(frame.ids))
    ]


def with_sources(frame: EncodedFrame) -> BranchedFrame:
    """The frame of a chat, with where its answers are copied from."""
    branches = _branches(frame)
    sources = copied_from(frame.ids, frame.counts, frame.blocks, branches)
    return BranchedFrame(frame.ids, frame.counts, frame.blocks, branches, sources)


def in_lower_case(pair: Pair) -> Pair:
    """The pair, its query as people type it."""
    return replace(pair, query=(pair.query[0], pair.query[1].lower()))


def _draw(sources: Sequence[Source[Any]], rng: random.Random) -> Source[Any]:
    return rng.choices(sources, weights=[source.weight for source in sources])[0]


def passage_key(text: str) -> int:
    """A number that equal texts share, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def pack(frames: Sequence[EncodedFrame], max_tokens: int) -> list[list[int]]:
    """Numbers of the frames that share a row: the longest first, each into the first row that has room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(frames)), key=lambda number: -len(frames[number].ids)):
        length = len(frames[number].ids)
        at = next((at for at, left in enumerate(room) if left >= length), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(max_tokens)
        rows[at].append(number)
        room[at] -= length
    return rows


def pad_rows(frames: Sequence[EncodedFrame], rows: Sequence[Sequence[int]], pad_id: int) -> TokenRows:
    """Rows of one frame each, padded on the right to the longest."""
    shape = (len(rows), max(len(frames[number].ids) for (number,) in rows))
    ids_BT, mask_BT = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    counts_BT, block_BT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    branch_BT, positions_BT = torch.zeros(shape, dtype=torch.long), torch.arange(shape[1]).repeat(shape[0], 1)
    source_BT = torch.full(shape, NOWHERE)
    for row, (number,) in enumerate(rows):
        frame, length = frames[number], len(frames[number].ids)
        ids_BT[row, :length] = torch.tensor(frame.ids)
        mask_BT[row, :length] = 1
        counts_BT[row, :length] = torch.tensor(frame.counts, dtype=torch.long)
        if frame.blocks:
            block_BT[row, :length] = torch.tensor(frame.blocks)
        if isinstance(frame, BranchedFrame):
            branch_BT[row, :length] = torch.tensor(frame.branches)
            positions_BT[row, :length] = torch.tensor(frame.positions)
            if frame.sources:
                source_BT[row, :length] = torch.tensor(frame.sources)
    order = tuple(number for (number,) in rows)
    has_branches = bool(branch_BT.any())
    return TokenRows(
        ids_BT,
        mask_BT,
        counts_BT,
        order,
        positions_BT=positions_BT if has_branches else None,
        block_BT=block_BT if bool(block_BT.any()) else None,
        branch_BT=branch_BT if has_branches else None,
        source_BT=source_BT if bool((source_BT != NOWHERE).any()) else None,
    )


def _branches(frame: EncodedFrame) -> list[int]:
    return frame.branches if isinstance(frame, BranchedFrame) else [0] * len(frame.ids)


def _joined_sources(frames: Sequence[EncodedFrame]) -> list[int]:
    """Positions in a row that holds the frames one behind the other."""
    joined: list[int] = []
    for frame in frames:
        sources = frame.sources if isinstance(frame, BranchedFrame) else []
        start = len(joined)
        joined += [NOWHERE if each == NOWHERE else start + each for each in sources or [NOWHERE] * len(frame.ids)]
    return joined


def pad_packed(frames: Sequence[EncodedFrame], rows: Sequence[Sequence[int]], pad_id: int) -> TokenRows:
    """Rows of several frames, one behind the other; each begins at position 0 and sees itself alone."""
    joined = [
        BranchedFrame(
            [token_id for number in row for token_id in frames[number].ids],
            [counted for number in row for counted in frames[number].counts],
            [block for number in row for block in frames[number].blocks or [0] * len(frames[number].ids)],
            [branch for number in row for branch in _branches(frames[number])],
            _joined_sources([frames[number] for number in row]),
        )
        for row in rows
    ]
    padded = pad_rows(joined, [[number] for number in range(len(rows))], pad_id)
    sequence_BT, positions_BT = torch.zeros_like(padded.ids_BT), torch.zeros_like(padded.ids_BT)
    for row, numbers in enumerate(rows):
        at = 0
        for number in numbers:
            end = at + len(frames[number].ids)
            sequence_BT[row, at:end] = number + 1
            frame = frames[number]
            positions_BT[row, at:end] = (
                torch.tensor(frame.positions) if isinstance(frame, BranchedFrame) else torch.arange(end - at)
            )
            at = end
    return replace(padded, sequence_BT=sequence_BT, positions_BT=positions_BT)
