"""Servers that embed by OpenAI's protocol: llama.cpp's own, and one that fails on demand."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def llama_server(gguf: Path, log: Path) -> Iterator[str]:
    """llama-cpp-python's server on a GGUF; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--model", str(gguf), "--embedding", "true", "--host", "127.0.0.1", "--port", str(port)]
    with open(log, "w") as output:
        command = [sys.executable, "-m", "llama_cpp.server", *arguments, "--n_threads", "2"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@dataclass
class EmbeddingServer:
    """Embeds a text by its letters, in `dimension` numbers; first come the answers that were put before it."""

    url: str = ""
    dimension: int = 8
    model: str = "letters"
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Status, headers and body of the next answers; status 0 hangs up without one."""

    def embedding(self, text: str) -> list[float]:
        return [float(x) for x in np.random.default_rng(list(text.encode())).normal(size=self.dimension)]


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    told = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.requests.append(asked)
            told.keys.append(self.headers["Authorization"])
            if told.failures:
                status, headers, body = told.failures.pop(0)
                if status:
                    self.answer(status, headers, body)
            elif self.path != "/v1/embeddings" or asked["model"] != told.model:
                self.answer(404, {}, json.dumps({"error": {"message": f"no model {asked['model']}"}}).encode())
            else:
                rows = [{"index": n, "embedding": told.embedding(text)} for n, text in enumerate(asked["input"])]
                self.answer(200, {}, json.dumps({"data": rows[::-1]}).encode())  # in any order: the index says which

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
