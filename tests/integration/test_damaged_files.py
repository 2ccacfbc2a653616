"""Damaged files of every format through the reader's own process; `benchmarks/mutants.py` runs as many as one likes."""

import sys
from pathlib import Path

import pytest
from damaged_files import TIMEOUT_S, is_running, mutants, read_all, seeds
from fake_engine import FakeEngine

from gritdesk.config import IndexConfig
from gritdesk.extract.worker import Reader
from gritdesk.indexer import Indexer
from gritdesk.store.sqlite import SqliteStore

NUM_MUTANTS = 360


def test_every_damaged_file_is_read_or_refused_with_a_reason_for_people(tmp_path: Path) -> None:
    tallies, process_ids = read_all(mutants(NUM_MUTANTS), tmp_path)
    assert sum(tally.read + tally.refused + tally.killed for tally in tallies.values()) == NUM_MUTANTS
    assert {suffix: tally.faults for suffix, tally in tallies.items() if tally.faults} == {}
    assert max(tally.longest_s for tally in tallies.values()) < TIMEOUT_S
    assert [each for each in process_ids if is_running(each)] == []


def test_every_seed_is_sound_so_that_its_mutants_reach_its_reader(tmp_path: Path) -> None:
    tallies, _ = read_all(iter(seeds()), tmp_path)
    assert {suffix: tally for suffix, tally in tallies.items() if tally.read != 1} == {}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_file_that_kills_the_reader_is_listed_and_not_tried_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = tmp_path / "tries"
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nimport gritdesk.extract as extract\nread = extract.read_document\n"
        "def evil(path, max_bytes):\n"
        "    if path.read_bytes() == b'evil':\n"
        f"        open({str(tries)!r}, 'a').write('x')\n"
        "        os.abort()\n"
        "    return read(path, max_bytes)\n"
        "extract.read_document = evil\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs/a.txt"
    path.write_text("evil")
    (tmp_path / "docs/b.txt").write_text("walrus")
    with SqliteStore(tmp_path / "index.sqlite") as store:
        for _ in range(3):
            index(store, tmp_path / "docs")
            (failed,) = store.failures()
            assert failed.path == path and "SIGABRT" in failed.reason and "may be damaged" in failed.reason
            assert [hit.path.name for hit in store.keyword("walrus", 5)] == ["b.txt"]
        assert tries.read_text() == "x"
        path.write_text("penguin")
        index(store, tmp_path / "docs")
        assert store.failures() == []


def index(store: SqliteStore, folder: Path) -> None:
    """As a program that is started anew."""
    engine = FakeEngine()
    with Reader(1_000_000) as reader:
        Indexer(store, engine.embed, engine.count_tokens, reader.read, "fake", IndexConfig()).run([folder])
