"""The index: one SQLite file of documents, chunks, words and embeddings. Here and beside it is all SQL of the house.

Rules owned here:
- whatever belongs to one file changes in one transaction, so a kill at any moment leaves whole files;
- a passage, what is embedded, is known by its hash; chunks share it, and it has one embedding in each space;
- what a person types is never FTS5 syntax: it is quoted, word by word (see words.py);
- exceptions of SQLite become StoreErrors that name the file and say what to do.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import re
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import apsw

from gritdesk.errors import FingerprintMismatch, StoreBusy, StoreError
from gritdesk.records import Chunk, Document, FailedFile, Hit, Scope
from gritdesk.store import words
from gritdesk.store.base import EVERYWHERE, FileState, Space
from gritdesk.store.migrations import migrate
from gritdesk.store.places import condition, path_to_sql
from gritdesk.store.texts import gaps_of, text_hash_of

if TYPE_CHECKING:  # numpy takes 0.1 s to import, which a search by words need not pay
    import numpy as np
    from numpy.typing import NDArray

    from gritdesk.store.vectors import CodeBlock, Codes, CodesNow

_PAGE_BYTES = 16 * 1024  # large pages make the scan over vectors cheaper
_MMAP_BYTES = 1 << 30
_BUSY_MS = 10_000
_MAX_RANKED = 5_000
"""Rows of words that are ranked at most, at 1 to 3 us each; to count one takes a fiftieth of that."""
_MIN_RANKED, _RANKED_PER_HIT = 2_000, 20
"""Of rows with any word of several so many of the most telling are ranked; so many for each hit that is asked for."""
_MAX_LOOKED_AT = 150_000
"""Rows of words that are looked at to choose those."""
_MAX_LOOKED_AT_WITHIN = 300_000
"""The same within a scope, which may hold few of them."""
_COUNTED = 2_000
"""Rows of a word that are counted; of more its number is estimated."""
_MAX_LITERAL_BYTES = 4000
"""Longest text that is looked for letter by letter; SQLite itself refuses a pattern of 50,000 bytes."""
_CLOSE_S = 5.0
"""How long `close` waits for another thread to notice its interrupt."""
_CODES_IN_BLOCK = 984
"""Two blocks' ids, and as a rule a block's codes of 384 bits, then fill whole pages."""
_CHECKED_AT_ONCE = 10_000
"""Embeddings that `integrity` holds in memory."""

_REBUILD = "move it away and run `gritdesk index` to build it anew"

_HIT_COLUMNS = """chunk.id, document.path, chunk.text, chunk.char_start, chunk.char_end, chunk.line_start,
    chunk.line_end, chunk.heading, chunk.page, chunk.num_tokens"""
_CHUNKS_OF_DOCUMENT = (
    "chunk ON chunk.id >= document.first_chunk AND chunk.id < document.first_chunk + document.num_chunks"
)
_STATE_COLUMNS = "size_bytes, mtime_ns, content_hash, state, reason, reading"


@dataclasses.dataclass(frozen=True)
class _SpaceRow:
    id: int
    fingerprint: str
    dimension: int
    model: str
    num_added: int
    num_removed: int


@dataclasses.dataclass(frozen=True)
class _Within:
    """The chunks and passages of a scope."""

    scope: Scope
    moment: tuple[int, int]
    """What the index and this connection's changes were when it was asked."""
    is_within: bytes
    """1 at the ids of its chunks."""
    passages: bytes

    def passage_ids(self) -> NDArray[np.int32]:
        import numpy as np

        return np.frombuffer(self.passages, np.int32)


class Shared:
    """What the threads of a process hold of one index together, each through a connection of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: Codes | None = None

    def codes(self) -> Codes:
        """The codes of the searched space; made by the first search by meaning, which imports numpy."""
        with self._lock:
            if self._codes is None:
                from gritdesk.store.vectors import Codes

                self._codes = Codes()
            return self._codes


class SqliteStore:
    """One open index. Use it from one thread at a time; every thread opens its own."""

    def __init__(self, path: Path | Literal[":memory:"], shared: Shared | None = None) -> None:
        """Open the index, or create it with its folder.

        Args:
            shared: what the threads of a process hold of this one index together; by default nothing.
        Raises: StoreError if it is damaged, of another program, of a newer version or not accessible.
        """
        self.path = path
        self._shared = shared or Shared()
        self._last_within: _Within | None = None
        with self._translated():
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = apsw.Connection(str(path))
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # counts only before the first table
        connection.enable_load_extension(True)
        connection.load_extension(_vec0_path())
        connection.enable_load_extension(False)
        migrate(connection)  # refuses a foreign file before anything in it is changed
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")

    def close(self) -> None:
        """Close the index, from whatever thread: a call under way in another one fails. Never raises."""
        give_up_at = time.monotonic() + _CLOSE_S
        with suppress(apsw.Error):
            while True:
                try:
                    self._connection.close()
                    return
                except apsw.ThreadingViolationError:
                    if time.monotonic() > give_up_at:
                        return
                self._connection.interrupt()  # not sooner: closing would not move the log into the index any more
                time.sleep(0.005)

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ spaces

    def space(self) -> Space | None:
        """The space that is searched; None while nothing was ever embedded."""
        return _space(self._space_row(is_searched=True))

    def next_space(self) -> Space | None:
        """The space that is being filled beside it; None as a rule."""
        return _space(self._space_row(is_searched=False))

    def enter_space(self, space: Space) -> None:
        """Say what makes embeddings from now on; no-op if it is said already.

        The first space is searched at once. Another one is filled beside the searched one: all passages await their
        embedding in it. Entering the searched one again drops the one that was being filled.
        Raises: FingerprintMismatch if the same fingerprint comes with another dimension.
        """
        with self._transaction():
            searched, filled = self._space_row(is_searched=True), self._space_row(is_searched=False)
            for known in (searched, filled):
                if known is not None and known.fingerprint == space.fingerprint:
                    _check_dimension(known, space.dimension)
                    self._run("UPDATE space SET model = ? WHERE id = ?", (space.model, known.id))
            if (filled or searched or space).fingerprint == space.fingerprint and (filled or searched):
                return
            if filled is not None:
                self._drop_space(filled)
            if searched is not None and searched.fingerprint == space.fingerprint:
                self._await_all()
                return
            self._run(
                "INSERT INTO space(fingerprint, dimension, model, is_searched) VALUES (?, ?, ?, ?)",
                (space.fingerprint, space.dimension, space.model, searched is None),
            )
            space_id = self._connection.last_insert_rowid()
            self._make_space_tables(space_id, space.dimension)
            if searched is not None:
                self._await_all()

    def finish_space(self) -> None:
        """Search the next space from now on and drop the old one; no-op if there is none, or while passages await."""
        with self._transaction():
            searched, filled = self._space_row(is_searched=True), self._space_row(is_searched=False)
            if searched is None or filled is None or self.num_awaiting():
                return
            self._drop_space(searched)
            self._run("UPDATE space SET is_searched = 1 WHERE id = ?", (filled.id,))

    def _space_row(self, *, is_searched: bool) -> _SpaceRow | None:
        rows = self._run(
            """SELECT id, fingerprint, dimension, model, num_added, num_removed FROM space
               WHERE is_searched = ?""",
            (is_searched,),
        )
        return _SpaceRow(*rows[0]) if rows else None

    def _filled_space_row(self) -> _SpaceRow | None:
        """The space that new embeddings belong to."""
        return self._space_row(is_searched=False) or self._space_row(is_searched=True)

    def _make_space_tables(self, space_id: int, dimension: int) -> None:
        from gritdesk.store.vectors import num_bits

        self._run(f"CREATE TABLE vector_{space_id}(passage_id INTEGER PRIMARY KEY, embedding BLOB NOT NULL) STRICT")
        columns = f"bits bit[{num_bits(dimension)}], chunk_size={_CODES_IN_BLOCK}"
        self._run(f"CREATE VIRTUAL TABLE code_{space_id} USING vec0({columns})")

    def _drop_space(self, space: _SpaceRow) -> None:
        self._run(f"DROP TABLE vector_{space.id}")
        self._run(f"DROP TABLE code_{space.id}")
        self._run("DELETE FROM space WHERE id = ?", (space.id,))

    # ------------------------------------------------------------ files

    def files(self) -> dict[Path, FileState]:
        """Every file the index knows, indexed or failed."""
        rows = self._run(f"SELECT path, {_STATE_COLUMNS} FROM document")
        return {_path_from_sql(path): FileState(*state) for path, *state in rows}

    def paths(self) -> list[str]:
        """The full paths of the indexed files, in no order."""
        rows = self._run("SELECT path FROM document WHERE state = 'indexed'")
        return [os.fsdecode(path) for (path,) in rows]

    def replace_document(
        self, document: Document, state: FileState, chunks: Sequence[Chunk], hashes: Sequence[bytes]
    ) -> None:
        """Write one file's rows in place of what was there; words are searchable when this returns.

        Args:
            chunks: in the order of the text, not overlapping.
            hashes: one per chunk, of what is embedded; those that have embeddings await none.
        """
        gaps, tail = gaps_of(document, chunks)
        text = document.text.encode()
        with self._transaction():
            passage_ids = self._passage_ids(hashes)
            passages = array("i", passage_ids).tobytes()
            columns = (document.format, tail, len(text), text_hash_of(text), passages)
            document_id = self._write_document(document.path, state, *columns)
            self._connection.executemany(
                """INSERT INTO chunk(document_id, passage_id, gap, text, heading, char_start, char_end,
                       line_start, line_end, page, num_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    (document_id, passage_id, gap, chunk.text, chunk.heading, chunk.char_start, chunk.char_end)
                    + (chunk.line_start, chunk.line_end, chunk.page, chunk.num_tokens)
                    for chunk, gap, passage_id in zip(chunks, gaps, passage_ids, strict=True)
                ),
            )
            if chunks:
                self._note_chunks(document_id, len(chunks))
            self._await_embeddings(state, dict(zip(passage_ids, hashes, strict=True)))

    def copy_document(self, source: Path, path: Path, state: FileState) -> bool:
        """Give `path` the rows of an indexed file of the same content; False if there are none any more."""
        with self._transaction():
            rows = self._run(
                """SELECT first_chunk, num_chunks, format, tail, text_bytes, text_hash, passages FROM document
                   WHERE path = ? AND state = 'indexed' AND content_hash = ?""",
                (path_to_sql(source), state.content_hash),
            )
            if not rows or source == path:
                return bool(rows)
            ((first, num, *columns),) = rows
            document_id = self._write_document(path, state, *columns)
            self._run(
                """INSERT INTO chunk(document_id, passage_id, gap, text, heading, char_start, char_end,
                       line_start, line_end, page, num_tokens)
                   SELECT ?, passage_id, gap, text, heading, char_start, char_end, line_start, line_end, page,
                       num_tokens FROM chunk WHERE id >= ?2 AND id < ?2 + ?3 ORDER BY id""",
                (document_id, first, num),
            )
            if num:
                self._note_chunks(document_id, num)
        return True  # its passages have embeddings, await them or were given up, as those of the source

    def record_failure(self, path: Path, state: FileState) -> None:
        """Remember why a file could not be indexed; rows of its earlier content go."""
        assert state.state == "failed" and state.reason
        with self._transaction():
            self._write_document(path, state, "", "", 0, text_hash_of(b""), b"")

    def touch(self, path: Path, state: FileState) -> None:
        """Note a new modification time, and what reads it, of unchanged content."""
        with self._transaction():
            self._run(
                "UPDATE document SET size_bytes = ?, mtime_ns = ?, reading = ? WHERE path = ?",
                (state.size_bytes, state.mtime_ns, state.reading, path_to_sql(path)),
            )

    def delete_documents(self, paths: Iterable[Path]) -> None:
        """Remove files and all that belongs to them, in one transaction; embeddings stay until `prune`."""
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM document WHERE path = ?", ((path_to_sql(each),) for each in paths)
            )

    def prune(self) -> int:
        """Remove embeddings that no chunk uses, of both spaces; returns how many passages had them."""
        with self._transaction():
            orphans = self._run(
                "SELECT id FROM passage WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.passage_id = passage.id)"
            )
            if not orphans:
                return 0
            num_removed = 0
            for space in (self._space_row(is_searched=True), self._space_row(is_searched=False)):
                if space is not None:
                    before = self._connection.total_changes()
                    self._connection.executemany(f"DELETE FROM vector_{space.id} WHERE passage_id = ?", orphans)
                    removed = self._connection.total_changes() - before
                    num_removed = max(num_removed, removed)
                    self._connection.executemany(f"DELETE FROM code_{space.id} WHERE rowid = ?", orphans)
                    self._run("UPDATE space SET num_removed = num_removed + ? WHERE id = ?", (removed, space.id))
            self._connection.executemany("DELETE FROM given_up WHERE passage_id = ?", orphans)
            self._run("DELETE FROM passage WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.passage_id = passage.id)")
        return num_removed

    def compact(self) -> None:
        """Leave nothing in the file of what was deleted; takes as long as writing all of it anew, so it is for few."""
        self._run("INSERT INTO word(word) VALUES ('optimize')")
        self._run("VACUUM")
        self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write_document(self, path: Path, state: FileState, *columns: Any) -> int:
        """Replace a document's row, and with the old one its chunks and words; returns the new id."""
        key = path_to_sql(path)
        self._run("DELETE FROM document WHERE path = ?", (key,))
        self._run(
            f"""INSERT INTO document(path, {_STATE_COLUMNS}, format, tail, text_bytes, text_hash, passages,
                    folder, name, suffix)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
                    folder_of(?1), name_of(?1), suffix_of(?1))""",
            (key, *dataclasses.astuple(state), *columns),
        )
        return self._connection.last_insert_rowid()

    def _note_chunks(self, document_id: int, num: int) -> None:
        """Where a document's chunks lie: they were written at once, and last, so their ids are the highest."""
        self._run(
            "UPDATE document SET first_chunk = (SELECT max(id) FROM chunk) - ?1 + 1, num_chunks = ?1 WHERE id = ?2",
            (num, document_id),
        )

    def _passage_ids(self, hashes: Iterable[bytes]) -> list[int]:
        """Ids of the passages of these hashes; those that are new are written."""
        ((first_id,),) = self._run("SELECT coalesce((SELECT value FROM setting WHERE key = 'next_passage'), 1)")
        next_id = int(first_id)
        new: dict[bytes, int] = {}
        passage_ids = []
        for each in hashes:
            known = new.get(each) or self._known_passage(each)
            if known is None:
                known = new[each] = next_id
                next_id += 1
            passage_ids.append(known)
        self._connection.executemany("INSERT INTO passage(hash, id) VALUES (?, ?)", new.items())
        self._run("INSERT OR REPLACE INTO setting VALUES ('next_passage', ?)", (str(next_id),))
        return passage_ids

    def _known_passage(self, hash_: bytes) -> int | None:
        rows = self._run("SELECT id FROM passage WHERE hash = ?", (hash_,))
        return int(rows[0][0]) if rows else None

    def _await_embeddings(self, state: FileState, passages: Mapping[int, bytes]) -> None:
        """Of these passages, those without embedding that were not given up."""
        space = self._filled_space_row()
        row = "SELECT size_class(?1) AS size_class, -?2 AS age, ?3 AS passage_id, ?4 AS hash"
        self._connection.executemany(
            f"INSERT OR IGNORE INTO awaiting SELECT * FROM ({row}) AS new WHERE {_awaits(space)}",
            ((state.size_bytes, state.mtime_ns, passage_id, hash_) for passage_id, hash_ in passages.items()),
        )

    def _await_all(self) -> None:
        """Let all passages await an embedding in the space that is being filled, save those that have it."""
        self._run("DELETE FROM awaiting")
        self._run("DELETE FROM given_up")
        self._run(
            f"""INSERT INTO awaiting
                SELECT size_class(document.size_bytes), -document.mtime_ns, new.passage_id, new.hash
                FROM (SELECT id AS passage_id, hash FROM passage) AS new
                JOIN chunk ON chunk.id = (SELECT min(id) FROM chunk WHERE chunk.passage_id = new.passage_id)
                JOIN document ON document.id = chunk.document_id WHERE {_awaits(self._filled_space_row())}"""
        )

    # ------------------------------------------------------------ embeddings

    def awaiting(self, limit: int) -> list[tuple[bytes, Chunk]]:
        """Hashes and chunks whose embedding is not stored, each hash once; of small files first, then recent ones."""
        rows = self._run(
            f"""WITH first AS MATERIALIZED (SELECT * FROM awaiting ORDER BY size_class, age, passage_id LIMIT ?)
                SELECT first.hash, {_HIT_COLUMNS} FROM first
                JOIN chunk ON chunk.id = (SELECT min(id) FROM chunk WHERE chunk.passage_id = first.passage_id)
                JOIN document ON document.id = chunk.document_id
                ORDER BY first.size_class, first.age, first.passage_id""",
            (limit,),
        )
        return [(hash_, Chunk(*chunk)) for hash_, _, _, *chunk in rows]

    def num_awaiting(self) -> int:
        """How many hashes `awaiting` would list."""
        return int(self._run("SELECT count(*) FROM awaiting")[0][0])

    def add_embeddings(self, embeddings: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store float32[dimension] by hash, in one transaction, for all chunks of these hashes.

        Raises: FingerprintMismatch if an embedding's length is not that of the space that is being filled.
        """
        import numpy as np

        from gritdesk.store.vectors import codes, stored

        if not embeddings:
            return
        with self._transaction():
            space = self._filled_space_row()
            assert space is not None, "enter_space comes first"
            for embedding in embeddings.values():
                assert embedding.dtype == "float32", embedding.dtype
                _check_dimension(space, len(embedding))
            passage_ids = self._passage_ids(embeddings)
            stacked = np.stack(list(embeddings.values()))
            rows = [row.tobytes() for row in stored(stacked)]
            bits = [row.tobytes() for row in codes(stacked)]
            new = [n for n, each in enumerate(passage_ids) if not self._has_embedding(space, each)]
            self._connection.executemany(
                f"INSERT INTO vector_{space.id} VALUES (?, ?)", ((passage_ids[n], rows[n]) for n in new)
            )
            self._connection.executemany(
                f"INSERT INTO code_{space.id}(rowid, bits) VALUES (?, vec_bit(?))",
                ((passage_ids[n], bits[n]) for n in new),
            )
            for table in ("awaiting", "given_up"):
                self._connection.executemany(
                    f"DELETE FROM {table} WHERE passage_id = ?", ((each,) for each in passage_ids)
                )
            self._run("UPDATE space SET num_added = num_added + ? WHERE id = ?", (len(new), space.id))

    def give_up(self, hash_: bytes, reason: str) -> None:
        """No longer await an embedding that cannot be made; its chunks are found by words only."""
        with self._transaction():
            passage_id = self._known_passage(hash_)
            if passage_id is not None:
                self._run("DELETE FROM awaiting WHERE passage_id = ?", (passage_id,))
                self._run("INSERT OR REPLACE INTO given_up VALUES (?, ?)", (passage_id, reason))

    def embeddings_of(self, path: Path) -> NDArray[np.float32]:
        """Embeddings of a file's chunks in the searched space, float32[num, dimension], num 0 if it has none."""
        import numpy as np

        from gritdesk.store.vectors import restored

        with self._reading():
            space = self._space_row(is_searched=True)
            if space is None:
                return np.empty((0, 0), np.float32)
            rows = self._run(
                f"""SELECT v.embedding, code.bits FROM document JOIN {_CHUNKS_OF_DOCUMENT}
                    JOIN vector_{space.id} AS v ON v.passage_id = chunk.passage_id
                    JOIN code_{space.id} AS code ON code.rowid = v.passage_id
                    WHERE document.path = ? ORDER BY chunk.id""",
                (path_to_sql(path),),
            )
        bits = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
        return restored((row[0] for row in rows), bits, space.dimension)

    def _has_embedding(self, space: _SpaceRow, passage_id: int) -> bool:
        return bool(self._run(f"SELECT 1 FROM vector_{space.id} WHERE passage_id = ?", (passage_id,)))

    # ------------------------------------------------------------ searching

    def keyword(self, query: str, limit: int, scope: Scope = EVERYWHERE, *, all_first: bool = True) -> list[Hit]:
        """Chunks by their words, best first: those with all words, then those with any; or all by BM25 at once.

        "Quoted parts" must stand in every hit as they are. Stop words count only where there is nothing else. When
        no word is found, chunks that hold the query letter by letter are taken (parts of words).
        """
        phrases, terms = words.search_terms(query)
        hits: dict[int, Hit] = {}
        with self._reading():
            within = self._within(scope)
            for expression, any_terms, scored in words.widening(phrases, terms, all_first):
                if not expression:
                    continue
                is_any = len(any_terms) > 1
                ranked = self._telling(any_terms, limit, within) if is_any else self._newest(expression, within)
                for hit in self._ranked(ranked, limit):
                    hits.setdefault(hit.chunk_id, hit if scored else dataclasses.replace(hit, score=0.0))
                if len(hits) >= limit:
                    break
        found = [*hits.values()][:limit] or self._containing(query.strip().strip('"').strip(), limit, scope)
        return _keyword_ranked(found)

    def any_word(self, query: str, limit: int) -> list[Hit]:
        """Chunks that hold any word of the query, best first by BM25 alone: what other searches are measured against.

        Stop words count only where there is nothing else, quotation marks not at all.
        """
        expression = words.any_of(query)
        return _keyword_ranked(self._ranked(_all(expression), limit)) if expression else []

    def phrase(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the words of the text in that very order, best first."""
        if not re.search(r"\w", text):
            return []
        with self._reading():
            return _keyword_ranked(self._ranked(self._newest(words.quoted(text), self._within(scope)), limit))

    def literal(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the text letter by letter, upper and lower case alike; whatever is there is found."""
        return _keyword_ranked(self._containing(text, limit, scope))

    def holding(self, phrases: Sequence[str], chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that hold the words of every phrase (at least one) in its order."""
        rows = self._run(
            "SELECT rowid FROM word WHERE word MATCH ? AND rowid IN (SELECT value FROM json_each(?))",
            (words.all_of(phrases), json.dumps(list(chunk_ids))),
        )
        return {chunk_id for (chunk_id,) in rows}

    def newest(self, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """The first chunk of each file, of those that were modified last first."""
        within, values = condition(scope)
        rows = self._run(
            f"""WITH newest AS MATERIALIZED (
                    SELECT id, first_chunk, mtime_ns FROM document
                    WHERE num_chunks > 0 {within and "AND " + within} ORDER BY mtime_ns DESC, path LIMIT ?)
                SELECT {_HIT_COLUMNS} FROM newest
                JOIN document ON document.id = newest.id JOIN chunk ON chunk.id = newest.first_chunk
                ORDER BY newest.mtime_ns DESC, document.path""",
            (*values, limit),
        )
        return [_hit(row, score=1.0 / rank) for rank, row in enumerate(rows, start=1)]

    def nearest(self, embedding: NDArray[np.float32], limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks whose embedding is nearest by cosine distance, nearest first; [] while there are no embeddings.

        Raises: FingerprintMismatch if the embedding's length is not that of the searched space.
        """
        from gritdesk.store.vectors import CodeState, num_bits, num_exact

        assert embedding.dtype == "float32", embedding.dtype
        with self._reading():
            space = self._space_row(is_searched=True)
            if space is None:
                return []
            _check_dimension(space, len(embedding))
            codes = self._shared.codes().bring_up(
                CodeState(space.id, space.num_added, space.num_removed),
                num_bits(space.dimension),
                lambda first: self._code_blocks(space.id, first),
            )
            within = self._within(scope)
            allowed = None if within is None else codes.allowed(within.passage_ids())
            wanted = num_exact(limit)
            while True:
                places = codes.nearest(embedding, wanted, allowed)
                hits = self._nearest_of(codes, places, space, embedding, limit, scope)
                if len(hits) >= limit or len(places) < wanted:
                    return hits
                wanted *= 4  # many of them are of files that are gone

    def _nearest_of(
        self,
        codes: CodesNow,
        places: NDArray[np.intp],
        space: _SpaceRow,
        query: NDArray[np.float32],
        limit: int,
        scope: Scope,
    ) -> list[Hit]:
        import numpy as np

        from gritdesk.store.vectors import cosines

        if not len(places):
            return []
        places = places[np.argsort(codes.ids_N[places])]
        ids = codes.ids_N[places]
        rows = self._run(
            f"SELECT passage_id, embedding FROM vector_{space.id} WHERE passage_id IN carray(?)", (apsw.carray(ids),)
        )
        found_ids = np.array([row[0] for row in rows], np.int64)
        packed = codes.packed(places[np.searchsorted(ids, found_ids)])
        scores_N = cosines((row[1] for row in rows), packed, query)
        order_N = np.argsort(-scores_N, kind="stable")
        best, scores = found_ids[order_N], dict(zip(found_ids.tolist(), scores_N.tolist(), strict=True))
        sql, values = condition(scope)
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(best), limit):  # as a rule the first round finds enough
            found += self._run(
                f"""SELECT chunk.passage_id, {_HIT_COLUMNS} FROM chunk
                    CROSS JOIN document ON document.id = chunk.document_id
                    WHERE chunk.passage_id IN carray(?1) {sql and "AND " + sql}""",
                (apsw.carray(best[start : start + limit]), *values),
            )
            if len(found) >= limit:
                break
        found.sort(key=lambda row: (-scores[row[0]], row[1]))
        return [
            _hit(row, score=scores[passage_id], distance=1.0 - scores[passage_id], semantic_rank=rank)
            for rank, (passage_id, *row) in enumerate(found[:limit], start=1)
        ]

    def _code_blocks(self, space_id: int, first: int) -> Iterator[CodeBlock]:
        """As vec0 0.1 keeps them; rows of a block are used in order, and only the last block grows."""
        return self._connection.execute(
            f"""SELECT block.chunk_id, block.validity, block.rowids, code.vectors FROM code_{space_id}_chunks AS block
                JOIN code_{space_id}_vector_chunks00 AS code ON code.rowid = block.chunk_id
                WHERE block.chunk_id >= ? ORDER BY block.chunk_id""",
            (first,),
        )

    def _ranked(self, ranked: _Ranked, limit: int) -> list[Hit]:
        """The best of ranked rows."""
        sql, values = ranked
        rows = self._run(
            f"""WITH found AS MATERIALIZED ({sql} ORDER BY rank, id LIMIT ?)
                SELECT -found.rank, {_HIT_COLUMNS} FROM found
                CROSS JOIN chunk ON chunk.id = found.id CROSS JOIN document ON document.id = chunk.document_id
                ORDER BY found.rank, found.id""",
            (*values, limit),
        )
        return [_hit(row, score=score) for score, *row in rows]

    def _newest(self, expression: str, within: _Within | None) -> _Ranked:
        """The rows an expression finds; of very many only the newest."""
        sql, values = _all(expression, within)
        return f"SELECT id, rank FROM ({sql} ORDER BY rowid DESC LIMIT ?)", (*values, _MAX_RANKED)

    def _telling(self, terms: Sequence[str], limit: int, within: _Within | None) -> _Ranked:
        """The rows with any of the terms; of very many only those with the rarest and most of them.

        A row's BM25 is a sum over its terms of how rare each is, times 0.4 to 2.2 or so for how often it stands there.
        Terms are looked at from the rarest on, until a row with none of these would weigh less than any with one.
        """
        first, last = self._ends()
        num_found = {term: self._num_found(term, first, last) for term in terms}
        num_ranked = min(_MAX_RANKED, max(_MIN_RANKED, _RANKED_PER_HIT * limit))
        if sum(num_found.values()) <= num_ranked:
            return _all(" OR ".join(terms), within)
        import numpy as np

        by_rarity = sorted(terms, key=lambda each: num_found[each])
        weights = {each: math.log(1 + last / (num_found[each] + 0.5)) for each in terms}
        most = _MAX_LOOKED_AT if within is None else _MAX_LOOKED_AT_WITHIN
        sums_R = np.zeros(last + 1, np.float32)
        num_seen = num_within = 0
        looked_at: list[NDArray[np.int64]] = []
        for n, term in enumerate(by_rarity):
            is_dear = num_seen + num_found[term] > _MAX_LOOKED_AT
            is_light = sum(weights[each] for each in by_rarity[n:]) <= weights[by_rarity[n - 1]]
            if num_seen >= most or (num_within >= num_ranked and (is_dear or is_light)):
                break
            rowids = self._rowids(term, most - num_seen)
            num_seen += len(rowids)
            if within is not None:
                rowids = rowids[np.frombuffer(within.is_within, bool)[rowids]]
            num_within += len(rowids)
            sums_R[rowids] += weights[term]
            looked_at.append(rowids)
        chosen = _with_most(sums_R, num_ranked)
        num_rarest, is_found_R = 0, np.zeros(last + 1, bool)
        while not num_rarest or not is_found_R[chosen].all():
            is_found_R[looked_at[num_rarest]] = True
            num_rarest += 1
        return _those(by_rarity[:num_rarest], by_rarity[num_rarest:], chosen)

    def _ends(self) -> tuple[int, int]:
        """The least and the largest id of a chunk; (1, 0) if there is none. To count them would be a scan."""
        ends = "SELECT coalesce((SELECT min(id) FROM chunk), 1), coalesce((SELECT max(id) FROM chunk), 0)"
        ((first, last),) = self._run(ends)
        return int(first), int(last)

    def _num_found(self, term: str, first: int, last: int) -> int:
        """How many rows hold a term; of more than _COUNTED an estimate by how close to each other they are."""
        ((num, reached),) = self._run(
            "SELECT count(*), max(id) FROM (SELECT rowid AS id FROM word WHERE word MATCH ? LIMIT ?)", (term, _COUNTED)
        )
        return int(num if num < _COUNTED else num * (last - first + 1) // (reached - first + 1))

    def _rowids(self, term: str, most: int) -> NDArray[np.int64]:
        """The newest rows that hold a term. As one text they are read in a third of the time."""
        import numpy as np

        newest = "SELECT rowid AS id FROM word WHERE word MATCH ? ORDER BY rowid DESC LIMIT ?"
        ((joined,),) = self._run(f"SELECT group_concat(id) FROM ({newest})", (term, most))
        return np.fromstring(joined or "", np.int64, sep=",")

    def _within(self, scope: Scope) -> _Within | None:
        """What lies within a scope at this moment; None for all of it. Searches that follow each other share it."""
        if scope == EVERYWHERE:
            return None
        moment = (self._connection.pragma("data_version"), self._connection.total_changes())
        if self._last_within is None or (self._last_within.scope, self._last_within.moment) != (scope, moment):
            sql, values = condition(scope)
            rows = self._run(
                f"SELECT first_chunk, num_chunks, passages FROM document WHERE num_chunks > 0 AND {sql}", values
            )
            is_within = bytearray(1 + (self._run("SELECT max(id) FROM chunk")[0][0] or 0))
            for first, num, _ in rows:
                is_within[first : first + num] = b"\1" * num
            self._last_within = _Within(scope, moment, bytes(is_within), b"".join(row[2] for row in rows))
        return self._last_within

    def _containing(self, text: str, limit: int, scope: Scope) -> list[Hit]:
        """LIKE knows the case of ASCII letters only, so of others any letter will do, and Python looks again."""
        if not text or len(text.encode(errors="replace")) > _MAX_LITERAL_BYTES:
            return []
        pattern = re.sub(r"([%_\\])", r"\\\1", text)
        if has_others := not text.isascii():
            pattern = "".join("_" if not each.isascii() and each.lower() != each.upper() else each for each in pattern)
        sql, values = condition(scope)
        source = (
            f"document CROSS JOIN {_CHUNKS_OF_DOCUMENT}"
            if sql
            else ("chunk JOIN document ON document.id = chunk.document_id")
        )
        hits: list[Hit] = []
        with self._translated():
            for row in self._connection.execute(
                f"""SELECT {_HIT_COLUMNS} FROM {source}
                    WHERE chunk.text LIKE ? ESCAPE '\\' {sql and "AND " + sql}""",
                (f"%{pattern}%", *values),
            ):
                if not has_others or text.casefold() in row[2].casefold():
                    hits.append(_hit(row, score=0.0))
                if len(hits) >= limit:
                    break
        return hits

    # ------------------------------------------------------------ looking in

    def document_text(self, path: Path) -> str | None:
        """The text of an indexed file as it was read; None if the index does not hold it."""
        for first, num, tail in self._run(
            "SELECT first_chunk, num_chunks, tail FROM document WHERE path = ? AND state = 'indexed'",
            (path_to_sql(path),),
        ):
            return self._joined(first, num, tail)
        return None

    def format_of(self, path: Path) -> str:
        """The reader's format of an indexed file; "" if the index does not hold it."""
        rows = self._run("SELECT format FROM document WHERE path = ?", (path_to_sql(path),))
        return str(rows[0][0]) if rows else ""

    def chunks_of(self, path: Path) -> list[Chunk]:
        """The chunks of one file, in the order of its text."""
        rows = self._run(
            f"""SELECT {_HIT_COLUMNS} FROM document JOIN {_CHUNKS_OF_DOCUMENT}
                WHERE document.path = ? ORDER BY chunk.id""",
            (path_to_sql(path),),
        )
        return [Chunk(*row[2:]) for row in rows]

    def frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """How many chunks there are, and how many hold each term; of common ones an estimate."""
        with self._reading():
            first, last = self._ends()
            return last, {term: self._num_found(words.quoted(term), first, last) for term in terms}

    def counts(self) -> tuple[int, int, int]:
        """(indexed files, chunks, bytes of text)."""
        ((files, text_bytes),) = self._run(
            "SELECT count(*), coalesce(sum(text_bytes), 0) FROM document WHERE state = 'indexed'"
        )
        ((chunks,),) = self._run("SELECT count(*) FROM chunk")
        return files, chunks, text_bytes

    def chunk_numbers(self) -> dict[Path, int]:
        """How many chunks each indexed file has."""
        rows = self._run("SELECT path, num_chunks FROM document WHERE state = 'indexed'")
        return {_path_from_sql(path): num for path, num in rows}

    def failures(self) -> list[FailedFile]:
        """Files that could not be indexed, by path, and those with passages that could not be embedded."""
        rows = self._run(
            """SELECT path, reason FROM document WHERE state = 'failed'
               UNION SELECT document.path, min(given_up.reason) FROM given_up
                 JOIN chunk ON chunk.passage_id = given_up.passage_id
                 JOIN document ON document.id = chunk.document_id GROUP BY document.id
               ORDER BY path"""
        )
        return [FailedFile(_path_from_sql(path), reason) for path, reason in rows]

    def integrity(self) -> list[str]:
        """Everything found wrong in the whole file, one line each; reads all of it, while nobody writes.

        Raises: StoreBusy if another process writes all the while.
        """
        with self._transaction():  # or what is written between two looks would seem to be damage
            return self._problems()

    def _problems(self) -> list[str]:
        problems = [row[0] for row in self._run("PRAGMA integrity_check") if row[0] != "ok"]
        try:
            self._run("INSERT INTO word(word) VALUES ('integrity-check')")
        except StoreError as error:
            problems.append(f"the words index is damaged: {error}")
        problems += [
            f"the words of chunk {chunk_id} do not agree with its text"
            for (chunk_id,) in self._run(
                """SELECT id FROM (SELECT id FROM chunk EXCEPT SELECT rowid FROM word)
                   UNION ALL SELECT rowid FROM (SELECT rowid FROM word EXCEPT SELECT id FROM chunk)"""
            )
        ]
        for space in (self._space_row(is_searched=True), self._space_row(is_searched=False)):
            if space is not None:
                problems += self._problems_of_space(space)
        problems += self._problems_of_passages()
        for path, first, num, tail, text_hash in self._run(
            "SELECT path, first_chunk, num_chunks, tail, text_hash FROM document"
        ):
            if text_hash_of(self._joined(first, num, tail).encode()) != text_hash:
                problems.append(f"the text of {_path_from_sql(path)} is not what was stored")
        return problems

    def _problems_of_passages(self) -> Iterator[str]:
        filled = self._filled_space_row()
        has_embedding = (
            f"EXISTS (SELECT 1 FROM vector_{filled.id} AS v WHERE v.passage_id = passage.id)" if filled else 0
        )
        for (passage_id,) in self._run(
            f"""SELECT id FROM passage WHERE EXISTS (SELECT 1 FROM chunk WHERE chunk.passage_id = passage.id)
                AND 1 <> ({has_embedding}) + (id IN (SELECT passage_id FROM awaiting))
                  + (id IN (SELECT passage_id FROM given_up))"""
        ):
            yield f"passage {passage_id} neither has an embedding nor awaits it, or both"
        num_seen = 0
        for document_id, path, first, num, passages in self._run(
            "SELECT id, path, first_chunk, num_chunks, passages FROM document"
        ):
            rows = self._run(
                "SELECT document_id, passage_id FROM chunk WHERE id >= ?1 AND id < ?1 + ?2 ORDER BY id", (first, num)
            )
            num_seen += len(rows)
            passage_ids = [each for _, each in rows if each is not None]
            if [each for each, _ in rows] != [document_id] * num or passage_ids != [*array("i", passages)]:
                yield f"the chunks of {_path_from_sql(path)} are not those it was written with"
        if num_seen != (num_chunks := self._run("SELECT count(*) FROM chunk")[0][0]):
            yield f"{num_chunks - num_seen} chunks belong to no file"

    def _problems_of_space(self, space: _SpaceRow) -> Iterator[str]:
        import numpy as np

        from gritdesk.store.vectors import codes, num_bits, num_bytes, restored

        code_bytes = num_bits(space.dimension) // 8
        passages = {passage_id for (passage_id,) in self._run("SELECT id FROM passage")}
        with_code: set[int] = set()
        ids: list[int] = [each for (each,) in self._run(f"SELECT passage_id FROM vector_{space.id}")]
        for start in range(0, len(ids), _CHECKED_AT_ONCE):
            rows = self._run(
                f"""SELECT v.passage_id, v.embedding, code.bits FROM vector_{space.id} AS v
                    JOIN code_{space.id} AS code ON code.rowid = v.passage_id
                    WHERE v.passage_id IN carray(?)""",
                (apsw.carray(np.array(ids[start : start + _CHECKED_AT_ONCE], np.int64)),),
            )
            with_code.update(row[0] for row in rows)
            whole = [row for row in rows if len(row[1]) == num_bytes(space.dimension) and len(row[2]) == code_bytes]
            written = np.frombuffer(b"".join(row[2] for row in whole), np.uint8).reshape(-1, code_bytes)
            found = codes(restored((row[1] for row in whole), written, space.dimension)).reshape(-1, code_bytes)
            num_different = np.bitwise_count(found ^ written).sum(axis=1)
            # what is nearly 0 may have another sign after rounding, or on another processor
            damaged = {row[0] for row in rows} - {
                row[0] for row, num in zip(whole, num_different, strict=True) if num <= code_bytes // 8
            }
            yield from (f"embedding {each} does not agree with its code" for each in sorted(damaged))
        yield from (f"embedding {each} has no code" for each in sorted(set(ids) - with_code))
        yield from (f"embedding {each} belongs to no passage" for each in sorted(set(ids) - passages))
        num_codes = self._run(f"SELECT count(*) FROM code_{space.id}_rowids")[0][0]
        if num_codes > len(with_code):
            yield f"{num_codes - len(with_code)} codes belong to no embedding"

    def _joined(self, first: int, num: int, tail: str) -> str:
        rows = self._run("SELECT gap, text FROM chunk WHERE id >= ?1 AND id < ?1 + ?2 ORDER BY id", (first, num))
        return "".join(gap + text for gap, text in rows) + tail

    # ------------------------------------------------------------ the door

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """All reads within are of one moment."""
        with self._translated():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise self._as_store_error(error) from error

    def _as_store_error(self, error: Exception) -> StoreError:
        match error:
            case apsw.NotADBError():
                return StoreError(f"{self.path} is not an index, or its beginning is damaged; {_REBUILD}")
            case apsw.CorruptError():
                return StoreError(f"{self.path} is damaged ({error}); {_REBUILD}")
            case apsw.BusyError() | apsw.LockedError():
                return StoreBusy(f"{self.path} is being written by another program; try again when it is done")
            case apsw.InterruptError() | apsw.ConnectionClosedError():
                return StoreError(f"the index {self.path} was closed while it was in use; open gritdesk again")
            case apsw.FullError():
                return StoreError(f"no room left on the disk of {self.path}; free some and run the command again")
            case apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError() | OSError():
                return StoreError(f"{self.path} cannot be opened for writing ({error}); check that you may write there")
            case _:
                return StoreError(f"the index {self.path} failed: {error}")


def _vec0_path() -> str:
    """Where sqlite-vec's library lies; found without importing the package, which imports numpy (0.1 s)."""
    package = importlib.util.find_spec("sqlite_vec")
    if package is None or package.origin is None:
        raise StoreError("sqlite-vec is not installed; install gritdesk again with `pip install gritdesk`")
    return str(Path(package.origin).parent / "vec0")


@lru_cache(maxsize=1024)
def _path_from_sql(value: str | bytes) -> Path:
    return Path(os.fsdecode(value))


def _hit(row: Sequence[Any], **measures: Any) -> Hit:
    chunk_id, path, *chunk = row
    return Hit(chunk_id, _path_from_sql(path), Chunk(*chunk), **measures)


def _keyword_ranked(hits: Sequence[Hit]) -> list[Hit]:
    return [
        Hit(hit.chunk_id, hit.path, hit.chunk, hit.score, keyword_rank=rank) for rank, hit in enumerate(hits, start=1)
    ]


def _space(row: _SpaceRow | None) -> Space | None:
    return Space(row.fingerprint, row.dimension, row.model) if row is not None else None


_Ranked = tuple[str, tuple[Any, ...]]
"""A SELECT of id and rank, where less is better, and its values."""


def _all(expression: str, within: _Within | None = None) -> _Ranked:
    """All rows an expression finds in a scope."""
    sql = "SELECT rowid AS id, bm25(word) AS rank FROM word WHERE word MATCH ?"
    if within is None:
        return sql, (expression,)
    return f"{sql} AND substr(?, rowid + 1, 1) = x'01'", (expression, within.is_within)


def _with_most(sums_R: NDArray[np.float32], num: int) -> NDArray[np.int64]:
    """The rows with the highest sums, none without any; of equal ones the newest."""
    import numpy as np

    rowids = np.flatnonzero(sums_R)
    if len(rowids) <= num:
        return rowids
    sums = sums_R[rowids]
    least = np.partition(sums, -num)[-num]
    above, equal = rowids[sums > least], rowids[sums == least]
    return np.concatenate([above, equal[len(above) - num :]])


def _those(terms: Sequence[str], others: Sequence[str], rowids: NDArray[np.int64]) -> _Ranked:
    """Those of the rows that hold any of the terms, ranked by these and others; no row is looked at for others alone.

    The rank of a row that holds some of both is the second one, which is the lesser.
    """
    sql = "SELECT rowid AS id, bm25(word) AS rank FROM word WHERE word MATCH ? AND +rowid IN carray(?)"
    any_term = " OR ".join(terms)
    values = (any_term, apsw.carray(rowids))
    if not others:
        return sql, values
    both = f"({any_term}) AND ({' OR '.join(others)})"
    return f"SELECT id, min(rank) AS rank FROM ({sql} UNION ALL {sql}) GROUP BY id", (*values, both, *values[1:])


def _awaits(space: _SpaceRow | None) -> str:
    """SQL that holds for a passage `new` that has no embedding in the space and was not given up."""
    is_given_up = "EXISTS (SELECT 1 FROM given_up WHERE given_up.passage_id = new.passage_id)"
    has_embedding = (
        f"EXISTS (SELECT 1 FROM vector_{space.id} AS v WHERE v.passage_id = new.passage_id)" if space else "false"
    )
    return f"NOT {is_given_up} AND NOT {has_embedding}"


def _check_dimension(space: _SpaceRow, dimension: int) -> None:
    if space.dimension != dimension:
        raise FingerprintMismatch(
            f"the index holds embeddings of {space.dimension} numbers, this one has {dimension}; "
            "run `gritdesk index` to embed its files anew"
        )
