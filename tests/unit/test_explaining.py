"""What a person is told of one path, whatever has become of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from closed_folders import close_folder

from gritdesk import walking
from gritdesk.explaining import explain, unread
from gritdesk.records import PathReport
from gritdesk.store.base import FileState
from gritdesk.store.sqlite import SqliteStore


class Case:
    """A folder that is indexed, and an index to write states into."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "docs"
        self.folder.mkdir()
        self.listed = [self.folder]
        self.store = SqliteStore(":memory:")

    def write(self, name: str, text: str = "text") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def fail(self, path: Path, reason: str) -> None:
        found = path.lstat()
        self.store.record_failure(path, FileState(found.st_size, found.st_mtime_ns, "", "failed", reason))

    def why(self, path: Path) -> PathReport:
        return explain(path, self.listed, self.store, self.folder.parent / "home")


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    case = Case(tmp_path)
    yield case
    case.store.close()


def test_rule_is_told_with_its_place_and_the_folder_it_hit(case: Case) -> None:
    rules = case.write(".gitignore", "\nbuild/\n*.log\n")
    case.write("build/page.txt")
    report = case.why(case.write("a.log"))
    assert (report.state, report.reason) == ("skipped", f"{rules}:3: *.log")
    report = case.why(case.folder / "build/page.txt")
    assert report.reason == f"its folder {case.folder / 'build'} is left out: {rules}:2: build/"
    assert report.skip is not None and (report.skip.file, report.skip.line) == (rules, 2)
    for name, reason in {
        ".x": "hidden name",
        "x.png": "no reader for .png",
        "gone/x.zip": "no reader for .zip",
    }.items():
        report = case.why(case.folder / name)
        assert (report.state, report.reason, report.exists) == ("skipped", reason, False)


def test_path_that_no_run_has_seen_is_told_by_what_it_is(case: Case, tmp_path: Path) -> None:
    assert case.why(case.write("new.txt")).state == "waiting"
    assert case.why(case.folder / "nothing.txt").state == "missing"
    assert case.why(case.folder / "new.txt" / "below").state == "missing"
    outside = case.why(tmp_path / "else.txt")
    assert (outside.state, outside.reason) == ("outside", "under no indexed folder")
    case.listed = []
    assert case.why(case.folder / "new.txt").state == "outside"


def test_failed_file_has_its_reason_and_what_became_of_it_since(case: Case) -> None:
    path = case.write("a.pdf")
    case.fail(path, "it is damaged")
    report = case.why(path)
    assert (report.state, report.reason, report.has_changed) == ("failed", "it is damaged", False)
    assert report.modified_ns == path.stat().st_mtime_ns
    case.write("a.pdf", "longer text")
    report = case.why(path)
    assert report.has_changed and report.reason == (
        "it is damaged; it has changed since, and the next `gritdesk index` reads it again"
    )
    case.write(".gritignore", "*.pdf\n")
    assert "the next `gritdesk index` forgets it: " in case.why(path).reason
    (case.folder / ".gritignore").unlink()
    path.unlink()
    report = case.why(path)
    assert not report.exists and report.reason.endswith("it is gone, and the next `gritdesk index` forgets it")
    case.listed = []
    assert "under no indexed folder any more" in case.why(path).reason


def test_folder_tells_what_it_holds(case: Case) -> None:
    case.fail(case.write("sub/a.pdf"), "it is damaged")
    report = case.why(case.folder / "sub")
    assert report.state == "folder" and "0 of its files are in the index, 1 could not be read" in report.reason
    assert case.why(case.folder).state == "folder"
    case.fail(case.folder / "sub", "the folder cannot be read; its files are kept")
    assert case.why(case.folder / "sub").reason == "the folder cannot be read; its files are kept"


def test_folder_on_a_disk_that_is_away_keeps_what_was_read(case: Case) -> None:
    path = case.write("a.pdf")
    case.fail(path, "it is damaged")
    case.folder.rename(case.folder.with_name("elsewhere"))
    assert f"its folder {case.folder} is not there" in case.why(path).reason
    assert "what was read is kept" in case.why(case.folder / "other.txt").reason


def test_file_in_a_closed_folder_is_not_said_to_be_gone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    path = case.write("sub/deep/a.pdf")
    case.fail(path, "it is damaged")
    closed = case.folder / "sub"
    close_folder(monkeypatch, closed)
    told = f"its folder {closed} cannot be read (Permission denied), and what was read is kept"
    assert case.why(path).reason == f"it is damaged; {told}"
    report = case.why(closed / "new.txt")
    assert (report.state, report.reason) == ("missing", told)
    case.listed = [path.parent]  # a listed folder behind a closed one
    assert case.why(path).reason == f"it is damaged; {told}"


def test_folder_asked_for_by_name_overrules_the_one_around_it(case: Case) -> None:
    path = case.write(".notes/a.txt")
    assert case.why(path).state == "skipped"
    case.listed.append(case.folder / ".notes")
    assert case.why(path).state == "waiting"


def test_file_in_the_cloud_is_told_as_such(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    path = case.write("a.txt")
    away = path.stat().st_ino
    monkeypatch.setattr(walking, "_flags", lambda found: 0x40000000 if found.st_ino == away else 0)
    assert "lies in the cloud" in case.why(path).reason


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_path_is_told_by_the_name_the_index_has_for_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = case.write("sub/a.txt")
    (tmp_path / "link").symlink_to(case.folder)
    assert case.why(tmp_path / "link" / "sub" / "a.txt").path == path
    (case.folder / "alias.txt").symlink_to(path)
    report = case.why(case.folder / "alias.txt")
    assert (report.state, report.path) == ("skipped", case.folder / "alias.txt")
    assert report.reason == f"symbolic link to {path}, which counts by that name"
    monkeypatch.chdir(case.folder)
    assert case.why(Path("sub/../sub/a.txt")).path == path
    case.listed = [tmp_path / "link"]
    assert case.why(path).path == tmp_path / "link" / "sub" / "a.txt"
    assert os.fsdecode(b"\xff") in str(case.why(case.folder / os.fsdecode(b"\xff")).path)


def test_files_that_a_query_names_and_the_index_lacks_are_told_with_the_reason(case: Case) -> None:
    case.fail(case.write("Budget-2024.pdf"), "its pages are pictures")
    waiting = case.write("notes on the budget.md")
    case.write(".gitignore", "budget*.log\n")
    skipped = case.write("budget_draft.log")
    case.write("unlike.md")

    def unread_by(query: str) -> list[tuple[str, str, str]]:
        found = unread(query, case.listed, case.store, case.folder.parent / "home")
        return [(each.path.name, each.state, each.reason) for each in found]

    assert unread_by("budget") == [
        ("Budget-2024.pdf", "failed", "its pages are pictures"),
        (skipped.name, "skipped", f"{case.folder / '.gitignore'}:1: budget*.log"),
        (waiting.name, "waiting", "it was not read yet; the next `gritdesk index` does"),
    ]
    assert [name for name, *_ in unread_by('the "budget" of 2024')] == ["Budget-2024.pdf", skipped.name, waiting.name]
    assert unread_by("what is the budget of the lighthouse in winter") == []  # one word of three
    assert [name for name, *_ in unread_by("name:unlike type:md")] == ["unlike.md"]
    assert unread_by("the") == unread_by("type:pdf") == []
