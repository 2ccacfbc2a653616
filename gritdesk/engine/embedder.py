"""[(instruction, text)] -> embeddings: bidirectional attention, mean over the tokens that count, unit length.

Texts are packed, so that one call to llama.cpp embeds many; the rule owned here is that packing, order and
neighbours do not matter to a text's embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gritdesk.engine.llama import EmbeddingContext, LlamaModel
from gritdesk.errors import ContextOverflow, RequestRefused
from gritdesk.grit_format import EncodedFrame, encode
from gritdesk.records import EmbeddingInput

_WINDOW = 128
"""Inputs tokenized and packed together: enough to fill batches well, few enough to take less time than a batch."""

Batch = tuple[list[int], NDArray[np.float32]]
"""Numbers of the inputs embedded in one call, and their embeddings float32[len(numbers), dimension]."""


class Embedder:
    """Embeds texts with its own context; use it from one thread at a time."""

    def __init__(self, model: LlamaModel, *, batch_tokens: int = 512, n_threads: int = 0, kv_type: str = "f16") -> None:
        """Arguments: see EmbeddingContext. `close()` of the model frees the context."""
        self._model = model
        self.context = EmbeddingContext(model, batch_tokens=batch_tokens, n_threads=n_threads, kv_type=kv_type)
        self.dimension = model.grit.dimension

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """Embed (instruction, text) pairs. A text longer than the batch is cut at its end, never its frame.

        Returns: float32[len(inputs), dimension], rows of length 1, in the order of the inputs.
        Raises: ContextOverflow if an instruction leaves no room for its text; RequestRefused for an empty text, or
        one whose embedding is no numbers.
        """
        embeddings = np.zeros((len(inputs), self.dimension), dtype=np.float32)
        for numbers, rows in self.embed_steps(inputs):
            embeddings[numbers] = rows
        return embeddings

    def embed_steps(self, inputs: Sequence[EmbeddingInput]) -> Iterator[Batch]:
        """Like `embed`, one batch a step."""
        for start in range(0, len(inputs), _WINDOW):
            frames = [self._encode(*each) for each in inputs[start : start + _WINDOW]]
            lengths = [len(frame.ids) for frame in frames]
            for numbers in pack(lengths, self.context.batch_tokens, self.context.max_sequences):
                yield [start + number for number in numbers], self._embed_batch([frames[each] for each in numbers])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens, without any frame."""
        return [len(self._model.tokenize(text)) for text in texts]

    def _encode(self, instruction: str, text: str) -> EncodedFrame:
        try:
            frame = encode(self._model.grit.frame(instruction, text), self._model, self._model.grit.markers)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        room = self.context.max_tokens
        if frame.num_prefix >= room:
            raise ContextOverflow(
                f"an instruction of {frame.num_prefix} tokens leaves no room for its text in {room}; shorten it"
            )
        return cut(frame, room, self._model.grit.num_closing)

    def _embed_batch(self, frames: Sequence[EncodedFrame]) -> NDArray[np.float32]:
        hidden_states = self.context.hidden_states([frame.ids for frame in frames])
        pairs = zip(hidden_states, (frame.counts for frame in frames), strict=True)
        return np.stack([mean_pool(hidden_TD[:, : self.dimension], counts) for hidden_TD, counts in pairs])


def cut(frame: EncodedFrame, max_tokens: int, num_closing: int) -> EncodedFrame:
    """The frame with no more than `max_tokens` tokens: its text is cut at the end, the last `num_closing` stay."""
    if len(frame.ids) <= max_tokens:
        return frame
    opening, closing = max_tokens - num_closing, len(frame.ids) - num_closing
    return EncodedFrame(frame.ids[:opening] + frame.ids[closing:], frame.counts[:opening] + frame.counts[closing:])


def mean_pool(hidden_TD: NDArray[np.float32], counts: Sequence[bool]) -> NDArray[np.float32]:
    """Average the tokens that count and scale to length 1.

    Args:
        hidden_TD: last hidden states (T tokens), the D dimensions that make the embedding.
        counts: T flags, False on the frame.
    Returns: float32[D].
    Raises: RequestRefused if the states are no finite numbers: the file may be damaged in what this text needs.
    Source: GRIT paper (arXiv 2402.09906), section 2.
    """
    mean = hidden_TD[np.asarray(counts, dtype=bool)].mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(mean)
    if not np.isfinite(length) or length == 0:
        raise RequestRefused("the model gives an embedding that is no numbers; is its file damaged? convert it again")
    embedding: NDArray[np.float32] = (mean / length).astype(np.float32)
    return embedding


def pack(lengths: Sequence[int], capacity: int, max_items: int) -> list[list[int]]:
    """Distribute items over few bins: longest first, each into the first bin where it fits.

    Returns: the items' numbers, one list per bin.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        for position, left in enumerate(room):
            if lengths[number] <= left and len(bins[position]) < max_items:
                bins[position].append(number)
                room[position] -= lengths[number]
                break
        else:
            bins.append([number])
            room.append(capacity - lengths[number])
    return bins
