"""Folders -> batches of changed paths: events gathered until it is quiet, filtered by the rules of a walk.

An event is a hint: it says that a path may have changed, never how; the indexer looks for itself. Not reported are
hidden and ignored files (editors' own files are mostly those), folders that vanish with their disk, and reading.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.walking import IGNORE_FILES, Walk

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

_LOOK_AT_STOP_S = 0.2
_POLL_EVERY_S = 10.0
_LONGEST_BATCH = 20
"""A folder that never comes to rest is reported after this many debounce times."""
_CHANGES = frozenset({"created", "deleted", "modified", "moved", "closed"})
"""Of watchdog's events; opening and reading a file are others, and the indexer causes those itself."""


def watch(
    folders: Sequence[Path],
    stop: threading.Event,
    debounce_ms: int = 500,
    *,
    on_notice: Callable[[str], None] = lambda notice: None,
    timeout_s: float | None = None,
    home: Path | None = None,
) -> Iterator[set[Path]]:
    """Changed files, folders and paths that are gone, one batch at a time, until `stop` is set.

    The first batch is empty and comes as soon as the folders are watched: a sweep at that moment, however long,
    misses nothing.

    Args:
        debounce_ms: a batch ends when nothing happened for so long.
        on_notice: called with one line when the system's limit of watches forces a slower way.
        timeout_s: yield an empty batch when nothing changed for so long; None: wait on.
        home: of gritdesk, as Walk has it.
    """
    events: queue.SimpleQueue[Path] = queue.SimpleQueue()
    with _observed([folder for folder in folders if folder.is_dir()], events, on_notice):
        yield set()
        quiet_since = time.monotonic()
        while not stop.is_set():
            paths = _next_batch(events, stop, debounce_ms / 1000)
            changed_paths = _filtered(paths, folders, home)
            if changed_paths or (timeout_s is not None and time.monotonic() - quiet_since >= timeout_s):
                yield changed_paths
                quiet_since = time.monotonic()


def _next_batch(events: queue.SimpleQueue[Path], stop: threading.Event, debounce_s: float) -> set[Path]:
    """Paths of all events until none came for `debounce_s`; empty if none came for a moment."""
    try:
        paths = {events.get(timeout=_LOOK_AT_STOP_S)}
    except queue.Empty:
        return set()
    give_up_at = time.monotonic() + _LONGEST_BATCH * debounce_s
    while time.monotonic() < give_up_at and not stop.is_set():
        try:
            paths.add(events.get(timeout=debounce_s))
        except queue.Empty:
            break
    return paths


def _filtered(paths: Iterable[Path], folders: Sequence[Path], home: Path | None = None) -> set[Path]:
    """The paths that a walk of their folder would find, or would have found; folders as the files they hold."""
    changed_paths: set[Path] = set()
    walks = {
        folder: Walk(folder, home) for folder in folders if folder.is_dir()
    }  # one that is not there keeps its rows
    for path in paths:
        for folder, walk in walks.items():
            if path != folder and folder not in path.parents:
                continue
            if path.name in IGNORE_FILES:
                # other files may be documents now, wherever they are; a listed folder within has rows of its own
                changed_paths.update(each for each in walks if folder in (each, *each.parents))
            elif path != folder and not walk.skips(path):
                changed_paths.update((found for found, _ in walk.files_under(path)) if path.is_dir() else [path])
    return changed_paths


# ---------------------------------------------------------------- the door to watchdog


@contextmanager
def _observed(
    folders: Sequence[Path], events: queue.SimpleQueue[Path], on_notice: Callable[[str], None]
) -> Iterator[None]:
    """Have the system tell of changes while the context lasts; where it refuses, look at the folders in turn."""
    from watchdog.observers import Observer
    from watchdog.observers.polling import PollingObserver

    observers: list[BaseObserver] = []
    try:
        for folder in folders:
            try:
                observers.append(_started(Observer(), folder, events))
            except OSError as error:
                on_notice(_notice(folder, error))
                observers.append(_started(PollingObserver(timeout=_POLL_EVERY_S), folder, events))
        yield
    finally:
        for observer in observers:
            observer.stop()
        for observer in observers:
            observer.join()


def _started(observer: BaseObserver, folder: Path, events: queue.SimpleQueue[Path]) -> BaseObserver:
    from watchdog.events import FileSystemEventHandler

    real_folder = folder.resolve()  # some systems tell of real paths only, whatever was asked for

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in _CHANGES and not (event.is_directory and event.event_type == "modified"):
                for name in (event.src_path, event.dest_path) if event.dest_path else (event.src_path,):
                    path = Path(os.fsdecode(name))
                    if real_folder == path or real_folder in path.parents:
                        events.put(folder / path.relative_to(real_folder))

    observer.schedule(Handler(), str(real_folder), recursive=True)
    try:
        observer.start()
    except BaseException:
        observer.unschedule_all()  # ends what was begun for it
        raise
    return observer


def _notice(folder: Path, error: OSError) -> str:
    slower = f"{folder} is looked at every {_POLL_EVERY_S:.0f} s instead"
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        return (
            f"the system's limit of watched folders is reached, {slower}; raise fs.inotify.max_user_watches to mend it"
        )
    return f"changes of {folder} cannot be watched ({error.strerror or error}), {slower}"
