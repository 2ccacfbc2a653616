"""A watched tree that never rests, held against a fresh index: `python benchmarks/soak.py [--changes 10000]`.

Files are created, edited, saved by replacing, renamed, copied, deleted and moved in and out, with their folders and
with the rules that ignore some, while `Desk.watch` runs. When it has come to rest, its index must hold what an index
of the same tree that was made just now holds, row for row: files with size, time and hash, chunks, embeddings. No
sweep helps it: the time between two is longer than the run.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from living_tree import LivingTree

from gritdesk import desk as desk_module
from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.models import default_model
from gritdesk.records import IndexProgress
from gritdesk.store.sqlite import SqliteStore

_PATIENCE_S = 600.0


def main(num_changes: int, model: Path, seed: int) -> None:
    rng = random.Random(seed)
    desk_module.SWEEP_EVERY_S = 1e9
    with tempfile.TemporaryDirectory() as folder:
        tree = LivingTree(Path(folder), seed)
        for _ in range(100):
            tree.change()
        watched, fresh = (_configured(Path(folder) / name, model) for name in ("watched", "fresh"))
        with Desk.open(load_config(watched)) as desk:
            desk.index([tree.root])
            stop, swept = threading.Event(), threading.Event()

            def on_progress(progress: IndexProgress) -> None:
                if progress.is_done:
                    swept.set()

            watching = threading.Thread(target=desk.watch, args=(on_progress, stop))
            watching.start()
            assert swept.wait(_PATIENCE_S)
            began_at = time.perf_counter()
            for _ in range(num_changes):
                tree.change()
                time.sleep(rng.choice([0, 0, 0, 0.01, 0.02, 0.1]) if rng.random() < 0.98 else rng.uniform(0.3, 2))
            changed_at = time.perf_counter()
            _wait_for_rest(desk, tree)
            rested_at = time.perf_counter()
            stop.set()
            watching.join(_PATIENCE_S)
        with Desk.open(load_config(fresh)) as desk:
            desk.index([tree.root])
        num_files, num_chunks = _compare(watched / "index.sqlite", fresh / "index.sqlite")
    print("| changes | in s | at rest after s | files | chunks | rows that differ |")
    print(f"| {num_changes} | {changed_at - began_at:.0f} | {rested_at - changed_at:.1f} ", end="")
    print(f"| {num_files} | {num_chunks} | 0 |")


def _configured(home: Path, model: Path) -> Path:
    home.mkdir()
    engine = f"[engine]\nmodel = {json.dumps(str(model))}\n"
    (home / "config.toml").write_text(f"{engine}[index]\nchunk_tokens = 64\non_battery = 'go on'\n")
    return home


def _wait_for_rest(desk: Desk, tree: LivingTree) -> None:
    """Until a last change is known, and nothing awaits anything."""
    (tree.root / "last.rst").write_text("The last change of all.")
    give_up_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up_at:
        status = desk.status()
        if desk.document_text(tree.root / "last.rst") and not (status.pending or status.awaiting):
            return
        time.sleep(0.2)
    raise AssertionError(f"not at rest: {status.pending} files wait, {status.awaiting} passages")


def _compare(one: Path, other: Path) -> tuple[int, int]:
    """(files, chunks) of two indexes that hold the same; row ids apart."""
    with SqliteStore(one) as watched, SqliteStore(other) as fresh:
        assert watched.integrity() == [] and fresh.integrity() == []
        ours, theirs = watched.files(), fresh.files()
        differing = [path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)]
        assert not differing, [(path, ours.get(path), theirs.get(path)) for path in sorted(differing)[:5]]
        for path in ours:
            assert watched.document_text(path) == fresh.document_text(path), path
            assert watched.chunks_of(path) == fresh.chunks_of(path), path
            np.testing.assert_allclose(watched.embeddings_of(path), fresh.embeddings_of(path), atol=0.02)
        assert watched.counts() == fresh.counts() and watched.space() == fresh.space()
        assert watched.num_awaiting() == fresh.num_awaiting() == 0
        return watched.counts()[0], watched.counts()[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    main(chosen.changes, chosen.model, chosen.seed)
