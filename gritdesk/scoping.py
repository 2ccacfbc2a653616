"""Files and folders that a question is asked of: what lies in them, what a person calls them, and how they are picked.

A path of the index is picked by a few letters of it, in their order: "rlm" finds api/rate-limits.md.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

_MAX_NAMED = 3
_LOOK_AT_STOP_EVERY = 2000
"""Places between two looks at whether a newer pick is asked for."""
_NUM_TOP = 20
"""Folders that are shown before there are letters."""
_ENOUGH = 200
"""Names that begin with the letters, among which the shortest are shown."""


def lies_within(path: Path, within: Collection[Path]) -> bool:
    """Whether a file is one of these, or lies in one; of no paths at all everything lies within."""
    return not within or path in within or any(folder in within for folder in path.parents)


def scope_name(within: Sequence[Path], is_folder: Callable[[Path], bool] = Path.is_dir) -> str:
    """`rate-limits.md, notes/ and 3 more`, for a person; "" of no paths."""
    named = [f"{each.name}/" if is_folder(each) else each.name or str(each) for each in within[:_MAX_NAMED]]
    more = len(within) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


@dataclass(frozen=True)
class Place:
    """A file or folder that may be picked."""

    path: Path
    shown: str
    """From the indexed folder that it lies in, with / between names and behind a folder's."""

    @property
    def is_folder(self) -> bool:
        return self.shown.endswith("/")


class Places:
    """All files of an index and the folders that they lie in; used by one thread at a time.

    Args:
        files: full paths.
        roots: the indexed folders.
    """

    def __init__(self, files: Iterable[str], roots: Iterable[Path]) -> None:
        self._roots = {str(root): f"{root.name or root}/" for root in roots}
        self._folders: dict[str, str] = {}
        """What is shown of each folder, with the / behind it."""
        paths: list[str] = []
        shown_files: list[str] = []
        for path in files:
            folder, _, name = path.rpartition(os.sep)
            paths.append(path)
            shown_files.append(self._shown_folder(folder or os.sep) + name)
        # of a file outside the roots the folders above it are shown in full, and are no place to ask
        folders = [folder for folder, shown in self._folders.items() if not os.path.isabs(shown)]
        self._paths = folders + paths
        self._shown = [self._folders[folder] for folder in folders] + shown_files
        # to sort them all would take a hundred milliseconds in which no key is drawn
        self._num_files = len(paths)
        self._top = heapq.nsmallest(_NUM_TOP, range(len(folders)), key=lambda each: _height(self._shown[each]))
        self._folded = [each.casefold() for each in self._shown]
        self._last: tuple[str, Sequence[int]] = "", range(len(self._paths))
        """Letters, and what they fit: letters that go on from them fit nothing else."""

    def _shown_folder(self, folder: str) -> str:
        if (shown := self._folders.get(folder)) is None:
            above, _, name = folder.rpartition(os.sep)
            if (shown := self._roots.get(folder)) is None:
                shown = f"{self._shown_folder(above or os.sep)}{name}/" if name else folder
            self._folders[folder] = shown
        return shown

    def picked(self, letters: str, n: int = 20, is_stopped: Callable[[], bool] = lambda: False) -> list[Place]:
        """The `n` that letters fit best: in the name together, at its beginning first; then in order; then anywhere.

        Without letters folders near the top. Ends early, with what it has, once `is_stopped()` is true, or where so
        many names begin with the letters that more are needed anyway.
        """
        wanted = "".join(letters.casefold().split())
        if not wanted:
            files = range(len(self._paths) - self._num_files, len(self._paths))
            return [self._place(each) for each in islice(chain(self._top, files), n)]
        before, numbers = self._last
        numbers = numbers if wanted.startswith(before) else range(len(self._paths))
        ranked: list[list[int]] = [[], [], [], [], []]
        is_whole = True
        for count, number in enumerate(numbers):
            if count % _LOOK_AT_STOP_EVERY == 0 and is_stopped() or len(ranked[0]) >= _ENOUGH:
                is_whole = False
                break
            if (rank := _rank(self._folded[number], wanted)) is not None:
                ranked[rank].append(number)
        if is_whole:
            self._last = wanted, list(chain.from_iterable(ranked))
        best = chain.from_iterable(self._shortest_first(group, n) for group in ranked)
        return [self._place(each) for each in islice(best, n)]

    def _shortest_first(self, numbers: Sequence[int], n: int) -> list[int]:
        return heapq.nsmallest(n, numbers, key=lambda each: len(self._shown[each]))

    def _place(self, number: int) -> Place:
        return Place(Path(self._paths[number]), self._shown[number])


def _height(shown: str) -> tuple[int, str]:
    return shown.count("/"), shown


def _rank(folded: str, wanted: str) -> int | None:
    """0 is best; None if the letters are not in it in their order."""
    name_at = folded.rfind("/", 0, -1) + 1
    together = folded.rfind(wanted)
    if together >= name_at:
        return 0 if folded.startswith(wanted, name_at) else 1
    if _has_in_order(folded, wanted, name_at):
        return 2
    if together >= 0:
        return 3
    return 4 if _has_in_order(folded, wanted, 0) else None


def _has_in_order(text: str, letters: str, start: int) -> bool:
    for letter in letters:
        start = text.find(letter, start) + 1
        if not start:
            return False
    return True
