"""Token ids of a block <-> its state, in a folder of bounded size that all processes of one home share.

A state is what a block leaves in the KV cache. It is bytes that llama.cpp takes as they are: of another model of the
same shape, or with a bit turned over, it would serve without a word. So three rules are owned here: a state is found
only under the hash of its ids and of all that it depends on; it is given out only if its checksum is right; and what
goes wrong with the folder is told, once, and never stops an answer, because every state can be computed anew.

One file holds one state, so that two processes need no lock: a file is written aside and renamed, and one that another
process removes meanwhile was not there. What is used is touched; what was used longest ago goes when room is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"GRITKV01"
_KEY_BYTES = _DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _KEY_BYTES + _DIGEST_BYTES
_WORDS_A_ROW = 512
_STATE, _UNFINISHED = ".state", ".unfinished"
_ABANDONED_S = 600.0
"""A file that is still unfinished after this belongs to a process that was killed."""
_USES = "uses"
"""A file with a letter for each look-up of any process, found or missed, of which the last are counted."""
_FOUND, _MISSED = b"+", b"-"
_MAX_USES, _COUNTED_USES = 50_000, 10_000


@dataclass(frozen=True)
class StateUse:
    """What a folder of states holds and how well it serves."""

    size_bytes: int
    num_states: int
    num_found: int
    """Of the last look-ups."""
    num_asked: int

    @property
    def hit_rate(self) -> float | None:
        """Share of the last look-ups that found their state; None before the first."""
        return self.num_found / self.num_asked if self.num_asked else None


@dataclass(frozen=True)
class StateSettings:
    """Where an engine keeps states."""

    folder: Path
    max_bytes: int
    identity: str
    """Of the model, see models.model_identity."""
    stamp: tuple[int, int]
    """`file_stamp` of the model's file when it had that identity."""


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and modification time of a file, in ns; zeros if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class StateStore:
    """One folder of states, as one model in one setting finds them. Nothing here raises an error of the folder."""

    def __init__(
        self, folder: Path, max_bytes: int, fingerprint: str, on_notice: Callable[[str], None] = lambda notice: None
    ) -> None:
        """Prepare; the folder is made when something is kept.

        Args:
            max_bytes: of all files in the folder, whichever model they are of.
            fingerprint: all that a state depends on beside its ids.
            on_notice: told, once, why states cannot be written.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._fingerprint = fingerprint.encode()
        self._on_notice = on_notice
        self._has_told = False

    def __contains__(self, ids: Sequence[int]) -> bool:
        """Whether a state is kept for these ids, damaged or not."""
        return self._path(self._key(ids)).is_file()

    def find(self, ids: Sequence[int]) -> NDArray[np.uint8] | None:
        """The state of a block; None if there is none, or a damaged one, which is removed."""
        key = self._key(ids)
        path = self._path(key)
        state = None
        with contextlib.suppress(OSError):
            data = np.fromfile(path, dtype=np.uint8)
            header, state = data[:_HEADER_BYTES].tobytes(), data[_HEADER_BYTES:]
            if header == _MAGIC + key + _digest(key, state):
                os.utime(path)
            else:
                state = None
                path.unlink()
        self._count(_MISSED if state is None else _FOUND)
        return state

    def keep(self, ids: Sequence[int], state: NDArray[np.uint8]) -> None:
        """Write a state, and remove others, the longest unused first, until all fit; one that never fits is not kept.

        If the folder cannot be written, that is told once.
        """
        key = self._key(ids)
        path = self._path(key)
        size = _HEADER_BYTES + len(state)
        if size > self._max_bytes or path.exists():
            return
        beside = path.with_suffix(f".{os.getpid()}{_UNFINISHED}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            with beside.open("wb") as file:
                file.write(_MAGIC + key + _digest(key, state))
                file.write(state.data)
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            if not self._has_told:
                self._has_told = True
                self._on_notice(
                    f"states of passages cannot be kept in {self._folder} ({error.strerror or error}); answers come "
                    "all the same, a little later: make room there, or set engine.states_mb to 0"
                )

    def is_full_for(self, size_bytes: int) -> bool:
        """Whether keeping so many bytes more would remove another state."""
        return sum(size for _, size, _ in _files(self._folder)) + size_bytes + _HEADER_BYTES > self._max_bytes

    def _make_room(self, size_bytes: int) -> None:
        files = sorted(_files(self._folder))
        taken = sum(size for _, size, _ in files)
        now = time.time()
        for used_at, size, path in files:
            is_abandoned = path.suffix == _UNFINISHED and now - used_at > _ABANDONED_S
            if is_abandoned or (taken + size_bytes > self._max_bytes and path.suffix == _STATE):
                with contextlib.suppress(OSError):  # gone already, or on Windows being read: then a later one goes
                    path.unlink()
                    taken -= size

    def _key(self, ids: Sequence[int]) -> bytes:
        hashed = hashlib.blake2b(self._fingerprint, digest_size=_KEY_BYTES)
        hashed.update(b"\0" + np.asarray(ids, dtype="<i4").tobytes())
        return hashed.digest()

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}{_STATE}"

    def _count(self, letter: bytes) -> None:
        uses = self._folder / _USES
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with uses.open("ab") as file:  # appending a letter needs no lock
                file.write(letter)
                is_long = file.tell() > _MAX_USES
            if is_long:
                beside = uses.with_suffix(f".{os.getpid()}{_UNFINISHED}")
                beside.write_bytes(uses.read_bytes()[-_COUNTED_USES:])
                beside.replace(uses)


def state_use(folder: Path) -> StateUse:
    """What a folder of states holds, and how many of the last look-ups found what they asked for."""
    sizes = [size for _, size, path in _files(folder) if path.suffix == _STATE]
    uses = b""
    with contextlib.suppress(OSError):
        uses = (folder / _USES).read_bytes()[-_COUNTED_USES:]
    return StateUse(sum(sizes), len(sizes), uses.count(_FOUND), len(uses))


def clear_states(folder: Path) -> StateUse:
    """Delete all states, of every model, and what was counted; what was there.

    Raises: OSError if a file cannot be deleted.
    """
    use = state_use(folder)
    for _, _, path in _files(folder):
        path.unlink(missing_ok=True)
    (folder / _USES).unlink(missing_ok=True)
    return use


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, size in bytes, path) of each state, finished or not."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((_STATE, _UNFINISHED)):
                with contextlib.suppress(OSError):
                    stat = entry.stat()
                    yield stat.st_mtime, stat.st_size, Path(entry.path)


def _digest(key: bytes, state: NDArray[np.uint8]) -> bytes:
    """Checksum of a state: the sums of its rows, hashed.

    Hashing all bytes takes as long as reading the passage does in a small model. Sums go at the speed of memory, and
    any bit that turns over, any page that was not written and any cut changes one.
    """
    whole = len(state) // (8 * _WORDS_A_ROW) * (8 * _WORDS_A_ROW)
    rows = state[:whole].view(np.uint64).reshape(-1, _WORDS_A_ROW)
    hashed = hashlib.blake2b(key + len(state).to_bytes(8, "little"), digest_size=_DIGEST_BYTES)
    hashed.update(rows.sum(axis=1, dtype=np.uint64).tobytes())
    hashed.update(state[whole:].tobytes())
    return hashed.digest()
