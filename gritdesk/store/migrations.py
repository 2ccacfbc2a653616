"""The index file's schema, as numbered steps that are each applied once.

`user_version` counts the steps a file has seen, `application_id` says that it is ours. Every step runs in a
transaction of its own that takes the write lock first, so two processes that open a new file together agree.
A step that has been released is never edited; a change of the schema is one more step at the end.

One file's text is stored once: a chunk keeps its own text and the `gap` before it (white space, as a rule), a
document keeps what follows its last chunk. Triggers keep the words table in step with the chunks; it holds no text
of its own. A passage is what is embedded, once however many chunks have it. Each space has two tables of its own,
made when it is entered, whose rows are named by `passage.id`: `vector_N` holds the embeddings, the vec0 table
`code_N` bits of them that are quick to compare (see vectors.py).

SQL calls functions of ours (see words.py and places.py), so every connection that writes has to know them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from gritdesk.errors import StoreError
from gritdesk.store import places, words

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
    # The embeddings of version 1 go: their hashes named the model, so none would be asked for again. Words stay.
    """
    DROP TRIGGER chunk_added;
    DROP TRIGGER chunk_removed;
    DROP TABLE word;
    DROP TABLE IF EXISTS vector;
    DELETE FROM setting;

    ALTER TABLE document ADD COLUMN reading TEXT NOT NULL DEFAULT '';
    ALTER TABLE document ADD COLUMN folder TEXT NOT NULL DEFAULT '';   -- folder, name, suffix: what scopes ask for
    ALTER TABLE document ADD COLUMN name TEXT NOT NULL DEFAULT '';
    ALTER TABLE document ADD COLUMN suffix TEXT NOT NULL DEFAULT '';
    ALTER TABLE document ADD COLUMN first_chunk INTEGER NOT NULL DEFAULT 0;  -- its chunks' ids follow each other
    ALTER TABLE document ADD COLUMN num_chunks INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE document ADD COLUMN passages BLOB NOT NULL DEFAULT x'';  -- int32 ids of its chunks' passages
    UPDATE document SET folder = folder_of(path), name = name_of(path), suffix = suffix_of(path),
      first_chunk = coalesce((SELECT min(id) FROM chunk WHERE chunk.document_id = document.id), 0),
      num_chunks = (SELECT count(*) FROM chunk WHERE chunk.document_id = document.id),
      size_bytes = -1, content_hash = '';                              -- every file counts as changed

    CREATE TABLE passage(
      hash BLOB PRIMARY KEY,         -- of what is embedded; equal chunks share one passage
      id INTEGER NOT NULL            -- not indexed, which would cost more than all the rest of the row
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE new_chunk(
      id INTEGER PRIMARY KEY,
      document_id INTEGER NOT NULL,
      passage_id INTEGER,            -- NULL while its file is to be read again
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
    INSERT INTO new_chunk SELECT id, document_id, NULL, gap, text, heading, char_start, char_end, line_start, line_end,
      page, num_tokens FROM chunk;
    DROP TABLE chunk;
    DROP TABLE embedding;
    ALTER TABLE new_chunk RENAME TO chunk;
    CREATE INDEX chunk_by_passage ON chunk(passage_id);

    CREATE TABLE space(
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      fingerprint TEXT NOT NULL UNIQUE,
      dimension INTEGER NOT NULL,
      model TEXT NOT NULL,
      is_searched INTEGER NOT NULL,
      num_added INTEGER NOT NULL DEFAULT 0,    -- of embeddings, ever: what is held in memory is brought up by these
      num_removed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE awaiting(           -- passages without an embedding in the space that is being filled
      size_class INTEGER NOT NULL,   -- of the file, in factors of 16
      age INTEGER NOT NULL,          -- minus its time of modification
      passage_id INTEGER NOT NULL UNIQUE,
      hash BLOB NOT NULL,
      PRIMARY KEY (size_class, age, passage_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE given_up(           -- passages that cannot be embedded in it
      passage_id INTEGER PRIMARY KEY,
      reason TEXT NOT NULL
    ) STRICT;

    CREATE VIRTUAL TABLE word USING fts5(
      text, heading, parts, content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2'
    );
    INSERT INTO word(rowid, text, heading, parts) SELECT id, spaced(text), spaced(heading), parts(text) FROM chunk;
    CREATE TRIGGER chunk_added AFTER INSERT ON chunk BEGIN
      INSERT INTO word(rowid, text, heading, parts)
        VALUES (new.id, spaced(new.text), spaced(new.heading), parts(new.text));
    END;
    CREATE TRIGGER document_removed AFTER DELETE ON document BEGIN
      DELETE FROM chunk WHERE id >= old.first_chunk AND id < old.first_chunk + old.num_chunks;
    END;
    CREATE TRIGGER chunk_removed AFTER DELETE ON chunk BEGIN
      DELETE FROM word WHERE rowid = old.id;
      DELETE FROM awaiting WHERE passage_id = old.passage_id
        AND NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.passage_id = old.passage_id);
    END;
    """,
)

_FUNCTIONS: dict[str, Callable[..., str | int]] = {
    "spaced": words.spaced,
    "parts": words.parts,
    "folder_of": places.folder_of,
    "name_of": places.name_of,
    "suffix_of": places.suffix_of,
    "size_class": places.size_class,
}


def migrate(connection: apsw.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring an opened file to the newest version; no-op if it is there.

    Raises: StoreError if the file belongs to another program or to a newer gritdesk.
    """
    name = connection.filename or "the index"
    for function_name, function in _FUNCTIONS.items():
        connection.create_scalar_function(function_name, function, 1, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)
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
