"""The installed program in terminals as people have them: it draws, answers keys, and gives the terminal back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from person import MAIN, Person
from real_terminal import GRITDESK, PtyTerminal, TmuxTerminal

TERMINALS = ["pty", *(["tmux"] if shutil.which("tmux") else [])]


@pytest.fixture
def person(tmp_path: Path, tiny_gguf: Path) -> Person:
    """Someone with one indexed folder."""
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "lamp.md").write_text("# The lamp\n\nThe lamp is trimmed at dusk and cleaned with vinegar.\n")
    person.json("index", notes)
    return person


@pytest.fixture
def terminal(person: Person) -> Iterator[PtyTerminal]:
    environment = person.environment()
    del environment["NO_COLOR"]
    with PtyTerminal([GRITDESK], environment) as terminal:
        yield terminal


@pytest.mark.parametrize("kind", TERMINALS)
def test_a_person_types_reads_asks_for_help_resizes_and_quits(kind: str, person: Person) -> None:
    environment = person.environment()
    if kind == "tmux":
        with TmuxTerminal(environment) as tmux:
            tmux.send(f"{GRITDESK}; echo ended with $?; stty -a\n")
            tmux.wait_for(lambda seen: "F2 Search" in seen)
            assert tmux.flag("alternate_on") == "1"
            tmux.send("vinegar")
            tmux.wait_for(lambda seen: "lamp.md" in seen and "cleaned with vinegar" in seen)
            tmux.press("F1")
            tmux.wait_for(lambda seen: "Query" in seen and "Mode" in seen)
            tmux.press("F1")
            tmux.resize(60, 16)
            seen = tmux.wait_for(lambda seen: "lamp.md" in seen and len(seen.splitlines()) <= 16)
            assert max(map(len, seen.splitlines())) <= 60
            tmux.press("C-q")
            seen = tmux.wait_for(lambda seen: "ended with 0" in seen and " echo " in seen and " icanon " in seen)
            assert "vinegar" not in seen
            assert (tmux.flag("alternate_on"), tmux.flag("cursor_flag")) == ("0", "1")
        return
    with PtyTerminal([GRITDESK], environment) as pty:
        pty.wait_for(lambda seen: "F2 Search" in seen)
        assert pty.screen.modes[1049] and not pty.is_restored()
        pty.send("vinegar")
        pty.wait_for(lambda seen: "lamp.md" in seen and "cleaned with vinegar" in seen)
        pty.send("\x1bOP")  # F1
        pty.wait_for(lambda seen: "Query" in seen and "Mode" in seen)
        pty.send("\x1bOP")
        pty.resize(60, 16)
        pty.wait_for(lambda seen: "lamp.md" in seen and "F2 Search" in seen)
        pty.send("\x11")
        assert pty.wait_for_end() == 0
        assert pty.is_restored()


def test_a_terminal_of_no_size_and_of_one_cell_is_outlived(person: Person) -> None:
    unbuffered = {**person.environment(), "PYTHONUNBUFFERED": "1"}  # where a write that is cut short loses its rest
    with PtyTerminal([GRITDESK], unbuffered) as terminal:
        terminal.wait_for(lambda seen: "F2 Search" in seen)
        terminal.send("vinegar")
        for width, height in ((1, 1), (0, 0), (80, 0), (3, 2), (100, 30)):
            terminal.resize(width, height)
            time.sleep(0.2)
            terminal.read()
            assert terminal.process.poll() is None
        terminal.wait_for(lambda seen: "lamp.md" in seen and "cleaned with vinegar" in seen)
        terminal.send("\x11")
        assert terminal.wait_for_end() == 0 and terminal.is_restored()


def test_ctrl_c_twice_quits_and_once_does_not(terminal: PtyTerminal) -> None:
    terminal.wait_for(lambda seen: "F2 Search" in seen)
    terminal.send("\x03")
    terminal.wait_for(lambda seen: "ctrl+c again" in seen)
    assert terminal.process.poll() is None
    terminal.send("\x03\x03")  # both at once: a slow machine may have shown the first one too late
    assert terminal.wait_for_end() == 0 and terminal.is_restored()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_the_app_in_order_and_what_it_started_with_it(name: str, terminal: PtyTerminal) -> None:
    terminal.wait_for(lambda seen: "● " in seen)
    started = psutil.Process(terminal.process.pid).children(recursive=True)
    assert started
    terminal.process.send_signal(getattr(signal, name))
    assert terminal.wait_for_end() == 0 and terminal.is_restored()
    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_interrupted_before_its_first_frame_it_gives_the_terminal_back(terminal: PtyTerminal) -> None:
    terminal.wait_for(lambda _: terminal.screen.modes.get(1049))
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait_for_end() in (0, 1) and terminal.is_restored()
    assert "Traceback" not in terminal.screen.text


def test_what_is_no_terminal_is_refused_in_one_line(person: Person) -> None:
    done = person.run()
    assert "needs a terminal" in done.failure()
    closed = [sys.executable, "-c", MAIN]
    shell = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *closed], env=person.environment(), capture_output=True)
    assert shell.returncode == 1 and shell.stderr.decode().count("\n") == 1


def test_an_error_that_ends_the_app_gives_the_terminal_back_and_names_its_log(person: Person) -> None:
    broken = (
        "from gritdesk.tui.widgets.status_line import StatusLine\n"
        "def render(self): raise RuntimeError('secret of a variable')\n"
        "StatusLine.render = render\n" + MAIN
    )
    with PtyTerminal([sys.executable, "-c", broken], person.environment(), width=400) as terminal:
        assert terminal.wait_for_end() == 1
        assert terminal.is_restored()
        log = person.home / "logs" / "app.log"
        said = [line for line in terminal.read().splitlines() if line.strip()]
        assert len(said) == 1 and said[0].startswith("gritdesk: unexpected RuntimeError") and str(log) in said[0]
    assert "Traceback" in log.read_text() and "secret of a variable" in log.read_text()


def test_on_a_full_disk_indexing_stops_with_its_reason_and_searching_goes_on(person: Person, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / "notes" / f"{number}.txt").write_text(f"text {number} of its own\n" * 200)
    blocks = (person.home / "index.sqlite").stat().st_size // 512 + 1  # no file may grow beyond
    limited = ["sh", "-c", f"ulimit -f {blocks}; exec {GRITDESK}"]
    with PtyTerminal(limited, person.environment(), width=160) as terminal:
        terminal.wait_for(lambda seen: "indexing stopped" in seen)
        terminal.send("vinegar")
        terminal.wait_for(lambda seen: "lamp.md" in seen and "cleaned with vinegar" in seen)
        terminal.send("\x11")
        assert terminal.wait_for_end() == 0 and terminal.is_restored()
    person.json("index")
    assert person.json("status")["files"] == 61


def test_quitting_while_it_indexes_is_quick_and_loses_nothing(person: Person, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for number in range(400):
        (more / f"{number}.txt").write_text(f"text {number} of its own\n" * 60)
    config = person.home / "config.toml"
    config.write_text(config.read_text().replace("[index]\nfolders = [", f"[index]\nfolders = [{str(more)!r}, ", 1))
    with PtyTerminal([GRITDESK], person.environment()) as terminal:
        terminal.wait_for(lambda seen: "of 401 files" in seen)
        terminal.send("\x11")
        assert terminal.wait_for_end() == 0 and terminal.is_restored()
    person.json("index")
    assert person.json("status")["files"] == 401
    assert person.run("doctor").code == 0
