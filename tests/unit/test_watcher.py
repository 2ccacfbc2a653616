import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers import Observer

from gritdesk import watcher
from gritdesk.watcher import watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs/sub").mkdir(parents=True)
    (tmp_path / "docs/sub/old.txt").write_text("old")
    return tmp_path / "docs"


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_LOOK_AT_STOP_S", 0.02)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    stop = threading.Event()
    yield stop
    stop.set()


def started(folder: Path, stop: threading.Event, notices: list[str] | None = None) -> Iterator[set[Path]]:
    """A watch that is known to look; it yields empty batches in between, so that a test never waits in vain."""
    on_notice: Callable[[str], None] = (notices if notices is not None else []).append
    batches = watch([folder], stop, 30, on_notice=on_notice, timeout_s=0)
    assert next(batches) == set()
    return batches


def changes(batches: Iterator[set[Path]], folder: Path, until: str) -> set[str]:
    """Names relative to the folder of all that is reported until one of them is."""
    found: set[str] = set()
    for batch in itertools.islice(batches, 500):
        found |= {path.relative_to(folder).as_posix() for path in batch}
        if until in found:
            return found
    raise AssertionError(f"{until} was not reported, but {found}")


def test_new_changed_moved_and_deleted_files_are_reported(folder: Path, stop: threading.Event) -> None:
    batches = started(folder, stop)
    (folder / "new.txt").write_text("new")
    assert changes(batches, folder, "new.txt") == {"new.txt"}
    (folder / "sub/old.txt").write_text("changed")
    assert changes(batches, folder, "sub/old.txt") == {"sub/old.txt"}
    (folder / "sub/old.txt").rename(folder / "moved.txt")
    assert {"sub/old.txt", "moved.txt"} <= changes(batches, folder, "moved.txt")
    (folder / "moved.txt").unlink()
    assert changes(batches, folder, "moved.txt") == {"moved.txt"}


def test_files_of_a_folder_that_moves_in_are_reported(folder: Path, stop: threading.Event, tmp_path: Path) -> None:
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/deep/a.txt").write_text("a")
    (tmp_path / "outside/.git").mkdir()
    (tmp_path / "outside/.git/config").write_text("noise")
    batches = started(folder, stop)
    (tmp_path / "outside").rename(folder / "inside")
    assert "inside/.git/config" not in changes(batches, folder, "inside/deep/a.txt")


def test_folder_that_moves_away_is_reported(folder: Path, stop: threading.Event, tmp_path: Path) -> None:
    batches = started(folder, stop)
    (folder / "sub").rename(tmp_path / "away")
    assert "sub" in changes(batches, folder, "sub")


def test_hidden_and_ignored_files_are_not_reported(folder: Path, stop: threading.Event) -> None:
    (folder / ".gitignore").write_text("*.log\n")
    batches = started(folder, stop)
    (folder / ".old.txt.swp").write_text("editor")
    (folder / "x.log").write_text("noise")
    (folder / "last.txt").write_text("wanted")
    assert changes(batches, folder, "last.txt") == {"last.txt"}


def test_what_gritdesks_home_says_of_all_folders_holds(folder: Path, stop: threading.Event, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "gritignore").write_text("drafts/\n")
    (folder / "drafts").mkdir()
    batches = watch([folder], stop, 30, timeout_s=0, home=home)
    assert next(batches) == set()
    (folder / "drafts" / "x.txt").write_text("x")
    (folder / "plain.txt").write_text("x")
    assert changes(batches, folder, "plain.txt") == {"plain.txt"}


@pytest.mark.parametrize("name", [".gitignore", ".gritignore"])
def test_changed_rules_report_the_whole_folder(folder: Path, stop: threading.Event, name: str) -> None:
    batches = started(folder, stop)
    (folder / name).write_text("*.log\n")
    assert changes(batches, folder, ".") == {"."}


def test_reading_a_file_is_no_change(folder: Path, stop: threading.Event) -> None:
    batches = started(folder, stop)
    (folder / "sub/old.txt").read_text()
    (folder / "last.txt").write_text("wanted")
    assert changes(batches, folder, "last.txt") == {"last.txt"}


def test_changes_in_quick_succession_are_one_batch(folder: Path, stop: threading.Event) -> None:
    batches = watch([folder], stop, 150, timeout_s=0)
    assert next(batches) == set()
    for n in range(20):
        (folder / f"{n}.txt").write_text("x")
    batch = next(filter(None, batches))
    assert len(batch) == 20


def test_watch_ends_soon_after_stop_and_leaves_no_threads(folder: Path, stop: threading.Event) -> None:
    before = threading.active_count()
    watching = threading.Thread(target=lambda: list(watch([folder], stop)))
    watching.start()
    stop.set()
    watching.join(timeout=5)
    assert not watching.is_alive()
    assert threading.active_count() == before


def test_folder_that_is_not_there_is_no_reason_to_fail(folder: Path, stop: threading.Event, tmp_path: Path) -> None:
    batches = watch([tmp_path / "gone", folder], stop, 30, timeout_s=0)
    assert next(batches) == set()
    (folder / "new.txt").write_text("new")
    assert changes(batches, folder, "new.txt") == {"new.txt"}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_changes_below_a_linked_folder_are_told_by_the_name_it_was_given(
    folder: Path, stop: threading.Event, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    batches = started(link, stop)
    (folder / "sub/new.txt").write_text("new")
    assert changes(batches, link, "sub/new.txt") == {"sub/new.txt"}


def test_limit_of_watches_leads_to_looking_in_turn_and_is_said(
    folder: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Observer, "start", refuse)
    monkeypatch.setattr(watcher, "_POLL_EVERY_S", 0.05)
    notices: list[str] = []
    batches = started(folder, stop, notices)
    (folder / "new.txt").write_text("new")
    assert "new.txt" in changes(batches, folder, "new.txt")
    assert len(notices) == 1
    assert "limit of watched folders is reached" in notices[0]
