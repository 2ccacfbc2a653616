"""What every store does, wherever it keeps its rows. Services know this interface and nothing of SQL.

Words and meaning are written at two times. A file's chunks are searchable by words as soon as `replace_document`
returns; a chunk whose embedding is not stored awaits it, and `add_embeddings` makes it findable by meaning.

Embeddings lie in a space, named by what made them. One space is searched. While another one is being filled the
searched one stays as it is, and `finish_space` puts the new one in its place; two spaces are never mixed. A hash
names what is embedded and not what embeds it, so the same hashes await their embedding in the next space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from gritdesk.records import Chunk, Document, FailedFile, Hit, Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FileState:
    """What was known of a file when its rows were written."""

    size_bytes: int
    mtime_ns: int
    content_hash: str
    """Of the file's bytes; empty when they could not be read."""
    state: Literal["indexed", "failed"] = "indexed"
    reason: str = ""
    """Why it failed, as shown to a person."""
    reading: str = ""
    """Which readers and chunking made the rows; a file of another reading is read again."""


@dataclass(frozen=True)
class Space:
    """What makes embeddings, and how long they are."""

    fingerprint: str
    """Model, GRIT format and pooling."""
    dimension: int
    model: str = ""
    """Path of the model's file, to ask in this space while another one is filled; "" where it has none."""


EVERYWHERE = Scope()
"""All files of the index."""


class Store(Protocol):
    """One open index. Use it from one thread at a time; every thread opens its own.

    Every method raises StoreError if the index is damaged, closed or cannot be reached, StoreBusy if another program
    holds it too long. Whatever belongs to one file changes in one transaction.
    """

    # ------------------------------------------------------------ spaces

    def space(self) -> Space | None:
        """The space that is searched; None while nothing was ever embedded."""

    def next_space(self) -> Space | None:
        """The space that is being filled beside it; None as a rule."""

    def enter_space(self, space: Space) -> None:
        """Say what makes embeddings from now on; no-op if it is said already.

        The first space is searched at once. Another one is filled beside the searched one: all passages await
        their embedding in it. Entering the searched one again drops the one that was being filled.
        Raises: FingerprintMismatch if the same fingerprint comes with another dimension.
        """

    def finish_space(self) -> None:
        """Search the next space from now on and drop the old one; no-op if there is none, or while passages await."""

    # ------------------------------------------------------------ files

    def files(self) -> dict[Path, FileState]:
        """Every file the index knows, indexed or failed."""

    def paths(self) -> list[str]:
        """The full paths of the indexed files, in no order; many times quicker than `files`."""

    def replace_document(
        self, document: Document, state: FileState, chunks: Sequence[Chunk], hashes: Sequence[bytes]
    ) -> None:
        """Write one file's rows in place of what was there; words are searchable when this returns.

        Args:
            chunks: in the order of the text, not overlapping.
            hashes: one per chunk, of what is embedded; what embeds it is the space. Those that have an embedding in
                the space that is being filled, or were given up there, await none.
        """

    def copy_document(self, source: Path, path: Path, state: FileState) -> bool:
        """Give `path` the rows of an indexed file of the same content; False if there are none any more.

        The same is content whose hash is that of `state`: the source may have been written anew meanwhile.
        """

    def record_failure(self, path: Path, state: FileState) -> None:
        """Remember why a file could not be indexed; rows of its earlier content go."""

    def touch(self, path: Path, state: FileState) -> None:
        """Note the size, modification time and reading of unchanged content; the rest of the row stays."""

    def delete_documents(self, paths: Iterable[Path]) -> None:
        """Remove files and all that belongs to them; embeddings stay until `prune`."""

    def prune(self) -> int:
        """Remove embeddings that no chunk uses, of every space; returns of how many hashes."""

    # ------------------------------------------------------------ embeddings

    def awaiting(self, limit: int) -> list[tuple[bytes, Chunk]]:
        """Hashes and chunks whose embedding is not stored, each hash once; of small files first, then recent ones.

        In the space that is being filled: the next one if there is one. Before the first space all passages await.
        """

    def num_awaiting(self) -> int:
        """How many hashes `awaiting` would list."""

    def add_embeddings(self, embeddings: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store float32[dimension] by hash, in one transaction, for all chunks of these hashes.

        In the space that is being filled, which must have been entered. What is stored already stays.
        Raises: FingerprintMismatch if an embedding's length is not that of the space.
        """

    def give_up(self, hash_: bytes, reason: str) -> None:
        """No longer await an embedding that cannot be made; its chunks are found by words only.

        Another space asks for it again.
        """

    def embeddings_of(self, path: Path) -> NDArray[np.float32]:
        """Embeddings of a file's chunks in the searched space, float32[num, dimension], num 0 if it has none."""

    # ------------------------------------------------------------ searching, always within a scope

    def keyword(self, query: str, limit: int, scope: Scope = EVERYWHERE, *, all_first: bool = True) -> list[Hit]:
        """Chunks by their words, best first: those with all words, then those with any; or all by BM25 at once.

        "Quoted parts" of the query stand in every hit. Where no word is found, chunks are taken that hold the query
        letter by letter.
        """

    def phrase(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the words of the text in that very order, best first."""

    def literal(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the text letter by letter, upper and lower case alike; whatever is there is found."""

    def holding(self, phrases: Sequence[str], chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that hold the words of every phrase (at least one) in its order."""

    def nearest(self, embedding: NDArray[np.float32], limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks whose embedding is nearest by cosine distance, nearest first; [] while there are no embeddings.

        Raises: FingerprintMismatch if the embedding's length is not that of the searched space.
        """

    def newest(self, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """The first chunk of each file, of those that were modified last first."""

    # ------------------------------------------------------------ looking in

    def document_text(self, path: Path) -> str | None:
        """The text of an indexed file as it was read; None if the index does not hold it."""

    def format_of(self, path: Path) -> str:
        """The reader's format of an indexed file; "" if the index does not hold it."""

    def chunks_of(self, path: Path) -> list[Chunk]:
        """The chunks of one file, in the order of its text."""

    def frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """How many chunks there are, and about how many hold each term, which is a word or several side by side."""

    def counts(self) -> tuple[int, int, int]:
        """(indexed files, chunks, bytes of text)."""

    def chunk_numbers(self) -> dict[Path, int]:
        """How many chunks each indexed file has."""

    def failures(self) -> list[FailedFile]:
        """Files that could not be indexed, by path, and those with passages that could not be embedded."""

    def integrity(self) -> list[str]:
        """Everything found wrong, one line each; reads all of it, while nobody writes."""

    def close(self) -> None:
        """Close the index, from whatever thread: a call under way in another one fails. Never raises."""
