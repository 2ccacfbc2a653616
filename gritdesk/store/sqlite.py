"""The index: one SQLite file of documents, chunks, words and embeddings. The only SQL in the house.

Rules owned here:
- whatever belongs to one file changes in one transaction, so a kill at any moment leaves whole files;
- embeddings are keyed by a hash of what was embedded, and chunks share them;
- what a person types is never FTS5 syntax: it is quoted, word by word;
- exceptions of SQLite become StoreErrors that name the file and say what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import apsw

from gritdesk.errors import FingerprintMismatch, StoreBusy, StoreError
from gritdesk.records import Chunk, Document, FailedFile, Hit
from gritdesk.store.base import FileState
from gritdesk.store.migrations import migrate

if TYPE_CHECKING:  # numpy takes 0.1 s to import, which a search by words need not pay
    import numpy as np
    from numpy.typing import NDArray

_PAGE_BYTES = 16 * 1024  # large pages make the scan over vectors cheaper
_MMAP_BYTES = 1 << 30
_BUSY_MS = 10_000
_MAX_NEIGHBOURS = 4096  # vec0's own limit
_MAX_ANY_WORDS = 12
"""Words that are OR-ed at most: ranking every row that holds any word is what a search by words costs."""
_MAX_LITERAL_BYTES = 4000
"""Longest text that is looked for letter by letter; SQLite itself refuses a pattern of 50,000 bytes."""
_CLOSE_S = 5.0
"""How long `close` waits for another thread to notice its interrupt."""

_STOP_WORDS = frozenset(
    """a about an and are as at be been but by can could did do does for from had has have how i if in into is it its
    me my of on or our should so than that the their them then there these they this to was we were what when where
    which who whom whose why will with would you your""".split()
)

_REBUILD = "move it away and run `gritdesk index` to build it anew"

_HIT_COLUMNS = """chunk.id, document.path, chunk.text, chunk.char_start, chunk.char_end, chunk.line_start,
    chunk.line_end, chunk.heading, chunk.page, chunk.num_tokens"""


class SqliteStore:
    """One open index. Use it from one thread at a time; every thread opens its own."""

    def __init__(self, path: Path | Literal[":memory:"]) -> None:
        """Open the index, or create it with its folder.

        Raises: StoreError if it is damaged, of another program, of a newer version or not accessible.
        """
        self.path = path
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
        migrate(connection)  # refuses a foreign file before anything in it is changed
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.enable_load_extension(True)
        connection.load_extension(_vec0_path())
        connection.enable_load_extension(False)

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

    # ------------------------------------------------------------ fingerprint

    @property
    def fingerprint(self) -> str | None:
        """What made the embeddings; None while there are none."""
        return self._setting("fingerprint")

    def set_fingerprint(self, fingerprint: str, dimension: int) -> None:
        """Say what makes the embeddings and how long they are; no-op if it is said already.

        Raises: FingerprintMismatch if the index holds embeddings of another make (see clear_embeddings).
        """
        self.check_fingerprint(fingerprint)
        if self.fingerprint == fingerprint:
            self._check_dimension(dimension)
            return
        with self._transaction():
            self._run(
                f"CREATE VIRTUAL TABLE vector USING vec0(embedding float[{int(dimension)}] distance_metric=cosine)"
            )
            for key, value in (("fingerprint", fingerprint), ("dimension", str(dimension))):
                self._run("INSERT INTO setting(key, value) VALUES (?, ?)", (key, value))

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raises: FingerprintMismatch if the index holds embeddings that something else made."""
        found = self.fingerprint
        if found is not None and found != fingerprint:
            raise FingerprintMismatch(
                f"the index was made by another model or other settings ({found}, now {fingerprint}); "
                "run `gritdesk index` to embed its files anew"
            )

    def clear_embeddings(self) -> None:
        """Forget all embeddings and what made them; every file counts as changed, words stay searchable.

        Failed files as well: it may have been the other model that could not take them.
        """
        with self._transaction():
            self._run("UPDATE chunk SET embedding_id = NULL")
            self._run("DELETE FROM embedding")
            self._run("DROP TABLE IF EXISTS vector")
            self._run("DELETE FROM setting WHERE key IN ('fingerprint', 'dimension')")
            self._run("UPDATE document SET size_bytes = -1, content_hash = ''")

    # ------------------------------------------------------------ files

    def files(self) -> dict[Path, FileState]:
        """Every file the index knows, indexed or failed."""
        rows = self._run("SELECT path, size_bytes, mtime_ns, content_hash, state, reason FROM document")
        return {_path_from_sql(path): FileState(*state) for path, *state in rows}

    def replace_document(
        self,
        document: Document,
        state: FileState,
        chunks: Sequence[Chunk],
        hashes: Sequence[bytes],
        embeddings: Mapping[bytes, NDArray[np.float32]],
    ) -> None:
        """Write one file's rows in place of what was there, in one transaction.

        Args:
            chunks: in the order of the text, not overlapping.
            hashes: one per chunk, each stored already or in `embeddings`; empty: chunks are found by words only.
            embeddings: float32[dimension] by hash, those that are new.
        """
        assert not hashes or len(hashes) == len(chunks), "one hash per chunk"
        gaps, tail = _gaps(document, chunks)
        text = document.text.encode()
        columns = (document.format, tail, len(text), _text_hash(text))
        with self._transaction():
            document_id = self._write_document(document.path, state, *columns)
            embedding_ids: list[int | None] = [self._embedding_id(each, embeddings) for each in hashes]
            self._connection.executemany(
                """INSERT INTO chunk(document_id, embedding_id, gap, text, heading, char_start, char_end,
                       line_start, line_end, page, num_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    (document_id, embedding_id, gap, chunk.text, chunk.heading, chunk.char_start, chunk.char_end)
                    + (chunk.line_start, chunk.line_end, chunk.page, chunk.num_tokens)
                    for chunk, gap, embedding_id in zip(
                        chunks, gaps, embedding_ids or [None] * len(chunks), strict=True
                    )
                ),
            )

    def record_failure(self, path: Path, state: FileState) -> None:
        """Remember why a file could not be indexed; rows of its earlier content go."""
        assert state.state == "failed" and state.reason
        with self._transaction():
            self._write_document(path, state, "", "", 0, _text_hash(b""))

    def touch(self, path: Path, state: FileState) -> None:
        """Note a new modification time of unchanged content."""
        with self._transaction():
            self._run(
                "UPDATE document SET size_bytes = ?, mtime_ns = ? WHERE path = ?",
                (state.size_bytes, state.mtime_ns, _path_to_sql(path)),
            )

    def delete_documents(self, paths: Iterable[Path]) -> None:
        """Remove files and all that belongs to them, in one transaction; embeddings stay until `prune`."""
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM document WHERE path = ?", ((_path_to_sql(each),) for each in paths)
            )

    def prune(self) -> int:
        """Remove embeddings that no chunk uses; returns how many."""
        with self._transaction():
            orphans = self._run(
                """SELECT id FROM embedding
                   WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.embedding_id = embedding.id)"""
            )
            if orphans:
                self._connection.executemany("DELETE FROM vector WHERE rowid = ?", orphans)
                self._connection.executemany("DELETE FROM embedding WHERE id = ?", orphans)
        return len(orphans)

    def known_embeddings(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Those of the hashes whose embedding is stored."""
        return {each for each in set(hashes) if self._run("SELECT 1 FROM embedding WHERE hash = ?", (each,))}

    def _write_document(self, path: Path, state: FileState, *columns: Any) -> int:
        """Replace a document's row, and with the old one its chunks and words; returns the new id."""
        self._run("DELETE FROM document WHERE path = ?", (_path_to_sql(path),))
        self._run(
            """INSERT INTO document(path, size_bytes, mtime_ns, content_hash, state, reason,
                   format, tail, text_bytes, text_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                _path_to_sql(path),
                state.size_bytes,
                state.mtime_ns,
                state.content_hash,
                state.state,
                state.reason,
                *columns,
            ),
        )
        return self._connection.last_insert_rowid()

    def _embedding_id(self, hash_: bytes, embeddings: Mapping[bytes, NDArray[np.float32]]) -> int:
        for (known_id,) in self._run("SELECT id FROM embedding WHERE hash = ?", (hash_,)):
            return int(known_id)
        embedding = embeddings[hash_]
        assert embedding.dtype == "float32", embedding.dtype
        self._check_dimension(len(embedding))
        self._run("INSERT INTO embedding(hash) VALUES (?)", (hash_,))
        new_id = self._connection.last_insert_rowid()
        self._run("INSERT INTO vector(rowid, embedding) VALUES (?, ?)", (new_id, embedding.tobytes()))
        return new_id

    # ------------------------------------------------------------ searching

    def keyword(self, query: str, limit: int, *, all_first: bool = True) -> list[Hit]:
        """Chunks by their words, best first: those with all words, then those with any; or all by BM25 at once.

        "Quoted parts" must stand in every hit as they are. Stop words count only where there is nothing else. When
        no word is found, chunks that hold the query letter by letter are taken (parts of words, scripts without
        spaces).
        """
        phrases, words = _search_terms(query)
        hits: dict[int, Hit] = {}
        for expression, scored in _widening(phrases, words, all_first):
            if len(hits) < limit:
                for hit in self._matching(expression, limit):
                    hits.setdefault(hit.chunk_id, hit if scored else dataclasses.replace(hit, score=0.0))
        return _keyword_ranked([*hits.values()][:limit] or self._containing(query, limit))

    def any_word(self, query: str, limit: int) -> list[Hit]:
        """Chunks that hold any word of the query, best first by BM25 alone: what other searches are measured against.

        Stop words count only where there is nothing else, quotation marks not at all.
        """
        words = re.findall(r"\w+", query)
        telling = [word for word in words if word.lower() not in _STOP_WORDS] or words
        return _keyword_ranked(self._matching(" OR ".join(map(_quoted, dict.fromkeys(telling))), limit))

    def phrase(self, text: str, limit: int) -> list[Hit]:
        """Chunks that hold the words of the text in that very order, best first."""
        if not re.search(r"\w", text):
            return []
        return _keyword_ranked(self._matching(_quoted(text), limit))

    def holding(self, phrases: Sequence[str], chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that hold the words of every phrase (at least one) in its order."""
        rows = self._run(
            "SELECT rowid FROM word WHERE word MATCH ? AND rowid IN (SELECT value FROM json_each(?))",
            (_all_of(phrases), json.dumps(list(chunk_ids))),
        )
        return {chunk_id for (chunk_id,) in rows}

    def nearest(self, embedding: NDArray[np.float32], limit: int) -> list[Hit]:
        """Chunks whose embedding is nearest by cosine distance, nearest first; [] while there are no embeddings.

        Raises: FingerprintMismatch if the embedding's length is not that of the index.
        """
        if self.fingerprint is None:
            return []
        self._check_dimension(len(embedding))
        assert embedding.dtype == "float32", embedding.dtype
        rows = self._run(
            f"""WITH neighbour AS MATERIALIZED (
                    SELECT rowid AS id, distance FROM vector WHERE embedding MATCH ? AND k = ?)
                SELECT neighbour.distance, {_HIT_COLUMNS} FROM neighbour
                JOIN chunk ON chunk.embedding_id = neighbour.id JOIN document ON document.id = chunk.document_id
                ORDER BY neighbour.distance, chunk.id LIMIT ?""",
            (embedding.tobytes(), min(limit, _MAX_NEIGHBOURS), limit),
        )
        return [
            _hit(row, score=1.0 - distance, distance=distance, semantic_rank=rank)
            for rank, (distance, *row) in enumerate(rows, start=1)
        ]

    def _matching(self, expression: str, limit: int) -> list[Hit]:
        if not expression:
            return []
        rows = self._run(
            f"""SELECT -word.rank, {_HIT_COLUMNS} FROM word
                JOIN chunk ON chunk.id = word.rowid JOIN document ON document.id = chunk.document_id
                WHERE word MATCH ? ORDER BY word.rank LIMIT ?""",
            (expression, limit),
        )
        return [_hit(row, score=score) for score, *row in rows]

    def _containing(self, text: str, limit: int) -> list[Hit]:
        literal = re.sub(r"([%_\\])", r"\\\1", text.strip().strip('"').strip())
        if not literal or len(literal.encode(errors="replace")) > _MAX_LITERAL_BYTES:
            return []
        rows = self._run(
            f"""SELECT {_HIT_COLUMNS} FROM chunk JOIN document ON document.id = chunk.document_id
                WHERE chunk.text LIKE ? ESCAPE '\\' LIMIT ?""",
            (f"%{literal}%", limit),
        )
        return _keyword_ranked([_hit(row, score=0.0) for row in rows])

    # ------------------------------------------------------------ looking in

    def document_text(self, path: Path) -> str | None:
        """The text of an indexed file as it was read; None if the index does not hold it."""
        for document_id, tail in self._run(
            "SELECT id, tail FROM document WHERE path = ? AND state = 'indexed'", (_path_to_sql(path),)
        ):
            return self._joined(document_id, tail)
        return None

    def format_of(self, path: Path) -> str:
        """The reader's format of an indexed file; "" if the index does not hold it."""
        rows = self._run("SELECT format FROM document WHERE path = ?", (_path_to_sql(path),))
        return str(rows[0][0]) if rows else ""

    def embeddings_of(self, path: Path) -> NDArray[np.float32]:
        """Embeddings of a file's chunks, float32[num, dimension], num 0 if it has none."""
        import numpy as np

        if self.fingerprint is None:
            return np.empty((0, 0), np.float32)
        rows = self._run(
            """SELECT vector.embedding FROM document JOIN chunk ON chunk.document_id = document.id
                   JOIN vector ON vector.rowid = chunk.embedding_id
               WHERE document.path = ? ORDER BY chunk.char_start""",
            (_path_to_sql(path),),
        )
        return np.array([np.frombuffer(row[0], np.float32) for row in rows], np.float32).reshape(len(rows), -1)

    def chunks_of(self, path: Path) -> list[Chunk]:
        """The chunks of one file, in the order of its text."""
        rows = self._run(
            f"""SELECT {_HIT_COLUMNS} FROM chunk JOIN document ON document.id = chunk.document_id
                WHERE document.path = ? ORDER BY chunk.char_start""",
            (_path_to_sql(path),),
        )
        return [Chunk(*row[2:]) for row in rows]

    def counts(self) -> tuple[int, int, int]:
        """(indexed files, chunks, bytes of text)."""
        ((files, text_bytes),) = self._run(
            "SELECT count(*), coalesce(sum(text_bytes), 0) FROM document WHERE state = 'indexed'"
        )
        ((chunks,),) = self._run("SELECT count(*) FROM chunk")
        return files, chunks, text_bytes

    def failures(self) -> list[FailedFile]:
        """Files that could not be indexed, by path."""
        rows = self._run("SELECT path, reason FROM document WHERE state = 'failed' ORDER BY path")
        return [FailedFile(_path_from_sql(path), reason) for path, reason in rows]

    def integrity(self) -> list[str]:
        """Everything found wrong in the whole file, one line each; reads all of it, while nobody writes.

        Raises: StoreBusy if another process writes all the while.
        """
        with self._transaction():  # or what is written between two looks would seem to be damage
            return self._problems()

    def _problems(self) -> list[str]:
        problems = [row[0] for row in self._run("PRAGMA integrity_check") if row[0] != "ok"]
        problems += [
            f"{table} {rowid} points to no {parent}"
            for table, rowid, parent, _ in self._run("PRAGMA foreign_key_check")
        ]
        try:
            self._run("INSERT INTO word(word, rank) VALUES ('integrity-check', 1)")
        except StoreError as error:
            problems.append(f"the words do not agree with the chunks: {error}")
        if self.fingerprint is not None:
            keys = {row[0] for row in self._run("SELECT id FROM embedding")}
            vectors = {row[0] for row in self._run("SELECT rowid FROM vector")}
            problems += [f"embedding {each} has no vector" for each in sorted(keys - vectors)]
            problems += [f"vector {each} has no embedding" for each in sorted(vectors - keys)]
        for document_id, path, tail, text_hash in self._run("SELECT id, path, tail, text_hash FROM document"):
            if _text_hash(self._joined(document_id, tail).encode()) != text_hash:
                problems.append(f"the text of {_path_from_sql(path)} is not what was stored")
        return problems

    def _joined(self, document_id: int, tail: str) -> str:
        rows = self._run("SELECT gap, text FROM chunk WHERE document_id = ? ORDER BY char_start", (document_id,))
        return "".join(gap + text for gap, text in rows) + tail

    # ------------------------------------------------------------ the door

    def _setting(self, key: str) -> str | None:
        rows = self._run("SELECT value FROM setting WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def _check_dimension(self, dimension: int) -> None:
        if self._setting("dimension") != str(dimension):
            raise FingerprintMismatch(
                f"the index holds embeddings of {self._setting('dimension')} numbers, this one has {dimension}; "
                "run `gritdesk index` to embed its files anew"
            )

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


def _path_to_sql(path: Path) -> str | bytes:
    """A path as text, or as its bytes if the name is not valid Unicode (lone surrogates stand for such bytes)."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _path_from_sql(value: str | bytes) -> Path:
    return Path(os.fsdecode(value))


def _text_hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _gaps(document: Document, chunks: Sequence[Chunk]) -> tuple[list[str], str]:
    """The text before each chunk that no chunk holds, and the text after the last."""
    gaps = []
    end = 0
    for chunk in chunks:
        assert chunk.char_start >= end and document.text[chunk.char_start : chunk.char_end] == chunk.text, chunk
        gaps.append(document.text[end : chunk.char_start])
        end = chunk.char_end
    return gaps, document.text[end:]


def _hit(row: Sequence[Any], **measures: Any) -> Hit:
    chunk_id, path, *chunk = row
    return Hit(chunk_id, _path_from_sql(path), Chunk(*chunk), **measures)


def _keyword_ranked(hits: Sequence[Hit]) -> list[Hit]:
    return [
        Hit(hit.chunk_id, hit.path, hit.chunk, hit.score, keyword_rank=rank) for rank, hit in enumerate(hits, start=1)
    ]


def _quoted(words: str) -> str:
    """Text as one FTS5 string: whatever it holds, it is words to be found side by side."""
    return '"' + words.replace("\0", " ").replace('"', '""') + '"'


def _all_of(terms: Sequence[str]) -> str:
    return " AND ".join(map(_quoted, terms))


def _widening(phrases: Sequence[str], words: Sequence[str], all_first: bool) -> Iterator[tuple[str, bool]]:
    """FTS5 expressions, each wider than those before; and whether its BM25 is to be compared.

    The last word may be half typed. What begins with it comes behind what holds it, and has no score of its own: beside
    the whole word its beginning would count it twice.
    """
    bound, started = _all_of(phrases), f"{_quoted(words[-1])}*" if words else ""
    are_several = len(phrases) + len(words) > 1
    if all_first:
        yield _all_of([*phrases, *words]), True
    if all_first and are_several and words:
        yield " AND ".join([*map(_quoted, [*phrases, *words[:-1]]), started]), True
    longest = sorted(words[:-1], key=len, reverse=True)[:_MAX_ANY_WORDS]  # long words are the rare ones
    some = " OR ".join(map(_quoted, [*phrases[:1], *longest, *words[-1:]]))
    if are_several or not all_first:  # of one term all is any
        yield f"{bound} AND ({some})" if phrases else some, True
    if words:
        yield f"{bound} AND {started}" if phrases else started, False


def quoted_parts(query: str) -> list[str]:
    """What stands in "quotation marks" in a query and has a letter or digit."""
    return _search_terms(query)[0]


def _search_terms(query: str) -> tuple[list[str], list[str]]:
    """Quoted parts, and single words without stop words (all words if there is nothing else)."""
    parts = query.split('"')
    if len(parts) % 2 == 0:  # a quotation mark that is never closed is none
        parts[-2:] = [" ".join(parts[-2:])]
    phrases = [part.strip() for part in parts[1::2] if re.search(r"\w", part)]
    words = [word for part in parts[0::2] for word in part.split() if re.search(r"\w", word)]
    telling = [word for word in words if re.sub(r"\W", "", word).lower() not in _STOP_WORDS]
    return phrases, list(dict.fromkeys(telling or ([] if phrases else words)))
