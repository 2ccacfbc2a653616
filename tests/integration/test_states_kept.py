"""States of passages as a person meets them: asked with and without, told, cleared, on a disk that takes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from person import Person

from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.errors import ConfigError
from gritdesk.records import AnswerFinished

QUESTION = "Where does ship 1 lie?"


@pytest.fixture(scope="module")
def indexed(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose index holds four files of one passage each."""
    folder = tmp_path_factory.mktemp("states")
    (folder / "docs").mkdir()
    for number in range(4):
        (folder / "docs" / f"ship{number}.txt").write_text(f"Ship {number} lies at anchor in bay {number}. " * 4)
    person = Person(folder / "home")
    person.configure(tiny_gguf)
    assert person.run("index", folder / "docs").code == 0
    return folder / "home"


@pytest.fixture
def home(indexed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(indexed, tmp_path / "home"))


@pytest.fixture
def config(home: Path, tiny_gguf: Path) -> Config:
    engine = EngineConfig(model=str(tiny_gguf), n_threads=1, n_ctx=1024)
    return Config(home, engine=engine, index=IndexConfig(), answer=AnswerConfig(max_tokens=8, cache="doc"))


@pytest.fixture
def desk(config: Config) -> Iterator[Desk]:
    with Desk.open(config) as desk:
        yield desk


def answer(desk: Desk, **settings: object) -> str:
    *_, last = desk.ask(QUESTION, **settings)  # type: ignore[arg-type]
    assert isinstance(last, AnswerFinished)
    return last.answer.text


def test_passages_are_kept_when_asked_about_and_found_by_the_next_process(config: Config) -> None:
    with Desk.open(config) as desk:
        first = answer(desk)
        assert (desk.states().num_states, desk.states().hit_rate) == (3, 0.0)
    with Desk.open(config) as desk:
        assert answer(desk) == first
        use, status = desk.states(), desk.status()
        assert (use.num_states, use.hit_rate) == (3, 0.5)
        assert (status.states_bytes, status.states_hit_rate) == (use.size_bytes, 0.5)
        assert status.states_max_bytes == 1_024_000_000


def test_passages_kept_beforehand_are_there_when_they_are_asked_about(desk: Desk) -> None:
    assert desk.keep_states() == 4
    answer(desk)
    assert desk.states().hit_rate == 1.0


def test_without_caching_nothing_is_kept(desk: Desk) -> None:
    answer(desk, cache="none")
    assert desk.states().num_states == 0
    answer(desk, cache="query")
    assert desk.states().num_states == 1, "the question"
    answer(desk, cache="doc-query")
    assert desk.states().num_states == 4


def test_model_of_plain_passages_keeps_none_unless_told_to(config: Config) -> None:
    with Desk.open(replace(config, answer=AnswerConfig(max_tokens=8))) as desk:
        answer(desk)
        assert desk.keep_states() == 0
        assert desk.states().num_states == 0


def test_states_of_a_model_that_is_replaced_before_its_first_question_are_not_taken(
    config: Config, tiny_gguf: Path, tiny_gguf_q8: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copy(tiny_gguf, tmp_path / "model.gguf"))
    config = replace(config, engine=replace(config.engine, model=str(model)))
    with Desk.open(config) as desk:
        answer(desk)
        kept = desk.states().num_asked
    with Desk.open(config) as desk:
        engine = desk.engine()
        shutil.copy(tiny_gguf_q8, tmp_path / "other.gguf")
        (tmp_path / "other.gguf").replace(model)
        assert engine.warm(["Tea is at four."], "doc").is_full and desk.states().num_asked == kept == 3


def test_folder_that_takes_nothing_is_said_once_and_answers_come(config: Config) -> None:
    with Desk.open(replace(config, answer=AnswerConfig(max_tokens=8, cache="doc"))) as desk:
        expected = answer(desk)
        desk.clear_states()
        shutil.rmtree(config.states_dir)
        config.states_dir.write_text("a file in its place")
        told: list[str] = []
        desk.subscribe(told.append)
        assert [answer(desk, cache=cache) == expected for cache in ("doc", "doc-query", "doc")] == [True, False, True]
        assert len(told) == 1 and "answers come all the same" in told[0]


def test_all_passages_are_kept_as_far_as_there_is_room(config: Config) -> None:
    with Desk.open(config) as desk:
        progress: list[tuple[int, int]] = []
        assert desk.keep_states(lambda done, total: progress.append((done, total))) == 4
        assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert desk.keep_states() == 0
        size = desk.states().size_bytes
        desk.clear_states()
        assert desk.keep_states(is_stopped=lambda: True) == 0
    with Desk.open(replace(config, engine=replace(config.engine, states_mb=0))) as desk:
        answer(desk)
        assert desk.states().num_states == 0
        with pytest.raises(ConfigError, match="states_mb is 0"):
            desk.keep_states()
    assert 4 * 20_000 < size < 4 * 200_000


def test_commands_keep_tell_and_clear(home: Path, indexed: Path, tiny_gguf: Path) -> None:
    person = Person(home)
    person.configure(tiny_gguf, 'cache = "doc"\n[index]\nfolders = ' + f'["{(indexed.parent / "docs").as_posix()}"]\n')
    assert "passages made ready for answers" in person.run("index", "--states").output
    kept = person.json("states")
    assert kept["states"] >= 1 and 0 < kept["bytes"] <= kept["max_bytes"] and kept["asked"] == 0
    status = person.json("status")
    assert status["states"] == {"bytes": kept["bytes"], "max_bytes": kept["max_bytes"], "hit_rate": None}
    assert "of 1,024 MB" in person.run("status").output
    assert person.run("states").output.startswith(f"{kept['states']} passages, ")
    assert person.run("states", "--clear").output.startswith(f"deleted {kept['states']} passages")
    assert person.json("states")["bytes"] == 0
    assert "'--cache'" in person.run("ask", "--cache", "all", "What?").failure(2)
    assert person.json("ask", "--cache", "query-doc", QUESTION)["answer"]
