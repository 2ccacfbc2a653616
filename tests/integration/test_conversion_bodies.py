"""Decoders saved otherwise than transformers saves a language model: with other names, or without an output matrix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from person import Person
from safetensors.numpy import load_file, save_file
from tiny import make_checkpoint

from converters.battery import TEXTS
from converters.comparison import compare
from converters.gguf_reader import GgufReader
from converters.hf_to_gguf import convert
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.llama import GenerationContext, LlamaModel
from gritdesk.errors import ModelError
from gritdesk.grit_format import GritMetadata
from gritdesk.models import only_embeds

BODY = GritMetadata(256, generation_attention="none", embedding_architecture="llama-embed")
GRIT_PROMPTS = {"query": "<|user|>\nFind it\n<|embed|>\n", "document": "<|embed|>\n"}


def save_body(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as transformers saves what it read without the output matrix."""
    from transformers import AutoModel

    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def body(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_body(tiny_checkpoint, tmp_path_factory.mktemp("body") / "checkpoint")


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home")


@pytest.mark.parametrize(
    "rename",
    [lambda name: f"model.{name}", lambda name: name.removeprefix("model.")],
    ids=["inside of a trainer's model", "without a prefix"],
)
def test_names_with_more_or_less_in_front_give_the_same_file(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / tiny_checkpoint.name))
    weights = load_file(folder / "model.safetensors")
    save_file({rename(name): weight for name, weight in weights.items()}, folder / "model.safetensors")
    convert(folder, tmp_path / "out.gguf", "F32")
    assert (tmp_path / "out.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_body_alone_embeds_as_the_whole_model_does_and_says_that_it_cannot_generate(
    body: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    convert(body, tmp_path / "out.gguf", "F32", say=lines.append)
    assert lines[0] == "a model without an output matrix: the file will embed and cannot generate"
    assert only_embeds(tmp_path / "out.gguf")
    inputs = [("Find the answer", "Who lights the lamp?"), ("", "The keeper lights the lamp at dusk.")]
    with LlamaModel(tmp_path / "out.gguf") as model, LlamaModel(tiny_gguf) as whole:
        assert model.grit == BODY
        np.testing.assert_allclose(Embedder(model).embed(inputs), Embedder(whole).embed(inputs), atol=1e-6)
        with pytest.raises(ModelError, match=r"out\.gguf only embeds and cannot generate"):
            GenerationContext(model)


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gemma3"])
def test_body_is_proved_against_transformers(tmp_path: Path, family: Any) -> None:
    from converters.checkpoint_reader import CheckpointReader

    settings = {"tokenizer": "sentencepiece", "pre": "gemma"} if family == "gemma3" else {}
    folder = save_body(make_checkpoint(tmp_path / "whole", family, **settings), tmp_path / "body")
    convert(folder, tmp_path / "out.gguf", "F32")
    report = compare(GgufReader(tmp_path / "out.gguf"), CheckpointReader(folder), TEXTS[::8])
    assert report.ok and "same next token" not in {row.name for row in report.rows}


def test_person_is_told_what_such_a_model_can_do(body: Path, person: Person, tmp_path: Path) -> None:
    assert person.run("convert", body, tmp_path / "out.gguf").code == 0
    shown = person.run("models", "info", tmp_path / "out.gguf").output
    assert "\ncan          embed\n" in shown and "\nmarkers      tokens of their own\n" in shown
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "light.txt").write_text("The keeper lights the lamp at dusk.")
    used = person.run("models", "use", tmp_path / "out.gguf")
    assert used.code == 0 and "it only embeds" in used.output
    assert person.run("index", tmp_path / "docs").code == 0
    found = person.run("search", "Who lights the lamp?", "--mode", "semantic")
    assert found.code == 0 and "light.txt" in found.output
    refused = person.run("ask", "Who lights the lamp?")
    assert refused.code == 1 and "this model only embeds" in refused.errors


def sentence_folder(
    body: Path,
    folder: Path,
    pooling: str = "mean",
    prompts: dict[str, str] = GRIT_PROMPTS,
    module: str = "Normalize",
    include_prompt: bool = False,
) -> Path:
    """The body with what sentence-transformers keeps beside it."""
    shutil.copytree(body, folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", module: f"2_{module}"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "1_Pooling").mkdir()
    files: dict[str, Any] = {
        "modules.json": modules,
        "config_sentence_transformers.json": {"prompts": prompts},
        "1_Pooling/config.json": {"pooling_mode": pooling, "include_prompt": include_prompt},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_folder_of_sentence_transformers_that_does_as_grit_does_is_converted(body: Path, tmp_path: Path) -> None:
    convert(sentence_folder(body, tmp_path / "checkpoint"), tmp_path / "out.gguf")
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.grit == BODY


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "lasttoken"}, "pooling lasttoken cannot be converted"),
        ({"pooling": "cls"}, "a decoder's texts are pooled by mean, as GRIT does"),
        ({"prompts": {"query": "Instruct: find it\nQuery: "}}, "is none of GRIT's, which end in <|embed|>"),
        ({"include_prompt": True}, "include_prompt is true; a decoder that pools its prompt cannot be converted"),
        ({"module": "Dense"}, "module Dense cannot be converted"),
    ],
)
def test_decoder_that_embeds_otherwise_is_refused_by_name(
    body: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")) as raised:
        convert(sentence_folder(body, tmp_path / "checkpoint", **settings), tmp_path / "out.gguf")
    assert "\n" not in str(raised.value) and not (tmp_path / "out.gguf").exists()
