"""What is drawn gets to the terminal whole, also where Python's streams are unbuffered."""

from __future__ import annotations

import io
import sys


def write_whole() -> None:
    """Put a buffer under sys.__stderr__, through which Textual draws, where PYTHONUNBUFFERED left it without.

    There a write that a signal cuts short loses its rest (github.com/python/cpython/issues/85393), as SIGWINCH does
    while a slow terminal is resized. Textual draws only what changes, so the rest would stay undrawn.
    """
    bare = sys.__stderr__
    if bare is not None and isinstance(bare.buffer, io.RawIOBase):
        whole = open(bare.fileno(), "w", encoding=bare.encoding, errors=bare.errors, closefd=False)  # noqa: SIM115
        sys.__stderr__ = whole  # type: ignore[misc]
