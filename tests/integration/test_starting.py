"""How the program is started, and what Ctrl+C does before anything is begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from person import Person
from real_terminal import PtyTerminal

RUN_MODULE = "import runpy; runpy.run_module('gritdesk', run_name='__main__', alter_sys=True)"
INTERRUPTED_AT = """
import importlib.abc, os, signal, sys
class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""

# as in a terminal, while the tests may run in the background of a shell, which has it ignored
OBEYING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process sends")


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home")


def test_python_m_gritdesk_is_the_command(person: Person) -> None:
    command = [sys.executable, "-m", "gritdesk"]
    shown = subprocess.run([*command, "--version"], env=person.environment(), capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout.startswith("python -m gritdesk, version ")
    wrong = subprocess.run([*command, "serch"], env=person.environment(), capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "No such command" in wrong.stderr


def test_python_m_gritdesk_alone_is_the_terminal_ui(person: Person, tiny_gguf: Path) -> None:
    person.configure(tiny_gguf)
    with PtyTerminal([sys.executable, "-m", "gritdesk"], person.environment()) as terminal:
        terminal.wait_for(lambda seen: "F2 Search" in seen)
        terminal.send("\x11")
        assert terminal.wait_for_end() == 0 and terminal.is_restored()


@unix
@pytest.mark.parametrize("module", ["gritdesk.cli", "click", "gritdesk.records"])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word(person: Person, module: str) -> None:
    done = person.run("--help", code=OBEYING + INTERRUPTED_AT.format(module=module) + RUN_MODULE)
    assert (done.code, done.output, done.errors) == (130, "", "")


@unix
@pytest.mark.parametrize("module", ["textual", "gritdesk.tui.app"])
def test_ctrl_c_while_the_terminal_ui_is_imported_leaves_the_terminal_as_it_was(person: Person, module: str) -> None:
    code = OBEYING + INTERRUPTED_AT.format(module=module) + RUN_MODULE
    with PtyTerminal([sys.executable, "-c", code], person.environment()) as terminal:
        assert terminal.wait_for_end() == 130 and terminal.is_restored()
        assert terminal.screen.text.strip() == ""


@unix
def test_in_the_background_of_a_shell_an_interrupt_stays_ignored(person: Person) -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = person.run("--help", code=ignoring + INTERRUPTED_AT.format(module="click") + RUN_MODULE)
    assert done.code == 0 and done.output.startswith("Usage")
