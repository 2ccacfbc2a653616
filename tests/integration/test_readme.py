"""What README promises a new user, run as it stands there: with the default model, on the sample documents."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gritdesk.grit_format import REFUSAL

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def quick_start() -> list[list[str]]:
    """The commands of the first block that shows the installed program, without its name and comments."""
    block = next(each for each in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) if "gritdesk index" in each)
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


def gritdesk(home: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    code = "from gritdesk.cli import main; main(prog_name='gritdesk')"
    environment = os.environ | {"GRITDESK_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def test_commands_of_the_quick_start_do_what_they_say(tmp_path: Path) -> None:
    commands = quick_start()
    assert [each[:1] for each in commands] == [["index"], [], ["search"], ["ask"], ["status"]]
    for command in commands:
        arguments = [str(ROOT / "assets" / "sample") if each == "~/Documents" else each for each in command]
        done = gritdesk(tmp_path, arguments)
        if arguments:
            # the question is one that the sample documents hardly answer, and the model may read them and say so
            is_refusal = arguments[0] == "ask" and REFUSAL in done.stdout
            assert (done.returncode, bool(done.stdout)) == (3 if is_refusal else 0, True), done.stderr
        else:
            assert done.returncode == 1 and "needs a terminal" in done.stderr


def test_ways_to_ask_do_what_they_say(tmp_path: Path) -> None:
    assert gritdesk(tmp_path, ["index", str(ROOT / "assets" / "sample")]).returncode == 0
    block = next(each for each in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) if "--anyway" in each)
    as_json, anyway, prompt = (gritdesk(tmp_path, shlex.split(line, comments=True)[1:]) for line in block.splitlines())
    answer = json.loads(as_json.stdout)
    assert answer["evidence"] in ("found", "thin") and as_json.returncode == (3 if answer["refused"] else 0)
    assert anyway.returncode == 0 and anyway.stdout.startswith("from the model, not from your files:")
    assert prompt.returncode == 0 and prompt.stdout.startswith("<s><|user|>") and "tokens" in prompt.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="make is not part of Windows")
def test_demo_without_a_terminal_prints_a_search_and_an_answer(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", f"DEMO_HOME={tmp_path / 'home'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ 1  \S*assets/sample/\S+:\d+", done.stdout, flags=re.MULTILINE), done.stdout
    assert re.search(r"\[\d\] \S*assets/sample/|no passage supports this answer", done.stdout), done.stdout
