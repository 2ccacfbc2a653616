"""Chats as a person has them: real answers of a real engine, kept, gone on with, searched, handed out and deleted."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from person import Person

from gritdesk.cli import main
from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig, load_config
from gritdesk.desk import Desk
from gritdesk.errors import ConfigError, ModelError
from gritdesk.records import Answer, AnswerFinished, Exchange, PieceGenerated

FERRY = "The ferry Petrel leaves at noon.\nIt comes back at six in the evening.\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ferry.txt").write_text(FERRY)
    (folder / "guide.md").write_text("# Harbour\n\nThe harbour office opens at nine.\n\n## Tides\n\nTwice a day.\n")
    return folder


@pytest.fixture
def config(tmp_path: Path, tiny_gguf: Path, docs: Path) -> Config:
    engine = EngineConfig(model=str(tiny_gguf), n_threads=1, n_ctx=1024)
    config = Config(tmp_path / "home", engine=engine, index=IndexConfig(on_battery="go on"))
    return replace(config, answer=AnswerConfig(max_tokens=12))


@pytest.fixture
def desk(config: Config, docs: Path) -> Iterator[Desk]:
    with Desk.open(config) as desk:
        desk.index([docs])
        yield desk


@pytest.fixture
def person(tmp_path: Path, tiny_gguf: Path, docs: Path) -> Person:
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    assert person.run("index", docs).code == 0
    return person


def asked(desk: Desk, question: str, chat: str) -> Answer:
    *_, last = desk.ask(question, chat=chat)
    assert isinstance(last, AnswerFinished)
    return last.answer


def kept(desk: Desk, question: str, text: str) -> str:
    """A chat of one question whose answer is known."""
    id_ = desk.chats.start()
    desk.chats._chats.add(id_, Exchange(Answer(question, text, False), (), time.time()), begins=True)
    return id_


# ---------------------------------------------------------------- asking within a chat


def test_answers_are_kept_with_their_evidence_and_a_follow_up_is_searched_for_with_them(desk: Desk) -> None:
    id_ = desk.chats.start()
    assert desk.chats.all() == []  # a chat without an answer is none
    first = asked(desk, "When does the ferry Petrel leave?", id_)
    second = asked(desk, "And when is it back?", id_)
    assert first.searched_for == "" and second.searched_for.startswith("And when is it back?")
    assert "Petrel" in second.searched_for
    chat = desk.chats.read(id_)
    assert [each.answer for each in chat.exchanges] == [first, second]
    assert chat.exchanges[0].hits[0].chunk.text == FERRY.rstrip("\n")


def test_filter_of_a_question_holds_for_what_is_searched_for_in_its_place(desk: Desk) -> None:
    id_ = desk.chats.start()
    asked(desk, "When does the ferry Petrel leave?", id_)
    asked(desk, "And when is it back? name:guide", id_)
    assert {hit.path.name for hit in desk.chats.read(id_).exchanges[1].hits} == {"guide.md"}


def test_answer_that_was_stopped_is_kept_as_far_as_it_came(desk: Desk) -> None:
    id_ = desk.chats.start()
    events = desk.ask("When does the ferry leave?", chat=id_)
    text = next(event.text for event in events if isinstance(event, PieceGenerated))
    events.close()  # type: ignore[attr-defined]
    (exchange,) = desk.chats.read(id_).exchanges
    assert exchange.answer.stopped and exchange.answer.text == text.strip() and exchange.hits


def test_nothing_is_kept_where_the_configuration_says_so(config: Config, docs: Path) -> None:
    with Desk.open(replace(config, answer=replace(config.answer, keep_chats=False))) as desk:
        desk.index([docs])
        assert desk.chats.start() == ""
        assert asked(desk, "When does the ferry leave?", desk.chats.start()).text
        with pytest.raises(ConfigError, match="keep_chats"):
            asked(desk, "When?", "20240309-150000-3f2a")
    assert not config.chats_dir.exists()


def test_answer_comes_although_it_cannot_be_kept(desk: Desk, config: Config) -> None:
    notices: list[str] = []
    desk.subscribe(notices.append)
    config.chats_dir.write_text("a file where the folder should be")
    assert asked(desk, "When does the ferry leave?", desk.chats.start()).text
    assert len(notices) == 1 and "this answer is not kept" in notices[0]


# ---------------------------------------------------------------- searching


def test_chats_are_found_by_words_and_by_meaning_and_are_no_files_of_the_index(desk: Desk) -> None:
    tea = kept(desk, "When is tea?", "Tea is at four in the kitchen.")
    boat = kept(desk, "How long is the boat?", "It is eleven metres long.")
    (hit,) = desk.chats.search("kitchen", mode="keyword")
    assert (hit.chat_id, hit.title, hit.number) == (tea, "When is tea?", 1)
    assert desk.chats.search('"eleven metres"')[0].chat_id == boat
    assert {each.chat_id for each in desk.chats.search("four", mode="semantic")} == {tea, boat}
    assert desk.search("kitchen", mode="keyword") == []
    desk.chats.rename(tea, "Zebra crossing")
    assert [each.chat_id for each in desk.chats.search("zebra", mode="keyword")] == [tea]


def test_search_by_words_needs_no_model(config: Config, tmp_path: Path) -> None:
    engine = replace(config.engine, model=str(tmp_path / "gone.gguf"))
    with Desk(replace(config, engine=engine)) as desk:
        kept(desk, "When is tea?", "Tea is at four.")
        assert len(desk.chats.search("tea")) == 1  # both were asked for, and words must do
        assert len(desk.chats.search("tea", mode="keyword")) == 1
        with pytest.raises(ModelError):
            desk.chats.search("tea", mode="semantic")


@pytest.mark.parametrize("damage", ["missing", "garbage", "of another program"])
def test_index_of_chats_is_made_anew_from_them(desk: Desk, config: Config, damage: str) -> None:
    kept(desk, "When is tea?", "Tea is at four.")
    assert len(desk.chats.search("tea")) == 1
    if damage == "missing":
        config.chats_index_path.unlink()
    else:
        for beside in config.home.glob("chats.sqlite-*"):
            beside.unlink()
        config.chats_index_path.write_bytes(b"garbage" * 5000 if damage == "garbage" else b"")
        if damage == "of another program":
            import sqlite3

            with sqlite3.connect(config.chats_index_path) as other:
                other.execute("CREATE TABLE t(a)")
            other.close()
    assert len(desk.chats.search("tea")) == 1


def test_chats_are_embedded_anew_for_another_model(desk: Desk, config: Config, tiny_gguf_q8: Path) -> None:
    kept(desk, "When is tea?", "Tea is at four.")
    assert desk.chats.search("tea", mode="semantic")
    with Desk(replace(config, engine=replace(config.engine, model=str(tiny_gguf_q8)))) as other:
        assert other.chats.search("tea", mode="semantic")


def test_nothing_of_a_deleted_chat_stays_on_the_disk(desk: Desk, config: Config) -> None:
    id_ = kept(desk, "Where is the xylophone?", "The xylophone is in the quarantine room.")
    other = kept(desk, "When is tea?", "Tea is at four.")
    assert desk.chats.search("xylophone")
    desk.chats.delete(id_)
    assert desk.chats.search("xylophone", mode="keyword") == []
    assert [each.id for each in desk.chats.all()] == [other]
    for path in config.home.glob("chats*"):
        if path.is_file():
            assert b"xylophone" not in path.read_bytes() and b"quarantine" not in path.read_bytes(), path


# ---------------------------------------------------------------- the command


def test_chat_is_begun_and_gone_on_with_by_commands(person: Person) -> None:
    first = person.json("ask", "When does the ferry Petrel leave?", "--chat", "new")
    second = person.json("ask", "And when is it back?", "--chat", first["chat"][-4:])
    assert second["chat"] == first["chat"] and "Petrel" in second["searched_for"]
    assert first["searched_for"] == "When does the ferry Petrel leave?"
    again = person.json("ask", "When does the ferry Petrel leave?")
    assert again["chat"] is None  # into a pipe nothing is kept unless a chat is named
    assert [each["questions"] for each in person.json("chats")] == [2]


def test_chat_is_listed_named_found_handed_out_and_deleted_by_commands(desk: Desk, tmp_path: Path) -> None:
    id_ = kept(desk, "When is tea?", "Tea is at four.")
    command = Command(desk.config)
    (summary,) = command.json("chats")
    assert (summary["id"], summary["title"], summary["questions"]) == (id_, "When is tea?", 1)
    assert id_ in command.text("chats") and "1 question" in command.text("chats")
    assert command.json("chats", "rename", id_, "Kitchen")["title"] == "Kitchen"
    assert command.json("chats", "pin", id_)["pinned"] and not command.json("chats", "pin", id_, "--off")["pinned"]
    shown = command.json("chats", "show", id_)
    assert [each["answer"]["text"] for each in shown["exchanges"]] == ["Tea is at four."]
    assert "wrote" in command.text("chats", "export", id_, str(tmp_path / "chat.md"))
    assert (tmp_path / "chat.md").read_text() == command.text("chats", "show", id_)
    assert json.loads(command.text("chats", "export", id_, "--format", "json")) == shown
    (hit,) = command.json("chats", "search", "tea four", "--mode", "keyword")["hits"]
    assert list(hit) == ["rank", "chat", "title", "question", "asked_at", "score", "snippet"]
    assert (hit["chat"], hit["question"]) == (id_, 1)
    assert command.json("status")["chats"]["number"] == 1 and "chats    1 (" in command.text("status")
    assert "--yes" in command.text("chats", "delete", id_, code=1)
    assert command.json("chats", "delete", id_, "--yes") == {"deleted": id_}
    assert command.json("chats") == []


class Command:
    """The command in this process, which spares the start of another one each time."""

    def __init__(self, config: Config) -> None:
        config.path.write_text(f"[engine]\nmodel = {json.dumps(config.engine.model)}\nn_threads = 1\n")
        self._environment = {"GRITDESK_HOME": str(config.home), "NO_COLOR": "1"}

    def text(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, arguments, env=self._environment)
        assert done.exit_code == code, done.output
        return done.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))


def test_commands_of_the_page_on_chats_do_what_they_say(desk: Desk, docs: Path, tmp_path: Path) -> None:
    (docs / "boat.txt").write_text("The Marigold was built in 1998 and is 11 metres long. Her skipper is Nils Aker.\n")
    desk.index([docs])
    page = (Path(__file__).parents[2] / "docs" / "chats.md").read_text(encoding="utf-8")
    block = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)[0]
    command, id_ = Command(desk.config), ""
    for line in block.splitlines():
        arguments = [
            {"ID": id_, "boat.md": str(tmp_path / "boat.md")}.get(each, each) for each in shlex.split(line, True)
        ]
        assert command.text(*arguments[1:], code=3 if "salary" in line else 0)  # 3: nothing in the files answers it
        id_ = id_ or desk.chats.latest()
    assert "## And how long is it?" in (tmp_path / "boat.md").read_text() and desk.chats.all() == []


def test_wrong_use_of_chats_is_said_in_one_line(person: Person) -> None:
    assert "begins one" in person.run("ask", "Why?", "--continue").failure()
    assert "there is no chat 7" in person.run("ask", "Why?", "--chat", "7").failure()
    assert "exclude each other" in person.run("ask", "Why?", "--continue", "--no-chat").failure(2)
    command = Command(load_config(person.home))
    for wrong in (["show", "x"], ["export", "x"], ["rename", "x", "y"], ["pin", "x"], ["delete", "x", "--yes"]):
        assert command.text("chats", *wrong, code=1).startswith("gritdesk: there is no chat x; ")
    for empty in (["search", " "], ["rename", "x", " "]):
        assert "give at least one word" in command.text("chats", *empty, code=2)


def test_damaged_line_is_told_by_show_and_doctor(person: Person) -> None:
    id_ = person.json("ask", "When does the ferry Petrel leave?", "--chat", "new")["chat"]
    with open(load_config(person.home).chats_dir / f"{id_}.jsonl", "ab") as file:
        file.write(b"\0\0\0\n")
    shown = person.run("chats", "show", id_)
    assert "1 line of its file" in shown.errors and "ferry Petrel" in shown.output
    doctor = person.run("doctor")
    assert doctor.code == 0 and "1 kept" in doctor.output and "cannot be read" in doctor.output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_while_an_answer_is_written_keeps_the_chat(person: Person) -> None:
    id_ = person.json("ask", "When does the ferry Petrel leave?", "--chat", "new")["chat"]
    for wait_s in (0.5, 2.0):
        process = person.start("ask", "And when is it back?", "--continue")
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert person.json("ask", "Why?", "--continue")["chat"] == id_
    questions = [each["answer"]["question"] for each in person_chat(person, id_)]
    assert questions[0] == "When does the ferry Petrel leave?" and questions[-1] == "Why?"
    assert person.run("doctor").code == 0


def test_two_processes_ask_in_one_chat_at_once(person: Person) -> None:
    id_ = person.json("ask", "When does the ferry Petrel leave?", "--chat", "new")["chat"]
    processes = [person.start("ask", question, "--continue") for question in ("And back?", "Who says so?")]
    assert [process.wait() for process in processes] == [0, 0]
    questions = [each["answer"]["question"] for each in person_chat(person, id_)]
    assert sorted(questions[1:]) == ["And back?", "Who says so?"]
    assert {hit["question"] for hit in person.json("chats", "search", "ferry back says")["hits"]} >= {1}


def person_chat(person: Person, id_: str) -> list[dict[str, dict[str, str]]]:
    exchanges: list[dict[str, dict[str, str]]] = json.loads(person.run("chats", "show", id_, "--json").output)[
        "exchanges"
    ]
    return exchanges
