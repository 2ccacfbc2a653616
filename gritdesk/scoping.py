"""Files and folders that a question is asked of: what lies in them, what a person calls them, and how they are picked.

A path of the index is picked by a few letters of it, in their order: "rlm" finds api/rate-limits.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_MAX_NAMED = 3
_LOOK_AT_STOP_EVERY = 2000
"""Places between two looks at whether a newer pick is asked for."""


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
    is_folder: bool
    shown: str
    """From the indexed folder that it lies in, with / between names and behind a folder's."""
    folded: str
    """The same in small letters, without the last /."""


def places(files: Iterable[Path], roots: Collection[Path]) -> list[Place]:
    """All files of the index and the folders that they lie in, those near the top first."""
    known = {str(root): root.name or str(root) for root in roots}
    folders: dict[str, str] = {}
    found = []

    def shown_folder(folder: str) -> str:
        """Its name from the indexed folder on."""
        if (shown := folders.get(folder)) is None:
            above, name = os.path.split(folder)
            is_top = folder in known or above == folder
            shown = folders[folder] = (
                known.get(folder, folder) if is_top else f"{shown_folder(above).rstrip('/')}/{name}"
            )
        return shown

    for path in files:
        folder, name = os.path.split(path)
        found.append((f"{shown_folder(folder)}/{name}", path, False))
    # of a file outside the roots every folder above it was looked at; only those below one are of use
    inside = [(shown, Path(each), True) for each, shown in folders.items() if _is_below(each, known)]
    every = sorted((*inside, *found), key=lambda each: (each[0].count("/"), not each[2], each[0]))
    return [Place(path, is_folder, shown + "/" * is_folder, shown.casefold()) for shown, path, is_folder in every]


def _is_below(folder: str, roots: Collection[str]) -> bool:
    while folder not in roots:
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return True


def picked(
    every: Sequence[Place], letters: str, n: int = 20, is_stopped: Callable[[], bool] = lambda: False
) -> list[Place]:
    """The `n` places that letters fit best: in the name together, at its beginning first; then in order; then anywhere.

    Ends early, with what it has, once `is_stopped()` is true.
    """
    wanted = "".join(letters.casefold().split())
    if not wanted:
        return [*every[:n]]
    ranked: list[list[Place]] = [[], [], [], [], []]
    for number, place in enumerate(every):
        if number % _LOOK_AT_STOP_EVERY == 0 and is_stopped():
            break
        if (rank := _rank(place.folded, wanted)) is not None:
            ranked[rank].append(place)
            if len(ranked[0]) == n:
                break
    return [*islice(_shortest_first(ranked), n)]


def _shortest_first(ranked: Iterable[list[Place]]) -> Iterator[Place]:
    for group in ranked:
        yield from sorted(group, key=lambda each: len(each.folded))


def _rank(folded: str, wanted: str) -> int | None:
    """0 is best; None if the letters are not in it in their order."""
    name_at = folded.rfind("/") + 1
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
