import errno
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from closed_folders import close_folder
from watchdog.observers import Observer

from gritdesk import watcher
from gritdesk.watcher import Changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs/sub").mkdir(parents=True)
    (tmp_path / "docs/sub/old.txt").write_text("old")
    return tmp_path / "docs"


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_LOOK_AT_FOLDERS_S", 0.02)


@pytest.fixture
def batches(folder: Path) -> Iterator[Iterator[set[Path]]]:
    """Batches of changes of `folder`, which is known to be watched; empty ones in between."""
    with Changes([folder], 30) as changes:
        yield iterated(changes)


def iterated(changes: Changes) -> Iterator[set[Path]]:
    while True:
        yield changes.wait(0.05)


def changes(batches: Iterator[set[Path]], folder: Path, until: str) -> set[str]:
    """Names relative to the folder of all that is reported until one of them is."""
    found: set[str] = set()
    for batch in itertools.islice(batches, 500):
        found |= {path.relative_to(folder).as_posix() for path in batch}
        if until in found:
            return found
    raise AssertionError(f"{until} was not reported, but {found}")


def test_new_changed_moved_and_deleted_files_are_reported(folder: Path, batches: Iterator[set[Path]]) -> None:
    (folder / "new.txt").write_text("new")
    assert changes(batches, folder, "new.txt") == {"new.txt"}
    (folder / "sub/old.txt").write_text("changed")
    assert changes(batches, folder, "sub/old.txt") == {"sub/old.txt"}
    (folder / "sub/old.txt").rename(folder / "moved.txt")
    assert {"sub/old.txt", "moved.txt"} <= changes(batches, folder, "moved.txt")
    (folder / "moved.txt").unlink()
    assert changes(batches, folder, "moved.txt") == {"moved.txt"}


def test_file_saved_by_putting_another_in_its_place_is_reported(folder: Path, batches: Iterator[set[Path]]) -> None:
    (folder / "sub/.old.txt.tmp").write_text("saved")
    (folder / "sub/.old.txt.tmp").replace(folder / "sub/old.txt")
    assert changes(batches, folder, "sub/old.txt") == {"sub/old.txt"}
    (folder / "sub/old.txt").unlink()
    (folder / "sub/old.txt").write_text("saved again")
    assert changes(batches, folder, "sub/old.txt") == {"sub/old.txt"}


def test_folder_that_moves_in_is_reported_for_all_it_holds(
    folder: Path, batches: Iterator[set[Path]], tmp_path: Path
) -> None:
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/.git").mkdir()
    (tmp_path / "outside/.git/config").write_text("noise")
    (tmp_path / "outside").rename(folder / "inside")
    assert "inside/.git/config" not in changes(batches, folder, "inside")


def test_folder_that_moves_away_is_reported(folder: Path, batches: Iterator[set[Path]], tmp_path: Path) -> None:
    (folder / "sub").rename(tmp_path / "away")
    assert "sub" in changes(batches, folder, "sub")


def test_hidden_and_ignored_files_are_not_reported(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\n")
    with Changes([folder], 30) as found:
        (folder / ".old.txt.swp").write_text("editor")
        (folder / "x.log").write_text("noise")
        (folder / "last.txt").write_text("wanted")
        assert changes(iterated(found), folder, "last.txt") == {"last.txt"}


def test_what_gritdesk_writes_itself_is_not_reported(folder: Path) -> None:
    with Changes([folder], 30, home=folder / "sub") as found:
        for name in ("index.sqlite-wal", "index.keeper.json.7.new", "index.pause.json"):
            (folder / "sub" / name).write_text("rows")
        (folder / "last.txt").write_text("wanted")
        assert changes(iterated(found), folder, "last.txt") == {"last.txt"}


def test_what_gritdesks_home_says_of_all_folders_holds(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "gritignore").write_text("drafts/\n")
    (folder / "drafts").mkdir()
    with Changes([folder], 30, home=home) as found:
        (folder / "drafts" / "x.txt").write_text("x")
        (folder / "plain.txt").write_text("x")
        assert changes(iterated(found), folder, "plain.txt") == {"plain.txt"}


@pytest.mark.parametrize("name", [".gitignore", ".gritignore"])
def test_changed_ignore_file_reports_the_whole_folder(folder: Path, batches: Iterator[set[Path]], name: str) -> None:
    (folder / name).write_text("*.log\n")
    assert changes(batches, folder, ".") == {"."}


def test_reading_a_file_is_no_change(folder: Path, batches: Iterator[set[Path]]) -> None:
    (folder / "sub/old.txt").read_text()
    (folder / "last.txt").write_text("wanted")
    assert changes(batches, folder, "last.txt") == {"last.txt"}


def test_changes_in_quick_succession_are_one_batch(folder: Path) -> None:
    with Changes([folder], 150) as found:
        for n in range(20):
            (folder / f"{n}.txt").write_text("x")
        assert found.ready() == set()  # it is not quiet yet, and that is not waited for
        assert len(next(filter(None, iterated(found)))) == 20


def test_noise_that_never_ends_delays_no_batch(folder: Path) -> None:
    with Changes([folder], 200) as found:
        (folder / "wanted.txt").write_text("x")
        for _ in range(100):
            (folder / ".noise").write_text("a browser at work")
            if batch := found.wait(0.05):
                break
        assert batch == {folder / "wanted.txt"}


def test_burst_is_reported_as_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_MAX_PATHS", 50)
    with Changes([folder], 150) as found:
        for n in range(200):
            (folder / f"{n}.txt").write_text("x")
        assert next(filter(None, iterated(found))) == {folder}


def test_watching_ends_at_once_and_leaves_no_threads(folder: Path) -> None:
    before = threading.active_count()
    with Changes([folder]) as found:
        assert found.wait(0) == set()
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_folder_that_is_not_there_is_watched_as_soon_as_it_is(folder: Path, tmp_path: Path) -> None:
    late = tmp_path / "late"
    with Changes([late, folder], 30) as found:
        batches = iterated(found)
        (folder / "new.txt").write_text("new")
        assert changes(batches, tmp_path, "docs/new.txt") == {"docs/new.txt"}
        late.mkdir()
        assert changes(batches, tmp_path, "late") == {"late"}
        (late / "new.txt").write_text("new")
        assert changes(batches, tmp_path, "late/new.txt") == {"late/new.txt"}


def test_folder_that_is_closed_off_ends_no_watching(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Changes([folder, folder / "sub"], 30) as changes:
        with monkeypatch.context() as patch:
            close_folder(patch, folder.parent)
            changes.wait(0.1)
        batches = iterated(changes)
        for batch in itertools.islice(batches, 500):
            if folder in batch:
                break
        else:
            raise AssertionError("the folder was not reported when it could be seen again")


def test_folder_that_goes_and_comes_back_is_reported_only_when_it_is_back(
    folder: Path, batches: Iterator[set[Path]], tmp_path: Path
) -> None:
    folder.rename(tmp_path / "unmounted")
    assert {path for batch in itertools.islice(batches, 5) for path in batch} == set()
    shutil.copytree(tmp_path / "unmounted", folder)
    assert "." in changes(batches, folder, ".")
    (folder / "new.txt").write_text("new")
    assert "new.txt" in changes(batches, folder, "new.txt")


def test_folder_added_later_is_reported_as_a_whole_and_one_taken_out_no_more(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with Changes([folder], 30) as found:
        found.follow([second])
        assert changes(iterated(found), tmp_path, "second") == {"second"}
        (folder / "new.txt").write_text("new")
        (second / "new.txt").write_text("new")
        assert changes(iterated(found), tmp_path, "second/new.txt") == {"second/new.txt"}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_changes_below_a_linked_folder_are_told_by_the_name_it_was_given(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with Changes([link], 30) as found:
        (folder / "sub/new.txt").write_text("new")
        assert changes(iterated(found), link, "sub/new.txt") == {"sub/new.txt"}


def test_limit_of_watches_leads_to_looking_in_turn_and_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Observer, "start", refuse)
    monkeypatch.setattr(watcher, "_POLL_EVERY_S", 0.05)
    notices: list[str] = []
    with Changes([folder], 30, on_notice=notices.append) as found:
        assert changes(iterated(found), folder, ".") == {"."}
        assert changes(iterated(found), folder, ".") == {"."}
    assert len(notices) == 1
    assert "limit of watched folders is reached" in notices[0]
