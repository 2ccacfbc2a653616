"""The schema of an index in PostgreSQL, as numbered steps that are each applied once.

`setting` counts the steps under "version". Every step runs in a transaction of its own under an advisory lock, so two
programs that open a new index together agree. A step that has been released is never edited; a change of the schema
is one more step at the end. Whoever only searches needs no right to write: a schema of this version is only read.

The tables are those of the SQLite file (see migrations.py): a document's text lies in its chunks and the gaps between
them; a passage is what is embedded, once however many chunks have it. Each space has a table of its own,
`embedding_N`, made when it is entered; it gets its index when it is filled (see PostgresStore.finish_space).
"""

from __future__ import annotations

from collections.abc import Sequence

from gritdesk.errors import StoreError
from gritdesk.store.postgres_connection import Connection

_LEAST_PGVECTOR = (0, 8)
"""The first that goes on searching its index until enough rows pass a filter."""

MIGRATIONS: tuple[str, ...] = (
    # Words come folded and cut by store/words.py, alike on every server whatever its locale; what is left to the
    # server is to stem them. English stems, as in the SQLite file; its stop words stay, for phrases need them.
    """
    CREATE TABLE setting(key text PRIMARY KEY, value text NOT NULL);

    CREATE TEXT SEARCH DICTIONARY stem (TEMPLATE = pg_catalog.snowball, Language = 'english');
    CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple);
    ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword, word, numword WITH stem;

    CREATE TABLE space(
      id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      fingerprint text NOT NULL UNIQUE,
      dimension integer NOT NULL,
      model text NOT NULL,
      is_searched boolean NOT NULL
    );
    CREATE UNIQUE INDEX space_by_use ON space(is_searched);

    CREATE TABLE document(
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      path bytea NOT NULL,           -- as the indexing machine spells it, whatever its encoding
      folder text NOT NULL,          -- folder, name, suffix: what scopes ask for
      name text NOT NULL,
      suffix text NOT NULL,
      size_bytes bigint NOT NULL,
      mtime_ns bigint NOT NULL,
      content_hash text NOT NULL,    -- of the file's bytes; '' when they could not be read
      state text NOT NULL CHECK (state IN ('indexed', 'failed')),
      reason text NOT NULL,
      reading text NOT NULL,
      format text NOT NULL,
      tail text NOT NULL,            -- text after the last chunk
      text_bytes bigint NOT NULL,
      text_hash bytea NOT NULL,      -- of the whole text
      num_chunks integer NOT NULL
    );
    CREATE UNIQUE INDEX document_by_path ON document(sha256(path));  -- a path may be longer than an index takes

    CREATE TABLE passage(
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      hash bytea NOT NULL UNIQUE,    -- of what is embedded; equal chunks share one passage
      awaits boolean NOT NULL,       -- a chunk has it, and the space that is being filled has no embedding of it
      size_class smallint NOT NULL,  -- of the file that brought it, and its time: the order of embedding
      mtime_ns bigint NOT NULL,
      refusal text NOT NULL DEFAULT ''  -- why it cannot be embedded in that space
    );
    CREATE INDEX passage_awaiting ON passage(size_class, mtime_ns DESC, id) WHERE awaits;
    CREATE INDEX passage_refused ON passage(id) WHERE refusal <> '';

    CREATE TABLE chunk(
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      document_id bigint NOT NULL REFERENCES document(id) ON DELETE CASCADE,
      passage_id bigint NOT NULL REFERENCES passage(id),
      gap text NOT NULL,
      text text NOT NULL,
      heading text NOT NULL,
      char_start integer NOT NULL,
      char_end integer NOT NULL,
      line_start integer NOT NULL,
      line_end integer NOT NULL,
      page integer,
      num_tokens integer NOT NULL,
      num_words integer NOT NULL,
      words tsvector NOT NULL
    );
    CREATE INDEX chunk_by_document ON chunk(document_id, char_start);
    CREATE INDEX chunk_by_passage ON chunk(passage_id);
    CREATE INDEX chunk_by_words ON chunk USING gin(words);
    """,
)


def open_schema(connection: Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring the index to the newest version, making it if it is not there, and let statements find its tables.

    Raises: StoreError if the schema belongs to another program or a newer gritdesk, if pgvector is not there or too
        old, or if the user may not make what is missing.
    """
    if _version(connection, len(steps)) < len(steps):
        with connection.transaction():
            connection.run("SELECT pg_advisory_xact_lock(hashtextextended('gritdesk schema', 0))")
            _make_extension(connection)
            _find_tables(connection)
            for version in range(_version(connection, len(steps)), len(steps)):
                if version == 0 and not _is_schema(connection):
                    connection.run(f'CREATE SCHEMA "{connection.address.schema}"')
                connection.run(steps[version])
                connection.run(
                    """INSERT INTO setting(key, value) VALUES ('version', :version)
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value""",
                    version=str(version + 1),
                )
    _find_tables(connection)


def _find_tables(connection: Connection) -> None:
    """Say where statements look for tables, and for what extensions bring, which may lie anywhere."""
    ((path,),) = connection.run(
        """SELECT concat_ws(', ', quote_ident(:schema), (
               SELECT string_agg(DISTINCT quote_ident(nspname), ', ')
               FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
               WHERE extname IN ('vector', 'pg_trgm')))""",
        schema=connection.address.schema,
    )
    connection.set("search_path", path)


def _is_schema(connection: Connection) -> bool:
    return bool(connection.run("SELECT FROM pg_namespace WHERE nspname = :schema", schema=connection.address.schema))


def _version(connection: Connection, newest: int) -> int:
    address = connection.address
    ((num_tables, is_ours),) = connection.run(
        """SELECT count(*), coalesce(bool_or(relname = 'setting') AND bool_or(relname = 'passage'), false)
           FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
           WHERE nspname = :schema AND relkind IN ('r', 'v', 'm', 'p')""",
        schema=address.schema,
    )
    if num_tables == 0:
        return 0
    if not is_ours:
        raise StoreError(
            f"the schema {address.schema} of {address} holds tables of another program, not a gritdesk index; "
            "name another one by ?schema=NAME in index.store"
        )
    rows = connection.run(f"SELECT value FROM \"{address.schema}\".setting WHERE key = 'version'")
    version = int(rows[0][0]) if rows else 0
    if version > newest:
        raise StoreError(
            f"{address} was written by a newer gritdesk (index version {version}, this one knows {newest}); "
            "update gritdesk, or name another schema by ?schema=NAME in index.store"
        )
    return version


def _make_extension(connection: Connection) -> None:
    """Make pgvector known in the database."""
    available = {
        name: (found, default)
        for name, found, default in connection.run(
            """SELECT name, installed_version, default_version FROM pg_available_extensions
               WHERE name = 'vector'"""
        )
    }
    address = connection.address
    if "vector" not in available:
        raise StoreError(
            f"{address.server} has no pgvector; install it there (its package is often postgresql-NN-pgvector), "
            "and run the command again"
        )
    version, default = available["vector"]
    if tuple(map(int, (version or default).split(".")[:2])) < _LEAST_PGVECTOR:
        raise StoreError(
            f"{address} has pgvector {version or default}, and 0.8 is the first that will do; "
            "update it there, then run `ALTER EXTENSION vector UPDATE` in the database"
        )
    if version is None:
        connection.run("CREATE EXTENSION vector WITH SCHEMA public")
