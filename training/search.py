"""A retrieval set searched as the app searches: the one place where training/ reaches into the app's index and fusion.

What people see are the app's hits, so its store and its retriever are what is measured. Each passage is a file of one
chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import SearchConfig
from gritdesk.records import Chunk, Document, Hit, SearchMode
from gritdesk.retriever import Retriever
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore
from training.app_errors import app_errors
from training.embedders import visible


class AppIndex:
    """A corpus in an index of the app, in memory; found are passages' ids, best first."""

    def __init__(self, texts: Mapping[str, str], passages_ND: NDArray[np.float32] | None = None) -> None:
        """Args: texts: by passage id. passages_ND: their embeddings in this order; None: found by words alone.

        Raises: ValueError if the app cannot make an index here.
        """
        self._ids = list(texts)
        with app_errors():
            self._store = SqliteStore(":memory:")
            if passages_ND is not None:
                self._store.enter_space(Space("evaluation", passages_ND.shape[1]))
            for number, text in enumerate(texts.values()):
                self._add(number, visible(text), None if passages_ND is None else passages_ND[number])

    def __enter__(self) -> AppIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def search(
        self,
        query: str,
        limit: int,
        mode: SearchMode,
        query_D: NDArray[np.float32] | None = None,
        config: SearchConfig | None = None,
    ) -> list[str]:
        """What the app's search shows. The query's embedding may be None in mode keyword; the default config is the
        app's."""
        return [self.id_of(hit) for hit in self.hits(query, limit, mode, query_D, config)]

    def hits(
        self,
        query: str,
        limit: int,
        mode: SearchMode,
        query_D: NDArray[np.float32] | None = None,
        config: SearchConfig | None = None,
    ) -> list[Hit]:
        """The same as the app's own hits."""

        def embed_query(_: str) -> NDArray[np.float32]:
            assert query_D is not None, "a search by meaning needs the query's embedding"
            return query_D

        with app_errors():
            return Retriever(self._store, embed_query, config or SearchConfig()).search(query, limit, mode)

    def id_of(self, hit: Hit) -> str:
        """The passage's id."""
        return self._ids[int(hit.path.name)]

    def any_word(self, query: str, limit: int) -> list[str]:
        """What plain BM25 finds, over the same words."""
        with app_errors():
            return [self._ids[int(hit.path.name)] for hit in self._store.any_word(query, limit)]

    def _add(self, number: int, text: str, embedding_D: NDArray[np.float32] | None) -> None:
        # a file is named by its number, since an id may be no name of a file
        path, key = Path(str(number)), str(number).encode()
        chunk = Chunk(text, 0, len(text), 1, 1 + text.count("\n"))
        self._store.replace_document(Document(path, text, "text"), FileState(len(text), 0, ""), [chunk], [key])
        if embedding_D is not None:
            self._store.add_embeddings({key: embedding_D})
