"""Killed at random moments, and changed without rest: what the index holds afterwards. Long runs: benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def last_row(script: str, *arguments: str) -> list[str]:
    """Cells of the table's last row that a script printed, which ends with 0 only if all it checks holds."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]


@pytest.mark.timeout(400)
def test_indexing_and_watching_that_are_killed_lose_nothing(tiny_gguf: Path) -> None:
    kills, *_, num_files, num_chunks, lost = last_row("killed.py", "--rounds", "12", "--model", str(tiny_gguf))
    assert (kills, lost) == ("12", "0") and int(num_chunks) >= int(num_files) > 0


@pytest.mark.timeout(400)
def test_watched_tree_that_never_rests_is_indexed_as_a_fresh_one_is(tiny_gguf: Path) -> None:
    changes, *_, num_files, num_chunks, differing = last_row("soak.py", "--changes", "400", "--model", str(tiny_gguf))
    assert (changes, differing) == ("400", "0") and int(num_chunks) >= int(num_files) > 0
