"""One path -> what the index knows of it, or the rule that keeps it out: what `gritdesk why` tells.

And a query -> the files that it names and that are not in the index, told in the same words. It asks the rules and
the rows that indexing itself goes by, and reads no file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from gritdesk.querying import parse
from gritdesk.records import PathReport, Skip
from gritdesk.store.base import FileState, Store
from gritdesk.store.words import is_stop_word
from gritdesk.surveying import survey_library
from gritdesk.walking import Walk, closed_folder, is_folder, is_in_the_cloud, look_at

_NEXT = "the next `gritdesk index`"
_NOT_READ_YET = f"it was not read yet; {_NEXT} does"
_NAME_PART = re.compile(r"[^\W_]+")


def explain(path: Path, folders: Sequence[Path], store: Store, home: Path) -> PathReport:
    """Why a path is or is not in the index, be it there or not.

    Args:
        folders: those that are indexed.
        home: of gritdesk, as Walk has it.
    """
    path = _as_listed(Path(os.path.abspath(path)), folders)
    holders = [folder for folder in folders if path.is_relative_to(folder)]
    skips = [Walk(folder, home).rule(path) for folder in holders]
    skip = None if None in skips else next(iter(skips), None)
    states = store.files()
    try:
        found, closed = look_at(path), ""
    except OSError as error:
        found = None
        closed = f"its folder {closed_folder(path)} cannot be read ({error.strerror}), and what was read is kept"
    report = PathReport(path, "outside", "under no indexed folder", skip, exists=found is not None)
    if path in states:
        return _of_row(report, states[path], holders, store, closed)
    if not holders:
        return report
    if skip is not None:
        return replace(report, state="skipped", reason=_told(skip, path))
    if found is None:
        told = closed or _told_absence(holders, "there is nothing of this name")
        return replace(report, state="missing", reason=told)
    if is_folder(path):
        return _of_folder(report, states)
    if is_in_the_cloud(found):
        return replace(report, state="waiting", reason="it lies in the cloud and not on this disk; download it")
    return replace(report, state="waiting", reason=_NOT_READ_YET)


def unread(query: str, folders: Sequence[Path], store: Store, home: Path, n: int = 5) -> list[PathReport]:
    """Files that are not in the index and have half of a query's words or more in their names, those with most first.

    Walks the folders. Args: as `explain`; Raises: QueryError as querying.parse.
    """
    asked = parse(query)
    typed = " ".join((*asked.words, *asked.phrases, *asked.literals, *asked.scope.names)).casefold()
    words = {word for word in _NAME_PART.findall(typed) if len(word) > 1 and not is_stop_word(word)}
    if not words:
        return []
    library = survey_library(store, folders, home)
    reports = [
        PathReport(row.path, "failed" if row.state == "failed" else "waiting", row.reason or _NOT_READ_YET)
        for row in library.files
        if row.state in ("failed", "waiting")
    ]
    reports += [PathReport(skip.path, "skipped", skip.reason, skip) for skip in library.skips]
    found = [(_num_named(words, each.path), each) for each in reports]
    named = [(num, each) for num, each in found if 2 * num >= len(words)]
    return [each for _, each in sorted(named, key=lambda pair: (-pair[0], pair[1].path))[:n]]


def _num_named(words: Collection[str], path: Path) -> int:
    """How many of the words a part of the file's name begins with."""
    parts = _NAME_PART.findall(path.name.casefold())
    return sum(any(part.startswith(word) for part in parts) for word in words)


def _as_listed(path: Path, folders: Sequence[Path]) -> Path:
    """A path by the name that the index has for it: a listed folder may be, or lie behind, a link."""
    if any(path.is_relative_to(folder) for folder in folders):
        return path
    real_path = path.parent.resolve() / path.name
    for folder in folders:
        if real_path.is_relative_to(folder.resolve()):
            return folder / real_path.relative_to(folder.resolve())
    return path


def _of_row(report: PathReport, known: FileState, holders: Sequence[Path], store: Store, closed: str) -> PathReport:
    """Of a file that the index knows; `closed` says which folder keeps it from being looked at, if one does."""
    path = report.path
    report = replace(report, state=known.state, modified_ns=known.mtime_ns, has_changed=_has_changed(path, known))
    reason = known.reason
    if known.state == "indexed":
        reason = "in the index"
        num_chunks, num_embedded = len(store.chunks_of(path)), len(store.embeddings_of(path))
        report = replace(
            report, format=store.format_of(path), num_chunks=num_chunks, num_embedded=min(num_embedded, num_chunks)
        )
    if not holders:
        return replace(report, reason=f"{reason}; {_NEXT} forgets it: it lies under no indexed folder any more")
    if not report.exists:
        told = closed or _told_absence(holders, f"it is gone, and {_NEXT} forgets it")
        return replace(report, reason=f"{reason}; {told}")
    if report.skip is not None:
        return replace(report, reason=f"{reason}; {_NEXT} forgets it: {_told(report.skip, path)}")
    if report.has_changed:
        return replace(report, reason=f"{reason}; it has changed since, and {_NEXT} reads it again")
    return replace(report, reason=reason)


def _of_folder(report: PathReport, states: dict[Path, FileState]) -> PathReport:
    within = [known for path, known in states.items() if path.is_relative_to(report.path)]
    num_indexed = sum(known.state == "indexed" for known in within)
    reason = f"a folder: {num_indexed} of its files are in the index, {len(within) - num_indexed} could not be read"
    return replace(report, state="folder", reason=reason)


def _has_changed(path: Path, known: FileState) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    if stat.S_ISDIR(found.st_mode):  # one that could not be listed
        return False
    return (found.st_size, found.st_mtime_ns) != (known.size_bytes, known.mtime_ns)


def _told(skip: Skip, path: Path) -> str:
    return skip.reason if skip.path == path else f"its folder {skip.path} is left out: {skip.reason}"


def _told_absence(holders: Sequence[Path], otherwise: str) -> str:
    gone = next((folder for folder in holders if not is_folder(folder)), None)
    if gone is None:
        return otherwise
    return f"its folder {gone} is not there (moved, or its disk not mounted?), and what was read is kept"
