"""The index file's schema, as numbered steps that are each applied once.

`user_version` counts the steps a file has seen, `application_id` says that it is ours. Every step runs in a
transaction of its own that takes the write lock first, so two processes that open a new file together agree.
A step that has been released is never edited; a change of the schema is one more step at the end.

One file's text is stored once: a chunk keeps its own text and the `gap` before it (white space, as a rule), a
document keeps what follows its last chunk. The words table reads the chunks (external content), so triggers keep
both in step. Vectors lie in a vec0 table `vector` whose rowid is `embedding.id`; it is made when the length of
an embedding is known (see store.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from gritdesk.errors import StoreError

APPLICATION_ID = 0x47524954
"""The four bytes GRIT, at offset 68 of the file."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE setting(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE document(
      id INTEGER PRIMARY KEY,
      path ANY NOT NULL UNIQUE,      -- text; bytes for a name that is not valid Unicode
      size_bytes INTEGER NOT NULL,
      mtime_ns INTEGER NOT NULL,
      content_hash TEXT NOT NULL,    -- of the file's bytes; '' when they could not be read
      state TEXT NOT NULL CHECK (state IN ('indexed', 'failed')),
      reason TEXT NOT NULL,
      format TEXT NOT NULL,
      tail TEXT NOT NULL,            -- text after the last chunk
      text_bytes INTEGER NOT NULL,
      text_hash BLOB NOT NULL        -- of the whole text, checked by Store.integrity
    ) STRICT;

    CREATE TABLE embedding(
      id INTEGER PRIMARY KEY,
      hash BLOB NOT NULL UNIQUE      -- of fingerprint, instruction and text: equal chunks share one vector
    ) STRICT;

    CREATE TABLE chunk(
      id INTEGER PRIMARY KEY,
      document_id INTEGER NOT NULL REFERENCES document(id) ON DELETE CASCADE,
      embedding_id INTEGER REFERENCES embedding(id),
      gap TEXT NOT NULL,
      text TEXT NOT NULL,
      heading TEXT NOT NULL,
      char_start INTEGER NOT NULL,
      char_end INTEGER NOT NULL,
      line_start INTEGER NOT NULL,
      line_end INTEGER NOT NULL,
      page INTEGER,
      num_tokens INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX chunk_by_document ON chunk(document_id, char_start);
    CREATE INDEX chunk_by_embedding ON chunk(embedding_id);

    CREATE VIRTUAL TABLE word USING fts5(
      text, heading, content='chunk', content_rowid='id',
      tokenize='porter unicode61 remove_diacritics 2', prefix='2 4'
    );
    CREATE TRIGGER chunk_added AFTER INSERT ON chunk BEGIN
      INSERT INTO word(rowid, text, heading) VALUES (new.id, new.text, new.heading);
    END;
    CREATE TRIGGER chunk_removed AFTER DELETE ON chunk BEGIN
      INSERT INTO word(word, rowid, text, heading) VALUES ('delete', old.id, old.text, old.heading);
    END;
    """,
)


def migrate(connection: apsw.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring an opened file to the newest version; no-op if it is there.

    Raises: StoreError if the file belongs to another program or to a newer gritdesk.
    """
    name = connection.filename or "the index"
    while (version := _version_at_once(connection, name, len(steps))) < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection, name, len(steps)) == version:  # otherwise another process was faster
                connection.execute(steps[version])
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _version_at_once(connection: apsw.Connection, name: str, newest: int) -> int:
    """`_version` of one moment: between its reads another process may be making the file."""
    connection.execute("BEGIN")
    try:
        return _version(connection, name, newest)
    finally:
        connection.execute("COMMIT")


def _version(connection: apsw.Connection, name: str, newest: int) -> int:
    application_id = connection.pragma("application_id")
    version = connection.pragma("user_version")
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if is_empty and application_id == 0 and version == 0:
        return 0
    if application_id != APPLICATION_ID:
        raise StoreError(
            f"{name} is an SQLite file of another program, not a gritdesk index; "
            "move it away and run `gritdesk index` to build the index"
        )
    if version > newest:
        raise StoreError(
            f"{name} was written by a newer gritdesk (index version {version}, this one knows {newest}); "
            "update gritdesk, or move the file away and run `gritdesk index` to build it anew"
        )
    return int(version)
