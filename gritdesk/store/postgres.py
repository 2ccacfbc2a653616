"""The index in a PostgreSQL database with pgvector: one that a team shares.

Rules owned here, beside those of base.py:
- paths are those of the machine that indexes; whoever searches reads the texts from the index;
- values reach SQL only as parameters; the one name that is put into a statement is a space's number;
- words are ranked by BM25, from what the server's text search counts (it has no ranking that knows rare words);
- embeddings are kept as halfvec (float16) and searched within the scope: exactly where few chunks are in it, by an
  HNSW index that goes on until enough are found where many are.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gritdesk.errors import FingerprintMismatch, StoreBusy, StoreError
from gritdesk.records import Chunk, Document, FailedFile, Hit, Scope
from gritdesk.store import places, words
from gritdesk.store.base import EVERYWHERE, FileState, Space
from gritdesk.store.postgres_connection import Address, Connection, Rows, UndefinedTable
from gritdesk.store.postgres_migrations import open_schema
from gritdesk.store.texts import gaps_of, text_hash_of

if TYPE_CHECKING:  # numpy takes 0.1 s to import, which a search by words need not pay
    import numpy as np
    from numpy.typing import NDArray

_NOTICED_WITHIN_S = 2.0
"""How long the server may take to notice that the program which indexed before is gone."""
_MAX_RANKED = 2000
"""Chunks that BM25 is computed for in one search, at some 50 microseconds each; rare words choose them."""
_K1, _B = 1.2, 0.75  # those of FTS5
_MAX_EXACT = 5000
"""Chunks in a scope that are all compared; beyond, the index is quicker."""
_MAX_INDEXED_DIMENSION = 4000
"""Of halfvec in an HNSW index; longer embeddings are indexed by the signs of their numbers and compared exactly."""
_SIGNS_PER_HIT = 20
_SETTINGS = {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": "200", "hnsw.max_scan_tuples": "100000"}
"""How the HNSW index is searched; recall and times are measured by benchmarks/postgres.py."""
_BUILD_MEMORY = "1GB"
"""For making the index, which is slow as soon as it does not fit; the server's default is 64 MB."""
_BETWEEN = "'¶':1"
"""A lexeme that nobody can ask for: no phrase runs from a text into its heading."""

_Frequencies = tuple[int, dict[str, int]]
"""How many chunks there are, and in how many each term is."""

_HIT_COLUMNS = """chunk.id, document.path, chunk.text, chunk.char_start, chunk.char_end, chunk.line_start,
    chunk.line_end, chunk.heading, chunk.page, chunk.num_tokens"""


class PostgresStore:
    """One open index. Use it from one thread at a time; every thread opens its own."""

    def __init__(self, address: Address) -> None:
        """Open the index, or make its schema.

        Raises: StoreError if it cannot be reached or used, saying what to do.
        """
        self.address = address
        self._connection = Connection(address)
        try:
            open_schema(self._connection)
            for name, value in _SETTINGS.items():
                self._connection.set(name, value)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the index, from whatever thread: a call under way in another one fails. Never raises."""
        self._connection.close()

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ spaces

    def space(self) -> Space | None:
        """The space that is searched; None while nothing was ever embedded."""
        return next((space for _, space, is_searched in self._spaces() if is_searched), None)

    def next_space(self) -> Space | None:
        """The space that is being filled beside it; None as a rule."""
        return next((space for _, space, is_searched in self._spaces() if not is_searched), None)

    def enter_space(self, space: Space) -> None:
        """Say what makes embeddings from now on; no-op if it is said already.

        Raises: FingerprintMismatch if the same fingerprint comes with another dimension.
        """
        spaces = self._spaces()
        for _, known, _ in spaces:
            if known.fingerprint == space.fingerprint and known.dimension != space.dimension:
                raise FingerprintMismatch(
                    f"the index holds embeddings of {known.dimension} numbers by {known.fingerprint}, now it makes "
                    f"{space.dimension}; run `gritdesk doctor` to look at the model"
                )
        with self._connection.transaction():
            self._run(
                "UPDATE space SET model = :model WHERE fingerprint = :fingerprint AND model <> :model",
                model=space.model,
                fingerprint=space.fingerprint,
            )
            if spaces and spaces[-1][1].fingerprint == space.fingerprint:
                return
            for number, _, is_searched in spaces:
                if not is_searched:
                    self._drop_space(number)
            if not any(known.fingerprint == space.fingerprint for _, known, _ in spaces):
                self._make_space(space, is_searched=not spaces)
            self._await_all()

    def finish_space(self) -> None:
        """Search the next space from now on and drop the old one; no-op if there is none, or while passages await.

        A space of many embeddings gets its index here, once they are all there: to make it at once takes a fifth of
        the time that it takes to keep it up with each of them.
        """
        with self._connection.transaction():
            spaces = self._spaces("FOR UPDATE")
            if not spaces or self.num_awaiting():
                return
            number, space, is_searched = spaces[-1]
            self._index_space(number, space.dimension)
            self._index_letters()
            if not is_searched:
                self._drop_space(spaces[0][0])
                self._run("UPDATE space SET is_searched = true WHERE id = :id", id=number)

    def _spaces(self, lock: str = "") -> list[tuple[int, Space, bool]]:
        """Number, space and whether it is searched; the searched one first, then the one that is being filled."""
        rows = self._run(
            f"SELECT id, fingerprint, dimension, model, is_searched FROM space ORDER BY is_searched DESC {lock}"
        )
        return [(number, Space(*space), is_searched) for number, *space, is_searched in rows]

    def _filled(self) -> tuple[int, Space] | None:
        """The space that embeddings are made for: the next one, if there is one."""
        spaces = self._spaces()
        return spaces[-1][:2] if spaces else None

    def _make_space(self, space: Space, *, is_searched: bool) -> None:
        ((number,),) = self._run(
            """INSERT INTO space(fingerprint, dimension, model, is_searched)
               VALUES (:fingerprint, :dimension, :model, :is_searched) RETURNING id""",
            **dataclasses.asdict(space),
            is_searched=is_searched,
        )
        table, dimension = _table(number), int(space.dimension)
        self._run(
            f"""CREATE TABLE {table}(passage_id bigint PRIMARY KEY REFERENCES passage(id) ON DELETE CASCADE,
                    embedding halfvec({dimension}) NOT NULL)"""
        )

    def _index_space(self, number: int, dimension: int) -> None:
        """Make the index of a space, if it is large and has none."""
        table = _table(number)
        ((is_large, is_indexed),) = self._run(
            f"""SELECT count(*) >= :most, to_regclass(:name) IS NOT NULL
                FROM (SELECT FROM {table} LIMIT :most) AS bounded""",
            most=_MAX_EXACT,
            name=f"{table}_nearest",
        )
        if is_indexed or not is_large:
            return
        self._run("SELECT set_config('maintenance_work_mem', :memory, true)", memory=_BUILD_MEMORY)
        if dimension <= _MAX_INDEXED_DIMENSION:
            self._run(f"CREATE INDEX {table}_nearest ON {table} USING hnsw(embedding halfvec_cosine_ops)")
        else:
            self._run(
                f"""CREATE INDEX {table}_nearest ON {table}
                    USING hnsw((binary_quantize(embedding)::bit({dimension})) bit_hamming_ops)"""
            )

    def _index_letters(self) -> None:
        """Make the index that `literal` uses, if the database has the extension for it."""
        ((is_possible,),) = self._run(
            """SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
                   AND to_regclass('chunk_by_letters') IS NULL"""
        )
        if is_possible:
            self._run("CREATE INDEX chunk_by_letters ON chunk USING gin(text gin_trgm_ops)")

    def _drop_space(self, number: int) -> None:
        self._run(f"DROP TABLE {_table(number)}")
        self._run("DELETE FROM space WHERE id = :id", id=number)

    def _await_all(self) -> None:
        """Let every passage that a chunk has await its embedding, unless the space that is filled holds it."""
        filled = self._filled()
        assert filled is not None
        self._run(
            f"""UPDATE passage SET refusal = '', awaits =
                    EXISTS (SELECT FROM chunk WHERE chunk.passage_id = passage.id)
                    AND NOT EXISTS (SELECT FROM {_table(filled[0])} WHERE passage_id = passage.id)"""
        )

    # ------------------------------------------------------------ files

    def files(self) -> dict[Path, FileState]:
        """Every file the index knows, indexed or failed."""
        rows = self._run("SELECT path, size_bytes, mtime_ns, content_hash, state, reason, reading FROM document")
        return {_path(path): FileState(*state) for path, *state in rows}

    def paths(self) -> list[str]:
        """The full paths of the indexed files, in no order."""
        return [os.fsdecode(path) for (path,) in self._run("SELECT path FROM document WHERE state = 'indexed'")]

    def replace_document(
        self, document: Document, state: FileState, chunks: Sequence[Chunk], hashes: Sequence[bytes]
    ) -> None:
        """Write one file's rows in place of what was there; words are searchable when this returns.

        Args:
            chunks: in the order of the text, not overlapping.
            hashes: one per chunk, of what is embedded; those that are stored are used.
        """
        assert len(hashes) == len(chunks), "one hash per chunk"
        gaps, tail = gaps_of(document, chunks)
        with self._connection.transaction():
            dropped = self._delete_chunks([document.path])
            document_id = self._write_document(document, state, tail, len(chunks))
            self._attach(hashes, state)
            self._run(
                """INSERT INTO chunk(document_id, passage_id, gap, text, heading, char_start, char_end, line_start,
                       line_end, page, num_tokens, num_words, words)
                   SELECT :document_id::bigint, passage.id, new.gap, new.text, new.heading, char_start, char_end,
                       line_start, line_end, page, num_tokens, length(to_tsvector('words', words)),
                       to_tsvector('words', words) || :between::tsvector || to_tsvector('words', heading_words)
                           || :between::tsvector || to_tsvector('words', part_words)
                   FROM json_to_recordset(:rows::json) AS new(hash text, gap text, text text, heading text,
                       char_start int, char_end int, line_start int, line_end int, page int, num_tokens int,
                       words text, heading_words text, part_words text)
                   JOIN passage ON passage.hash = decode(new.hash, 'hex') ORDER BY char_start""",
                document_id=document_id,
                between=_BETWEEN,
                rows=_json(
                    {"hash": hash_.hex(), "gap": gap, **dataclasses.asdict(chunk), **_written_words(chunk)}
                    for chunk, gap, hash_ in zip(chunks, gaps, hashes, strict=True)
                ),
            )
            self._await_no_more(dropped)

    def copy_document(self, source: Path, path: Path, state: FileState) -> bool:
        """Give `path` the rows of an indexed file of the same content; False if there are none any more."""
        with self._connection.transaction():
            found = self._run(
                """SELECT id, format, tail, text_bytes, text_hash, num_chunks FROM document
                   WHERE sha256(path) = sha256(:path) AND state = 'indexed' AND content_hash = :content_hash""",
                path=_path_bytes(source),
                content_hash=state.content_hash,
            )
            if not found or source == path:
                return bool(found)
            ((source_id, *columns),) = found
            dropped = self._delete_chunks([path])
            document_id = self._insert_document(path, state, *columns)
            columns_kept = """passage_id, gap, text, heading, char_start, char_end, line_start, line_end, page,
                num_tokens, num_words, words"""
            self._run(
                f"""INSERT INTO chunk(document_id, {columns_kept})
                    SELECT :document_id, {columns_kept} FROM chunk
                    WHERE document_id = :source_id ORDER BY char_start""",
                document_id=document_id,
                source_id=source_id,
            )
            self._await_no_more(dropped)
        return True

    def record_failure(self, path: Path, state: FileState) -> None:
        """Remember why a file could not be indexed; rows of its earlier content go."""
        assert state.state == "failed" and state.reason
        with self._connection.transaction():
            dropped = self._delete_chunks([path])
            self._write_document(Document(path, "", ""), state, "", 0)
            self._await_no_more(dropped)

    def touch(self, path: Path, state: FileState) -> None:
        """Note a new modification time, and what reads it, of unchanged content."""
        self._run(
            """UPDATE document SET size_bytes = :size_bytes, mtime_ns = :mtime_ns, reading = :reading
               WHERE sha256(path) = sha256(:path)""",
            path=_path_bytes(path),
            size_bytes=state.size_bytes,
            mtime_ns=state.mtime_ns,
            reading=state.reading,
        )

    def delete_documents(self, paths: Iterable[Path]) -> None:
        """Remove files and all that belongs to them, in one transaction; embeddings stay until `prune`."""
        with self._connection.transaction():
            self._await_no_more(self._delete_chunks(paths))

    def prune(self) -> int:
        """Remove embeddings that no chunk uses, of every space; returns of how many hashes."""
        rows = self._run(
            """DELETE FROM passage WHERE NOT EXISTS (SELECT FROM chunk WHERE chunk.passage_id = passage.id)
               RETURNING id"""
        )
        return len(rows)

    def _write_document(self, document: Document, state: FileState, tail: str, num_chunks: int) -> int:
        text = document.text.encode()
        columns = (document.format, tail, len(text), text_hash_of(text), num_chunks)
        return self._insert_document(document.path, state, *columns)

    def _insert_document(
        self, path: Path, state: FileState, format_: str, tail: str, text_bytes: int, text_hash: bytes, num_chunks: int
    ) -> int:
        sql_path = places.path_to_sql(path)
        ((document_id,),) = self._run(
            """INSERT INTO document(path, folder, name, suffix, size_bytes, mtime_ns, content_hash, state, reason,
                   reading, format, tail, text_bytes, text_hash, num_chunks)
               VALUES (:path, :folder, :name, :suffix, :size_bytes, :mtime_ns, :content_hash, :state, :reason,
                   :reading, :format_, :tail, :text_bytes, :text_hash, :num_chunks) RETURNING id""",
            path=_path_bytes(path),
            folder=places.folder_of(sql_path),
            name=places.name_of(sql_path),
            suffix=places.suffix_of(sql_path),
            format_=format_,
            tail=tail,
            text_bytes=text_bytes,
            text_hash=text_hash,
            num_chunks=num_chunks,
            **dataclasses.asdict(state),
        )
        return int(document_id)

    def _delete_chunks(self, paths: Iterable[Path]) -> list[int]:
        """Remove documents with their chunks; returns the passages these had."""
        rows = self._run(
            """WITH doomed AS MATERIALIZED (
                   SELECT id FROM document
                   WHERE sha256(path) = ANY(SELECT sha256(each) FROM unnest(:paths::bytea[]) AS each)),
               gone AS (DELETE FROM chunk USING doomed WHERE document_id = doomed.id RETURNING passage_id)
               SELECT DISTINCT passage_id FROM gone""",
            paths=[_path_bytes(each) for each in paths],
        )
        self._run(
            """DELETE FROM document
               WHERE sha256(path) = ANY(SELECT sha256(each) FROM unnest(:paths::bytea[]) AS each)""",
            paths=[_path_bytes(each) for each in paths],
        )
        return [row[0] for row in rows]

    def _attach(self, hashes: Sequence[bytes], state: FileState) -> None:
        """Have a passage for every hash; those without an embedding await it."""
        filled = self._filled()
        is_stored = f"EXISTS (SELECT FROM {_table(filled[0])} WHERE passage_id = passage.id)" if filled else "false"
        self._run(
            f"""INSERT INTO passage(hash, awaits, size_class, mtime_ns)
                SELECT DISTINCT hash, true, :size_class::smallint, :mtime_ns::bigint
                FROM unnest(:hashes::bytea[]) AS hash
                ON CONFLICT (hash) DO UPDATE
                SET awaits = true, size_class = excluded.size_class, mtime_ns = excluded.mtime_ns
                WHERE NOT passage.awaits AND passage.refusal = '' AND NOT {is_stored}""",
            hashes=list(hashes),
            size_class=places.size_class(state.size_bytes),
            mtime_ns=state.mtime_ns,
        )

    def _await_no_more(self, passage_ids: Sequence[int]) -> None:
        """Of passages whose chunks went, those that no other chunk has need no embedding."""
        if passage_ids:
            self._run(
                """UPDATE passage SET awaits = false WHERE id = ANY(:ids::bigint[]) AND awaits
                   AND NOT EXISTS (SELECT FROM chunk WHERE chunk.passage_id = passage.id)""",
                ids=list(passage_ids),
            )

    # ------------------------------------------------------------ embeddings

    def awaiting(self, limit: int) -> list[tuple[bytes, Chunk]]:
        """Hashes and chunks whose embedding is not stored, each hash once; of small files first, then recent ones."""
        rows = self._run(
            f"""SELECT passage.hash, {_HIT_COLUMNS}
                FROM (SELECT * FROM passage WHERE awaits ORDER BY size_class, mtime_ns DESC, id LIMIT :limit) AS passage
                CROSS JOIN LATERAL (
                    SELECT * FROM chunk WHERE chunk.passage_id = passage.id ORDER BY chunk.id LIMIT 1) AS chunk
                JOIN document ON document.id = chunk.document_id
                ORDER BY passage.size_class, passage.mtime_ns DESC, passage.id""",
            limit=limit,
        )
        return [(hash_, Chunk(*row[2:])) for hash_, *row in rows]

    def num_awaiting(self) -> int:
        """How many hashes `awaiting` would list."""
        return int(self._run("SELECT count(*) FROM passage WHERE awaits")[0][0])

    def add_embeddings(self, embeddings: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store float32[dimension] by hash, in one transaction, for all chunks of these hashes.

        Raises: FingerprintMismatch if an embedding's length is not that of the space that is being filled.
        """
        filled = self._filled()
        assert filled is not None, "enter a space before its embeddings are stored"
        number, space = filled
        for embedding in embeddings.values():
            assert embedding.dtype == "float32", embedding.dtype
            self._check_dimension(space, len(embedding))
        with self._connection.transaction():
            self._run(
                f"""WITH new AS (SELECT * FROM unnest(:hashes::bytea[], :embeddings::text[]) AS new(hash, embedding)),
                    added AS (
                        INSERT INTO passage(hash, awaits, size_class, mtime_ns) SELECT hash, false, 0, 0 FROM new
                        ON CONFLICT (hash) DO UPDATE SET awaits = false, refusal = '' RETURNING id, hash)
                    INSERT INTO {_table(number)}(passage_id, embedding)
                    SELECT id, embedding::halfvec FROM added JOIN new USING (hash)
                    ON CONFLICT (passage_id) DO NOTHING""",
                hashes=list(embeddings),
                embeddings=[_vector(each) for each in embeddings.values()],
            )

    def give_up(self, hash_: bytes, reason: str) -> None:
        """No longer await an embedding that cannot be made; its chunks are found by words only."""
        self._run("UPDATE passage SET awaits = false, refusal = :reason WHERE hash = :hash", hash=hash_, reason=reason)

    def embeddings_of(self, path: Path) -> NDArray[np.float32]:
        """Embeddings of a file's chunks in the searched space, float32[num, dimension], num 0 if it has none."""
        import numpy as np

        spaces = self._spaces()
        if not spaces:
            return np.zeros((0, 0), dtype=np.float32)
        number, space, _ = spaces[0]
        rows = self._run(
            f"""SELECT stored.embedding::vector::real[] FROM {_table(number)} AS stored
                JOIN chunk ON chunk.passage_id = stored.passage_id JOIN document ON document.id = chunk.document_id
                WHERE sha256(document.path) = sha256(:path) ORDER BY chunk.char_start""",
            path=_path_bytes(path),
        )
        return np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, space.dimension)

    # ------------------------------------------------------------ searching by words

    def keyword(self, query: str, limit: int, scope: Scope = EVERYWHERE, *, all_first: bool = True) -> list[Hit]:
        """Chunks by their words, best first: those with all words, then those with any; or all by BM25 at once.

        "Quoted parts" must stand in every hit as they are. Stop words count only where there is nothing else. When
        no word is found, chunks that hold the query letter by letter are taken.
        """
        phrases, single_words = words.search_terms(query)
        bound, terms = ([each for each in map(_asked, asked) if each] for asked in (phrases, single_words))
        hits: dict[int, Hit] = {}
        frequencies = self._frequencies([*bound, *terms, *map(_started, terms[-1:])])
        for required, others, is_scored in _widening(bound, terms, all_first):
            if len(hits) < limit:
                for hit in self._matching(required, others, frequencies, limit, scope):
                    hits.setdefault(hit.chunk_id, hit if is_scored else dataclasses.replace(hit, score=0.0))
        return _keyword_ranked([*hits.values()][:limit]) or self.literal(query.strip().strip('"'), limit, scope)

    def phrase(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the words of the text in that very order, best first."""
        asked = _asked(text)
        if not asked:
            return []
        return _keyword_ranked(self._matching([asked], [], self._frequencies([asked]), limit, scope))

    def literal(self, text: str, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks that hold the text letter by letter, upper and lower case alike; whatever is there is found.

        The server knows the cases of ASCII, of other letters only in some locales: those are compared here.
        """
        wanted = text.strip()
        if not wanted:
            return []
        plain = re.sub(r"([%_\\])", r"\\\1", wanted)
        pattern = re.sub(r"[^\x00-\x7f]+", "%", plain)
        condition, values = _condition(scope)
        hits: list[Hit] = []
        last = 0
        while len(hits) < limit:
            rows = self._run(
                f"""SELECT {_HIT_COLUMNS} FROM chunk JOIN document ON document.id = chunk.document_id
                    WHERE chunk.text ILIKE :pattern AND chunk.id > :last AND {condition}
                    ORDER BY chunk.id LIMIT :limit""",
                pattern=f"%{pattern}%",
                last=last,
                limit=limit,
                **values,
            )
            hits += [_hit(row, score=0.0) for row in rows if wanted.lower() in row[2].lower()]
            if len(rows) < limit:
                break
            last = rows[-1][0]
        return _keyword_ranked(hits[:limit])

    def newest(self, limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """The first chunk of each file, of those that were modified last first."""
        condition, values = _condition(scope)
        rows = self._run(
            f"""SELECT {_HIT_COLUMNS} FROM document CROSS JOIN LATERAL (
                    SELECT * FROM chunk WHERE document_id = document.id ORDER BY char_start LIMIT 1) AS chunk
                WHERE {condition} ORDER BY document.mtime_ns DESC, document.path LIMIT :limit""",
            limit=limit,
            **values,
        )
        return [_hit(row, score=1.0 / rank) for rank, row in enumerate(rows, start=1)]

    def holding(self, phrases: Sequence[str], chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that hold the words of every phrase (at least one) in its order."""
        asked = [each for each in map(_asked, phrases) if each]
        if not asked:
            return set()
        rows = self._run(
            "SELECT id FROM chunk WHERE id = ANY(:ids::bigint[]) AND words @@ to_tsquery('words', :expression)",
            ids=list(chunk_ids),
            expression=" & ".join(asked),
        )
        return {row[0] for row in rows}

    def _matching(
        self, required: Sequence[str], others: Sequence[str], frequencies: _Frequencies, limit: int, scope: Scope
    ) -> list[Hit]:
        """Chunks with all required terms, or any of the others if none is required; best first, by BM25 of all."""
        terms = [*required, *others]
        num_chunks, found = frequencies
        expression = " & ".join(required) or " | ".join(_rarest(others, found))
        condition, values = _condition(scope)
        rows = self._run(
            f"""WITH term AS MATERIALIZED (
                    SELECT to_tsquery('words', asked) AS query, idf
                    FROM unnest(:terms::text[], :idfs::float8[]) AS new(asked, idf)),
                found AS MATERIALIZED (
                    SELECT chunk.id, chunk.words, chunk.num_words
                    FROM chunk JOIN document ON document.id = chunk.document_id
                    WHERE chunk.words @@ to_tsquery('words', :expression) AND {condition} LIMIT :most),
                best AS (
                    SELECT id, (
                        SELECT coalesce(sum(idf * tf * ({_K1} + 1) /
                            (tf + {_K1} * (1 - {_B} + {_B} * num_words / greatest(mean, 1)))), 0)
                        FROM term CROSS JOIN LATERAL (
                            SELECT ts_rank_cd('{{1, 1, 1, 1}}', found.words, query)::float8 AS tf) AS occurrences
                        ) AS score
                    FROM found, (SELECT avg(num_words)::float8 AS mean FROM found) AS average
                    ORDER BY score DESC, id LIMIT :limit)
                SELECT best.score, {_HIT_COLUMNS} FROM best JOIN chunk ON chunk.id = best.id
                JOIN document ON document.id = chunk.document_id ORDER BY best.score DESC, chunk.id""",
            terms=terms,
            idfs=[math.log(1 + (num_chunks - found[each] + 0.5) / (found[each] + 0.5)) for each in terms],
            expression=expression,
            most=_MAX_RANKED,
            limit=limit,
            **values,
        )
        return [_hit(row, score=float(score)) for score, *row in rows]

    def _frequencies(self, terms: Sequence[str]) -> _Frequencies:
        """Counted for rare terms, of frequent ones what the server estimates."""
        if not terms:
            return 0, {}
        rows = self._run(
            """SELECT (SELECT CASE WHEN counted < :most THEN counted ELSE greatest(reltuples::bigint, counted) END
                       FROM pg_class, (
                           SELECT count(*) AS counted FROM (SELECT FROM chunk LIMIT :most) AS bounded) AS few
                       WHERE oid = 'chunk'::regclass), asked, (
                   SELECT count(*) FROM (
                       SELECT FROM chunk WHERE words @@ to_tsquery('words', asked) LIMIT :most) AS bounded)
               FROM unnest(:terms::text[]) AS asked""",
            terms=list(terms),
            most=_MAX_RANKED,
        )
        num_chunks = rows[0][0]
        found = {asked: min(num_found, num_chunks) for _, asked, num_found in rows}
        for asked, num_found in found.items():
            if num_found == _MAX_RANKED:
                ((plan,),) = self._run(
                    "EXPLAIN (FORMAT JSON) SELECT FROM chunk WHERE words @@ to_tsquery('words', :asked)", asked=asked
                )
                found[asked] = min(max(num_found, int(plan[0]["Plan"]["Plan Rows"])), num_chunks)
        return num_chunks, found

    # ------------------------------------------------------------ searching by meaning

    def nearest(self, embedding: NDArray[np.float32], limit: int, scope: Scope = EVERYWHERE) -> list[Hit]:
        """Chunks whose embedding is nearest by cosine distance, nearest first; [] while there are no embeddings.

        Raises: FingerprintMismatch if the embedding's length is not that of the searched space.
        """
        assert embedding.dtype == "float32", embedding.dtype
        try:
            rows = self._nearest(embedding, limit, scope)
        except UndefinedTable:  # the next space took the searched one's place just now
            rows = self._nearest(embedding, limit, scope)
        return [
            _hit(row, score=1.0 - distance, distance=distance, semantic_rank=rank)
            for rank, (distance, *row) in enumerate(rows, start=1)
        ]

    def _nearest(self, embedding: NDArray[np.float32], limit: int, scope: Scope) -> Rows:
        with self._connection.transaction("READ ONLY"):
            spaces = self._spaces()
            if not spaces:
                return []
            number, space, _ = spaces[0]
            self._check_dimension(space, len(embedding))
            condition, values = _condition(scope)
            ((few_within,),) = self._run(
                f"""SELECT CASE WHEN coalesce(sum(num_chunks), 0) < :most THEN coalesce(array_agg(id), '{{}}') END
                    FROM document WHERE {condition}""",
                most=_MAX_EXACT,
                **values,
            )
            vector = _vector(embedding)
            if few_within is not None:
                return self._nearest_within(number, few_within, vector, limit)
            values |= {"query": vector, "limit": limit}
            return self._nearest_by_index(number, space.dimension, condition, values)

    def _nearest_within(self, number: int, document_ids: list[int], vector: str, limit: int) -> Rows:
        """By comparing every chunk of these documents; by number, for the server cannot guess how many a scope has."""
        return self._run(
            f"""SELECT stored.embedding <=> :query::halfvec AS distance, {_HIT_COLUMNS}
                FROM chunk JOIN {_table(number)} AS stored ON stored.passage_id = chunk.passage_id
                JOIN document ON document.id = chunk.document_id WHERE chunk.document_id = ANY(:ids::bigint[])
                ORDER BY (stored.embedding <=> :query::halfvec) + 0, chunk.id LIMIT :limit""",
            query=vector,
            ids=document_ids,
            limit=limit,
        )

    def _nearest_by_index(self, number: int, dimension: int, condition: str, values: dict[str, Any]) -> Rows:
        """By the HNSW index, which goes on until enough of what it finds is within the scope."""
        table = _table(number)
        if dimension <= _MAX_INDEXED_DIMENSION:
            return self._run(
                f"""SELECT stored.embedding <=> :query::halfvec AS distance, {_HIT_COLUMNS}
                    FROM {table} AS stored JOIN chunk ON chunk.passage_id = stored.passage_id
                    JOIN document ON document.id = chunk.document_id
                    WHERE {condition} ORDER BY stored.embedding <=> :query::halfvec LIMIT :limit""",
                **values,
            )
        return self._run(
            f"""WITH coarse AS MATERIALIZED (
                    SELECT stored.embedding <=> :query::halfvec AS distance, {_HIT_COLUMNS}
                    FROM {table} AS stored JOIN chunk ON chunk.passage_id = stored.passage_id
                    JOIN document ON document.id = chunk.document_id WHERE {condition}
                    ORDER BY binary_quantize(stored.embedding)::bit({dimension}) <~>
                        binary_quantize(:query::halfvec) LIMIT :limit * {_SIGNS_PER_HIT})
                SELECT * FROM coarse ORDER BY distance, id LIMIT :limit""",
            **values,
        )

    def _check_dimension(self, space: Space, dimension: int) -> None:
        if space.dimension != dimension:
            raise FingerprintMismatch(
                f"the index holds embeddings of {space.dimension} numbers, this one has {dimension}; "
                "run `gritdesk index` to embed its files anew"
            )

    # ------------------------------------------------------------ looking in

    def document_text(self, path: Path) -> str | None:
        """The text of an indexed file as it was read; None if the index does not hold it."""
        for document_id, tail in self._run(
            "SELECT id, tail FROM document WHERE sha256(path) = sha256(:path) AND state = 'indexed'",
            path=_path_bytes(path),
        ):
            return self._joined(document_id, tail)
        return None

    def format_of(self, path: Path) -> str:
        """The reader's format of an indexed file; "" if the index does not hold it."""
        rows = self._run("SELECT format FROM document WHERE sha256(path) = sha256(:path)", path=_path_bytes(path))
        return str(rows[0][0]) if rows else ""

    def chunks_of(self, path: Path) -> list[Chunk]:
        """The chunks of one file, in the order of its text."""
        rows = self._run(
            f"""SELECT {_HIT_COLUMNS} FROM chunk JOIN document ON document.id = chunk.document_id
                WHERE sha256(document.path) = sha256(:path) ORDER BY chunk.char_start""",
            path=_path_bytes(path),
        )
        return [Chunk(*row[2:]) for row in rows]

    def frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """How many chunks there are, and how many hold each term; of frequent ones what the server estimates."""
        asked = {term: _asked(term) for term in terms}
        num_chunks, found = self._frequencies([each for each in asked.values() if each])
        return num_chunks, {term: found.get(each, 0) for term, each in asked.items()}

    def counts(self) -> tuple[int, int, int]:
        """(indexed files, chunks, bytes of text)."""
        ((files, chunks, text_bytes),) = self._run(
            """SELECT count(*), (SELECT count(*) FROM chunk), coalesce(sum(text_bytes), 0)::bigint
               FROM document WHERE state = 'indexed'"""
        )
        return files, chunks, text_bytes

    def chunk_numbers(self) -> dict[Path, int]:
        """How many chunks each indexed file has."""
        rows = self._run("SELECT path, num_chunks FROM document WHERE state = 'indexed'")
        return {_path(path): num for path, num in rows}

    def size_bytes(self) -> int:
        """What the index takes on the server's disk."""
        ((size,),) = self._run(
            """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
               WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND relkind = 'r'""",
            schema=self.address.schema,
        )
        return int(size)

    def failures(self) -> list[FailedFile]:
        """Files that could not be indexed, by path, and those with passages that could not be embedded."""
        rows = self._run(
            """SELECT path, reason FROM document WHERE state = 'failed'
               UNION ALL
               SELECT path, min(refusal) FROM passage JOIN chunk ON chunk.passage_id = passage.id
               JOIN document ON document.id = chunk.document_id WHERE refusal <> '' GROUP BY document.id, path
               ORDER BY 1"""
        )
        return [FailedFile(_path(path), reason) for path, reason in rows]

    def integrity(self) -> list[str]:
        """Everything found wrong, one line each; reads all of it, as it stood at one moment."""
        with self._connection.transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            return [*self._passage_problems(), *self._text_problems()]

    def _passage_problems(self) -> Iterator[str]:
        filled = self._filled()
        if filled is not None:
            for id_, awaits in self._run(
                f"""SELECT id, awaits FROM passage LEFT JOIN {_table(filled[0])} AS stored ON passage_id = id
                    WHERE EXISTS (SELECT FROM chunk WHERE chunk.passage_id = passage.id)
                    AND (passage_id IS NULL) = (NOT awaits AND refusal = '') ORDER BY id"""
            ):
                yield f"passage {id_} {'awaits the embedding it has' if awaits else 'has no embedding and awaits none'}"

    def _text_problems(self) -> Iterator[str]:
        for document_id, path, tail, text_hash in self._run("SELECT id, path, tail, text_hash FROM document"):
            if text_hash_of(self._joined(document_id, tail).encode()) != text_hash:
                yield f"the text of {_path(path)} is not what was stored"
            chunks = self._run("SELECT id, text, heading FROM chunk WHERE document_id = :id", id=document_id)
            wrong = self._run(
                """SELECT chunk.id FROM chunk JOIN json_to_recordset(:rows::json)
                       AS new(id bigint, words text, heading_words text, part_words text) ON new.id = chunk.id
                   WHERE chunk.words <> to_tsvector('words', new.words)
                       || :between::tsvector || to_tsvector('words', heading_words)
                       || :between::tsvector || to_tsvector('words', part_words)""",
                between=_BETWEEN,
                rows=_json({"id": id_, **_words_of(text, heading)} for id_, text, heading in chunks),
            )
            for (chunk_id,) in wrong:
                yield f"the words of chunk {chunk_id} of {_path(path)} are not those of its text"

    def _joined(self, document_id: int, tail: str) -> str:
        rows = self._run("SELECT gap, text FROM chunk WHERE document_id = :id ORDER BY char_start", id=document_id)
        return "".join(gap + text for gap, text in rows) + tail

    # ------------------------------------------------------------ one indexer

    @contextmanager
    def indexing(self, home: str) -> Iterator[None]:
        """Be the one indexer of this index, by a lock that the server gives up when the connection ends.

        Args:
            home: names the machine and folder of settings; an index is kept up from one home only, for its paths
                are those of one machine.
        Raises: StoreBusy if another program is indexing; StoreError if the index is kept up from another home.
        """
        ((key,),) = self._run("SELECT hashtextextended('gritdesk indexer ' || :schema, 0)", schema=self.address.schema)
        give_up_at = time.monotonic() + _NOTICED_WITHIN_S
        while self._run("SELECT pg_try_advisory_lock(:key)", key=key) != [[True]]:
            if time.monotonic() > give_up_at:
                raise StoreBusy(f"another gritdesk is indexing {self.address}; wait for it, or close it")
            time.sleep(0.05)
        self._connection.session_locks.append(key)
        try:
            self._check_home(home)
            yield
        finally:
            self._connection.session_locks.remove(key)
            self._run("SELECT pg_advisory_unlock(:key)", key=key)

    def _check_home(self, home: str) -> None:
        self._run("INSERT INTO setting(key, value) VALUES ('home', :home) ON CONFLICT (key) DO NOTHING", home=home)
        ((keeper,),) = self._run("SELECT value FROM setting WHERE key = 'home'")
        if keeper != home:
            raise StoreError(
                f"the index {self.address} is kept up by {keeper}, and its paths are of that machine; search it from "
                "here, or let another schema hold your files (?schema=NAME in index.store); docs/team.md says more"
            )

    def _run(self, sql: str, **values: Any) -> Rows:
        return self._connection.run(sql, **values)


# ---------------------------------------------------------------- values as SQL takes them


def _table(space: int) -> str:
    return f"embedding_{int(space)}"


def _path_bytes(path: Path) -> bytes:
    return os.fsencode(path)


def _path(value: bytes) -> Path:
    return Path(os.fsdecode(value))


def _json(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False)


def _vector(embedding: NDArray[np.float32]) -> str:
    """As pgvector reads it; five digits are more than float16 holds."""
    return f"[{','.join([f'{number:.5g}' for number in embedding.tolist()])}]"


def _condition(scope: Scope) -> tuple[str, dict[str, Any]]:
    """SQL that holds for the rows of `document` within the scope, and its values."""
    conditions = ["true"]
    values: dict[str, Any] = {}

    def named(value: Any) -> str:
        values[f"scope_{len(values)}"] = value
        return f":scope_{len(values) - 1}"

    for folders, negated in ((scope.folders, ""), (scope.within, ""), (scope.not_folders, "NOT ")):
        if folders:
            within = [
                f"position({named(places.as_folder(each))} IN {where}) {found}"
                for each, (where, found) in ((each, places.compared(each)) for each in folders)
            ]
            conditions.append(f"{negated}({' OR '.join(within)})")
    for types, negated in ((scope.types, ""), (scope.not_types, "NOT ")):
        if types:
            value = named([each.lower() for each in types])
            is_one = f"document.suffix = ANY({value}::text[]) OR document.format = ANY({value}::text[])"
            conditions.append(f"{negated}({is_one})")
    for names, negated in ((scope.names, ""), (scope.not_names, "NOT ")):
        for name in names:
            pattern = re.sub(r"([%_\\])", r"\\\1", places.name_of(name)).replace("*", "%").replace("?", "_")
            conditions.append(f"document.name {negated}LIKE {named(f'%{pattern}%')}")
    for bound, comparison in ((scope.after_ns, ">="), (scope.before_ns, "<")):
        if bound is not None:
            conditions.append(f"document.mtime_ns {comparison} {named(bound)}::bigint")
    return " AND ".join(conditions), values


# ---------------------------------------------------------------- words as the text search takes them


def _tokens(text: str) -> list[str]:
    """Runs of letters and digits, small and without diacritics; what each server would make of a text differs."""
    if not text.isascii():
        apart = unicodedata.normalize("NFKD", text.casefold())
        text = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", apart))
    return re.findall(r"[^\W_]+", text.lower())


def _written_words(chunk: Chunk) -> dict[str, str]:
    return _words_of(chunk.text, chunk.heading)


def _words_of(text: str, heading: str) -> dict[str, str]:
    return {
        "words": " ".join(_tokens(words.spaced(text))),
        "heading_words": " ".join(_tokens(words.spaced(heading))),
        "part_words": " ".join(_tokens(words.parts(text))),
    }


def _asked(text: str) -> str:
    """Words side by side, as an expression of the text search; "" if there are none."""
    quoted = words.quoted(text)
    found = " <-> ".join(_tokens(quoted))
    return f"({found}{':*' if quoted.endswith('*') else ''})" if found else ""


def _started(asked: str) -> str:
    """The same words where the last may be half typed."""
    return asked if asked.endswith(":*)") else f"{asked[:-1]}:*)"


def _widening(
    phrases: Sequence[str], terms: Sequence[str], all_first: bool
) -> Iterator[tuple[Sequence[str], Sequence[str], bool]]:
    """Required terms, others that count for the rank, and whether it is to be compared; each wider than those before.

    Where none is required, any of the others will do.

    As words.widening for the SQLite file, but that one letter begins a word, too: here it is found at little cost.
    """
    everything = [*phrases, *terms]
    if not everything:
        return
    is_one = len(everything) == 1
    if all_first:
        yield everything, [], True
    if all_first and not is_one and terms:
        yield [*everything[:-1], _started(terms[-1])], [], True
    if not is_one or not all_first:  # of one term all is any
        longest = sorted(terms[:-1], key=len, reverse=True)[: words.MAX_ANY_WORDS]  # long words are the rare ones
        yield phrases, [*longest, *terms[-1:]], True
    if terms:
        yield [*phrases, _started(terms[-1])], [], False


def _rarest(terms: Sequence[str], num_found: Mapping[str, int]) -> list[str]:
    """Those that find candidates: the rarest, together in not many more chunks than are ranked."""
    telling: list[str] = []
    total = 0
    for term in sorted(terms, key=lambda each: num_found[each]):
        total += num_found[term]
        if telling and total > _MAX_RANKED:
            break
        telling.append(term)
    return telling


# ---------------------------------------------------------------- rows as records


def _hit(row: Sequence[Any], **measures: Any) -> Hit:
    chunk_id, path, *chunk = row
    return Hit(chunk_id, _path(path), Chunk(*chunk), **measures)


def _keyword_ranked(hits: Sequence[Hit]) -> list[Hit]:
    return [dataclasses.replace(hit, keyword_rank=rank) for rank, hit in enumerate(hits, start=1)]
