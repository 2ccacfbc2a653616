"""Indexing and watching killed at random moments, and what that cost: `python benchmarks/killed.py [--rounds 100]`.

Each round changes some files, starts `gritdesk index` or `gritdesk watch`, changes more while it runs, and kills it
(SIGKILL) at a random moment. The index must be whole after every kill. After a last run that is left to its end,
every file must be indexed once, with the text it has, and every chunk be found by its words and have its embedding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from living_tree import LivingTree

from gritdesk.models import default_model
from gritdesk.store.sqlite import SqliteStore
from gritdesk.walking import Walk

_COMMAND = [sys.executable, "-P", "-m", "gritdesk.cli"]


def main(rounds: int, model: Path, longest_s: float, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        tree, home = LivingTree(Path(folder), seed), Path(folder) / "home"
        home.mkdir()
        engine = f"[engine]\nmodel = {json.dumps(str(model))}\nn_threads = 1\n"
        index = f"[index]\nchunk_tokens = 64\non_battery = 'go on'\nfolders = [{json.dumps(str(tree.root))}]\n"
        (home / "config.toml").write_text(engine + index)
        for _ in range(200):
            tree.change()
        seen = []
        for number in range(rounds):
            for _ in range(rng.randint(0, 20)):
                tree.change()
            _run_and_kill("watch" if number % 2 else "index", home, tree, rng, longest_s)
            seen.append(_check_whole(home / "index.sqlite", number))
        last = subprocess.run([*_COMMAND, "index"], env=_environment(home), capture_output=True, text=True)
        assert last.returncode == 0, last.stderr
        num_files, num_chunks = _check_complete(home / "index.sqlite", tree)
        began, between = seen.count((0, 0)), sum(0 < awaiting for _, awaiting in seen)
        print("| kills | before the first file | with words ahead of meaning | files at the end | chunks | lost |")
        print(f"| {rounds} | {began} | {between} | {num_files} | {num_chunks} | 0 |")


def _run_and_kill(command: str, home: Path, tree: LivingTree, rng: random.Random, longest_s: float) -> None:
    process = subprocess.Popen([*_COMMAND, command], env=_environment(home), stderr=subprocess.DEVNULL)
    kill_at = time.monotonic() + rng.uniform(0.1, longest_s)
    while time.monotonic() < kill_at and process.poll() is None:
        time.sleep(rng.uniform(0, 0.3))
        tree.change()
    assert process.poll() in (None, 0), process.returncode
    process.send_signal(signal.SIGKILL)
    process.wait()


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {"GRITDESK_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _check_whole(path: Path, number: int) -> tuple[int, int]:
    """(files, chunks that await their embedding) of an index that a kill left behind."""
    with SqliteStore(path) as store:
        problems = store.integrity()
        assert problems == [], f"after kill {number}: {problems}"
        return store.counts()[0], store.num_awaiting()


def _check_complete(path: Path, tree: LivingTree) -> tuple[int, int]:
    """(files, chunks), where nothing is missing."""
    with SqliteStore(path) as store:
        assert store.integrity() == [] and store.num_awaiting() == 0 and store.failures() == []
        on_disk = {found for found, _ in Walk(tree.root).files()}
        assert set(store.files()) == on_disk, set(store.files()) ^ on_disk
        num_chunks = 0
        for each in on_disk:
            chunks = store.chunks_of(each)
            assert store.document_text(each) == each.read_text(), each
            assert len(store.embeddings_of(each)) == len(chunks) > 0, each
            num_chunks += len(chunks)
        assert store.counts()[:2] == (len(on_disk), num_chunks)
        return len(on_disk), num_chunks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--longest-s", type=float, default=6.0, help="Until the latest kill.")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    main(chosen.rounds, chosen.model, chosen.longest_s, chosen.seed)
