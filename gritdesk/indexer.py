"""Changed file -> rows, in two steps that are read top to bottom here: words first, their meaning after.

    words      path -> read -> Document -> chunking.split -> [Chunk] -> Store.replace_document          `_write`
    meaning    Store.awaiting -> [Chunk] -> passage_input -> embed -> Store.add_embeddings              `_embed_slice`

A run takes every changed file through the first step, then whatever awaits it through the second, small and recent
files first, a slice at a time. Between two files and two slices it asks `is_stopped`, where its caller may also do
what is more urgent, such as `update` with a change that has just come, or wait.

What is not done twice:
- a file of unchanged size and time is not opened; one of unchanged content is not read;
- content that another file has in the index already, such as the file it was before it was moved, is copied there;
- a chunk whose text was embedded before, in whatever file, is not embedded.
So additions come first, then deletions, then embeddings that nothing uses any more.

What is not lost: every file is one transaction, every slice another, so a run that ends anywhere is continued by the
next one. A file that cannot be read is listed with its reason and tried again when it changes or is touched; a chunk
that the engine refuses is found by words. A folder that cannot be read, or is not there, keeps its rows. When the
model changes, the index is searched as it was until all of it is embedded anew.

What is not seen: an edit that leaves both the size and the modification time of a file as they were.
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
from gritdesk.grit_format import passage_input
from gritdesk.records import Chunk, Document, EmbeddingInput, FailedFile, IndexProgress, IndexReport
from gritdesk.store.base import FileState, Space, Store
from gritdesk.store.places import size_class
from gritdesk.surveying import Seen, is_same, look_at_file, walk, walk_below
from gritdesk.walking import is_folder, look_at

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_READERS = 1
"""To be raised when readers or chunking make other rows of the same bytes: every file is read again then."""
_FETCH = 256
"""Chunks that are asked of the store at once."""
_FIRST_SLICE, _LARGEST_SLICE, _SLICE_S = 16, 64, 1.0
"""Chunks that are embedded between two looks at `is_stopped`: so many that it takes about a second."""
_TICK_S = 0.02
"""Two changes of a file within this time may leave the same modification time; file systems count in such steps."""


def reading_of(config: IndexConfig, tokenizer: str) -> str:
    """Names what makes the rows of a file: readers, and how its text is cut, measured by whose tokens."""
    return f"{_READERS}/{config.chunk_tokens}/{tokenizer}"


class Indexer:
    """Keeps the store up with folders; the only writer of its store while it lives.

    Args:
        embed: float32[num, dimension], one row per input; raises RequestRefused for a text that it cannot take.
        read: raises ExtractError for a file that cannot be turned into text.
        fingerprint: names the space of `embed`.
        model: path of the model's file, for whoever asks in its space later.
        tokenizer: names what `count_tokens` counts; chunks measured by another one are made anew.
        home: of gritdesk, as Walk has it.
        embeds: whether meaning is worked on now; asked between slices.
    """

    def __init__(
        self,
        store: Store,
        embed: Callable[[Sequence[EmbeddingInput]], NDArray[np.float32]],
        count_tokens: Callable[[Sequence[str]], list[int]],
        read: Callable[[Path], Document],
        fingerprint: str,
        config: IndexConfig,
        *,
        model: str = "",
        tokenizer: str = "",
        home: Path | None = None,
        embeds: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._embed = embed
        self._count_tokens = count_tokens
        self._read = read
        self._fingerprint = fingerprint
        self._config = config
        self._model = model
        self._reading = reading_of(config, tokenizer)
        self._home = home
        self._embeds = embeds
        self._known: dict[Path, FileState] | None = None
        self._by_content: dict[tuple[str, str], Path] | None = None
        self._num_written = 0
        self._slice = _FIRST_SLICE
        self._may_have_orphans = True
        self.is_behind = False
        """Whether words are ahead of meaning, since a run was broken off or was not to embed."""

    def run(
        self,
        folders: Sequence[Path],
        on_progress: Callable[[IndexProgress], None] = lambda progress: None,
        is_stopped: Callable[[], bool] = lambda: False,
        *,
        forget_others: bool = False,
        forget_emptied: bool = True,
    ) -> IndexReport:
        """Bring the index up to date with all files of the folders.

        Args:
            forget_others: also forget, before all else, whatever lies under none of the folders.
            forget_emptied: forget the files of a folder that holds nothing any more, not even a hidden file; a disk
                that is not mounted looks so, too.
        Raises: ModelError, StoreError or ReaderClosed where no file is at fault; what was indexed until then stays.
        """
        tally = _Tally(on_progress, is_stopped)
        if self._embeds():
            self._enter_space(tally)
        tally.num_awaited = self._store.num_awaiting()
        if forget_others:
            within = set(folders)
            self._delete([path for path in self._states if not _is_within(path, within)], tally)
        files, unreadable = walk(folders, self._home)
        if not forget_emptied:
            unreadable |= self._emptied(folders, files)
        to_reread = [(path, seen) for path, seen in files.items() if self._is_of_old_reading(path, seen)]
        tally.expect_to_reread(seen.size_bytes for _, seen in to_reread)
        self._write_words(files, folders, unreadable, set(unreadable), tally)
        self._embed_awaiting(tally)
        self._reread(to_reread, tally)
        if self._may_have_orphans and not tally.was_stopped:  # files not reached may use what seems orphaned now
            self._store.prune()
            self._may_have_orphans = False
        return tally.report(self._store.num_awaiting())

    def update(
        self,
        paths: Iterable[Path],
        on_progress: Callable[[IndexProgress], None] = lambda progress: None,
        is_stopped: Callable[[], bool] = lambda: False,
        *,
        folders: Sequence[Path] = (),
        words_only: bool = False,
    ) -> IndexReport:
        """Bring the index up to date with what a watcher reported: files, folders, and paths that are gone.

        Args:
            folders: those that are watched; one that is not there, or empty, keeps its rows.
            words_only: leave meaning to a later call; this one may come from within `is_stopped` of another.
        """
        tally = _Tally(on_progress, is_stopped)
        changed_paths = set(paths)
        files, unreadable = walk_below(changed_paths, folders, self._home)
        unreadable |= self._emptied(changed_paths.intersection(folders), files)
        lost = {folder for folder in folders if not is_folder(folder)}  # asked last: it may have gone a moment ago
        tally.num_awaited = self._store.num_awaiting()
        self._write_words(files, sorted(changed_paths), unreadable, lost.union(unreadable), tally)
        if words_only:
            self.is_behind = True
        else:
            self._embed_awaiting(tally)
        return tally.report(self._store.num_awaiting())

    # ------------------------------------------------------------ first step: words

    def _write_words(
        self,
        files: Mapping[Path, Seen],
        roots: Iterable[Path],
        unreadable: Mapping[Path, str],
        kept: set[Path],
        tally: _Tally,
    ) -> None:
        """Write what changed, small and recent files first, then delete rows under the roots that stand for no file.

        Args:
            kept: folders whose files keep their rows, seen or not.
        """
        before = dict(self._states)
        changed = [(path, seen) for path, seen in files.items() if not is_same(before.get(path), seen)]
        changed.sort(key=lambda each: (size_class(each[1].size_bytes), -each[1].mtime_ns))
        tally.files_total = len(files)
        tally.files_done = tally.files_unchanged = len(files) - len(changed)
        tally.send()
        for path, seen in changed:
            if tally.should_stop():
                return
            tally.current = path
            if self._states.get(path) is before.get(path):  # else written meanwhile, by what was more urgent
                self._index_file(path, seen, tally)
            tally.files_done += 1
            tally.send()
        tally.folders_kept += len(unreadable)
        for folder, reason in unreadable.items():
            if (known := self._states.get(folder)) is not None and known.state == "indexed":
                tally.failed.append(FailedFile(folder, reason))  # a file by its rows, which a failure would replace
            else:
                self._record_failure(folder, FileState(0, 0, ""), reason, tally)
        within = set(roots)
        self._delete(
            [
                path
                for path, state in before.items()
                if path not in files
                and self._states.get(path) is state
                and _is_within(path, within)
                and not _is_within(path, kept)
            ],
            tally,
        )

    def _index_file(self, path: Path, seen: Seen, tally: _Tally) -> None:
        _let_settle(seen)
        state = FileState(
            seen.size_bytes, seen.mtime_ns, _content_hash(path, seen, self._config), reading=self._reading
        )
        try:
            if self._is_content_of(path, state):
                self._store.touch(path, state)
                self._remember(path, state)
                tally.files_unchanged += 1
            elif not self._copy(path, state, tally):
                self._write(path, seen, state, tally)
        except ReaderClosed:
            raise
        except ExtractError as error:
            self._settle_unread(path, state, str(error), tally)
        except GritDeskError:
            raise
        except Exception as error:  # one file never stops the others
            reason = f"could not be indexed ({type(error).__name__}: {error}); please report this file"
            self._record_failure(path, state, " ".join(reason.split()), tally)

    def _settle_unread(self, path: Path, state: FileState, reason: str, tally: _Tally) -> None:
        """Note why a file could not be read; it may also be gone by now, or its folder closed, which keeps its rows."""
        try:
            is_gone = look_at(path) is None
        except OSError:
            tally.failed.append(FailedFile(path, reason))
            return
        if not is_gone:
            self._record_failure(path, state, reason, tally)
        elif path in self._states:
            self._delete([path], tally)

    def _write(self, path: Path, seen: Seen, state: FileState, tally: _Tally) -> None:
        """The straight line from a path to its rows."""
        document = self._read(path)
        chunks = split(document, self._count_tokens, self._config.chunk_tokens)
        hashes = [_embedding_hash(passage_input(chunk)) for chunk in chunks]
        if (
            look_at_file(path) != seen
        ):  # then this may be the text of other bytes than were hashed: nobody is to copy it
            state = replace(state, content_hash="")
        self._store.replace_document(document, state, chunks, hashes)
        self._remember(path, state)
        tally.files_indexed += 1
        tally.chunks_written += len(chunks)

    def _copy(self, path: Path, state: FileState, tally: _Tally) -> bool:
        """Give a file the rows of another one of its content; False if there is none."""
        source = self._sources.get(_content_key(path, state))
        if source is None or source == path or not self._is_content_of(source, state):
            return False
        if not self._store.copy_document(source, path, state):
            return False
        self._remember(path, state)
        tally.files_copied += 1
        return True

    def _is_content_of(self, path: Path, state: FileState) -> bool:
        """Whether a file's rows stand for this content. One that failed is tried again: it may be the machine."""
        known = self._states.get(path)
        if known is None or known.state == "failed" or not known.content_hash:
            return False
        return (known.content_hash, known.reading) == (state.content_hash, state.reading)

    def _is_of_old_reading(self, path: Path, seen: Seen) -> bool:
        known = self._states.get(path)
        return known is not None and known.reading != self._reading and is_same(known, seen)

    def _record_failure(self, path: Path, state: FileState, reason: str, tally: _Tally) -> None:
        failed = replace(state, state="failed", reason=reason, reading=self._reading)
        self._store.record_failure(path, failed)
        self._remember(path, failed)
        tally.failed.append(FailedFile(path, reason))

    def _delete(self, paths: Sequence[Path], tally: _Tally) -> None:
        if paths:
            self._store.delete_documents(paths)
            self._may_have_orphans = True
        for path in paths:
            tally.files_deleted += self._states.pop(path).state == "indexed"

    def _emptied(self, folders: Iterable[Path], files: Iterable[Path]) -> dict[Path, str]:
        """Folders without any content whose files the index knows, and what is to be said of them."""
        empty = {folder for folder in folders if _is_empty(folder)}
        held = {folder for path in self._states for folder in empty.intersection(path.parents)} if empty else set()
        reason = "the folder is empty (its disk not mounted?); its files are kept until `gritdesk index` is given it"
        return dict.fromkeys(sorted(held), reason)

    # ------------------------------------------------------------ second step: meaning

    def _enter_space(self, tally: _Tally) -> None:
        """Begin to fill another space if another model made the searched one; the first is named by its first rows."""
        searched, filled = self._store.space(), self._store.next_space()
        space = filled or searched
        if space is None or (space.fingerprint, space.model) == (self._fingerprint, self._model):
            return
        (row,) = self._embed([("", "how long are its embeddings?")])  # and can it embed at all?
        self._store.enter_space(Space(self._fingerprint, len(row), self._model))
        if searched is not None and searched.fingerprint != self._fingerprint:
            tally.send(note="the model changed: all passages are embedded anew, and until then found as before")

    def _embed_awaiting(self, tally: _Tally) -> None:
        """Embed what awaits it, until all is done or it is to stop."""
        self.is_behind = True
        if not self._embeds():
            return
        self._enter_space(tally)
        tally.begin_to_embed(self._store.num_awaiting())
        while awaiting := self._store.awaiting(_FETCH):
            num_written = self._num_written
            while awaiting:
                if tally.should_stop() or not self._embeds():
                    return
                if num_written != self._num_written:  # smaller and more recent files may await now
                    break
                began_at = time.perf_counter()
                self._embed_slice(awaiting[: self._slice], tally)
                del awaiting[: self._slice]
                per_second = self._slice / max(time.perf_counter() - began_at, 1e-9)
                self._slice = max(1, min(int(per_second * _SLICE_S), _LARGEST_SLICE))
                tally.send()
        self._store.finish_space()
        self.is_behind = False
        tally.end_embedding()

    def _embed_slice(self, awaiting: Sequence[tuple[bytes, Chunk]], tally: _Tally) -> None:
        """The straight line from chunks to their embeddings; of a slice that is refused, each chunk for itself."""
        try:
            rows = self._embed([passage_input(chunk) for _, chunk in awaiting]).astype("float32", copy=False)
        except RequestRefused as error:
            if len(awaiting) == 1:
                self._store.give_up(awaiting[0][0], str(error))
                tally.chunks_given_up += 1
                return
            for each in awaiting:
                self._embed_slice([each], tally)
            return
        if self._store.space() is None:
            self._store.enter_space(Space(self._fingerprint, rows.shape[1], self._model))
        self._store.add_embeddings({hash_: row for (hash_, _), row in zip(awaiting, rows, strict=True)})
        tally.chunks_embedded += len(awaiting)

    def _reread(self, files: Sequence[tuple[Path, Seen]], tally: _Tally) -> None:
        """Read files again whose rows another reading made, each with its meaning: nothing is missed for long."""
        if not files:
            return
        tally.begin_to_reread()
        for number, (path, seen) in enumerate(files, start=1):
            if tally.should_stop():
                return
            if self.is_behind:  # they are in the index, and read again when meaning is worked on
                tally.leave_unread()
                return
            tally.current = path
            self._index_file(path, seen, tally)
            tally.files_unchanged -= 1
            if number == len(files) or self._store.num_awaiting() >= _LARGEST_SLICE:
                self._embed_awaiting(tally)
            tally.end_file_reread(seen.size_bytes)

    # ------------------------------------------------------------ what is known

    @property
    def _states(self) -> dict[Path, FileState]:
        if self._known is None:
            self._known = self._store.files()
        return self._known

    @property
    def _sources(self) -> dict[tuple[str, str], Path]:
        """By suffix and content, a file that has or had it."""
        if self._by_content is None:
            self._by_content = {_content_key(path, state): path for path, state in self._states.items()}
        return self._by_content

    def _remember(self, path: Path, state: FileState) -> None:
        self._states[path] = state
        self._num_written += 1
        self._may_have_orphans = True
        if state.state == "indexed" and state.content_hash and self._by_content is not None:
            self._by_content[_content_key(path, state)] = path


@dataclass
class _Tally:
    """What a run did so far; the one mutable thing in it."""

    on_progress: Callable[[IndexProgress], None]
    is_stopped: Callable[[], bool]
    files_total: int = 0
    files_done: int = 0
    """Those that are to be read again are among them, and are told of as not done."""
    files_indexed: int = 0
    files_copied: int = 0
    files_unchanged: int = 0
    files_deleted: int = 0
    folders_kept: int = 0
    chunks_written: int = 0
    chunks_embedded: int = 0
    chunks_given_up: int = 0
    num_awaited: int = 0
    """Chunks that awaited their embedding when the run began."""
    current: Path | None = None
    was_stopped: bool = False
    failed: list[FailedFile] = field(default_factory=list)
    started_at: float = field(default_factory=time.perf_counter)
    _files_to_reread: int = 0
    _bytes_to_reread: int = 0
    _bytes_reread: int = 0
    _rereading_since: float | None = None
    _awaiting: int = 0
    _embedding_since: float = 0.0
    _embedded_before: int = 0

    def should_stop(self) -> bool:
        self.was_stopped = self.was_stopped or self.is_stopped()
        return self.was_stopped

    def begin_to_embed(self, num_awaiting: int) -> None:
        self._awaiting = num_awaiting
        self._embedding_since, self._embedded_before = time.perf_counter(), self.chunks_embedded + self.chunks_given_up
        if num_awaiting:
            self.send()

    def end_embedding(self) -> None:
        self._awaiting = 0
        self.send()

    def expect_to_reread(self, sizes_bytes: Iterable[int]) -> None:
        sizes = list(sizes_bytes)
        self._files_to_reread, self._bytes_to_reread = len(sizes), sum(sizes)

    def begin_to_reread(self) -> None:
        self._rereading_since = time.perf_counter()

    def end_file_reread(self, size_bytes: int) -> None:
        self._files_to_reread -= 1
        self._bytes_reread += size_bytes
        self.send()

    def leave_unread(self) -> None:
        self._files_to_reread, self._rereading_since = 0, None
        self.send()

    def send(self, note: str = "") -> None:
        files_done = self.files_done - self._files_to_reread
        progress = IndexProgress(files_done, self.files_total, self.current, self.chunks_embedded, note)
        if self._rereading_since is None:
            awaiting, seconds_left = self._embedding_left()
            # of what is to be read again afterwards nobody knows yet how long it takes
            seconds_left = None if self._files_to_reread else seconds_left
            progress = replace(progress, chunks_awaiting=awaiting, seconds_left=seconds_left)
        else:  # the few passages that await their meaning meanwhile are part of it
            progress = replace(progress, seconds_left=self._rereading_left_s(self._rereading_since))
        self.on_progress(progress)

    def _embedding_left(self) -> tuple[int, float | None]:
        """How many chunks await their embedding, and how many seconds that takes, if it can be told."""
        embedded = self.chunks_embedded + self.chunks_given_up - self._embedded_before
        awaiting = max(self._awaiting - embedded, 0)
        seconds = time.perf_counter() - self._embedding_since
        return awaiting, seconds * awaiting / embedded if embedded and awaiting else None

    def _rereading_left_s(self, since: float) -> float | None:
        left = self._bytes_to_reread - self._bytes_reread
        if not (left and self._bytes_reread):
            return None
        return (time.perf_counter() - since) * left / self._bytes_reread

    def report(self, num_awaiting: int) -> IndexReport:
        num_new = self.chunks_embedded + self.chunks_given_up + num_awaiting - self.num_awaited
        return IndexReport(
            files_seen=self.files_total,
            files_indexed=self.files_indexed,
            files_copied=self.files_copied,
            files_unchanged=self.files_unchanged,
            files_deleted=self.files_deleted,
            chunks_embedded=self.chunks_embedded,
            chunks_reused=max(self.chunks_written - max(num_new, 0), 0),
            failed=tuple(self.failed),
            seconds=time.perf_counter() - self.started_at,
            folders_kept=self.folders_kept,
        )


def _is_within(path: Path, folders: set[Path]) -> bool:
    return not folders.isdisjoint([path, *path.parents])


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as listing:
            return next(listing, None) is None
    except OSError:
        return False


def _let_settle(seen: Seen) -> None:
    """Wait until no later change of the file can leave its modification time as it is."""
    age_s = time.time() - seen.mtime_ns / 1e9
    if 0 <= age_s < _TICK_S:
        time.sleep(_TICK_S - age_s)


def _content_hash(path: Path, seen: Seen, config: IndexConfig) -> str:
    """Of the file's bytes; "" if it cannot or should not be opened, for which the reader finds the words."""
    if seen.size_bytes > config.max_file_mb * 1_000_000 or seen.is_in_the_cloud:
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError:
        return ""


def _content_key(path: Path, state: FileState) -> tuple[str, str]:
    """Files of one key are read alike: readers look at the content, and at the suffix or a name without one."""
    return path.suffix.lower() or path.name, state.content_hash


def _embedding_hash(embedding_input: EmbeddingInput) -> bytes:
    return hashlib.blake2b("\0".join(embedding_input).encode(), digest_size=16).digest()
