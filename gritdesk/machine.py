"""What this machine has to work with."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    name: str
    """The system and its processor's kind, such as "Linux x86_64"."""
    num_cores: int
    """Those that this process may use."""
    memory_bytes: int
    memory_free_bytes: int
    """What a program may take now without others being put aside."""
    disk_free_bytes: int
    """Where gritdesk keeps the index."""


def look_at_machine(home: Path) -> Machine:
    """What is here now, with the disk of a home that need not be there yet."""
    import psutil

    memory = psutil.virtual_memory()
    return Machine(
        name=f"{platform.system()} {platform.machine()}".strip(),
        num_cores=_num_cores(),
        memory_bytes=memory.total,
        memory_free_bytes=memory.available,
        disk_free_bytes=_disk_free_bytes(home),
    )


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _disk_free_bytes(folder: Path) -> int:
    for each in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(each).free
    return 0
