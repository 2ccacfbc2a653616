"""Someone with a shell and a home of gritdesk's, as integration tests use the command: by real processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAIN = "from gritdesk.cli import main; main(prog_name='gritdesk')"

ORDINARY_PERSON = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
for capability in (1, 2):  # what lets root read and write everything; gone with the next exec
    prctl and prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="root is made an ordinary person by a call of Linux")


@dataclasses.dataclass(frozen=True)
class Person:
    """Someone with a home of gritdesk's and a shell."""

    home: Path

    @property
    def cwd(self) -> Path | None:
        return self.home.parent if self.home.parent.is_dir() else None

    def run(self, *arguments: str | Path, stdin: bytes = b"", code: str = MAIN, **environment: str) -> Done:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment(**environment), cwd=self.cwd
        )
        return Done(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode())

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment())

    def environment(self, **extra: str) -> dict[str, str]:
        return os.environ | {"GRITDESK_HOME": str(self.home), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | extra

    def json(self, *arguments: str | Path, **environment: str) -> Any:
        """What `--json` prints, which must be one value on one line and all there is."""
        done = self.run(*arguments, "--json", **environment)
        assert (done.code, done.errors) == (0, "")
        assert done.output.endswith("\n") and done.output.count("\n") == 1 and done.output.isascii()
        return json.loads(done.output, parse_constant=pytest.fail)

    def configure(self, model: Path, more: str = "") -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        engine = f"[engine]\nmodel = {json.dumps(str(model))}\nn_threads = 1\nn_ctx = 1024\n"
        (self.home / "config.toml").write_text(engine + "[answer]\nmax_tokens = 24\n" + more)


@dataclasses.dataclass(frozen=True)
class Done:
    """What a process that ended has left."""

    code: int
    output: str
    errors: str

    def failure(self, code: int = 1) -> str:
        """The one line that says what is wrong."""
        assert (self.code, self.output) == (code, ""), self
        assert self.errors.startswith("gritdesk") and self.errors.count("\n") == 1, self.errors
        return self.errors
