"""What a process holds of memory: how much it was at most, and giving back what it holds for nothing."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch


def peak_memory_gb() -> float:
    """The most this process has held so far: on its GPU, or of main memory without one; 0 where nobody knows."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def give_back_memory() -> None:
    """Give freed memory back to the system, where glibc would keep it; elsewhere nothing.

    Hundreds of micro-batches, each of another length, leave holes of their own sizes between what stays, and resident
    memory grows (benchmarks/RESULTS.md). Pages are cleared when they are taken again, which costs time, so not after
    each of them.
    """
    trim = _malloc_trim()
    if trim is not None and not torch.cuda.is_available():
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
