"""What keeping an index up costs: `python benchmarks/indexing.py [--files 10000] [--corpus-mb 100] [--only PART]`.

Prints a table of what was measured and what must hold, in parts:

tree      a tree of small files indexed, touched, renamed and moved: seconds and embeddings, as `gritdesk index` does
watch     the same tree watched: seconds until a new file is found by words and by meaning; share of a core while idle
speed     seconds to index passages, as a multiple of the seconds that embedding the same passages takes
memory    resident memory beside the model while a corpus is indexed; its embeddings are made up, or it would take hours

Model: the default one. Times hold for the machine they are measured on, and for nobody else working on it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from gritdesk.config import Config, IndexConfig, load_config
from gritdesk.desk import Desk
from gritdesk.extract.worker import Reader
from gritdesk.grit_format import passage_input
from gritdesk.indexer import Indexer
from gritdesk.store.sqlite import SqliteStore

_WORDS = [f"{prefix}{n}" for n in range(5_000) for prefix in ("ba", "ke", "to", "mi")]
_COMMAND = [sys.executable, "-P", "-m", "gritdesk.cli"]
_IDLE_S = 60.0


def main(num_files: int, corpus_mb: int, parts: list[str]) -> None:
    print("| what | measured | must hold |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if "tree" in parts or "watch" in parts:
            home = _home(root / "home")
            _write_tree(root / "docs", num_files)
            _tree(root / "docs", home, num_files)
            if "watch" in parts:
                _watch(root / "docs", home, num_files)
        if "speed" in parts:
            _speed(root / "speed")
        if "memory" in parts:
            _memory(root / "memory", corpus_mb)


def _row(what: str, measured: str, bound: str) -> None:
    print(f"| {what} | {measured} | {bound} |", flush=True)


# ---------------------------------------------------------------- tree


def _tree(docs: Path, home: Path, num_files: int) -> None:
    name = f"{num_files:,} small files"
    report, seconds = _index(home, docs)
    _row(f"{name}, new", f"{seconds:.1f} s, {report['chunks_embedded']:,} embeddings", "")
    bound = "0 embeddings, < 30 s"

    def measure(what: str, act: Callable[[], None]) -> None:
        act()
        report, seconds = _index(home)
        _row(f"{name}, {what}", f"{report['chunks_embedded']} embeddings, {seconds:.1f} s", bound)

    measure("unchanged", lambda: None)
    measure("touched", lambda: [os.utime(path) for path in docs.rglob("*.txt")] and None)
    measure(
        "renamed", lambda: [path.rename(path.with_stem(f"{path.stem}x")) for path in [*docs.rglob("*.txt")]] and None
    )
    measure("moved", lambda: [each.rename(each.with_name(f"m{each.name}")) for each in [*docs.iterdir()]] and None)


def _write_tree(docs: Path, num_files: int) -> None:
    rng = random.Random(0)
    for n in range(num_files):
        path = docs / f"{n % 100}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Note {n}. " + " ".join(rng.choices(_WORDS, k=3)))


def _index(home: Path, *folders: Path) -> tuple[dict[str, int], float]:
    began_at = time.perf_counter()
    done = subprocess.run(
        [*_COMMAND, "index", "--json", *map(str, folders)], capture_output=True, env=_environment(home), check=True
    )
    report: dict[str, int] = json.loads(done.stdout)
    return report, time.perf_counter() - began_at


# ---------------------------------------------------------------- watch


def _watch(docs: Path, home: Path, num_files: int) -> None:
    process = subprocess.Popen([*_COMMAND, "watch"], env=_environment(home), stderr=subprocess.DEVNULL)
    try:
        with SqliteStore(home / "index.sqlite") as store:
            _new_file(store, docs / "first.txt", "zerothly")  # the engine is started by the first of all
            by_words, by_meaning = zip(
                *(_new_file(store, docs / f"new{n}.txt", f"wombat{n}") for n in range(5)), strict=True
            )
        _row("new file while watching, found by words", f"{max(by_words):.2f} s, the slowest of 5", "< 3 s")
        _row("new file while watching, found by meaning", f"{max(by_meaning):.2f} s, the slowest of 5", "< 10 s")
        time.sleep(2)
        began_at, used = time.monotonic(), _cpu_s(process.pid)
        time.sleep(_IDLE_S)
        share = (_cpu_s(process.pid) - used) / (time.monotonic() - began_at)
        _row(f"watching {num_files:,} files, idle", f"{share:.2%} of a core over {_IDLE_S:.0f} s", "< 0.5 %")
    finally:
        process.terminate()
        process.wait()


def _new_file(store: SqliteStore, path: Path, word: str) -> tuple[float, float]:
    """Seconds from saving until a file is found by words, and by meaning."""
    path.write_text(f"A {word} was seen at the harbour today.")
    saved_at = time.monotonic()
    while not store.keyword(word, 1):
        time.sleep(0.02)
    by_words = time.monotonic() - saved_at
    while not len(store.embeddings_of(path)):
        time.sleep(0.02)
    return by_words, time.monotonic() - saved_at


def _cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


# ---------------------------------------------------------------- speed


def _speed(folder: Path, num_files: int = 20, paragraphs: int = 10) -> None:
    rng = random.Random(1)
    for n in range(num_files):
        path = folder / "docs" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(" ".join(rng.choices(_WORDS, k=60)) + "." for _ in range(paragraphs)))
    with Desk.open(load_config(_home(folder / "home"))) as desk:
        desk.embed(["The engine is started."])
        began_at, used_s = time.perf_counter(), _cpu_s(os.getpid())
        report = desk.index([folder / "docs"])
        indexing_s, indexing_cpu_s = time.perf_counter() - began_at, _cpu_s(os.getpid()) - used_s
        with SqliteStore(desk.config.index_path) as store:
            inputs = [passage_input(chunk) for path in store.files() for chunk in store.chunks_of(path)]
        assert len(inputs) == report.chunks_embedded
        began_at, used_s = time.perf_counter(), _cpu_s(os.getpid())
        for start in range(0, len(inputs), 256):
            desk.engine().embed(inputs[start : start + 256])
        embedding_s, embedding_cpu_s = time.perf_counter() - began_at, _cpu_s(os.getpid()) - used_s
    of = f"{len(inputs)} passages"
    measured = f"{indexing_s / embedding_s:.2f} ({of}: {indexing_s:.1f} s, embedding {embedding_s:.1f} s)"
    _row("indexing / embedding the same passages", measured, "<= 1.10")
    measured = f"{indexing_cpu_s / embedding_cpu_s:.2f} ({indexing_cpu_s:.1f} s, embedding {embedding_cpu_s:.1f} s)"
    _row("the same in seconds of processors", measured, "<= 1.10")


# ---------------------------------------------------------------- memory


def _memory(folder: Path, corpus_mb: int) -> None:
    """Index a corpus of files of 50 kB in a process of its own, and look at it and its reader from outside."""
    rng = random.Random(2)
    text = " ".join(rng.choices(_WORDS, k=20_000))
    num_files = corpus_mb * 20
    for n in range(num_files):
        path = folder / "docs" / f"{n % 200}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = rng.randrange(len(text) - 50_000)
        path.write_text(f"{n} {text[start : start + 50_000]}")
    process = subprocess.Popen([sys.executable, __file__, "--child", str(folder)])
    most_rss = most_private = 0.0
    while process.poll() is None:
        try:
            each = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
            most_rss = max(most_rss, sum(one.memory_info().rss for one in each) / 1e6)
            most_private = max(most_private, sum(_private_bytes(one) for one in each) / 1e6)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.2)
    assert process.returncode == 0
    with SqliteStore(folder / "index.sqlite") as store:
        files, chunks, text_bytes = store.counts()
    assert files == num_files
    size_mb = (folder / "index.sqlite").stat().st_size / 1e6
    what = f"{text_bytes / 1e6:,.0f} MB in {files:,} files ({chunks:,} chunks, index of {size_mb:,.0f} MB)"
    measured = f"{most_private:.0f} MB; {most_rss:.0f} MB with pages of the index that the system keeps mapped"
    _row(f"memory beside the model: {what}", measured, "< 300 MB")


def _private_bytes(process: psutil.Process) -> int:
    """Resident memory that no file stands for."""
    found = process.memory_info()
    return int(found.rss - found.shared)


def _index_with_made_up_embeddings(folder: Path) -> None:
    rng = np.random.default_rng(0)
    config = IndexConfig()
    with SqliteStore(folder / "index.sqlite") as store, Reader(config.max_file_mb * 1_000_000) as reader:
        Indexer(
            store,
            lambda inputs: rng.normal(size=(len(inputs), 384)).astype(np.float32),
            lambda texts: [len(text) // 4 + 1 for text in texts],
            reader.read,
            "made up",
            config,
        ).run([folder / "docs"])


def _home(home: Path) -> Path:
    home.mkdir(parents=True)
    Config(home).path.write_text("[index]\non_battery = 'go on'\n")
    return home


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {"GRITDESK_HOME": str(home)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--corpus-mb", type=int, default=100)
    parser.add_argument("--only", choices=["tree", "watch", "speed", "memory"], help="tree comes with watch.")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        _index_with_made_up_embeddings(chosen.child)
    else:
        main(chosen.files, chosen.corpus_mb, [chosen.only] if chosen.only else ["tree", "watch", "speed", "memory"])
