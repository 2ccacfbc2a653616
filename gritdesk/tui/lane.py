"""One kind of call to the Desk at a time, in a thread; of reads that come meanwhile only the last is made.

Typing is faster than searching: without this, every key would hold a thread for an answer nobody wants any more.
Acts are made one after the other, and all of them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from textual.dom import DOMNode
from textual.message import Message

from gritdesk.errors import GritDeskError
from gritdesk.tui.app_log import where_logged
from gritdesk.tui.messages import CallFailed, OnFailure

Call = Callable[[], Message | None]


class Lane:
    """Runs calls in thread workers of `owner` and posts what they return to it.

    Args: most_waiting: so many calls wait, and those before them are left out; None: all wait, as acts must.
    """

    def __init__(self, owner: DOMNode, name: str, *, most_waiting: int | None = 1) -> None:
        self._owner = owner
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Call, OnFailure]] = deque(maxlen=most_waiting)
        self._is_running = False

    def submit(self, call: Call, on_failure: OnFailure = CallFailed) -> None:
        """Run `call` as soon as those before it are through, in place of the first that waits if there are too many.

        `on_failure` makes the message that is posted when it raises.
        """
        with self._lock:
            self._waiting.append((call, on_failure))
            if self._is_running:
                return
            self._is_running = True
        self._owner.run_worker(self._drain, group=self._name, thread=True, exit_on_error=False)

    def clear(self) -> None:
        """Forget the calls that wait."""
        with self._lock:
            self._waiting.clear()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                waiting = self._waiting.popleft()
            message = _outcome(*waiting)
            if message is not None:
                self._owner.post_message(message)


def problem_of(error: Exception) -> str:
    """One line for a person; an error that is our own mistake goes to the log with its traceback."""
    if isinstance(error, GritDeskError):
        return str(error)
    logging.getLogger(__name__).error("unexpected error", exc_info=error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {what}; this is a mistake in gritdesk, please report it{where_logged()}"


def _outcome(call: Call, on_failure: OnFailure) -> Message | None:
    try:
        return call()
    except Exception as error:  # a worker's edge: nothing may kill the app
        return on_failure(problem_of(error))
