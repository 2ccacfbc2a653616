"""Folders that nobody may look into, at the door: the system lets in root, as whom tests may run, everywhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest


def close_folder(patch: pytest.MonkeyPatch, folder: Path, number: int = errno.EACCES) -> None:
    """Have the system refuse to list a folder and to look at anything in it, by this error; the folder itself is seen.

    Source: path_resolution(7), which wants the right to search of every folder on the way to a path.
    """

    def refusing(function: Any, is_closed: Any) -> Any:
        def call(path: Any = ".", *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and is_closed(Path(os.fsdecode(path))):
                raise OSError(number, os.strerror(number), os.fspath(path))
            return function(path, *arguments, **options)

        return call

    for name in ("stat", "lstat"):
        patch.setattr(os, name, refusing(getattr(os, name), lambda path: folder in path.parents))
    patch.setattr(os, "scandir", refusing(os.scandir, lambda path: folder in (path, *path.parents)))
    patch.setattr("builtins.open", refusing(open, lambda path: folder in path.parents))
