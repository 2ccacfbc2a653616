"""The door to a PostgreSQL server: a URL becomes a connection, its failures become StoreErrors of one line.

A connection that the server ended, as when it restarts, is made anew by the next call; what was under way is only
repeated if nothing of it can have been done. A password is never part of a message.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.exceptions
import pg8000.native

from gritdesk.errors import ConfigError, GritDeskError, StoreBusy, StoreError

_CONNECT_S = 10.0
_BUSY_MS = 10_000
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_SSL_MODES = ("disable", "prefer", "require", "verify-full")
_IN_CONFIG = "index.store in config.toml"

Rows = list[list[Any]]


@dataclass(frozen=True)
class Address:
    """Which index is meant: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=gritdesk&sslmode=prefer"""

    user: str
    host: str
    """A name, an address, or the folder of a Unix socket."""
    port: int
    database: str
    schema: str = "gritdesk"
    """Where the index's tables lie; a database may hold several indexes."""
    ssl_mode: str = "prefer"
    """disable, prefer (encrypted if the server can, and is another machine), require, or verify-full."""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        schema = "" if self.schema == "gritdesk" else f"?schema={self.schema}"
        return f"postgresql://{self.user}@{host}:{self.port}/{self.database}{schema}"

    @property
    def server(self) -> str:
        return f"the PostgreSQL server at {self.host}:{self.port}"


def parse_address(url: str) -> Address:
    """The address that a URL names; without a password there, PGPASSWORD has it.

    Raises: ConfigError saying which part of the URL is wrong; it does not repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
        options = {key: values[-1] for key, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError as error:
        raise ConfigError(f"{_IN_CONFIG} is not a URL such as postgresql://user@host/database") from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"{_IN_CONFIG} must begin with postgresql://, or be empty for the file at home")
    if unknown := options.keys() - {"host", "schema", "sslmode"}:
        raise ConfigError(f"{_IN_CONFIG}: unknown option {min(unknown)!r}; known are host, schema and sslmode")
    schema, ssl_mode = options.get("schema", "gritdesk"), options.get("sslmode", "prefer")
    if not _IDENTIFIER.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigError(f"{_IN_CONFIG}: the schema must be of small letters, digits and _, found {schema!r}")
    if ssl_mode not in _SSL_MODES:
        raise ConfigError(f"{_IN_CONFIG}: sslmode must be one of {', '.join(_SSL_MODES)}, found {ssl_mode!r}")
    user = unquote(parts.username or "") or os.environ.get("PGUSER", "") or getpass.getuser()
    return Address(
        user=user,
        host=options.get("host") or unquote(parts.hostname or "") or "localhost",
        port=port,
        database=unquote(parts.path.strip("/")) or user,
        schema=schema,
        ssl_mode=ssl_mode,
        password=unquote(parts.password or "") or os.environ.get("PGPASSWORD", ""),
    )


class Connection:
    """One connection, made when it is needed; use it from one thread at a time, `close` from any."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.settings = {"lock_timeout": str(_BUSY_MS)}
        """What every session begins with; set one by `set`."""
        self.session_locks: list[int] = []
        """Advisory locks to be held as long as the connection lives; a new session takes them again, or fails."""
        self._session: pg8000.native.Connection | None = None
        self._handle: socket.socket | None = None
        self._in_transaction = False
        self._is_closed = False

    def run(self, sql: str, **values: Any) -> Rows:
        """Run one statement with `:name` values, or several without; returns the rows of the last.

        Raises: StoreError, StoreBusy.
        """
        was_open = self._session is not None
        try:
            return self._run(sql, values)
        except _Lost:
            if self._in_transaction or not was_open:
                raise
            return self._run(sql, values)  # the server may have restarted since the last call: nothing was begun

    @contextmanager
    def transaction(self, mode: str = "") -> Iterator[None]:
        """All or nothing of what runs within. Args: mode: SQL, such as "READ ONLY"."""
        self.run(f"BEGIN {mode}")
        self._in_transaction = True
        try:
            yield
            self._run("COMMIT", {})
        except BaseException:
            if self._session is not None:
                with suppress(GritDeskError):
                    self._run("ROLLBACK", {})
            raise
        finally:
            self._in_transaction = False

    def set(self, name: str, value: str) -> None:
        """Change a setting of this session and of those that may follow it."""
        self.settings[name] = value
        self.run("SELECT set_config(:name, :value, false)", name=name, value=value)

    def close(self) -> None:
        """End the connection, from whatever thread: a call under way in another one fails. Never raises."""
        self._is_closed = True
        handle = self._handle
        if handle is not None:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
        self._drop()

    def _run(self, sql: str, values: dict[str, Any]) -> Rows:
        session = self._live()
        try:
            rows: Rows | None = session.run(sql, **values)
            return rows or []
        except pg8000.exceptions.DatabaseError as error:
            failure = self._as_store_error(error)
            if isinstance(failure, _Lost):
                self._drop()
            raise failure from error
        except (pg8000.exceptions.Error, OSError, AttributeError) as error:  # the last if `close` came in between
            self._drop()
            raise self._lost() from error
        except BaseException:  # such as Ctrl+C: what the server still sends would be taken for the next answer
            self._drop()
            raise

    def _live(self) -> pg8000.native.Connection:
        if self._is_closed:
            raise StoreError(f"the index {self.address} was closed while it was in use; open gritdesk again")
        if self._session is None:
            self._session = self._connect()
            # not while connecting, where a pool such as PgBouncer refuses settings that it does not know
            self._run(
                "SELECT set_config(key, value, false) FROM json_each_text(:settings::json)",
                {"settings": json.dumps(self.settings)},
            )
            for key in self.session_locks:
                if self._run("SELECT pg_try_advisory_lock(:key)", {"key": key}) != [[True]]:
                    self._drop()
                    raise StoreBusy(f"another gritdesk began to index {self.address}; wait for it, or close it")
        return self._session

    def _connect(self) -> pg8000.native.Connection:
        if self.address.ssl_mode != "prefer":
            return self._connect_with(self._encryption())
        if self.address.host.startswith("/") or self.address.host in _THIS_MACHINE:
            return self._connect_with(False)
        try:
            return self._connect_with(self._encryption())
        except _NotEncrypted:
            return self._connect_with(False)

    def _connect_with(self, encryption: ssl.SSLContext | Literal[False]) -> pg8000.native.Connection:
        raw = self._open_socket()
        try:
            self._handle = raw.dup()  # encryption takes `raw` over; this one still ends the connection
            session = pg8000.native.Connection(
                self.address.user,
                host=self.address.host,
                database=self.address.database,
                password=self.address.password,
                ssl_context=encryption,
                sock=raw,
                application_name="gritdesk",
            )
            session._usock.settimeout(None)  # `raw`, or what encryption made of it; a search may take its time
        except pg8000.exceptions.DatabaseError as error:
            self._close_sockets(raw)
            raise self._as_store_error(error) from error
        except (pg8000.exceptions.Error, OSError) as error:
            self._close_sockets(raw)
            if str(error) == "Server refuses SSL":
                raise _NotEncrypted(f"{self.address.server} encrypts no connections; see sslmode") from error
            raise self._unreachable(error.__cause__ or error) from error
        except BaseException:
            self._close_sockets(raw)
            raise
        return session

    def _open_socket(self) -> socket.socket:
        address = self.address
        try:
            if address.host.startswith("/"):
                raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    raw.settimeout(_CONNECT_S)
                    raw.connect(f"{address.host}/.s.PGSQL.{address.port}")
                except BaseException:
                    raw.close()
                    raise
                return raw
            raw = socket.create_connection((address.host, address.port), _CONNECT_S)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return raw
        except OSError as error:
            raise self._unreachable(error) from error

    def _encryption(self) -> ssl.SSLContext | Literal[False]:
        if self.address.ssl_mode == "disable":
            return False
        if self.address.ssl_mode == "verify-full":
            return ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the driver's own would load every certificate, in 0.1 s
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def _close_sockets(self, *sockets: socket.socket | None) -> None:
        for each in (*sockets, self._handle):
            if each is not None:
                each.close()
        self._handle = None

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):  # it may be broken in any way
                session.close()
        self._close_sockets()

    # ------------------------------------------------------------ failures

    def _lost(self) -> StoreError:
        if self._is_closed:
            return StoreError(f"the index {self.address} was closed while it was in use; open gritdesk again")
        return _Lost(f"{self.address.server} ended the connection; look whether it runs, and run the command again")

    def _unreachable(self, error: BaseException) -> StoreError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreError(
            f"cannot reach {self.address.server} ({reason or type(error).__name__}); "
            f"look whether it runs, and whether {_IN_CONFIG} is right"
        )

    def _as_store_error(self, error: pg8000.exceptions.DatabaseError) -> StoreError:
        """Codes: appendix A of the PostgreSQL manual."""
        told: Any = error.args[0] if error.args else {}
        code, message = (told.get("C", ""), told.get("M", "")) if isinstance(told, dict) else ("", str(told))
        address = self.address
        match code:
            case "28P01" | "28000":
                given = "the password" if address.password else "a connection without a password"
                return StoreError(
                    f"{address.server} refuses {given} for {address.user} ({message}); set PGPASSWORD, or {_IN_CONFIG}"
                )
            case "3D000":
                return StoreError(
                    f"{address.server} has no database {address.database}; make it with "
                    f"`createdb {address.database}`, or name another one by {_IN_CONFIG}"
                )
            case "42501":
                return StoreError(
                    f"{address.user} may not do this in {address} ({message}); "
                    "ask who runs the server for the rights that docs/team.md lists"
                )
            case "25006":
                return StoreError(f"{address} can only be read ({message}); name the main server by {_IN_CONFIG}")
            case "53100":
                return StoreError(f"no room left on the disk of {address.server}; free some and run the command again")
            case "53300" | "57P03":
                return StoreBusy(f"{address.server} takes no connection just now ({message}); try again in a moment")
            case "55P03" | "40P01" | "40001":
                return StoreBusy(f"{address} is being written by another program; try again when it is done")
            case "57P01" | "57P02" | "57P05" | "25P03" | "08000" | "08003" | "08006":
                return self._lost()
            case "42P01":
                return UndefinedTable(f"the index {address} lacks a table ({message}); see `gritdesk doctor`")
            case _:
                return StoreError(f"the index {address} failed: {message or error} ({code})")


class _Lost(StoreError):
    """The connection is gone; whatever its transaction did is undone."""


class _NotEncrypted(StoreError):
    """The server was asked to encrypt the connection, and cannot."""


class UndefinedTable(StoreError):
    """A table was dropped since the statement was written, as that of a space is."""
