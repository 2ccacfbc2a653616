"""Embeddings from a server: a real llama.cpp one, and one that speaks the protocol and fails as servers do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_server import EmbeddingServer, embedding_server, llama_server

from converters.hf_to_gguf import convert
from gritdesk.config import EngineConfig
from gritdesk.engine import endpoint
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.endpoint import EndpointEmbedder
from gritdesk.engine.llama import LlamaModel
from gritdesk.errors import ConfigError, ModelError, RequestRefused, ServerUnreachable

KEY = "sk-7d1f0c2e"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_WAITS_S", (0.01, 0.01, 0.01))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def config_of(server: EmbeddingServer, **settings: Any) -> EngineConfig:
    return EngineConfig(**{"embed_url": server.url, "embed_model": server.model} | settings)


def failure(status: int, message: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, headers, json.dumps({"error": {"message": message, "type": "error"}}).encode()


def embedded(number: int) -> tuple[int, dict[str, str], bytes]:
    """An answer with one embedding, all of it one number."""
    return 200, {}, json.dumps({"data": [{"index": 0, "embedding": [number] * 8}]}).encode()


def test_llama_server_gives_what_the_engine_here_gives(tmp_path: Path) -> None:
    from tiny import make_encoder

    convert(make_encoder(tmp_path / "model", "bert"), tmp_path / "model.gguf", "F32")
    texts = ["the spare key", "hangs in the hall", "Ünïcödé; naïve CAFÉ"]
    with LlamaModel(tmp_path / "model.gguf") as model:
        here = Embedder(model).embed([("", text) for text in texts])
    with llama_server(tmp_path / "model.gguf", tmp_path / "log") as url:
        embedder = EndpointEmbedder(EngineConfig(embed_url=url, embed_model="model"))
        there = embedder.embed([("", text) for text in texts])
        assert embedder.dimension() == here.shape[1]
    np.testing.assert_allclose((here * there).sum(axis=1), 1, atol=1e-3)


def test_server_that_pools_no_tokens_is_refused_with_what_to_do(tiny_gguf: Path, tmp_path: Path) -> None:
    with (
        llama_server(tiny_gguf, tmp_path / "log") as url,
        pytest.raises(ModelError, match="for every token.*--pooling mean"),
    ):
        EndpointEmbedder(EngineConfig(embed_url=url, embed_model="tiny")).embed([("", "one two")])


def test_rows_are_of_length_one_in_the_order_of_the_texts(server: EmbeddingServer) -> None:
    texts = [f"text {number}" for number in range(200)]
    rows = EndpointEmbedder(config_of(server)).embed([("", text) for text in texts])
    assert rows.dtype == np.float32 and rows.shape == (200, 8)
    expected = np.array([server.embedding(text) for text in texts])
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert 1 < len(server.requests) < 10 and all(len(each["input"]) <= 64 for each in server.requests)
    assert EndpointEmbedder(config_of(server)).embed([]).shape[0] == 0


def test_queries_and_passages_are_marked_as_the_card_says(server: EmbeddingServer) -> None:
    config = config_of(
        server, embed_query_prefix="Instruct: {instruction}\nQuery: {x} ", embed_passage_prefix="passage: "
    )
    EndpointEmbedder(config).embed([("Find it", "where?"), ("", "here")])
    assert server.requests[0]["input"] == ["Instruct: Find it\nQuery: {x} where?", "passage: here"]


def test_space_is_named_by_model_and_passage_marks_and_not_by_address_or_key(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(server)
    name = EndpointEmbedder(config).fingerprint
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for same in (replace(config, embed_url="https://elsewhere/v1"), replace(config, embed_query_prefix="query: ")):
        assert EndpointEmbedder(same).fingerprint == name
    for other in (replace(config, embed_model="b"), replace(config, embed_passage_prefix="passage: ")):
        assert EndpointEmbedder(other).fingerprint != name


@pytest.mark.parametrize(
    "first",
    [
        [failure(429, "slow down", **{"Retry-After": "0"})],
        [failure(500, "out of memory"), failure(503, "loading model")],
        [(0, {}, b"")],
        [failure(502, "<html>bad gateway</html>")] * 3,
    ],
)
def test_failure_that_passes_is_waited_for(
    server: EmbeddingServer, first: list[tuple[int, dict[str, str], bytes]]
) -> None:
    server.failures = list(first)
    assert EndpointEmbedder(config_of(server)).embed([("", "a")]).shape == (1, 8)
    assert len(server.requests) == len(first) + 1


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([failure(401, f"wrong key {KEY}")], r"refuses the key \(wrong key …\); set .*OPENAI_API_KEY"),
        ([failure(404, "no model letters")], "has no model letters.*engine.embed_model"),
        ([failure(301)], "answered 301.*engine.embed_url"),
        ([(200, {}, b"<html>welcome</html>")], "no JSON.*engine.embed_url"),
        ([(200, {}, b"{}")], "gave no embeddings.*engine.embed_url"),
        ([(200, {}, b"[]")], "gave no embeddings"),
        ([(200, {}, b'{"data": []}')], "0 embeddings for 1 texts"),
        ([(200, {}, b'{"data": [{"index": 0, "embedding": ["a"]}]}')], "no numbers"),
        ([failure(500, "out of memory\nat line 1")] * 4, "4 tries .500: out of memory at line 1"),
        ([failure(429, "quota", **{"Retry-After": "86400"})], "429: quota"),
        ([(0, {}, b"")] * 4, "4 tries"),
    ],
)
def test_failure_that_stays_is_one_line_that_says_what_to_do(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, answers: list[Any], says: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.failures = list(answers)
    with pytest.raises(ModelError, match=says) as caught:
        EndpointEmbedder(config_of(server)).embed([("", "a")])
    assert "\n" not in str(caught.value) and KEY not in str(caught.value) and len(str(caught.value)) < 400
    assert not isinstance(caught.value, RequestRefused)
    assert server.failures == []


@pytest.mark.parametrize(
    "answer", [failure(400, "maximum context length is 8192 tokens"), failure(500, "input is too large to process")]
)
def test_text_that_the_server_does_not_take_is_refused_alone(server: EmbeddingServer, answer: Any) -> None:
    server.failures = [answer, embedded(1), answer]
    embedder = EndpointEmbedder(config_of(server))
    with pytest.raises(RequestRefused, match="does not take the text"):
        embedder.embed([("", "a")])
    assert len(server.requests) == 3 and len(embedder.embed([("", "b")])) == 1


def test_text_that_is_refused_for_a_moment_is_embedded(server: EmbeddingServer) -> None:
    server.failures = [failure(400, "no")]
    assert EndpointEmbedder(config_of(server)).embed([("", "a")]).shape == (1, 8)
    assert [each["input"] for each in server.requests] == [["a"], ["a short text"], ["a"]]


def test_server_that_refuses_every_text_is_at_fault_and_no_text_is(server: EmbeddingServer) -> None:
    server.failures = [failure(400, "wrong upstream")] * 2
    with pytest.raises(ModelError, match="wrong upstream; nor does it take a short one") as caught:
        EndpointEmbedder(config_of(server)).embed([("", "a")])
    assert not isinstance(caught.value, RequestRefused)


def test_embedding_without_numbers_is_refused(server: EmbeddingServer) -> None:
    server.failures = [embedded(0), embedded(1), embedded(0)]
    with pytest.raises(RequestRefused, match="no numbers"):
        EndpointEmbedder(config_of(server)).embed([("", "a")])


def test_embeddings_of_two_lengths_are_refused(server: EmbeddingServer) -> None:
    embedder = EndpointEmbedder(config_of(server))
    embedder.embed([("", "a")])
    server.dimension = 5
    with pytest.raises(ModelError, match="5 and 8 numbers"):
        embedder.embed([("", "b")])


def test_key_is_sent_from_the_variable_that_is_named(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    EndpointEmbedder(config_of(server)).embed([("", "a")])
    monkeypatch.setenv("TEAM_KEY", KEY)
    EndpointEmbedder(config_of(server, embed_key_env="TEAM_KEY")).embed([("", "a")])
    assert server.keys == [None, f"Bearer {KEY}"]


def test_line_break_behind_a_key_is_dropped(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    EndpointEmbedder(config_of(server)).embed([("", "a")])
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("key", [f"{KEY}\ndef", f"{KEY}\x7f", f"{KEY}é"])
def test_key_that_no_request_can_carry_is_refused_and_not_shown(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        EndpointEmbedder(config_of(server))
    assert KEY not in str(caught.value) and caught.value.__cause__ is None and server.requests == []


def test_server_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(ServerUnreachable, match=f"{url} cannot be reached .*look whether it runs"):
        EndpointEmbedder(EngineConfig(embed_url=url, embed_model="m")).embed([("", "a")])


def test_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ServerUnreachable, match="4 tries .timed out"):
            EndpointEmbedder(EngineConfig(embed_url=url, embed_model="m")).embed([("", "a")])


def test_closing_ends_the_wait_for_another_try(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_WAITS_S", (100.0,))
    server.failures = [failure(503)]
    embedder = EndpointEmbedder(config_of(server))
    closing = threading.Timer(0.1, embedder.close)
    closing.start()
    with pytest.raises(ModelError, match="closing"):
        embedder.embed([("", "a")])
    closing.join()


@pytest.mark.parametrize(
    "settings",
    [
        {"embed_url": "localhost:8080"},
        {"embed_url": "ftp://host/v1"},
        {"embed_url": "http://me:secret@host/v1"},
        {"embed_url": "http://host:99999999/v1"},
        {"embed_url": "http://host/v1?key=secret"},
        {"embed_model": ""},
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="engine.embed_") as caught:
        EndpointEmbedder(EngineConfig(**{"embed_url": "http://host/v1", "embed_model": "m"} | settings))
    assert "secret" not in str(caught.value)
