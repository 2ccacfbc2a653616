import errno
import inspect
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_folders import close_folder
from fake_engine import DIMENSION, FakeEngine, read_plain

from gritdesk.config import IndexConfig
from gritdesk.errors import ContextOverflow, ExtractError, ModelError, ReaderClosed, RequestRefused
from gritdesk.indexer import Indexer
from gritdesk.records import Document, FailedFile, IndexProgress
from gritdesk.store.base import Space
from gritdesk.store.sqlite import SqliteStore
from gritdesk.surveying import survey
from gritdesk.walking import Walk


class World:
    """A folder, a store and a fake engine, with an indexer between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(":memory:")
        self.engine = FakeEngine()
        self.read_paths: list[Path] = []

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, path: Path) -> Document:
        self.read_paths.append(path)
        return read_plain(path)

    def indexer(self, fingerprint: str = "model-a", **parts: Any) -> Indexer:
        chosen: dict[str, Any] = {
            "embed": self.engine.embed,
            "count_tokens": self.engine.count_tokens,
            "read": self.read,
            "config": IndexConfig(chunk_tokens=20),
        }
        return Indexer(self.store, fingerprint=fingerprint, **(chosen | parts))

    def names(self) -> set[str]:
        """Of the indexed files."""
        states = self.store.files()
        return {path.relative_to(self.folder).as_posix() for path in states if states[path].state == "indexed"}

    def found(self, query: str) -> list[str]:
        return [hit.path.name for hit in self.store.keyword(query, 9)]

    def nearest(self, query: str) -> str:
        return self.store.nearest(self.engine.embed_query(query), 1)[0].path.name


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "docs"
    folder.mkdir()
    world = World(folder)
    yield world
    world.store.close()


# ---------------------------------------------------------------- what is indexed


def test_files_become_searchable_by_words_and_meaning(world: World) -> None:
    world.write("a.txt", "The walrus sleeps.")
    world.write("sub/b.txt", "The penguin swims.\n\n" + "word " * 30)
    report = world.indexer().run([world.folder])
    assert (report.files_seen, report.files_indexed, report.chunks_embedded, report.failed) == (2, 2, 3, ())
    assert world.found("penguin") == ["b.txt"]
    assert world.store.nearest(world.engine.embed_query("The walrus sleeps."), 1)[0].path.name == "a.txt"
    assert world.store.integrity() == []


def test_second_run_opens_and_embeds_nothing(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    world.read_paths.clear()
    world.engine.texts_embedded.clear()
    report = world.indexer().run([world.folder])
    assert (report.files_indexed, report.files_unchanged, report.chunks_embedded) == (0, 1, 0)
    assert world.read_paths == []
    assert world.engine.texts_embedded == []


def test_touched_file_is_not_read_again(world: World) -> None:
    path = world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    os.utime(path, ns=(5, 5))
    assert survey(world.store, [world.folder])[0] == 1
    report = world.indexer().run([world.folder])
    assert (report.files_indexed, report.files_unchanged, report.chunks_embedded) == (0, 1, 0)
    assert len(world.read_paths) == 1
    assert survey(world.store, [world.folder])[0] == 0


def test_moved_renamed_and_copied_files_embed_nothing(world: World) -> None:
    for n in range(3):
        world.write(f"old/{n}.txt", f"text {n}\n\n" + f"other{n} " * 30)
    world.indexer().run([world.folder])
    embedded = len(world.engine.texts_embedded)
    shutil.move(world.folder / "old", world.folder / "new")
    (world.folder / "new/0.txt").rename(world.folder / "new/zero.txt")
    shutil.copy(world.folder / "new/1.txt", world.folder / "copy.txt")
    report = world.indexer().run([world.folder])
    assert report.chunks_embedded == 0
    assert (report.files_indexed, report.files_copied, report.files_deleted) == (0, 4, 3)
    assert len(world.read_paths) == 3
    assert len(world.engine.texts_embedded) == embedded
    assert world.names() == {"new/zero.txt", "new/1.txt", "new/2.txt", "copy.txt"}
    assert world.store.integrity() == []


def test_changed_file_embeds_only_its_changed_chunks(world: World) -> None:
    paragraphs = [f"paragraph{n} " * 20 for n in range(5)]
    world.write("a.txt", "\n\n".join(paragraphs))
    world.indexer().run([world.folder])
    world.write("a.txt", "\n\n".join([*paragraphs[:2], "changed " * 19, *paragraphs[3:]]))
    report = world.indexer().run([world.folder])
    assert (report.chunks_embedded, report.chunks_reused) == (1, 4)
    assert world.found("paragraph2") == []
    assert world.found("changed") == ["a.txt"]


def test_deleted_file_leaves_no_rows(world: World) -> None:
    path = world.write("a.txt", "walrus")
    world.write("b.txt", "penguin")
    world.indexer().run([world.folder])
    path.unlink()
    report = world.indexer().run([world.folder])
    assert report.files_deleted == 1
    assert world.names() == {"b.txt"}
    assert world.found("walrus") == []
    assert len(world.store.nearest(world.engine.embed_query("x"), 9)) == 1


def test_only_rows_of_the_given_folders_are_deleted(world: World) -> None:
    world.write("one/a.txt", "walrus")
    gone = world.write("two/b.txt", "penguin")
    world.indexer().run([world.folder / "one", world.folder / "two"])
    gone.unlink()
    world.indexer().run([world.folder / "one"])
    assert world.names() == {"one/a.txt", "two/b.txt"}


def test_rows_of_other_folders_are_forgotten_where_that_is_asked_for(world: World) -> None:
    world.write("one/a.txt", "walrus")
    world.write("two/b.txt", "penguin")
    world.write("two/c.txt", "broken")
    world.indexer().run([world.folder / "one", world.folder / "two", world.folder / "gone"])
    assert len(world.store.failures()) == 2
    report = world.indexer().run([world.folder / "one"], forget_others=True)
    assert report.files_deleted == 1
    assert world.names() == {"one/a.txt"}
    assert world.store.failures() == []
    assert world.found("penguin") == []
    assert len(world.store.nearest(world.engine.embed_query("penguin"), 9)) == 1


def test_other_folders_are_forgotten_even_by_a_run_that_is_stopped(world: World) -> None:
    world.write("one/a.txt", "walrus")
    world.write("two/b.txt", "penguin")
    world.indexer().run([world.folder])
    world.indexer().run([world.folder / "one"], is_stopped=lambda: True, forget_others=True)
    assert world.names() == {"one/a.txt"}


def test_folder_that_vanished_is_not_one_of_the_others(world: World) -> None:
    world.write("one/a.txt", "walrus")
    world.write("two/b.txt", "penguin")
    world.indexer().run([world.folder])
    (world.folder / "one").rename(world.folder.with_name("away"))
    world.indexer().run([world.folder / "one", world.folder / "two"], forget_others=True)
    assert world.names() == {"one/a.txt", "two/b.txt"}


@pytest.mark.parametrize("name", ["new\nline.txt", "🐋 e\u0301.txt", "with 'quotes\".txt"])
def test_files_with_unusual_names_are_indexed(world: World, name: str) -> None:
    world.write(name, "walrus")
    world.indexer().run([world.folder])
    assert world.found("walrus") == [name]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_file_whose_name_is_not_unicode_is_indexed_and_deleted(world: World) -> None:
    path = Path(os.fsdecode(os.fsencode(world.folder) + b"/caf\xe9.txt"))
    path.write_text("walrus")
    world.indexer().run([world.folder])
    assert [hit.path for hit in world.store.keyword("walrus", 1)] == [path]
    path.unlink()
    assert world.indexer().run([world.folder]).files_deleted == 1


# ---------------------------------------------------------------- failures


def refuse(*_: Any, **__: Any) -> Any:
    """As the operating system does, which tests run by root do not see."""
    raise PermissionError(13, "Permission denied")


def test_broken_file_is_listed_with_its_reason_and_stops_nothing(world: World) -> None:
    broken = world.write("a.txt", "broken")
    world.write("b.txt", "walrus")
    report = world.indexer().run([world.folder])
    assert report.failed == (FailedFile(broken, "it is broken"),)
    assert world.store.failures() == [FailedFile(broken, "it is broken")]
    assert world.names() == {"b.txt"}
    assert survey(world.store, [world.folder])[0] == 0


def test_broken_file_is_read_again_only_when_it_was_touched_or_changed(world: World) -> None:
    path = world.write("a.txt", "broken")
    world.indexer().run([world.folder])
    world.indexer().run([world.folder])
    assert len(world.read_paths) == 1
    os.utime(path, ns=(5, 5))
    world.indexer().run([world.folder])
    world.indexer().run([world.folder])
    assert len(world.read_paths) == 2
    assert len(world.store.failures()) == 1
    world.write("a.txt", "mended")
    world.indexer().run([world.folder])
    assert world.store.failures() == []
    assert world.found("mended") == ["a.txt"]


def test_unexpected_exception_is_that_files_failure(world: World) -> None:
    world.write("a.txt", "walrus")
    world.write("b.txt", "penguin")

    def read(path: Path) -> Document:
        if path.name == "a.txt":
            raise RuntimeError("out of\ncheese")
        return read_plain(path)

    (failed,) = world.indexer(read=read).run([world.folder]).failed
    assert failed.reason == "could not be indexed (RuntimeError: out of cheese); please report this file"
    assert world.names() == {"b.txt"}


def test_failure_of_the_engine_ends_the_run_and_blames_no_file(world: World) -> None:
    world.write("a.txt", "walrus")
    world.write("b.txt", "penguin")

    def embed(inputs: Sequence[tuple[str, str]]) -> np.ndarray:
        if "penguin" in inputs[0][1]:
            raise ModelError("no memory left")
        return world.engine.embed(inputs)

    with pytest.raises(ModelError):
        world.indexer(embed=embed).run([world.folder])
    assert world.names() == {"a.txt", "b.txt"}
    assert world.found("penguin") == ["b.txt"]
    assert world.store.failures() == []
    world.indexer().run([world.folder])
    assert world.store.num_awaiting() == 0


@pytest.mark.parametrize("refusal", [RequestRefused("the engine died of it twice"), ContextOverflow("too long")])
def test_passage_that_the_engine_refuses_is_found_by_words_and_listed(world: World, refusal: ModelError) -> None:
    poison = world.write("a.txt", "poison")
    world.write("b.txt", "walrus")

    def embed(inputs: Sequence[tuple[str, str]]) -> np.ndarray:
        if any("poison" in text for _, text in inputs):
            raise refusal
        return world.engine.embed(inputs)

    report = world.indexer(embed=embed).run([world.folder])
    assert (report.files_indexed, report.chunks_embedded, report.failed) == (2, 1, ())
    assert world.found("poison") == ["a.txt"]
    (failed,) = world.store.failures()
    assert failed.path == poison and str(refusal) in failed.reason
    assert world.indexer(embed=refuse).run([world.folder]).files_unchanged == 2
    world.indexer("model-b").run([world.folder])
    assert world.store.failures() == []
    assert world.nearest("poison") == "a.txt"


def test_reader_that_is_closed_ends_the_run_and_blames_no_file(world: World) -> None:
    world.write("a.txt", "walrus")

    def read(path: Path) -> Document:
        raise ReaderClosed("gritdesk is closing")

    with pytest.raises(ReaderClosed):
        world.indexer(read=read).run([world.folder])
    assert world.store.failures() == []


def test_folder_that_vanished_keeps_its_rows_and_is_listed(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    away = world.folder.rename(world.folder.with_name("away"))
    (failed,) = world.indexer().run([world.folder]).failed
    assert failed.path == world.folder
    assert "not mounted" in failed.reason
    assert world.found("walrus") == ["a.txt"]
    assert world.store.failures() == [failed]
    away.rename(world.folder)
    report = world.indexer().run([world.folder])
    assert (report.failed, report.files_unchanged, report.files_deleted) == ((), 1, 0)
    assert world.store.failures() == []


def test_unreadable_subfolder_keeps_its_rows_and_is_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("a.txt", "walrus")
    world.write("sub/deep/b.txt", "penguin")
    world.indexer().run([world.folder])
    scandir = os.scandir

    def refusing(folder: Path) -> Any:
        if Path(folder).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    (failed,) = world.indexer().run([world.folder]).failed
    assert failed.path == world.folder / "sub"
    assert "Permission denied" in failed.reason
    assert world.found("penguin") == ["b.txt"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_folder_that_is_closed_under_a_watcher_keeps_its_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    world.write("a.txt", "walrus")
    path = world.write("sub/deep/b.txt", "penguin")
    indexer = world.indexer()
    indexer.run([world.folder])
    changed_paths = {path, path.parent, path.parent.parent, path.with_name("new.txt"), world.write("c.txt", "seal")}
    with monkeypatch.context() as patch:
        close_folder(patch, world.folder / "sub", number)
        for paths in (changed_paths, changed_paths - {path.parent.parent}, {path}):
            (failed,) = indexer.update(paths, folders=[world.folder]).failed
            assert failed == FailedFile(
                world.folder / "sub", f"the folder cannot be read ({os.strerror(number)}); its files are kept"
            )
        assert world.names() == {"a.txt", "c.txt", "sub/deep/b.txt"}
        assert indexer.run([world.folder]).files_deleted == 0
    assert indexer.run([world.folder]).failed == ()
    assert world.store.failures() == [] and world.found("penguin") == ["b.txt"]


def test_listed_folder_in_a_closed_one_keeps_its_rows_and_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("open/a.txt", "walrus")
    path = world.write("closed/docs/b.txt", "penguin")
    folders = [world.folder / "open", path.parent]
    indexer = world.indexer()
    indexer.run(folders)
    close_folder(monkeypatch, path.parent.parent)
    world.write("open/new.txt", "seal")
    assert survey(world.store, folders)[0] == 1
    report = indexer.run(folders, forget_others=True)
    assert report.folders_kept == 1
    assert [each.path for each in report.failed] == [path.parent] and report.files_indexed == 1
    assert indexer.update([path, path.parent], folders=folders).files_deleted == 0
    assert indexer.update([path]).files_deleted == 0  # as a file of no folder
    assert world.names() == {"open/a.txt", "open/new.txt", "closed/docs/b.txt"}


def test_file_whose_folder_is_closed_while_it_is_read_keeps_its_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write("sub/a.txt", "walrus")
    world.indexer().run([world.folder])
    world.write("sub/a.txt", "walrus and penguin")

    def read(path: Path) -> Document:
        close_folder(monkeypatch, path.parent)
        raise ExtractError("cannot be read: Permission denied")

    report = world.indexer(read=read).run([world.folder])
    assert (report.failed, report.files_deleted) == ((FailedFile(path, "cannot be read: Permission denied"),), 0)
    assert world.found("walrus") == ["a.txt"]


def test_file_that_could_not_be_opened_is_tried_again_in_every_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write("a.txt", "walrus")
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        patch.setattr(Path, "read_text", refuse)
        world.indexer().run([world.folder])
        assert world.store.failures() == [FailedFile(path, "cannot be read: Permission denied")]
        assert survey(world.store, [world.folder])[0] == 0
    world.indexer().run([world.folder])
    assert world.store.failures() == []
    assert world.found("walrus") == ["a.txt"]


# ---------------------------------------------------------------- stopping and starting again


def test_stop_is_obeyed_between_slices_of_a_long_file(world: World) -> None:
    world.write("a.txt", "\n\n".join(f"paragraph{n} " * 20 for n in range(100)))
    world.write("b.txt", "walrus")
    report = world.indexer().run([world.folder], is_stopped=lambda: len(world.engine.texts_embedded) >= 16)
    assert report.chunks_embedded == 16
    assert world.names() == {"a.txt", "b.txt"}
    rest = world.indexer().run([world.folder])
    assert (rest.files_unchanged, rest.chunks_embedded, world.store.num_awaiting()) == (2, 85, 0)


def test_stopped_run_deletes_nothing_that_the_next_may_need(world: World) -> None:
    world.write("old/a.txt", "walrus")
    world.indexer().run([world.folder])
    shutil.move(world.folder / "old", world.folder / "new")
    world.indexer().run([world.folder], is_stopped=lambda: True)
    assert world.found("walrus") == ["a.txt"]
    assert world.indexer().run([world.folder]).chunks_embedded == 0


def test_progress_is_sent_for_every_changed_file_and_every_slice(world: World) -> None:
    paths = [world.write(f"{n}.txt", f"text {n}") for n in range(3)]
    progress: list[IndexProgress] = []
    world.indexer().run([world.folder], progress.append)
    assert progress[0] == IndexProgress(0, 3)
    assert {each.current for each in progress} == {None, *paths}
    by_words = next(each for each in progress if each.files_done == 3)
    assert (by_words.chunks_embedded, by_words.is_done) == (0, True)  # how much awaits is counted next
    assert [each.chunks_awaiting for each in progress if each.chunks_awaiting] == [3]
    assert progress[-1] == IndexProgress(3, 3, progress[-1].current, 3) and progress[-1].is_done


# ---------------------------------------------------------------- words first, meaning after


def test_all_words_are_there_before_anything_is_embedded(world: World) -> None:
    for n in range(5):
        world.write(f"{n}.txt", f"word{n} " * 60)
    found: list[list[str]] = []

    def embed(inputs: Sequence[tuple[str, str]]) -> np.ndarray:
        found.append([name for n in range(5) for name in set(world.found(f"word{n}"))])
        return world.engine.embed(inputs)

    world.indexer(embed=embed).run([world.folder])
    assert found[0] == [f"{n}.txt" for n in range(5)]


def test_small_and_recent_files_come_first(world: World) -> None:
    for name, text, mtime in (("big", "big " * 4000, 9), ("old", "old", 5), ("new", "new", 7)):
        os.utime(world.write(f"{name}.txt", text), (mtime, mtime))
    world.indexer().run([world.folder])
    assert [path.stem for path in world.read_paths] == ["new", "old", "big"]
    assert world.engine.texts_embedded[:2] == ["new", "old"]


def test_change_that_comes_while_a_run_embeds_is_taken_first(world: World) -> None:
    world.write("long.txt", "\n\n".join(f"paragraph{n} " * 20 for n in range(300)))
    indexer = world.indexer()
    embedded: list[int] = []

    def is_stopped() -> bool:
        if len(world.engine.texts_embedded) >= 16 and not embedded:
            embedded.append(len(world.engine.texts_embedded))
            indexer.update([world.write("news.txt", "walrus")], words_only=True)
            assert world.found("walrus") == ["news.txt"]
        return False

    report = indexer.run([world.folder], is_stopped=is_stopped)
    assert world.engine.texts_embedded.index("walrus") == embedded[0]
    assert (report.chunks_embedded, world.store.num_awaiting()) == (301, 0)
    assert world.names() == {"long.txt", "news.txt"}  # the run's own look at the folder did not know the second


def test_change_that_comes_while_a_run_reads_is_neither_undone_nor_read_twice(world: World) -> None:
    paths = [world.write(f"{n}.txt", f"text {n}") for n in range(3)]
    indexer = world.indexer()
    come: list[Path] = []

    def is_stopped() -> bool:
        if len(world.read_paths) == 1 and not come:
            come.extend([world.write("news.txt", "walrus"), *paths])
            indexer.update(come, words_only=True)
        return False

    indexer.run([world.folder], is_stopped=is_stopped)
    assert world.names() == {"news.txt", "0.txt", "1.txt", "2.txt"}
    assert len(world.read_paths) == 4


def test_words_alone_are_kept_up_while_meaning_is_not_to_be_worked_on(world: World) -> None:
    world.write("a.txt", "walrus")
    is_plugged_in = False
    indexer = world.indexer(embeds=lambda: is_plugged_in)
    indexer.run([world.folder])
    assert world.found("walrus") == ["a.txt"] and world.engine.texts_embedded == [] and indexer.is_behind
    is_plugged_in = True
    indexer.update([])
    assert world.nearest("walrus") == "a.txt" and not indexer.is_behind


# ---------------------------------------------------------------- another model, another reading


def test_another_model_embeds_everything_anew_and_says_so(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer("model-a").run([world.folder])
    progress: list[IndexProgress] = []
    report = world.indexer("model-b", model="/models/b.gguf").run([world.folder], progress.append)
    assert (report.files_unchanged, report.chunks_embedded, len(world.read_paths)) == (1, 1, 1)
    assert world.store.space() == Space("model-b", DIMENSION, "/models/b.gguf")
    assert "embedded anew" in progress[0].note
    assert world.store.integrity() == []


def test_index_is_searched_as_it_was_until_all_is_embedded_anew(world: World) -> None:
    for n in range(60):
        world.write(f"{n}.txt", f"walrus {n}")
    world.indexer("model-a").run([world.folder])
    embedded = len(world.engine.texts_embedded)

    def other(inputs: Sequence[tuple[str, str]]) -> np.ndarray:
        return -world.engine.embed(inputs)

    for looks in (1, 0):  # stopped, and stopped again; at first it looks how long embeddings are
        stop_at = len(world.engine.texts_embedded) + 16 + looks
        world.indexer("model-b", embed=other).run(
            [world.folder],
            is_stopped=lambda: len(world.engine.texts_embedded) >= stop_at,  # noqa: B023
        )
        assert world.store.space() == Space("model-a", DIMENSION)
        assert world.store.next_space() == Space("model-b", DIMENSION)
        assert world.nearest("walrus 7") == "7.txt"
    world.indexer("model-b", embed=other).run([world.folder])
    assert len(world.engine.texts_embedded) - embedded - 3 == 60  # each once, a look, and two questions
    assert (world.store.space(), world.store.next_space()) == (Space("model-b", DIMENSION), None)
    assert world.store.nearest(-world.engine.embed_query("walrus 7"), 1)[0].path.name == "7.txt"


def test_model_that_cannot_be_used_leaves_the_index_as_it_was(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer("model-a").run([world.folder])

    def fail(inputs: Sequence[tuple[str, str]]) -> np.ndarray:
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        world.indexer("model-b", embed=fail).run([world.folder])
    assert world.store.next_space() is None and world.nearest("walrus") == "a.txt"


@pytest.mark.parametrize("parts", [{"config": IndexConfig(chunk_tokens=40)}, {"tokenizer": "another"}])
def test_file_of_another_reading_is_read_again_and_its_rows_stay_until_then(world: World, parts: Any) -> None:
    for n in range(3):
        world.write(f"{n}.txt", f"word{n} " * 70)
    world.indexer().run([world.folder])
    before = world.store.counts()[1]
    world.read_paths.clear()
    report = world.indexer(**parts).run([world.folder], is_stopped=lambda: len(world.read_paths) == 1)
    assert len(world.read_paths) == 1
    assert all(world.found(f"word{n}") for n in range(3))
    report = world.indexer(**parts).run([world.folder])
    assert (len(world.read_paths), report.files_indexed, report.files_unchanged) == (3, 2, 1)
    assert (world.store.counts()[1] < before) == ("config" in parts)
    assert world.store.num_awaiting() == 0 and world.store.integrity() == []
    assert world.indexer(**parts).run([world.folder]).files_unchanged == 3


def test_files_that_are_read_again_are_counted_once_and_are_not_done_before(world: World) -> None:
    for n in range(4):
        world.write(f"{n}.txt", f"word{n} " * 70)
    world.indexer().run([world.folder])
    world.write("new.txt", "walrus")
    progress: list[IndexProgress] = []
    report = world.indexer(tokenizer="another").run([world.folder], progress.append)
    assert {each.files_total for each in progress} == {5} and report.files_seen == 5
    assert [each.files_done for each in progress] == sorted(each.files_done for each in progress)
    assert [each.files_done for each in progress if each.chunks_awaiting] == [1]  # the new one
    assert [each.is_done for each in progress] == [False] * (len(progress) - 1) + [True]
    rereading = [each for each in progress if 1 < each.files_done < 5]
    assert rereading and all(each.seconds_left for each in rereading)
    assert progress[-1].seconds_left is None


def test_files_of_another_reading_wait_while_meaning_does_and_nothing_seems_under_way(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    world.read_paths.clear()
    progress: list[IndexProgress] = []
    world.indexer(tokenizer="another", embeds=lambda: False).run([world.folder], progress.append)
    assert world.read_paths == [] and progress[-1].is_done


# ---------------------------------------------------------------- content that is known


def test_content_of_another_kind_of_file_is_not_copied(world: World) -> None:
    world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    shutil.copy(world.folder / "a.txt", world.folder / "a.md")
    report = world.indexer().run([world.folder])
    assert (report.files_indexed, report.files_copied, report.chunks_embedded) == (1, 0, 0)


def test_file_that_is_restored_embeds_nothing(world: World) -> None:
    path = world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    path.unlink()
    world.indexer().update([path])
    world.write("a.txt", "walrus")
    assert world.indexer().update([path]).chunks_embedded == 0
    assert world.nearest("walrus") == "a.txt"


def test_text_that_may_be_of_other_bytes_than_were_hashed_is_not_copied(world: World) -> None:
    path = world.write("a.txt", "walrus")
    hashed = path.read_bytes()

    def read(path: Path) -> Document:
        world.write(path.name, "penguin, a moment later")
        return world.read(path)

    world.indexer(read=read).run([world.folder])
    (world.folder / "b.txt").write_bytes(hashed)
    world.indexer().run([world.folder])
    assert (world.found("walrus"), world.found("penguin")) == (["b.txt"], ["a.txt"])


def test_change_within_one_tick_of_the_clock_is_seen(world: World) -> None:
    path = world.write("a.txt", "walrus")
    mtime = path.stat().st_mtime_ns

    def read(path: Path) -> Document:
        assert path.stat().st_mtime_ns < time.time_ns() - 15_000_000, "a change now would not leave its time alone"
        return world.read(path)

    os.utime(path, ns=(mtime, time.time_ns()))
    world.indexer(read=read).run([world.folder])
    assert world.found("walrus") == ["a.txt"]


def test_older_content_is_read_though_the_clock_went_back(world: World) -> None:
    path = world.write("a.txt", "walrus")
    world.indexer().run([world.folder])
    path.write_text("okapis")
    os.utime(path, (1, 1))
    world.indexer().run([world.folder])
    assert (world.found("walrus"), world.found("okapis")) == ([], ["a.txt"])


def test_file_that_goes_while_it_is_read_is_no_failure(world: World) -> None:
    world.write("a.txt", "walrus")

    def read(path: Path) -> Document:
        path.unlink()
        return world.read(path)

    report = world.indexer(read=read).run([world.folder])
    assert (report.failed, world.store.files()) == ((), {})


# ---------------------------------------------------------------- disks that are not mounted


def test_folder_that_is_empty_keeps_its_rows_unless_it_is_given(world: World) -> None:
    path = world.write("a.txt", "walrus")
    indexer = world.indexer()
    indexer.run([world.folder])
    path.unlink()
    (failed,) = indexer.run([world.folder], forget_emptied=False).failed
    assert failed.path == world.folder and "not mounted" in failed.reason
    indexer.update([world.folder], folders=[world.folder])
    assert world.found("walrus") == ["a.txt"]
    assert indexer.run([world.folder]).files_deleted == 1
    assert world.store.files() == {}


def test_folder_that_vanished_under_a_watcher_keeps_its_rows(world: World) -> None:
    path = world.write("a.txt", "walrus")
    indexer = world.indexer()
    indexer.run([world.folder])
    world.folder.rename(world.folder.with_name("away"))
    assert indexer.update([path, world.folder], folders=[world.folder]).files_deleted == 0
    assert world.found("walrus") == ["a.txt"]


# ---------------------------------------------------------------- changes that a watcher reports


def test_update_indexes_changed_files_and_forgets_those_that_are_gone(world: World) -> None:
    changed, gone = world.write("a.txt", "old"), world.write("sub/b.txt", "walrus")
    world.write("sub/c.txt", "walrus too")
    kept = world.write("d.txt", "kept")
    indexer = world.indexer()
    indexer.run([world.folder])
    world.write("a.txt", "penguin")
    new = world.write("new/e.txt", "seal")
    shutil.rmtree(gone.parent)
    report = indexer.update({changed, gone.parent, new.parent})
    assert (report.files_indexed, report.files_deleted) == (2, 2)
    assert world.names() == {"a.txt", "d.txt", "new/e.txt"}
    kept.unlink()
    assert indexer.update({kept, world.folder / "never-there"}).files_deleted == 1


def test_folder_that_took_the_place_of_another_has_only_its_own_files(world: World) -> None:
    world.write("a/old.txt", "walrus")
    world.write("a/deep/old.txt", "walrus")
    indexer = world.indexer()
    indexer.run([world.folder])
    (world.folder / "a").rename(world.folder / "b")
    world.write("a/new.txt", "penguin")
    indexer.update({world.folder / "a", world.folder / "b"}, folders=[world.folder])
    assert world.names() == {"a/new.txt", "b/old.txt", "b/deep/old.txt"}


def test_changed_folder_is_walked_by_the_rules_of_the_folder_around_it(world: World) -> None:
    world.write(".gritignore", "*.log\nbuild/\n")
    for name in ("a/x.log", "a/x.txt", "a/build/y.txt"):
        world.write(name, "walrus")
    built = world.folder / "a/build"
    indexer = world.indexer()
    indexer.update({world.folder / "a"}, folders=[world.folder, built])
    assert world.names() == {"a/x.txt", "a/build/y.txt"}  # the second is a listed folder of its own
    indexer.update({world.folder / "a"}, folders=[world.folder])
    assert world.names() == {"a/x.txt"}


# ---------------------------------------------------------------- which files


def walked(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path, _ in Walk(folder).files()}


def test_hidden_and_tool_folders_are_skipped(world: World) -> None:
    for name in (
        "a.txt",
        ".hidden",
        ".git/x",
        "node_modules/x",
        "sub/__pycache__/x",
        ".venv/x",
        "sub/node_modules.txt",
    ):
        world.write(name, "text")
    assert walked(world.folder) == {"a.txt", "sub/node_modules.txt"}


def test_a_hidden_folder_that_is_asked_for_is_walked(world: World) -> None:
    world.write(".notes/a.txt", "text")
    assert walked(world.folder / ".notes") == {"a.txt"}


def test_gitignore_is_honoured_and_a_nearer_one_wins(world: World) -> None:
    world.write(".gitignore", "*.log\nbuild/\n/top.txt\n")
    world.write("sub/.gitignore", "!keep.log\n")
    for name in ("a.txt", "x.log", "build/x", "sub/build/x", "top.txt", "sub/top.txt", "sub/keep.log", "sub/y.log"):
        world.write(name, "text")
    assert walked(world.folder) == {"a.txt", "sub/top.txt", "sub/keep.log"}


def test_folders_deeper_than_pythons_stack_are_walked(world: World) -> None:
    world.write("d/" * 300 + "a.txt", "text")
    world.write("e/b.txt", "text")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert walked(world.folder) == {f"{'d/' * 300}a.txt", "e/b.txt"}
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_and_pipes_are_not_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.txt").write_text("secret")
    world.write("a.txt", "text")
    (world.folder / "folder").symlink_to(tmp_path / "outside")
    (world.folder / "file.txt").symlink_to(tmp_path / "outside/x.txt")
    (world.folder / "loop").symlink_to(world.folder)
    os.mkfifo(world.folder / "pipe.txt")
    assert walked(world.folder) == {"a.txt"}


def test_rules_for_one_path_agree_with_the_walk(world: World) -> None:
    world.write(".gitignore", "*.log\nbuild/\n")
    names = ["a.txt", "x.log", "build/x.txt", ".git/config", "sub/deep/b.txt", "sub/.cache/y"]
    for name in names:
        world.write(name, "text")
    walk = Walk(world.folder)
    assert {name for name in names if not walk.skips(world.folder / name)} == walked(world.folder)
    assert walk.skips(world.folder / "gone/x.log")
    assert not walk.skips(world.folder / "gone/x.txt")
