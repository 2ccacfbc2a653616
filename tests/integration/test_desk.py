"""The desk over a real engine, a real index and real files: interrupted, moved, used from many threads."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig, add_folder, load_config
from gritdesk.desk import Desk
from gritdesk.errors import ConfigError, FingerprintMismatch, GritDeskError, ModelError, StoreBusy
from gritdesk.grit_format import embedding_frame, passage_input, render
from gritdesk.keeping import pause, resume
from gritdesk.records import (
    AnswerFinished,
    AnswerRestarted,
    EvidenceFound,
    FailedFile,
    IndexProgress,
    PieceGenerated,
)

NUM_FILES = 8
aborts = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGABRT between processes")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "old").mkdir(parents=True)
    for n in range(NUM_FILES):
        text = "\n\n".join(f"Ship {n} of fleet {part} lies at anchor in bay {n * part}. " * 8 for part in range(1, 4))
        (folder / "old" / f"ship{n}.txt").write_text(text)
    return folder


def config_in(home: Path, model: Path) -> Config:
    engine = EngineConfig(model=str(model), n_threads=1, n_ctx=1024)
    # on_battery: a laptop without its charger is no reason to wait for meaning in a test
    return Config(home, engine=engine, index=IndexConfig(on_battery="go on"), answer=AnswerConfig(max_tokens=400))


@pytest.fixture
def config(tmp_path: Path, tiny_gguf: Path) -> Config:
    return config_in(tmp_path / "home", tiny_gguf)


@pytest.fixture
def desk(config: Config) -> Iterator[Desk]:
    with Desk.open(config) as desk:
        yield desk


def found(desk: Desk, query: str) -> list[tuple[Path, int, float]]:
    return [(hit.path, hit.chunk.line_start, round(hit.score, 4)) for hit in desk.search(query, 20)]


# ---------------------------------------------------------------- the engine dies


@aborts
def test_index_goes_on_when_the_engine_aborts(desk: Desk, docs: Path, tmp_path: Path, tiny_gguf: Path) -> None:
    notices: queue.SimpleQueue[str] = queue.SimpleQueue()
    desk.subscribe(notices.put)
    to_kill: queue.SimpleQueue[int] = queue.SimpleQueue()
    num_killed = 0

    def kill_in_flight() -> None:
        os.kill(to_kill.get(), signal.SIGABRT)  # while the next embedding is asked for

    killer = threading.Thread(target=kill_in_flight)
    killer.start()

    def disturb(progress: IndexProgress) -> None:
        nonlocal num_killed
        if num_killed == 0 and progress.chunks_embedded > 2:
            num_killed = 1
            os.kill(desk.engine_info().pid, signal.SIGABRT)
        elif num_killed == 1 and progress.chunks_embedded > 8:
            num_killed = 2
            to_kill.put(desk.engine_info().pid)

    report = desk.index([docs], disturb)
    killer.join()
    assert num_killed == 2
    for _ in range(num_killed):
        assert "SIGABRT" in notices.get(timeout=20)
    with Desk.open(config_in(tmp_path / "calm", tiny_gguf)) as calm:
        undisturbed = calm.index([docs])
        assert replace(report, seconds=0) == replace(undisturbed, seconds=0)
        assert report.files_indexed == NUM_FILES and report.failed == ()
        assert found(desk, "bay 6") == found(calm, "bay 6")
    assert desk.check() == []


@aborts
def test_answer_begins_anew_when_the_engine_aborts(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    notices: queue.SimpleQueue[str] = queue.SimpleQueue()
    desk.subscribe(notices.put)
    question, expected = long_answer(desk)
    pid = desk.engine_info().pid
    events = []
    for event in desk.ask(question):
        events.append(event)
        if isinstance(event, PieceGenerated) and sum(isinstance(each, PieceGenerated) for each in events) == 3:
            os.kill(pid, signal.SIGABRT)
    (restarted,) = [event for event in events if isinstance(event, AnswerRestarted)]
    assert "SIGABRT" in restarted.reason and "SIGABRT" in notices.get(timeout=20)
    assert isinstance(events[0], EvidenceFound) and isinstance(events[-1], AnswerFinished)
    assert events[-1].answer.text == expected
    after = events[events.index(restarted) + 1 : -1]
    assert "".join(event.text for event in after if isinstance(event, PieceGenerated)).strip() == expected
    assert desk.engine_info().pid != pid


def test_filters_of_a_question_say_where_to_look(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    evidence, *_, finished = desk.ask("Where does ship 3 lie? name:ship5 in:docs")
    assert isinstance(evidence, EvidenceFound) and {hit.path.name for hit in evidence.hits} == {"ship5.txt"}
    assert isinstance(finished, AnswerFinished) and finished.answer.question == "Where does ship 3 lie?"
    assert desk.search("ship name:ship7 type:md") == []
    assert desk.misses("ship name:ship7 type:md").removed == (("type:md", 3),)
    assert {hit.path.name for hit in desk.similar(docs / "old" / "ship1.txt").hits} == {
        f"ship{n}.txt" for n in range(NUM_FILES) if n != 1
    }


def long_answer(desk: Desk) -> tuple[str, str]:
    """A question whose answer takes the engine a while, and the answer."""
    for n in range(NUM_FILES):
        question = f"Where does ship {n} lie?"
        *_, last = desk.ask(question)
        assert isinstance(last, AnswerFinished)
        if last.answer.timings["num_pieces"] > 150:
            return question, last.answer.text
    pytest.fail("every answer is short")


def test_answer_that_is_stopped_ends_with_what_there_is(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    question, whole = long_answer(desk)
    pieces: list[str] = []
    for event in desk.ask(question, is_stopped=lambda: len(pieces) >= 5):
        if isinstance(event, PieceGenerated):
            pieces.append(event.text)
    assert isinstance(event, AnswerFinished) and event.answer.stopped
    assert whole.startswith(event.answer.text) and len(event.answer.text) < len(whole)


# ---------------------------------------------------------------- nothing is done twice


def test_unchanged_tree_is_not_embedded_again_however_it_is_touched_moved_or_copied(desk: Desk, docs: Path) -> None:
    first = desk.index([docs])
    assert (first.files_indexed, first.chunks_embedded) == (NUM_FILES, desk.status().chunks)
    again = desk.index()
    assert (again.files_unchanged, again.files_indexed, again.chunks_embedded) == (NUM_FILES, 0, 0)
    for path in (docs / "old").iterdir():
        os.utime(path, (1, 1))
    assert desk.status().pending == NUM_FILES
    touched = desk.index()
    assert (touched.files_unchanged, touched.chunks_embedded, desk.status().pending) == (NUM_FILES, 0, 0)
    (docs / "old").rename(docs / "new")
    moved = desk.index()
    assert (moved.files_copied, moved.files_deleted, moved.chunks_embedded) == (NUM_FILES, NUM_FILES, 0)
    assert {hit.path.parent.name for hit in desk.search("ship", 50)} == {"new"}
    shutil.copytree(docs / "new", docs / "copy")
    copied = desk.index()
    assert (copied.files_copied, copied.files_indexed, copied.chunks_embedded) == (NUM_FILES, 0, 0)
    assert desk.check() == []


def test_changed_file_alone_is_embedded_and_a_deleted_one_is_found_no_more(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    (docs / "old" / "ship0.txt").write_text("An okapi walks the deck.")
    (docs / "old" / "ship1.txt").unlink()
    report = desk.index()
    assert (report.files_indexed, report.files_deleted, report.chunks_embedded) == (1, 1, 1)
    assert desk.search("okapi")[0].path.name == "ship0.txt"
    assert desk.document_text(docs / "old" / "ship1.txt") is None


def test_index_that_is_stopped_keeps_whole_files_and_is_continued(desk: Desk, docs: Path) -> None:
    done: list[int] = []
    report = desk.index([docs], lambda progress: done.append(progress.files_done), lambda: bool(done and done[-1] >= 3))
    assert report.files_indexed == 3 and desk.status().files == 3
    rest = desk.index()
    assert (rest.files_unchanged, rest.files_indexed) == (3, NUM_FILES - 3)


def test_folder_that_is_not_there_for_a_while_keeps_its_rows(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    before = desk.status().chunks
    docs.rename(docs.with_name("unmounted"))
    (failed,) = desk.index().failed
    assert failed.path == docs and "not there" in failed.reason and desk.status().chunks == before
    docs.with_name("unmounted").rename(docs)
    back = desk.index()
    assert (back.files_unchanged, back.chunks_embedded, desk.status().failed) == (NUM_FILES, 0, ())


# ---------------------------------------------------------------- one index, many hands


def test_calls_from_many_threads_agree(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    queries = [f"ship {n}" for n in range(6)]
    alone = [found(desk, query) for query in queries]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda query: found(desk, query), queries * 3)) == alone * 3
        embeddings = list(pool.map(lambda text: desk.embed([text])[0], queries))
    np.testing.assert_allclose(np.array(embeddings), desk.embed(queries), atol=1e-4)


def test_second_desk_on_the_same_index_may_search_but_not_index(desk: Desk, config: Config, docs: Path) -> None:
    with Desk.open(config) as other:
        refused: list[str] = []

        def try_too(progress: IndexProgress) -> None:
            if progress.files_done == 2 and not refused:
                with pytest.raises(StoreBusy) as caught:
                    other.index([docs])
                refused.append(str(caught.value))
                assert other.search("ship 0", mode="keyword")

        desk.index([docs], try_too)
        assert "another gritdesk" in refused[0]
        assert other.index([docs]).files_unchanged == NUM_FILES


def test_closed_desk_starts_nothing_again(config: Config, docs: Path) -> None:
    desk = Desk.open(config)
    desk.index([docs])
    desk.close()
    desk.close()
    with pytest.raises(ModelError):
        desk.embed(["a ship"])
    with pytest.raises(GritDeskError):
        desk.search("ship", mode="keyword")


class Watching:
    """A desk that watches in a thread of its own; `wait_for` looks on from outside."""

    def __init__(self, desk: Desk, **options: bool) -> None:
        self.desk = desk
        self.progress: queue.SimpleQueue[IndexProgress] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=desk.watch, args=(self.progress.put, self._stop), kwargs=options)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()

    def wait_for(self, is_so: Callable[[IndexProgress], bool]) -> IndexProgress:
        while not is_so(progress := self.progress.get(timeout=20)):
            pass
        return progress


def is_up_to_date(progress: IndexProgress) -> bool:
    return progress.is_done and progress.chunks_embedded > 0


def test_watched_folder_is_searched_with_its_changes(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    with Watching(desk) as watching:
        watching.wait_for(lambda progress: progress.files_done == NUM_FILES)  # the sweep before it
        (docs / "okapi.txt").write_text("An okapi walks the deck.")
        watching.wait_for(is_up_to_date)
        assert [desk.search("okapi", mode=mode)[0].path.name for mode in ("keyword", "semantic")] == ["okapi.txt"] * 2


def test_paused_watcher_waits_and_then_finds_what_changed(desk: Desk, config: Config, docs: Path) -> None:
    desk.index([docs])
    notices: queue.SimpleQueue[str] = queue.SimpleQueue()
    desk.subscribe(notices.put)
    with Watching(desk) as watching:
        watching.wait_for(lambda progress: progress.files_done == NUM_FILES)
        pause(config)
        assert "paused" in notices.get(timeout=20)
        (docs / "okapi.txt").write_text("An okapi walks the deck.")
        assert "paused" in desk.status().paused and desk.status().pending == 1
        resume(config)
        watching.wait_for(is_up_to_date)
        assert desk.search("okapi", mode="keyword")[0].path == docs / "okapi.txt"


def test_watcher_takes_up_a_folder_that_another_process_adds(
    desk: Desk, config: Config, docs: Path, tmp_path: Path
) -> None:
    desk.index([docs])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "okapi.txt").write_text("An okapi walks the deck.")
    with Watching(desk) as watching, Desk.open(config) as other:
        watching.wait_for(lambda progress: progress.files_done == NUM_FILES)
        assert desk.status().keeper.startswith(f"process {os.getpid()}, watching")
        with pytest.raises(StoreBusy, match="watching since"):
            other.index([tmp_path / "more"])
        keeper = other.hand_over([tmp_path / "more"])
        assert keeper is not None and keeper.pid == os.getpid()
        watching.wait_for(is_up_to_date)
        assert other.search("okapi", mode="keyword")[0].path == tmp_path / "more" / "okapi.txt"
    assert desk.status().keeper == ""


def test_watcher_takes_up_a_folder_that_a_look_at_the_settings_found_first(
    desk: Desk, docs: Path, tmp_path: Path
) -> None:
    desk.index([docs])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "okapi.txt").write_text("An okapi walks the deck.")
    with Watching(desk) as watching:
        watching.wait_for(lambda progress: progress.is_done)
        add_folder(desk.config, tmp_path / "more")
        desk.settings()  # reads the configuration before the thread that watches does
        watching.wait_for(is_up_to_date)
        assert desk.search("okapi", mode="keyword")[0].path == tmp_path / "more" / "okapi.txt"


def test_folder_that_the_watching_desk_itself_forgets_is_gone_from_the_index(
    desk: Desk, docs: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "okapi.txt").write_text("An okapi walks the deck.")
    desk.index([docs, more])
    with Watching(desk) as watching:
        watching.wait_for(lambda progress: progress.is_done)
        _, keeper = desk.forget_folder(more)
        assert keeper is not None and keeper.pid == os.getpid()
        watching.wait_for(lambda _: desk.search("okapi", mode="keyword") == [])
        assert desk.status().files == NUM_FILES


def test_what_the_model_reads_of_a_passage_is_told_with_its_markers(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    chunks = desk.chunks_of(docs / "old" / "ship0.txt")
    assert chunks and desk.model_texts(chunks) == [render(embedding_frame(*passage_input(each))) for each in chunks]
    assert "<|embed|>" in desk.model_texts(chunks)[0]


def test_second_watcher_stands_by_and_takes_over(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    with Desk.open(replace(desk.config)) as other:
        first = Watching(desk)
        with first:
            first.wait_for(lambda progress: progress.is_done)
            with pytest.raises(StoreBusy):
                other.watch(lambda progress: None, threading.Event())
            second = Watching(other, stands_by=True)
            second.__enter__()
            told = second.progress.get(timeout=20)
            assert told.is_done and "another gritdesk keeps the index up" in told.note
        try:
            (docs / "okapi.txt").write_text("An okapi walks the deck.")
            second.wait_for(is_up_to_date)
        finally:
            second.__exit__()
        assert other.search("okapi", mode="keyword")[0].path == docs / "okapi.txt"


def test_disk_that_is_not_mounted_for_a_while_loses_nothing_to_the_watcher(desk: Desk, docs: Path) -> None:
    desk.index([docs])
    with Watching(desk) as watching:
        watching.wait_for(lambda progress: progress.files_done == NUM_FILES)
        away = docs.rename(docs.with_name("unmounted"))
        docs.mkdir()  # the empty folder under a mount
        (failed,) = watching_failures(desk)
        assert failed.path == docs and "not mounted" in failed.reason
        assert len(desk.search("ship", 50, mode="keyword")) == desk.status().chunks > 0
        docs.rmdir()
        away.rename(docs)
        watching.wait_for(lambda progress: progress.files_total == NUM_FILES)
    assert desk.index().chunks_embedded == 0 and desk.status().failed == ()


def watching_failures(desk: Desk) -> tuple[FailedFile, ...]:
    """What `desk` lists as soon as it lists anything."""
    give_up_at = time.monotonic() + 20
    while not (failed := desk.status().failed) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return failed


# ---------------------------------------------------------------- settings


def test_other_chunks_are_made_one_file_after_another(desk: Desk, config: Config, docs: Path) -> None:
    desk.index([docs])
    with Desk.open(replace(load_as(config, desk), index=IndexConfig((str(docs),), chunk_tokens=64))) as finer:
        assert finer.search("ship 3")
        assert finer.index().files_indexed == NUM_FILES
        assert finer.search("ship 3") and finer.status().chunks > NUM_FILES
        assert (finer.status().awaiting, finer.index().files_unchanged) == (0, NUM_FILES)


def test_index_is_asked_with_the_model_that_made_it_until_another_has_embedded_all(
    desk: Desk, config: Config, docs: Path, tmp_path: Path, tiny_gguf: Path, tiny_gguf_q8: Path
) -> None:
    earlier = shutil.copy(tiny_gguf, tmp_path / "earlier.gguf")
    with Desk.open(config_in(config.home, earlier)) as first:
        first.index([docs])
        hits = found(first, "bay 6")
    other = replace(config_in(config.home, tiny_gguf_q8), index=load_config(config.home).index)
    with Desk.open(other) as second:
        assert found(second, "bay 6") == hits
        num_chunks = second.status().chunks
        second.index(is_stopped=lambda: 0 < second.status().awaiting < num_chunks)
        assert second.status().awaiting > 0 and found(second, "bay 6") == hits
        assert second.index().chunks_embedded < num_chunks
        assert second.search("bay 6") and second.status().awaiting == 0 and second.check() == []
        second.check_fingerprint()
    earlier.unlink()
    with Desk.open(other) as third:
        assert third.search("bay 6", mode="semantic")


def test_words_must_do_while_the_model_that_made_the_index_is_gone(
    config: Config, docs: Path, tmp_path: Path, tiny_gguf: Path, tiny_gguf_q8: Path
) -> None:
    earlier = shutil.copy(tiny_gguf, tmp_path / "earlier.gguf")
    with Desk.open(config_in(config.home, earlier)) as first:
        first.index([docs])
    earlier.unlink()
    with Desk.open(config_in(config.home, tiny_gguf_q8)) as second:
        notices: list[str] = []
        second.subscribe(notices.append)
        assert second.search("bay 6") == second.search("bay 6", mode="keyword")
        assert len(notices) == 1 and "words alone" in notices[0]
        with pytest.raises(FingerprintMismatch, match="run `gritdesk index`"):
            second.search("bay 6", mode="semantic")


def load_as(config: Config, desk: Desk) -> Config:
    """The configuration as a desk has written it, over the engine of the tests."""
    return replace(config, index=load_config(desk.config.home).index)


def test_mistaken_folder_adds_none_of_its_neighbours(desk: Desk, docs: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        desk.index([docs, docs / "nowhere"])
    with pytest.raises(ConfigError, match="is a file"):
        desk.index([docs, docs / "old" / "ship0.txt"])
    assert desk.folders == [] and load_config(desk.config.home).index.folders == ()


def test_linked_folder_is_known_by_the_name_that_was_given(desk: Desk, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    try:
        (tmp_path / "elsewhere" / "link").symlink_to(docs / "old")
    except OSError:
        pytest.skip("no symbolic links here")
    desk.index([tmp_path / "elsewhere" / "link"])
    assert desk.folders == [tmp_path / "elsewhere" / "link"]
    (docs / "new").mkdir()
    desk.index([tmp_path / "elsewhere" / "link" / ".." / "new"])  # the parent of what the link leads to
    assert desk.folders[1:] == [(docs / "new").resolve()]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_folder_listed_under_several_names_is_indexed_under_one(desk: Desk, docs: Path, tmp_path: Path) -> None:
    desk.index([docs])
    num_files = desk.status().files
    (tmp_path / "link").symlink_to(docs)
    (tmp_path / "sublink").symlink_to(docs / "old")
    for alias in (tmp_path / "link", tmp_path / "sublink", tmp_path / "link" / "old"):
        report = desk.index([alias])
        assert (report.files_indexed, report.files_deleted) == (0, 0)
    desk.add_folder(tmp_path / "sublink")
    assert desk.folders == [docs] and load_config(desk.config.home).index.folders == (str(docs),)
    desk.config = replace(desk.config, index=IndexConfig((str(tmp_path / "sublink"), str(docs))))  # by hand
    assert desk.folders == [docs]
    desk.index()
    assert desk.status().files == num_files


# ---------------------------------------------------------------- folders within folders


def test_ignored_folder_asked_for_by_name_stays(desk: Desk, docs: Path) -> None:
    (docs / ".gitignore").write_text("build/\n")
    built = docs / "build"
    built.mkdir()
    (built / "page.txt").write_text("A walrus on the built page.")
    desk.index([docs])
    assert not desk.search("walrus", mode="keyword")

    desk.index([docs / "old", built])
    assert desk.folders == [docs, built]  # the first is found from its parent, the second is not
    for folders in ([docs], []):
        report = desk.index(folders)
        assert (report.files_indexed, report.files_deleted) == (0, 0)
        assert [hit.path for hit in desk.search("walrus", mode="keyword")] == [built / "page.txt"]
