"""The engine's process: served in order of urgency, supervised, and gone when the app is."""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gritdesk.config import EngineConfig
from gritdesk.engine import host as host_module
from gritdesk.engine.host import EngineHost, Priority, Restarted
from gritdesk.errors import ContextOverflow, ModelError, RequestRefused
from gritdesk.records import Sampling, Turn

CONFIG = EngineConfig(n_threads=1, n_ctx=1024)
QUESTION = [Turn("user", "Which ship lies in the harbour?")]
MANY = [
    ("", f"Ship {number} came in from the sea at dawn, and left again in the evening. " * 2) for number in range(400)
]

kills = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals that kill")


@pytest.fixture
def restarts() -> queue.SimpleQueue[str]:
    return queue.SimpleQueue()


@pytest.fixture
def host(tiny_gguf: Path, tmp_path: Path, restarts: queue.SimpleQueue[str]) -> Iterator[EngineHost]:
    with EngineHost(tiny_gguf, CONFIG, tmp_path / "logs", on_restart=restarts.put) as host:
        yield host


@pytest.fixture(scope="module")
def long_answer(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sampling, str]:
    """Sampling that gives a long text, and that text as an undisturbed engine gives it."""
    with EngineHost(tiny_gguf, CONFIG, tmp_path_factory.mktemp("logs")) as host:
        for seed in range(200):
            sampling = Sampling(max_tokens=900, temperature=1.0, seed=seed)
            pieces = list(host.stream(QUESTION, sampling))
            if len(pieces) > 400:
                return sampling, "".join(map(str, pieces))
    pytest.fail("no seed gives a long text")


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, queue.SimpleQueue[object]]:
    """Run a call in a thread. Returns: the thread, and where its value or error will be."""
    outcome: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(call())
        except ModelError as error:
            outcome.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_embeddings_that_come_too_late_are_given_up_and_the_engine_goes_on(host: EngineHost) -> None:
    host.start()
    with pytest.raises(ModelError, match="did not answer within 0.05 s"):
        host.embed(MANY * 20, timeout_s=0.05)
    assert host.embed(MANY[:2], timeout_s=60).shape[0] == 2


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected by its parent does not."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---------------------------------------------------------------- requests


def test_engine_embeds_counts_and_answers(host: EngineHost) -> None:
    embeddings = host.embed([("", "a ship"), ("Find it", "a ship"), ("", "")][:2])
    assert embeddings.shape == (2, 256) and embeddings.dtype == np.float32
    assert host.count_tokens(["", "a ship"])[0] == 0
    assert host.count_prompt_tokens(QUESTION) > host.count_tokens([QUESTION[0].text])[0]
    sampling = Sampling(max_tokens=20, temperature=1.0, seed=1)
    first, second = ("".join(map(str, host.stream(QUESTION, sampling))) for _ in range(2))
    assert first == second != ""


def test_engine_tells_what_it_loaded(host: EngineHost, tiny_gguf: Path) -> None:
    info = host.info()
    assert (info.model_path, info.dimension, info.n_ctx, info.markers) == (tiny_gguf, 256, 1024, "special")
    assert info.self_test["embedding_change"] > info.self_test["generation_change"]
    assert info.self_test["load_s"] > 0
    assert info.pid != os.getpid() and host.info() == info


def test_app_process_never_loads_llama_cpp(tiny_gguf: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gritdesk.config import EngineConfig\n"
        "from gritdesk.engine.host import EngineHost\n"
        f"with EngineHost(Path({str(tiny_gguf)!r}), EngineConfig(), Path({str(tmp_path)!r})) as host:\n"
        "    host.embed([('', 'a')])\n"
        "assert 'llama_cpp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_files_of_the_working_folder_are_not_imported(
    host: EngineHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert host.info().dimension == 256


def test_refused_requests_raise_here_and_harm_no_other(host: EngineHost) -> None:
    with pytest.raises(ModelError, match="cannot embed an empty text"):
        host.embed([("", " ")])
    with pytest.raises(ContextOverflow, match="leaves no room"):
        host.embed([("word " * 2000, "text")])
    with pytest.raises(ContextOverflow, match="does not fit the context"):
        list(host.stream([Turn("user", "word " * 3000)], Sampling()))
    with pytest.raises(ModelError, match="must alternate"):
        host.count_prompt_tokens([])
    with pytest.raises(ModelError, match="temperature is -1"):
        list(host.stream(QUESTION, Sampling(temperature=-1)))
    assert host.embed([("", "a")]).shape == (1, 256)


def test_many_threads_get_their_own_results(host: EngineHost) -> None:
    texts = [[("", f"thread {number} text {each}") for each in range(12)] for number in range(8)]
    expected = [host.embed(some) for some in texts]
    threads = [in_thread(lambda some=some: host.embed(some)) for some in texts]
    for (thread, outcome), wanted in zip(threads, expected, strict=True):
        thread.join()
        found = outcome.get()
        assert isinstance(found, np.ndarray)
        assert (found * wanted).sum(axis=1).min() > 0.9999


def test_query_does_not_wait_for_indexing(host: EngineHost) -> None:
    host.start()
    thread, outcome = in_thread(lambda: host.embed(MANY * 10))
    host.embed([("", "first")], priority=Priority.QUERY)
    assert "".join(map(str, host.stream(QUESTION, Sampling(max_tokens=5)))) != ""
    assert host.count_tokens(["second"])
    assert thread.is_alive()
    host.close()
    thread.join()
    assert "engine was closed" in str(outcome.get())


def test_query_is_let_in_while_an_answer_is_written(host: EngineHost, long_answer: tuple[Sampling, str]) -> None:
    sampling, text = long_answer
    stream = host.stream(QUESTION, sampling)
    pieces = [next(stream)]
    assert host.embed([("", "a query")], priority=Priority.QUERY).shape == (1, 256)
    pieces += stream
    assert "".join(map(str, pieces)) == text


# ---------------------------------------------------------------- stopping


def test_closing_a_stream_stops_the_engine_for_the_next_request(
    host: EngineHost, long_answer: tuple[Sampling, str]
) -> None:
    sampling, text = long_answer
    for _ in range(3):
        stream = host.stream(QUESTION, sampling)
        assert text.startswith(str(next(stream)))
        stream.close()  # type: ignore[attr-defined]
    assert "".join(map(str, host.stream(QUESTION, sampling))) == text


def test_stopped_stream_ends_with_what_has_come(host: EngineHost, long_answer: tuple[Sampling, str]) -> None:
    sampling, text = long_answer
    pieces: list[str] = []
    for piece in host.stream(QUESTION, sampling, is_stopped=lambda: len(pieces) >= 3):
        pieces.append(str(piece))
    assert len(pieces) == 3 and text.startswith("".join(pieces))


def test_stop_is_noticed_while_no_piece_comes(host: EngineHost) -> None:
    host.start()
    blocker, _ = in_thread(lambda: list(host.stream(QUESTION, Sampling(max_tokens=900, repeat_penalty=1.0))))
    stop = threading.Event()
    thread, outcome = in_thread(lambda: list(host.stream(QUESTION, Sampling(), is_stopped=stop.is_set)))
    stop.set()
    thread.join(timeout=20)
    assert not thread.is_alive() and isinstance(outcome.get(), list)
    host.close()
    blocker.join()


def test_close_during_a_stream_ends_it_with_a_reason(host: EngineHost, long_answer: tuple[Sampling, str]) -> None:
    stream = host.stream(QUESTION, dataclasses.replace(long_answer[0], repeat_penalty=1.0))
    next(stream)
    pid = host.info().pid
    host.close()
    with pytest.raises(ModelError, match="engine was closed"):
        for _ in range(1000):
            next(stream)
    assert not is_alive(pid)


def test_close_leaves_no_process_and_no_thread(host: EngineHost) -> None:
    before = threading.active_count()
    pid = host.info().pid
    assert is_alive(pid)
    for _ in range(2):
        host.close()
    assert not Path(f"/proc/{pid}").exists() or not is_alive(pid)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    with pytest.raises(ModelError, match="engine was closed"):
        host.embed([("", "a")])


def test_close_without_a_start_does_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    EngineHost(tiny_gguf, CONFIG, tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_close_while_the_model_loads_does_not_wait_for_it(host: EngineHost) -> None:
    thread, outcome = in_thread(host.start)
    while not host._pending and thread.is_alive():
        time.sleep(0.001)
    host.close()
    thread.join()
    outcome.get_nowait() if outcome.qsize() else None


@pytest.mark.skipif(os.name == "nt", reason="a killed parent is a POSIX matter")
def test_engine_ends_when_the_app_is_killed(tiny_gguf: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from gritdesk.config import EngineConfig\n"
        "from gritdesk.engine.host import EngineHost\n"
        f"host = EngineHost(Path({str(tiny_gguf)!r}), EngineConfig(), Path({str(tmp_path)!r}))\n"
        "print(host.info().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    app = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60)
    pid = int(app.stdout)
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@kills
def test_ctrl_c_is_left_to_the_app(host: EngineHost) -> None:
    pid = host.info().pid
    os.kill(pid, signal.SIGINT)
    assert host.embed([("", "a")]).shape == (1, 256)
    assert host.info().pid == pid


# ---------------------------------------------------------------- supervision


@kills
@pytest.mark.parametrize("name", ["SIGABRT", "SIGKILL"])
def test_killed_during_an_answer_it_is_written_anew(
    host: EngineHost, restarts: queue.SimpleQueue[str], long_answer: tuple[Sampling, str], name: str
) -> None:
    sampling, text = long_answer
    stream = host.stream(QUESTION, sampling)
    before = [next(stream)]
    os.kill(host.info().pid, getattr(signal, name))
    pieces = before + list(stream)
    (at,) = (number for number, piece in enumerate(pieces) if isinstance(piece, Restarted))
    assert text.startswith("".join(map(str, pieces[:at])))
    assert "".join(map(str, pieces[at + 1 :])) == text
    assert f"killed by {name}" in restarts.get(timeout=10)


@kills
@pytest.mark.parametrize("name", ["SIGABRT", "SIGKILL"])
def test_killed_during_indexing_it_finishes_with_the_same_embeddings(
    host: EngineHost, restarts: queue.SimpleQueue[str], name: str
) -> None:
    expected = host.embed(MANY)
    pid = host.info().pid
    thread, outcome = in_thread(lambda: host.embed(MANY))
    host.embed([("", "now the engine is busy")], priority=Priority.QUERY)
    os.kill(pid, getattr(signal, name))
    thread.join()
    found = outcome.get()
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)
    assert f"killed by {name}" in restarts.get(timeout=10)
    assert host.info().pid != pid


@kills
def test_killed_while_idle_it_is_there_for_the_next_request(host: EngineHost, restarts: queue.SimpleQueue[str]) -> None:
    os.kill(host.info().pid, signal.SIGKILL)
    assert "killed by SIGKILL" in restarts.get(timeout=10)
    assert host.embed([("", "a")]).shape == (1, 256)


@kills
def test_request_that_kills_the_engine_twice_is_refused_and_others_are_not(
    host: EngineHost, restarts: queue.SimpleQueue[str]
) -> None:
    host.start()
    thread, outcome = in_thread(lambda: host.embed(MANY * 10))
    num_kills = 0
    while thread.is_alive():
        try:
            pid = host.info().pid
            host.count_tokens(["an innocent request"])
        except ModelError:
            continue  # it happened to be served when the engine was killed
        if thread.is_alive():
            os.kill(pid, signal.SIGKILL)
            restarts.get(timeout=20)
            num_kills += 1
    refusal = outcome.get()
    assert isinstance(refusal, RequestRefused)
    assert "died twice and gave up working on this request (killed by SIGKILL); see " in str(refusal)
    assert num_kills >= 2
    assert host.embed([("", "a")]).shape == (1, 256)


@kills
def test_waiting_request_survives_two_deaths_of_another(host: EngineHost, restarts: queue.SimpleQueue[str]) -> None:
    host.start()
    working = host.stream(QUESTION, Sampling(max_tokens=900, temperature=1.0, seed=0))
    next(working)
    thread, outcome = in_thread(lambda: host.embed(MANY[:4]))
    for _ in range(2):
        os.kill(host.info().pid, signal.SIGKILL)
        restarts.get(timeout=20)
    working.close()  # type: ignore[attr-defined]
    thread.join()
    assert isinstance(outcome.get(), np.ndarray)


@kills
def test_model_changed_in_use_is_not_loaded_at_a_restart(
    tiny_gguf: Path, tmp_path: Path, restarts: queue.SimpleQueue[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_gguf.read_bytes())
    with EngineHost(path, CONFIG, tmp_path / "logs", on_restart=restarts.put) as host:
        pid = host.info().pid
        other = tmp_path / "other.gguf"
        other.write_bytes(tiny_gguf.read_bytes())
        os.utime(other, (1, 1))
        other.replace(path)
        assert host.embed([("", "still the loaded one")]).shape == (1, 256)
        os.kill(pid, signal.SIGKILL)
        restarts.get(timeout=10)
        with pytest.raises(ModelError, match="was changed while it was in use.*start gritdesk again"):
            host.embed([("", "a")])


# ---------------------------------------------------------------- loading


def test_model_that_cannot_be_loaded_gives_its_reason(tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:100_000])
    with EngineHost(cut, CONFIG, tmp_path / "logs") as host:
        for _ in range(2):
            with pytest.raises(ModelError, match=r"cannot load .*cut\.gguf: .*corrupted or incomplete"):
                host.embed([("", "a")])
        cut.unlink()
        cut.write_bytes(tiny_gguf.read_bytes())
        assert host.embed([("", "a")]).shape == (1, 256)


def test_missing_model_fails_a_stream_with_one_line(tmp_path: Path) -> None:
    with EngineHost(tmp_path / "none.gguf", CONFIG, tmp_path / "logs") as host:
        with pytest.raises(ModelError, match="no model file at") as caught:
            list(host.stream(QUESTION, Sampling()))
    assert "\n" not in str(caught.value)


def test_loading_that_hangs_is_given_up(tiny_gguf: Path, tmp_path: Path) -> None:
    with EngineHost(tiny_gguf, CONFIG, tmp_path, load_timeout_s=0.01) as host:
        with pytest.raises(ModelError, match=r"did not load .* within 0 s; choose a smaller model"):
            host.start()


@pytest.mark.skipif(os.name == "nt", reason="a script stands in for Python")
def test_death_while_loading_is_given_up_after_the_second(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: queue.SimpleQueue[str]
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho a broken installation >&2\nexit 3\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    with EngineHost(tiny_gguf, CONFIG, tmp_path / "logs", on_restart=restarts.put) as host:
        with pytest.raises(
            ModelError, match=r"died twice and gave up loading .*\(exit code 3\); see .*engine\.log"
        ) as caught:
            host.start()
        assert not isinstance(caught.value, RequestRefused)
    assert (tmp_path / "logs" / "engine.log").read_text() == "a broken installation\n" * 2


@pytest.mark.skipif(os.name == "nt", reason="a script stands in for Python")
def test_garbage_on_the_pipe_is_given_up(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho this is no message of ours, only noise\ncat >/dev/null\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    with EngineHost(tiny_gguf, CONFIG, tmp_path / "logs") as host:
        with pytest.raises(ModelError, match="answers cannot be read"):
            host.start()


def test_log_that_cannot_be_written_is_a_clear_error(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, not a folder")
    with EngineHost(tiny_gguf, CONFIG, tmp_path / "logs") as host:
        with pytest.raises(ModelError, match=r"cannot start the engine, or write its log .*engine\.log"):
            host.start()


def test_long_log_is_set_aside(host: EngineHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_MAX_LOG_BYTES", 10)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "engine.log").write_text("what was said before")
    host.start()
    assert (tmp_path / "logs" / "engine.log.1").read_text() == "what was said before"
    assert "what was said" not in (tmp_path / "logs" / "engine.log").read_text()
