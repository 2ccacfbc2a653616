"""Chats as a front end has them: kept while they are asked in, listed, searched, changed and handed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.chat_index import ChatIndex
from gritdesk.chats import Chats, ExportFormat, exported, now
from gritdesk.config import Config
from gritdesk.errors import ConfigError, GritDeskError
from gritdesk.grit_format import query_input
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    Chat,
    ChatHit,
    ChatSummary,
    EmbeddingInput,
    Evidence,
    EvidenceFound,
    Exchange,
    Hit,
    PieceGenerated,
    SearchMode,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

    from gritdesk.engine.host import EngineHost

Asks = Callable[[str, Sequence[Exchange], Callable[[], bool]], "Generator[AnswerEvent, None, None]"]


class ChatKeeper:
    """All that is done with the chats of one home; any thread may use it.

    Args:
        engine: on this machine; started by the first search by meaning.
        fingerprint: names the space of its embeddings.
        notify: told what a person should know.
    """

    def __init__(
        self,
        config: Config,
        engine: Callable[[], EngineHost],
        fingerprint: Callable[[], str],
        notify: Callable[[str], None],
    ) -> None:
        self._config = config
        self._chats = Chats(config)
        self._engine = engine
        self._notify = notify
        self._index = ChatIndex(config, self._embed, self._embed_query, fingerprint)

    @property
    def are_kept(self) -> bool:
        """Whether new questions are; chats that are there stay in any case."""
        return self._config.answer.keep_chats

    def start(self) -> str:
        """The id of a new chat, whose file comes with its first answer; "" where no chats are to be kept."""
        return self._chats.new_id() if self._config.answer.keep_chats else ""

    def all(self) -> list[ChatSummary]:
        """All chats, pinned ones first, then those last asked in."""
        return self._chats.all()

    def find(self, name: str) -> str:
        """The id that a person means by all or a part of it. Raises: ConfigError if there is none, or several."""
        return self._chats.find(name)

    def latest(self) -> str:
        """The id of the chat last asked in. Raises: ConfigError if there is none."""
        return self._chats.latest()

    def read(self, id_: str) -> Chat:
        """Raises: ConfigError if it is not there; StoreError if it cannot be read."""
        return self._chats.read(id_)

    def export(self, id_: str, format_: ExportFormat = "markdown") -> str:
        """Raises: as `read`."""
        return exported(self._chats.read(id_), format_)

    def write(self, id_: str, file: Path, format_: ExportFormat = "markdown", *, replaces: bool = True) -> None:
        """Export a chat to a file. Raises: as `read`; ConfigError if it cannot be written, or is there and to stay."""
        text = self.export(id_, format_)
        try:
            with open(file, "w" if replaces else "x", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
        except FileExistsError as error:
            raise ConfigError(f"{file} is there already; give another name") from error
        except OSError as error:
            raise ConfigError(f"cannot write {file}: {error.strerror}") from error

    def rename(self, id_: str, title: str) -> None:
        """Raises: StoreError if it cannot be written, or is not there."""
        self._chats.rename(id_, title)

    def pin(self, id_: str, is_pinned: bool = True) -> None:
        """Keep a chat on top of the list, or no more. Raises: as `rename`."""
        self._chats.pin(id_, is_pinned)

    def delete(self, id_: str) -> None:
        """Delete a chat, and all that the index has of it. Raises: ConfigError if it is not there; StoreError."""
        self._chats.delete(id_)
        self._index.forget_deleted()

    def search(self, query: str, n: int = 10, mode: SearchMode = "hybrid") -> list[ChatHit]:
        """Questions and answers that fit, best first; `query` in the language of gritdesk/querying.py.

        Raises: QueryError; StoreError; ModelError if meaning alone is asked for and the model fails.
        """
        return self._index.search(query, n, mode)

    def count(self) -> tuple[int, int]:
        """(number of chats, bytes of them and their index)."""
        return len(self._chats.paths()), self._chats.size_bytes() + self._index.size_bytes()

    def problems(self) -> list[str]:
        """What cannot be read of the chats, one line each."""
        found = []
        for path in self._chats.paths():
            with suppress(GritDeskError):
                if num := self._chats.read(path.stem).num_damaged:
                    found.append(
                        f"{num} {'line' if num == 1 else 'lines'} of {path} cannot be read, and no more is missing"
                    )
        return found

    def asking(
        self,
        ask: Asks,
        question: str,
        past: Sequence[Exchange] | None,
        is_stopped: Callable[[], bool],
        id_: str,
        within: Sequence[Path] = (),
    ) -> Iterator[AnswerEvent]:
        """The events of an answer, which is in the chat before AnswerFinished comes, or with what came when it ends.

        Args:
            past: None for the exchanges of the chat.
            within: what is asked, to be kept with an answer that does not come to its end.
        Raises: ConfigError if no chats are to be kept.
        """
        if not self._config.answer.keep_chats:
            raise ConfigError(f"chats are not kept (answer.keep_chats in {self._config.path}); ask with --no-chat")
        begins = not self._chats.path(id_).exists()
        if past is None:
            past = () if begins else self._chats.read(id_).exchanges
        asked_at, is_kept = now(), False
        found: tuple[Hit, ...] = ()
        evidence: Evidence = "found"
        pieces: list[str] = []
        try:
            with closing(ask(question, past, is_stopped)) as events:
                for event in events:
                    if isinstance(event, EvidenceFound):
                        found, evidence = event.hits, event.evidence
                    elif isinstance(event, PieceGenerated):
                        pieces.append(event.text)
                    elif isinstance(event, AnswerRestarted):
                        pieces.clear()
                    elif isinstance(event, AnswerFinished):
                        is_kept = True
                        self._keep(id_, Exchange(event.answer, found, asked_at), begins)
                    yield event
        finally:
            if not is_kept and pieces:
                answer = Answer(question, "".join(pieces).strip(), grounded=False, stopped=True, evidence=evidence)
                answer = replace(answer, from_model=evidence == "none" and not found, within=tuple(within))
                self._keep(id_, Exchange(answer, found, asked_at), begins)
        with suppress(GritDeskError):  # the next search of chats brings it up
            self._index.refresh()

    def _keep(self, id_: str, exchange: Exchange, begins: bool) -> None:
        """A chat that cannot be written is no reason to lose the answer."""
        if not exchange.answer.text:
            return
        try:
            self._chats.add(id_, exchange, begins=begins)
        except GritDeskError as error:
            self._notify(f"this answer is not kept: {error}")

    def _embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        return self._engine().embed(inputs)

    def _embed_query(self, question: str) -> NDArray[np.float32]:
        from gritdesk.engine.host import Priority

        embedding: NDArray[np.float32] = self._engine().embed([query_input(question)], priority=Priority.QUERY)[0]
        return embedding
