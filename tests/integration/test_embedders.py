"""Every kind of model embeds behind one method, and a checkpoint as its GGUF does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import copy_without_grit

from training.embedders import (
    DecoderEmbedder,
    SentenceEmbedder,
    find_model,
    kind_of,
    load_embedder,
    prompt_of,
)
from training.gguf import GgufEmbedder

INPUTS = [
    ("Find the animal", "A word about the badger and the otter"),
    ("", "Noon"),
    ("", "The river is wide. " * 200),
    ("", " "),
    ("Find the animal", "Where does the heron live?"),
]


@pytest.fixture(scope="module")
def plain_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` as a language model that nobody made a GRIT model of."""
    return copy_without_grit(tiny_checkpoint, tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def sentence_model(plain_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentence-transformers with a prompt that takes instructions."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("sentence") / "model"
    transformer = Transformer(str(plain_checkpoint), max_seq_length=64)
    model = SentenceTransformer(
        modules=[transformer, Pooling(256)], prompts={"web_query": "Instruct: Given a thing, find it\nQuery: "}
    )
    model.save(str(folder), create_model_card=False)
    return folder


def test_checkpoint_and_its_gguf_embed_alike(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    checkpoint, gguf = load_embedder(str(tiny_checkpoint)), load_embedder(str(tiny_gguf), num_threads=1)
    assert isinstance(checkpoint, DecoderEmbedder) and isinstance(gguf, GgufEmbedder)
    expected, found = checkpoint.embed(INPUTS), gguf.embed(INPUTS)
    assert expected.shape == found.shape == (len(INPUTS), checkpoint.dimension)
    assert (expected * found).sum(axis=1) == pytest.approx(np.ones(len(INPUTS)), abs=1e-3)


def test_neighbours_in_a_batch_do_not_change_an_embedding(tiny_checkpoint: Path) -> None:
    embedder = load_embedder(str(tiny_checkpoint))
    together, alone = embedder.embed(INPUTS), [embedder.embed([each])[0] for each in INPUTS]
    assert together == pytest.approx(np.stack(alone), abs=1e-5)


def test_checkpoint_embeds_with_the_attention_it_was_trained_with(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "causal"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["grit"] |= {"embedding_attention": "causal", "pooling": "last_token"}
    (folder / "config.json").write_text(json.dumps(config))
    embedder = load_embedder(str(folder))
    assert isinstance(embedder, DecoderEmbedder)
    assert (embedder.model.attention, embedder.model.pooling) == ("causal", "last_token")


def test_checkpoint_with_the_classes_of_gritlm_is_one_of_grit(plain_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gritlm"
    shutil.copytree(plain_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_gritlm7b.MistralForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    embedder = load_embedder(str(folder))
    assert kind_of(folder) == "grit" and isinstance(embedder, DecoderEmbedder)
    assert (embedder.model.attention, embedder.model.pooling) == ("bidirectional", "mean")


def test_plain_language_model_embeds_by_the_weighted_mean_of_the_text(plain_checkpoint: Path) -> None:
    embedder = load_embedder(str(plain_checkpoint))
    assert isinstance(embedder, DecoderEmbedder) and kind_of(plain_checkpoint) == "language-model"
    tokenizer = embedder.tokenizer
    instruction, text = tokenizer.tokenize("Find it\n"), tokenizer.tokenize("The otter sleeps.")
    with torch.no_grad():
        ids = torch.tensor([[tokenizer.bos_id, *instruction, *text]])
        hidden_TD = embedder.model.decoder.model(ids).last_hidden_state[0, -len(text) :]
    expected_D = (hidden_TD * torch.arange(1.0, len(text) + 1)[:, None]).sum(dim=0)
    expected_D /= expected_D.norm()
    assert embedder.embed([("Find it", "The otter sleeps.")])[0] == pytest.approx(expected_D.numpy(), abs=1e-5)


def test_sentence_transformers_model_reads_our_instruction_in_its_own_prompt(sentence_model: Path) -> None:
    embedder = load_embedder(str(sentence_model))
    assert isinstance(embedder, SentenceEmbedder)
    found = embedder.embed([("Find the animal", "otter"), ("", "Instruct: Find the animal\nQuery: otter"), ("", " ")])
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_prompts_of_models_of_others() -> None:
    e5_mistral = {"sts_query": "Instruct: Retrieve semantically similar text\nQuery: "}
    e5 = {"query": "query: ", "passage": "passage: "}
    assert prompt_of("Find it:", e5_mistral) == "Instruct: Find it\nQuery: "
    assert prompt_of("", e5_mistral) == ""
    assert prompt_of("Find it", e5) == "query: " and prompt_of("", e5) == "passage: "
    assert prompt_of("Find it", {}) == ""
    assert prompt_of("Find it", {}, "{instruction}: ") == "Find it: "


def test_name_of_an_installed_package_is_its_model(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_packaged_model").mkdir()
    (tmp_path / "a_packaged_model" / "__init__.py").touch()
    shutil.copytree(tiny_checkpoint, tmp_path / "a_packaged_model" / "model")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_model("a_packaged_model") == tmp_path / "a_packaged_model" / "model"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent", r"no model at .*absent: expected a \.gguf file, a model's folder"),
        (lambda path: path / "absent.gguf", r"no model at .*absent\.gguf"),
        (lambda path: path, r"is no model folder: it has no config\.json, found notes\.md"),
        (lambda path: path / "notes.md", r"notes\.md is no model: expected a \.gguf file"),
    ],
)
def test_what_is_no_model_is_refused_by_one_line(tmp_path: Path, make: object, message: str) -> None:
    (tmp_path / "notes.md").write_text("notes")
    with pytest.raises(ValueError, match=message) as raised:
        load_embedder(str(make(tmp_path)))  # type: ignore[operator]
    assert "\n" not in str(raised.value)


def test_damaged_models_are_refused_by_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is not a GGUF file"):
        load_embedder(str(tmp_path / "broken.gguf"))
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"cannot load the model in .*broken") as raised:
        load_embedder(str(folder))
    assert "\n" not in str(raised.value)
