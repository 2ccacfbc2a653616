"""Indexing is estimated by the rules of the walk and by a trial: what is counted, what is tried, what that gives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gritdesk.config import IndexConfig
from gritdesk.errors import ExtractError
from gritdesk.estimating import Estimator, count_files, usual_folders
from gritdesk.records import Document, Estimate, FolderCount, Section
from gritdesk.store.base import FileState
from gritdesk.terminal import about

SECONDS_PER_TOKEN, SECONDS_PER_FILE = 0.01, 0.5


def count(folder: Path, known: dict[Path, FileState] | None = None, config: IndexConfig | None = None) -> FolderCount:
    *_, last = count_files(folder, known or {}, config or IndexConfig())
    return last


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Four files of forty words, one that a rule leaves out, one that is too large."""
    for name in ("a.md", "b.md", "inner/c.md", "inner/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name} " + "word " * 39)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "large.md").write_text("x" * 2_000_000)
    return tmp_path


class Trial:
    """A reader and a model whose speed is known, on a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.num_reads = 100.0, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.clock)
        self.estimator = Estimator(self.read, self.count_tokens, self.embed, IndexConfig())

    def read(self, path: Path) -> Document:
        self.num_reads += 1
        self.clock += SECONDS_PER_FILE
        if path.name == "broken.md":
            raise ExtractError("it is damaged")
        return Document(path, path.read_text(), "text", (Section(0, 1, (), None),))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def embed(self, inputs: Sequence[tuple[str, str]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        self.clock += SECONDS_PER_TOKEN * sum(map(len, map(str.split, (text for _, text in inputs))))
        return np.zeros((len(inputs), 4), np.float32)

    def estimate(self, *folders: Path) -> Estimate:
        return self.estimator.estimate([count(each) for each in folders])


def test_files_are_counted_by_the_rules_of_the_walk(notes: Path) -> None:
    found = count(notes, config=IndexConfig(max_file_mb=1))
    assert (found.num_files, found.size_bytes) == (4, sum(each.stat().st_size for each in notes.rglob("[abcd].*")))
    assert dict(found.skipped) == {"no reader for .png": 1, "larger than index.max_file_mb": 1}
    assert found.num_skipped == 2 and found.is_over and found.is_whole
    assert {suffix: kind.num_files for suffix, kind in found.kinds.items()} == {".md": 3, ".txt": 1}


def test_what_the_index_holds_as_it_is_is_no_work(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = (notes / "a.md").stat()
    known = {notes / "a.md": FileState(stat.st_size, stat.st_mtime_ns, "x"), notes / "b.md": FileState(1, 1, "y")}
    found = count(notes, known, IndexConfig(max_file_mb=1))
    assert (found.num_files, found.num_known, found.kinds[".md"].num_files) == (4, 1, 2)
    assert Trial(monkeypatch).estimator.estimate([found]).num_new == 3


def test_counting_a_huge_tree_ends_and_says_that_there_is_more(notes: Path) -> None:
    *_, last = count_files(notes, {}, IndexConfig(), most_files=2)
    assert last.num_files == 2 and last.is_over and not last.is_whole
    assert list(count_files(notes, {}, IndexConfig(), is_stopped=lambda: True)) == []


def test_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    found = count(tmp_path / "gone")
    assert found.num_files == 0 and "not there" in found.problem


def test_estimate_is_the_time_of_what_was_tried_for_all_there_is(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (notes / "large.md").unlink()
    trial = Trial(monkeypatch)
    estimate = trial.estimate(notes)
    assert estimate.num_files == 4 and estimate.num_passages == 4
    assert estimate.words_s == pytest.approx(4 * SECONDS_PER_FILE, rel=0.1)
    assert estimate.meaning_s == pytest.approx(1.1 * 4 * 40 * SECONDS_PER_TOKEN, rel=0.1)
    assert estimate.tokens_per_s == pytest.approx(1 / SECONDS_PER_TOKEN, rel=0.1)
    num_reads = trial.num_reads
    assert trial.estimate(notes) == estimate and trial.num_reads == num_reads, "nothing is tried twice"


def test_many_files_are_told_from_a_few_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(200):
        (tmp_path / f"{n}.txt").write_text("word " * 100)
    trial = Trial(monkeypatch)
    estimate = trial.estimate(tmp_path)
    assert trial.num_reads < 10
    assert estimate.meaning_s == pytest.approx(1.1 * 200 * 100 * SECONDS_PER_TOKEN, rel=0.1)
    assert estimate.words_s == pytest.approx(200 * SECONDS_PER_FILE, rel=0.1)


def test_files_that_cannot_be_read_cost_their_time_and_no_passage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.md").write_text("x" * 100)
    estimate = Trial(monkeypatch).estimate(tmp_path)
    assert estimate.num_passages == 0 and estimate.meaning_s == 0 and estimate.words_s >= SECONDS_PER_FILE
    assert estimate.tokens_per_s > 0, "the model is timed on a text of our own"


def test_folder_inside_another_is_counted_once(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (notes / "large.md").unlink()
    estimate = Trial(monkeypatch).estimate(notes, notes / "inner")
    assert [each.folder for each in estimate.folders] == [notes] and estimate.num_files == 4


def test_nothing_to_do_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = Trial(monkeypatch).estimate(tmp_path)
    assert (estimate.seconds, estimate.num_passages) == (0, 0)


def test_usual_folders_are_those_that_are_there_and_never_all_of_home(tmp_path: Path) -> None:
    for name in ("Projects", "Documents", "Notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "Desktop").symlink_to(tmp_path, target_is_directory=True)
    assert [each.name for each in usual_folders(tmp_path)] == ["Documents", "Notes", "Projects"]
    assert usual_folders(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "about 1 s"),
        (1.2, "about 1 s"),
        (20.0, "about 15 to 30 s"),
        (80.0, "about 60 s to 2 min"),
        (1200.0, "about 15 to 30 min"),
        (9000.0, "about 1.9 to 3.8 h"),
    ],
)
def test_an_estimate_is_said_as_a_range(seconds: float, said: str) -> None:
    assert about(seconds) == said
