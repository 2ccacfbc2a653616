"""What indexing would take, said before it is done: folders counted by the rules of the walk, and a little of it tried.

    count      folder --Walk--> files, bytes, what is skipped, and a few files of each kind drawn by chance
    try        those files --read--> Document --split--> [Chunk], for some seconds                   words
               chunks --passage_input--> embed, for some seconds, by the very model                  meaning
    estimate   the seconds and the tokens of what was tried, times what there is of its kind

Nothing is written. What was tried once is remembered, so that another choice of folders costs nothing but sums.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gritdesk.chunking import split
from gritdesk.config import IndexConfig
from gritdesk.errors import ExtractError
from gritdesk.extract import ZIP_SUFFIXES
from gritdesk.grit_format import passage_input
from gritdesk.records import Chunk, Document, Estimate, FolderCount, KindCount
from gritdesk.store.base import FileState
from gritdesk.surveying import as_seen, is_same
from gritdesk.walking import Walk, distinct

if TYPE_CHECKING:
    from gritdesk.records import EmbeddingInput

_DRAWN = 6
"""Files of a kind that may be tried."""
_TRIED_S = 2.0
"""So long files are read to try."""
_EMBEDDED_S = 1.5
"""So long passages are embedded to try, or one call if that takes longer."""
_LARGEST_TRIED, _LARGEST_PACKED = 400_000, 4_000_000
"""Bytes of a text, and of what holds pages or is packed; a larger file could take all the time there is."""
_TELL_EVERY_S = 0.1
MOST_FILES = 200_000
COUNTED_S = 20.0
"""A folder is counted so far, or so long; what is beyond is said to be more."""
_WRITTEN_S = 0.002
"""Of a file, to write its rows; measured at 1.1 ms on an SSD."""
_BESIDE_EMBEDDING = 1.1
"""Indexing takes so many times as long as embedding alone at most, as benchmarks/indexing.py measures it."""
SENTENCE = "The keeper climbed the stairs of the lighthouse at dusk and lit the lamp before the first ship came by. "
"""What is embedded to try where there is no text of one's own."""

_USUAL_NAMES = """Notes notes Obsidian Zettelkasten Projects projects Work work Papers papers Books
wiki src code repos Dropbox OneDrive Nextcloud""".split()
_MOST_USUAL = 10


# ---------------------------------------------------------------- count


def usual_folders(home: Path | None = None) -> list[Path]:
    """Folders of this person's where documents may lie, those that are there, the likeliest first.

    Args:
        home: of the person; None asks the system.
    """
    from platformdirs import user_desktop_path, user_documents_path

    asked = [user_documents_path(), user_desktop_path()] if home is None else [home / "Documents", home / "Desktop"]
    try:
        home = (home or Path.home()).absolute()
    except RuntimeError:  # no home is known
        return []
    found: list[Path] = []
    for folder in [*asked, *(home / name for name in _USUAL_NAMES)]:
        with suppress(OSError):  # closed, or gone since
            # all of a home is no folder of documents, as which some systems name it
            if folder.is_dir() and not any(folder.samefile(each) for each in [home, *found]):
                found.append(folder)
    return found[:_MOST_USUAL]


def count_files(
    folder: Path,
    known: Mapping[Path, FileState],
    config: IndexConfig,
    home: Path | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    *,
    most_files: int = MOST_FILES,
    counted_s: float = COUNTED_S,
) -> Iterator[FolderCount]:
    """Count the files of a folder; comes some times a second while it grows, the last of them is over.

    Args:
        known: what the index holds.
        home: of gritdesk, as Walk has it.
    """
    walk = Walk(folder, home)
    draw = random.Random(0)
    kinds: dict[str, _Kind] = {}
    num_files = num_known = size_bytes = 0
    beyond: Counter[str] = Counter()
    began_at = told_at = time.monotonic()

    def count(*, is_over: bool, is_whole: bool = True) -> FolderCount:
        drawn = {suffix: kind.count() for suffix, kind in kinds.items()}
        skipped = dict(walk.skipped + beyond)
        problem = walk.unreadable.get(folder, "")
        return FolderCount(folder, num_files, size_bytes, num_known, skipped, drawn, problem, is_over, is_whole)

    for path, file_stat in walk.files():
        seen, now = as_seen(file_stat), time.monotonic()
        if is_stopped():
            return
        if num_files >= most_files or now - began_at > counted_s:
            yield count(is_over=True, is_whole=False)
            return
        if seen.size_bytes > config.max_file_mb * 1_000_000:
            beyond["larger than index.max_file_mb"] += 1
        elif seen.is_in_the_cloud:
            beyond["in the cloud"] += 1
        else:
            num_files, size_bytes = num_files + 1, size_bytes + seen.size_bytes
            if is_same(known.get(path), seen, may_open=False):
                num_known += 1
            else:
                kinds.setdefault(path.suffix.lower(), _Kind()).add(path, seen.size_bytes, draw)
        if now - told_at > _TELL_EVERY_S:
            told_at = now
            yield count(is_over=False)
    yield count(is_over=True)


@dataclass
class _Kind:
    """Files of one suffix that are new, and a few of them drawn by chance."""

    num_files: int = 0
    size_bytes: int = 0
    drawn: list[tuple[float, Path, int]] = field(default_factory=list)

    def add(self, path: Path, size_bytes: int, draw: random.Random) -> None:
        """A file is drawn the likelier the more bytes it has: it is they that take the time.

        Source: Efraimidis and Spirakis 2006, Weighted random sampling with a reservoir.
        """
        lot = -draw.expovariate(1.0) / max(size_bytes, 1)
        self.num_files, self.size_bytes = self.num_files + 1, self.size_bytes + size_bytes
        is_packed = path.suffix.lower() in ZIP_SUFFIXES | {".pdf"}
        if size_bytes <= (_LARGEST_PACKED if is_packed else _LARGEST_TRIED):
            (heapq.heappush if len(self.drawn) < _DRAWN else heapq.heappushpop)(self.drawn, (lot, path, size_bytes))

    def count(self) -> KindCount:
        in_order = sorted(self.drawn, reverse=True)
        return KindCount(self.num_files, self.size_bytes, tuple((path, size) for _, path, size in in_order))


# ---------------------------------------------------------------- try, and estimate


@dataclass(frozen=True)
class _Tried:
    """What came of reading one file."""

    size_bytes: int
    seconds: float
    chunks: tuple[Chunk, ...] = ()
    """None of a file that could not be read."""

    @property
    def num_tokens(self) -> int:
        return sum(chunk.num_tokens for chunk in self.chunks)


class Estimator:
    """Says how long folders would take; remembers what it tried.

    Args:
        read: raises ExtractError for a file that cannot be turned into text.
        home: of gritdesk, as Walk has it.
    """

    def __init__(
        self,
        read: Callable[[Path], Document],
        count_tokens: Callable[[Sequence[str]], list[int]],
        embed: Callable[[Sequence[EmbeddingInput]], Any],
        config: IndexConfig,
        home: Path | None = None,
    ) -> None:
        self._read, self._count_tokens, self._embed = read, count_tokens, embed
        self._config, self._home = config, home
        self._tried: dict[Path, _Tried] = {}
        self._tokens_per_s = 0.0

    def estimate(self, counts: Sequence[FolderCount]) -> Estimate:
        """What the files of these folders take that the index does not hold yet.

        A folder inside another of them is counted once. Raises: ModelError if the model cannot embed.
        """
        wanted = set(distinct([each.folder for each in counts], self._home))
        counts = [each for each in counts if each.folder in wanted]
        kinds = [(suffix, kind) for each in counts for suffix, kind in each.kinds.items()]
        self._try([kind for _, kind in kinds])
        self._tokens_per_s = self._tokens_per_s or self._measure()
        num_chunks = words_s = num_tokens = 0.0
        for suffix, kind in kinds:
            alike = [each for other, each in kinds if other == suffix]
            tried = self._tried_of([kind]) or self._tried_of(alike) or list(self._tried.values())
            per_byte = _per_byte(tried)
            words_s += kind.size_bytes * per_byte.seconds + kind.num_files * _WRITTEN_S
            num_chunks += kind.size_bytes * per_byte.chunks
            num_tokens += kind.size_bytes * per_byte.tokens
        return Estimate(
            folders=tuple(counts),
            num_passages=round(num_chunks),
            words_s=words_s,
            meaning_s=_BESIDE_EMBEDDING * num_tokens / self._tokens_per_s,
            tokens_per_s=self._tokens_per_s,
        )

    def _try(self, kinds: Sequence[KindCount]) -> None:
        """Read some files until time is up, most of the kinds that have most bytes."""
        if not self._tried and (first := next((path for kind in kinds for path, _ in kind.drawn), None)):
            self._chunks_of(first)  # the engine and the reader are started before the clock
        ends_at, num_tried = time.perf_counter() + _TRIED_S, [0] * len(kinds)
        while time.perf_counter() < ends_at:
            open_ = [at for at, kind in enumerate(kinds) if num_tried[at] < len(kind.drawn)]
            if not open_:
                return
            at = max(open_, key=lambda at: kinds[at].size_bytes / (1 + num_tried[at]))
            path, size_bytes = kinds[at].drawn[num_tried[at]]
            num_tried[at] += 1
            if path not in self._tried:
                self._tried[path] = self._try_file(path, size_bytes)

    def _try_file(self, path: Path, size_bytes: int) -> _Tried:
        began_at = time.perf_counter()
        chunks = self._chunks_of(path)
        return _Tried(size_bytes, time.perf_counter() - began_at, tuple(chunks))

    def _chunks_of(self, path: Path) -> list[Chunk]:
        """None of a file that cannot be read, which takes its time all the same."""
        try:
            return split(self._read(path), self._count_tokens, self._config.chunk_tokens)
        except ExtractError:
            return []

    def _tried_of(self, parts: Iterable[KindCount]) -> list[_Tried]:
        return [self._tried[path] for part in parts for path, _ in part.drawn if path in self._tried]

    def _measure(self) -> float:
        chunks = [chunk for tried in self._tried.values() for chunk in tried.chunks]
        random.Random(0).shuffle(chunks)
        return embedding_speed(self._embed, chunks or [sentences(self._count_tokens)])


def sentences(count_tokens: Callable[[Sequence[str]], list[int]]) -> Chunk:
    """A passage to try a model with where there is none of one's own."""
    text = SENTENCE * 5
    return Chunk(text, 0, len(text), 1, 1, num_tokens=count_tokens([text])[0])


def embedding_speed(
    embed: Callable[[Sequence[EmbeddingInput]], Any], chunks: Sequence[Chunk], for_s: float = _EMBEDDED_S
) -> float:
    """Tokens per second of these passages, embedded as indexing does it; more at a time while that takes no time.

    Titles and frames cost time and do not count.
    """
    embed([("", SENTENCE)])  # the first call reads the weights from the disk
    at_once, at, num_tokens, seconds = 1, 0, 0, 0.0
    while seconds < for_s:
        some = [chunks[(at + offset) % len(chunks)] for offset in range(at_once)]
        began_at = time.perf_counter()
        embed([passage_input(chunk) for chunk in some])
        took_s = time.perf_counter() - began_at
        num_tokens, seconds = num_tokens + sum(chunk.num_tokens for chunk in some), seconds + took_s
        at += at_once
        at_once = min(at_once * 4, 64) if took_s < for_s / 8 else at_once
    return max(num_tokens, 1) / seconds


@dataclass(frozen=True)
class _PerByte:
    seconds: float
    chunks: float
    tokens: float


def _per_byte(tried: Sequence[_Tried]) -> _PerByte:
    """Of files on the disk; where nothing could be tried, of plain text as it mostly is."""
    size_bytes = sum(each.size_bytes for each in tried)
    if not size_bytes:
        return _PerByte(1e-7, 1 / 800, 1 / 4)
    return _PerByte(
        sum(each.seconds for each in tried) / size_bytes,
        sum(len(each.chunks) for each in tried) / size_bytes,
        sum(each.num_tokens for each in tried) / size_bytes,
    )
