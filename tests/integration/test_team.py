"""A team's index as docs/team.md sets it up: one home indexes, another searches, one server embeds for both."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from embedding_server import EmbeddingServer, embedding_server
from postgres_server import PASSWORD, PostgresServer

from gritdesk.cli import main
from gritdesk.config import Config, EngineConfig, IndexConfig, load_config
from gritdesk.desk import Desk
from gritdesk.doctor import examine
from gritdesk.engine.endpoint import EndpointEmbedder
from gritdesk.errors import ConfigError, ModelError, StoreError
from gritdesk.store.postgres_connection import parse_address

TEAM = (Path(__file__).parents[2] / "docs" / "team.md").read_text(encoding="utf-8")


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "keys.md").write_text("# Tower\n\nThe spare key hangs behind the clock.\n")
    (folder / "boats.txt").write_text("The Marigold has a new starter battery.\n")
    return folder


@pytest.fixture
def config(postgres: PostgresServer, server: EmbeddingServer, docs: Path, tmp_path: Path, tiny_gguf: Path) -> Config:
    """Of the home that indexes."""
    postgres.empty("gritdesk")
    engine = EngineConfig(model=str(tiny_gguf), n_threads=1, n_ctx=1024, embed_url=server.url, embed_model=server.model)
    index = IndexConfig(folders=(str(docs),), on_battery="go on", store=postgres.url())
    return Config(tmp_path / "harbour", engine=engine, index=index)


def written(config: Config) -> str:
    """config.toml of a configuration, in its home; returns the home."""
    config.home.mkdir(exist_ok=True)
    engine, index = config.engine, config.index
    (config.home / "config.toml").write_text(
        f'[engine]\nmodel = "{engine.model}"\nembed_url = "{engine.embed_url}"\nembed_model = "{engine.embed_model}"\n'
        f'[index]\nstore = "{index.store}"\n'
    )
    return str(config.home)


def test_one_home_indexes_and_another_one_searches(
    config: Config, docs: Path, tmp_path: Path, server: EmbeddingServer
) -> None:
    with Desk.open(config) as keeper:
        report = keeper.index([docs])
        assert (report.files_indexed, report.chunks_embedded, report.failed) == (2, 2, ())
        assert "The spare key" in " ".join(text for asked in server.requests for text in asked["input"])
    assert not (config.home / "index.sqlite").exists()
    with Desk.open(replace(config, home=tmp_path / "laptop")) as reader:
        assert [hit.path for hit in reader.search("spare key", 1, "keyword")] == [docs / "keys.md"]
        server.requests.clear()
        assert {hit.path for hit in reader.search("battery", 5)} == {docs / "keys.md", docs / "boats.txt"}
        assert [len(asked["input"]) for asked in server.requests] == [1], "the question alone"
        assert reader.document_text(docs / "boats.txt") == (docs / "boats.txt").read_text()
        with pytest.raises(StoreError, match="kept up by .*harbour"):
            reader.index([docs])
    (docs / "boats.txt").unlink()
    with Desk.open(config) as keeper:
        assert keeper.index().files_deleted == 1
        assert keeper.check() == []


def test_server_that_fails_leaves_the_words_and_is_asked_again(
    config: Config, docs: Path, server: EmbeddingServer
) -> None:
    server.failures = [(401, {}, b"no")]
    with Desk.open(config) as desk:
        with pytest.raises(ModelError, match="refuses the key"):
            desk.index([docs])
        assert [hit.path.name for hit in desk.search("spare key", 1, "keyword")] == ["keys.md"]
        report = desk.index()
        assert (report.files_indexed, report.chunks_embedded) == (0, 2)


def test_status_and_doctor_say_where_the_index_is_and_what_leaves_the_machine(
    config: Config, docs: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Desk.open(config) as desk:
        desk.index([docs])
    monkeypatch.setenv("GRITDESK_HOME", written(config))
    told = CliRunner().invoke(main, ["status"], catch_exceptions=False).output
    assert f"index    {parse_address(config.index.store)} (" in told
    assert f"the texts of your files and your questions go to {server.url}" in told
    checks = {each.name: each for each in examine()}
    assert [name for name, check in checks.items() if not check.ok] == []
    assert "2 files, 2 passages" in checks["index"].found and "postgresql://keeper@127.0.0.1" in checks["index"].found
    assert "8 numbers" in checks["embeddings"].found and f"go to {server.url}" in checks["embeddings"].found
    assert PASSWORD not in told + "".join(check.found for check in checks.values())
    assert config.index.store.split("@")[0] not in told


def test_nothing_is_sent_as_long_as_no_server_is_named(config: Config, tmp_path: Path) -> None:
    with Desk(replace(config, engine=replace(config.engine, embed_url=""))) as desk:
        assert desk.endpoint() is None and desk.sends == ""


def test_embed_command_asks_the_server_unless_a_model_is_named(
    config: Config, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRITDESK_HOME", written(config))
    assert CliRunner().invoke(main, ["embed"], input="walrus\n").output.count(",") == 7
    named = CliRunner().invoke(main, ["embed", "--model", config.engine.model], input="walrus\n")
    assert named.output.count(",") > 7 and len(server.requests) == 1


def test_going_over_to_a_server_embeds_anew_and_searches_as_before_until_then(
    config: Config, docs: Path, server: EmbeddingServer
) -> None:
    local = replace(config, engine=replace(config.engine, embed_url=""), index=replace(config.index, store=""))
    with Desk.open(local) as desk:
        assert desk.index([docs]).chunks_embedded == 2
    server.failures = [(401, {}, b"no")] * 2
    with Desk.open(replace(local, engine=config.engine)) as desk:
        with pytest.raises(ModelError):
            desk.index()
        server.requests.clear()
        assert len(desk.search("battery", 5, "semantic")) == 2, "by the local model, in its space"
        assert server.requests == []
        server.failures.clear()
        assert desk.index().chunks_embedded == 2
        assert len(desk.search("battery", 5, "semantic")) == 2 and desk.status().fingerprint == "endpoint/letters"


@pytest.mark.parametrize("snippet", re.findall(r"```toml\n(.*?)```", TEAM, flags=re.DOTALL))
def test_settings_shown_in_the_docs_can_be_used(snippet: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(snippet)
    config = load_config(tmp_path)
    assert tomllib.loads(snippet)
    if config.engine.embed_url:
        assert EndpointEmbedder(config.engine).fingerprint == "endpoint/Qwen3-Embedding-0.6B"
    else:
        assert str(parse_address(config.index.store)) == "postgresql://gritdesk@db.example:5432/notes"


def test_sql_shown_in_the_docs_makes_a_team(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = re.findall(r"```sql\n(.*?)```", TEAM, flags=re.DOTALL)
    before, after = first.split("\\c notes\n")
    for statement in filter(str.strip, before.split(";")):
        postgres.run(statement)
    postgres.run(after, database="notes")
    config = Config(
        Path("/nowhere"), index=IndexConfig(store=postgres.url("notes", user="gritdesk", password="choose one"))
    )
    with Desk(config) as desk:
        assert desk.check() == []
    postgres.run(second, database="notes")
    store = postgres.url("notes", user="reader", password="choose another")
    with Desk(replace(config, index=IndexConfig(store=store))) as desk:
        assert desk.search("anything", 5, "keyword") == []


def test_driver_that_is_not_installed_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("gritdesk.store.postgres", "gritdesk.store.postgres_connection"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pg8000", None)
    monkeypatch.setitem(sys.modules, "pg8000.exceptions", None)
    with pytest.raises(ConfigError, match=r'pip install "gritdesk\[postgres\]"'):
        Desk.open(config)
