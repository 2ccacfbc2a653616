"""Who keeps the index up, and when that waits: a lock, a person's pause, the battery, quiet mode.

One process indexes, under a lock that the system itself releases after a crash. The lock decides; a note beside it
only tells who holds it, and that of a process that is no more counts for nothing.

A pause is a file in the home, at which every process that indexes looks between two files and two slices; so it holds
for a watcher in another process, and across crashes and restarts, until `gritdesk resume` or its time is over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gritdesk.config import Config, IndexConfig, load_config, written_at
from gritdesk.errors import ConfigError, StoreBusy, StoreError

_LOOK_EVERY_S = 0.5
_LOOK_AT_BATTERY_EVERY_S = 10.0
_ASK_SERVER_EVERY_S = 60.0
"""One that embeds, while it is away."""
_REST = 2.0
"""Quiet mode rests so many times as long as it worked."""
_NICENESS = 10


# ---------------------------------------------------------------- who


@dataclass(frozen=True)
class Keeper:
    """The process that indexes now."""

    pid: int
    since: float
    """Seconds since 1970."""
    watches: bool
    """Whether it stays, and keeps the index up with every change."""

    def __str__(self) -> str:
        return f"process {self.pid}, {'watching' if self.watches else 'indexing'} since {clock_time(self.since)}"


@contextmanager
def index_lock(config: Config, *, watches: bool) -> Iterator[None]:
    """Be the one process that indexes. Raises: StoreBusy if another one is; StoreError if nothing can be locked."""
    from filelock import FileLock, Timeout

    lock = FileLock(config.lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        keeper = find_keeper(config)
        who = f" ({keeper})" if keeper else ""
        raise StoreBusy(f"another gritdesk is indexing {config.home}{who}; wait for it, or close it") from None
    except OSError as error:
        raise StoreError(f"cannot lock {config.lock_path}: {error.strerror}; may you write there?") from error
    try:
        _note(config, watches)
        yield
    finally:
        with suppress(OSError):
            config.keeper_path.unlink(missing_ok=True)
        lock.release()


def find_keeper(config: Config) -> Keeper | None:
    """The process that indexes now, if there is one and it could note so."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(config.keeper_path.read_text(encoding="utf-8"))
        if _started_at(int(values["pid"])) == values["started_at"]:
            return Keeper(int(values["pid"]), float(values["since"]), bool(values["watches"]))
    return None


def _note(config: Config, watches: bool) -> None:
    pid = os.getpid()
    note = {"pid": pid, "started_at": _started_at(pid), "since": time.time(), "watches": watches}
    with suppress(OSError):  # on a full disk there is no note; the lock holds all the same
        write_whole(config.keeper_path, json.dumps(note))


# ---------------------------------------------------------------- when


@dataclass(frozen=True)
class Pause:
    since: float
    """Seconds since 1970, as `until`."""
    until: float | None = None
    """None: until a person ends it."""

    def __str__(self) -> str:
        until = f"until {clock_time(self.until)}" if self.until else "until `gritdesk resume`"
        return f"paused since {clock_time(self.since)}, {until}"


def pause(config: Config, for_s: float | None = None) -> Pause:
    """Have every process that indexes wait, for so long or until `resume`.

    Raises: ConfigError if that cannot be noted.
    """
    now = time.time()
    made = Pause(now, None if for_s is None else now + for_s)
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        write_whole(config.pause_path, json.dumps({"since": made.since, "until": made.until}))
    except OSError as error:
        raise ConfigError(f"cannot write {config.pause_path}: {error.strerror}; may you write there?") from error
    return made


def resume(config: Config) -> bool:
    """End the pause; False if there was none. Raises: ConfigError if its file cannot be removed."""
    was_paused = find_pause(config) is not None
    try:
        config.pause_path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot remove {config.pause_path}: {error.strerror}; may you write there?") from error
    return was_paused


def find_pause(config: Config) -> Pause | None:
    """The pause that holds now; one whose file cannot be read holds until it is ended."""
    try:
        written = config.pause_path.stat().st_mtime
    except OSError:
        return None
    found = Pause(written)
    with suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(config.pause_path.read_text(encoding="utf-8"))
        found = Pause(float(values["since"]), None if values["until"] is None else float(values["until"]))
    return None if found.until is not None and time.time() >= found.until else found


def may_work_ahead(config: Config) -> bool:
    """Whether work that nobody has asked for may be done: not in a pause, and on battery only where settings say so."""
    return find_pause(config) is None and (config.index.on_battery == "go on" or not on_battery())


class Pace:
    """Tells index work when to wait; asked between two files and two slices.

    What config.toml says of it counts as soon as it is written, by whatever process.

    Args:
        on_notice: called with one line when work begins to wait.
        is_awaited: a person waits for this work, so that battery and quiet mode are no reasons to hold it back, unless
            quiet mode was switched on since.
    """

    def __init__(self, config: Config, on_notice: Callable[[str], None], *, is_awaited: bool = False) -> None:
        self._config = config
        self._on_notice = on_notice
        self._is_awaited = is_awaited
        self._reason = ""
        self._told = ""
        self._looked_at = self._battery_looked_at = self._worked_since = float("-inf")
        self._is_on_battery = False
        self._config_looked_at = time.monotonic()
        self._config_read = written_at(config)
        self._was_quieted = False
        """Since it began: a person who is in a hurry does not do that."""
        self._meaning_waits_until = float("-inf")
        self._server_is_away = False

    @property
    def _settings(self) -> IndexConfig:
        now = time.monotonic()
        if now - self._config_looked_at >= _LOOK_EVERY_S:
            self._config_looked_at = now
            if (written := written_at(self._config)) != self._config_read:
                self._config_read, was_quiet = written, self._config.index.quiet
                with suppress(ConfigError):  # half written by a person: it is read again when it is whole
                    self._config = load_config(self._config.home)
                self._was_quieted = self._was_quieted or (self._config.index.quiet and not was_quiet)
        return self._config.index

    def holds(self) -> bool:
        """Whether all work is to wait now. The first answer after a change tells why."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._reason = self._find_reason()
            if self._reason not in ("", self._told):
                self._on_notice(self._reason)
            self._told = self._reason
        return bool(self._reason)

    def embeds(self) -> bool:
        """Whether meaning is worked on now, besides words."""
        if time.monotonic() < self._meaning_waits_until:
            return False
        return self._is_awaited or self._settings.on_battery != "words only" or not self._on_battery()

    def put_off_meaning(self, reason: str) -> None:
        """Work on words alone for a while, because of a server that does not answer; said once until it does."""
        self._meaning_waits_until = time.monotonic() + _ASK_SERVER_EVERY_S
        if not self._server_is_away:
            self._server_is_away = True
            self._on_notice(
                f"{reason}; until it answers, files are found by words, and it is asked every "
                f"{_ASK_SERVER_EVERY_S:.0f} s"
            )

    def resume_meaning(self) -> None:
        """The server answers: the next time that it does not is news again."""
        self._server_is_away = False

    def rest(self, is_stopped: Callable[[], bool]) -> None:
        """In quiet mode, rest after a slice of work; otherwise nothing."""
        began_at = time.monotonic()
        rest_s = min(_REST * (began_at - self._worked_since), 10.0) if self._worked_since > 0 else 0.0
        while self._is_to_rest() and time.monotonic() < began_at + rest_s and not is_stopped():
            time.sleep(min(0.1, rest_s))
        self._worked_since = time.monotonic()

    def _is_to_rest(self) -> bool:
        return self._settings.quiet and (self._was_quieted or not self._is_awaited)

    def _find_reason(self) -> str:
        paused = find_pause(self._config)
        if paused:
            return f"indexing is {paused}"
        if not self._is_awaited and self._settings.on_battery == "pause" and self._on_battery():
            return "indexing waits for mains, as index.on_battery says"
        return ""

    def _on_battery(self) -> bool:
        now = time.monotonic()
        if now - self._battery_looked_at >= _LOOK_AT_BATTERY_EVERY_S:
            self._battery_looked_at = now
            self._is_on_battery = on_battery()
        return self._is_on_battery


def clock_time(seconds: float) -> str:
    """A time for a person: the day is said where it is not today."""
    then = time.localtime(seconds)
    is_today = time.strftime("%F", then) == time.strftime("%F")
    return time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", then)


def write_whole(path: Path, text: str) -> None:
    """Write a small file that a crash leaves as it was, or whole. Raises: OSError."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


# ---------------------------------------------------------------- the door to psutil


def on_battery() -> bool:
    """Whether the machine runs on its battery; False where it has none, or does not tell."""
    import psutil

    with suppress(Exception):  # of a system's own files: what they may hold is nowhere said
        battery = psutil.sensors_battery()
        return bool(battery is not None and battery.power_plugged is False)
    return False


def lower_priority() -> None:
    """Let everything else on the machine come first, from now on and for processes that this one starts."""
    import psutil

    process = psutil.Process()
    with suppress(psutil.Error, OSError):
        if psutil.WINDOWS:
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(max(_NICENESS, process.nice()))
    if psutil.LINUX:
        with suppress(psutil.Error, OSError):
            process.ionice(psutil.IOPRIO_CLASS_IDLE)


def _started_at(pid: int) -> float | None:
    """When a process was started, which tells it from a later one of its number; None if there is none."""
    import psutil

    try:
        return round(float(psutil.Process(pid).create_time()), 2)
    except psutil.Error:
        return None
