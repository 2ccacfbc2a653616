"""Texts to embeddings: the plain formula, whatever the packing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gritdesk.engine.embedder import Embedder, mean_pool, pack
from gritdesk.engine.llama import LlamaModel
from gritdesk.errors import ContextOverflow, RequestRefused
from gritdesk.grit_format import embedding_frame, encode

TEXTS = [
    "A short one.",
    "The harbour lies where the river meets the sea, and its lights are seen from far away.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "x",
    "def main() -> None:\n    print('hello')\n",
    "\n\nA text that begins with newlines",
]
INSTRUCTION = "Find the passage that answers the question"


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[LlamaModel]:
    with LlamaModel(tiny_gguf) as model:
        yield model


@pytest.fixture(scope="module")
def embedder(model: LlamaModel) -> Embedder:
    return Embedder(model, batch_tokens=128)


def test_embeddings_are_of_length_one_and_in_order(embedder: Embedder) -> None:
    embeddings = embedder.embed([("", text) for text in TEXTS])
    assert embeddings.shape == (len(TEXTS), 256) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    backwards = embedder.embed([("", text) for text in reversed(TEXTS)])[::-1]
    assert (embeddings * backwards).sum(axis=1).min() > 0.9999


def test_packed_equals_single(embedder: Embedder) -> None:
    inputs = [(INSTRUCTION if number % 2 else "", text) for number, text in enumerate(TEXTS * 30)]
    together = embedder.embed(inputs)
    alone = np.concatenate([embedder.embed([each]) for each in inputs[: len(TEXTS) * 2]])
    assert (together[: len(alone)] * alone).sum(axis=1).min() > 0.9999


def test_embedding_is_the_mean_over_the_texts_own_tokens(embedder: Embedder, model: LlamaModel) -> None:
    for text in TEXTS:
        frame = encode(embedding_frame(INSTRUCTION, text), model, "special")
        (states,) = embedder.context.hidden_states([frame.ids])
        mean = states[frame.num_prefix :].astype(np.float64).mean(axis=0)
        (embedding,) = embedder.embed([(INSTRUCTION, text)])
        assert embedding @ (mean / np.linalg.norm(mean)) > 0.99999


def test_instruction_changes_an_embedding_and_is_never_pooled(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain,), (instructed,) = (embedder.embed([(each, TEXTS[1])]) for each in ("", INSTRUCTION))
    assert plain @ instructed < 0.999
    real = embedder.context.hidden_states
    prefix = encode(embedding_frame(INSTRUCTION, TEXTS[1]), embedder._model, "special").num_prefix

    def with_other_states_in_the_prefix(texts: list[list[int]]) -> list[np.ndarray]:
        states = real(texts)
        states[0][:prefix] = 1e6
        return states

    monkeypatch.setattr(embedder.context, "hidden_states", with_other_states_in_the_prefix)
    np.testing.assert_array_equal(embedder.embed([(INSTRUCTION, TEXTS[1])])[0], instructed)


def test_long_text_is_cut_at_its_end_and_nowhere_else(embedder: Embedder, model: LlamaModel) -> None:
    words = "the river runs to the sea " * 100
    frame = encode(embedding_frame(INSTRUCTION, words), model, "special")
    (states,) = embedder.context.hidden_states([frame.ids[:128]])
    expected = mean_pool(states, frame.counts[:128])
    (embedding,) = embedder.embed([(INSTRUCTION, words)])
    assert embedding @ expected > 0.99999
    assert frame.num_prefix < 128 < len(frame.ids)


def test_instruction_that_fills_the_context_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ContextOverflow, match="leaves no room for its text in 128; shorten it"):
        embedder.embed([("word " * 200, "text")])


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_text_is_refused(embedder: Embedder, text: str) -> None:
    with pytest.raises(RequestRefused, match="cannot embed an empty text"):
        embedder.embed([("", "good"), ("", text)])


def test_no_texts_give_no_embeddings(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 256)
    assert embedder.count_tokens([]) == []


def test_markers_in_a_text_do_not_start_a_frame(embedder: Embedder) -> None:
    (first,), (second,) = (embedder.embed([("", text)]) for text in ("a<|embed|>\nb", "b"))
    assert first @ second < 0.999


def test_tokens_are_counted_without_a_frame(embedder: Embedder, model: LlamaModel) -> None:
    assert embedder.count_tokens(TEXTS) == [len(model.tokenize(text)) for text in TEXTS]
    assert embedder.count_tokens([""]) == [0]


def test_states_that_are_no_numbers_are_refused() -> None:
    for states in (np.full((2, 4), np.nan), np.full((2, 4), np.inf), np.zeros((2, 4))):
        with pytest.raises(RequestRefused, match="no numbers"):
            mean_pool(states.astype(np.float32), [True, True])


def test_every_text_is_packed_once_and_no_batch_is_too_large() -> None:
    lengths = np.random.default_rng(0).integers(1, 129, size=300).tolist()
    bins = pack(lengths, 128, 8)
    assert sorted(number for each in bins for number in each) == list(range(300))
    assert max(sum(lengths[number] for number in each) for each in bins) <= 128
    assert max(map(len, bins)) <= 8
    assert len(bins) < 1.15 * sum(lengths) / 128
