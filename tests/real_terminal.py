"""Terminals as a person has them, for the installed program to run in: a bare pty, and tmux."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.cells import cell_len

PATIENCE_S = 60.0
GRITDESK = str(Path(sys.executable).with_name("gritdesk"))
_SEQUENCE = re.compile(
    r"\x1b\[(?P<private>[?<>=]?)(?P<numbers>[0-9;:]*)[ $]*(?P<act>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[P_^][^\x1b]*\x1b\\|\x1b[()][A-Z0-9]|\x1b[=>78cMDE]"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[?<>=]?[0-9;: $]*|[\]P_^][^\x07\x1b]*|[()])?$")


class DrawnScreen:
    """What bytes draw on a terminal, as far as Textual and a shell draw: text at places, erased lines, modes."""

    def __init__(self, width: int, height: int) -> None:
        self.modes: dict[int, bool] = {}
        """Private modes that were set or reset: 1049 the other screen, 25 the cursor, 1000 the mouse, 2004 pasting."""
        self._rest = ""
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._cells = [[" "] * width for _ in range(height)]
        self._row = self._column = 0

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._cells)

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        position = 0
        while position < len(text):
            if text[position] != "\x1b":
                self._write(text[position])
                position += 1
            elif found := _SEQUENCE.match(text, position):
                if found["act"]:
                    self._obey(found["private"], found["numbers"], found["act"])
                position = found.end()
            elif _UNFINISHED.match(text, position):
                self._rest = text[position:]
                return
            else:
                raise AssertionError(f"a sequence that no terminal knows: {text[position : position + 20]!r}")

    def _write(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row = min(self._row + 1, self._height - 1)
        elif character.isprintable():
            if self._row < self._height and self._column < self._width:
                self._cells[self._row][self._column] = character
                if cell_len(character) == 2 and self._column + 1 < self._width:
                    self._cells[self._row][self._column + 1] = ""
            self._column += cell_len(character)

    def _obey(self, private: str, numbers: str, act: str) -> None:
        values = [int(each) for each in numbers.split(";") if each.isdecimal()]
        if private == "?" and act in "hl":
            self.modes |= dict.fromkeys(values, act == "h")
        elif act in "Hf" and not private:
            self._row, self._column = [*(value - 1 for value in values), 0, 0][:2]
        elif act == "J" and not private:
            self.resize(self._width, self._height)
        elif act == "K" and not private:
            self._cells[self._row][self._column :] = [" "] * (self._width - self._column)


class PtyTerminal:
    """A program on a pty, its terminal attributes kept open to be looked at after its end."""

    def __init__(self, command: list[str], environment: Mapping[str, str], width: int = 100, height: int = 30) -> None:
        self._master, self._slave = os.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.screen = DrawnScreen(width, height)
        self._set_size(width, height)
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, width: int, height: int) -> None:
        """Tell the program; a size of nothing leaves what is drawn as it is."""
        if width and height:
            self.screen.resize(width, height)
        self._set_size(width, height)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self) -> str:
        """The screen as it is by now."""
        while select.select([self._master], [], [], 0.02)[0]:
            self.screen.feed(os.read(self._master, 1 << 16).decode(errors="replace"))
        return self.screen.text

    def wait_for(self, condition: Callable[[str], object]) -> str:
        give_up_at = time.monotonic() + PATIENCE_S
        while not condition(self.read()):
            assert time.monotonic() < give_up_at, self.screen.text
        return self.screen.text

    def wait_for_end(self) -> int:
        """Its exit code."""
        self.wait_for(lambda _: self.process.poll() is not None)
        self.read()
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether echo and lines work again, the first screen is shown, with its cursor, and nothing is reported."""
        modes = self.screen.modes
        is_quiet = not any(modes.get(mode) for mode in (1000, 1002, 1003, 1006, 1004, 1049, 2004))
        return termios.tcgetattr(self._slave) == self.before and is_quiet and modes.get(25, True)

    def __enter__(self) -> PtyTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


class TmuxTerminal:
    """A shell in tmux, which is typed into."""

    def __init__(self, environment: Mapping[str, str], width: int = 100, height: int = 30) -> None:
        self._server = f"gritdesk-{uuid.uuid4().hex[:8]}"
        settings = [f"{name}={value}" for name, value in environment.items() if name.startswith(("GRITDESK", "PYTHON"))]
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"env PS1='$ ' {shlex.join(settings)} sh")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._server, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout

    def send(self, keys: str) -> None:
        self._tmux("send-keys", "-l", keys)

    def press(self, key: str) -> None:
        """A key by tmux's name of it."""
        self._tmux("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def read(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, condition: Callable[[str], object]) -> str:
        give_up_at = time.monotonic() + PATIENCE_S
        while not condition(seen := self.read()):
            assert time.monotonic() < give_up_at, seen
            time.sleep(0.05)
        return seen

    def flag(self, name: str) -> str:
        return self._tmux("display-message", "-p", f"#{{{name}}}").strip()

    def __enter__(self) -> TmuxTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")
