"""`gritdesk settings` and `gritdesk index --estimate`, as a person and a script use them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedding_server import embedding_server
from person import Person

from gritdesk.config import Config, EngineConfig, load_config
from gritdesk.desk import Desk
from gritdesk.errors import ConfigError, ModelError

NUM_FILES = 6


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(NUM_FILES):
        text = "\n\n".join(f"Ship {n} of fleet {part} lies at anchor in bay {n * part}. " * 8 for part in range(1, 4))
        (folder / f"ship{n}.txt").write_text(text)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def person(tmp_path: Path, tiny_gguf: Path) -> Person:
    person = Person(tmp_path / "home")
    person.home.mkdir()
    (person.home / "config.toml").write_text(f'# mine\n[engine]\nmodel = "{tiny_gguf}"\nn_threads = 1  # shared\n')
    return person


@pytest.fixture
def desk(person: Person, docs: Path) -> Iterator[Desk]:
    """On an index that holds the documents."""
    with Desk.open(load_config(person.home)) as desk:
        desk.index([docs])
        yield desk


# ---------------------------------------------------------------- the estimate


def test_estimate_counts_as_indexing_does_and_changes_nothing(person: Person, docs: Path) -> None:
    before = {path: path.read_bytes() for path in person.home.iterdir()}
    told = person.json("index", "--estimate", docs)
    assert (told["files"], told["unchanged"], told["skipped"], told["whole"]) == (NUM_FILES, 0, 1, True)
    assert told["bytes"] == sum(path.stat().st_size for path in docs.glob("*.txt"))
    assert told["folders"][0]["path"] == str(docs) and told["folders"][0]["skipped"] == {"no reader for .png": 1}
    assert told["tokens_per_s"] > 0 and told["seconds"] == pytest.approx(told["words_s"] + told["meaning_s"], abs=0.02)
    assert {path: path.read_bytes() for path in before} == before
    assert not (person.home / "index.sqlite").exists()
    indexed = person.json("index", docs)
    assert indexed["files_indexed"] == told["files"] and indexed["chunks_embedded"] == told["passages"]
    again = person.json("index", "--estimate")
    assert (again["files"], again["unchanged"], again["passages"]) == (NUM_FILES, NUM_FILES, 0)


def test_estimate_is_said_in_words_and_a_missing_folder_in_one_line(person: Person, docs: Path) -> None:
    told = person.run("index", "--estimate", docs)
    assert told.code == 0 and f"{NUM_FILES} files" in told.output and "indexing takes about" in told.output
    gone = person.run("index", "--estimate", docs / "gone")
    assert gone.code == 1 and gone.errors.count("\n") == 1 and "is not there" in gone.errors


# ---------------------------------------------------------------- settings


def test_settings_are_listed_with_what_is_kept_where(person: Person, desk: Desk) -> None:
    told = person.json("settings")
    assert told["path"] == str(person.home / "config.toml")
    by_key = {each["key"]: each for each in told["settings"]}
    assert by_key["engine.n_threads"]["value"] == 1 and by_key["engine.n_threads"]["default"] == 0
    assert all(each["meaning"] for each in told["settings"])
    stored = {each["name"]: each for each in told["stored"]}
    assert stored["index"]["bytes"] > 0 and stored["states"]["wipe"] == "gritdesk states --clear"
    assert {"index", "chats", "states", "models", "logs"} <= set(stored)
    words = person.run("settings")
    assert words.code == 0 and "* n_threads" in words.output and "[answer]" in words.output
    one = person.json("settings", "quiet")
    assert (one["key"], one["value"], one["applies"]) == ("index.quiet", False, "at once")


def test_setting_is_written_and_taken_back_and_all_else_stays(person: Person) -> None:
    before = (person.home / "config.toml").read_text()
    changed = person.json("settings", "answer.max_tokens", "99")
    assert changed["value"] == 99 and changed["price"]["told"] == ""
    assert load_config(person.home).answer.max_tokens == 99
    assert person.run("settings", "--reset", "max_tokens").output.startswith("answer.max_tokens is 160 now")
    assert (person.home / "config.toml").read_text().rstrip() == before.rstrip()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["n_ctx", "3"], "engine.n_ctx must be 16 or more, found 3"),
        (["quiet", "maybe"], "index.quiet must be true or false"),
        (["kv_type", "f64"], 'must be one of "f16", "q8_0", "q4_0"'),
        (["nothing.of_it", "1"], "there is no setting"),
        (["index.folders", "/x"], "gritdesk index FOLDER"),
        (["engine.model", "nope"], "there is no model 'nope'"),
        (["engine.embed_url", "http://localhost:1/v1"], "engine.embed_url needs engine.embed_model"),
        (["index.store", "mysql://x"], "index.store"),
        (["index.chunk_tokens", "400"], "at least 136 less than"),
    ],
)
def test_what_may_not_be_is_said_in_one_line_and_not_written(person: Person, arguments: list[str], said: str) -> None:
    before = (person.home / "config.toml").read_text()
    done = person.run("settings", *arguments, "--yes")
    assert done.code == 1 and done.output == "" and done.errors.count("\n") == 1
    assert said in done.errors
    assert (person.home / "config.toml").read_text() == before


def test_change_that_reads_everything_anew_names_its_price_and_asks(person: Person, desk: Desk) -> None:
    refused = person.run("settings", "chunk_tokens", "64")
    assert refused.code == 1 and refused.errors.count("\n") == 1
    assert f"{NUM_FILES} files are read and cut anew" in refused.errors and "--yes" in refused.errors
    assert load_config(person.home).index.chunk_tokens == 256
    done = person.json("settings", "chunk_tokens", "64", "--yes")
    assert done["price"]["files"] == NUM_FILES and done["price"]["seconds"] > 0
    assert load_config(person.home).index.chunk_tokens == 64
    assert desk.price("chunk_tokens", "256").told == "", "back to what the index was made by costs nothing"


def test_another_model_embeds_all_passages_anew(desk: Desk, tiny_gguf_q8: Path) -> None:
    price = desk.price("engine.model", str(tiny_gguf_q8))
    assert price.num_passages == desk.status().chunks and price.num_files == 0
    assert price.seconds is not None and "embedded anew" in price.told and "on this machine" in price.told
    assert desk.price("engine.n_ctx", "512").told == ""
    assert desk.config == load_config(desk.config.home)


def test_model_that_cannot_be_loaded_is_not_chosen(desk: Desk, tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    with pytest.raises(ModelError):
        desk.price("engine.model", str(tmp_path / "broken.gguf"))


def test_server_that_would_embed_is_named_and_gets_no_text_before_it_is_wanted(desk: Desk) -> None:
    with embedding_server() as server:
        desk.change_setting("embed_model", "letters")
        price = desk.price("embed_url", server.url)
        assert f"sent to {server.url}" in price.told and "embedded anew" in price.told
        assert not any("Ship" in text for request in server.requests for text in request["input"])


def test_another_place_of_the_index_is_told_with_what_filling_it_takes(desk: Desk) -> None:
    price = desk.price("index.store", "postgresql://me@db/notes")
    assert price.num_files == NUM_FILES and "stays as it is" in price.told and "me@db:5432/notes" in price.told


def test_change_counts_at_once_where_it_can(desk: Desk) -> None:
    assert desk.change_setting("search.num_passages", "5").value == 5
    assert desk.config.search.num_passages == 5
    assert desk.change_setting("answer.keep_chats", "no").applies == "at once"
    assert desk.chats.start() == ""
    opened_with = desk.config.engine
    assert desk.change_setting("engine.n_ctx", "512").applies == "on opening"
    assert desk.config.engine == opened_with and load_config(desk.config.home).engine.n_ctx == 512


def test_process_that_watches_goes_by_what_another_one_writes(desk: Desk) -> None:
    stop = threading.Event()
    watching = threading.Thread(target=desk.watch, args=(lambda progress: None, stop))
    watching.start()
    try:
        with Desk(load_config(desk.config.home)) as other:
            other.change_setting("quiet", "on")
            other.change_setting("num_passages", "5")
        ends_at = time.monotonic() + 30
        while not (desk.config.index.quiet and desk.config.search.num_passages == 5) and time.monotonic() < ends_at:
            stop.wait(0.05)
        assert desk.config.index.quiet and desk.config.search.num_passages == 5 and desk.status().quiet
    finally:
        stop.set()
        watching.join()


def test_mistake_in_config_toml_is_named_before_anything_is_changed(tmp_path: Path, tiny_gguf: Path) -> None:
    config = Config(tmp_path / "home", engine=EngineConfig(model=str(tiny_gguf)))
    with Desk.open(config) as desk:
        config.path.write_text("[engine]\nmodle = 1\n")
        with pytest.raises(ConfigError, match="unknown key engine.modle"):
            desk.change_setting("quiet", "on")


def test_machine_and_models_are_described(desk: Desk, tiny_gguf: Path) -> None:
    machine = desk.machine()
    assert machine.num_cores >= 1 and machine.memory_bytes > machine.memory_free_bytes > 0
    assert machine.disk_free_bytes > 0
    (used, facts), *others = desk.models()
    assert used.path == tiny_gguf and facts is not None and facts.family == "llama"
    assert [each.name for each, _ in others] == ["grit-nano"]
    assert json.dumps(machine.name)
