"""Queries that led somewhere are kept at home, as far as a person wants that."""

from __future__ import annotations

from pathlib import Path

import pytest

from gritdesk.config import AnswerConfig, Config
from gritdesk.desk import Desk
from gritdesk.query_history import MOST_QUERIES, past_queries, remember_query


def test_query_that_comes_again_is_the_latest_and_old_ones_go(tmp_path: Path) -> None:
    for query in ("walrus", "type:pdf ünïcode", "walrus"):
        remember_query(tmp_path, query)
    assert past_queries(tmp_path) == ["type:pdf ünïcode", "walrus"]
    for number in range(MOST_QUERIES):
        remember_query(tmp_path, str(number))
    assert past_queries(tmp_path)[0] == "0" and len(past_queries(tmp_path)) == MOST_QUERIES


@pytest.mark.parametrize("damaged", ["", "{", '{"a": 1}', "[1, 2]", "\x00"])
def test_damaged_file_is_an_empty_one_and_is_mended_by_the_next_query(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "queries.json").write_text(damaged)
    assert past_queries(tmp_path) == []
    remember_query(tmp_path, "walrus")
    assert past_queries(tmp_path) == ["walrus"]


def test_person_who_keeps_no_chats_keeps_no_queries(tmp_path: Path) -> None:
    with Desk(Config(tmp_path, answer=AnswerConfig(keep_chats=False))) as desk:
        desk.remember_query("walrus")
        assert desk.past_queries() == []
    with Desk(Config(tmp_path)) as desk:
        desk.remember_query("walrus")
        assert desk.past_queries() == ["walrus"]


def test_home_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    with Desk(Config(tmp_path / "gone")) as desk:
        desk.remember_query("walrus")
        assert desk.past_queries() == []
