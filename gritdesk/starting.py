"""The moment before anything is begun: Ctrl+C ends the program then without a word, as there is nothing to clear away.

Imports take some tenths of a second, and a KeyboardInterrupt out of one of them would be a traceback, or in the midst
of a command a word about what was not even begun.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit code by which shells name an end by Ctrl+C."""


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """End the process at Ctrl+C; where that is handled otherwise or ignored as in a shell's background, so it stays."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
