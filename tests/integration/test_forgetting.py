"""`gritdesk forget`: a folder is taken out of the configuration and the index, and nothing of it is touched."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from gritdesk.cli import main
from gritdesk.config import Config, EngineConfig, load_config
from gritdesk.desk import Desk
from gritdesk.keeping import index_lock
from gritdesk.store.sqlite import SqliteStore


@pytest.fixture
def home(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an index of two folders, the second of which has another one listed in it."""
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path / "home"))
    for name in ("one/a.txt", "two/b.txt", "two/inner/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The walrus of {name}")
    config = Config(tmp_path / "home", engine=EngineConfig(model=str(tiny_gguf), n_threads=1))
    config.home.mkdir()
    folders = [str(tmp_path / name) for name in ("one", "two/inner", "two")]
    config.path.write_text(f'[engine]\nmodel = "{tiny_gguf}"\nn_threads = 1\n[index]\nfolders = {folders}\n')
    config = replace(config, index=load_config(config.home).index)
    with Desk.open(config) as desk:
        assert desk.index().files_indexed == 3
    return config.home


def forget(folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["forget", str(folder)], catch_exceptions=False)
    return done.exit_code, done.output


def indexed(home: Path) -> set[str]:
    with SqliteStore(home / "index.sqlite") as store:
        assert store.integrity() == []
        return {path.name for path in store.files()}


def test_forgotten_folder_leaves_list_and_index_and_stays_on_the_disk(home: Path, tmp_path: Path) -> None:
    assert forget(tmp_path / "one") == (0, f"forgot 1 file of {tmp_path / 'one'}; on the disk nothing was changed\n")
    assert indexed(home) == {"b.txt", "c.txt"} and (tmp_path / "one" / "a.txt").exists()
    assert load_config(home).index.folders == (str(tmp_path / "two" / "inner"), str(tmp_path / "two"))


def test_what_another_listed_folder_holds_stays(home: Path, tmp_path: Path) -> None:
    assert "forgot 1 file of" in forget(tmp_path / "two")[1]
    assert indexed(home) == {"a.txt", "c.txt"}


def test_folder_that_is_away_can_be_forgotten(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "one")
    assert forget(tmp_path / "one")[0] == 0 and indexed(home) == {"b.txt", "c.txt"}


def test_folder_that_is_not_listed_is_one_clear_line(home: Path, tmp_path: Path) -> None:
    code, told = forget(tmp_path / "three")
    assert code == 1 and "is not among the indexed folders" in told and told.count("\n") == 1
    code, told = forget(tmp_path / "one" / "below")
    assert code == 1 and f"it lies in {tmp_path / 'one'}; a line in .gritignore" in told
    assert indexed(home) == {"a.txt", "b.txt", "c.txt"}


@pytest.mark.parametrize("watches", [True, False])
def test_process_that_watches_forgets_and_one_that_only_indexes_is_waited_for(
    home: Path, tmp_path: Path, watches: bool
) -> None:
    with index_lock(load_config(home), watches=watches):
        code, told = forget(tmp_path / "one")
    assert (code, len(load_config(home).index.folders)) == ((0, 2) if watches else (1, 3))
    assert ("another gritdesk forgets its files now" if watches else "another gritdesk is indexing") in told
    assert indexed(home) == {"a.txt", "b.txt", "c.txt"}


def test_watcher_drops_the_rows_of_a_folder_that_was_taken_out(home: Path, tmp_path: Path) -> None:
    stop, swept = threading.Event(), threading.Event()
    with Desk.open(load_config(home)) as desk:
        watching = threading.Thread(target=desk.watch, args=(lambda progress: swept.set(), stop))
        watching.start()
        try:
            assert swept.wait(60)
            assert "another gritdesk forgets" in forget(tmp_path / "one")[1]
            give_up_at = time.monotonic() + 60
            while "a.txt" in {path.name for path in desk._store().files()} and time.monotonic() < give_up_at:
                time.sleep(0.1)
        finally:
            stop.set()
            watching.join()
    assert indexed(home) == {"b.txt", "c.txt"}
