"""The engine's process: `python -m gritdesk.engine.worker`, requests on stdin, answers on stdout (see wire.py).

The main thread alone calls llama.cpp. It works in steps of one batch or one token, and before each step the most
urgent request is chosen anew, so nobody waits longer than a step of somebody less urgent. A second thread reads
the pipe; when the app is gone the pipe ends, and so does this process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import numpy as np

from gritdesk.engine import wire
from gritdesk.engine.wire import Priority
from gritdesk.errors import ModelError, RequestRefused

if TYPE_CHECKING:
    from gritdesk.engine.embedder import Embedder
    from gritdesk.engine.generator import Generator
    from gritdesk.engine.states import StateSettings

_COUNT_CHARS = 16_000
"""Characters tokenized in one step: a few milliseconds."""
_NICENESS = 5
"""Who types comes first: while files are indexed, results by words take a fifth longer without it."""


class Job:
    """A request and how far it has come."""

    def __init__(self, request: wire.Request) -> None:
        self.number = request.number
        self.priority = request.priority
        self.task = request.task
        self.steps: Iterator[None] | None = None
        self.is_cancelled = False


class Schedule:
    """Which job makes the next step; filled by one thread, emptied by another.

    Answers come before queries, queries before indexing, and what may never be asked for after all of them; but while
    an answer is written a waiting query is let in after every step. Answers are written one after the other, since they
    share one KV cache; others take turns. A prompt read ahead lies in that cache, too: it is given up, however far it
    has come, for an answer and for another one.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._waiting: dict[Priority, deque[Job]] = {priority: deque() for priority in Priority}
        self._changed = threading.Condition()
        self._last: Priority | None = None

    def add(self, request: wire.Request) -> None:
        """Put a new job behind those of its priority."""
        job = Job(request)
        with self._changed:
            if isinstance(job.task, wire.Stream | wire.Prefill):
                for each in self._jobs.values():
                    each.is_cancelled |= isinstance(each.task, wire.Prefill)
            self._jobs[job.number] = job
            self._waiting[job.priority].append(job)
            self._changed.notify()

    def cancel(self, number: int) -> None:
        """Mark a job as no longer wanted; one that is done already is left alone."""
        with self._changed:
            job = self._jobs.get(number)
            if job:
                job.is_cancelled = True

    def take(self) -> Job:
        """Wait for a job and take the most urgent out, for one step."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._waiting.values()))
            order = sorted(Priority)
            if self._last is Priority.ANSWER and self._waiting[Priority.QUERY]:
                order = [Priority.QUERY]
            self._last = next(each for each in order if self._waiting[each])
            return self._waiting[self._last].popleft()

    def put_back(self, job: Job) -> None:
        """Return a job that has made a step and is not done."""
        with self._changed:
            if job.priority is Priority.ANSWER:
                self._waiting[job.priority].appendleft(job)
            else:
                self._waiting[job.priority].append(job)

    def forget(self, job: Job) -> None:
        """Do not return a job: it is done, failed or cancelled."""
        with self._changed:
            del self._jobs[job.number]


class Worker:
    """Serves the jobs of a schedule with one loaded model."""

    def __init__(
        self, schedule: Schedule, embedder: Embedder, generator: Generator | None, send: Callable[[object], None]
    ) -> None:
        """Arguments: `generator` is None where the model only embeds."""
        self._schedule = schedule
        self._embedder = embedder
        self._generator = generator
        self._send = send
        self._working_on: int | None = None

    def serve(self) -> None:
        """Make steps, forever."""
        while True:
            job = self._schedule.take()
            if not job.is_cancelled and self._makes_step(job):
                self._schedule.put_back(job)
            else:
                self._schedule.forget(job)

    def _makes_step(self, job: Job) -> bool:
        """Make one step of a job; False when it has ended, well or not."""
        if self._working_on != job.number:
            self._working_on = job.number
            self._send(wire.Working(job.number))
        if job.steps is None:
            job.steps = self._steps(job)
        try:
            next(job.steps)
            return True
        except StopIteration:
            return False
        except ModelError as error:
            self._send(wire.Failed(job.number, error))
        except Exception as error:  # a worker's edge: the app gets a reason, the log the place
            sys.excepthook(type(error), error, error.__traceback__)
            reason = f"the engine failed: {type(error).__name__}: {error}; its log tells where"
            self._send(wire.Failed(job.number, RequestRefused(reason)))
        return False

    def _steps(self, job: Job) -> Iterator[None]:
        match job.task:
            case wire.Embed(inputs):
                embeddings = np.zeros((len(inputs), self._embedder.dimension), dtype=np.float32)
                for numbers, rows in self._embedder.embed_steps(inputs):
                    embeddings[numbers] = rows
                    yield
                self._send(wire.Done(job.number, embeddings))
            case wire.CountTokens(texts):
                counts: list[int] = []
                for some in _slices(texts):
                    counts += self._embedder.count_tokens(some)
                    yield
                self._send(wire.Done(job.number, counts))
            case wire.CountPromptTokens(turns, cache):
                self._send(wire.Done(job.number, self._writer().count_prompt_tokens(turns, cache)))
            case wire.Warm(passages, cache, fills):
                new: list[bool] = []
                for is_new in self._writer().warm_steps(passages, cache, fills=fills):
                    new.append(is_new)
                    yield
                self._send(wire.Done(job.number, wire.Warmed(sum(new), len(new) < len(passages))))
            case wire.Stream(turns, sampling, cache):
                for piece in self._writer().steps(turns, sampling, lambda: job.is_cancelled, cache):
                    if piece:
                        self._send(wire.Piece(job.number, piece))
                    yield
                self._send(wire.Done(job.number, None))
            case wire.Prefill(turns, cache):
                yield from self._writer().prefill_steps(turns, cache)
                self._send(wire.Done(job.number, None))
            case wire.ReadQuestion(question, passages):
                found: list[float] = []
                for passage in passages:
                    found.append(self._writer().log_likelihood(question, passage))
                    yield
                self._send(wire.Done(job.number, found))

    def _writer(self) -> Generator:
        """Raises: RequestRefused where the model only embeds."""
        if self._generator is None:
            raise RequestRefused(wire.ONLY_EMBEDS)
        return self._generator


def main() -> None:
    """Load the model, then serve until the app is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which ends this process in its own order
    faulthandler.enable()
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever native libraries print goes to the log
    if sys.platform != "win32":
        os.nice(_NICENESS)

    def send(message: object) -> None:
        try:
            wire.write(answers, message)
        except OSError:
            os._exit(0)  # the app is gone

    try:
        load: wire.Load = wire.read(requests)
    except EOFError:
        return
    schedule = Schedule()
    threading.Thread(target=_receive_all, args=(requests, schedule), daemon=True).start()
    try:
        embedder, generator, info = _load(load, lambda notice: send(wire.Noticed(notice)))
    except ModelError as error:
        _give_up(send, error)
    except Exception as error:  # a worker's edge: a broken installation shows here
        sys.excepthook(type(error), error, error.__traceback__)
        _give_up(send, ModelError(f"the engine cannot start: {type(error).__name__}: {error}"))
    send(wire.Loaded(info))
    Worker(schedule, embedder, generator, send).serve()


def _give_up(send: Callable[[object], None], error: ModelError) -> NoReturn:
    send(wire.LoadFailed(error))
    sys.stderr.flush()
    os._exit(1)  # an ordinary exit would wait for the thread that reads stdin


def _load(load: wire.Load, on_notice: Callable[[str], None]) -> tuple[Embedder, Generator | None, wire.EngineInfo]:
    from gritdesk.engine.embedder import Embedder
    from gritdesk.engine.generator import Generator
    from gritdesk.engine.llama import LlamaModel, system_info
    from gritdesk.engine.self_test import self_test
    from gritdesk.engine.states import StateStore

    started = time.perf_counter()
    config = load.config
    model = LlamaModel(load.model_path, n_gpu_layers=config.n_gpu_layers)
    embedder = Embedder(model, batch_tokens=config.batch_tokens, n_threads=config.n_threads)
    generator = None
    if model.grit.generates:
        generator = Generator(
            model,
            n_ctx=config.n_ctx,
            n_threads=config.n_threads,
            kv_type=config.kv_type,
            block_tokens=embedder.context.batch_tokens,
        )
        if (kept := load.states) is not None and not _is_of(kept, load.model_path):
            print(f"no states are kept: {load.model_path} is another file since gritdesk started", file=sys.stderr)
        elif kept is not None:
            fingerprint = f"{kept.identity}/{generator.context.state_format}"
            generator.keep_states_in(StateStore(kept.folder, kept.max_bytes, fingerprint, on_notice))
    measured = self_test(model, embedder.context, generator.context if generator else None)
    info = wire.EngineInfo(
        model_path=load.model_path,
        dimension=embedder.dimension,
        n_ctx=generator.n_ctx if generator else 0,
        max_text_tokens=embedder.context.max_tokens,
        markers=model.grit.markers,
        description=model.description,
        system=system_info(),
        pid=os.getpid(),
        self_test={**measured, "load_s": time.perf_counter() - started},
        passages=model.grit.passages,
        on_gpu=model.on_gpu,
    )
    return embedder, generator, info


def _is_of(kept: StateSettings, model_path: Path) -> bool:
    """Whether the file that was loaded is the one whose identity names its states."""
    from gritdesk.engine.states import file_stamp

    return file_stamp(model_path) == kept.stamp


def _receive_all(requests: BinaryIO, schedule: Schedule) -> None:
    with contextlib.suppress(EOFError):
        while True:
            message = wire.read(requests)
            if isinstance(message, wire.Cancel):
                schedule.cancel(message.number)
            else:
                schedule.add(message)
    os._exit(0)  # at once, even in the middle of a batch: nobody is left to read the rest


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    num_chars = 0
    for text in texts:
        some.append(text)
        num_chars += len(text)
        if num_chars >= _COUNT_CHARS:
            yield some
            some, num_chars = [], 0
    yield some


if __name__ == "__main__":
    main()
