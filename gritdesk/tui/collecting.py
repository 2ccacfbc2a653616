"""Garbage is collected while nobody types.

A full collection looks at every object there is, some hundred thousand once a library is open, and no thread goes on
meanwhile: a tenth of a second, that came whenever enough had been drawn, which is while keys are pressed.
"""

from __future__ import annotations

import gc
from time import monotonic

_REST_S = 1.5
"""Without a key; then a person reads."""
_EVERY_S = 30.0
_NEVER = 1_000_000


class RestCollector:
    """Holds full collections back from `begin` to `end`; those of young objects, which take no time, go on."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._pressed_at = self._collected_at = monotonic()

    def begin(self) -> None:
        self._before = gc.get_threshold()
        gc.set_threshold(self._before[0], self._before[1], _NEVER)

    def end(self) -> None:
        if self._before is not None:
            gc.set_threshold(*self._before)
            self._before = None

    def pressed(self) -> None:
        """A person has done something, and may go on."""
        self._pressed_at = monotonic()

    def look(self) -> bool:
        """Collect if this is a time for it; whether it was."""
        now = monotonic()
        is_rest = self._before is not None and now - self._pressed_at > _REST_S
        is_due = self._collected_at < self._pressed_at or now - self._collected_at > _EVERY_S
        if is_rest and is_due:
            gc.collect()
            self._collected_at = monotonic()
        return is_rest and is_due
