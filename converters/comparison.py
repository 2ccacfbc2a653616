"""Two readers -> a Report: what both make of the same texts, in both attention modes.

Run by converters.verify as a child, `python -m converters.comparison JOB`, the texts as a JSON list through stdin;
the Report, or the line of a refusal, is one JSON line on stdout.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.battery import CHAT, QUESTIONS
from converters.gguf_reader import GgufReader
from converters.tokenizer_check import first_difference
from converters.verify import Limits, Report, Row, limits_of
from converters.weights import Weights, weights_row
from gritdesk.errors import GritDeskError
from gritdesk.grit_format import (
    BOS,
    EOS,
    MARKERS,
    QUERY_INSTRUCTION,
    EncodedFrame,
    GritMetadata,
    Segment,
    chat_frame,
    encode,
)

_ROWS = 64
"""Places compared at once: with a vocabulary of 262144 tokens each float64 array of them takes 134 MB."""


class Reader(Weights, Protocol):
    """A model as a comparison sees it; also a grit_format.FrameTokenizer."""

    name: str
    quantization_type: str
    pre: str
    """How it cuts words, as a GGUF says it."""
    grit: GritMetadata
    n_vocab: int
    max_tokens: int
    """Of a text in causal attention."""
    max_embedded_tokens: int
    """Of an embedded text with its frame; beyond a window embeddings are not defined."""

    def tokenize(self, text: str) -> list[int]: ...

    def control_id(self, token: str) -> int: ...

    def hidden_states(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Last hidden states under bidirectional attention, float32[T, n_embd]."""
        ...

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token under causal attention, float32[T, n_vocab]; never asked of what only embeds."""
        ...


def compare(found: Reader, expected: Reader, texts: Sequence[str]) -> Report:
    """Measure how near `found` is to `expected`, in what their model does: one that only embeds has no next tokens.

    Raises: ValueError if they are not of one model, or read a text or a frame as other ids.
    """
    _check_kind(found, expected)
    grit = expected.grit
    # an encoder's tokenizer may give a token to spaces at the ends, which never come to it
    texts = [*dict.fromkeys(text.strip() for text in texts)] if grit.is_encoder else texts
    for text in texts:
        _check_ids(found, expected, text)
    limits = limits_of(found.quantization_type, expected.quantization_type)
    frames = [_cut(encode(frame, expected, grit.markers), found, expected) for frame in _embedding_frames(grit, texts)]
    frames = [frame for frame in frames if any(frame.counts)]  # a window may be shorter than an instruction
    rows = [Row("texts with other token ids", 0, 0, "at most"), weights_row(found, expected)]
    rows += _embedding_rows([_embedding_cosine(found, expected, frame) for frame in frames], limits)
    num_tokens = sum(len(frame.ids) for frame in frames)
    if grit.generates:
        next_tokens = NextTokens()
        for ids in _sequences(found, expected, texts):
            next_tokens.add(found, expected, ids)
        rows += _next_token_rows(next_tokens, limits)
        num_tokens = next_tokens.num_targets
    return Report(
        found.name,
        found.quantization_type,
        expected.name,
        expected.quantization_type,
        len(texts),
        num_tokens,
        rows,
    )


def _embedding_rows(cosines: list[float], limits: Limits) -> Iterator[Row]:
    yield Row("embedding cosine, worst", float(np.min(cosines)), limits.worst_cosine, "at least")
    yield Row("embedding cosine, median", float(np.median(cosines)), limits.median_cosine, "at least")


def _next_token_rows(next_tokens: NextTokens, limits: Limits) -> Iterator[Row]:
    yield Row("same next token", next_tokens.agreement, limits.agreement, "at least")
    yield Row("KL divergence in nats", next_tokens.divergence, limits.divergence, "at most")
    found, expected = next_tokens.perplexities
    change = abs(found / expected - 1)
    yield Row("change of perplexity", change, limits.perplexity, "at most", f"{found:.5g}, expected {expected:.5g}")


# ---------------------------------------------------------------- the same texts


def _check_kind(found: Reader, expected: Reader) -> None:
    pairs = [("vocabulary", found.n_vocab, expected.n_vocab)]
    for key, value in expected.grit.to_gguf().items():
        pairs.append((key, found.grit.to_gguf().get(key), value))  # type: ignore[arg-type]
    for name, one, other in pairs:
        if one != other:
            raise ValueError(f"{found.name} is not of {expected.name}: its {name} is {one}, expected {other}")
    markers = MARKERS if not found.grit.is_encoder and found.grit.markers == "special" else ()
    for token in (BOS, EOS, *markers):
        if (one := found.control_id(token)) != (other := expected.control_id(token)):
            raise ValueError(f"{found.name} is not of {expected.name}: its {token} is token {one}, expected {other}")


def _check_ids(found: Reader, expected: Reader, text: str) -> None:
    """Any difference is an error of the conversion, most often of the pre-tokenizer, that no weight makes good."""
    ids, expected_ids = found.tokenize(text), expected.tokenize(text)
    if ids != expected_ids:
        at = first_difference(ids, expected_ids)
        raise ValueError(
            f"{found.name} reads the text {text[:60]!r} as other tokens from token {at} on: {ids[at : at + 4]}, "
            f"expected {expected_ids[at : at + 4]} as in {expected.name}; its tokenizer.ggml.pre is {found.pre!r}, "
            f"expected {expected.pre!r}; convert it again"
        )


def _embedding_frames(grit: GritMetadata, texts: Sequence[str]) -> Iterator[list[Segment]]:
    for text in texts:
        if text.strip():
            yield grit.frame("", text)
    for question in QUESTIONS:
        yield grit.frame(QUERY_INSTRUCTION, question)


def _cut(frame: EncodedFrame, found: Reader, expected: Reader) -> EncodedFrame:
    room = min(found.max_embedded_tokens, expected.max_embedded_tokens)
    return EncodedFrame(frame.ids[:room], frame.counts[:room])


def _sequences(found: Reader, expected: Reader, texts: Sequence[str]) -> Iterator[list[int]]:
    """A chat and the texts, for next tokens."""
    room = min(found.max_tokens, expected.max_tokens)
    yield encode(chat_frame(CHAT), expected, expected.grit.markers).ids[:room]
    for text in texts:
        yield [expected.control_id(BOS), *expected.tokenize(text)][:room]


# ---------------------------------------------------------------- the same numbers


def _embedding_cosine(found: Reader, expected: Reader, frame: EncodedFrame) -> float:
    counts = np.asarray(frame.counts, dtype=bool)
    one, other = (
        reader.hidden_states(frame.ids)[counts, : reader.grit.dimension].mean(axis=0, dtype=np.float64)
        for reader in (found, expected)
    )
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


@dataclass
class NextTokens:
    """Sums over all places of what two models expect next."""

    num_places: int = 0
    num_same: int = 0
    sum_divergence: float = 0.0
    num_targets: int = 0
    sum_nats: float = 0.0
    """What the texts cost the model under comparison."""
    sum_expected_nats: float = 0.0

    def add(self, found: Reader, expected: Reader, ids: Sequence[int]) -> None:
        """Take in one sequence, from its second token on."""
        logits_TV, expected_TV = found.logits(ids), expected.logits(ids)
        for start in range(0, len(ids), _ROWS):
            log_p, log_q = (_log_softmax(each[start : start + _ROWS]) for each in (logits_TV, expected_TV))
            targets = np.asarray(ids[start + 1 : start + 1 + _ROWS], dtype=np.intp)
            places = np.arange(len(targets))
            self.num_places += len(log_p)
            self.num_same += int((log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum())
            self.sum_divergence += float((np.exp(log_q) * (log_q - log_p)).sum())
            self.num_targets += len(targets)
            self.sum_nats -= float(log_p[places, targets].sum())
            self.sum_expected_nats -= float(log_q[places, targets].sum())

    @property
    def agreement(self) -> float:
        """Share of places with the same likeliest token."""
        return self.num_same / self.num_places

    @property
    def divergence(self) -> float:
        """Mean KL divergence in nats, of the expected distribution from the other."""
        return self.sum_divergence / self.num_places

    @property
    def perplexities(self) -> tuple[float, float]:
        """Of the model under comparison, and the expected one."""
        one, other = (min(each / self.num_targets, 700) for each in (self.sum_nats, self.sum_expected_nats))
        return math.exp(one), math.exp(other)


def _log_softmax(logits_TV: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted_TV = logits_TV.astype(np.float64) - logits_TV.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted_TV - np.log(np.exp(shifted_TV).sum(axis=1, keepdims=True))
    return found


# ---------------------------------------------------------------- in the child


def _reader(path: Path, base: Path | None = None) -> Reader:
    if not path.is_dir():
        return GgufReader(path)
    from converters.checkpoint_reader import CheckpointReader  # imports torch

    return CheckpointReader(path, base)


if __name__ == "__main__":
    _, *paths = json.loads(sys.argv[1])
    model, *reference = map(Path, paths)
    try:
        outcome = asdict(compare(_reader(model), _reader(*reference), json.load(sys.stdin)))
    except (ValueError, GritDeskError) as error:
        outcome = {"refused": str(error)}
    print(json.dumps(outcome), flush=True)
