"""[(instruction, text)] -> embeddings, made by a server that speaks OpenAI's protocol, such as llama-server or vLLM.

The one place from which texts leave this machine, and only if `engine.embed_url` names a server. What the protocol has
no word for, how a model marks queries and passages, is written in front of them as its card says.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import EngineConfig
from gritdesk.errors import ConfigError, ModelError, RequestRefused, ServerUnreachable
from gritdesk.records import EmbeddingInput

_TIMEOUT_S = 120.0
_MAX_TEXTS = 64
"""Texts in one request; servers split them further as they can."""
_MAX_CHARS = 100_000
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between tries of a request that may go through later."""
_LONGEST_WAIT_S = 60.0
"""A server that asks for more patience than this has said no."""
_REFUSALS = (400, 413, 422)
_PROBE = "a short text"
_TOO_LONG = ("too large", "too long", "too many tokens", "context length", "context size")
"""What servers say of a text that is too long, some of them as an error of their own (500)."""


class EndpointEmbedder:
    """Embeds texts by the server that the configuration names; from any thread."""

    def __init__(self, config: EngineConfig) -> None:
        """Raises: ConfigError if the settings cannot be used; the server is not asked yet."""
        try:
            parts = urlsplit(config.embed_url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"engine.embed_url {config.embed_url!r} is no URL such as http://host:8080/v1") from error
        if parts.scheme not in ("http", "https") or not self._host or parts.username or parts.query:
            raise ConfigError("engine.embed_url must be a URL such as http://host:8080/v1, without a key or a question")
        if not config.embed_model:
            raise ConfigError("engine.embed_url needs engine.embed_model, the model's name as the server knows it")
        self._key = _key_of(config.embed_key_env)
        self._is_encrypted = parts.scheme == "https"
        self._path = f"{parts.path.rstrip('/')}/embeddings"
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._config = config
        self._closed = threading.Event()
        self._dimension = 0

    @property
    def fingerprint(self) -> str:
        """Names the space of the embeddings: the model and how passages are marked, wherever the server is."""
        marks = self._config.embed_passage_prefix.encode()
        marked = f"/passages-{hashlib.blake2b(marks, digest_size=4).hexdigest()}" if marks else ""
        return f"endpoint/{self._config.embed_model}{marked}"

    def dimension(self) -> int:
        """Numbers in an embedding; the first call asks the server."""
        return self._dimension or self.embed([("", "dimension")]).shape[1]

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """Embed (instruction, text) pairs.

        Returns: float32[len(inputs), dimension], rows of length 1, in the order of the inputs.
        Raises: ServerUnreachable if it does not answer; another ModelError if it cannot be used; RequestRefused if it
            does not take these texts. One text alone is refused only if it was tried twice, and the server took another
            one in between.
        """
        if not inputs:
            return np.zeros((0, self._dimension), dtype=np.float32)
        texts = [self._marked(*each) for each in inputs]
        try:
            return self._embed(texts)
        except RequestRefused as refusal:
            if len(texts) > 1:
                raise
            self._check_takes_any(refusal)
            return self._embed(texts)

    def _check_takes_any(self, refusal: RequestRefused) -> None:
        """Raise ModelError if the server refuses any text: it then is not the text that is at fault."""
        try:
            self._embed([self._marked("", _PROBE)])
        except RequestRefused as error:
            raise ModelError(f"{refusal}; nor does it take a short one, so look at the server's log") from error

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [row for batch in _batches(texts) for row in self._embed_batch(batch)]
        lengths = {len(row) for row in rows} | ({self._dimension} if self._dimension else set())
        if len(lengths) > 1:
            raise ModelError(
                f"{self.url} gave embeddings of {' and '.join(map(str, sorted(lengths)))} numbers by one model; "
                "look whether several servers answer under this address"
            )
        self._dimension = len(rows[0])
        return _unit_length(rows, self.url)

    def close(self) -> None:
        """Give up requests that wait for another try."""
        self._closed.set()

    def _marked(self, instruction: str, text: str) -> str:
        if instruction:
            return self._config.embed_query_prefix.replace("{instruction}", instruction) + text
        return self._config.embed_passage_prefix + text

    def _embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        answer = self._ask({"model": self._config.embed_model, "input": list(texts), "encoding_format": "float"})
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            embeddings = [row["embedding"] for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.url} gave no embeddings; look whether engine.embed_url is right") from error
        if len(embeddings) != len(texts):
            raise ModelError(
                f"{self.url} gave {len(embeddings)} embeddings for {len(texts)} texts; is it what it says?"
            )
        if any(isinstance(number, list) for embedding in embeddings for number in embedding[:1]):
            raise ModelError(
                f"{self.url} gave an embedding for every token; have the server pool them, as llama-server does with "
                "`--pooling mean`"
            )
        return embeddings

    # ------------------------------------------------------------ the network

    def _ask(self, question: Mapping[str, Any]) -> Any:
        """Send a request, again if it may go through later, and read the answer."""
        told = ""
        for wait_s in (*_WAITS_S, None):
            if self._closed.is_set():
                raise ModelError("gritdesk is closing; nothing is started again")
            try:
                status, headers, body = self._send(json.dumps(question).encode())
            except (ConnectionRefusedError, OSError, http.client.HTTPException) as error:
                told = str(error) or type(error).__name__
                if not isinstance(error, (TimeoutError, ConnectionResetError, http.client.HTTPException)):
                    raise self._away(f"cannot be reached ({told}); look whether it runs") from error
            else:
                if status == 200:
                    return self._parsed(body)
                told = f"{status}: {self._message(body)}"
                self._raise_for(status, self._message(body))
                wait_s = _asked_wait(headers, wait_s)
            if wait_s is None:
                break
            self._closed.wait(wait_s)
        raise self._away(f"gave no embeddings after {len(_WAITS_S) + 1} tries ({told}); try again later")

    def _send(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        assert self._host
        kind = http.client.HTTPSConnection if self._is_encrypted else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT_S)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def _raise_for(self, status: int, message: str) -> None:
        """Raise if another try cannot help."""
        model, key = self._config.embed_model, self._config.embed_key_env
        if status in (401, 403):
            raise self._failure(f"refuses the key ({message}); set the environment variable {key} to one that it takes")
        if status == 404:
            raise self._failure(
                f"has no model {model}, or no embeddings ({message}); mend engine.embed_model or engine.embed_url"
            )
        if status in _REFUSALS or (status == 500 and any(each in message.lower() for each in _TOO_LONG)):
            raise RequestRefused(f"the server at {self.url} does not take the text: {message}")
        if status < 500 and status not in (408, 409, 425, 429):
            raise self._failure(f"answered {status} ({message}); look whether engine.embed_url is right")

    def _failure(self, what: str) -> ModelError:
        return ModelError(f"the server at {self.url} {what}")

    def _away(self, what: str) -> ServerUnreachable:
        return ServerUnreachable(f"the server at {self.url} {what}")

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise self._failure("answered with what is no JSON; look whether engine.embed_url is right") from error

    def _message(self, body: bytes) -> str:
        """What a server says of a failure, in one short line; never a key, which some repeat."""
        text = body.decode(errors="replace")
        try:
            told = json.loads(text)
            told = told.get("error", told.get("message", told.get("detail", told)))
            text = str(told.get("message", told) if isinstance(told, dict) else told)
        except (ValueError, AttributeError):
            pass
        if self._key:
            text = text.replace(self._key, "…")
        return " ".join(text.split())[:200] or "no reason given"


def _key_of(variable: str) -> str:
    """The key in an environment variable; "" for none. Raises: ConfigError, which never shows it."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in the environment variable {variable} holds a line break or other signs that no key has; "
            "set it to the key alone"
        )
    return key


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts that one request takes."""
    start, num_chars = 0, 0
    for position, text in enumerate(texts):
        if position > start and (position - start == _MAX_TEXTS or num_chars + len(text) > _MAX_CHARS):
            yield texts[start:position]
            start, num_chars = position, 0
        num_chars += len(text)
    yield texts[start:]


def _asked_wait(headers: http.client.HTTPMessage, wait_s: float | None) -> float | None:
    """Seconds to wait before the next try: as the server asks, or as planned; None for no further try."""
    asked = headers.get("Retry-After", "")
    if wait_s is None or not asked.strip().isdigit():
        return wait_s
    return max(wait_s, float(asked)) if float(asked) <= _LONGEST_WAIT_S else None


def _unit_length(rows: Sequence[Sequence[float]], url: str) -> NDArray[np.float32]:
    try:
        embeddings_ND = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{url} gave embeddings that are no numbers; look whether engine.embed_url is right"
        ) from error
    lengths_N1 = np.linalg.norm(embeddings_ND, axis=-1, keepdims=True)
    if not np.isfinite(embeddings_ND).all() or not lengths_N1.all():
        raise RequestRefused(f"the server at {url} gave an embedding that is no numbers")
    unit_ND: NDArray[np.float32] = (embeddings_ND / lengths_N1).astype(np.float32)
    return unit_ND
