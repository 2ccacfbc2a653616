"""Changed file -> rows: path, document, chunks, embeddings, store, read top to bottom in `Indexer._write`.

What is not done twice:
- a file of unchanged size and time is not opened; one of unchanged content is not read;
- a chunk whose text was embedded before, in whatever file, is not embedded: files may be moved, copied, renamed.
So additions come first, then deletions, then embeddings that nothing uses any more.

What is not lost: every file is one transaction, so a run that ends anywhere is continued by the next one. A file
that fails, be it in the reader or in the engine, is listed with its reason and tried again when it changes or is
touched. A folder that cannot be read, or is not there, keeps its rows.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.chunking import split
from gritdesk.config import IndexConfig
from gritdesk.errors import ExtractError, GritDeskError, ReaderClosed, RequestRefused
from gritdesk.extract import is_in_the_cloud
from gritdesk.grit_format import passage_input
from gritdesk.records import Document, EmbeddingInput, FailedFile, IndexProgress, IndexReport
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore
from gritdesk.walking import Walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLICE = 16
"""Chunks that are embedded between two looks at `is_stopped`."""


class Indexer:
    """Keeps the store up with folders; the only writer of its store while it lives.

    Args:
        embed: float32[num, dimension], one row per input; raises RequestRefused for a text that it cannot take.
        read: raises ExtractError for a file that cannot be turned into text.
        fingerprint: names the vector space of `embed`; embeddings of another one are forgotten.
    """

    def __init__(
        self,
        store: SqliteStore,
        embed: Callable[[Sequence[EmbeddingInput]], NDArray[np.float32]],
        count_tokens: Callable[[Sequence[str]], list[int]],
        read: Callable[[Path], Document],
        fingerprint: str,
        config: IndexConfig,
    ) -> None:
        self._store = store
        self._embed = embed
        self._count_tokens = count_tokens
        self._read = read
        self._fingerprint = fingerprint
        self._config = config
        self._known: dict[Path, FileState] | None = None

    def run(
        self,
        folders: Sequence[Path],
        on_progress: Callable[[IndexProgress], None] = lambda progress: None,
        is_stopped: Callable[[], bool] = lambda: False,
        *,
        forget_others: bool = False,
    ) -> IndexReport:
        """Bring the index up to date with all files of the folders.

        Args:
            forget_others: also forget, before all else, whatever lies under none of the folders.
        Raises: ModelError, StoreError or ReaderClosed where no file is at fault; what was indexed until then stays.
        """
        tally = _Tally(on_progress, is_stopped)
        self._forget_other_embeddings(tally)
        if forget_others:
            within = set(folders)
            self._delete([path for path in self._states if not _is_within(path, within)], tally)
        files, unreadable = _walk(folders, self._store)
        self._bring_up(files, folders, unreadable, tally)
        if not tally.was_stopped:  # files that were not reached may still use what seems orphaned now
            self._store.prune()
        return tally.report()

    def update(
        self,
        paths: Iterable[Path],
        on_progress: Callable[[IndexProgress], None] = lambda progress: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> IndexReport:
        """Bring the index up to date with what a watcher reported: files, folders, and paths that are gone."""
        tally = _Tally(on_progress, is_stopped)
        self._forget_other_embeddings(tally)
        changed_paths = set(paths)
        gone = {path for path in changed_paths if not os.path.lexists(path)}
        files, unreadable = _walk([path for path in changed_paths - gone if not path.is_symlink()], self._store)
        self._bring_up(files, sorted(changed_paths), unreadable, tally)
        return tally.report()

    def pending(self, folders: Sequence[Path]) -> int:
        """Number of files whose present content is not in the index."""
        return count_pending(self._store, folders, self._config)

    # ------------------------------------------------------------ one file

    def _write(self, path: Path, state: FileState, tally: _Tally) -> None:
        """The straight line from a path to its rows."""
        document = self._read(path)
        chunks = split(document, self._count_tokens, self._config.chunk_tokens)
        inputs = [passage_input(chunk) for chunk in chunks]
        hashes = [_embedding_hash(each) for each in inputs]
        embeddings = self._embed_unknown(dict(zip(hashes, inputs, strict=True)), tally)
        self._store.add_embeddings(embeddings)  # first: what a kill leaves without a chunk is pruned
        self._store.replace_document(document, state, chunks, hashes)
        tally.files_indexed += 1
        tally.chunks_reused += len(chunks) - len(embeddings)

    def _embed_unknown(self, inputs: Mapping[bytes, EmbeddingInput], tally: _Tally) -> dict[bytes, NDArray[np.float32]]:
        known = self._store.known_embeddings(list(inputs))
        unknown = [each for each in inputs if each not in known]
        embeddings: dict[bytes, NDArray[np.float32]] = {}
        for start in range(0, len(unknown), _SLICE):
            if tally.should_stop():
                raise _Stopped
            hashes = unknown[start : start + _SLICE]
            rows = self._embed([inputs[each] for each in hashes]).astype("float32", copy=False)
            self._store.enter_space(Space(self._fingerprint, rows.shape[1]))
            embeddings.update(zip(hashes, rows, strict=True))
            tally.chunks_embedded += len(hashes)
            tally.send()
        return embeddings

    def _index_file(self, path: Path, file_stat: os.stat_result, tally: _Tally) -> None:
        known = self._states.get(path)
        if _is_same(known, file_stat) and not _could_not_be_opened(known):
            tally.files_unchanged += 1
            return
        state = FileState(file_stat.st_size, file_stat.st_mtime_ns, _content_hash(path, file_stat, self._config))
        if _is_same_content(known, state):
            self._store.touch(path, state)
            self._states[path] = state
            tally.files_unchanged += 1
            return
        try:
            self._write(path, state, tally)
            self._states[path] = state
        except ReaderClosed:
            raise
        except (ExtractError, RequestRefused) as error:
            self._record_failure(path, state, str(error), tally)
        except (GritDeskError, _Stopped):
            raise
        except Exception as error:  # one file never stops the others
            reason = f"could not be indexed ({type(error).__name__}: {error}); please report this file"
            self._record_failure(path, state, " ".join(reason.split()), tally)

    def _record_failure(self, path: Path, state: FileState, reason: str, tally: _Tally) -> None:
        failed = replace(state, state="failed", reason=reason)
        self._store.record_failure(path, failed)
        self._states[path] = failed
        tally.failed.append(FailedFile(path, reason))

    # ------------------------------------------------------------ all files

    def _bring_up(
        self,
        files: Mapping[Path, os.stat_result],
        roots: Sequence[Path],
        unreadable: Mapping[Path, str],
        tally: _Tally,
    ) -> None:
        """Index the files, then delete rows under the roots that stand for none of them."""
        tally.files_total = len(files)
        tally.send()
        try:
            for path, file_stat in files.items():
                if tally.should_stop():
                    return
                tally.current = path
                self._index_file(path, file_stat, tally)
                tally.files_done += 1
                tally.send()
        except _Stopped:
            return
        for folder, reason in unreadable.items():
            self._record_failure(folder, FileState(0, 0, ""), reason, tally)
        self._delete_gone(files, roots, unreadable, tally)

    def _delete_gone(
        self, files: Iterable[Path], roots: Iterable[Path], unreadable: Iterable[Path], tally: _Tally
    ) -> None:
        present, within, kept = set(files), set(roots), set(unreadable)
        gone = [
            path
            for path in self._states
            if path not in present and _is_within(path, within) and not _is_within(path, kept)
        ]
        self._delete(gone, tally)

    def _delete(self, paths: Sequence[Path], tally: _Tally) -> None:
        self._store.delete_documents(paths)
        for path in paths:
            tally.files_deleted += self._states.pop(path).state == "indexed"

    @property
    def _states(self) -> dict[Path, FileState]:
        if self._known is None:
            self._known = self._store.files()
        return self._known

    def _forget_other_embeddings(self, tally: _Tally) -> None:
        space = self._store.space()
        if space is not None and space.fingerprint != self._fingerprint:
            self._store.clear_embeddings()
            self._known = None
            tally.send(note="the model or its settings changed: every file is embedded anew")


def count_pending(store: SqliteStore, folders: Sequence[Path], config: IndexConfig) -> int:
    """Number of files whose present content is not in the index."""
    known = store.files()
    files, _ = _walk(folders, store)
    return sum(not _is_same(known.get(path), file_stat) for path, file_stat in files.items())


class _Stopped(Exception):
    """The person stopped the run within a file."""


@dataclass
class _Tally:
    """What a run did so far; the one mutable thing in it."""

    on_progress: Callable[[IndexProgress], None]
    is_stopped: Callable[[], bool]
    files_total: int = 0
    files_done: int = 0
    files_indexed: int = 0
    files_unchanged: int = 0
    files_deleted: int = 0
    chunks_embedded: int = 0
    chunks_reused: int = 0
    current: Path | None = None
    was_stopped: bool = False
    failed: list[FailedFile] = field(default_factory=list)
    started_at: float = field(default_factory=time.perf_counter)

    def should_stop(self) -> bool:
        self.was_stopped = self.was_stopped or self.is_stopped()
        return self.was_stopped

    def send(self, note: str = "") -> None:
        self.on_progress(IndexProgress(self.files_done, self.files_total, self.current, self.chunks_embedded, note))

    def report(self) -> IndexReport:
        return IndexReport(
            files_seen=self.files_total,
            files_indexed=self.files_indexed,
            files_unchanged=self.files_unchanged,
            files_deleted=self.files_deleted,
            chunks_embedded=self.chunks_embedded,
            chunks_reused=self.chunks_reused,
            failed=tuple(self.failed),
            seconds=time.perf_counter() - self.started_at,
        )


def _walk(folders: Iterable[Path], store: SqliteStore) -> tuple[dict[Path, os.stat_result], dict[Path, str]]:
    """All documents of the folders, and the folders that could not be listed with the reason."""
    files: dict[Path, os.stat_result] = {}
    unreadable: dict[Path, str] = {}
    for folder in folders:
        walk = Walk(folder)
        files.update(walk.files())
        unreadable.update(walk.unreadable)
    if isinstance(store.path, Path):
        files = {path: found for path, found in files.items() if not _is_own(path, store.path.parent)}
    return files, unreadable


def _is_own(path: Path, home: Path) -> bool:
    """Whether gritdesk itself writes the file: a log that is indexed would change with every run, without end."""
    if not path.is_relative_to(home):
        return False
    name = path.relative_to(home).parts[0]
    return name in ("logs", "models", "index.lock") or name.startswith(
        ("index.sqlite", "config.toml", "model_identities.json")
    )


def _is_same(known: FileState | None, file_stat: os.stat_result) -> bool:
    return known is not None and (known.size_bytes, known.mtime_ns) == (file_stat.st_size, file_stat.st_mtime_ns)


def _is_same_content(known: FileState | None, state: FileState) -> bool:
    """Whether the rows stand for this content; a file that failed is tried again: it may have been the machine."""
    if known is None or known.state == "failed" or not known.content_hash:
        return False
    return known.content_hash == state.content_hash


def _is_within(path: Path, folders: set[Path]) -> bool:
    return not folders.isdisjoint([path, *path.parents])


def _could_not_be_opened(known: FileState | None) -> bool:
    """Such a file is tried again in every run: a permission that is given leaves its size and time alone."""
    return known is not None and known.state == "failed" and not known.content_hash


def _content_hash(path: Path, file_stat: os.stat_result, config: IndexConfig) -> str:
    """Of the file's bytes; "" if it cannot or should not be opened, for which the reader finds the words."""
    if file_stat.st_size > config.max_file_mb * 1_000_000 or is_in_the_cloud(file_stat):
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError:
        return ""


def _embedding_hash(embedding_input: EmbeddingInput) -> bytes:
    return hashlib.blake2b("\0".join(embedding_input).encode(), digest_size=16).digest()
