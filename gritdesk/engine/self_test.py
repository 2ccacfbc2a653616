"""Proof at load that both attention modes are what they claim to be.

A wrong mode raises nothing: embeddings are just bad. So each start measures it on a few tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gritdesk.engine.llama import EmbeddingContext, GenerationContext, LlamaModel
from gritdesk.errors import ModelError

_TEXT = "A word at the end of this sentence is seen from its beginning only when attention runs both ways."


def self_test(model: LlamaModel, embedding: EmbeddingContext, generation: GenerationContext | None) -> dict[str, float]:
    """Measure what the last token does to the first, and whether texts packed together stay apart.

    Args:
        generation: None where the model only embeds.
    Returns:
        embedding_change, generation_change: relative change of the first token's hidden state when the last token
        changes; packed_cosine: the lowest cosine between a text embedded alone and in a batch with others. Without a
        `generation` there is no generation_change.
    Raises: ModelError if embedding is not bidirectional, generation not causal, or packed texts differ.
    """
    ids = _ids(model)
    other = ids[:-1] + [next(each for each in ids if each != ids[-1])]
    before, after = (embedding.hidden_states([each])[0][0] for each in (ids, other))
    measured = {"embedding_change": _relative_change(before, after)}
    if generation:
        causal_before, causal_after = (generation.hidden_states(each)[0] for each in (ids, other))
        measured["generation_change"] = _relative_change(causal_before, causal_after)
    measured["packed_cosine"] = _packed_cosine(embedding, ids)
    # a bidirectional mode that sees little of the last token is possible, one that sees nothing is none
    causal_change = measured.get("generation_change", 0.0)
    if not measured["embedding_change"] > 1e-4 or causal_change > measured["embedding_change"] / 10:
        what = "its two attention modes do not differ" if generation else "its attention is not bidirectional"
        raise ModelError(_complaint(model, what, measured))
    # Other kernels serve other batch sizes, and quantized activations round what they leave: random weights as
    # Q4_K_M give 0.9997, where texts that are cut or see each other give less than 0.9.
    if not measured["packed_cosine"] > (0.99 if model.is_quantized else 0.9999):
        raise ModelError(_complaint(model, "texts embedded together differ from texts embedded alone", measured))
    return measured


def _ids(model: LlamaModel) -> list[int]:
    ids = model.tokenize(_TEXT)[:24]
    if len(set(ids)) < 4:
        raise ModelError(f"the vocabulary of {model.path} reads an English sentence as {ids}; convert it again")
    return ids


def _packed_cosine(embedding: EmbeddingContext, ids: list[int]) -> float:
    texts = [ids, ids[:3], ids[1:9]]
    together = embedding.hidden_states(texts[: embedding.max_sequences])
    alone = [embedding.hidden_states([each])[0] for each in texts]
    pairs = zip(together, alone, strict=False)
    return min(_cosine(packed.mean(axis=0), single.mean(axis=0)) for packed, single in pairs)


def _relative_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _complaint(model: LlamaModel, what: str, measured: dict[str, float]) -> str:
    numbers = ", ".join(f"{name} {value:.2g}" for name, value in measured.items())
    return f"{model.path} fails the engine's self-test: {what} ({numbers}); check the installed llama-cpp-python"
