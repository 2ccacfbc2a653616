"""The command as a script or a hurried person uses it: real processes, the real engine, a real index."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from click.testing import CliRunner
from filelock import FileLock
from person import MAIN, ORDINARY_PERSON, Done, Person, linux

from gritdesk.cli import main
from gritdesk.config import load_config
from gritdesk.store.sqlite import SqliteStore

NO_SOCKETS = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        sys.stderr.write("a socket was asked for\\n")
        raise RuntimeError("a socket was asked for")
sys.addaudithook(refuse)
"""


def write_documents(folder: Path) -> None:
    folder.mkdir()
    (folder / "ferry.txt").write_text("The ferry leaves at noon.\nIt comes back at six in the evening.\n")
    (folder / "guide.md").write_text("# Harbour\n\n## Tides\n\nThe tide rises twice a day.\n")
    (folder / "new\nline.txt").write_text("A zebra stands in a line of its own.\n")
    (folder / "🦉.txt").write_text("An owl and a zebra sleep by day.\n")
    with contextlib.suppress(OSError):  # a file system that takes no such names
        Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.txt")).write_text("The third zebra has a name of bytes.\n")


BAD_FILES = {
    "empty.txt": b"",
    "binary.dat": bytes(range(256)) * 8,
    "huge.txt": b"huge " * 220_000,
    "encoded.txt": b"\xff\xfe\x00\xd8",
    "corrupt.pdf": b"%PDF-1.4 and then nothing of the kind",
    "corrupt.docx": b"PK\x03\x04 word/document.xml and no more",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Documents good and bad, a home that has indexed them, and what `index --json` said."""
    folder = tmp_path_factory.mktemp("library")
    write_documents(folder / "docs")
    for name, content in BAD_FILES.items():
        (folder / "docs" / name).write_bytes(content)
    person = Person(folder / "home")
    person.configure(tiny_gguf, "[index]\nmax_file_mb = 1\n")
    return folder / "docs", person.home, person.json("index", folder / "docs")


@pytest.fixture
def docs(library: tuple[Path, Path, dict[str, Any]]) -> Path:
    return library[0]


@pytest.fixture
def person(library: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> Person:
    """A person who has indexed the library, with a copy of the home to spoil."""
    return Person(shutil.copytree(library[1], tmp_path / "home"))


@pytest.fixture
def newcomer(tmp_path: Path, tiny_gguf: Path) -> Person:
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    return person


# ---------------------------------------------------------------- what scripts rely on


def test_index_says_what_it_did_in_one_json_value(library: tuple[Path, Path, dict[str, Any]]) -> None:
    docs, _, report = library
    num_good = len(list(docs.iterdir())) - len(BAD_FILES)
    assert list(report) == [
        "files_seen",
        "files_indexed",
        "files_copied",
        "files_unchanged",
        "files_deleted",
        "chunks_embedded",
        "chunks_reused",
        "failed",
        "seconds",
    ]
    assert (report["files_seen"], report["files_indexed"]) == (num_good + len(BAD_FILES), num_good)
    assert report["chunks_embedded"] == num_good
    assert {Path(each["path"]).name for each in report["failed"]} == set(BAD_FILES)


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_search_gives_hits_with_names_of_any_characters(person: Person, docs: Path, mode: str) -> None:
    found = person.json("search", "zebra", "--mode", mode, "-n", "9")
    assert (found["query"], found["mode"]) == ("zebra", mode)
    for rank, hit in enumerate(found["hits"], start=1):
        assert list(hit) == ["rank", "path", "page", "line_start", "line_end", "heading", "score", "snippet"]
        assert hit["rank"] == rank and Path(hit["path"]).is_file()  # each of these names leads to its file
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    with_zebras = {str(path) for path in docs.glob("*.txt") if b"zebra" in path.read_bytes()}
    paths = {hit["path"] for hit in found["hits"]}
    assert paths == with_zebras if mode == "keyword" else paths > with_zebras


def test_search_tells_the_lines_and_the_heading(person: Person, docs: Path) -> None:
    (hit,) = person.json("search", '"tide rises"', "--mode", "keyword")["hits"]
    assert (hit["path"], hit["line_start"], hit["line_end"]) == (str(docs / "guide.md"), 1, 5)
    assert (hit["heading"], hit["page"], hit["snippet"]) == (
        "Harbour > Tides",
        None,
        "# Harbour ## Tides The tide rises twice a day.",
    )


def test_search_without_hits_is_no_failure(person: Person) -> None:
    assert person.json("search", "xylophone", "--mode", "keyword") == {
        "query": "xylophone",
        "mode": "keyword",
        "hits": [],
        "misses": {"removed": [], "nearest": [], "unread": []},
    }
    assert person.run("search", "xylophone", "--mode", "keyword").output == "nothing found\n"


def test_search_takes_filters_phrases_and_what_to_leave_out(person: Person, docs: Path) -> None:
    def names(query: str, mode: str = "keyword") -> set[str]:
        found = json.loads(person.run("search", "--json", "--mode", mode, "--", query).output)
        return {Path(hit["path"]).name for hit in found["hits"]}

    assert names("type:md", "hybrid") == names("tide", "keyword") == {"guide.md"}
    assert names("zebra name:🦉 in:docs", "hybrid") == {"🦉.txt"}
    assert names("zebra -sleep -third") == {"new\nline.txt"}
    assert names("-zebra -type:md after:2d before:9999") == {"ferry.txt"}
    assert names("lit:EBRA lit:'of its own'", "semantic") == {"new\nline.txt"}
    assert names(f'in:"{docs}" ferry') == names(f"in:{docs}/ ferry -in:elsewhere") == {"ferry.txt"}


def test_search_that_found_nothing_names_the_filter(person: Person, docs: Path) -> None:
    found = person.json("search", "zebra type:pdf name:owl", "--mode", "keyword")
    # neither of the two alone is to blame
    assert (found["hits"], found["misses"]["removed"]) == ([], [{"restriction": "type:pdf name:owl", "hits": 3}])
    assert len(found["misses"]["nearest"]) == 3
    num_zebras = sum(b"zebra" in path.read_bytes() for path in docs.glob("*.txt"))
    for mode in ("keyword", "hybrid"):
        misses = person.json("search", "zebra type:pdf", "--mode", mode)["misses"]
        assert misses["removed"] == [{"restriction": "type:pdf", "hits": num_zebras}]
    first, second, *nearest = person.run("search", "zebra type:pdf", "--mode", "keyword").output.splitlines()
    assert first == f"nothing found; {num_zebras} passages without type:pdf"
    assert second == "the nearest without any restriction:" and "zebra" in nearest[1]


def test_search_that_found_nothing_names_files_called_so_that_are_not_in_the_index(person: Person, docs: Path) -> None:
    unread = person.json("search", "corrupt", "--mode", "keyword")["misses"]["unread"]
    assert [(Path(each["path"]).name, each["state"]) for each in unread] == [
        ("corrupt.docx", "failed"),
        ("corrupt.pdf", "failed"),
    ]
    first, second, *rows = person.run("search", "corrupt", "--mode", "keyword").output.splitlines()
    assert (first, second) == ("nothing found", "files of such a name that are not in the index:")
    assert rows == [f"    {each['path']}: {each['reason']}" for each in unread]


def test_explained_search_tells_what_made_each_score(person: Person) -> None:
    found = person.json("search", "ferry noon kraken type:txt", "--explain", "-n", "2")
    for hit in found["hits"]:
        why = hit["explanation"]
        assert hit["score"] == pytest.approx(why["words"] + why["meaning"] + why["bonus"], abs=1e-5)
        assert why["restrictions"] == ["type:txt"] and -1 <= why["cosine"] <= 1
    first = found["hits"][0]["explanation"]
    assert (first["keyword_rank"], first["terms_found"], first["terms_missing"]) == (1, ["ferry", "noon"], ["kraken"])
    lines = person.run("search", '"ferry leaves"', "--explain", "--mode", "keyword").output.splitlines()
    assert lines[2].startswith("    5.00 = words 1.00 (rank 1, BM25 ")
    assert lines[2].endswith("weight 1) + spelled as asked 4; has ferry leaves")
    lines = person.run("search", "type:md -kraken", "--explain").output.splitlines()
    assert lines[2] == "    1.00 = newest first; within type:md, -kraken"


def test_similar_lists_other_files_and_exact_copies(person: Person, docs: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(docs / "ferry.txt", more / "copy.txt")
    assert person.run("index", more).code == 0
    found = person.json("similar", os.path.relpath(docs / "ferry.txt", person.home.parent), "-n", "2")
    assert found["copies"] == [str(more / "copy.txt")] and len(found["hits"]) == 2
    assert not {str(docs / "ferry.txt"), str(more / "copy.txt")} & {hit["path"] for hit in found["hits"]}
    told = person.run("similar", docs / "ferry.txt").output
    assert told.endswith(f"the same  {more / 'copy.txt'}\n") and told.startswith(" 1  ")
    assert "nowhere is not in the index" in person.run("similar", "nowhere").failure()
    assert "could not be indexed" in person.run("similar", docs / "corrupt.pdf").failure()


def test_date_that_is_none_is_said_with_those_that_are(person: Person) -> None:
    for command in ("search", "ask"):
        assert "after:soon names no date; write 2024" in person.run(command, "ship after:soon").failure()


def test_ask_gives_the_answer_with_what_supports_it(person: Person) -> None:
    answer = person.json("ask", "When does the ferry leave?")
    assert list(answer) == [
        "question",
        "answer",
        "grounded",
        "evidence",
        "from_model",
        "refused",
        "searched_for",
        "within",
        "removed",
        "citations",
        "nearest",
        "sentences",
        "dropped",
        "timings",
        "chat",
    ]
    assert answer["question"] == "When does the ferry leave?" and answer["answer"]
    assert answer["evidence"] in ("found", "thin") and answer["nearest"] == [] and not answer["from_model"]
    assert answer["grounded"] == bool(answer["citations"])
    for citation in answer["citations"]:
        assert list(citation) == ["n", "path", "page", "line_start", "line_end", "heading", "quote"]
    for sentence in answer["sentences"]:
        assert sentence["text"] == answer["answer"][sentence["start"] : sentence["end"]]
        assert sentence["nearest"]["quote"] and bool(sentence["doubt"]) is not sentence["supported"]
    assert answer["grounded"] == any(each["supported"] for each in answer["sentences"])
    assert answer["timings"]["total_s"] > 0
    assert person.json("ask", "When does the ferry leave?")["answer"] == answer["answer"]


def test_cited_words_are_found_in_the_file_as_it_is_now(person: Person, tmp_path: Path) -> None:
    path = tmp_path / "ferry.txt"
    path.write_text("The ferry leaves at noon.\nIt comes back at six.\n", encoding="utf-8")
    found = person.json("cite", f"{path}:2", "It comes back at six.")
    assert list(found) == ["path", "state", "page", "line_start", "line_end", "quote", "reason"]
    assert (found["state"], found["line_start"]) == ("unchanged", 2)
    assert "these words stand there" in person.run("cite", f"{path}:2", "It comes back at six.").output

    path.write_text("One more line.\nThe ferry leaves at noon.\nIt comes back at seven.\n", encoding="utf-8")
    assert "it stood at line 1 and stands at line 2 now" in person.run("cite", path, "The ferry leaves at noon.").output
    changed = person.json("cite", f"{path}:2", "It comes back at six.")
    assert (changed["state"], changed["line_start"], changed["quote"]) == ("changed", 3, "It comes back at seven.")
    path.unlink()
    gone = person.json("cite", f"{path}:2", "It comes back at six.")
    assert (gone["state"], gone["reason"]) == ("gone", "it is not there any more")


def test_ask_of_an_empty_index_says_that_nothing_answers(newcomer: Person) -> None:
    done = newcomer.run("ask", "When does the ferry leave?", "--json")
    answer = json.loads(done.output)
    assert (done.code, done.errors) == (3, "")
    assert (answer["grounded"], answer["citations"], answer["evidence"]) == (False, [], "none") and answer["answer"]


def test_question_that_no_file_answers_is_told_from_others_by_its_exit_code(person: Person) -> None:
    question = "Which zebra conducts orchestras on Saturn?"
    done = person.run("ask", question)
    assert done.code == 3 and done.errors == ""
    assert done.output.startswith("Nothing in these files answers this.\nthe nearest in them:\n[1] ")
    assert done.output.endswith("ask --anyway\n")
    anyway = person.json("ask", question, "--anyway")
    assert (anyway["evidence"], anyway["from_model"], anyway["grounded"]) == ("none", True, False)
    assert anyway["nearest"] and anyway["answer"] not in ("", "Nothing in these files answers this.")
    assert person.run("ask", question, "--anyway").output.startswith("from the model, not from your files:\n")


def test_prompt_is_shown_to_the_letter_and_with_its_tokens(person: Person) -> None:
    shown = person.json("ask", "When does the ferry leave?", "--show-prompt")
    assert shown["prompt"].startswith("<s><|user|>\nDocuments:\n[1] ")
    assert shown["prompt"].endswith(
        "Question: When does the ferry leave?\nAnswer from the documents and cite them.\n<|assistant|>\n"
    )
    assert shown["tokens"] > 0 and 1 <= len(shown["passages"]) <= 3
    told = person.run("ask", "When does the ferry leave?", "--show-prompt")
    assert told.output == shown["prompt"] + "\n" and told.errors.startswith(f"{shown['tokens']} tokens, ")


def test_question_longer_than_the_context_is_said_in_one_line(person: Person) -> None:
    assert "too long for this model" in person.run("ask", "why is it so " * 2000).failure()


def test_embed_gives_an_array_a_line_whatever_the_bytes(tmp_path: Path, tiny_gguf: Path) -> None:
    person = Person(tmp_path / "home")
    (person.home).mkdir()
    (person.home / "index.sqlite").write_bytes(b"no index, and none is needed")
    done = person.run("embed", "--json", "--model", tiny_gguf, stdin=b"a ship\r\nein Schiff\n" + b"caf\xe9")
    assert (done.code, done.errors) == (0, "")
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [len(row) for row in rows] == [256] * 3
    assert [sum(value * value for value in row) for row in rows] == pytest.approx([1.0] * 3, abs=1e-4)
    told = person.run("embed", "--model", tiny_gguf, "--instruction", "Find it", stdin=b"a ship")
    assert json.loads(told.output) != rows[0]
    assert person.run("embed", "--json", "--model", tiny_gguf).output == ""


def test_status_lists_bad_files_with_reasons(person: Person, docs: Path, tiny_gguf: Path) -> None:
    status = person.json("status")
    assert {"files", "chunks", "pending", "failed", "model", "fingerprint", "sizes"} <= set(status)
    assert status["pending"] == 0 and status["files"] == status["chunks"] == len(list(docs.iterdir())) - len(BAD_FILES)
    assert (status["model"], status["folders"]) == (str(tiny_gguf), [str(docs)])
    assert status["folder_chunks"] == {str(docs): status["chunks"]}
    assert f"folders  {docs} ({status['chunks']} passages)" in person.run("status").output
    assert status["sizes"]["index_bytes"] > 0 and status["fingerprint"]
    reasons = {Path(each["path"]).name: each["reason"] for each in status["failed"]}
    assert set(reasons) == set(BAD_FILES)
    for name, said in {
        "empty.txt": "empty",
        "binary.dat": "binary",
        "huge.txt": "too large",
        "encoded.txt": "encoded",
        "corrupt.pdf": "damaged PDF",
        "corrupt.docx": "damaged docx",
    }.items():
        assert said in reasons[name]


def test_status_counts_what_rules_leave_out_and_lists_only_failures(newcomer: Person, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write_documents(docs)
    for name in ("a.png", "b.png", "tool.exe"):
        (docs / name).write_bytes(b"\x89PNG\0\0")
    (docs / ".gitignore").write_text("*.log\n")
    (docs / "x.log").write_text("a log")
    assert newcomer.json("index", docs)["failed"] == []
    status = newcomer.json("status")
    assert (status["failed"], status["pending"]) == ([], 0)
    assert status["skipped"] == {
        "no reader for .png": 2,
        "no reader for .exe": 1,
        "hidden name": 1,
        "ignored by .gitignore": 1,
    }
    assert "skipped  2 no reader for .png, 1 " in newcomer.run("status").output


def test_why_tells_of_every_file_what_the_index_has_of_it(person: Person, docs: Path, tmp_path: Path) -> None:
    report = person.json("why", docs / "guide.md")
    assert list(report) == [
        "path",
        "state",
        "reason",
        "rule",
        "rule_path",
        "rule_file",
        "rule_line",
        "exists",
        "format",
        "chunks",
        "embedded",
        "modified_ns",
        "changed",
    ]
    assert (report["path"], report["state"], report["reason"]) == (str(docs / "guide.md"), "indexed", "in the index")
    assert (report["format"], report["chunks"], report["embedded"]) == ("markdown", 1, 1)
    assert (report["rule"], report["exists"], report["changed"]) == (None, True, False)
    assert report["modified_ns"] == (docs / "guide.md").stat().st_mtime_ns
    too_large = person.json("why", docs / "huge.txt")
    assert too_large["state"] == "failed" and "index.max_file_mb" in too_large["reason"]
    assert person.json("why", tmp_path)["state"] == "outside"
    assert person.json("why", docs)["state"] == "folder"
    for path in docs.iterdir():
        assert person.json("why", path)["state"] == ("failed" if path.name in BAD_FILES else "indexed")


def test_why_names_the_rule_before_and_after_a_file_is_read(newcomer: Person, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write_documents(docs)
    newcomer.json("index", docs)
    (docs / "ferry.txt").write_text("The ferry leaves at one, and is back at seven.\n")
    assert newcomer.json("why", docs / "ferry.txt")["changed"] is True
    (docs / ".gritignore").write_text("# no timetables\nferry.*\n")
    kept = newcomer.json("why", docs / "ferry.txt")
    assert (kept["state"], kept["rule"], kept["rule_line"]) == ("indexed", "ignored by .gritignore", 2)
    newcomer.json("index")
    left_out = newcomer.json("why", docs / "ferry.txt")
    assert (left_out["state"], left_out["reason"]) == ("skipped", f"{docs / '.gritignore'}:2: ferry.*")
    (docs / "guide.md").unlink()
    gone = newcomer.json("why", docs / "guide.md")
    assert (gone["state"], gone["exists"]) == ("indexed", False) and "it is gone" in gone["reason"]
    newcomer.json("index")
    assert newcomer.json("why", docs / "guide.md")["state"] == "missing"
    shown = newcomer.run("why", docs / "new\nline.txt")
    assert (shown.code, shown.output.splitlines()[1:3]) == (
        0,
        ["    in the index", "    text, 1 passages, 1 of them embedded"],
    )
    assert shown.output.startswith(f"{docs}/new\\nline.txt\n") and "as written on" in shown.output


def test_models_and_doctor_give_a_list_each(person: Person) -> None:
    (person.home / "models").mkdir()
    (person.home / "models" / "mine.gguf").write_bytes(b"")
    path = str(person.home / "models" / "mine.gguf")
    mine = {"name": "mine", "path": path, "size_bytes": 0, "default": False, "in_use": False, "only_embeds": False}
    listed = person.json("models")
    assert mine in listed
    (used,) = [each["path"] for each in listed if each["in_use"]]
    assert used == str(load_config(person.home).engine.model), "chosen by its path, it lies in neither folder"
    assert [line for line in person.run("models").output.splitlines() if line.startswith("* ")][0].endswith(used)
    checks = person.json("doctor")
    assert [each["name"] for each in checks] == [
        "python",
        "sqlite",
        "config",
        "machine",
        "index",
        "folders",
        "chats",
        "model",
        "fingerprint",
    ]
    assert all(list(each) == ["name", "ok", "found"] and each["ok"] for each in checks)


def test_words_on_a_terminal_are_one_line_each_and_steer_nothing(person: Person, tmp_path: Path) -> None:
    docs = tmp_path / "more"
    docs.mkdir()
    (docs / "\x1b[31mred\n.txt").write_text("Some \x1b]0;title\x07 okapi\n")
    assert person.run("index", docs).code == 0
    for encoding in ("utf-8:strict", "ascii:strict"):
        done = person.run("search", "okapi", "--mode", "keyword", PYTHONIOENCODING=encoding)
        assert (done.code, done.errors, done.output.count("\n")) == (0, "", 2)
        assert "\x1b" not in done.output and "\\x1b[31mred\\n.txt:1" in done.output
        listed = person.run("search", "zebra", PYTHONIOENCODING=encoding)
        assert (listed.code, listed.errors) == (0, "")


@pytest.mark.parametrize("command", list(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"], prog_name="gritdesk")
    assert (done.exit_code, done.stderr) == (0, "") and f"Usage: gritdesk {command}" in done.stdout


def test_help_and_search_by_words_load_no_heavy_module(person: Person) -> None:
    code = (
        "import sys; from gritdesk.cli import main\n"
        "main(prog_name='gritdesk', standalone_mode=False)\n"
        "heavy = {'textual', 'llama_cpp', 'torch', 'transformers', 'numpy', 'pypdfium2', 'docx', 'watchdog'}\n"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    for arguments in (["--help"], ["search", "zebra", "--mode", "keyword", "--json"]):
        done = person.run(*arguments, code=code)
        assert done.code == 0 and done.output and done.errors == ""


# ---------------------------------------------------------------- interrupted


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that one process sends another")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_indexing_says_so_and_is_taken_up_again(person: Person, tmp_path: Path, number: int) -> None:
    docs = tmp_path / "many"
    docs.mkdir()
    for n in range(200):
        (docs / f"{n:03}.txt").write_text(f"Note {n} about the harbour. " * 200)
    num_before = person.json("status")["files"]
    started = subprocess.Popen(
        [sys.executable, "-c", MAIN, "index", str(docs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=person.environment(),
        start_new_session=True,
    )
    while started.poll() is None and person.json("status")["files"] < num_before + 3:
        time.sleep(0.05)
    os.killpg(started.pid, number)  # as a terminal does: the engine's and the reader's processes get it too
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 1
    assert errors.decode().splitlines()[-1].startswith("gritdesk: stopped; what was indexed is kept")
    assert 0 < person.json("status")["pending"] < 200
    assert 0 < person.json("index")["files_indexed"] < 200
    assert person.json("status")["pending"] == 0


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "ship", "--jsno"], "No such option"),
        (["--frobnicate"], "No such option"),
        (["frobnicate"], "No such command"),
        (["search", "ship", "--mode", "magic"], "magic"),
        (["search", "ship", "-n", "0"], "0 is not in the range"),
        (["search", " "], "empty"),
        (["ask", ""], "empty"),
        (["index", ""], "empty"),
        (["why", ""], "empty"),
        (["search", "ship", "harbour"], "unexpected extra argument"),
        (["convert", "checkpoint"], "Missing argument 'OUT'"),
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_help(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="gritdesk")
    line = Done(done.exit_code, done.stdout, done.stderr).failure(code=2)
    assert said in line and "--help`" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index"], "gritdesk index FOLDER"),
        (["watch"], "gritdesk index FOLDER"),
        (["index", "nowhere"], "nowhere is not there"),
        (["index", "home/config.toml"], "config.toml is a file"),
        (["embed", "--model", "nothing"], "there is no model 'nothing'"),
        (["convert", "home", "out.gguf"], "no config.json"),
        (["convert", "nowhere", "out.gguf"], "not a folder"),
        ([], "terminal"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(newcomer: Person, arguments: list[str], said: str) -> None:
    assert said in newcomer.run(*arguments, stdin=b"a ship").failure()


def test_conversion_that_is_refused_leaves_nothing(tmp_path: Path, newcomer: Person, tiny_checkpoint: Path) -> None:
    assert "Q4_K_M" in newcomer.run("convert", tiny_checkpoint, tmp_path / "out.gguf", "--type", "Q99").failure(code=2)
    os.mkfifo(tmp_path / "pipe")
    assert "name a file" in newcomer.run("convert", tiny_checkpoint, tmp_path / "pipe").failure()
    assert {path.name for path in tmp_path.iterdir()} == {"home", "pipe"}


def test_checkpoint_becomes_several_files_in_one_reading(
    newcomer: Person, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    types = ("--type", "q8_0", "--type", "Q4_K_M")
    outcome = newcomer.run("convert", tiny_checkpoint, tmp_path / "out.gguf", *types)
    assert "several types need {type} in the name of OUT, such as out-{type}.gguf" in outcome.failure(code=2)
    out = tmp_path / "out-{type}.gguf"
    assert newcomer.run("convert", tiny_checkpoint, out, *types, "--tensor-type", "ffn_down=F16").code == 0
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == ["out-Q4_K_M.gguf", "out-Q8_0.gguf"]
    kinds = {each.name: each.tensor_type.name for each in gguf.GGUFReader(tmp_path / "out-Q4_K_M.gguf").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q4_K")
    wrong = newcomer.run("convert", tiny_checkpoint, out, "--tensor-type", "ffn_down")
    assert "'ffn_down' is no PATTERN=TYPE" in wrong.failure(code=2)


def test_empty_line_to_embed_is_named(newcomer: Person) -> None:
    assert "line 2" in newcomer.run("embed", stdin=b"a\n\nb\n").failure()


def test_query_of_bytes_that_are_no_text_is_searched(person: Person) -> None:
    for arguments in (["search", "zebra \udcff"], ["search", "\udcff", "--mode", "keyword"], ["ask", "\udcff"]):
        assert "\ufffd" in next(iter(person.json(*arguments).values()))


# ---------------------------------------------------------------- broken state


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engine\n", "cannot read"),
        ("[engine]\nmodle = 'x'\n", "engine.modle"),
        ("[index]\nchunk_tokens = 0\n", "index.chunk_tokens must be 16 or more"),
        ("[search]\nkeyword_weight = nan\n", "finite"),
        ("[index]\nfolders = ['notes']\n", "full paths"),
        ("[index]\nchunk_tokens = 900\n", "engine.batch_tokens"),
    ],
)
def test_broken_configuration_is_named(newcomer: Person, text: str, said: str) -> None:
    (newcomer.home / "config.toml").write_text(text)
    line = newcomer.run("status").failure()
    assert said in line and "config.toml" in line


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(255, 0, -1)) * 40)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def another_program(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE song(title)")
        connection.commit()


@pytest.mark.parametrize("spoil", [garbage, truncate, another_program])
def test_spoiled_index_is_said_and_made_anew_once_it_is_moved(person: Person, docs: Path, spoil: Any) -> None:
    path = person.home / "index.sqlite"
    spoil(path)
    for arguments in (["search", "zebra", "--json"], ["index"]):
        line = person.run(*arguments).failure()
        assert str(path) in line and "gritdesk index" in line
    doctor = person.run("doctor", "--json")
    assert doctor.code == 1 and doctor.errors.startswith("gritdesk: ") and doctor.errors.count("\n") == 1
    checks = {each["name"]: each["ok"] for each in json.loads(doctor.output)}
    assert not checks["index"] and checks["model"] and checks["folders"]
    path.rename(path.with_name("old"))
    person.json("index")
    assert person.json("search", "zebra")["hits"]


def test_unusable_model_is_said_and_costs_no_embeddings(person: Person, tmp_path: Path, tiny_gguf: Path) -> None:
    model = tmp_path / "model.gguf"
    good = (person.home / "config.toml").read_text()
    (person.home / "config.toml").write_text(good.replace(str(tiny_gguf), str(model)))
    before = counts(person)
    contents = [None, b"", b"PNG, or so it says" * 100, tiny_gguf.read_bytes()[:100_000]]
    for content in contents:
        if content is not None:
            model.write_bytes(content)
        assert str(model) in person.run("index").failure()
    assert person.json("search", "zebra")["hits"], "the model that made the index is still there"
    person.run("ask", "zebra?").failure()
    assert len(person.json("search", "zebra", "--mode", "keyword")["hits"]) >= 2
    model.unlink()
    assert str(model) in person.json("status")["model"]
    assert "model, fingerprint" in person.run("doctor").errors
    (person.home / "config.toml").write_text(good)
    assert person.json("index")["chunks_embedded"] == 0
    assert person.json("search", "zebra", "--mode", "semantic")["hits"]
    assert counts(person) == before


def counts(person: Person) -> tuple[int, int, int]:
    with SqliteStore(person.home / "index.sqlite") as store:
        return store.counts()


def test_index_of_another_model_is_searched_as_it_was_until_it_is_embedded_anew(
    person: Person, tiny_gguf: Path, tiny_gguf_q8: Path
) -> None:
    before = person.json("search", "zebra")["hits"]
    config = person.home / "config.toml"
    config.write_text(config.read_text().replace(str(tiny_gguf), str(tiny_gguf_q8)))
    assert person.json("search", "zebra")["hits"] == before
    assert person.json("ask", "zebra?")["answer"]
    done = person.run("index", "--json")
    assert "embedded anew" in done.errors
    assert json.loads(done.output)["chunks_embedded"] == person.json("status")["chunks"]
    assert person.json("search", "zebra")["hits"]


def test_second_indexer_is_sent_away(person: Person) -> None:
    with FileLock(person.home / "index.lock"):
        assert "another gritdesk is indexing" in person.run("index").failure()
        assert person.json("search", "zebra", "--mode", "keyword")["hits"]
    person.json("index")


def test_folder_is_handed_to_the_process_that_watches(person: Person, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "okapi.txt").write_text("An okapi walks the deck.")
    watching = person.start("watch")
    try:
        wait_until(lambda: person.json("status")["keeper"].startswith(f"process {watching.pid}, watching"))
        assert f"process {watching.pid}, watching since" in person.run("watch").failure()
        assert "another gritdesk reads what is new" in person.run("index", tmp_path / "more").output
        wait_until(lambda: bool(person.json("search", "okapi", "--mode", "keyword")["hits"]))
        assert person.run("pause", "--for", "2h").output.startswith("indexing is paused since")
        assert "until" in person.json("status")["paused"]
        assert person.run("resume").output == "indexing goes on\n"
        assert person.run("resume").output == "indexing was not paused\n"
    finally:
        watching.terminate()
    assert watching.wait(timeout=20) == 0 and person.json("status")["keeper"] == ""


def wait_until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_paused_index_goes_on_when_it_is_resumed(person: Person, docs: Path) -> None:
    person.run("pause")
    waiting = subprocess.Popen(
        [sys.executable, "-c", MAIN, "index"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=person.environment()
    )
    assert waiting.stderr is not None and waiting.stderr.readline().startswith(b"indexing is paused since")
    person.run("resume")
    output, errors = waiting.communicate(timeout=30)
    assert (waiting.returncode, errors) == (0, b"") and b"unchanged" in output


@pytest.mark.skipif(sys.platform == "win32", reason="no service is installed there")
def test_service_is_installed_and_removed(newcomer: Person, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}
    wrote, start = newcomer.run("watch", "--install", **environment).output.splitlines()
    path = Path(wrote.removeprefix("wrote ").split(";")[0])
    assert path.is_relative_to(tmp_path) and str(newcomer.home) in path.read_text() and start.startswith("  ")
    path.write_text("mine")
    assert "left as it is" in newcomer.run("watch", "--uninstall", **environment).failure()
    path.unlink()
    assert "nothing was removed" in newcomer.run("watch", "--uninstall", **environment).output


@pytest.mark.parametrize("time", ["2", "two hours", "-1h", "2 h"])
def test_pause_of_no_time_is_wrong_usage(newcomer: Person, time: str) -> None:
    assert "write it as 30m, 2h or 1d" in newcomer.run("pause", "--for", time).failure(code=2)


def test_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        assert "GRITDESK_HOME" in Person(home).run("status", GRITDESK_HOME=str(home)).failure()
    Person(tmp_path / "home").run("status", GRITDESK_HOME="~nobody-of-this-name/x").failure()


@linux
def test_home_that_may_not_be_written_is_said(person: Person, docs: Path) -> None:
    for mode, home_mode in ((0o400, 0o700), (0o400, 0o500)):
        for path in person.home.iterdir():
            if path.is_file():
                path.chmod(mode)
        person.home.chmod(home_mode)
        for arguments in (["index"], ["index", docs.parent]):
            line = person.run(MAIN, *arguments, code=ORDINARY_PERSON).failure()
            assert str(person.home) in line and "write there" in line
    person.home.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such limit there")
def test_disk_that_is_full_is_said_and_costs_nothing(person: Person, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for n in range(100):
        (tmp_path / "many" / f"{n}.txt").write_text(f"Note {n} about the harbour. " * 100)
    before = snapshot(tmp_path / "many")
    room = max(path.stat().st_size for path in person.home.iterdir()) + 100_000
    code = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n{MAIN}"
    )
    assert str(person.home / "index.sqlite") in person.run("index", tmp_path / "many", code=code).failure()
    assert person.json("search", "zebra", "--mode", "keyword")["hits"] and snapshot(tmp_path / "many") == before
    person.json("index")
    assert person.json("status")["pending"] == person.json("status")["awaiting"] == 0
    with SqliteStore(person.home / "index.sqlite") as store:
        assert store.integrity() == []


@linux
def test_file_that_may_not_be_read_is_listed_until_it_may(newcomer: Person, tmp_path: Path) -> None:
    write_documents(tmp_path / "docs")
    ferry = tmp_path / "docs" / "ferry.txt"
    ferry.chmod(0)
    indexed = newcomer.run(MAIN, "index", tmp_path / "docs", "--json", code=ORDINARY_PERSON)
    (failed,) = json.loads(indexed.output)["failed"]
    assert failed == {"path": str(ferry), "reason": "no permission to read it"}
    assert newcomer.json("status")["failed"] == [failed]
    ferry.chmod(0o600)
    assert newcomer.json("index")["files_indexed"] == 1
    assert newcomer.json("status")["failed"] == []


def test_full_disk_behind_standard_output_is_one_line(person: Person) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-c", MAIN, "search", "zebra", "--mode", "keyword", "--json"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=person.environment())
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


# ---------------------------------------------------------------- what must hold


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_home_of_gritdesk_holds_all_that_is_written(newcomer: Person, tmp_path: Path) -> None:
    write_documents(tmp_path / "docs")
    others = {name: tmp_path / "others" / name for name in ("HOME", "TMPDIR", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    for folder in others.values():
        folder.mkdir(parents=True)
    environment = {name: str(folder) for name, folder in others.items()}
    before = snapshot(tmp_path / "docs") | snapshot(tmp_path / "others")
    newcomer.json("index", tmp_path / "docs", **environment)
    newcomer.json("search", "zebra", **environment)
    newcomer.json("ask", "Where is the zebra?", **environment)
    newcomer.json("status", **environment)
    newcomer.json("doctor", **environment)
    assert snapshot(tmp_path / "docs") | snapshot(tmp_path / "others") == before
    assert {path.name for path in tmp_path.iterdir()} == {"docs", "home", "others"}


def test_tree_that_holds_gritdesks_home_comes_to_rest(tmp_path: Path, tiny_gguf: Path) -> None:
    write_documents(tmp_path / "docs")
    person = Person(tmp_path / "docs" / "state")
    person.configure(tiny_gguf)
    assert person.json("index", tmp_path / "docs")["files_seen"] == len(list((tmp_path / "docs").iterdir())) - 1
    again = person.json("index")
    assert (again["files_indexed"], again["chunks_embedded"], person.json("status")["pending"]) == (0, 0, 0)


def test_folder_written_in_other_ways_is_the_same_folder(person: Person, docs: Path) -> None:
    before = person.json("status")
    again = person.json("index", docs / ".." / docs.name)
    assert (again["files_indexed"], again["files_deleted"]) == (0, 0)
    assert person.json("status") == before


def test_network_is_never_used(newcomer: Person, tmp_path: Path) -> None:
    write_documents(tmp_path / "docs")
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(NO_SOCKETS)
    path = os.pathsep.join(filter(None, [str(tmp_path / "hooks"), os.environ.get("PYTHONPATH")]))
    proof = newcomer.run(code="import socket; socket.socket()", PYTHONPATH=path)
    assert "a socket was asked for" in proof.errors
    newcomer.json("index", tmp_path / "docs", PYTHONPATH=path)
    assert newcomer.json("search", "zebra", PYTHONPATH=path)["hits"]
    assert newcomer.json("ask", "Where is the zebra?", PYTHONPATH=path)["answer"]
    assert "socket" not in (newcomer.home / "logs" / "engine.log").read_text()


def test_indexing_that_is_killed_again_and_again_ends_as_if_never_killed(tmp_path: Path, tiny_gguf: Path) -> None:
    (tmp_path / "docs").mkdir()
    for n in range(24):
        text = "\n\n".join(f"Ship {n} of fleet {part} lies at anchor {n * part}. " * 9 for part in range(1, 3))
        (tmp_path / "docs" / f"{n}.txt").write_text(text)
    killed, calm = Person(tmp_path / "killed"), Person(tmp_path / "calm")
    for person in (killed, calm):
        person.configure(tiny_gguf)
    files_done = [0]
    for _ in range(3):
        process = killed.start("index", tmp_path / "docs")
        wait_for_files(killed.home / "index.sqlite", files_done[-1] + 4, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with SqliteStore(killed.home / "index.sqlite") as store:
            assert store.integrity() == []
            files_done.append(store.counts()[0])
    assert files_done == sorted(files_done) and 4 <= files_done[-1] < 24
    last = killed.json("index")
    assert last["files_unchanged"] == files_done[-1] and last["files_indexed"] == 24 - files_done[-1]
    calm.json("index", tmp_path / "docs")
    with SqliteStore(killed.home / "index.sqlite") as one, SqliteStore(calm.home / "index.sqlite") as other:
        assert one.integrity() == [] and one.files() == other.files() and one.space() == other.space()
        assert all(one.chunks_of(path) == other.chunks_of(path) for path in other.files())
    hits = [
        [(hit["path"], hit["line_start"]) for hit in each.json("search", "fleet 3")["hits"]] for each in (killed, calm)
    ]
    assert hits[0] == hits[1]


def wait_for_files(index: Path, num_files: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until an index that another process writes holds so many files."""
    pause = threading.Event()
    while process.poll() is None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as c,
        ):
            if c.execute("SELECT count(*) FROM document").fetchone()[0] >= num_files:
                return
        pause.wait(0.005)
    pytest.fail("indexing was over before it could be killed")
