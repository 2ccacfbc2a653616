"""One index and one engine behind one set of calls: all that a front end holds.

Every call blocks and may be made from any thread. Each thread works on a store connection of its own; the
engine is started by the first call that needs it, so that a search by words never pays for the model.
"""

from __future__ import annotations

import importlib
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gritdesk.config import TITLE_TOKENS, Config, add_folder, load_config, remove_folder, written_at
from gritdesk.errors import ConfigError, FingerprintMismatch, ModelError, QueryError, ServerUnreachable, StoreBusy
from gritdesk.keeping import Keeper, Pace, Pause, find_keeper, find_pause, index_lock, may_work_ahead
from gritdesk.records import (
    AnswerEvent,
    Chunk,
    Citation,
    EmbeddingInput,
    Estimate,
    Evidence,
    Exchange,
    FolderCount,
    Hit,
    IndexProgress,
    IndexReport,
    Library,
    Map,
    Misses,
    PathReport,
    Place,
    Price,
    Prompt,
    Query,
    Reranking,
    SearchMode,
    SimilarFiles,
    Status,
)
from gritdesk.store import indexing, opener, place, size_bytes
from gritdesk.store.base import Space, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gritdesk.answerer import Answerer
    from gritdesk.chat_keeper import ChatKeeper
    from gritdesk.completing import FilterValues
    from gritdesk.engine.endpoint import EndpointEmbedder
    from gritdesk.engine.host import EngineHost, EngineInfo
    from gritdesk.engine.states import StateSettings, StateUse
    from gritdesk.estimating import Estimator
    from gritdesk.extract.worker import Reader
    from gritdesk.grit_format import Cache
    from gritdesk.indexer import Indexer
    from gritdesk.machine import Machine
    from gritdesk.model_facts import ModelFacts
    from gritdesk.models import ModelFile
    from gritdesk.reranker import Reading
    from gritdesk.retriever import Retriever
    from gritdesk.scoping import Places
    from gritdesk.settings import Setting
    from gritdesk.stored import Stored

T = TypeVar("T")
Listener = Callable[[str], None]
SWEEP_EVERY_S = 600.0
"""A watched tree is walked again this often, to find what file events missed."""
_LOOK_AT_STOP_S = 0.5
_LOOK_AT_LOCK_EVERY_S = 3.0
FRAME_TOKENS = 16
"""Of the embedding frame around a passage, more than there are."""
_AFTER_FAILURE_S = 10.0
"""What failed once may fail again at once."""


class Desk:
    """Opens one engine and one index, owns the threads between them, and closes both."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._local = threading.local()
        self._stores: list[Store] = []
        self._open_store: Callable[[], Store] | None = None
        self._endpoint: EndpointEmbedder | None = None
        self._engine: EngineHost | None = None
        self._earlier_engine: tuple[Path, EngineHost] | None = None
        """Of the model that made the index, while it is embedded anew."""
        self._reader: Reader | None = None
        self._chat_keeper: ChatKeeper | None = None
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._closed = False
        self._last_embedded: tuple[Space | None, str, NDArray[np.float32]] | None = None
        """Of the last question: what is searched for is often read ahead and asked, too."""
        self._has_told_of_cut_ends = False
        self._has_told_of_words_alone = False
        self._has_told_of_silent_server = False
        self._config_read = written_at(config)
        self._wanted: set[Path] = set()
        """Files to be read again at once."""
        self._is_sweep_wanted = False
        self._has_other_folders = False
        """Than those that are watched: whoever read the configuration, the thread that watches takes them over."""
        self._estimator: Estimator | None = None

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
        wanted = [self._known_name(_existing_folder(folder)) for folder in folders]
        with self._indexer() as indexer:
            for folder in wanted:
                self._list_folder(folder)
            return indexer.run(
                self._with_listed_ones_inside(wanted) if wanted else self.folders,
                on_progress or (lambda progress: None),
                self._paced(Pace(self.config, self._notify, is_awaited=True), is_stopped or (lambda: False)),
                forget_others=not wanted,
                forget_emptied=bool(wanted),
            )

    def watch(
        self, on_progress: Callable[[IndexProgress], None], stop: threading.Event, *, stands_by: bool = False
    ) -> None:
        """Sweep the folders, then keep the index up with every change until `stop` is set.

        Folders that another process adds to the configuration are kept from then on, too.

        Args:
            stands_by: while another process keeps the index up, wait for its end instead of raising StoreBusy.
        Raises: as `index`.
        """
        if not self.folders:
            raise ConfigError("no folder is indexed yet; add one with `gritdesk index FOLDER`")
        # now, not with the first embedding: an upgrade under a service that runs for weeks would leave it half of each
        for module in ("gritdesk.store.vectors", "numpy.random"):  # numpy itself takes the second one when it is used
            importlib.import_module(module)
        told = ""
        while not stop.is_set():
            try:
                pace = Pace(self.config, self._notify)
                with self._indexer(watches=True, embeds=pace.embeds) as indexer:
                    self._keep_up(indexer, pace, on_progress, stop)
            except StoreBusy as error:
                if not stands_by:
                    raise
                self._folders_were_written()
                if (keeper := str(find_keeper(self.config) or error)) != told:
                    told = keeper
                    on_progress(IndexProgress(0, 0, note=f"another gritdesk keeps the index up: {keeper}"))
                stop.wait(_LOOK_AT_LOCK_EVERY_S)

    def _keep_up(
        self, indexer: Indexer, pace: Pace, on_progress: Callable[[IndexProgress], None], stop: threading.Event
    ) -> None:
        """Sweep, then follow changes until `stop` is set; after a pause another sweep finds what changed meanwhile.

        So it does after a failure of the file system that nobody foresaw, which is told; words go on without a server.
        """
        from gritdesk.watcher import Changes

        with Changes(self.folders, on_notice=self._notify, home=self.config.home) as changes:

            def take_news() -> None:
                """What changed during a run is found by words at once; its meaning comes in the order of that run."""
                changes.gather()
                if not pace.holds() and (changed_paths := changes.ready()):
                    indexer.update(changed_paths, folders=self.folders, words_only=True)

            is_stopped = self._paced(pace, stop.is_set, take_news)
            swept_at, told = float("-inf"), ""
            while not stop.is_set():
                try:
                    changed_paths = changes.wait(_LOOK_AT_STOP_S) | self._take_wanted()
                    if self._folders_were_written():
                        changes.follow(self.folders)
                        swept_at = float("-inf")
                    if self._is_sweep_wanted:
                        self._is_sweep_wanted, swept_at = False, float("-inf")
                    if pace.holds():
                        swept_at = float("-inf")
                    elif time.monotonic() - swept_at > SWEEP_EVERY_S:
                        indexer.run(self.folders, on_progress, is_stopped, forget_others=True, forget_emptied=False)
                        swept_at, told = time.monotonic(), ""
                    elif changed_paths or (indexer.is_behind and pace.embeds()):
                        indexer.update(changed_paths, on_progress, is_stopped, folders=self.folders)
                    if not indexer.is_behind:
                        pace.resume_meaning()
                except ServerUnreachable as error:
                    pace.put_off_meaning(str(error))
                except OSError as error:
                    swept_at = float("-inf")
                    if str(error) != told:
                        told = str(error)
                        self._notify(f"a change could not be followed ({told}); all folders are looked at again")
                    stop.wait(_AFTER_FAILURE_S)

    def _take_wanted(self) -> set[Path]:
        with self._lock:
            wanted, self._wanted = self._wanted, set()
        return wanted

    def retry(self, path: Path) -> None:
        """Have a file that could not be read tried again: at once where this desk watches, else by the next run."""
        if path in {each.path for each in self._store().failures()}:
            self._store().delete_documents([path])
        with self._lock:
            self._wanted.add(path)

    def look_again(self) -> None:
        """Have the folders walked again at once, where this desk watches."""
        self._is_sweep_wanted = True

    def pause(self, for_s: float | None = None) -> Pause:
        """Have indexing wait in every process, for so long or until `resume`. Raises: ConfigError if it cannot."""
        from gritdesk.keeping import pause

        return pause(self.config, for_s)

    def resume(self) -> bool:
        """Let indexing go on; False if it was not paused."""
        from gritdesk.keeping import resume

        return resume(self.config)

    def _paced(
        self, pace: Pace, is_stopped: Callable[[], bool], take_news: Callable[[], None] = lambda: None
    ) -> Callable[[], bool]:
        """What an indexer asks between files and slices: there work rests or waits, and news come first."""

        def should_stop() -> bool:
            pace.rest(is_stopped)
            take_news()
            while pace.holds() and not is_stopped():
                time.sleep(_LOOK_AT_STOP_S)
                take_news()
            return is_stopped()

        return should_stop

    def add_folder(self, folder: Path) -> None:
        """Keep one more folder in the index; it is read by the next `index` or `watch`."""
        self._list_folder(self._known_name(_existing_folder(folder)))

    def hand_over(self, folders: Sequence[Path]) -> Keeper | None:
        """Have the process that watches read these folders, too; None if there is none. Raises: as `add_folder`."""
        keeper = find_keeper(self.config)
        if keeper is None or not keeper.watches:
            return None
        for folder in [self._known_name(_existing_folder(each)) for each in folders]:
            self._list_folder(folder)
        return keeper

    def forget_folder(self, folder: Path) -> tuple[int, Keeper | None]:
        """Take a folder out of the configuration, and its files out of the index; the files themselves stay.

        What another listed folder holds stays in the index, too. The folder need not be there.

        Returns: how many files were forgotten, and the process that watches if it is the one to forget them, which it
            does at once.
        Raises: ConfigError for a folder that is not listed; StoreBusy if another process indexes and does not watch.
        """
        listed = self._listed_name(folder)
        try:
            with index_lock(self.config, watches=False), indexing(self.config, self._store()):
                self.config = remove_folder(self.config, listed)
                return self._forget_files_in(Path(listed)), None
        except StoreBusy:
            keeper = find_keeper(self.config)
            if keeper is None or not keeper.watches:  # it would not look at the configuration again
                raise
            self.config = remove_folder(self.config, listed)
            with self._lock:  # the keeper may be a thread of this desk
                self._has_other_folders = True
            return 0, keeper

    def search(
        self, query: Query | str, n: int = 10, mode: SearchMode = "hybrid", *, explain: bool = False
    ) -> list[Hit]:
        """The `n` best chunks, best first; by words alone the engine is not started.

        While the index is embedded anew, the model that made it is asked; where that is gone, or the server that embeds
        gives nothing, words must do.

        Args:
            query: in the language of gritdesk/querying.py, or taken apart by it.
            explain: say of each hit how its score came about.
        Raises: QueryError for a filter that has no meaning; FingerprintMismatch if the model is gone and meaning alone
            is asked for; ModelError if the engine fails, or the server where meaning alone is asked for.
        """
        return self._as_far_as_embedded(mode, lambda each: self._retriever().search(query, n, each, explain=explain))

    def rerank(
        self,
        query: str,
        hits: Sequence[Hit],
        budget_s: float | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> Iterator[Reranking]:
        """Have the model read the hits of a search once more; after each comes their order so far, the first at once.

        Args:
            query: what they were found by; filters are not read.
            budget_s: how long it may go on, not counting the start of the engine; None: as the settings say.
            is_stopped: ends it sooner.
        Raises: ModelError if the model cannot do it, or the engine fails.
        """
        from gritdesk.reranker import rerank

        search = self.config.search
        budget_s = search.rerank_budget_s if budget_s is None else budget_s
        read = self._reading(query) if hits else lambda *_: None
        yield from rerank(hits, read, search.rerank_weight, budget_s, is_stopped or (lambda: False))

    def _reading(self, query: str) -> Reading:
        """How hits are read again. Raises: ModelError where the model cannot do it."""
        from gritdesk.querying import parse
        from gritdesk.reranker import by_likelihood, by_windows

        question = parse(query).text or query
        if self.config.search.rerank_by == "likelihood":
            engine = self.engine()
            info = engine.info()
            if not info.generates:
                raise ModelError(
                    f'{info.model_path.name} only embeds and finds no likelihoods; set search.rerank_by to "windows"'
                )
            return by_likelihood(question, engine.log_likelihoods)
        model = self._query_model()
        if model is None:
            raise ModelError(
                "the model that made the index is not here any more, and reads nothing; run `gritdesk index`"
            )
        if isinstance(model, Path):
            return by_windows(self._embed_query(question), self._engine_of(model).embed_unless)
        endpoint = model  # it keeps its own time
        return by_windows(self._embed_query(question), lambda inputs, _: endpoint.embed(inputs))

    def misses(self, query: Query | str, mode: SearchMode = "hybrid") -> Misses:
        """Why a search found nothing: the filters that removed hits, and the nearest hits without them.

        Raises: as `search`.
        """
        return self._as_far_as_embedded(mode, lambda each: self._retriever().misses(query, each))

    def unread(self, query: str, n: int = 5) -> list[PathReport]:
        """Files that are not in the index and whose names a query speaks of, and why they are not; walks the folders.

        Raises: QueryError as `search`.
        """
        from gritdesk.explaining import unread

        return unread(query, self.folders, self._store(), self.config.home, n)

    def filter_values(self) -> FilterValues:
        """What filters of a query can name: the folders, kinds and names of the indexed files."""
        from gritdesk.completing import filter_values

        return filter_values(self._store().files(), self.folders)

    def past_queries(self) -> list[str]:
        """Queries that led somewhere, the latest last."""
        from gritdesk.query_history import past_queries

        return past_queries(self.config.home)

    def remember_query(self, query: str) -> None:
        """Keep a query to be asked again, unless nothing of what is asked is kept (`answer.keep_chats`)."""
        from gritdesk.query_history import remember_query

        if self.config.answer.keep_chats:
            with suppress(OSError):  # a full disk is told by what matters
                remember_query(self.config.home, query)

    def similar(self, path: Path, n: int = 10) -> SimilarFiles:
        """The `n` files nearest by meaning to an indexed one; the engine is not started.

        Raises: QueryError if the file is not in the index.
        """
        from gritdesk.relating import similar_files

        return similar_files(self._store(), Path(os.path.abspath(path)), n)

    def map(
        self,
        num_clusters: int | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        paths: Sequence[Path] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Map:
        """The indexed documents, or some of them, placed by meaning; the engine is not started. As mapping.make_map."""
        from gritdesk.mapping import make_map

        return make_map(self._store(), paths, num_clusters, on_progress, is_stopped)

    def ask(
        self,
        question: str,
        past: Sequence[Exchange] | None = None,
        is_stopped: Callable[[], bool] | None = None,
        *,
        within: Sequence[Path] = (),
        chat: str = "",
        anyway: bool = False,
        cache: Cache | None = None,
    ) -> Iterator[AnswerEvent]:
        """Answer from the indexed files; see records.AnswerEvent for what comes.

        Args:
            past: the conversation so far, oldest first; None: what the chat holds.
            within: files and folders of the index that are asked, and no others; none: all.
            chat: id of a chat to go on with, or a new one of `chats.start`; the answer is added to it before
                AnswerFinished comes.
            anyway: without evidence have the model answer from what it learned, and say so in the answer.
            cache: of what the answer takes keys and values computed before; None: as the configuration says.
        Raises: QueryError if nothing of the index lies within; ModelError if the model only embeds.
        """

        def answer(
            asked: str, before: Sequence[Exchange], stops: Callable[[], bool]
        ) -> Generator[AnswerEvent, None, None]:
            answerer, text = self._answerer(asked, within, cache)
            yield from answerer.answer(text, before, stops, anyway=anyway)

        stops = is_stopped or (lambda: False)
        if chat:
            yield from self.chats.asking(answer, question, past, stops, chat, within)
        else:
            yield from answer(question, past or (), stops)

    def prefill(self, question: str, past: Sequence[Exchange] = (), *, within: Sequence[Path] = ()) -> bool:
        """Have the engine read what `ask` would give it for this question, while nothing else is to be done.

        Returns once the passages are found, and waits for no reading. The last call alone counts, and an `ask` ends
        it; one that rests on the same passages, whatever its question, begins where the reading has come to. In a
        pause, on battery, or where the model does not answer, nothing is done.

        Returns: whether there is something to read.
        Raises: as `search` and `ask`.
        """
        if not may_work_ahead(self.config) or not self.engine().info().generates:
            return False
        answerer, text = self._answerer(question, within)
        return answerer.prefill(text, past)

    def prompt(
        self,
        question: str,
        *,
        within: Sequence[Path] = (),
        chat: str = "",
        anyway: bool = False,
        cache: Cache | None = None,
    ) -> tuple[Prompt, str]:
        """What the model would be given to answer a question, evidence or not, and its exact text.

        Args and raises: as `ask`; nothing is added to the chat.
        """
        from gritdesk.grit_format import GritMetadata, chat_frame, render

        answerer, text = self._answerer(question, within, cache)
        prompt = answerer.prompt(text, self.chats.read(chat).exchanges if chat else (), anyway=anyway)
        info = self.engine().info()
        grit = GritMetadata(info.dimension, passages=info.passages)
        caching = grit.caching(cache or self._cache)
        return prompt, render(chat_frame(prompt.turns, blocks=info.passages != "plain", caching=caching))

    def _answerer(self, question: str, within: Sequence[Path] = (), cache: Cache | None = None) -> tuple[Answerer, str]:
        """What answers a question, and the question as the model reads it: filters say where to look.

        Raises: QueryError if nothing of the index lies within; ModelError if the model only embeds.
        """
        from gritdesk.answerer import Answerer
        from gritdesk.engine.host import CachingEngine
        from gritdesk.engine.wire import ONLY_EMBEDS
        from gritdesk.evidence import NUM_BESIDE
        from gritdesk.querying import asked_of, parse
        from gritdesk.scoping import scope_name

        engine = self.engine()
        info = engine.info()
        if not info.generates:
            raise ModelError(f"{info.model_path.name}: {ONLY_EMBEDS}")
        asked = parse(question)
        text = asked.text if asked.restrictions and asked.text else question
        restrictions = asked.restrictions if text != question else ()

        within = [Path(os.path.abspath(each)) for each in within]
        if within and not self._store().newest(1, asked_of(parse(""), within).scope):
            raise QueryError(f"no file of the index lies in {scope_name(within)}; `gritdesk status` lists its folders")

        def query(line: str) -> Query:
            return asked_of(parse(" ".join((line, *restrictions))), within)

        answerer = Answerer(
            lambda line, n: self.search(query(line), n),
            CachingEngine(engine, cache or self._cache),
            info.n_ctx,
            self.config.answer,
            weigh=self._weigh,
            misses=lambda line: self.misses(query(line)),
            within=within,
            files=self._store(),
            num_passages=self.config.search.num_passages,
            num_looked_at=NUM_BESIDE,
            max_passage_tokens=info.max_text_tokens - FRAME_TOKENS,
        )
        return answerer, text

    def _weigh(self, question: str, hits: Sequence[Hit]) -> Evidence:
        from gritdesk.evidence import Rarity, telling_words, weigh

        return weigh(question, hits, Rarity(*self._store().frequencies(telling_words(question))))

    def keep_states(
        self,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Keep the states of all passages of the index that there is room for, those of the newest files first.

        Returns: how many are new; none where `answer.cache` or the model makes no use of them.
        Raises: ModelError as `warm`; ConfigError if no states are kept.
        """
        from functools import partial

        from gritdesk.warming import keep_states

        if not self.config.engine.states_mb:
            raise ConfigError("engine.states_mb is 0, so no states are kept; set it to the MB they may take on disk")
        engine = self.engine()
        warm = partial(engine.warm, cache=self._cache, fills=True)
        longest = min(self.config.answer.passage_tokens, engine.info().max_text_tokens - FRAME_TOKENS)
        return keep_states(self._store(), warm, on_progress, is_stopped, longest)

    def states(self) -> StateUse:
        """What is kept of passages so that answers begin sooner; starts no engine."""
        from gritdesk.engine.states import state_use

        return state_use(self.config.states_dir)

    def clear_states(self) -> StateUse:
        """Delete it; what was there. Raises: ConfigError if it cannot be deleted."""
        from gritdesk.engine.states import clear_states

        try:
            return clear_states(self.config.states_dir)
        except OSError as error:
            raise ConfigError(f"cannot delete the states in {self.config.states_dir}: {error.strerror}") from error

    def embed(self, texts: Sequence[str], instruction: str = "") -> NDArray[np.float32]:
        """Embeddings of texts, float32[num, dimension], L2-normalised."""
        return (self.endpoint() or self.engine()).embed([(instruction, text) for text in texts])

    def check_citation(self, citation: Citation) -> Place:
        """Where the words that a citation quotes stand in their file now; the engine is not started."""
        from gritdesk.checking import locate

        return locate(citation, self._read, self.config.index.max_file_mb * 1_000_000)

    def document_text(self, path: Path) -> str | None:
        """The text of a file as it was indexed; None if it is not in the index."""
        return self._store().document_text(path)

    @property
    def chats(self) -> ChatKeeper:
        """The chats of this home, to list, search, change and hand out; `ask` goes on with one."""
        with self._lock:
            if self._chat_keeper is None:
                from gritdesk.chat_keeper import ChatKeeper

                self._chat_keeper = ChatKeeper(self.config, self.engine, self._own_fingerprint, self._notify)
            return self._chat_keeper

    def status(self) -> Status:
        """What the index holds and what it waits for; walks the folders, starts no engine."""
        from gritdesk.models import find_model
        from gritdesk.surveying import survey

        try:
            model = str(find_model(self.config))
        except ModelError as error:  # what the index holds can be told all the same
            model = str(error)
        store = self._store()
        files, chunks, text_bytes = store.counts()
        num_chats, chats_bytes = self.chats.count()
        pending, skipped = survey(store, self.folders, self.config.home)
        states = self.states()
        return Status(
            files=files,
            chunks=chunks,
            pending=pending,
            awaiting=store.num_awaiting(),
            failed=tuple(store.failures()),
            folders=tuple(self.folders),
            model=model,
            fingerprint=space.fingerprint if (space := store.space()) else "",
            index_path=place(self.config),
            index_bytes=size_bytes(self.config, store),
            text_bytes=text_bytes,
            keeper=str(find_keeper(self.config) or ""),
            paused=str(find_pause(self.config) or ""),
            quiet=self.config.index.quiet,
            skipped=skipped,
            sends=self.sends,
            chats=num_chats,
            chats_bytes=chats_bytes,
            states_bytes=states.size_bytes,
            states_max_bytes=self.config.engine.states_mb * 1_000_000,
            states_hit_rate=states.hit_rate,
        )

    def library(self) -> Library:
        """Folders and files with their states, and what is skipped; walks the folders, starts no engine."""
        from gritdesk.surveying import survey_library

        return survey_library(self._store(), self.folders, self.config.home)

    def folder_chunks(self) -> dict[Path, int]:
        """How many passages the index holds of each folder; starts no engine."""
        from gritdesk.surveying import chunks_in

        return chunks_in(self._store(), self.folders)

    def places(self) -> Places:
        """The indexed files and their folders, to pick one by some letters of its name."""
        from gritdesk.scoping import Places

        return Places(self._store().paths(), self.folders)

    def chunks_of(self, path: Path) -> list[Chunk]:
        """The passages of an indexed file, in the order of its text; none if it is not in the index."""
        return self._store().chunks_of(path)

    def model_texts(self, chunks: Sequence[Chunk]) -> list[str]:
        """What the model in use is given to embed each passage, markers and all; the engine is not started.

        Raises: ModelError if the model cannot be read, or neither embeds nor is said to.
        """
        from gritdesk.gguf_file import read_header
        from gritdesk.grit_format import passage_input, render
        from gritdesk.model_facts import describe
        from gritdesk.models import find_model

        if self.config.engine.embed_url:
            return [self.config.engine.embed_passage_prefix + passage_input(each)[1] for each in chunks]
        path = find_model(self.config)
        grit = describe(read_header(path)).grit
        if grit is None:
            raise ModelError(f"{path} does not say how it embeds; `gritdesk models info` tells more")
        return [render(grit.frame(*passage_input(each))) for each in chunks]

    def why(self, path: Path) -> PathReport:
        """Whether a path is in the index, and by which rule it is not; starts no engine."""
        from gritdesk.explaining import explain

        return explain(path, self.folders, self._store(), self.config.home)

    # what a person decides by: the machine, the time it takes, the settings

    def machine(self) -> Machine:
        """What this machine has to work with; starts no engine."""
        from gritdesk.machine import look_at_machine

        return look_at_machine(self.config.home)

    def models(self) -> list[tuple[ModelFile, ModelFacts | None]]:
        """The models that are here, the one in use first, and what their files say; None of one that cannot be read."""
        from gritdesk.gguf_file import read_header
        from gritdesk.model_facts import describe
        from gritdesk.models import list_models, model_in_use

        used = model_in_use(self.config)
        found = [used] if used else []
        found += [each for each in list_models(self.config) if each != used]
        told: list[tuple[ModelFile, ModelFacts | None]] = []
        for each in found:
            try:
                told.append((each, describe(read_header(each.path))))
            except ModelError:
                told.append((each, None))
        return told

    def usual_folders(self) -> list[Path]:
        """Folders of this person's where documents may lie."""
        from gritdesk.estimating import usual_folders

        return usual_folders()

    def count_files(self, folder: Path, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[FolderCount]:
        """What a folder holds for the index; comes some times a second while it grows. Nothing is changed.

        Raises: ConfigError for a folder that is not there.
        """
        from gritdesk.estimating import count_files

        folder = self._known_name(_existing_folder(folder))
        has_index = bool(self.config.index.store) or self.config.index_path.exists()
        known = self._store().files() if has_index else {}
        yield from count_files(folder, known, self.config.index, self.config.home, is_stopped)

    def estimate(self, counts: Sequence[FolderCount]) -> Estimate:
        """How long indexing these folders would take; a few files are read and embedded to find out, none is kept.

        Raises: ModelError if the engine cannot embed.
        """
        from gritdesk.estimating import Estimator

        with self._lock:
            if self._estimator is None:
                self._estimator = Estimator(
                    self._read, self._count_tokens, self._embed_passages, self.config.index, self.config.home
                )
            estimator = self._estimator
        return estimator.estimate(counts)

    def settings(self) -> tuple[Setting, ...]:
        """Every setting with its meaning, value and limits, as config.toml has them now; those that can count now do.

        Raises: ConfigError if it cannot be read.
        """
        from gritdesk.settings import settings_of

        written = load_config(self.config.home)
        self._follow(written)
        return settings_of(written)

    def price(self, key: str, typed: str | None) -> Price:
        """What it costs to change a setting; where that embeds anew, the model that would do it is tried.

        Args:
            key: as settings.find_setting takes it.
            typed: as a person types it; None: the default.
        Raises: ConfigError if there is no such setting or it may not be that; ModelError if the model cannot be used.
        """
        from gritdesk.estimating import embedding_speed, sentences
        from gritdesk.indexer import reading_of
        from gritdesk.models import find_model, tokenizer_identity
        from gritdesk.pricing import price_of, price_of_moving

        changed, setting = self._with_setting(key, typed)
        if setting.applies != "on opening":
            return Price()
        with Desk(changed) as other:  # not opened: it is the model that is looked at

            def speed(chunks: Sequence[Chunk]) -> float:
                if other.endpoint():  # nothing of a person's goes there before they have said so
                    return embedding_speed(other._embed_passages, [sentences(other._count_tokens)])
                return embedding_speed(other._embed_passages, chunks)

            if changed.index.store != self.config.index.store:
                to = place(changed) if changed.index.store else str(changed.index_path)
                return price_of_moving(self._store(), to, speed, from_=place(self.config))
            if setting.key == "engine.model":
                other.engine().start()  # one that cannot be loaded is not chosen
            tokenizer = tokenizer_identity(find_model(changed), changed.home)
            is_new = changed.engine.embed_url != self.config.engine.embed_url
            sends_to = changed.engine.embed_url if is_new else ""
            reading = reading_of(changed.index, tokenizer)
            return price_of(self._store(), other.fingerprint, reading, speed, sends_to=sends_to)

    def check_setting(self, key: str, typed: str | None) -> None:
        """Whether a setting may be that, without finding out what it costs; args and raises as `price`."""
        self._with_setting(key, typed)

    def change_setting(self, key: str, typed: str | None) -> Setting:
        """Write a setting into config.toml, and go by it at once where that is possible; args and raises as `price`.

        Returns: the setting as it is now; what `applies` "on opening" counts for a desk that is opened next.
        """
        from gritdesk.config import write_setting
        from gritdesk.settings import find_setting, parsed

        changed, setting = self._with_setting(key, typed)
        value = None if typed is None else parsed(setting, typed)
        if setting.key == "engine.model":
            value = changed.engine.model
        self._follow(write_setting(changed, setting.key, value))
        return find_setting(changed, setting.key)

    def _with_setting(self, key: str, typed: str | None) -> tuple[Config, Setting]:
        """The configuration with a setting changed, and the setting as it was."""
        from gritdesk.config import with_setting
        from gritdesk.models import find_model, setting_for
        from gritdesk.settings import find_setting, parsed

        now = load_config(self.config.home)
        setting = find_setting(now, key)
        value = None if typed is None else parsed(setting, typed)
        try:
            changed = with_setting(now, setting.key, value)
        except ConfigError as error:  # of a line that nobody has written yet
            raise ConfigError(str(error).removeprefix(f"{now.path}: ")) from error
        if setting.key == "engine.model":
            model = "" if typed == "default" else setting_for(changed, find_model(changed))
            changed = replace(changed, engine=replace(changed.engine, model=model))
        if setting.key == "index.store":
            opener(changed)  # says what is wrong with an address
        if setting.key.startswith("engine.embed_"):
            with Desk(changed) as other:
                other.endpoint()
        return changed, setting

    def stored(self) -> list[Stored]:
        """What gritdesk keeps, where, and how to be rid of it."""
        from gritdesk.stored import stored

        return list(stored(self.config, place(self.config), size_bytes(self.config, self._store())))

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
        """Those of the configuration, without what others hold anyway, under this name or another."""
        from gritdesk.walking import distinct

        return distinct(map(Path, self.config.index.folders), self.config.home)

    @property
    def fingerprint(self) -> str:
        """Names the space of embeddings: model file, GRIT format, pooling."""
        endpoint = self.endpoint()
        return endpoint.fingerprint if endpoint else self._own_fingerprint()

    def _own_fingerprint(self) -> str:
        """Of the model on this machine, also where a server embeds files."""
        from gritdesk.models import find_model

        return self._fingerprint_of(find_model(self.config))

    def _fingerprint_of(self, model: Path) -> str:
        from gritdesk.models import model_identity

        return f"{model_identity(model, self.config.home)}/grit1/mean"

    @property
    def sends(self) -> str:
        """What leaves this machine, as a person is told; "" if nothing does."""
        endpoint = self.endpoint()
        return f"the texts of your files and your questions go to {endpoint.url}, to be embedded" if endpoint else ""

    def endpoint(self) -> EndpointEmbedder | None:
        """The server that embeds, if the configuration names one. Raises: ConfigError if it does so wrongly."""
        if not self.config.engine.embed_url:
            return None
        with self._lock:
            self._check_open()
            if self._endpoint is None:
                from gritdesk.engine.endpoint import EndpointEmbedder

                self._endpoint = EndpointEmbedder(self.config.engine)
            return self._endpoint

    def engine(self) -> EngineHost:
        """The engine's process; started by its first request."""
        with self._lock:
            self._check_open()
            if self._engine is None:
                from gritdesk.engine.host import EngineHost
                from gritdesk.models import find_model

                model = find_model(self.config)
                self._engine = EngineHost(
                    model,
                    self.config.engine,
                    self.config.log_dir,
                    on_restart=self._notify,
                    states=self._state_settings(model),
                )
            return self._engine

    @property
    def _cache(self) -> Cache:
        return cast("Cache", self.config.answer.cache)  # one of them, as config.py has read it

    def _state_settings(self, model: Path) -> StateSettings | None:
        from gritdesk.engine.states import StateSettings, file_stamp
        from gritdesk.models import model_identity

        if not (megabytes := self.config.engine.states_mb):
            return None
        stamp = file_stamp(model)  # before its identity: a file that is replaced meanwhile then is another one
        identity = model_identity(model, self.config.home)
        return StateSettings(self.config.states_dir, megabytes * 1_000_000, identity, stamp)

    def close(self) -> None:
        """End the engine and close the index; calls under way in other threads fail. Safe to call twice."""
        with self._lock:
            self._closed = True
            engines = [self._engine, self._earlier_engine and self._earlier_engine[1]]
            self._engine = self._earlier_engine = None
            endpoint, self._endpoint = self._endpoint, None
            reader, self._reader = self._reader, None
            stores, self._stores = self._stores, []
        for engine in engines:
            if engine is not None:
                engine.close()
        if endpoint is not None:
            endpoint.close()
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
        from gritdesk.walking import found_within

        if all(found_within(folder, listed, self.config.home) is None for listed in self.folders):
            self.config = add_folder(self.config, folder)

    def _listed_name(self, folder: Path) -> str:
        """A folder as the configuration lists it, whether it is there or not. Raises: ConfigError if it does not."""
        name = Path(os.path.abspath(folder))
        listed = self.config.index.folders
        for each in listed:
            if Path(each) == name or (folder.is_dir() and Path(each).is_dir() and folder.samefile(each)):
                return each
        holder = next((each for each in listed if Path(each) in name.parents), "")
        if holder:
            raise ConfigError(
                f"{name} is no folder of its own, it lies in {holder}; a line in .gritignore leaves it out"
            )
        raise ConfigError(f"{name} is not among the indexed folders ({', '.join(listed) or 'there are none'})")

    def _forget_files_in(self, folder: Path) -> int:
        """Delete the rows of a folder, but for what those that are listed still hold; how many files it was."""
        store, others = self._store(), set(self.folders)
        files = {path: state for path, state in store.files().items() if folder in (path, *path.parents)}
        gone = [path for path in files if others.isdisjoint((path, *path.parents))]
        store.delete_documents(gone)
        store.prune()
        return sum(files[path].state == "indexed" for path in gone)

    def _folders_were_written(self) -> bool:
        """Take over what another process wrote into config.toml; whether its folders are others than before."""
        if (stamp := written_at(self.config)) != self._config_read:
            self._config_read = stamp
            with suppress(ConfigError):  # half written by a person: it is read again when it is whole
                self._follow(load_config(self.config.home))
        with self._lock:
            are_others, self._has_other_folders = self._has_other_folders, False
        return are_others

    def _follow(self, written: Config) -> None:
        """Go by what config.toml says now, but for what the index and the model were opened with."""
        from gritdesk.settings import followed

        with self._lock:
            before, self.config = self.config, followed(self.config, written)
            self._has_other_folders |= self.config.index.folders != before.index.folders
            if self.config.answer != before.answer:
                self._chat_keeper = None  # made anew with the next question, as the settings are now

    def _known_name(self, folder: Path) -> Path:
        """A folder by the name under which its files are in the index, if they are: it may have several by links."""
        from gritdesk.walking import found_within, is_folder

        names = [found_within(folder, listed, self.config.home) for listed in self.folders if is_folder(listed)]
        return next((name for name in names if name is not None), folder)

    def _with_listed_ones_inside(self, folders: Sequence[Path]) -> list[Path]:
        """Folders and the listed ones in them, whose files a walk of their parent may not find."""
        inside = [each for each in self.folders if any(folder in each.parents for folder in folders)]
        return list(dict.fromkeys([*folders, *inside]))

    def _store(self) -> Store:
        store: Store | None = getattr(self._local, "store", None)
        if store is None:
            self._check_open()
            with self._lock:
                self._open_store = self._open_store or opener(self.config)
            store = self._local.store = self._open_store()
            with self._lock:
                self._stores.append(store)
        return store

    @contextmanager
    def _indexer(self, *, watches: bool = False, embeds: Callable[[], bool] = lambda: True) -> Iterator[Indexer]:
        """The one indexer of this index. Raises: StoreBusy if another process has it."""
        from gritdesk.indexer import Indexer
        from gritdesk.models import find_model, tokenizer_identity

        with index_lock(self.config, watches=watches), indexing(self.config, self._store()):
            model, endpoint = find_model(self.config), self.endpoint()
            yield Indexer(
                self._store(),
                self._embed_passages,
                self._count_tokens,
                self._read,
                self.fingerprint,
                self.config.index,
                model="" if endpoint else str(model),
                tokenizer=tokenizer_identity(model, self.config.home),
                home=self.config.home,
                embeds=embeds,
            )

    def _retriever(self) -> Retriever:
        from gritdesk.retriever import Retriever

        return Retriever(self._store(), self._embed_query, self.config.search)

    def _read(self, path: Path) -> Any:
        with self._lock:  # an answer's citation may be opened while the first file is indexed
            self._check_open()
            if self._reader is None:
                from gritdesk.extract.worker import Reader

                self._reader = Reader(self.config.index.max_file_mb * 1_000_000)
            reader = self._reader
        return reader.read(path)

    def _embed_query(self, question: str) -> NDArray[np.float32]:
        from gritdesk.engine.host import Priority
        from gritdesk.grit_format import query_input

        space, last = self._store().space(), self._last_embedded
        if last is not None and last[:2] == (space, question):
            return last[2]
        model = self._query_model()
        embedding: NDArray[np.float32]
        if model is not None and not isinstance(model, Path):
            embedding = model.embed([query_input(question)])[0]
        else:
            engine = self.engine() if model is None else self._engine_of(model)
            embedding = engine.embed([query_input(question)], priority=Priority.QUERY)[0]
        self._last_embedded = space, question, embedding
        return embedding

    def _query_model(self) -> Path | EndpointEmbedder | None:
        """What embeds in the space that is searched; None if its file is not there any more, or is another one now."""
        from gritdesk.models import find_model

        space = self._store().space()
        if space is None or space.fingerprint == self.fingerprint:
            return self.endpoint() or find_model(self.config)
        earlier = Path(space.model)
        with suppress(ModelError):
            if space.model and space.fingerprint == self._fingerprint_of(earlier):
                return earlier
        return None

    def _engine_of(self, model: Path) -> EngineHost:
        """The engine of a model: the one in use, or another beside it while the index is embedded anew."""
        from gritdesk.engine.host import EngineHost
        from gritdesk.models import find_model

        if model == find_model(self.config):
            return self.engine()
        with self._lock:
            self._check_open()
            if self._earlier_engine is None or self._earlier_engine[0] != model:
                outdated, host = self._earlier_engine, EngineHost(model, self.config.engine, self.config.log_dir)
                self._earlier_engine = model, host
                if outdated is not None:
                    outdated[1].close()
            return self._earlier_engine[1]

    def _possible(self, mode: SearchMode) -> SearchMode:
        """The mode of a search, by words where the model that made the index is gone.

        Raises: FingerprintMismatch if meaning alone is asked for.
        """
        if mode == "keyword" or self._query_model() is not None:
            return mode
        if mode == "semantic":
            self.check_fingerprint()
        self._tell_of_words_alone()
        return "keyword"

    def _as_far_as_embedded(self, mode: SearchMode, ask: Callable[[SearchMode], T]) -> T:
        """Ask by the mode that is possible, and of a hybrid search the words if the server that embeds fails."""
        possible = self._possible(mode)
        try:
            return ask(possible)
        except ModelError as error:
            self._check_open()
            if possible != "hybrid" or self._query_model() is not self.endpoint():
                raise
            if not self._has_told_of_silent_server:
                self._has_told_of_silent_server = True
                self._notify(f"{error}; until it gives embeddings, hybrid search goes by words alone")
            return ask("keyword")

    def _tell_of_words_alone(self) -> None:
        if not self._has_told_of_words_alone:
            self._has_told_of_words_alone = True
            self._notify(
                "the index was made by a model that is not here any more, and is searched by words alone until "
                "`gritdesk index` has embedded it anew"
            )

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        from gritdesk.engine.host import Priority

        return self.engine().count_tokens(texts, priority=Priority.INDEXING)

    def _embed_passages(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        if endpoint := self.endpoint():
            return endpoint.embed(inputs)
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
    from gritdesk.walking import look_at

    try:
        found = look_at(folder, follows_link=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be looked at ({error.strerror}); may you read the folder it is in?"
        ) from error
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{folder} is {'not there' if found is None else 'a file'}; give a folder that exists")
    plain = Path(os.path.abspath(folder))
    # a link followed by `..` leads elsewhere than its name says
    return plain if os.path.exists(plain) and plain.samefile(folder) else folder.resolve()
