"""A Desk that plays a script: the same calls, with events instead of a model and an index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gritdesk.completing import FilterValues
from gritdesk.config import Config, with_setting
from gritdesk.errors import ConfigError
from gritdesk.gguf_file import read_header
from gritdesk.grit_format import Cache
from gritdesk.keeping import Keeper, Pause
from gritdesk.machine import Machine
from gritdesk.model_facts import ModelFacts, describe
from gritdesk.models import ModelFile, default_model
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    Chat,
    ChatSummary,
    Chunk,
    Citation,
    Estimate,
    EvidenceFound,
    Exchange,
    FailedFile,
    FileRow,
    FolderCount,
    FolderRow,
    Hit,
    IndexProgress,
    IndexReport,
    Library,
    Map,
    MapCluster,
    MapPoint,
    Misses,
    PathReport,
    PieceGenerated,
    Place,
    Price,
    Reranking,
    SearchMode,
    SimilarFiles,
    Skip,
    Status,
)
from gritdesk.scoping import Places
from gritdesk.settings import Setting, find_setting, parsed, settings_of
from gritdesk.stored import Stored

PATIENCE_S = 15.0
"""After this a gate opens by itself, so that a failed test ends."""
NOTES = Path("/notes")

LIMITS_TEXT = """# Rate limits

The public API counts requests per key. Until March it used a fixed window, and
clients that woke at the full minute were refused together.

## Decision

On 4 March we chose the token bucket, because it lets short bursts through and
still holds the mean rate. A bucket holds 60 tokens and gains one a second.

## Open

What a refused client is told, and whether the header names the wait.
"""

SPEC_TEXT = """Interface specification, part 2.

A server that refuses a request for its rate answers 429 and names the seconds to
wait in Retry-After. Clients must not try again before.

Buckets are kept per key and per route.
"""

CODE_TEXT = '''class TokenBucket:
    """Lets bursts through and holds the mean rate."""

    def __init__(self, capacity, per_second):
        self.capacity = capacity
        self.per_second = per_second

    def take(self, now):
        self.tokens = min(self.capacity, self.tokens + (now - self.last) * self.per_second)
        self.last = now
        return self.tokens >= 1
'''

DOCUMENTS = {
    NOTES / "api" / "rate-limits.md": LIMITS_TEXT,
    NOTES / "api" / "interface.pdf": SPEC_TEXT,
    NOTES / "src" / "bucket.py": CODE_TEXT,
}


def hit_in(path: Path, text: str, passage: str, chunk_id: int, heading: str = "", page: int | None = None) -> Hit:
    """A hit whose chunk is `passage`, placed where it stands in `text`."""
    start = text.index(passage)
    line = text.count("\n", 0, start) + 1
    end_line = line + passage.count("\n")
    chunk = Chunk(passage, start, start + len(passage), line, end_line, heading, page, len(passage.split()))
    return Hit(chunk_id, path, chunk, 1.0 / chunk_id, 0.2, chunk_id, chunk_id)


def sample_hits() -> list[Hit]:
    markdown, pdf, code = DOCUMENTS
    return [
        hit_in(markdown, LIMITS_TEXT, _between(LIMITS_TEXT, "On 4 March", "second."), 1, "Rate limits > Decision"),
        hit_in(pdf, SPEC_TEXT, _between(SPEC_TEXT, "A server", "before."), 2, page=7),
        hit_in(code, CODE_TEXT, _between(CODE_TEXT, "    def take", "tokens >= 1"), 3, "TokenBucket > take"),
    ]


def _between(text: str, first: str, last: str) -> str:
    start = text.index(first)
    return text[start : text.index(last, start) + len(last)]


def answer_of(question: str, text: str, hits: Sequence[Hit], cited: Sequence[int], *, grounded: bool = True) -> Answer:
    citations = tuple(
        Citation(n, hits[n - 1].path, hits[n - 1].chunk.line_start, hits[n - 1].chunk.line_end, hits[n - 1].chunk.text)
        for n in cited
    )
    return Answer(question, text, grounded, citations, {"total_s": 2.4})


def sample_answer(question: str = "Why a token bucket?") -> list[AnswerEvent]:
    """Evidence, pieces, the end."""
    hits = tuple(sample_hits())
    text = "The **token bucket** was chosen on 4 March [1]: it lets bursts through and holds the mean rate [3]."
    pieces = [PieceGenerated(word + " ") for word in text.split(" ")[:-1]] + [PieceGenerated(text.split(" ")[-1])]
    return [EvidenceFound(hits), *pieces, AnswerFinished(answer_of(question, text, hits, (1, 3)))]


def sample_map(paths: Sequence[Path], num_clusters: int) -> Map:
    """The paths dealt to the clusters in turn, each cluster on a spot of its own."""
    themes = [("token", "bucket", "limit"), ("server", "header", "retry"), ("key", "route", "client")]
    points = [
        MapPoint(path, 0.1 + 0.4 * (number % num_clusters) + 0.01 * number, 0.1 + 0.05 * number, number % num_clusters)
        for number, path in enumerate(paths)
    ]
    members = [[point for point in points if point.cluster == number] for number in range(num_clusters)]
    clusters = [
        MapCluster(themes[number], 0.15 + 0.35 * number, 0.2 + 0.3 * number, len(each))
        for number, each in enumerate(members)
    ]
    return Map(tuple(points), tuple(clusters))


def sample_library() -> Library:
    """A folder with a file in every state, one whose disk is away, and a skipped file."""
    files = (
        FileRow(NOTES / "api" / "rate-limits.md", "indexed", 1_234, 1_700_000_000_000_000_000),
        FileRow(NOTES / "api" / "scan.pdf", "failed", 5_000_000, 0, "its pages are [pictures]"),
        FileRow(NOTES / "edited.md", "changed", 10, 0),
        FileRow(NOTES / "new.md", "waiting", 10, 0),
    )
    away = FolderRow(Path("/stick"), 9, 0, 0, 90, "the folder is not there", num_chunks=11)
    folders = (FolderRow(NOTES, 2, 2, 1, 5_001_254, num_chunks=1), away)
    skip = Skip("pattern of .gritignore", NOTES / "draft.md", "draft*", NOTES / ".gritignore", 3)
    return Library(folders, files, (skip,), {skip.rule: 1}, 12)


def sample_facts() -> ModelFacts:
    """Of the model that comes with gritdesk."""
    return describe(read_header(default_model()))


class FakeChats:
    """Keeps nothing; one chat may be there."""

    def __init__(self) -> None:
        self.kept: Chat | None = None
        self.num_started = 0
        self.are_kept = True

    def all(self) -> list[ChatSummary]:
        return []

    def start(self) -> str:
        self.num_started += 1
        return f"chat {self.num_started}"

    def latest(self) -> str:
        if self.kept is None:
            raise ConfigError("there is no chat to go on with")
        return self.kept.id

    def read(self, id_: str) -> Chat:
        assert self.kept is not None and self.kept.id == id_
        return self.kept


class FakeDesk:
    """Answers at once unless a gate stands in the way; a gate is an Event, and closing the desk opens all."""

    def __init__(self) -> None:
        self.hits: Callable[[str, SearchMode], list[Hit]] = lambda query, mode: sample_hits()
        self.script: list[AnswerEvent | threading.Event | Exception] = list(sample_answer())
        """What `ask` plays: events are yielded, gates waited for, exceptions raised."""
        self.progress: list[IndexProgress] = []
        self.folders: tuple[Path, ...] = (NOTES,)
        self.is_shared = False
        """The index is a team's, and holds files without a folder of this home."""
        self.failed: tuple[FailedFile, ...] = ()
        self.documents: dict[Path, str] = dict(DOCUMENTS)
        self.cited_places: dict[int, Place] = {}
        """Where citation [n] stands by now; where it stood unless it says otherwise."""
        self.failures: dict[str, Exception] = {}
        """Raised by the call of that name."""
        self.search_gates: dict[tuple[str, SearchMode], threading.Event] = {}
        self.near_misses = Misses((), ())
        self.misses_gate: threading.Event | None = None
        self.not_in_index: list[PathReport] = []
        self.queries: list[str] = []
        self.shelves = sample_library()
        self.paused = ""
        self.library_map = sample_map([NOTES / f"{name}.md" for name in "abcdefghijkl"], 3)
        self.map_gate: threading.Event | None = None
        self.model_gate = threading.Event()
        self.model_gate.set()
        self.rerank_gate: threading.Event | None = None
        self.closed = threading.Event()
        self.watching = threading.Event()
        self.finished = threading.Event()
        """Watching has ended."""
        self.calls: list[tuple[Any, ...]] = []
        self.num_answers_closed = 0
        self.asked_within: list[tuple[Path, ...]] = []
        """Of each question."""
        self.notify: Callable[[str], None] = lambda notice: None
        self.chats = FakeChats()
        self.most_at_once: dict[str, int] = {}
        self.usual: dict[Path, FolderCount] = {
            each.folder: each
            for each in (
                FolderCount(Path("/me/Documents"), 1204, 13_000_000, skipped={"hidden name": 83}, is_over=True),
                FolderCount(Path("/me/Projects"), 200_000, 900_000_000, is_over=True, is_whole=False),
                FolderCount(Path("/me/Closed"), problem="no permission to list it", is_over=True),
            )
        }
        """Folders where documents may lie, and what counting each of them gives."""
        self.count_gate: threading.Event | None = None
        self.config = Config(Path("/home/gritdesk"))
        self.prices: dict[str, Price] = {}
        """By key; what is not there costs nothing."""
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def index(
        self,
        folders: Sequence[Path] = (),
        on_progress: Callable[[IndexProgress], None] | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> IndexReport:
        self._called("index", *folders)
        self.folders = (*self.folders, *folders)
        return IndexReport(0, 0, 0, 0, 0, 0, (), 0.0)

    def add_folder(self, folder: Path) -> None:
        self._called("add_folder", folder)

    def search(self, query: str, n: int = 10, mode: SearchMode = "hybrid", *, explain: bool = False) -> list[Hit]:
        self._called("search", query, mode)
        with self._lock:
            self._running[mode] = self._running.get(mode, 0) + 1
            self.most_at_once[mode] = max(self.most_at_once.get(mode, 0), self._running[mode])
        try:
            self._wait(self.search_gates.get((query, mode)))
            return self.hits(query, mode)
        finally:
            with self._lock:
                self._running[mode] -= 1

    def ask(
        self,
        question: str,
        past: Sequence[Exchange] = (),
        is_stopped: Callable[[], bool] | None = None,
        *,
        within: Sequence[Path] = (),
        chat: str = "",
        anyway: bool = False,
        cache: Cache | None = None,
    ) -> Iterator[AnswerEvent]:
        before = tuple((each.question, each.answer.text) for each in past)
        self._called("ask", question, before, chat, *(["anyway"] if anyway else []))
        self.asked_within.append(tuple(within))
        try:
            for step in self.script:
                if isinstance(step, threading.Event):
                    self._wait(step, is_stopped)
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.num_answers_closed += 1

    def misses(self, query: str, mode: SearchMode = "hybrid") -> Misses:
        self._called("misses", query, mode)
        self._wait(self.misses_gate)
        return self.near_misses

    def unread(self, query: str, n: int = 5) -> list[PathReport]:
        self._called("unread", query)
        return self.not_in_index

    def past_queries(self) -> list[str]:
        return list(self.queries)

    def remember_query(self, query: str) -> None:
        self.queries = [*(each for each in self.queries if each != query), query]

    def filter_values(self) -> FilterValues:
        self._called("filter_values")
        return FilterValues((NOTES, NOTES / "api", NOTES / "src"), ("md", "pdf", "py"), ("rate-limits.md", "bucket.py"))

    def map(
        self,
        num_clusters: int | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        paths: Sequence[Path] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Map:
        self._called("map", num_clusters, None if paths is None else tuple(paths))
        self._wait(self.map_gate, is_stopped)
        return self.library_map if paths is None else sample_map(paths, 1)

    def library(self) -> Library:
        self._called("library")
        return self.shelves

    def places(self) -> Places:
        self._called("places")
        return Places(map(str, self.documents), self.folders)

    def chunks_of(self, path: Path) -> list[Chunk]:
        self._called("chunks_of", path)
        return [hit.chunk for hit in sample_hits() if hit.path == path]

    def model_texts(self, chunks: Sequence[Chunk]) -> list[str]:
        return [f"<|embed|>\n{chunk.text}" for chunk in chunks]

    def why(self, path: Path) -> PathReport:
        self._called("why", path)
        return PathReport(path, "indexed", "it is in the index", format="markdown", num_chunks=3, num_embedded=2)

    def similar(self, path: Path, n: int = 10) -> SimilarFiles:
        self._called("similar", path)
        return SimilarFiles(tuple(hit for hit in sample_hits() if hit.path != path), ())

    def forget_folder(self, folder: Path) -> tuple[int, Keeper | None]:
        self._called("forget_folder", folder)
        return 3, None

    def retry(self, path: Path) -> None:
        self._called("retry", path)

    def look_again(self) -> None:
        self._called("look_again")

    def pause(self, for_s: float | None = None) -> Pause:
        self._called("pause")
        self.paused = "paused since 10:00, until `gritdesk resume`"
        return Pause(0.0)

    def resume(self) -> bool:
        self._called("resume")
        was_paused, self.paused = bool(self.paused), ""
        return was_paused

    def rerank(
        self,
        query: str,
        hits: Sequence[Hit],
        budget_s: float | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> Iterator[Reranking]:
        """Turns the hits over from the last one on; waits for the gate before the last."""
        self._called("rerank", query, *(hit.chunk_id for hit in hits))
        for num_read in range(len(hits)):
            yield Reranking(
                (*hits[len(hits) - num_read :], *hits[: len(hits) - num_read]), num_read, 2.0, 0.1 * num_read
            )
            self._wait(self.rerank_gate if num_read == 1 else None, is_stopped)
            if is_stopped is not None and is_stopped():
                return
        yield Reranking(tuple(hits[::-1]), len(hits), 2.0, 1.5)

    def prefill(self, question: str, past: Sequence[Exchange] = (), *, within: Sequence[Path] = ()) -> bool:
        self._called("prefill", question, tuple(past), tuple(within))
        return True

    def embed(self, texts: Sequence[str], instruction: str = "") -> np.ndarray[Any, np.dtype[np.float32]]:
        self._called("embed", *texts)
        self._wait(self.model_gate)
        return np.zeros((len(texts), 4), np.float32)

    def status(self) -> Status:
        self._called("status")
        place = Path("/home/index.sqlite")
        waits = {"paused": self.paused, "quiet": self.config.index.quiet}
        files, chunks = (1204, 8310) if self.folders or self.is_shared else (0, 0)
        return Status(files, chunks, 0, self.failed, self.folders, "grit-nano.gguf", "f", place, 1, 1, **waits)

    def machine(self) -> Machine:
        self._called("machine")
        return Machine("Linux x86_64", 8, 32_000_000_000, 21_000_000_000, 98_000_000_000)

    def models(self) -> list[tuple[ModelFile, ModelFacts | None]]:
        self._called("models")
        files = [
            ModelFile("grit-nano", Path("/app/grit-nano.gguf"), 9_700_000, True),
            ModelFile("large", Path("/home/gritdesk/models/large.gguf"), 4_100_000_000, False),
        ]
        return [(each, None if each.name == "large" else sample_facts()) for each in files]

    def engine_info(self) -> Any:
        self._called("engine_info")

        class Info:
            on_gpu = True

        return Info()

    def usual_folders(self) -> list[Path]:
        self._called("usual_folders")
        return list(self.usual)

    def count_files(self, folder: Path, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[FolderCount]:
        """Seven files at first; the rest comes when the gate opens."""
        self._called("count_files", folder)
        yield FolderCount(folder, 7, 700)
        self._wait(self.count_gate, is_stopped)
        yield self.usual.get(folder, FolderCount(folder, 3, 3_000, is_over=True))

    def estimate(self, counts: Sequence[FolderCount]) -> Estimate:
        """A second of meaning for every file."""
        self._called("estimate", *(each.folder for each in counts))
        num_files = sum(each.num_files for each in counts)
        return Estimate(tuple(counts), 10 * num_files, 0.01 * num_files, float(num_files), 2_000.0)

    def settings(self) -> tuple[Setting, ...]:
        self._called("settings")
        return settings_of(self.config)

    def check_setting(self, key: str, typed: str | None) -> None:
        self._called("check_setting", key, typed)
        self._with(key, typed)

    def price(self, key: str, typed: str | None) -> Price:
        self._called("price", key, typed)
        return self.prices.get(key, Price())

    def change_setting(self, key: str, typed: str | None) -> Setting:
        self._called("change_setting", key, typed)
        self.config = self._with(key, typed)
        return find_setting(self.config, key)

    def _with(self, key: str, typed: str | None) -> Config:
        setting = find_setting(self.config, key)
        value = setting.default if typed is None else parsed(setting, typed)
        with_setting(Config(self.config.home), setting.key, value)
        section = getattr(self.config, setting.section)
        return replace(self.config, **{setting.section: replace(section, **{setting.name: value})})

    def stored(self) -> list[Stored]:
        self._called("stored")
        return [
            Stored("index", Path("/home/gritdesk/index.sqlite"), 12_000_000, "gritdesk forget FOLDER"),
            Stored("states", Path("/home/gritdesk/states"), 700_000_000, "gritdesk states --clear"),
        ]

    def watch(
        self, on_progress: Callable[[IndexProgress], None], stop: threading.Event, *, stands_by: bool = False
    ) -> None:
        self._called("watch")
        for progress in self.progress:
            on_progress(progress)
        self.watching.set()
        self._wait(stop)
        self.watching.clear()
        self.finished.set()

    def check_citation(self, citation: Citation) -> Place:
        self._called("check_citation", citation)
        return self.cited_places.get(citation.n) or Place(
            "unchanged", citation.line_start, citation.line_end, citation.quote, citation.page
        )

    def document_text(self, path: Path) -> str | None:
        self._called("document_text", path)
        return self.documents.get(path)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        self.notify = listener

    def close(self) -> None:
        self.closed.set()

    def searches(self) -> list[tuple[str, str]]:
        return [(call[1], call[2]) for call in self.calls if call[0] == "search"]

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def _called(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name in self.failures:
            raise self.failures[name]

    def _wait(self, gate: threading.Event | None, is_stopped: Callable[[], bool] | None = None) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while gate is not None and not gate.wait(0.05) and time.monotonic() < deadline:
            if self.closed.is_set() or (is_stopped is not None and is_stopped()):
                return
