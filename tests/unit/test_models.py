"""Which model file is meant, and how it is recognised."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import gguf
import pytest

from gritdesk import models
from gritdesk.config import Config, EngineConfig
from gritdesk.errors import ModelError
from gritdesk.grit_format import GritMetadata
from gritdesk.models import (
    default_model,
    find_model,
    list_models,
    model_identity,
    only_embeds,
    removable,
    remove_model,
    tokenizer_identity,
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "mine.gguf").write_bytes(b"GGUF mine")
    (home / "models" / "notes.txt").write_text("no model")
    return Config(home)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of its own, so that tests do not depend on whether a default model was trained yet."""
    package = tmp_path / "site" / "gritdesk"
    package.mkdir(parents=True)
    monkeypatch.setattr(models, "__file__", str(package / "models.py"))
    return package


def asking_for(config: Config, model: str) -> Config:
    return dataclasses.replace(config, engine=EngineConfig(model=model))


def put(path: Path, data: bytes = b"GGUF default") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def test_default_model_is_found_in_a_checkout_and_in_a_wheel(installation: Path) -> None:
    in_checkout = put(installation.parent / "assets" / "grit-nano.gguf")
    assert default_model() == in_checkout
    in_wheel = put(installation / "assets" / "grit-nano.gguf")
    assert default_model() == in_wheel


def test_a_lost_default_model_is_a_clear_error_and_hides_nothing_else(installation: Path, config: Config) -> None:
    with pytest.raises(ModelError, match=r"grit-nano\.gguf is missing.*install gritdesk again"):
        find_model(config)
    assert [each.name for each in list_models(config)] == ["mine"]


def test_models_are_listed_with_the_default_first(installation: Path, config: Config) -> None:
    put(installation / "assets" / "grit-nano.gguf")
    listed = [(each.name, each.size_bytes, each.is_default) for each in list_models(config)]
    assert listed == [("grit-nano", 12, True), ("mine", 9, False)]


@pytest.mark.parametrize("wanted", ["mine", "mine.gguf"])
def test_a_model_is_found_by_its_name(config: Config, wanted: str) -> None:
    assert find_model(asking_for(config, wanted)) == config.models_dir / "mine.gguf"


def test_a_model_is_found_by_its_path(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = put(tmp_path / "elsewhere.gguf")
    assert find_model(asking_for(config, str(elsewhere))) == elsewhere
    monkeypatch.chdir(tmp_path)
    assert find_model(asking_for(config, "elsewhere.gguf")) == elsewhere


def test_a_missing_model_is_named_with_those_that_are_known(config: Config) -> None:
    with pytest.raises(ModelError, match=r"no model 'other'.*mine"):
        find_model(asking_for(config, "other"))


def test_an_empty_setting_means_the_default(installation: Path, config: Config) -> None:
    default = put(installation / "assets" / "grit-nano.gguf")
    assert find_model(config) == default


def test_identity_is_the_hash_of_the_file(config: Config, tmp_path: Path) -> None:
    path = put(tmp_path / "a.gguf")
    expected = hashlib.sha256(b"GGUF default").hexdigest()[:16]
    assert model_identity(path, config.home) == expected == model_identity(path, config.home)


def test_identity_is_remembered_until_the_file_changes(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.gguf")
    before = model_identity(path, config.home)
    real_hash, num_hashed = models.file_sha256, 0

    def counting_hash(path: Path) -> str:
        nonlocal num_hashed
        num_hashed += 1
        return real_hash(path)

    monkeypatch.setattr(models, "file_sha256", counting_hash)
    assert model_identity(path, config.home) == before and num_hashed == 0
    put(path, b"GGUF changed")  # of the same size
    os.utime(path, ns=(0, 0))
    assert model_identity(path, config.home) != before and num_hashed == 1


def test_a_damaged_memory_of_identities_is_made_anew(config: Config, tmp_path: Path) -> None:
    path = put(tmp_path / "a.gguf")
    (config.home / "model_identities.json").write_text("{ no json")
    assert model_identity(path, config.home) == model_identity(path, config.home)


def test_identity_of_a_missing_file_is_a_clear_error(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model .*none\.gguf"):
        model_identity(tmp_path / "none.gguf", config.home)


def test_models_that_count_tokens_alike_are_told_from_those_that_do_not(config: Config, tmp_path: Path) -> None:
    def counting(name: str, kind: str, num_tokens: int) -> str:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_string("tokenizer.ggml.model", kind)
        writer.add_string("tokenizer.ggml.pre", "qwen2")
        writer.add_array("tokenizer.ggml.tokens", ["piece"] * num_tokens)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return tokenizer_identity(tmp_path / name, config.home)

    first = counting("a.gguf", "gpt2", 100)
    assert counting("b.gguf", "gpt2", 100) == first == tokenizer_identity(tmp_path / "a.gguf", config.home)
    assert len({first, counting("c.gguf", "bert", 100), counting("d.gguf", "gpt2", 101)}) == 3
    assert model_identity(tmp_path / "a.gguf", config.home) != first
    with pytest.raises(ModelError):
        tokenizer_identity(put(tmp_path / "e.gguf"), config.home)


@pytest.mark.parametrize("metadata", [GritMetadata(8), GritMetadata(8, generation_attention="none", is_encoder=True)])
def test_head_of_a_file_says_whether_it_only_embeds(tmp_path: Path, metadata: GritMetadata) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "bert")
    writer.add_float32("bert.epsilon", 1e-5)
    for key, value in metadata.to_gguf().items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    writer.add_array("tokenizer.ggml.tokens", ["piece"] * 100_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert only_embeds(tmp_path / "model.gguf") is not metadata.generates


@pytest.mark.parametrize(
    "data", [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"text" * 20, b"GGUF" + bytes(12) + b"\x01" * 80]
)
def test_head_that_cannot_be_read_says_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(data)
    assert not only_embeds(tmp_path / "model.gguf") and not only_embeds(tmp_path / "missing.gguf")


@pytest.mark.parametrize("name", ["mine", "mine.gguf"])
def test_removed_model_is_gone_and_nothing_else(installation: Path, config: Config, name: str) -> None:
    default = put(installation / "assets" / "grit-nano.gguf")
    remove_model(removable(config, name))
    assert default.exists() and [path.name for path in config.models_dir.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grit-nano", "a part of gritdesk"),
        ("other", "no model 'other' in .*mine"),
        ("../models/mine", "no model"),
        ("notes.txt", "no model"),
        ("", "no model"),
    ],
)
def test_what_cannot_be_removed_is_told(installation: Path, config: Config, name: str, said: str) -> None:
    put(installation / "assets" / "grit-nano.gguf")
    with pytest.raises(ModelError, match=said):
        removable(config, name)


def test_model_in_use_is_not_removed(config: Config) -> None:
    for used in ("mine", str(config.models_dir / "mine.gguf")):
        with pytest.raises(ModelError, match="is in use; choose another first"):
            removable(asking_for(config, used), "mine")
    assert removable(asking_for(config, "gone"), "mine").name == "mine"


def test_model_that_hides_the_default_can_be_removed(installation: Path, config: Config) -> None:
    put(installation / "assets" / "grit-nano.gguf")
    hiding = put(config.models_dir / "grit-nano.gguf")
    assert removable(config, "grit-nano").path == hiding
