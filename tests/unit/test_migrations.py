import hashlib
from pathlib import Path

import apsw
import pytest
import sqlite_vec

from gritdesk.errors import StoreError
from gritdesk.records import Scope
from gritdesk.store.migrations import APPLICATION_ID, MIGRATIONS, migrate
from gritdesk.store.sqlite import SqliteStore


def version(path: Path) -> int:
    connection = apsw.Connection(str(path))
    try:
        return int(connection.pragma("user_version"))
    finally:
        connection.close()


def test_new_file_gets_every_step_and_our_mark(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "index.sqlite").close()
    assert version(tmp_path / "index.sqlite") == len(MIGRATIONS)
    connection = apsw.Connection(str(tmp_path / "index.sqlite"))
    assert connection.pragma("application_id") == APPLICATION_ID
    assert connection.pragma("page_size") == 16 * 1024
    assert connection.pragma("journal_mode") == "wal"
    connection.close()


def test_file_of_an_earlier_version_gets_the_steps_it_lacks() -> None:
    connection = apsw.Connection(":memory:")
    migrate(connection, ["CREATE TABLE one(x)"])
    connection.execute("INSERT INTO one VALUES (7)")
    migrate(connection, ["CREATE TABLE one(x)", "ALTER TABLE one ADD COLUMN y; UPDATE one SET y = 8"])
    assert connection.execute("SELECT * FROM one").fetchall() == [(7, 8)]
    assert connection.pragma("user_version") == 2


def test_step_that_fails_changes_nothing() -> None:
    connection = apsw.Connection(":memory:")
    migrate(connection, ["CREATE TABLE one(x)"])
    with pytest.raises(apsw.SQLError):
        migrate(connection, ["", "CREATE TABLE two(x); CREATE TABLE one(x)"])
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("one",)]
    assert connection.pragma("user_version") == 1


def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    SqliteStore(path).close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer gritdesk.*99.*update gritdesk"):
        SqliteStore(path)
    assert version(path) == 99


def test_index_of_version_1_keeps_its_words_and_reads_every_file_again(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    migrate(connection, MIGRATIONS[:1])
    connection.execute("CREATE VIRTUAL TABLE vector USING vec0(embedding float[2] distance_metric=cosine)")
    connection.execute("INSERT INTO setting VALUES ('fingerprint', 'old'), ('dimension', '2')")
    connection.execute("INSERT INTO embedding VALUES (1, x'00')")
    connection.execute("INSERT INTO vector(rowid, embedding) VALUES (1, '[1, 2]')")
    text = " a walrus and getUserName\n"
    columns = "5, 6, 'abc', 'indexed', '', 'text'"
    connection.execute(
        f"INSERT INTO document VALUES (1, '/Notes/A.md', {columns}, ?, ?, ?)",
        ("\n", len(text), hashlib.blake2b(text.encode(), digest_size=16).digest()),
    )
    connection.execute("INSERT INTO chunk VALUES (1, 1, 1, ' ', 'a walrus and getUserName', 'H', 1, 25, 1, 1, NULL, 4)")
    connection.close()
    with SqliteStore(path) as store:
        assert version(path) == len(MIGRATIONS)
        assert store.document_text(Path("/Notes/A.md")) == text
        for query in ("walrus", "username"):
            (hit,) = store.keyword(query, 5, Scope(folders=("notes",)))
            assert hit.path == Path("/Notes/A.md") and hit.score > 0
        state = store.files()[Path("/Notes/A.md")]
        assert (state.size_bytes, state.content_hash, state.reading) == (-1, "", "")
        assert store.space() is None and store.integrity() == []
