"""The door to llama.cpp: both attention modes are real, and what would end the process raises instead."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gritdesk.engine import llama
from gritdesk.engine.llama import EmbeddingContext, GenerationContext, LlamaModel, Sampler
from gritdesk.engine.self_test import self_test
from gritdesk.errors import ContextOverflow, ModelError
from gritdesk.records import Sampling

SENTENCE = "The river rises in the hills and runs to the sea, where the harbour"


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[LlamaModel]:
    with LlamaModel(tiny_gguf) as model:
        yield model


@pytest.fixture(scope="module")
def embedding(model: LlamaModel) -> EmbeddingContext:
    return EmbeddingContext(model, batch_tokens=256, max_sequences=8)


@pytest.fixture
def generation(model: LlamaModel) -> Iterator[GenerationContext]:
    context = GenerationContext(model, n_ctx=512)
    yield context
    context.close()


@pytest.fixture
def ids(model: LlamaModel) -> list[int]:
    return model.tokenize(SENTENCE)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# ---------------------------------------------------------------- attention


def test_last_word_changes_the_first_state_when_embedding(embedding: EmbeddingContext, model: LlamaModel) -> None:
    here, there = (embedding.hidden_states([model.tokenize(SENTENCE + end)])[0] for end in (" is", " was"))
    assert np.abs(here[0] - there[0]).max() > 0.01


def test_last_word_changes_nothing_before_it_when_generating(generation: GenerationContext, model: LlamaModel) -> None:
    here, there = (generation.hidden_states(model.tokenize(SENTENCE + end)) for end in (" is", " was"))
    length = len(model.tokenize(SENTENCE))
    np.testing.assert_allclose(here[:length], there[:length], atol=1e-6)
    assert np.abs(here[-1] - there[-1]).max() > 0.01


def test_sequences_of_unequal_length_do_not_see_each_other(embedding: EmbeddingContext, ids: list[int]) -> None:
    texts = [ids, ids[:2], ids[5:12], ids[::-1]]
    for text, together in zip(texts, embedding.hidden_states(texts), strict=True):
        (alone,) = embedding.hidden_states([text])
        assert min(cosine(*each) for each in zip(together, alone, strict=True)) > 0.9999


def test_self_test_measures_both_modes(
    model: LlamaModel, embedding: EmbeddingContext, generation: GenerationContext
) -> None:
    measured = self_test(model, embedding, generation)
    assert measured["embedding_change"] > 0.01
    assert measured["generation_change"] < 1e-6
    assert measured["packed_cosine"] > 0.9999


def test_self_test_passes_on_a_quantized_model(tiny_gguf_q8: Path) -> None:
    with LlamaModel(tiny_gguf_q8) as model:
        measured = self_test(model, EmbeddingContext(model), GenerationContext(model))
    assert measured["packed_cosine"] > 0.999


def test_self_test_refuses_causal_embeddings(
    model: LlamaModel, embedding: EmbeddingContext, generation: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "hidden_states", lambda texts: [generation.hidden_states(ids) for ids in texts])
    with pytest.raises(ModelError, match="two attention modes do not differ"):
        self_test(model, embedding, generation)


def test_self_test_refuses_texts_that_see_their_neighbours(
    model: LlamaModel, embedding: EmbeddingContext, generation: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = embedding.hidden_states

    def mixing(texts: list[list[int]]) -> list[np.ndarray]:
        whole = real([[each for ids in texts for each in ids]])[0]
        return np.split(whole, np.cumsum([len(ids) for ids in texts])[:-1])

    monkeypatch.setattr(embedding, "hidden_states", mixing)
    with pytest.raises(ModelError, match="embedded together differ from texts embedded alone"):
        self_test(model, embedding, generation)


@pytest.mark.parametrize("file", ["tiny_gguf", "tiny_gguf_q8"])
def test_embeddings_are_bit_for_bit_those_with_the_output_head(
    file: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LlamaModel(request.getfixturevalue(file)) as model:
        ids = model.tokenize(SENTENCE)
        batches = [[ids], [ids, ids[:2], ids[5:12], ids[::-1]], [ids[:1]], [(ids * 40)[:512]], [ids] * 5, [ids]]
        without_head = EmbeddingContext(model)
        monkeypatch.setattr(llama, "_ending_at_embeddings", lambda watch: llama.C.ggml_backend_sched_eval_callback())
        with_head = EmbeddingContext(model)
        for batch in batches:
            pairs = zip(without_head.hidden_states(batch), with_head.hidden_states(batch), strict=True)
            for found, expected in pairs:
                np.testing.assert_array_equal(found, expected)


def test_output_head_is_not_computed_for_embeddings(
    embedding: EmbeddingContext, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[bytes] = []
    real = llama._tensor_name
    monkeypatch.setattr(llama, "_tensor_name", lambda tensor: names.append(real(tensor)) or names[-1])  # type: ignore[func-returns-value]
    embedding.hidden_states([ids])
    assert names[-2:] == [llama._EMBEDDING_TENSOR] * 2 and b"result_output" not in names
    names.clear()
    monkeypatch.setattr(llama, "_EMBEDDING_TENSOR", b"another")
    embedding.hidden_states([ids])
    assert b"result_output" in names


# ---------------------------------------------------------------- the KV cache


def test_long_prompt_read_in_batches_equals_one_token_at_a_time(model: LlamaModel, ids: list[int]) -> None:
    prompt = (ids * 20)[:300]
    exact = GenerationContext(model, n_ctx=512, kv_type="f32")
    batched = exact.prefill(prompt)
    exact.reuse_prefix([])
    for each in prompt:
        exact.decode([each])
    np.testing.assert_allclose(batched, exact.logits(), atol=1e-3)
    exact.close()


def test_kept_prefix_gives_bit_for_bit_the_logits_of_a_fresh_prompt(
    generation: GenerationContext, ids: list[int]
) -> None:
    first, second = (ids * 20)[:200], (ids * 20)[:170] + ids[::-1]
    fresh = generation.prefill(second)
    generation.reuse_prefix([])
    generation.prefill(first)
    generation.decode(ids[:1])
    assert generation.reuse_prefix(second) == 128  # whole batches of 64
    np.testing.assert_array_equal(generation.prefill(second), fresh)
    np.testing.assert_array_equal(generation.prefill(second), fresh)


def test_prefix_is_forgotten_where_it_differs(generation: GenerationContext, ids: list[int]) -> None:
    prompt = (ids * 20)[:200]
    generation.prefill(prompt)
    assert generation.reuse_prefix([ids[1], *prompt[1:]]) == 0
    assert generation.num_tokens == 0


# ---------------------------------------------------------------- guards


def test_text_longer_than_the_batch_is_refused(embedding: EmbeddingContext) -> None:
    with pytest.raises(ContextOverflow, match="257 tokens is longer than the 256"):
        embedding.hidden_states([[7] * 257])


def test_batch_of_too_many_tokens_is_refused(embedding: EmbeddingContext) -> None:
    with pytest.raises(ContextOverflow, match="300 tokens is more than the 256"):
        embedding.hidden_states([[7] * 150, [7] * 150])


def test_too_many_sequences_are_refused(embedding: EmbeddingContext) -> None:
    with pytest.raises(ContextOverflow, match="9 sequences"):
        embedding.hidden_states([[7]] * 9)


@pytest.mark.parametrize("texts", [[], [[]], [[7], []]])
def test_empty_sequences_are_refused(embedding: EmbeddingContext, texts: list[list[int]]) -> None:
    with pytest.raises(ModelError, match="empty sequence"):
        embedding.hidden_states(texts)


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_unknown_token_ids_are_refused_everywhere(
    model: LlamaModel, embedding: EmbeddingContext, generation: GenerationContext, wrong: int
) -> None:
    for call in (
        lambda: embedding.hidden_states([[7, wrong]]),
        lambda: generation.prefill([7, wrong]),
        lambda: generation.decode([wrong]),
        lambda: generation.hidden_states([wrong]),
        lambda: model.piece(wrong),
        lambda: model.is_end(wrong),
    ):
        with pytest.raises(ModelError, match=f"token id {wrong} is not in the vocabulary"):
            call()


def test_context_still_works_after_a_refusal(generation: GenerationContext, ids: list[int]) -> None:
    before = generation.prefill(ids)
    with pytest.raises(ModelError):
        generation.decode([-1])
    np.testing.assert_array_equal(generation.prefill(ids), before)


def test_decoding_more_than_a_batch_is_refused(model: LlamaModel) -> None:
    with closing(GenerationContext(model, n_ctx=512, block_tokens=64)) as generation:
        with pytest.raises(ContextOverflow, match="65 tokens is more than the 64"):
            generation.decode([7] * 65)


def test_prompt_that_leaves_no_room_for_a_token_is_refused(generation: GenerationContext) -> None:
    with pytest.raises(ContextOverflow, match="512 tokens does not fit the context of 512"):
        generation.prefill([7] * 512)
    generation.prefill([7] * 511)
    generation.decode([7])
    with pytest.raises(ContextOverflow, match="full"):
        generation.decode([7])


def test_sampling_without_logits_is_refused(model: LlamaModel, generation: GenerationContext) -> None:
    sampler = Sampler(model, Sampling())
    for prepare in (
        lambda: None,
        lambda: generation.decode([7], with_logits=False),
        lambda: generation.reuse_prefix([7, 8]),
        lambda: generation.hidden_states([7]),
    ):
        prepare()
        with pytest.raises(ModelError, match="no logits"):
            generation.sample(sampler)
    sampler.close()


def test_closed_parts_are_refused(tiny_gguf: Path) -> None:
    model = LlamaModel(tiny_gguf)
    embedding, generation, sampler = EmbeddingContext(model), GenerationContext(model), Sampler(model, Sampling())
    generation.prefill([7])
    sampler.close()
    with pytest.raises(ModelError, match="sampler is closed"):
        generation.sample(sampler)
    for _ in range(2):
        sampler.close()
        embedding.close()
        model.close()
    for call in (
        lambda: embedding.hidden_states([[7]]),
        lambda: generation.decode([7]),
        lambda: model.tokenize("a"),
        lambda: model.piece(7),
        lambda: GenerationContext(model),
    ):
        with pytest.raises(ModelError, match="closed"):
            call()


def test_two_threads_in_one_context_are_refused(embedding: EmbeddingContext) -> None:
    batch = [[7 + number] * 32 for number in range(8)]
    errors: list[ModelError] = []

    def embed_often() -> None:
        try:
            for _ in range(40):
                embedding.hidden_states(batch)
        except ModelError as error:
            errors.append(error)

    threads = [threading.Thread(target=embed_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors and "two threads" in str(errors[0])


def test_another_process_is_refused(embedding: EmbeddingContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ModelError, match="parent process"):
        embedding.hidden_states([[7]])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_tokens": 8}, "batch_tokens is 8"),
        ({"max_sequences": 257}, "max_sequences is 257"),
        ({"kv_type": "q2"}, "kv_type is 'q2'"),
        ({"n_threads": -1}, "n_threads is -1"),
        ({"n_threads": 513}, "n_threads is 513"),
        ({"batch_tokens": 10**9}, "batch_tokens is 1000000000"),
    ],
)
def test_wrong_context_settings_are_refused(model: LlamaModel, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        EmbeddingContext(model, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=-1),
        Sampling(temperature=float("nan")),
        Sampling(top_p=0),
        Sampling(top_p=1.5),
        Sampling(repeat_penalty=0),
        Sampling(repeat_penalty=float("inf")),
    ],
)
def test_wrong_sampling_settings_are_refused(model: LlamaModel, sampling: Sampling) -> None:
    with pytest.raises(ModelError, match="give"):
        Sampler(model, sampling)


def test_context_is_never_larger_than_what_the_model_was_trained_on(model: LlamaModel) -> None:
    context = GenerationContext(model, n_ctx=10**9)
    assert context.n_ctx == model.n_ctx_train == 1024
    context.close()


# ---------------------------------------------------------------- vocabulary and metadata


@pytest.mark.parametrize(
    "text", ["", " two  spaces ", "naïve café 😀\n\n\ttabs", "nul\0inside", "lone \ud800 surrogate"]
)
def test_pieces_give_the_text_back(model: LlamaModel, text: str) -> None:
    pieces = b"".join(model.piece(each) for each in model.tokenize(text))
    assert pieces == text.encode("utf-8", "replace")


def test_markers_in_a_text_stay_text(model: LlamaModel) -> None:
    marker = model.control_id("<|embed|>")
    assert marker not in model.tokenize("a <|embed|> b</s>")
    assert model.piece(marker) == b""
    assert model.is_end(model.control_id("</s>"))


def test_unknown_control_token_is_refused(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match=r"no control token <\|none\|>"):
        model.control_id("<|none|>")


def test_metadata_has_types(model: LlamaModel) -> None:
    assert model.metadata["general.architecture"] == "llama"
    assert model.metadata["grit.embedding.normalize"] is True
    assert model.metadata["grit.embedding.dimension"] == model.n_embd == 256
    assert model.grit.markers == "special"
    assert "\n" in str(model.metadata["grit.embedding.frame"])


# ---------------------------------------------------------------- files


def test_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none.gguf", "nothing"), (tmp_path, "a folder")):
        with pytest.raises(ModelError, match=f"no model file at {path}, found {found}"):
            LlamaModel(path)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is empty; copy it again"),
        (b"PK\x03\x04" + b"x" * 100, "is not a GGUF file .*make one with `gritdesk convert"),
        (b"GGUF", "has GGUF version 0"),
        (b"GGUF\x03\0\0\0" + b"\x09" + b"\0" * 7 + b"\x09" + b"\0" * 7, "is damaged: .*copy it again"),
    ],
)
def test_foreign_or_damaged_head_is_one_clear_line(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=complaint) as caught:
        LlamaModel(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_cut_off_file_is_one_clear_line(tiny_gguf: Path, tmp_path: Path, part: float) -> None:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError, match="cannot load .*cut.gguf: .*; copy it again, or make it again") as caught:
        LlamaModel(path)
    assert "gave no reason" not in str(caught.value) and "\n" not in str(caught.value)


def test_overwritten_metadata_is_one_clear_line(tiny_gguf: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_gguf.read_bytes())
    data[40:400] = b"\xff" * 360
    path = tmp_path / "garbage.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="cannot load .*garbage.gguf"):
        LlamaModel(path)


def test_model_without_grit_metadata_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"grit.version", b"grut.version"))
    with pytest.raises(ModelError, match=r"foreign.gguf cannot be used by gritdesk: it has no grit\.\* metadata"):
        LlamaModel(path)


def test_missing_grit_key_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "partial.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"grit.embedding.dimension", b"grit.embedding.dimensium"))
    with pytest.raises(
        ModelError, match=r"partial.gguf cannot be used by gritdesk: it lacks the key .*grit\.embedding\.dimension"
    ):
        LlamaModel(path)


def test_size_of_a_model_that_llama_cpp_has_no_name_for_is_told_in_millions(tiny_gguf: Path) -> None:
    with LlamaModel(tiny_gguf) as model:
        assert re.fullmatch(r"llama \d+\.\d[MB] .*F32", model.description), model.description
