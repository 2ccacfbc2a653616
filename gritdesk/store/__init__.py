"""Where documents, chunks, words and embeddings are kept: `base` says what any store does, the others do it.

The configuration says which: an SQLite file at home, or a PostgreSQL database that a team shares (`index.store`).
Either is loaded only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from gritdesk.config import Config
from gritdesk.errors import ConfigError
from gritdesk.store.base import Store

__all__ = ["indexing", "opener", "place", "size_bytes"]


def opener(config: Config) -> Callable[[], Store]:
    """What opens the index, once for every thread of a process.

    Raises: ConfigError if index.store is no address, or its driver is not installed; the call itself: StoreError.
    """
    if not config.index.store:
        from gritdesk.store.sqlite import Shared, SqliteStore

        shared = Shared()
        return lambda: SqliteStore(config.index_path, shared)
    try:
        from gritdesk.store.postgres import PostgresStore
        from gritdesk.store.postgres_connection import parse_address
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'an index in PostgreSQL needs {error.name}, which is not installed; run `pip install "gritdesk[postgres]"`'
        ) from error
    address = parse_address(config.index.store)
    return lambda: PostgresStore(address)


def place(config: Config) -> str:
    """Where the index is, as a person is told: a path, or a URL without its password."""
    if not config.index.store:
        return str(config.index_path)
    from gritdesk.store.postgres_connection import parse_address

    return str(parse_address(config.index.store))


def size_bytes(config: Config, store: Store) -> int:
    """What the index takes on the disk it lies on."""
    if not config.index.store:
        return sum(each.stat().st_size for each in config.home.glob("index.sqlite*") if each.is_file())
    from gritdesk.store.postgres import PostgresStore

    assert isinstance(store, PostgresStore)
    return store.size_bytes()


def indexing(config: Config, store: Store) -> AbstractContextManager[None]:
    """Be the one that indexes, beside the lock in the home: for an index that several homes may reach.

    Raises: StoreBusy if another one does; StoreError if the index is kept up from another home.
    """
    if not config.index.store:
        return nullcontext()
    import platform

    from gritdesk.store.postgres import PostgresStore

    assert isinstance(store, PostgresStore)
    return store.indexing(f"{platform.node()}:{config.home}")
