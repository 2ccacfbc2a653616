"""Which files of a folder are documents: the rules that a sweep and a watcher share.

Skipped are names that begin with a dot (.git and .venv among them), folders that tools fill (node_modules,
__pycache__), what a .gitignore says, and symbolic links. A folder that is ignored is not entered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pathspec

_TOOL_FOLDERS = frozenset({"node_modules", "__pycache__"})


class Walk:
    """One look at a folder; a later look is a new Walk, which reads the .gitignore files anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: dict[Path, str] = {}
        """Folders that could not be listed, and why; filled while walking."""
        self._ignores: dict[Path, _Ignore] = {}

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every document of the folder in the order of names; a folder that is a file is its only one."""
        if self.folder.is_file():
            yield self.folder, self.folder.stat()
            return
        yield from self._files_under(self.folder)

    def files_under(self, path: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """The documents at or below one path inside the folder, none if the path is skipped."""
        if self.skips(path):
            return
        if path.is_dir():
            yield from self._files_under(path)
        elif path.is_file():
            yield path, path.stat()

    def skips(self, path: Path) -> bool:
        """Whether the rules leave out a path inside the folder, be it there or not."""
        if path == self.folder:
            return False
        inside = path.relative_to(self.folder)
        steps = [self.folder / parent for parent in reversed(inside.parents) if parent.name] + [path]
        return (
            any(self._skips_name(each, is_folder=each != path or path.is_dir()) for each in steps) or path.is_symlink()
        )

    def _files_under(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        # a stack of its own, not recursion: folders may lie deeper than Python's stack
        open_folders = [self._listing(folder)]
        while open_folders:
            for path, file_stat in open_folders[-1]:
                is_folder = stat.S_ISDIR(file_stat.st_mode)
                if self._skips_name(path, is_folder):
                    continue
                if is_folder:
                    open_folders.append(self._listing(path))
                    break
                if stat.S_ISREG(file_stat.st_mode):  # neither a link nor a pipe, socket or device
                    yield path, file_stat
            else:
                open_folders.pop()

    def _listing(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """What one folder holds, by name; nothing, and its reason noted, if it cannot be read."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            found = [(folder / entry.name, entry.stat(follow_symlinks=False)) for entry in entries if _is_there(entry)]
        except FileNotFoundError:
            if folder == self.folder:  # below it, a folder that is gone since its listing is simply gone
                self.unreadable[folder] = (
                    "the folder is not there (moved, or its disk not mounted?); its files are kept"
                )
            return
        except OSError as error:
            self.unreadable[folder] = f"the folder cannot be read ({error.strerror}); its files are kept"
            return
        yield from found

    def _skips_name(self, path: Path, is_folder: bool) -> bool:
        if path.name.startswith(".") or (is_folder and path.name in _TOOL_FOLDERS):
            return True
        for folder in path.parents:  # the nearest .gitignore that speaks of the path decides
            verdict = self._ignore(folder).verdict(path, is_folder)
            if verdict is not None or folder == self.folder:
                return bool(verdict)
        return False

    def _ignore(self, folder: Path) -> _Ignore:
        if folder not in self._ignores:
            self._ignores[folder] = _Ignore(folder)
        return self._ignores[folder]


def _is_there(entry: os.DirEntry[str]) -> bool:
    """False if it went since the folder was listed."""
    try:
        entry.stat(follow_symlinks=False)  # the entry remembers the answer
    except FileNotFoundError:
        return False
    return True


class _Ignore:
    """The .gitignore of one folder; one that is missing or cannot be read says nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def verdict(self, path: Path, is_folder: bool) -> bool | None:
        if self._spec is None:
            return None
        inside = path.relative_to(self._folder).as_posix()
        return self._spec.check_file(f"{inside}/" if is_folder else inside).include

    @cached_property
    def _spec(self) -> pathspec.GitIgnoreSpec | None:
        try:
            lines = (self._folder / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
            return pathspec.GitIgnoreSpec.from_lines(lines)
        except (OSError, ValueError):
            return None
