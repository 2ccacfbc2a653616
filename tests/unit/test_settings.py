"""Every setting is told once, in config.py: its meaning, its limits, and when a change of it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gritdesk.config import Config, EngineConfig, IndexConfig, SearchConfig
from gritdesk.errors import ConfigError
from gritdesk.settings import find_setting, followed, parsed, settings_of, shown_value


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path, index=IndexConfig(folders=("/a", "/b")))


def test_every_setting_has_a_meaning_and_stands_at_its_default(config: Config) -> None:
    found = settings_of(config)
    assert len(found) > 25 and [each.key for each in found if not each.meaning] == []
    assert [each.key for each in found if not each.is_default] == ["index.folders"]
    quiet = find_setting(config, "quiet")
    assert quiet.key == "index.quiet" and quiet.meaning.startswith("What watches rests twice as long")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("index.quiet", "true or false"),
        ("engine.n_ctx", "a whole number, 16 or more"),
        ("search.semantic_weight", "a number, 0 or more"),
        ("engine.kv_type", "one of f16, q8_0, q4_0"),
        ("engine.model", "a text"),
        ("index.folders", "a list of texts"),
    ],
)
def test_kind_of_a_setting_is_told_with_its_limits(config: Config, key: str, kind: str) -> None:
    assert find_setting(config, key).kind == kind


@pytest.mark.parametrize(
    ("key", "typed", "value"),
    [
        ("quiet", " Yes ", True),
        ("quiet", "off", False),
        ("n_ctx", "4096", 4096),
        ("semantic_weight", "1", 1.0),
        ("kv_type", "q8_0", "q8_0"),
        ("embed_query_prefix", "query: ", "query: "),
    ],
)
def test_what_is_typed_becomes_what_config_toml_holds(config: Config, key: str, typed: str, value: object) -> None:
    found = parsed(find_setting(config, key), typed)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "typed", "said"),
    [
        ("quiet", "maybe", "index.quiet must be true or false, found 'maybe'"),
        ("n_ctx", "2k", "engine.n_ctx must be a whole number, 16 or more, found '2k'"),
        ("temperature", "hot", "answer.temperature must be a number, 0 or more, found 'hot'"),
        ("folders", "/c", "`gritdesk index FOLDER` adds one"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(config: Config, key: str, typed: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(find_setting(config, key), typed)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("index.quite", "there is no setting 'index.quite'; `gritdesk settings` lists all"),
        ("motor.n_ctx", "known there: engine.n_ctx"),
        ("answer", "known there: answer.max_tokens"),
    ],
)
def test_unknown_key_is_answered_with_what_is_near(config: Config, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_setting(config, key)
    assert said in str(caught.value)


def test_section_whose_keys_nobody_knows_beforehand_is_shown_as_it_stands(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Wider(Config):
        keys: Mapping[str, object] = field(default_factory=dict)

    found = settings_of(Wider(tmp_path, keys={"search.ask": "ctrl+y"}))[-1]
    assert (found.key, found.section, found.name) == ("keys.search.ask", "keys", "search.ask")
    assert found.applies == "at start" and not found.is_default
    with pytest.raises(ConfigError, match="written in config.toml itself"):
        parsed(found, "ctrl+x")


def test_values_are_shown_as_they_are_typed() -> None:
    values = (True, 0.3, 1.0, 512, ("/a", "/b"), "f16", {"ask.stop": "ctrl+x"})
    assert list(map(shown_value, values)) == ["true", "0.3", "1", "512", "/a, /b", "f16", "ask.stop = ctrl+x"]


def test_what_the_index_was_opened_with_stays_until_it_is_opened_again(config: Config) -> None:
    written = replace(
        config,
        engine=EngineConfig(n_ctx=99),
        index=IndexConfig(folders=("/c",), chunk_tokens=64, quiet=True),
        search=SearchConfig(num_passages=5),
    )
    after = followed(config, written)
    assert (after.search, after.index.quiet, after.index.folders) == (written.search, True, ("/c",))
    assert (after.engine, after.index.chunk_tokens) == (config.engine, 256)
    changed = [now.key for was, now in zip(settings_of(config), settings_of(after), strict=True) if was != now]
    assert [each.key for each in settings_of(after) if each.key in changed and each.applies == "on opening"] == []
