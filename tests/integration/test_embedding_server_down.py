"""The desk while the server that embeds gives nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embedding_server import EmbeddingServer, embedding_server

from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.errors import ModelError
from gritdesk.records import AnswerFinished


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


def test_words_are_searched_and_told_of_once_while_the_server_fails(
    server: EmbeddingServer, tmp_path: Path, tiny_gguf: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "keys.md").write_text("The spare key hangs behind the clock.\n")
    engine = EngineConfig(model=str(tiny_gguf), n_threads=1, embed_url=server.url, embed_model=server.model)
    answer, index = AnswerConfig(max_tokens=4), IndexConfig(on_battery="go on")
    notices: list[str] = []
    with Desk.open(Config(tmp_path / "home", engine=engine, index=index, answer=answer)) as desk:
        desk.index([docs])
        desk.subscribe(notices.append)
        server.failures = [(401, {}, b"no")] * 9
        assert [hit.path.name for hit in desk.search("spare key")] == ["keys.md"]
        assert desk.misses("spare key type:pdf").removed == (("type:pdf", 1),)
        assert isinstance(list(desk.ask("Where is the spare key?"))[-1], AnswerFinished)
        assert len(notices) == 1 and "refuses the key" in notices[0] and "by words alone" in notices[0]
        with pytest.raises(ModelError, match="refuses the key"):
            desk.search("spare key", mode="semantic")
        server.failures.clear()
        assert desk.search("spare key")[0].semantic_rank == 1
