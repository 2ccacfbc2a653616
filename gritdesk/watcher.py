"""Folders -> batches of changed paths: events gathered until it is quiet, filtered by the rules of a walk.

An event is a hint: it says that a path may have changed, never how; the indexer looks for itself. Not reported are
hidden and ignored files (editors' own files are mostly those), folders that vanish with their disk, and reading. Where
hints are too many to be counted, or the system gives none, the whole folder is reported instead, and walked.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.walking import IGNORE_FILES, Walk, is_folder

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

_LOOK_AT_FOLDERS_S = 2.0
"""A folder that went, came back or was mounted anew is noticed within this time."""
_POLL_EVERY_S = 30.0
"""A folder of which the system tells nothing is walked this often."""
_LONGEST_BATCH = 20
"""A folder that never comes to rest is reported after this many debounce times."""
_MAX_PATHS = 5000
"""More than these in one batch are reported as their folder: a system that tells of so many also drops some."""
_CHANGES = frozenset({"created", "deleted", "modified", "moved", "closed"})
"""Of watchdog's events; opening and reading a file are others, and the indexer causes those itself."""


@dataclass
class _Watched:
    """One folder: what tells its changes, and the rules that say which of them count."""

    walk: Walk
    identity: tuple[int, int] | None
    """Device and number of the folder that is observed; None while it is not there."""
    observer: BaseObserver | None
    """None where the folder is looked at in turn instead."""


class Changes:
    """Changed files, folders and paths that are gone, told from `with` on, so that a sweep within it misses nothing.

    A folder stands for all that it holds and held: it may have gone, and another of its name come.

    Use it from one thread.

    Args:
        debounce_ms: a batch ends when nothing happened for so long.
        on_notice: called with one line when the system's limit of watches forces a slower way.
        home: of gritdesk, as Walk has it.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        debounce_ms: int = 500,
        *,
        on_notice: Callable[[str], None] = lambda notice: None,
        home: Path | None = None,
    ) -> None:
        self._debounce_s = debounce_ms / 1000
        self._on_notice = on_notice
        self._home = home
        self._events: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._watched: dict[Path, _Watched] = {}
        self._paths: set[Path] = set()
        self._whole: set[Path] = set()
        """Folders to be reported as they are, for all that they hold."""
        self._first_at = self._last_at = 0.0
        self._looked_at = self._polled_at = time.monotonic()
        self._folders = list(folders)

    def __enter__(self) -> Changes:
        # what the library logs would be printed into the terminal UI
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        try:
            for folder in self._folders:
                self._watched[folder] = self._watch(folder)
        except BaseException:
            self._end(self._watched.values())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._watched.values())

    def follow(self, folders: Sequence[Path]) -> None:
        """Watch these folders from now on; one that is new is reported as a whole."""
        for folder in [each for each in self._watched if each not in folders]:
            self._end([self._watched.pop(folder)])
            self._whole.discard(folder)
        for folder in folders:
            if folder not in self._watched:
                self._watched[folder] = self._watch(folder)
                self._note_whole([folder])

    def wait(self, timeout_s: float) -> set[Path]:
        """The next batch; empty if there is none within so long."""
        give_up_at = time.monotonic() + timeout_s
        while not (batch := self.ready()):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                break
            is_gathering = bool(self._paths or self._whole)
            self.gather(min(left_s, self._debounce_s if is_gathering else _LOOK_AT_FOLDERS_S))
        return batch

    def ready(self) -> set[Path]:
        """The batch that is complete now, empty if there is none; never waits."""
        self.gather()
        self._look_at_folders()
        now = time.monotonic()
        is_quiet = now - self._last_at >= self._debounce_s
        if not (self._paths or self._whole) or not (
            is_quiet or now - self._first_at >= _LONGEST_BATCH * self._debounce_s
        ):
            return set()
        return self._batch()

    def gather(self, timeout_s: float = 0) -> None:
        """Note all events that are there; wait for the first of them at most so long.

        Whoever does not want a batch for a long while calls this now and then: the notes stay few, events pile up.
        """
        try:
            self._note(self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait())
            for _ in range(self._events.qsize()):
                self._note(self._events.get_nowait())
        except queue.Empty:
            pass

    # ------------------------------------------------------------ gathering

    def _note(self, path: Path) -> None:
        for folder, watched in self._watched.items():
            if folder not in path.parents:
                continue
            if path.name in IGNORE_FILES:
                # other files may be documents now, wherever they are; a listed folder within has rows of its own
                self._note_whole(each for each in self._watched if folder in (each, *each.parents))
            elif not watched.walk.skips(path):
                self._note_times()
                self._paths.add(path)
        if len(self._paths) > _MAX_PATHS:
            self._note_whole(self._watched)

    def _note_whole(self, folders: Iterable[Path]) -> None:
        self._note_times()
        self._whole.update(folders)
        for folder in self._whole:
            self._watched[folder].walk = Walk(folder, self._home)
        self._paths = {path for path in self._paths if self._whole.isdisjoint(path.parents)}

    def _note_times(self) -> None:
        self._last_at = time.monotonic()
        if not (self._paths or self._whole):
            self._first_at = self._last_at

    def _batch(self) -> set[Path]:
        """What was gathered; begins to gather anew."""
        paths, whole, self._paths, self._whole = self._paths, self._whole, set(), set()
        for folder, watched in self._watched.items():
            watched.walk = Walk(folder, self._home)
        there = {folder: each.walk for folder, each in self._watched.items() if is_folder(folder)}
        changed_paths = {folder for folder in whole if folder in there}  # one that is not there keeps its rows
        for path in paths:
            for folder, walk in there.items():
                if folder in path.parents and folder not in changed_paths and not walk.skips(path):
                    changed_paths.add(path)
        return changed_paths

    # ------------------------------------------------------------ folders

    def _look_at_folders(self) -> None:
        """Report folders that are not those they were, and now and then those of which nothing is told."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_AT_FOLDERS_S:
            return
        self._looked_at = now
        for folder, watched in list(self._watched.items()):
            if _identity(folder) != watched.identity:
                self._end([watched])
                self._watched[folder] = self._watch(folder)
                self._note_whole([folder])
        if now - self._polled_at >= _POLL_EVERY_S:
            self._polled_at = now
            self._note_whole(folder for folder, each in self._watched.items() if each.identity and not each.observer)

    def _watch(self, folder: Path) -> _Watched:
        identity = _identity(folder)
        observer = None
        if identity:
            try:
                observer = _started(folder, self._events)
            except OSError as error:
                self._on_notice(_notice(folder, error))
        return _Watched(Walk(folder, self._home), identity, observer)

    def _end(self, watched: Iterable[_Watched]) -> None:
        observers = [each.observer for each in watched if each.observer]
        for observer in observers:
            observer.stop()
        for observer in observers:
            observer.join()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


# ---------------------------------------------------------------- the door to watchdog


def _started(folder: Path, events: queue.SimpleQueue[Path]) -> BaseObserver:
    """Have the system tell of changes below a folder. Raises: OSError where it refuses."""
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers import Observer

    real_folder = folder.resolve()  # some systems tell of real paths only, whatever was asked for

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in _CHANGES and not (event.is_directory and event.event_type == "modified"):
                for name in (event.src_path, event.dest_path) if event.dest_path else (event.src_path,):
                    path = Path(os.fsdecode(name))
                    if real_folder == path or real_folder in path.parents:
                        events.put(folder / path.relative_to(real_folder))

    # of a folder that went and came while it was looked at, which is no news to a person
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
    observer = Observer()
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
