"""What a desk's watch outlives: failures of the file system, a server that is away. Changes come by a script."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_engine import FakeEngine, read_plain

from gritdesk import cli, keeping, watcher
from gritdesk import desk as desk_module
from gritdesk.config import Config, IndexConfig
from gritdesk.desk import Desk
from gritdesk.errors import ModelError, ServerUnreachable
from gritdesk.indexer import Indexer
from gritdesk.keeping import Pace
from gritdesk.records import EmbeddingInput, FailedFile, IndexReport
from gritdesk.store.sqlite import SqliteStore


class Watch:
    """A desk's watch of one folder; each wait for changes takes the next step of a script, whose end ends it."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = top / "docs"
        self.folder.mkdir()
        self.notices: list[str] = []
        self.stop = threading.Event()
        self.store = SqliteStore(":memory:")
        self.engine = FakeEngine()
        self.server_failure: Exception | None = None
        self._patch = patch
        patch.setattr(desk_module, "_AFTER_FAILURE_S", 0)

    def write(self, name: str) -> set[Path]:
        (self.folder / name).write_text(name)
        return {self.folder / name}

    def names(self) -> set[str]:
        return {path.name for path in self.store.files()}

    def embed(self, inputs: Sequence[EmbeddingInput]) -> Any:
        if self.server_failure:
            raise self.server_failure
        return self.engine.embed(inputs)

    def run(self, *steps: Callable[[], set[Path]]) -> None:
        watch, script = self, iter(steps)

        class Changes:
            def __init__(self, *_: Any, **__: Any) -> None: ...
            def __enter__(self) -> Changes:
                return self

            def __exit__(self, *_: Any) -> None: ...
            def gather(self) -> None: ...
            def ready(self) -> set[Path]:
                return set()

            def wait(self, timeout_s: float) -> set[Path]:
                step = next(script, None)
                if step is None:
                    watch.stop.set()
                return step() if step else set()

        self._patch.setattr(watcher, "Changes", Changes)
        config = Config(self.folder.parent / "home", index=IndexConfig(folders=(str(self.folder),), on_battery="go on"))
        with Desk(config) as desk:
            desk.subscribe(self.notices.append)
            pace = Pace(config, self.notices.append)
            indexer = Indexer(
                self.store,
                self.embed,
                self.engine.count_tokens,
                read_plain,
                "model-a",
                IndexConfig(chunk_tokens=20),
                embeds=pace.embeds,
            )
            desk._keep_up(indexer, pace, lambda progress: None, self.stop)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch(tmp_path, monkeypatch)
    yield watch
    watch.store.close()


def failing(error: Exception) -> Callable[[], set[Path]]:
    def step() -> set[Path]:
        raise error

    return step


def test_unforeseen_failure_of_one_batch_is_told_and_swept_for(watch: Watch) -> None:
    def missed() -> set[Path]:
        watch.write("missed.txt")
        raise OSError(5, "Input/output error")

    watch.run(set, missed, failing(OSError(5, "Input/output error")), set)
    assert watch.names() == {"missed.txt"}
    (notice,) = watch.notices
    assert "Input/output error" in notice and "looked at again" in notice


def test_server_that_is_away_is_told_once_and_words_go_on_until_it_is_back(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away() -> set[Path]:
        watch.server_failure = ServerUnreachable("the server at http://host/v1 cannot be reached")
        return watch.write("a.txt")

    def come_back() -> set[Path]:
        assert watch.names() == {"a.txt", "b.txt"} and watch.store.num_awaiting() == 2
        watch.server_failure = None
        return set()

    monkeypatch.setattr(keeping, "_ASK_SERVER_EVERY_S", 0)
    watch.run(set, go_away, lambda: watch.write("b.txt"), set, come_back, set)
    (notice,) = watch.notices
    assert "cannot be reached; until it answers, files are found by words" in notice
    assert watch.store.num_awaiting() == 0


def test_server_that_is_away_is_not_asked_in_between(watch: Watch) -> None:
    watch.server_failure = ServerUnreachable("away")
    asked: list[int] = []
    embed = watch.embed
    watch.embed = lambda inputs: asked.append(len(inputs)) or embed(inputs)  # type: ignore[method-assign,func-returns-value]
    watch.run(lambda: watch.write("a.txt"), set, lambda: watch.write("b.txt"), set)
    assert len(asked) == 1 and watch.names() == {"a.txt", "b.txt"}


def test_failure_of_the_engine_here_ends_the_watch(watch: Watch) -> None:
    watch.server_failure = ModelError("the engine cannot be started")
    with pytest.raises(ModelError, match="cannot be started"):
        watch.run(lambda: watch.write("a.txt"), set)


def test_folder_that_is_away_is_not_counted_among_files_that_cannot_be_read(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failed, told in {
        (): "0 not readable",
        ("away",): "0 not readable",
        ("away", "a.pdf"): "1 not readable",
    }.items():
        report = IndexReport(
            9,
            0,
            8,
            0,
            0,
            0,
            tuple(FailedFile(Path(name), "why") for name in failed),
            0.1,
            folders_kept="away" in failed,
        )
        monkeypatch.setattr(Desk, "index", lambda *_, report=report: report)
        config = Config(watch.folder.parent / "home", index=IndexConfig(folders=(str(watch.folder),)))
        monkeypatch.setattr(cli, "_open_desk", lambda config=config: Desk(config))
        output = CliRunner().invoke(cli.main, ["index"]).output
        assert told in output
        assert ("files of 1 folder that is not to be read now" in output) == ("away" in failed)
        assert ("why files are missing" in output) == ("a.pdf" in failed)


def test_watching_has_all_it_needs_for_meaning_before_it_begins(tmp_path: Path) -> None:
    code = f"""
import sys, threading
from pathlib import Path
from gritdesk.config import Config, IndexConfig
from gritdesk.desk import Desk
stop = threading.Event()
stop.set()
with Desk(Config(Path({str(tmp_path)!r}), index=IndexConfig(folders=({str(tmp_path)!r},)))) as desk:
    assert "numpy" not in sys.modules
    desk.watch(print, stop)
assert "numpy.random" in sys.modules and "gritdesk.store.vectors" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
