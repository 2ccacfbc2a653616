"""A question asked of some files and folders alone: through the desk, its chats and the command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from person import Person

from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.errors import QueryError
from gritdesk.records import Answer, AnswerFinished, EvidenceFound, PieceGenerated

TEXTS = {
    "boats/ferry.txt": "The ferry Petrel leaves at noon.",
    'boats/old "one".txt': "The ferry Gannet leaves at dawn.",
    "bus/times.md": "The bus to the ferry leaves at eleven.",
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path / "docs"


@pytest.fixture
def desk(tmp_path: Path, docs: Path, tiny_gguf: Path) -> Iterator[Desk]:
    engine = EngineConfig(model=str(tiny_gguf), n_threads=1, n_ctx=1024)
    config = Config(tmp_path / "home", engine=engine, index=IndexConfig(on_battery="go on"))
    with Desk.open(replace(config, answer=AnswerConfig(max_tokens=12))) as desk:
        desk.index([docs])
        yield desk


def asked(desk: Desk, question: str, *within: Path, chat: str = "") -> tuple[set[str], Answer]:
    """Names of the passages' files, and the answer."""
    evidence, *_, last = desk.ask(question, within=within, chat=chat)
    assert isinstance(evidence, EvidenceFound) and isinstance(last, AnswerFinished)
    return {hit.path.name for hit in evidence.hits}, last.answer


def test_files_and_folders_alone_are_asked_whatever_the_question_says_of_places(desk: Desk, docs: Path) -> None:
    question = "When does the ferry leave?"
    assert asked(desk, question)[0] == {"ferry.txt", 'old "one".txt', "times.md"}
    assert asked(desk, question, docs / "boats" / "ferry.txt", docs / "bus")[0] == {"ferry.txt", "times.md"}
    assert asked(desk, question, docs / "boats" / 'old "one".txt')[0] == {'old "one".txt'}
    assert asked(desk, f"{question} in:bus in:boats name:ferry", docs / "boats")[0] == {"ferry.txt"}
    assert [hit.path.name for hit in desk.search(f'leaves in:"{docs}/bus/times.md"')] == ["times.md"]


def test_scope_holds_for_follow_ups_and_is_kept_with_the_chat(desk: Desk, docs: Path) -> None:
    id_ = desk.chats.start()
    asked(desk, "When does the ferry Petrel leave?", docs / "boats", chat=id_)
    names, answer = asked(desk, "And when is it back?", docs / "bus", chat=id_)
    assert names == {"times.md"} and "Petrel" in answer.searched_for
    kept = [each.answer.within for each in desk.chats.read(id_).exchanges]
    assert kept == [(docs / "boats",), (docs / "bus",)]
    assert f"Asked of: `{docs / 'bus'}`" in desk.chats.export(id_)


def test_scope_of_an_answer_that_was_stopped_is_kept(desk: Desk, docs: Path) -> None:
    id_ = desk.chats.start()
    events = desk.ask("When does the ferry leave?", chat=id_, within=[docs / "bus"])
    next(event for event in events if isinstance(event, PieceGenerated))
    events.close()  # type: ignore[attr-defined]
    assert desk.chats.read(id_).exchanges[0].answer.within == (docs / "bus",)


def test_filter_that_leaves_nothing_is_named_and_kept_with_the_chat(desk: Desk, docs: Path) -> None:
    id_ = desk.chats.start()
    names, answer = asked(desk, "When does the ferry leave? type:md", docs / "boats", chat=id_)
    assert answer.text == "Nothing in boats/ answers this." and names == {"ferry.txt", 'old "one".txt'}
    assert answer.removed == (("type:md", 2),) and len(answer.nearest) == 2
    assert desk.chats.read(id_).exchanges[0].answer == answer


def test_place_that_the_index_does_not_hold_is_said_at_once(desk: Desk, docs: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"no file of the index lies in nowhere"):
        asked(desk, "When?", tmp_path / "nowhere")
    assert asked(desk, "When?", tmp_path / "nowhere", docs / "bus")[0] == {"times.md"}


def test_command_asks_files_and_folders_alone(tmp_path: Path, docs: Path, tiny_gguf: Path) -> None:
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    person.json("index", docs)
    found = person.json("ask", "When does the ferry leave?", "--in", docs / "bus", "--in", docs / "boats" / "ferry.txt")
    assert found["within"] == [str(docs / "bus"), str(docs / "boats" / "ferry.txt")] and found["removed"] == []
    shown = person.json("ask", "When does the ferry leave?", "--in", docs / "bus", "--show-prompt")
    assert [Path(each["path"]).name for each in shown["passages"]] == ["times.md"]
    done = person.run("ask", "When does the ferry leave? type:pdf", "--in", docs / "bus")
    assert done.code == 3
    assert done.output.startswith(
        "Nothing in bus/ answers this.\n1 passage without type:pdf\nthe nearest without that:\n"
    )
    assert "no file of the index lies in home" in person.run("ask", "When?", "--in", tmp_path / "home").failure()
