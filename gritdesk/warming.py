"""Passages -> their states on disk, before anybody asks about them: see engine/states.py for what a state is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gritdesk.passages import readings
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
    max_passage_tokens: int,
) -> int:
    """Have the states of an index's passages kept, those of the newest files first, until there is no more room.

    Args:
        on_progress: called with how many files are done, of how many.
        max_passage_tokens: a file of no more is one passage, as prompts hold it.
    Returns: how many states are new.
    """
    files = [(state.mtime_ns, path) for path, state in store.files().items() if state.state == "indexed"]
    num_new = 0
    for num_done, (_, path) in enumerate(sorted(files, reverse=True), start=1):
        texts = readings(path, store, max_passage_tokens)
        for at in range(0, len(texts), _SLICE):
            if is_stopped():
                return num_new
            warmed = warm(texts[at : at + _SLICE])
            num_new += warmed.num_new
            if warmed.is_full:
                return num_new
        on_progress(num_done, len(files))
    return num_new
