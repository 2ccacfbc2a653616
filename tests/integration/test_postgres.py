"""What is PostgreSQL's own: the server and its failures, rights, the schema, the one indexer, the HNSW index."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres_server import PASSWORD, PostgresServer

from gritdesk.errors import ConfigError, StoreBusy, StoreError
from gritdesk.records import Chunk, Document, Scope
from gritdesk.store import postgres as module
from gritdesk.store import postgres_migrations
from gritdesk.store.base import FileState, Space
from gritdesk.store.postgres import PostgresStore
from gritdesk.store.postgres_connection import Address, Connection, parse_address
from gritdesk.store.postgres_migrations import MIGRATIONS, open_schema

STATE = FileState(10, 20, "abc")


@pytest.fixture
def address(postgres: PostgresServer) -> Address:
    postgres.empty("gritdesk")
    return parse_address(postgres.url())


@pytest.fixture
def store(address: Address) -> Iterator[PostgresStore]:
    with PostgresStore(address) as store:
        yield store


def add(store: PostgresStore, path: str, *texts: str) -> None:
    chunks, start = [], 0
    for text in texts:
        chunks.append(Chunk(text, start, start + len(text), 1, 1))
        start += len(text) + 1
    store.replace_document(
        Document(Path(path), " ".join(texts), "text"), STATE, chunks, [text.encode() for text in texts]
    )


def role(server: PostgresServer, name: str, *rights: str) -> str:
    """A new user with these rights; its URL."""
    server.run(f"DROP OWNED BY {name}") if server.run("SELECT FROM pg_roles WHERE rolname = :n", n=name) else None
    server.run(f"DROP ROLE IF EXISTS {name}")
    server.run(f"CREATE ROLE {name} LOGIN PASSWORD 'reader'")
    for right in rights:
        server.run(f"{right} TO {name}")
    return server.url(user=name, password="reader")


# ---------------------------------------------------------------- the address


def test_address_is_read_from_a_url() -> None:
    url = "postgresql://ke%40per:p%2Fw@db.example:6543/notes?schema=team_a&sslmode=require"
    address = parse_address(url)
    assert address == Address("ke@per", "db.example", 6543, "notes", "team_a", "require", "p/w")
    assert str(address) == "postgresql://ke@per@db.example:6543/notes?schema=team_a"
    assert "p/w" not in repr(address)


def test_what_a_url_leaves_out_has_the_usual_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from outside")
    monkeypatch.setenv("PGUSER", "me")
    address = parse_address("postgres:///")
    assert address == Address("me", "localhost", 5432, "me", password="from outside")
    assert parse_address("postgresql:///notes?host=/run/postgresql").host == "/run/postgresql"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://host/x", "must begin with postgresql://"),
        ("/srv/index.sqlite", "must begin with postgresql://"),
        ("postgresql://me:secret@host:port/x", "is not a URL"),
        ("postgresql://me:secret@host/x?schema=Robert'; DROP", "the schema must be of small letters"),
        ("postgresql://me:secret@host/x?schema=pg_catalog", "the schema must be"),
        ("postgresql://me:secret@host/x?sslmode=maybe", "sslmode must be one of disable, prefer"),
        ("postgresql://me:secret@host/x?sslcert=a", "unknown option 'sslcert'"),
    ],
)
def test_url_that_cannot_be_used_says_why_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


# ---------------------------------------------------------------- the server


def failure_of(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        PostgresStore(parse_address(url))
    assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)
    return str(caught.value)


def test_connection_that_is_refused_says_what_to_do(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    assert "refuses the password for keeper" in failure_of(postgres.url(password="wrong"))
    assert "set PGPASSWORD" in failure_of(postgres.url(password=""))
    assert "has no database nowhere; make it with `createdb nowhere`" in failure_of(postgres.url("nowhere"))
    assert "encrypts no connections" in failure_of(f"{postgres.url()}?sslmode=require")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://me@127.0.0.1:{unused.getsockname()[1]}/x"
    assert "cannot reach" in failure_of(url) and "look whether it runs" in failure_of(url)
    assert "cannot reach" in failure_of("postgresql://me@/x?host=/nowhere")


def test_password_may_come_from_outside(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    PostgresStore(parse_address(postgres.url(password=""))).close()


def test_restarted_server_is_used_again_and_what_was_under_way_says_so(
    postgres: PostgresServer, store: PostgresStore
) -> None:
    add(store, "/a.txt", "walrus")
    postgres.stop()
    with pytest.raises(StoreError, match="cannot reach|ended the connection"):
        store.counts()
    postgres.start()
    assert store.counts()[0] == 1
    postgres.stop()
    postgres.start()
    assert [hit.path.name for hit in store.keyword("walrus", 5)] == ["a.txt"], "found anew without a word"
    with (
        pytest.raises(StoreError, match="ended the connection.*run the command again"),
        store._connection.transaction(),
    ):
        store._run("DELETE FROM document")
        postgres.stop()
        postgres.start()
        store._run("DELETE FROM document")
    assert store.counts()[0] == 1, "nothing of a transaction that broke off"


def test_server_without_pgvector_is_refused_with_what_to_do() -> None:
    server = PostgresServer(has_pgvector=False)
    try:
        assert "has no pgvector; install it there" in failure_of(server.url())
        assert server.run("SELECT FROM pg_namespace WHERE nspname = 'gritdesk'") == []
    finally:
        server.close()


# ---------------------------------------------------------------- rights


def test_user_who_may_only_read_searches_and_cannot_write(postgres: PostgresServer, store: PostgresStore) -> None:
    store.enter_space(Space("a", 3))
    add(store, "/a.txt", "the walrus")
    store.add_embeddings({b"the walrus": np.ones(3, np.float32)})
    url = role(postgres, "onlooker", "GRANT USAGE ON SCHEMA gritdesk", "GRANT SELECT ON ALL TABLES IN SCHEMA gritdesk")
    with PostgresStore(parse_address(url)) as reader:
        for hits in (
            reader.keyword("walrus", 5),
            reader.phrase("the walrus", 5),
            reader.literal("alru", 5),
            reader.nearest(np.ones(3, np.float32), 5),
        ):
            assert [hit.path.name for hit in hits] == ["a.txt"]
        assert reader.integrity() == [] and reader.size_bytes() > 0
        with pytest.raises(StoreError, match="onlooker may not do this.*docs/team.md"):
            add(reader, "/b.txt", "b")


def test_user_who_may_make_nothing_is_told_so(postgres: PostgresServer) -> None:
    url = role(postgres, "guest")
    assert "guest may not do this" in failure_of(f"{url}?schema=not_there_yet")


# ---------------------------------------------------------------- the schema


def test_indexes_of_two_schemas_know_nothing_of_each_other(store: PostgresStore, postgres: PostgresServer) -> None:
    add(store, "/a.txt", "walrus")
    with PostgresStore(parse_address(f"{postgres.url()}?schema=other")) as other:
        assert other.keyword("walrus", 5) == [] and other.counts() == (0, 0, 0)


def test_schema_of_another_program_is_refused_and_left_alone(postgres: PostgresServer) -> None:
    postgres.run("CREATE SCHEMA foreign_one; CREATE TABLE foreign_one.customer(id int)")
    assert "holds tables of another program" in failure_of(f"{postgres.url()}?schema=foreign_one")
    tables = postgres.run("SELECT tablename FROM pg_tables WHERE schemaname = 'foreign_one'")
    assert tables == [["customer"]]


def test_newer_index_is_refused(postgres: PostgresServer, store: PostgresStore) -> None:
    store._run("UPDATE setting SET value = '99' WHERE key = 'version'")
    try:
        assert "written by a newer gritdesk (index version 99" in failure_of(postgres.url())
    finally:
        store._run("UPDATE setting SET value = :now WHERE key = 'version'", now=str(len(MIGRATIONS)))


def test_new_step_is_applied_once_however_many_open_the_index(address: Address, store: PostgresStore) -> None:
    steps = (*MIGRATIONS, "CREATE TABLE added(n int); INSERT INTO added VALUES (1)")
    connections = [Connection(address) for _ in range(4)]
    threads = [threading.Thread(target=open_schema, args=(each, steps)) for each in connections]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store._run("SELECT n FROM added") == [[1]]
        assert store._run("SELECT value FROM setting WHERE key = 'version'") == [[str(len(steps))]]
    finally:
        for each in connections:
            each.close()
        store._run("DROP TABLE added")
        store._run("UPDATE setting SET value = :now WHERE key = 'version'", now=str(len(MIGRATIONS)))


def test_step_that_fails_leaves_the_index_as_it_was(address: Address, store: PostgresStore) -> None:
    connection = Connection(address)
    with pytest.raises(StoreError, match="syntax error"):
        open_schema(connection, (*MIGRATIONS, "CREATE TABLE half(n int); CREATE nonsense"))
    connection.close()
    assert store._run("SELECT to_regclass('half')") == [[None]]
    PostgresStore(address).close()


def test_pgvector_that_is_too_old_is_named(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_migrations, "_LEAST_PGVECTOR", (99, 0))
    assert "ALTER EXTENSION vector UPDATE" in failure_of(f"{postgres.url()}?schema=newer_wanted")


# ---------------------------------------------------------------- one indexer


def test_second_indexer_is_refused_until_the_first_is_done_or_dead(address: Address, store: PostgresStore) -> None:
    with PostgresStore(address) as first:
        indexing = first.indexing("host:/home")
        indexing.__enter__()
        with pytest.raises(StoreBusy, match="another gritdesk is indexing"), store.indexing("host:/home"):
            pass
        first._connection._drop()  # as a kill would
        with store.indexing("host:/home"), pytest.raises(StoreBusy, match="began to index"):
            first.counts()
        assert first.counts() == (0, 0, 0), "it holds the lock again"
        indexing.__exit__(None, None, None)
    with store.indexing("host:/home"):
        pass


def test_index_is_kept_up_from_one_home_only(store: PostgresStore) -> None:
    with store.indexing("harbour:/srv/gritdesk"):
        add(store, "/a.txt", "walrus")
    with pytest.raises(StoreError, match="kept up by harbour:/srv/gritdesk"), store.indexing("laptop:/home/me"):
        pass
    with store.indexing("harbour:/srv/gritdesk"):
        pass


# ---------------------------------------------------------------- searching


def test_newest_files_come_first_each_by_its_first_chunk(store: PostgresStore) -> None:
    for number, name in enumerate(["old", "newer", "newest"]):
        document = Document(Path(f"/{name}.txt"), "one two", "text")
        chunks = [Chunk("one", 0, 3, 1, 1), Chunk("two", 4, 7, 1, 1)]
        store.replace_document(document, FileState(10, number, ""), chunks, [b"one", b"two"])
    hits = store.newest(2)
    assert [(hit.path.stem, hit.chunk.text) for hit in hits] == [("newest", "one"), ("newer", "one")]
    assert [hit.path.stem for hit in store.newest(2, Scope(names=("old",)))] == ["old"]


def test_frequent_words_rank_what_rare_ones_find(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_RANKED", 20)
    add(store, "/many.txt", *(f"the lamp number {number}" for number in range(60)))
    add(store, "/rare.txt", "a zygote here and now", "a zygote and a lamp")
    add(store, "/others.txt", *(f"nothing of it {number}" for number in range(60)))
    store._run("ANALYZE")
    hits = store.keyword("lamp zygote", 5, all_first=False)
    assert [hit.chunk.text for hit in hits] == ["a zygote and a lamp", "a zygote here and now"]
    assert len(store.keyword("lamp", 30)) == 20


# ---------------------------------------------------------------- the index of embeddings


@pytest.mark.parametrize(("dimension", "is_by_signs"), [(96, False), (256, True)])
def test_large_space_is_searched_by_its_index_within_the_scope(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, dimension: int, is_by_signs: bool
) -> None:
    monkeypatch.setattr(module, "_MAX_EXACT", 100)
    if is_by_signs:
        monkeypatch.setattr(module, "_MAX_INDEXED_DIMENSION", 128)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, dimension))
    rows = (centres[np.arange(1200) % 30] + 0.7 * rng.normal(size=(1200, dimension))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store.enter_space(Space("a", dimension))
    for start in range(0, 1200, 100):
        texts = [str(number) for number in range(start, start + 100)]
        add(store, f"/{'odd' if start // 100 % 2 else 'even'}/{start}.txt", *texts)
        store.add_embeddings({text.encode(): rows[int(text)] for text in texts})
    store.finish_space()
    assert store._run("SELECT to_regclass('embedding_' || id || '_nearest') IS NOT NULL FROM space") == [[True]]
    store._run("ANALYZE")
    found = 0
    for query in rng.permutation(1200)[:20]:
        for scope, inside in ((Scope(), np.arange(1200)), (Scope(folders=("odd",)), np.arange(1200) // 100 % 2 == 1)):
            exact = np.arange(1200)[inside][np.argsort(-(rows[inside] @ rows[query]))][:10]
            hits = store.nearest(rows[query], 10, scope)
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits if hit.distance is not None)
            assert len(hits) == 10 and (not scope.folders or all("odd" in hit.path.parts for hit in hits))
            found += len({int(hit.chunk.text) for hit in hits} & set(exact.tolist()))
    assert found >= 0.97 * 400
    store.enter_space(Space("b", 4))
    assert store.space() == Space("a", dimension)
