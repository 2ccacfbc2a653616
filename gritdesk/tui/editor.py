"""A person's editor, and how each is told the line to open at."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PLUS_LINE = frozenset(
    {"vi", "vim", "nvim", "view", "nano", "pico", "emacs", "emacsclient", "micro", "kak", "joe", "jed", "mg", "ne"}
    | {"gvim", "mvim", "gedit", "neovide"}
)
_COLON_LINE = frozenset({"hx", "helix", "subl", "sublime_text", "zed", "zeditor", "mate"})
_GOTO_LINE = frozenset({"code", "code-insiders", "codium", "vscodium", "cursor", "windsurf"})
_LINE_OPTION = frozenset({"kate", "idea", "pycharm"})
_OWN_WINDOW = _GOTO_LINE | _LINE_OPTION | {"subl", "sublime_text", "zed", "zeditor", "mate", "gvim", "mvim", "neovide"}
_OWN_WINDOW |= {"gedit"}


@dataclass(frozen=True)
class EditorCommand:
    arguments: tuple[str, ...]
    owns_window: bool
    """It opens a window of its own, so the terminal stays ours."""


def editor_command(path: Path, line: int, environment: Mapping[str, str] = os.environ) -> EditorCommand | None:
    """The command that opens `path` at the 1-based `line` in $VISUAL or $EDITOR; None if neither is set.

    An editor we do not know opens the file at its top.
    """
    wanted = environment.get("VISUAL", "").strip() or environment.get("EDITOR", "").strip()
    words = _split(wanted)
    if not words:
        return None
    name = Path(words[0]).name.lower().removesuffix(".exe").removesuffix(".cmd")
    return EditorCommand((*words, *_target(name, str(path), line)), name in _OWN_WINDOW)


def _target(name: str, path: str, line: int) -> tuple[str, ...]:
    if name in _PLUS_LINE:
        return (f"+{line}", path)
    if name in _COLON_LINE:
        return (f"{path}:{line}",)
    if name in _GOTO_LINE:
        return ("-g", f"{path}:{line}")
    if name in _LINE_OPTION:
        return ("--line", str(line), path)
    return (path,)


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command, posix=os.name != "nt")
    except ValueError:  # an unclosed quote: take it as it stands
        return command.split()
