"""Chats are files of lines: what was written is there after anything, and a damaged line loses nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gritdesk.chats import Chats, exported, plain, restored
from gritdesk.config import Config
from gritdesk.errors import ConfigError, StoreError
from gritdesk.records import Answer, Chat, Chunk, Citation, Exchange, Hit

TEA = Chunk("Tea is at four.\nCoffee is at ten.", 10, 43, 3, 4, "House > Kitchen", 2, 9)
HIT = Hit(7, Path(os.fsdecode(b"/docs/bad\xff.txt")), TEA, 0.5, 0.25, 1, 2)


def exchange(question: str = "When is tea?", text: str = "Tea is at four [1].", asked_at: float = 1.7e9) -> Exchange:
    citation = Citation(1, HIT.path, 3, 3, "Tea is at four.", 2, "House > Kitchen")
    answer = Answer(question, text, True, (citation,), {"total_s": 1.25}, searched_for="When is tea? house")
    return Exchange(answer, (HIT,), asked_at)


@pytest.fixture
def chats(tmp_path: Path) -> Chats:
    return Chats(Config(tmp_path / "home"))


def begun(chats: Chats, *exchanges: Exchange) -> str:
    id_ = chats.new_id()
    for n, each in enumerate(exchanges or [exchange()]):
        chats.add(id_, each, begins=n == 0)
    return id_


def test_chat_gives_back_what_was_asked_answered_and_cited(chats: Chats) -> None:
    both = exchange(), exchange("And\ncoffee?", 'At "ten" — ☕ [1].', 1.7e9 + 60)
    id_ = begun(chats, *both)
    chat = chats.read(id_)
    assert chat.exchanges == both and chat.title == "When is tea?"
    assert chat.exchanges[0].cited == (HIT,)


def test_chat_is_named_pinned_and_listed(chats: Chats) -> None:
    old, new = begun(chats, exchange(asked_at=1e9)), begun(chats, exchange("What is " + "very " * 40 + "long?"))
    assert [each.id for each in chats.all()] == [new, old]
    assert len(chats.all()[0].title) <= 82 and chats.latest() == new
    chats.pin(old)
    chats.rename(old, "  Tea \n time ")
    chats.rename(old, "Tea time")
    (first, _) = chats.all()
    assert (first.id, first.title, first.is_pinned, first.num_exchanges) == (old, "Tea time", True, 1)
    assert chats.latest() == new  # to name a chat is not to ask in it
    chats.pin(old, False)
    assert [each.id for each in chats.all()] == [new, old]
    assert chats.read(old).title == "Tea time"


def test_chat_is_found_by_a_part_of_its_id_that_no_other_has(chats: Chats) -> None:
    first, second = begun(chats), begun(chats)
    assert chats.find(first) == first and chats.find(second[-4:]) == second
    with pytest.raises(ConfigError, match="2 chats have"):
        chats.find(first[:4])
    for unknown in ("", "nowhere", "../config"):
        with pytest.raises(ConfigError, match="gritdesk chats"):
            chats.find(unknown)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\0" * 40,
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b'{"kind": "exchange"}',
        b'{"kind": "exchange", "answer": 3, "hits": [], "asked_at": 1}',
        b'{"kind": "exchange", "answer": {"question": "q"}}',
        b'{"kind": "title", "title": 7}',
        b"[" * 100_000,
    ],
    ids=range(11),
)
def test_damaged_line_loses_nothing_but_itself(chats: Chats, damage: bytes) -> None:
    id_ = begun(chats, exchange("q1"), exchange("q2"), exchange("q3"))
    path = chats.path(id_)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2]]) + b"\n")
    chat = chats.read(id_)
    assert [each.question for each in chat.exchanges] == ["q1", "q3"]
    assert chat.num_damaged == (1 if damage else 0)
    chats.add(id_, exchange("q4"))
    assert [each.question for each in chats.read(id_).exchanges] == ["q1", "q3", "q4"]
    assert [each.title for each in chats.all()] == ["q1"]


def test_line_that_was_cut_short_does_not_swallow_the_next_one(chats: Chats) -> None:
    id_ = begun(chats, exchange("q1"), exchange("q2"))
    path = chats.path(id_)
    path.write_bytes(path.read_bytes()[:-20])
    chats.add(id_, exchange("q3"))
    assert [each.question for each in chats.read(id_).exchanges] == ["q1", "q3"]


def test_line_of_a_newer_version_is_read_as_far_as_it_is_known(chats: Chats) -> None:
    id_ = begun(chats)
    line = json.loads(chats.path(id_).read_text())
    line["new"] = line["answer"]["new"] = {"a": 1}
    chats.path(id_).write_text(json.dumps(line) + "\n" + json.dumps({"kind": "unheard of"}) + "\n")
    chat = chats.read(id_)
    assert chat.exchanges == (exchange(),) and chat.num_damaged == 0


def test_deleted_chat_is_gone_and_is_not_brought_back_by_an_answer_under_way(chats: Chats) -> None:
    id_ = begun(chats)
    chats.delete(id_)
    assert chats.all() == [] and chats.paths() == []
    with pytest.raises(StoreError, match="not there any more"):
        chats.add(id_, exchange())
    for call in (chats.delete, chats.read):
        with pytest.raises(ConfigError, match="no chat"):
            call(id_)
    assert chats.paths() == []


def test_chat_exported_as_json_holds_all_of_it(chats: Chats) -> None:
    id_ = begun(chats, exchange(), exchange("q2"))
    chats.rename(id_, "Tea")
    chat = chats.read(id_)
    assert restored(Chat, json.loads(exported(chat, "json"))) == chat


def test_chat_exported_as_markdown_reads_well(chats: Chats) -> None:
    text = exported(chats.read(begun(chats, exchange("When\nis tea?"))), "markdown")
    assert text.startswith("# When is tea?\n\n## When is tea?\n\n*2023-11-1")
    assert "Tea is at four [1]." in text and "line 3, page 2, House > Kitchen\n\n> Tea is at four.\n" in text
    assert text.encode()  # a file's name of other bytes is no hindrance


def test_record_with_a_wrong_value_is_refused() -> None:
    values = plain(exchange())
    values["hits"][0]["chunk"]["line_start"] = "3"
    with pytest.raises(TypeError):
        restored(Exchange, values)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such rights")
def test_chats_are_for_their_owner_alone(chats: Chats) -> None:
    path = chats.path(begun(chats))
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------- several at once, and killed

WRITE = """
import sys
from pathlib import Path
from gritdesk.chats import Chats
from gritdesk.config import Config
from gritdesk.records import Answer, Exchange
chats = Chats(Config(Path(sys.argv[1])))
for n in range(int(sys.argv[4])):
    text = f"{sys.argv[3]} {n} " + "word " * 3000
    chats.add(sys.argv[2], Exchange(Answer(f"{sys.argv[3]}{n}", text, False), asked_at=1.0 + n))
    print(n, flush=True)
"""


def writer(home: Path, id_: str, name: str, num: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(home), id_, name, str(num)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_and_two_threads_write_to_one_chat_and_nothing_is_lost(tmp_path: Path) -> None:
    home, chats = tmp_path / "home", Chats(Config(tmp_path / "home"))
    id_ = begun(chats, exchange("first"))
    processes = [writer(home, id_, name, 20) for name in "ab"]
    threads = [
        threading.Thread(target=lambda name=name: [chats.add(id_, exchange(f"{name}{n}")) for n in range(20)])
        for name in "cd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.stdout.close()  # type: ignore[union-attr]
    chat = chats.read(id_)
    asked = [each.question for each in chat.exchanges]
    assert chat.num_damaged == 0 and sorted(asked) == sorted(["first", *(f"{a}{n}" for a in "abcd" for n in range(20))])
    for name in "abcd":
        assert [each for each in asked if each[0] == name and each != "first"] == [f"{name}{n}" for n in range(20)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_at_any_moment_loses_only_what_was_being_written(tmp_path: Path) -> None:
    home, chats = tmp_path / "home", Chats(Config(tmp_path / "home"))
    id_ = begun(chats, exchange("first"))
    num_said = 0
    for attempt in range(5):
        process = writer(home, id_, f"{attempt}x", 10_000)
        assert process.stdout is not None
        for _ in range(attempt + 1):
            process.stdout.readline()
        time.sleep(0.001 * attempt)
        process.send_signal(signal.SIGKILL)
        num_said += attempt + 1 + len(process.stdout.read().split())  # every line that was said to be written
        process.wait()
        process.stdout.close()
        chat = chats.read(id_)
        assert len(chat.exchanges) >= 1 + num_said and chat.num_damaged <= attempt + 1
        num_said = len(chat.exchanges) - 1
    chats.add(id_, exchange("last"))
    assert chats.read(id_).exchanges[-1] == exchange("last")
