"""Attempts at one run, each a process of its own that kills itself at its n-th change to the run's files.

Started by test_training_killed. The attempts are forked from here, where everything is imported already: each takes a
fraction of a second, so that all changes of a start and of a save can be tried.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401, imported for the attempts
import torch
import torch.utils.tensorboard  # noqa: F401, imported for the attempts
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import checkpoint
from training.train import main

_CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
_MAX_ATTEMPTS = 200


def kill_at_change(number: int, prefix: str) -> None:
    """From now on, die before the `number`-th change to a file whose path begins so."""
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        inside_a_tree = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # a name within an open folder
        if inside_a_tree or str(arguments[0]).startswith(prefix):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def check_whole(folder: Path) -> None:
    """What a kill left is a checkpoint, or nothing, or an old checkpoint that the next start will find."""
    found = folder if folder.exists() else folder.with_name(folder.name + ".old")
    if found.exists():
        AutoModelForCausalLM.from_pretrained(found)
        AutoTokenizer.from_pretrained(found)
        torch.load(found / checkpoint.STATE_FILE, weights_only=True)


def attempt(recipe: str, output: Path, kill_at: int | None) -> bool:
    """Whether the run came to its end."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            check_whole(output)
            if kill_at is not None:
                kill_at_change(kill_at, str(output))
            code = main([recipe, "--output", str(output)])
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def run_with_kills(recipe: str, output: Path, stride: int) -> int:
    """Kill at the first change, then some later, ... until the run is at its end; from the first again when there is a
    checkpoint, for resuming is another way than starting. Returns the attempts killed."""
    num_killed, kill_at, had_checkpoint = 0, 1, False
    while not attempt(recipe, output, kill_at):
        num_killed += 1
        assert num_killed < _MAX_ATTEMPTS
        kill_at += stride
        if output.exists() and not had_checkpoint:
            kill_at, had_checkpoint = 1, True
    return num_killed


if __name__ == "__main__":
    every_recipe, folder = sys.argv[1], Path(sys.argv[2])
    assert attempt(every_recipe, folder / "whole", None)
    print(run_with_kills(every_recipe, folder / "killed", int(sys.argv[3])))
