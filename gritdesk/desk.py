"""One index and one engine behind one set of calls: all that a front end holds.

Every call blocks and may be made from any thread. Each thread works on a store connection of its own; the
engine is started by the first call that needs it, so that a search by words never pays for the model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gritdesk.config import TITLE_TOKENS, Config, add_folder
from gritdesk.errors import ConfigError, FingerprintMismatch, ModelError, StoreBusy, StoreError
from gritdesk.records import (
    AnswerEvent,
    EmbeddingInput,
    Hit,
    IndexProgress,
    IndexReport,
    Misses,
    SearchMode,
    SimilarFiles,
    Status,
    Turn,
)
from gritdesk.store.sqlite import Shared, SqliteStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gritdesk.engine.host import EngineHost, EngineInfo
    from gritdesk.extract.worker import Reader
    from gritdesk.indexer import Indexer
    from gritdesk.retriever import Retriever

Listener = Callable[[str], None]
SWEEP_EVERY_S = 600.0
"""A watched tree is walked again this often, to find what file events missed."""


class Desk:
    """Opens one engine and one index, owns the threads between them, and closes both."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._local = threading.local()
        self._stores: list[SqliteStore] = []
        self._shared = Shared()
        self._engine: EngineHost | None = None
        self._reader: Reader | None = None
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._closed = False
        self._has_told_of_cut_ends = False

    @classmethod
    def open(cls, config: Config) -> Desk:
        """A desk on the index of `config`, which is made if it is not there.

        Raises: StoreError if the index cannot be opened.
        """
        try:
            config.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {config.home}: {error.strerror}; set GRITDESK_HOME elsewhere") from error
        desk = cls(config)
        desk._store()
        return desk

    # ------------------------------------------------------------ the calls of a front end

    def index(
        self,
        folders: Sequence[Path] = (),
        on_progress: Callable[[IndexProgress], None] | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> IndexReport:
        """Bring the index up to date with its folders; new ones are added to the configuration first.

        Raises: ConfigError for a folder that is not there; StoreBusy if another process is indexing;
            ModelError if the engine cannot embed.
        """
        wanted = [_existing_folder(folder) for folder in folders]
        with self._indexer() as indexer:
            for folder in wanted:
                self._list_folder(folder)
            # another model forgets all embeddings: then every folder is read, not only the new ones
            is_full = not wanted or self._is_of_another_model()
            return indexer.run(
                self.folders if is_full else self._with_listed_ones_inside(wanted),
                on_progress or (lambda progress: None),
                is_stopped or (lambda: False),
                forget_others=is_full,
            )

    def watch(self, on_progress: Callable[[IndexProgress], None], stop: threading.Event) -> None:
        """Sweep the folders, then keep the index up with every change until `stop` is set.

        Raises: as `index`.
        """
        import time

        from gritdesk import watcher

        if not self.folders:
            raise ConfigError("no folder is indexed yet; add one with `gritdesk index FOLDER`")
        with self._indexer() as indexer:
            while not stop.is_set():
                swept_at: float | None = None
                for changed_paths in watcher.watch(self.folders, stop, on_notice=self._notify, timeout_s=SWEEP_EVERY_S):
                    if swept_at is None:
                        indexer.run(self.folders, on_progress, stop.is_set, forget_others=True)
                        swept_at = time.monotonic()
                    elif changed_paths:
                        indexer.update(changed_paths, on_progress, stop.is_set)
                    if time.monotonic() - swept_at > SWEEP_EVERY_S:
                        break

    def add_folder(self, folder: Path) -> None:
        """Keep one more folder in the index; it is read by the next `index` or `watch`."""
        self._list_folder(_existing_folder(folder))

    def search(self, query: str, n: int = 10, mode: SearchMode = "hybrid", *, explain: bool = False) -> list[Hit]:
        """The `n` best chunks, best first; by words alone the engine is not started.

        Args:
            query: in the language of gritdesk/querying.py.
            explain: say of each hit how its score came about.
        Raises: QueryError for a filter that has no meaning; FingerprintMismatch if the index was made by another
            model and meaning is asked for.
        """
        return self._retriever(mode).search(query, n, mode, explain=explain)

    def misses(self, query: str, mode: SearchMode = "hybrid") -> Misses:
        """Why a search found nothing: the filters that removed hits, and the nearest hits without them.

        Raises: as `search`.
        """
        return self._retriever(mode).misses(query, mode)

    def similar(self, path: Path, n: int = 10) -> SimilarFiles:
        """The `n` files nearest by meaning to an indexed one; the engine is not started.

        Raises: QueryError if the file is not in the index.
        """
        from gritdesk.relating import similar_files

        return similar_files(self._store(), Path(os.path.abspath(path)), n)

    def ask(
        self, question: str, history: Sequence[Turn] = (), is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[AnswerEvent]:
        """Answer from the indexed files; see records.AnswerEvent for what comes.

        Raises: ModelError if the model only embeds.
        """
        from gritdesk.answerer import Answerer
        from gritdesk.engine.wire import ONLY_EMBEDS
        from gritdesk.querying import parse

        num_passages = self.config.search.num_passages
        engine = self.engine()
        info = engine.info()
        if not info.generates:
            raise ModelError(f"{info.model_path.name}: {ONLY_EMBEDS}")
        # filters say where to look for the answer; the model reads the question without them
        asked = parse(question)
        text = asked.text if asked.restrictions and asked.text else question
        answerer = Answerer(lambda _: self.search(question, num_passages), engine, info.n_ctx, self.config.answer)
        yield from answerer.answer(text, history, is_stopped or (lambda: False))

    def embed(self, texts: Sequence[str], instruction: str = "") -> NDArray[np.float32]:
        """Embeddings of texts, float32[num, dimension], L2-normalised."""
        return self.engine().embed([(instruction, text) for text in texts])

    def document_text(self, path: Path) -> str | None:
        """The text of a file as it was indexed; None if it is not in the index."""
        return self._store().document_text(path)

    def status(self) -> Status:
        """What the index holds and what it waits for; walks the folders, starts no engine."""
        from gritdesk.indexer import count_pending
        from gritdesk.models import find_model

        try:
            model = str(find_model(self.config))
        except ModelError as error:  # what the index holds can be told all the same
            model = str(error)
        store = self._store()
        files, chunks, text_bytes = store.counts()
        return Status(
            files=files,
            chunks=chunks,
            pending=count_pending(store, self.folders, self.config.index),
            failed=tuple(store.failures()),
            folders=tuple(self.folders),
            model=model,
            fingerprint=space.fingerprint if (space := store.space()) else "",
            index_path=self.config.index_path,
            index_bytes=sum(each.stat().st_size for each in self.config.home.glob("index.sqlite*") if each.is_file()),
            text_bytes=text_bytes,
        )

    def check(self) -> list[str]:
        """Problems found in the index; an empty list is good."""
        return self._store().integrity()

    def check_fingerprint(self) -> None:
        """Raise FingerprintMismatch if the index holds embeddings of another model or other settings."""
        space = self._store().space()
        if space is not None and space.fingerprint != self.fingerprint:
            raise FingerprintMismatch(
                f"the index was made by another model or other settings ({space.fingerprint}, now {self.fingerprint}); "
                "run `gritdesk index` to embed its files anew"
            )

    def engine_info(self) -> EngineInfo:
        """Start the engine if it is not running, and tell what it is."""
        return self.engine().info()

    def subscribe(self, listener: Listener) -> None:
        """Have a person's notices, such as a restart of the engine, called from whichever thread they occur in."""
        self._listeners.append(listener)

    # ------------------------------------------------------------ what stands behind them

    @property
    def folders(self) -> list[Path]:
        return [Path(folder) for folder in self.config.index.folders]

    @property
    def fingerprint(self) -> str:
        """Names the vector space: model file, GRIT format, pooling, chunking."""
        from gritdesk.models import find_model, model_identity

        identity = model_identity(find_model(self.config), self.config.home)
        return f"{identity}/grit1/mean/chunk{self.config.index.chunk_tokens}"

    def engine(self) -> EngineHost:
        """The engine's process; started by its first request."""
        with self._lock:
            self._check_open()
            if self._engine is None:
                from gritdesk.engine.host import EngineHost
                from gritdesk.models import find_model

                self._engine = EngineHost(
                    find_model(self.config), self.config.engine, self.config.log_dir, on_restart=self._notify
                )
            return self._engine

    def close(self) -> None:
        """End the engine and close the index; calls under way in other threads fail. Safe to call twice."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
            reader, self._reader = self._reader, None
            stores, self._stores = self._stores, []
        if engine is not None:
            engine.close()
        if reader is not None:
            reader.close()
        for store in stores:
            store.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _list_folder(self, folder: Path) -> None:
        """Keep one more folder, unless a listed one finds it; one that is asked for by name is not ignored."""
        from gritdesk.walking import Walk

        holders = [listed for listed in self.folders if listed in folder.parents]
        if all(Walk(holder).skips(folder) for holder in holders):
            self.config = add_folder(self.config, folder)

    def _with_listed_ones_inside(self, folders: Sequence[Path]) -> list[Path]:
        """Folders and the listed ones in them, whose files a walk of their parent may not find."""
        inside = [each for each in self.folders if any(folder in each.parents for folder in folders)]
        return list(dict.fromkeys([*folders, *inside]))

    def _store(self) -> SqliteStore:
        store: SqliteStore | None = getattr(self._local, "store", None)
        if store is None:
            self._check_open()
            store = self._local.store = SqliteStore(self.config.index_path, self._shared)
            with self._lock:
                self._stores.append(store)
        return store

    @contextmanager
    def _indexer(self) -> Iterator[Indexer]:
        """The one indexer of this index, under a lock that other processes see and a crash releases."""
        from filelock import FileLock, Timeout

        from gritdesk.indexer import Indexer

        lock = FileLock(self.config.lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreBusy(f"another gritdesk is indexing {self.config.home}; wait for it, or close it") from None
        except OSError as error:
            raise StoreError(f"cannot lock {self.config.lock_path}: {error.strerror}; may you write there?") from error
        try:
            if self._is_of_another_model():
                self.engine().info()  # before the old embeddings are forgotten: is the other model any good?
            yield Indexer(
                self._store(),
                self._embed_passages,
                self._count_tokens,
                self._read,
                self.fingerprint,
                self.config.index,
            )
        finally:
            lock.release()

    def _is_of_another_model(self) -> bool:
        space = self._store().space()
        return space is not None and space.fingerprint != self.fingerprint

    def _retriever(self, mode: SearchMode) -> Retriever:
        from gritdesk.retriever import Retriever

        if mode != "keyword":
            self.check_fingerprint()
        return Retriever(self._store(), self._embed_query, self.config.search)

    def _read(self, path: Path) -> Any:
        self._check_open()
        if self._reader is None:
            from gritdesk.extract.worker import Reader

            self._reader = Reader(self.config.index.max_file_mb * 1_000_000)
        return self._reader.read(path)

    def _embed_query(self, question: str) -> NDArray[np.float32]:
        from gritdesk.engine.host import Priority
        from gritdesk.grit_format import query_input

        embedding: NDArray[np.float32] = self.engine().embed([query_input(question)], priority=Priority.QUERY)[0]
        return embedding

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        from gritdesk.engine.host import Priority

        return self.engine().count_tokens(texts, priority=Priority.INDEXING)

    def _embed_passages(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        embeddings = self.engine().embed(inputs)
        self._tell_of_cut_ends(self.engine().info())
        return embeddings

    def _tell_of_cut_ends(self, info: EngineInfo) -> None:
        """Say once that the model reads no whole chunks; what it does read is known only with the engine running."""
        fits = max(info.max_text_tokens - TITLE_TOKENS, info.max_text_tokens // 2)  # few titles are that long
        if self.config.index.chunk_tokens > fits and not self._has_told_of_cut_ends:
            self._has_told_of_cut_ends = True
            self._notify(
                f"{info.model_path.name} reads texts of {info.max_text_tokens} tokens, and the ends of longer passages "
                f"are not embedded; set index.chunk_tokens ({self.config.index.chunk_tokens}) to {fits}"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ModelError("gritdesk is closing; nothing is started again")

    def _notify(self, notice: str) -> None:
        for listener in self._listeners:
            listener(notice)


def _existing_folder(folder: Path) -> Path:
    """The full path of a folder, the same however it was written: `../notes` is not a second folder."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise ConfigError(f"{folder} is {what}; give a folder that exists")
    plain = Path(os.path.abspath(folder))
    # a link followed by `..` leads elsewhere than its name says
    return plain if plain.exists() and plain.samefile(folder) else folder.resolve()
