"""A Hugging Face hub of one's own: a real HTTP server on this machine that speaks what huggingface_hub asks for.

It lists repositories, describes files by HEAD, sends large ones through a redirect as the hub does, answers ranges,
and on demand breaks off, stalls, or sends what it did not promise.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE_BYTES = 1 << 20


@dataclass
class Hub:
    """The repositories it has, what it was asked, and how it fails."""

    repositories: dict[str, Path] = field(default_factory=dict)
    """Folders by OWNER/REPO."""
    gated: set[str] = field(default_factory=set)
    url: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request for a file's content or description."""
    breaks_after_bytes: int | None = None
    """Of all content together: then every connection is closed without a word."""
    stalls_after_bytes: int | None = None
    """Of all content together: then nothing comes until `released`."""
    released: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    corrupts: bool = False
    sent_bytes: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process ask this hub and no other."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}

    def heal(self) -> None:
        """Work from now on, and forget what was asked."""
        self.breaks_after_bytes = self.stalls_after_bytes = None
        self.corrupts = False
        self.released.set()
        self.requests.clear()
        self.sent_bytes = 0

    def ranges(self) -> list[str]:
        """The Range of each request for content."""
        return [asked for method, path, asked in self.requests if method == "GET" and "/resolve/" in path]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the `with` ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            return self._list(path.removeprefix("/api/models/"))
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        repo, _, rest = path.removeprefix("/cdn").strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        folder = self.hub.repositories.get(repo)
        if folder is None or repo in self.hub.gated:
            return self._refuse(repo)
        file = folder / name
        if revision not in ("main", COMMIT) or not file.is_file():
            return self._empty(404, {"X-Error-Code": "EntryNotFound"})
        self._send(path, file.read_bytes(), is_large=file.suffix in (".gguf", ".safetensors"))

    def _list(self, repo: str) -> None:
        repo = repo.partition("/revision/")[0]
        folder = self.hub.repositories.get(repo)
        if folder is None:
            return self._refuse(repo)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        told = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        body = json.dumps(told).encode()
        self._empty(200, {"Content-Type": "application/json"}, len(body))
        self.wfile.write(body)

    def _refuse(self, repo: str) -> None:
        if repo in self.hub.gated:
            self._empty(403, {"X-Error-Code": "GatedRepo"})
        else:
            self._empty(404, {"X-Error-Code": "RepoNotFound"})

    def _send(self, path: str, data: bytes, *, is_large: bool) -> None:
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if is_large:
            etag = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            if not path.startswith("/cdn/"):
                return self._empty(302, headers | {"Location": f"{self.hub.url}/cdn{path}"})
        else:
            etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        headers["ETag"] = f'"{etag}"'
        start, end, status = 0, len(data), 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), int(last) + 1 if last else len(data), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        if self.hub.corrupts and is_large:
            data = bytes(len(data))
        if self.command == "GET" and self._is_broken():
            return self._hang_up()
        self._empty(status, headers, end - start)
        if self.command == "GET":
            self._send_content(data[start:end])

    def _send_content(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE_BYTES):
            if self._is_broken():
                return self._hang_up()
            limit = self.hub.stalls_after_bytes
            if limit is not None and self.hub.sent_bytes >= limit and not self.hub.released.is_set():
                self.hub.stalled.set()
                self.hub.released.wait(60)
            piece = data[at : at + _PIECE_BYTES]
            try:
                self.wfile.write(piece)
            except OSError:  # who asked has gone
                self.close_connection = True
                return
            self.hub.sent_bytes += len(piece)

    def _is_broken(self) -> bool:
        limit = self.hub.breaks_after_bytes
        return limit is not None and self.hub.sent_bytes >= limit

    def _hang_up(self) -> None:
        self.close_connection = True

    def _empty(self, status: int, headers: dict[str, str], num_bytes: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(num_bytes))
        self.end_headers()
