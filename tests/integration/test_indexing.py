"""Indexing with real processes: killed at any moment, opened by several at once, reading with a real child."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine, read_plain

from gritdesk.config import IndexConfig
from gritdesk.extract.worker import Reader
from gritdesk.indexer import Indexer
from gritdesk.records import Chunk
from gritdesk.store.sqlite import SqliteStore

TESTS = Path(__file__).parent.parent
REPOSITORY = TESTS.parent

INDEX = """
import sys
from pathlib import Path
from fake_engine import FakeEngine, read_plain
from gritdesk.config import IndexConfig
from gritdesk.indexer import Indexer
from gritdesk.store.sqlite import SqliteStore

engine = FakeEngine()
with SqliteStore(Path(sys.argv[2])) as store:
    config = IndexConfig(chunk_tokens=20)
    indexer = Indexer(store, engine.embed, engine.count_tokens, read_plain, "fake", config)
    indexer.run([Path(sys.argv[1])], lambda progress: print(progress.files_done, flush=True))
"""


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(TESTS)])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def write_library(folder: Path, num_files: int) -> None:
    rng = random.Random(0)
    words = [f"word{n}" for n in range(300)]
    for n in range(num_files):
        paragraphs = [" ".join(rng.choices(words, k=18)) for _ in range(rng.randint(1, 30))]
        path = folder / f"{n % 7}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(paragraphs))


def index(folder: Path, path: Path) -> SqliteStore:
    store, engine = SqliteStore(path), FakeEngine()
    config = IndexConfig(chunk_tokens=20)
    Indexer(store, engine.embed, engine.count_tokens, read_plain, "fake", config).run([folder])
    return store


def content(store: SqliteStore) -> dict[Path, tuple[str | None, list[Chunk]]]:
    return {path: (store.document_text(path), store.chunks_of(path)) for path in store.files()}


def test_indexer_that_is_killed_again_and_again_loses_at_most_the_file_at_hand(tmp_path: Path) -> None:
    write_library(tmp_path / "docs", 120)
    path = tmp_path / "index.sqlite"
    rng = random.Random(1)
    done_before = 0
    for _ in range(5):
        with start(INDEX, tmp_path / "docs", path) as process:
            assert process.stdout is not None
            done = 0
            for _ in range(rng.randint(5, 20)):
                done = int(process.stdout.readline())
            process.kill()
        with SqliteStore(path) as store:
            assert store.integrity() == []
            files_done = len(store.files())
            assert files_done >= max(done, done_before)  # what was said to be done is done
            done_before = files_done
    assert 0 < done_before
    with index(tmp_path / "docs", path) as continued, index(tmp_path / "docs", tmp_path / "fresh.sqlite") as fresh:
        assert continued.integrity() == []
        assert content(continued) == content(fresh)
        assert continued.files() == fresh.files()
        hits = continued.nearest(FakeEngine().embed_query("word7 word8"), 20)
        assert [hit.distance for hit in hits] == pytest.approx(
            [hit.distance for hit in fresh.nearest(FakeEngine().embed_query("word7 word8"), 20)]
        )


def test_index_that_several_processes_open_first_is_made_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gritdesk.store.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1])); print(store.counts()); store.close()"
    )
    processes = [start(code, tmp_path / "index.sqlite") for _ in range(6)]
    said = [process.communicate()[0] for process in processes]
    assert said == ["(0, 0, 0)\n"] * 6
    assert [process.returncode for process in processes] == [0] * 6


def test_every_format_is_indexed_through_the_readers_process(tmp_path: Path) -> None:
    engine = FakeEngine()
    with SqliteStore(tmp_path / "index.sqlite") as store, Reader(10_000_000) as reader:
        config = IndexConfig(chunk_tokens=40)
        indexer = Indexer(store, engine.embed, engine.count_tokens, reader.read, "fake", config)
        report = indexer.run([TESTS / "data"])
        reasons = {failed.path.name: failed.reason for failed in report.failed}
        assert set(reasons) >= {"scan.pdf", "protected.pdf"}
        (ferries,) = store.keyword('"to the island"', 5)
        assert (ferries.path.name, ferries.chunk.heading, ferries.chunk.line_start) == (
            "page.html",
            "Tides & ships > Ferries",
            15,
        )
        (tides,) = store.keyword('"page is about tides"', 5)
        assert (tides.path.name, tides.chunk.page) == ("report.pdf", 2)
        assert store.integrity() == []
