"""Words to a terminal or a pipe, and signals from them: what every command shares."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")


def shown(text: str, keep: str = "") -> str:
    """Text for one line of a terminal: what would steer it, end the line or not be encoded becomes an escape."""
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    plain = "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def print_json(value: Any) -> None:
    """Print one value on one line of stdout."""
    # names of files may hold bytes that are no UTF-8; escaped they survive any pipe
    click.echo(json.dumps(value, ensure_ascii=True))


def say(line: str) -> None:
    """Print a note on stderr."""
    click.echo(line, err=True)


def rewrite_line(line: str = "") -> None:
    """Put a note in place of the one before on a terminal's stderr; into a pipe nothing."""
    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line[:78]}", nl=False, err=True)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl+C or a polite kill sets, for work to end where nothing is lost; a second one ends it now."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with _handled(on_signal):
        yield stop


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let Ctrl+C and a polite kill raise KeyboardInterrupt, for work inside a library that looks for no event.

    Only the first one does: an impatient second one would break off what the first one has cleared away.
    """
    is_interrupted = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if not is_interrupted.is_set():
            is_interrupted.set()
            raise KeyboardInterrupt

    with _handled(on_signal):
        yield


@contextmanager
def _handled(on_signal: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def in_words(seconds: float) -> str:
    """A length of time as people say it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


LEAST_OF_ESTIMATE, MOST_OF_ESTIMATE = 0.75, 1.5
"""What a trial of some seconds tells is right within these; benchmarks/estimates.py holds it against the time."""


def about(seconds: float) -> str:
    """A length of time that a trial told, as the range it may be: "about 12 to 23 min"."""
    if seconds * MOST_OF_ESTIMATE < 2:
        return "about 1 s"
    least, most = in_words(seconds * LEAST_OF_ESTIMATE), in_words(seconds * MOST_OF_ESTIMATE)
    number, unit = least.split(" ")
    if least == most:
        return f"about {most}"
    return f"about {number if most.endswith(f' {unit}') else least} to {most}"
