"""The engine as the app sees it: calls that block, from any thread, served by a process of its own.

llama.cpp ends its process where other libraries raise. So the process is supervised: when it dies it is started
again and gets the requests it had not answered. The request it was working on is counted guilty, as all are when
it dies while loading; a request guilty twice is refused. Nothing here loads native code.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import EngineConfig
from gritdesk.engine import wire
from gritdesk.engine.states import StateSettings, file_stamp
from gritdesk.engine.wire import EngineInfo, Priority
from gritdesk.errors import CHOOSE_MODEL, ModelError, RequestRefused
from gritdesk.grit_format import Cache
from gritdesk.records import EmbeddingInput, Sampling, Turn

__all__ = ["CachingEngine", "EngineHost", "EngineInfo", "Priority", "Restarted"]

_MAX_LOG_BYTES = 1_000_000
_MAX_DEATHS = 2
_POLL_S = 0.05
"""How often a caller's `is_stopped` is asked while no piece comes."""


@dataclass(frozen=True)
class Restarted:
    """The engine died and was started again; the pieces so far are void and come anew."""

    reason: str


@dataclass(eq=False)
class _Child:
    """One life of the engine's process."""

    process: subprocess.Popen[bytes]
    write_lock: threading.Lock = field(default_factory=threading.Lock)
    is_loaded: bool = False
    has_hung: bool = False
    load_error: ModelError | None = None
    working_on: int | None = None

    def send(self, message: object) -> None:
        """Send a message; if the process is gone, nothing happens: whoever reads its answers finds that out."""
        assert self.process.stdin
        with self.write_lock, contextlib.suppress(OSError, ValueError):
            wire.write(self.process.stdin, message)  # type: ignore[arg-type]

    def close_stdin(self) -> None:
        """Tell the process to end."""
        assert self.process.stdin
        with self.write_lock, contextlib.suppress(OSError):
            self.process.stdin.close()


@dataclass(eq=False)
class _Pending:
    """A request whose answer is not complete."""

    request: wire.Request
    events: queue.SimpleQueue[wire.Piece | wire.Done | wire.Failed | Restarted] = field(
        default_factory=queue.SimpleQueue
    )
    num_deaths: int = 0
    num_deaths_in_work: int = 0
    """Of these, with the model loaded: nobody but this request is to blame."""


class EngineHost:
    """Starts the engine at the first request, supervises it, and ends it with `close()`."""

    def __init__(
        self,
        model_path: Path,
        config: EngineConfig,
        log_dir: Path,
        on_restart: Callable[[str], None] | None = None,
        *,
        load_timeout_s: float = 300.0,
        states: StateSettings | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            log_dir: where engine.log is written.
            on_restart: called with a reason for a person after each death, and with what else the engine has to say,
                from a thread of this object.
            load_timeout_s: how long a model may take to load.
            states: where the states of passages are kept; None: nowhere.
        """
        self._load = wire.Load(model_path, config, states)
        self._log_path = log_dir / "engine.log"
        self._on_restart = on_restart
        self._load_timeout_s = load_timeout_s
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._child: _Child | None = None
        self._reader: threading.Thread | None = None
        self._info: EngineInfo | None = None
        self._model_stamp: tuple[int, int] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the engine and wait until its model is loaded. Raises: ModelError if it cannot be loaded."""
        self.info()

    def info(self) -> EngineInfo:
        """What the engine found at its last start; starts it if need be. Raises: as `start`."""
        while True:
            with self._lock:
                if self._child and self._info:
                    return self._info
            self._call(wire.CountTokens([]), Priority.QUERY)  # anything: its answer comes after loading

    def embed(
        self,
        inputs: Sequence[EmbeddingInput],
        *,
        priority: Priority = Priority.INDEXING,
        timeout_s: float | None = None,
    ) -> NDArray[np.float32]:
        """Embed (instruction, text) pairs.

        Args:
            timeout_s: for embeddings that are of no use later; what is not done by then is dropped.
        Returns: float32[len(inputs), dimension], rows of length 1.
        Raises: RequestRefused if a text is empty or has no embedding, or if the engine died of it twice;
        ContextOverflow if an instruction leaves no room for its text; ModelError if the model cannot be loaded, or the
        time is over.
        """
        embeddings: NDArray[np.float32] = self._call(wire.Embed(list(inputs)), priority, timeout_s)
        return embeddings

    def embed_unless(
        self, inputs: Sequence[EmbeddingInput], is_stopped: Callable[[], bool]
    ) -> NDArray[np.float32] | None:
        """Embed for a person who waits, as `embed` does; None once `is_stopped()` is true."""
        found: NDArray[np.float32] | None = self._call(wire.Embed(list(inputs)), Priority.QUERY, is_stopped=is_stopped)
        return found

    def count_tokens(self, texts: Sequence[str], *, priority: Priority = Priority.QUERY) -> list[int]:
        """Length of each text in the model's tokens, without any frame. Raises: ModelError as `embed`."""
        counts: list[int] = self._call(wire.CountTokens(list(texts)), priority)
        return counts

    def count_prompt_tokens(self, turns: Sequence[Turn], cache: Cache = "auto") -> int:
        """Tokens of the whole chat frame of these turns. Raises: ModelError as `embed`."""
        return int(self._call(wire.CountPromptTokens(list(turns), cache), Priority.QUERY))

    def warm(self, passages: Sequence[str], cache: Cache = "auto", *, fills: bool = False) -> wire.Warmed:
        """Have the states of passages computed and kept that may be asked about, behind all other work.

        Args:
            passages: as grit_format.documents_turn takes them.
            cache: how they will be asked about.
            fills: end where the next state would remove another one.
        Raises: ModelError as `embed`.
        """
        warmed: wire.Warmed = self._call(wire.Warm(list(passages), cache, fills), Priority.IDLE)
        return warmed

    def stream(
        self,
        turns: Sequence[Turn],
        sampling: Sampling,
        *,
        is_stopped: Callable[[], bool] | None = None,
        cache: Cache = "auto",
    ) -> Iterator[str | Restarted]:
        """Generate the next turn, piece by piece, from the first `next()` on.

        Closing the iterator, or `is_stopped()` turning true, stops the engine within one token. A Restarted among
        the pieces voids those before it.

        Raises: ContextOverflow if the prompt does not fit; ModelError as `embed`.
        """
        pending = self._submit(wire.Stream(list(turns), sampling, cache), Priority.ANSWER)
        try:
            while not (is_stopped and is_stopped()):
                event = _next_event(pending, _POLL_S if is_stopped else 1.0)
                if isinstance(event, wire.Piece):
                    yield event.text
                elif isinstance(event, Restarted):
                    yield event
                elif isinstance(event, wire.Failed):
                    raise event.error
                elif isinstance(event, wire.Done):
                    return
        finally:
            self._withdraw(pending)

    def prefill(self, turns: Sequence[Turn], cache: Cache = "auto") -> None:
        """Have a prompt read while there is nothing else to do, for the `stream` that may begin like it.

        Returns at once. Only the last one counts, and none once a stream begins: what is not read by then is not read.
        One that fails says nothing.
        """
        self._submit(wire.Prefill(list(turns), cache), Priority.IDLE)

    def log_likelihoods(
        self, question: str, passages: Sequence[str], is_stopped: Callable[[], bool] | None = None
    ) -> list[float] | None:
        """Of each passage, the log probability of the question behind it; None once `is_stopped()` is true.

        Raises: RequestRefused where the model only embeds; ContextOverflow if the question does not fit; ModelError as
        `embed`.
        """
        found: list[float] | None = self._call(
            wire.ReadQuestion(question, list(passages)), Priority.QUERY, is_stopped=is_stopped
        )
        return found

    def close(self) -> None:
        """End the engine and whatever waits for it; calling it again does nothing."""
        with self._lock:
            self._is_closed = True
            child, reader = self._child, self._reader
        if child:
            child.close_stdin()
            try:
                child.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.process.kill()
        if reader and reader is not threading.current_thread():
            reader.join(timeout=10)  # it is a daemon: a person who quits never waits for it for good

    def __enter__(self) -> EngineHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- requests

    def _call(
        self,
        task: wire.Task,
        priority: Priority,
        timeout_s: float | None = None,
        *,
        is_stopped: Callable[[], bool] | None = None,
    ) -> Any:
        pending = self._submit(task, priority)
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not (is_stopped and is_stopped()):
                left_s = 1.0 if ends_at is None else ends_at - time.monotonic()
                if left_s <= 0:
                    raise ModelError(f"the engine did not answer within {timeout_s:g} s")
                event = _next_event(pending, min(_POLL_S if is_stopped else 1.0, left_s))
                if isinstance(event, wire.Done):
                    return event.value
                if isinstance(event, wire.Failed):
                    raise event.error
        finally:
            self._withdraw(pending)

    def _submit(self, task: wire.Task, priority: Priority) -> _Pending:
        pending = _Pending(wire.Request(next(self._numbers), priority, task))
        with self._lock:
            if self._is_closed:
                raise ModelError("the engine was closed")
            child = self._child or self._start_child()
            if isinstance(task, wire.Stream | wire.Prefill):
                self._forget_prefill()  # as the engine's schedule does
            self._pending[pending.request.number] = pending
        child.send(pending.request)
        return pending

    def _withdraw(self, pending: _Pending) -> None:
        """Forget a request; if it is not done, the engine need not go on with it."""
        with self._lock:
            is_unfinished = self._pending.pop(pending.request.number, None) is not None
            child = self._child
        if is_unfinished and child:
            child.send(wire.Cancel(pending.request.number))

    def _forget_prefill(self) -> None:
        """Await no prompt that is read ahead; the lock is held."""
        for number in [
            each for each, pending in self._pending.items() if isinstance(pending.request.task, wire.Prefill)
        ]:
            del self._pending[number]

    # ---------------------------------------------------------------- the process

    def _start_child(self) -> _Child:
        """Start a process and the thread that reads from it; the lock is held."""
        if self._model_stamp not in (None, self._stamp()):
            raise ModelError(
                f"the model {self._load.model_path} was changed while it was in use, and embeddings of two models "
                "must not be mixed; start gritdesk again"
            )
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}
        try:
            with _open_log(self._log_path) as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "gritdesk.engine.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            raise ModelError(f"cannot start the engine, or write its log {self._log_path}: {error}") from error
        child = _Child(process)
        self._child, self._info = child, None
        self._reader = threading.Thread(target=self._read_all, args=(child,), name="engine reader", daemon=True)
        self._reader.start()
        child.send(self._load)
        return child

    def _stamp(self) -> tuple[int, int]:
        return file_stamp(self._load.model_path)

    def _read_all(self, child: _Child) -> None:
        """Read one life's messages to the end; the body of the reading thread."""
        hung = threading.Timer(self._load_timeout_s, self._kill_hung, [child])
        hung.daemon = True
        hung.start()
        assert child.process.stdout
        try:
            while True:
                message = wire.read(child.process.stdout)  # type: ignore[arg-type]
                self._handle(child, message)
                if isinstance(message, wire.Loaded):
                    hung.cancel()
        except (EOFError, OSError):
            pass
        except Exception as error:  # a thread's edge: were it to end here, callers would wait forever
            child.load_error = ModelError(f"the engine's answers cannot be read ({error!r}); see {self._log_path}")
            child.process.kill()
        hung.cancel()
        child.close_stdin()
        child.process.wait()
        child.process.stdout.close()
        self._bury(child)

    def _handle(self, child: _Child, message: object) -> None:
        if isinstance(message, wire.Noticed) and self._on_restart:
            self._on_restart(message.notice)
        with self._lock:
            match message:
                case wire.Loaded(info):
                    child.is_loaded = True
                    self._info = info
                    self._model_stamp = self._stamp()
                case wire.LoadFailed(error):
                    child.load_error = error
                case wire.Working(number):
                    child.working_on = number
                case wire.Piece(number):
                    if number in self._pending:
                        self._pending[number].events.put(message)
                case wire.Done(number) | wire.Failed(number):
                    pending = self._pending.pop(number, None)
                    if pending:
                        pending.events.put(message)

    def _kill_hung(self, child: _Child) -> None:
        with self._lock:
            child.has_hung = not child.is_loaded
        if child.has_hung:
            child.process.kill()

    def _bury(self, child: _Child) -> None:
        """Settle what a process left behind: refuse requests, or start a new process for them."""
        cause = _cause_of_death(child.process.returncode)
        reason = f"the engine stopped ({cause}) and is started again"
        with self._lock:
            self._child = None
            self._forget_prefill()  # nobody waits for it, and it may be to blame
            refusal = self._refusal(child)
            if refusal:
                self._refuse(list(self._pending.values()), refusal)
            else:
                for pending in self._guilty_twice(child):
                    self._refuse([pending], self._guilty_error(pending, child, cause))
            restart = bool(self._pending)
            if restart:
                for pending in self._pending.values():
                    pending.events.put(Restarted(reason))
                self._restart()
        if self._on_restart and not refusal:
            self._on_restart(reason if restart else f"the engine stopped ({cause}); it starts again when it is needed")

    def _restart(self) -> None:
        """Start a process that gets all that is pending; the lock is held."""
        try:
            child = self._start_child()
        except ModelError as error:
            self._refuse(list(self._pending.values()), error)
            return
        # sending may wait for the other side, which may wait for this side to read, for which the lock is needed
        threading.Thread(target=self._resend, args=(child, list(self._pending.values())), daemon=True).start()

    def _resend(self, child: _Child, requests: Sequence[_Pending]) -> None:
        for pending in requests:
            if pending.request.number in self._pending:  # else withdrawn in the meantime
                child.send(pending.request)

    def _refusal(self, child: _Child) -> ModelError | None:
        """Why starting again would not help, if so."""
        if self._is_closed:
            return ModelError("the engine was closed")
        if child.has_hung:
            return ModelError(
                f"the engine did not load {self._load.model_path} within {self._load_timeout_s:.0f} s; "
                f"choose a smaller model by `gritdesk models use NAME`, or see {self._log_path}"
            )
        return child.load_error

    def _guilty_twice(self, child: _Child) -> list[_Pending]:
        for number, pending in self._pending.items():
            if not child.is_loaded or number == child.working_on:
                pending.num_deaths += 1
                pending.num_deaths_in_work += child.is_loaded
        return [pending for pending in self._pending.values() if pending.num_deaths >= _MAX_DEATHS]

    def _guilty_error(self, pending: _Pending, child: _Child, cause: str) -> ModelError:
        kind = RequestRefused if pending.num_deaths_in_work >= _MAX_DEATHS else ModelError
        what = "working on this request" if child.is_loaded else f"loading {self._load.model_path}"
        remedy = "" if child.is_loaded else f"; copy the file again, or {CHOOSE_MODEL}"
        return kind(f"the engine died twice and gave up {what} ({cause}); see {self._log_path}{remedy}")

    def _refuse(self, refused: Sequence[_Pending], error: ModelError) -> None:
        for pending in refused:
            del self._pending[pending.request.number]
            # one exception object per waiting thread: raising one adds its traceback
            pending.events.put(wire.Failed(pending.request.number, type(error)(str(error))))


@dataclass(frozen=True)
class CachingEngine:
    """The engine as an answer sees it that asks for a way of caching."""

    host: EngineHost
    cache: Cache

    def count_prompt_tokens(self, turns: Sequence[Turn]) -> int:
        """See EngineHost.count_prompt_tokens."""
        return self.host.count_prompt_tokens(turns, self.cache)

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[str | Restarted]:
        """See EngineHost.stream."""
        return self.host.stream(turns, sampling, is_stopped=is_stopped, cache=self.cache)

    def prefill(self, turns: Sequence[Turn]) -> None:
        """See EngineHost.prefill."""
        self.host.prefill(turns, self.cache)

    def embed(
        self, inputs: Sequence[EmbeddingInput], *, priority: Priority, timeout_s: float | None
    ) -> NDArray[np.float32]:
        """See EngineHost.embed."""
        return self.host.embed(inputs, priority=priority, timeout_s=timeout_s)


def _next_event(pending: _Pending, timeout_s: float) -> wire.Piece | wire.Done | wire.Failed | Restarted | None:
    """The next event, or None after a while, so that Ctrl-C gets through on every platform."""
    try:
        return pending.events.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _open_log(path: Path) -> IO[bytes]:
    """Open the log to append, a long one set aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        with contextlib.suppress(OSError):  # on Windows it cannot be moved while another engine writes it
            path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _cause_of_death(code: int) -> str:
    """A process's exit code in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
