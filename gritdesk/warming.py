"""Passages -> their states on disk, before anybody asks about them: see engine/states.py for what a state is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gritdesk.store.base import Store

_SLICE = 8
"""Passages asked of the engine at once: a stop is noticed between two slices."""


class Warmed(Protocol):
    """What `warm` tells of the passages it was given; engine.wire.Warmed is one."""

    @property
    def num_new(self) -> int: ...

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more."""
        ...


def keep_states(
    store: Store,
    warm: Callable[[Sequence[str]], Warmed],
    on_progress: Callable[[int, int], None],
    is_stopped: Callable[[], bool],
) -> int:
    """Have the states of an index's passages kept, those of the newest files first, until there is no more room.

    Args:
        on_progress: called with how many passages are done, of how many.
    Returns: how many states are new.
    """
    files = [(state.mtime_ns, path) for path, state in store.files().items() if state.state == "indexed"]
    _, num_chunks, _ = store.counts()
    num_done = num_new = 0
    for _, path in sorted(files, reverse=True):
        for some in _slices(store, path):
            if is_stopped():
                return num_new
            warmed = warm(some)
            num_new += warmed.num_new
            num_done += len(some)
            on_progress(num_done, num_chunks)
            if warmed.is_full:
                return num_new
    return num_new


def _slices(store: Store, path: Path) -> list[list[str]]:
    texts = [chunk.text for chunk in store.chunks_of(path)]
    return [texts[at : at + _SLICE] for at in range(0, len(texts), _SLICE)]
