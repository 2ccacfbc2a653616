"""Folders on a real disk beside the rows of a real index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gritdesk.records import Chunk, Document, Library
from gritdesk.store.base import FileState
from gritdesk.store.sqlite import SqliteStore
from gritdesk.surveying import chunks_in, survey_library


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        yield store


def write(path: Path, text: str = "some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def index(store: SqliteStore, path: Path, reason: str = "") -> None:
    found = path.stat()
    state = FileState(found.st_size, found.st_mtime_ns, "hash")
    if reason:
        store.record_failure(path, FileState(found.st_size, found.st_mtime_ns, "hash", "failed", reason))
    else:
        store.replace_document(Document(path, path.read_text(), "text"), state, [], [])


def states(library: Library) -> dict[str, str]:
    return {row.path.name: row.state for row in library.files}


def test_every_file_has_the_state_that_the_next_run_finds(store: SqliteStore, tmp_path: Path) -> None:
    for name in ("read.txt", "edited.txt", "gone.txt"):
        index(store, write(tmp_path / name))
    index(store, write(tmp_path / "broken.pdf"), "it is [damaged]")
    write(tmp_path / "edited.txt", "another, longer text")
    (tmp_path / "gone.txt").unlink()
    write(tmp_path / "new.txt")
    found = survey_library(store, [tmp_path])
    assert states(found) == {
        "read.txt": "indexed",
        "edited.txt": "changed",
        "gone.txt": "missing",
        "broken.pdf": "failed",
        "new.txt": "waiting",
    }
    assert {row.path.name: row.reason for row in found.files if row.reason} == {"broken.pdf": "it is [damaged]"}
    [folder] = found.folders
    assert (folder.num_indexed, folder.num_waiting, folder.num_failed) == (3, 2, 1)
    assert folder.size_bytes == sum(row.size_bytes for row in found.files)


def test_each_folder_and_all_of_them_have_their_chunks(store: SqliteStore, tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a/one.txt", "a/in/two.txt", "ab/three.txt", "elsewhere/four.txt")]
    for num, path in enumerate(paths, start=1):
        text = path.read_text()
        chunks = [Chunk(text[at : at + 1], at, at + 1, 1, 1) for at in range(num)]
        found = path.stat()
        state = FileState(found.st_size, found.st_mtime_ns, f"hash of {num}")
        store.replace_document(Document(path, text, "text"), state, chunks, [bytes([num, at]) for at in range(num)])
    index(store, write(tmp_path / "a" / "broken.pdf"), "it is damaged")
    folders = [tmp_path / "a", tmp_path / "ab"]
    found = survey_library(store, folders)
    assert [each.num_chunks for each in found.folders] == [3, 3]
    assert found.num_chunks == store.counts()[1] == 10
    assert chunks_in(store, folders) == {tmp_path / "a": 3, tmp_path / "ab": 3}


def test_each_folder_has_its_own_sums(store: SqliteStore, tmp_path: Path) -> None:
    index(store, write(tmp_path / "a" / "one.txt"))
    write(tmp_path / "b" / "two.txt")
    write(tmp_path / "b" / "three.txt")
    found = survey_library(store, [tmp_path / "a", tmp_path / "b"])
    assert [(each.num_indexed, each.num_waiting) for each in found.folders] == [(1, 0), (0, 2)]


def test_what_is_left_out_is_listed_with_its_rule(store: SqliteStore, tmp_path: Path) -> None:
    write(tmp_path / "kept.txt")
    write(tmp_path / "draft.txt")
    write(tmp_path / ".gritignore", "draft*\n")
    write(tmp_path / ".hidden" / "x.txt")
    found = survey_library(store, [tmp_path])
    assert states(found) == {"kept.txt": "waiting"}
    told = {skip.path.name: skip.reason for skip in found.skips}
    assert told["draft.txt"] == f"{tmp_path / '.gritignore'}:1: draft*"
    assert told[".hidden"] == "hidden name"
    assert sum(found.num_skipped.values()) == len(found.skips)


def test_a_folder_that_is_away_says_so_and_keeps_its_files(store: SqliteStore, tmp_path: Path) -> None:
    path = write(tmp_path / "disk" / "one.txt")
    index(store, path)
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    found = survey_library(store, [tmp_path / "disk"])
    assert "is not there" in found.folders[0].problem
    assert states(found) == {"one.txt": "missing"}
