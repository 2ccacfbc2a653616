"""What a model's weights are multiplied with while it reads texts, column by column, in both attention modes.

Run by converters.importance as a child, `python -m converters.activations JOB`, the texts as a JSON list through stdin.
On stdout stands a line for each call, then the outcome as one JSON line; the matrix itself goes into a file.

llama.cpp's imatrix tool does this for causal attention alone. Weights of layers are weighed, as there, and the output
matrix is not. Every token counts, those of the frames too: they are multiplied like others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters import ggml_tensors
from converters.importance import CHUNK_TOKENS, Matrix, Mode, Sums, write_matrix
from converters.writing import Remaining
from gritdesk.engine.embedder import cut, pack
from gritdesk.engine.llama import EmbeddingContext, LlamaModel
from gritdesk.errors import GritDeskError
from gritdesk.grit_format import BOS, chat_frame, encode
from gritdesk.records import Turn


@dataclass
class InputSquares:
    """Sums over all that a model reads in one attention mode; `see` is a Watch of the engine's."""

    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Weight -> [experts, columns]."""
    counts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Weight -> [experts]: tokens that came to each."""
    num_tokens: int = 0
    """All that were read."""
    error: Exception | None = None
    """What went wrong in `see`, through which llama.cpp lets no exception pass."""

    def see(self, address: int, is_question: bool) -> bool:
        """Asked about a tensor: whether it is a product with a layer's weight. Shown one: adds its inputs up."""
        try:
            if is_question:
                kind = ggml_tensors.operation(address)
                return kind in (b"MUL_MAT", b"MUL_MAT_ID") and _weight_of(address).startswith("blk.")
            self._add(address)
        except Exception as error:
            self.error = error
        return self.error is None

    def _add(self, address: int) -> None:
        weight, inputs, *chosen = ggml_tensors.tensor(address).sources
        num_experts = ggml_tensors.tensor(weight).shape[1] if chosen else 1
        name, rows = _weight_of(address), ggml_tensors.values(inputs)
        if chosen:
            squares, counts = routed_squares(rows[0], ggml_tensors.values(chosen[0])[0, 0], num_experts)
        else:
            rows = rows.reshape(-1, rows.shape[-1])
            squares, counts = np.einsum("tc,tc->c", rows, rows)[None], np.array([len(rows)])
        if not np.isfinite(squares).all():
            raise ValueError(f"{name} is multiplied with values that are no numbers; is the file damaged?")
        self.squares[name] = self.squares.get(name, 0) + squares.astype(np.float64)
        self.counts[name] = self.counts.get(name, 0) + counts.astype(np.float64)


def routed_squares(
    inputs_TKC: NDArray[np.float32], chosen_TE: NDArray[np.int32], num_experts: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sums of the squares that come to each expert.

    Args:
        inputs_TKC: of T tokens, C columns; K is 1 where all experts of a token read the same, otherwise E.
        chosen_TE: the experts of each token.
    Returns: [num_experts, C], and how many tokens came to each expert.
    """
    squares_TEC = np.broadcast_to(inputs_TKC**2, (*chosen_TE.shape, inputs_TKC.shape[-1]))
    comes_to = chosen_TE.reshape(-1) == np.arange(num_experts)[:, None]
    return comes_to.astype(np.float32) @ squares_TEC.reshape(-1, inputs_TKC.shape[-1]), comes_to.sum(axis=1)


def measure(model: LlamaModel, texts: Sequence[str], dataset: str, mode: Mode) -> Matrix:
    """Read the texts in the modes asked for, those that the model has; each with equal weight.

    Raises: ValueError if it has none of them, there are no texts, or what is computed is no number.
    """
    modes = [each for each in ("embedding", "generation") if mode in (each, "both")]
    modes = modes if model.grit.generates else [each for each in modes if each == "embedding"]
    if not modes:
        raise ValueError(f"{model.path} only embeds: it cannot be measured in generation")
    if not (texts := [text for text in texts if text.strip()]):
        raise ValueError("there are no texts to measure by")
    found = []
    for each in modes:
        squares = InputSquares()
        context = EmbeddingContext(model, kv_type="f32", causal=each == "generation", watch=squares.see)
        read = embedding_ids if each == "embedding" else generation_ids
        sequences = list(read(model, texts, context.max_tokens))
        remaining = Remaining(sum(map(len, sequences)))
        batches = pack([len(ids) for ids in sequences], context.batch_tokens, context.max_sequences)
        for number, batch in enumerate(batches, start=1):
            print(f"measuring importance, {each}: {number}/{len(batches)}{remaining}", flush=True)
            context.hidden_states([sequences[each] for each in batch])
            if squares.error:
                raise ValueError(str(squares.error)) from squares.error
            squares.num_tokens += sum(len(sequences[each]) for each in batch)
            remaining.count(sum(len(sequences[each]) for each in batch))
        context.close()
        found.append(squares)
    return Matrix(joined(found), dataset, -(-sum(each.num_tokens for each in found) // CHUNK_TOKENS))


def embedding_ids(model: LlamaModel, texts: Sequence[str], max_tokens: int) -> Iterator[list[int]]:
    """The texts as the passages of an index."""
    for text in texts:
        frame = encode(model.grit.frame("", text), model, model.grit.markers)
        yield cut(frame, max_tokens, model.grit.num_closing).ids


def generation_ids(model: LlamaModel, texts: Sequence[str], max_tokens: int) -> Iterator[list[int]]:
    """The texts as they stand, and each second one as a chat: its first half from the user, the rest in answer."""
    for number, text in enumerate(texts):
        middle = text.find(" ", len(text) // 2)
        if number % 2 and middle > 0:
            chat = chat_frame([Turn("user", text[:middle]), Turn("assistant", text[middle:])])
            yield encode(chat, model, model.grit.markers).ids[:max_tokens]
        else:
            yield [model.control_id(BOS), *model.tokenize(text)][:max_tokens]


def joined(found: Sequence[InputSquares]) -> dict[str, Sums]:
    """The sums of several modes as if each had read as many tokens, the mean of what they did.

    So an expert that one mode alone uses is weighed by what comes to it there, and counts stay whole numbers.
    """
    num_tokens = sum(each.num_tokens for each in found) / len(found)
    sums = {}
    for name in found[0].squares:
        squares = sum(each.squares[name] * (num_tokens / each.num_tokens) for each in found)
        exact = sum(each.counts[name] * (num_tokens / each.num_tokens) for each in found)
        counts = np.ceil(exact)
        # llama.cpp counts in whole numbers, and reads means
        squares = squares * (counts / np.maximum(exact, 1e-9))[:, None]
        sums[name] = Sums(squares.astype(np.float32), counts.astype(np.float32))
    return sums


def _weight_of(address: int) -> str:
    return ggml_tensors.name(ggml_tensors.tensor(address).sources[0])


# ---------------------------------------------------------------- in the child


def _main(path: str, out: str, dataset: str, mode: Mode) -> dict[str, str]:
    try:
        with LlamaModel(Path(path)) as model:
            write_matrix(Path(out), measure(model, json.load(sys.stdin), dataset, mode))
    except (ValueError, OSError, GritDeskError) as error:
        return {"refused": str(error)}
    return {}


if __name__ == "__main__":
    print(json.dumps(_main(*json.loads(sys.argv[1])[1:])), flush=True)
