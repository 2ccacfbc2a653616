"""The readers' own process: a file that hangs, crashes or floods the memory costs that file and nothing else.

`Reader` is this side, `python -m gritdesk.extract.worker` the other. They speak over pipes, each message four bytes
of length and JSON. JSON and not pickle, because the child reads files of unknown origin and its answers are not to
be trusted with more than being text. One child reads many files; after one that it did not survive, the next file
gets a new child.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import gritdesk
from gritdesk.errors import ExtractError, ReaderClosed
from gritdesk.records import Document, Section

_LENGTH = struct.Struct(">I")
_CLOSING = "gritdesk is closing; the file is read the next time"


class Reader:
    """Reads documents in a child process with limits; safe to call from several threads, one file at a time.

    Args:
        max_bytes: largest file that is read.
        timeout_s: time one file may take, the start of the child included.
        max_memory_mb: address space of the child; not enforced where the system has no such limit (Windows).
    """

    def __init__(self, max_bytes: int, *, timeout_s: float = 60.0, max_memory_mb: int = 2048) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        """Held while a file is read."""
        self._child_lock = threading.Lock()
        """Held only while the child is begun or killed, so that `close` need not wait for a file."""
        self._num_closing = 0

    def read(self, path: Path) -> Document:
        """The document of one file.

        Raises: ExtractError with the reason, also when the child did not survive the file; ReaderClosed if `close`
        is called meanwhile.
        """
        with self._lock:
            answer = self._answer({"path": str(path), "max_bytes": self._max_bytes})
        if "reason" in answer:
            raise ExtractError(answer["reason"])
        sections = tuple(
            Section(start, line, tuple(heading), page) for start, line, heading, page in answer["sections"]
        )
        return Document(path, answer["text"], answer["format"], sections)

    def close(self) -> None:
        """End the child, and with it reads under way; safe to call twice, and a later `read` starts a new one."""
        with self._child_lock:
            self._num_closing += 1
            if self._child is not None:
                self._child.kill()
        with self._lock:  # which is soon free
            self._end_child()
            with self._child_lock:
                self._num_closing -= 1

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._running_child()
        assert child.stdin is not None and child.stdout is not None
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(self._timeout_s, give_up)
        timer.daemon = True  # one that Ctrl+C left running would keep a person waiting at the end
        answer = None
        try:
            timer.start()
            _send(child.stdin, request)
            answer = _receive(child.stdout)
        except (OSError, ValueError):  # the pipe broke, or what came is no message
            pass
        finally:
            timer.cancel()
            if timer.ident is not None:  # Ctrl+C may come before it runs
                timer.join()
            if answer is None or timed_out.is_set():  # also on Ctrl+C: a late answer must not meet the next request
                self._end_child()
        if answer is not None:
            return answer
        if self._num_closing:
            raise ReaderClosed(_CLOSING)
        if timed_out.is_set():
            return {"reason": f"reading it took longer than {self._timeout_s:g} s"}
        return {"reason": f"reading it ended the reader ({_cause(child.returncode)}); the file may be damaged"}

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:  # somebody else ended it
            self._end_child()
        with self._child_lock:
            if self._num_closing:
                raise ReaderClosed(_CLOSING)
            if self._child is None:
                self._child = self._start_child()
            return self._child

    def _start_child(self) -> subprocess.Popen[bytes]:
        limits = [str(self._max_memory_mb), str(self._timeout_s)]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "gritdesk.extract.worker", *limits],  # -P: no modules from the cwd
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(_import_path())},
        )

    def _end_child(self) -> None:
        with self._child_lock:
            child, self._child = self._child, None
        if child is None:
            return
        child.kill()  # it holds nothing that would have to be saved
        with child:  # closes the pipes and waits
            pass


def _import_path() -> list[str]:
    here = str(Path(gritdesk.__path__[0]).parent)
    return [here, *filter(None, [os.environ.get("PYTHONPATH")])]


def _cause(return_code: int) -> str:
    if return_code >= 0:
        return f"exit code {return_code}"
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"


def _send(pipe: IO[bytes], message: dict[str, Any]) -> None:
    payload = json.dumps(message).encode()  # ASCII, so that names of any bytes pass
    pipe.write(_LENGTH.pack(len(payload)) + payload)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The next message; None at the end of the pipe."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    payload = pipe.read(length)
    if len(payload) < length:
        return None
    message: dict[str, Any] = json.loads(payload)
    return message


# ---------------------------------------------------------------- the child


def main(max_memory_mb: int, timeout_s: float) -> None:
    """Answer requests until stdin ends."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    _limit_memory(max_memory_mb)
    if sys.platform != "win32":
        os.nice(10)  # whatever a person does meanwhile comes first
    while (request := _receive(requests)) is not None:
        _end_after(timeout_s + 5)
        answer = _read(request)
        _end_after(0)
        _send(answers, answer)


def _read(request: dict[str, Any]) -> dict[str, Any]:
    from gritdesk.extract import read_document

    try:
        document = read_document(Path(request["path"]), request["max_bytes"])
    except ExtractError as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"reason": "reading it takes more memory than a document should"}
    except Exception as error:  # the worker's edge: whatever a library raises is this file's failure
        return {"reason": " ".join(f"it could not be read ({type(error).__name__}: {error})".split())}
    sections = [[each.start, each.line, each.heading, each.page] for each in document.sections]
    return {"text": document.text, "format": document.format, "sections": sections}


def _limit_memory(max_memory_mb: int) -> None:
    if sys.platform != "win32":
        import resource

        limit = max_memory_mb * 1_000_000
        try:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        except (ValueError, OSError):  # macOS refuses; the time limit still holds
            pass


def _end_after(seconds: float) -> None:
    """Have the system end this process, even inside a library, when its parent is not there to do it; 0 is never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
