"""A GGUF of somebody else gets what it lacks, takes its place whole, and whatever goes wrong leaves all as it was."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import pytest
from tiny import copy_gguf_without_grit

from gritdesk import importing
from gritdesk.config import Config
from gritdesk.errors import ConfigError, GritDeskError, ModelError
from gritdesk.gguf_file import read_header
from gritdesk.grit_format import GritMetadata
from gritdesk.importing import KNOWN_MODELS, KnownModel, placing, target_for
from gritdesk.model_facts import describe


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "home")


@pytest.fixture(scope="module")
def foreign(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_gguf_without_grit(tiny_gguf, tmp_path_factory.mktemp("foreign") / "foreign.gguf")


def place(config: Config, source: Path, name: str = "mine", *, replace: bool = False, **options: Any) -> Path:
    target = target_for(config, name, replace=replace)
    with placing(config, source, target, **options) as whole:
        assert whole.name == target.name and read_header(whole)
    return target


def files(config: Config) -> dict[str, bytes]:
    """All that is in HOME/models, hidden or not."""
    return {str(path.relative_to(config.models_dir)): path.read_bytes() for path in config.models_dir.rglob("*.gguf")}


def test_model_of_ours_is_copied_as_it_is(config: Config, tiny_gguf: Path) -> None:
    target = place(config, tiny_gguf)
    assert list(files(config)) == ["mine.gguf"] and target.read_bytes() == tiny_gguf.read_bytes()
    assert [path.name for path in config.models_dir.iterdir()] == ["mine.gguf"]


def test_frames_and_twin_are_added_and_nothing_else_is_changed(config: Config, foreign: Path, tiny_gguf: Path) -> None:
    target = place(config, foreign, frames="gritlm")
    ours, theirs = read_header(target), read_header(foreign)
    metadata = GritMetadata(256, markers="text", embedding_architecture="llama-embed")
    assert describe(ours).grit == metadata
    converted = read_header(tiny_gguf).values
    twin = {key: value for key, value in converted.items() if key.startswith("llama-embed.")}
    assert twin and ours.values == {**theirs.values, **metadata.to_gguf(), **twin} and ours.lengths == theirs.lengths
    for our_tensor, their_tensor in zip(gguf.GGUFReader(target).tensors, gguf.GGUFReader(foreign).tensors, strict=True):
        assert our_tensor.data.tobytes() == their_tensor.data.tobytes()


@pytest.mark.parametrize(
    ("title", "changed", "is_known"),
    [
        ("GritLM-7B", {}, True),
        ("gritlm_gritlm-7b", {}, True),
        ("Grit Lm", {}, False),
        ("Mistral-7B-v0.1", {}, False),
        (".", {}, False),
        ("GritLM-8x7B", {"llama.expert_count": 8}, True),
        ("GritLM-7B", {"llama.block_count": 16}, False),
        ("GritLM-7B", {"general.architecture": "qwen2"}, False),
    ],
)
def test_known_models_are_known_by_name_and_shape(
    foreign: Path, title: str, changed: dict[str, str | int], is_known: bool
) -> None:
    header = read_header(foreign)
    shape = {"llama.block_count": 32, "llama.embedding_length": 4096, "llama.attention.head_count_kv": 8}
    facts = describe(dataclasses.replace(header, values={**header.values, **shape, "general.name": title, **changed}))
    assert any(known.is_it(facts) for known in KNOWN_MODELS) == is_known


@pytest.mark.parametrize(("known", "family"), zip(KNOWN_MODELS, ["Mistral", "Mixtral"], strict=True))
def test_known_models_have_the_shapes_of_those_they_were_trained_from(known: KnownModel, family: str) -> None:
    import transformers

    base = getattr(transformers, f"{family}Config")()  # without arguments the first published model of the family
    assert (known.num_layers, known.hidden_size) == (base.num_hidden_layers, base.hidden_size)
    assert known.num_kv_heads == base.num_key_value_heads
    assert known.num_experts == getattr(base, "num_local_experts", 0)


def test_twin_is_left_out_where_its_keys_cannot_be_added(config: Config, foreign: Path) -> None:
    header = read_header(foreign)
    several = dataclasses.replace(header, lengths={**header.lengths, "llama.attention.head_count": 2})
    beyond = dataclasses.replace(header, values={**header.values, "llama.context_length": 1 << 40})
    twice = dataclasses.replace(header, values={**header.values, "llama-embed.block_count": 2})
    other = dataclasses.replace(header, values={**header.values, "general.architecture": "qwen2"})
    for each in (several, beyond, twice, other):
        each = dataclasses.replace(each, values={**each.values, "qwen2.embedding_length": 256})
        assert importing._added_values(each, "gritlm") == GritMetadata(256, markers="text").to_gguf()


def test_known_model_needs_no_word_of_how_it_is_read(
    config: Config, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = dataclasses.replace(KNOWN_MODELS[0], num_layers=2, hidden_size=256, num_kv_heads=2)
    monkeypatch.setattr(importing, "KNOWN_MODELS", (tiny,))
    target = place(config, copy_gguf_without_grit(tiny_gguf, tmp_path / "a.gguf", name="GritLM-7B"))
    expected = GritMetadata(256, markers="text", embedding_architecture="llama-embed")
    assert describe(read_header(target)).grit == expected


def test_what_nobody_knows_how_to_read_is_refused(config: Config, foreign: Path, tiny_gguf: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say how it embeds.*--frames gritlm"):
        place(config, foreign)
    with pytest.raises(ModelError, match="leave --frames out"):
        place(config, tiny_gguf, frames="gritlm")
    assert not config.models_dir.exists()


@pytest.mark.parametrize("content", [None, b"", b"no model", "half", "folder"])
def test_bad_file_leaves_the_old_model_alone(
    config: Config, tiny_gguf: Path, tiny_gguf_q8: Path, tmp_path: Path, content: bytes | str | None
) -> None:
    place(config, tiny_gguf)
    source = tmp_path / "bad.gguf"
    if content == "folder":
        source.mkdir()
    elif content is not None:
        source.write_bytes(content if isinstance(content, bytes) else tiny_gguf_q8.read_bytes()[:100_000])
    with pytest.raises(ModelError, match=r"bad\.gguf"):
        place(config, source, replace=True)
    assert files(config) == {"mine.gguf": tiny_gguf.read_bytes()}


def test_taken_name_is_replaced_only_when_told(config: Config, tiny_gguf: Path, tiny_gguf_q8: Path) -> None:
    place(config, tiny_gguf)
    with pytest.raises(ModelError, match=r"mine\.gguf is there already; give --replace"):
        place(config, tiny_gguf_q8)
    assert files(config) == {"mine.gguf": tiny_gguf.read_bytes()}
    place(config, tiny_gguf_q8, replace=True)
    assert files(config) == {"mine.gguf": tiny_gguf_q8.read_bytes()}


def test_file_can_be_imported_over_itself(config: Config, foreign: Path) -> None:
    config.models_dir.mkdir(parents=True)
    own = shutil.copy(foreign, config.models_dir / "mine.gguf")
    place(config, own, replace=True, frames="gritlm")
    assert describe(read_header(own)).grit is not None


@pytest.mark.parametrize("name", ["", " ", ".hidden", "a/b", "..", "a\\b", "a:b", "a\nb", "default", "x" * 200, " a"])
def test_name_that_is_none_is_refused(config: Config, name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        target_for(config, name, replace=False)


def test_name_may_have_its_suffix(config: Config) -> None:
    assert target_for(config, "my model (2).gguf", replace=False) == config.models_dir / "my model (2).gguf"


@pytest.mark.parametrize("error", [ModelError("it is no good"), KeyboardInterrupt()])
def test_model_that_does_not_prove_itself_is_not_kept(
    config: Config, tiny_gguf: Path, tiny_gguf_q8: Path, error: BaseException
) -> None:
    place(config, tiny_gguf)
    with pytest.raises(type(error)):
        with placing(config, tiny_gguf_q8, config.models_dir / "mine.gguf"):
            raise error
    assert files(config) == {"mine.gguf": tiny_gguf.read_bytes()}
    assert [path.name for path in config.models_dir.iterdir()] == ["mine.gguf"]


def test_stopped_import_leaves_nothing(config: Config, tiny_gguf: Path) -> None:
    with pytest.raises(ModelError, match="stopped"):
        place(config, tiny_gguf, is_stopped=lambda: True)
    assert list(config.models_dir.iterdir()) == []


def test_full_disk_is_told_before_anything_is_written(
    config: Config, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 1_000_000))
    with pytest.raises(ModelError, match=r"1\.0 MB free and \d+\.\d MB are needed; make room"):
        place(config, tiny_gguf)
    assert list(config.models_dir.iterdir()) == []


def test_home_that_is_a_file_is_told(config: Config, tiny_gguf: Path) -> None:
    config.home.write_text("no folder")
    with pytest.raises(GritDeskError, match=r"cannot write .*mine\.gguf"):
        place(config, tiny_gguf)


def test_one_part_of_several_is_refused(config: Config, tiny_gguf: Path, tmp_path: Path) -> None:
    from gritdesk.gguf_file import write_with

    write_with(read_header(tiny_gguf), {"split.count": 3}, tmp_path / "a-00001-of-00003.gguf", lambda: False)
    with pytest.raises(ModelError, match="one part of several"):
        place(config, tmp_path / "a-00001-of-00003.gguf")


def test_downloaded_model_is_not_copied_where_it_can_be_linked(
    config: Config, tiny_gguf: Path, foreign: Path, tmp_path: Path
) -> None:
    downloaded = Path(shutil.copy(tiny_gguf, tmp_path / "a.gguf"))
    assert place(config, downloaded, by_link=True).samefile(downloaded)
    target = place(config, foreign, "other", by_link=True, frames="gritlm")
    assert not target.samefile(foreign) and describe(read_header(foreign)).grit is None
