"""Folders as they lie on the disk, beside the rows of the index: which files are there, and which have changed.

Looks at names, sizes and times alone; no file is opened.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gritdesk.records import FileRow, FolderRow, Library, Skip
from gritdesk.store.base import FileState, Store
from gritdesk.walking import Walk, is_in_the_cloud, look_at

MOST_SKIPS = 5_000
"""Paths that are left out are listed so far; all are counted."""


def survey(store: Store, folders: Sequence[Path], home: Path | None = None) -> tuple[int, Mapping[str, int]]:
    """Number of files whose present content is not in the index, and how many paths each rule leaves out."""
    known = store.files()
    skipped: Counter[str] = Counter()
    files, _ = walk(folders, home, skipped)
    return sum(not is_same(known.get(path), seen, may_open=False) for path, seen in files.items()), skipped


def survey_library(store: Store, folders: Sequence[Path], home: Path | None = None) -> Library:
    """Every file of the folders and of the index, each folder's sums, and what the rules leave out."""
    known, chunks = store.files(), store.chunk_numbers()
    rows: dict[Path, FileRow] = {}
    skips: list[Skip] = []
    skipped: Counter[str] = Counter()
    problems: dict[Path, str] = {}
    for folder in folders:
        found = Walk(folder, home, num_kept=MOST_SKIPS - len(skips))
        for path, file_stat in found.files():
            rows[path] = _row(path, known.get(path), as_seen(file_stat))
        skips += found.kept
        skipped.update(found.skipped)
        problems.update(found.unreadable)
    for path, state in known.items():
        if path not in rows:
            rows[path] = _row(path, state, None)
    files = tuple(sorted(rows.values(), key=lambda row: row.path))
    folder_rows = tuple(_folder_row(folder, files, problems, chunks) for folder in folders)
    return Library(folder_rows, files, tuple(skips), skipped, sum(chunks.values()))


def chunks_in(store: Store, folders: Sequence[Path]) -> dict[Path, int]:
    """How many chunks the index holds of each folder; looks at no disk."""
    chunks = store.chunk_numbers()
    return {folder: _sum_within(folder, chunks) for folder in folders}


def _sum_within(folder: Path, chunks: Mapping[Path, int]) -> int:
    inside = os.path.join(folder, "")  # as strings, which are compared in a quarter of the time
    return sum(num for path, num in chunks.items() if str(path).startswith(inside))


def _row(path: Path, known: FileState | None, seen: Seen | None) -> FileRow:
    on_disk = seen or known
    assert on_disk is not None
    size_bytes, mtime_ns = on_disk.size_bytes, on_disk.mtime_ns
    if known is None:
        return FileRow(path, "waiting", size_bytes, mtime_ns)
    if known.state == "failed":
        return FileRow(path, "failed", size_bytes, mtime_ns, known.reason)
    if seen is None:
        return FileRow(path, "missing", size_bytes, mtime_ns)
    state: Literal["indexed", "changed"] = "indexed" if is_same(known, seen, may_open=False) else "changed"
    return FileRow(path, state, size_bytes, mtime_ns)


def _folder_row(
    folder: Path, files: Sequence[FileRow], problems: Mapping[Path, str], chunks: Mapping[Path, int]
) -> FolderRow:
    inside = [row for row in files if row.path.is_relative_to(folder)]
    counted = Counter(row.state for row in inside)
    return FolderRow(
        folder,
        num_indexed=counted["indexed"] + counted["changed"] + counted["missing"],
        num_waiting=counted["waiting"] + counted["changed"],
        num_failed=counted["failed"],
        size_bytes=sum(row.size_bytes for row in inside),
        problem=problems.get(folder, ""),
        num_chunks=sum(chunks.get(row.path, 0) for row in inside),
    )


class Seen(NamedTuple):
    """What a walk saw of a file."""

    size_bytes: int
    mtime_ns: int
    is_in_the_cloud: bool


def look_at_file(path: Path) -> Seen | None:
    """What stands at a path now; None if it is not there or cannot be reached."""
    try:
        return as_seen(path.stat())
    except OSError:
        return None


def as_seen(file_stat: os.stat_result) -> Seen:
    return Seen(file_stat.st_size, file_stat.st_mtime_ns, is_in_the_cloud(file_stat))


def walk(
    folders: Iterable[Path], home: Path | None, skipped: Counter[str] | None = None
) -> tuple[dict[Path, Seen], dict[Path, str]]:
    """All documents of the folders, and the folders that could not be listed with the reason."""
    files: dict[Path, Seen] = {}
    unreadable: dict[Path, str] = {}
    for folder in folders:
        found = Walk(folder, home)
        files.update((path, as_seen(file_stat)) for path, file_stat in found.files())
        unreadable.update(found.unreadable)
        if skipped is not None:
            skipped.update(found.skipped)
    return files, unreadable


def walk_below(
    paths: set[Path], folders: Sequence[Path], home: Path | None
) -> tuple[dict[Path, Seen], dict[Path, str]]:
    """As `walk`, of what the rules of the folders find at and below the paths that are there."""
    looks = {path: kind_of(path, follows_link=path in folders) for path in paths}
    there = {path: kind == "folder" for path, kind in looks.items() if kind not in ("nothing", "link")}
    tops = [path for path in there if not any(there.get(parent) for parent in path.parents)]
    # a listed folder has rows of its own, where a walk of the folder around it may not enter
    tops += [folder for folder in folders if any(there.get(parent) for parent in folder.parents)]
    walks = [Walk(folder, home) for folder in folders]
    whole: list[Path] = []
    files: dict[Path, Seen] = {}
    unreadable: dict[Path, str] = {}
    for path in tops:
        holders = [each for each in walks if each.folder in path.parents]
        if path in folders or not holders:
            whole.append(path)
        for each in holders:
            files.update((found, as_seen(file_stat)) for found, file_stat in each.files_under(path))
    for each in walks:
        unreadable.update(each.unreadable)
    more, more_unreadable = walk(whole, home)
    return files | more, unreadable | more_unreadable


def kind_of(path: Path, *, follows_link: bool) -> Literal["folder", "file", "link", "nothing", "unknown"]:
    """What lies at a path; unknown where nobody can tell, of which a walk finds out what is to be kept."""
    try:
        found = look_at(path, follows_link=follows_link)
    except OSError:
        return "unknown"
    if found is None:
        return "nothing"
    if stat.S_ISLNK(found.st_mode):
        return "link"
    return "folder" if stat.S_ISDIR(found.st_mode) else "file"


def is_same(known: FileState | None, seen: Seen, *, may_open: bool = True) -> bool:
    """Whether nothing tells that a file changed.

    One that could not be opened is tried again in every run: a permission that is given leaves size and time alone.
    """
    if known is None or (may_open and known.state == "failed" and not known.content_hash):
        return False
    return (known.size_bytes, known.mtime_ns) == (seen.size_bytes, seen.mtime_ns)
