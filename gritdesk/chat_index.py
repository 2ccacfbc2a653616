"""Chats -> an index of their words and meaning, to be searched like files.

The index is made of the chats' files and of nothing else: whatever is missing from it, or more than they hold, is
brought up before a search, and a damaged index is made anew. It lies beside the chats, on this machine, and the model
that embeds is the one on this machine, also where a team shares an index or a server embeds files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from gritdesk.chats import Chats, read_chat
from gritdesk.config import Config
from gritdesk.errors import ModelError, StoreBusy, StoreError
from gritdesk.indexer import Indexer
from gritdesk.records import Chat, ChatHit, Document, EmbeddingInput, Hit, SearchMode, Section
from gritdesk.retriever import Retriever
from gritdesk.store.sqlite import SqliteStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_BYTES_A_TOKEN = 2
"""A cautious guess, so that words are found without a model."""
_WAIT_S = 5.0
"""For another process that brings the index up; then what it holds must do."""


class ChatIndex:
    """Searches the chats of one home; any thread may use it, since every call opens the index anew.

    Args:
        embed: float32[num, dimension], one row per input.
        embed_query: float32[dimension] of a question.
        fingerprint: names the space of both.
    """

    def __init__(
        self,
        config: Config,
        embed: Callable[[Sequence[EmbeddingInput]], NDArray[np.float32]],
        embed_query: Callable[[str], NDArray[np.float32]],
        fingerprint: Callable[[], str],
    ) -> None:
        self._config = config
        self._chats = Chats(config)
        self._embed = embed
        self._embed_query = embed_query
        self._fingerprint = fingerprint
        self._path = config.chats_index_path

    def search(self, query: str, n: int = 10, mode: SearchMode = "hybrid") -> list[ChatHit]:
        """The `n` best stretches of all chats, best first; by words alone where the model gives no embeddings.

        Raises: QueryError; ModelError if meaning alone is asked for and the model fails; StoreError.
        """
        return self._on_store(lambda store: self._search(store, query, n, mode))

    def refresh(self, *, embeds: bool = True) -> None:
        """Bring the index up with the chats' files. Raises: ModelError, after words are up; StoreError."""
        self._on_store(lambda store: self._refresh(store, embeds=embeds))

    def forget_deleted(self) -> None:
        """Take chats that are gone out of the index, and whatever is left of them in its file."""

        def forget(store: SqliteStore) -> None:
            self._refresh(store, embeds=False)
            store.prune()
            store.compact()

        if self._path.exists():
            self._on_store(forget)

    def size_bytes(self) -> int:
        return sum(each.stat().st_size for each in self._path.parent.glob(f"{self._path.name}*") if each.is_file())

    # ------------------------------------------------------------ the index

    def _on_store(self, work: Callable[[SqliteStore], T]) -> T:
        try:
            with SqliteStore(self._path) as store:
                return work(store)
        except StoreBusy:
            raise
        except StoreError:
            self._remove()
        with SqliteStore(self._path) as store:
            return work(store)

    def _remove(self) -> None:
        """Of a damaged index nothing is needed: all of it comes from the chats."""
        for each in self._path.parent.glob(f"{self._path.name}*"):
            with suppress(OSError):
                each.unlink()

    def _refresh(self, store: SqliteStore, *, embeds: bool) -> None:
        lock = FileLock(self._path.with_suffix(".index.lock"), timeout=_WAIT_S)
        with suppress(Timeout), lock:
            indexer = Indexer(
                store,
                self._embed,
                _guessed_tokens,
                self._document,
                self._fingerprint() if embeds else "",
                self._config.index,
                tokenizer=f"{_BYTES_A_TOKEN} bytes",
                embeds=lambda: embeds,
            )
            indexer.update(self._changed_paths(store))

    def _changed_paths(self, store: SqliteStore) -> set[Path]:
        """The files of chats, and what the index has of such that are gone."""
        return {*self._chats.paths(), *store.files()}

    def _document(self, path: Path) -> Document:
        return as_document(path, read_chat(path))

    def _search(self, store: SqliteStore, query: str, n: int, mode: SearchMode) -> list[ChatHit]:
        try:
            self._refresh(store, embeds=mode != "keyword")
            space = store.space()
            if mode != "keyword" and space is not None and space.fingerprint != self._fingerprint():
                mode = "keyword"  # another process is still embedding for the model in use now
            hits = self._retriever(store).search(query, n, mode)
        except ModelError:
            if mode == "semantic":
                raise
            self._refresh(store, embeds=False)
            hits = self._retriever(store).search(query, n, "keyword")
        return list(self._told(hits))

    def _retriever(self, store: SqliteStore) -> Retriever:
        return Retriever(store, self._embed_query, self._config.search)

    def _told(self, hits: Sequence[Hit]) -> Iterator[ChatHit]:
        chats: dict[Path, Chat] = {}
        for hit in hits:
            with suppress(OSError):  # deleted a moment ago
                chat = chats.setdefault(hit.path, read_chat(hit.path))
                number = hit.chunk.page or 0
                exchange = chat.exchanges[number - 1] if 0 < number <= len(chat.exchanges) else None
                asked_at = exchange.asked_at if exchange else 0.0
                yield ChatHit(chat.id, chat.title, number, asked_at, hit)


def as_document(path: Path, chat: Chat) -> Document:
    """A chat as text: the title a person gave, then one page for each question with its answer."""
    pages: list[tuple[int, str]] = [(0, chat.title)] if chat.is_named else []
    pages += [
        (number, f"{each.question.strip()}\n\n{each.answer.text.strip()}")
        for number, each in enumerate(chat.exchanges, start=1)
    ]
    sections, text = [], ""
    for number, page in pages:
        sections.append(Section(len(text), text.count("\n") + 1, page=number))
        text += f"{page}\n\n"
    return Document(path, text, "chat", tuple(sections) or (Section(0, 1),))


def _guessed_tokens(texts: Iterable[str]) -> list[int]:
    return [len(text.encode()) // _BYTES_A_TOKEN + 1 for text in texts]
