"""How the program is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from person import Person
from real_terminal import PtyTerminal


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
