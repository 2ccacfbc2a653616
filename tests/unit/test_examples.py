"""Lines are found again in every kind of file, read in the forms people have, and named when they are bad."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gritdesk.records import Turn
from training.config import TrainConfig
from training.examples import (
    Chat,
    EmptyExample,
    Pair,
    Rows,
    Source,
    parse_chat,
    parse_pair,
    parse_text,
    read_rows,
    read_sources,
)

LINES = [json.dumps({"text": f"Line {number} \u00e9"}) for number in range(50)]


def write(path: Path, content: bytes) -> Path:
    pack: dict[str, Callable[[bytes], bytes]] = {".zst": zstandard.ZstdCompressor().compress, ".gz": gzip.compress}
    path.write_bytes(pack.get(path.suffix, bytes)(content))
    return path


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_any_line_of_any_kind_of_file_is_read(tmp_path: Path, suffix: str, ending: str) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", ("\n".join(LINES) + ending).encode())
    rows = Rows(path, parse_text, 1000)
    assert len(rows) == 50 and len(Rows(path, parse_text, 7)) == 7
    for index in (49, 0, 17, 17):
        assert rows[index] == f"Line {index} \u00e9"
    assert rows[3:5] == ["Line 3 \u00e9", "Line 4 \u00e9"]
    assert [row["text"] for row in read_rows(path, 2)] == ["Line 0 \u00e9", "Line 1 \u00e9"]
    with pytest.raises(IndexError):
        rows[50]


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        (
            {"query": ["Find", "q"], "pos": [["", "p"], ["", "p2"]], "neg": [["", "n"]]},
            Pair(("Find", "q"), (("", "p"), ("", "p2")), (("", "n"),)),
        ),
        ({"query": "q", "pos": ["p", " "], "neg": []}, Pair(("", "q"), (("", "p"),), ())),
        ({"query": "q", "pos": ["p"]}, Pair(("", "q"), (("", "p"),), ())),
    ],
)
def test_pairs_are_read_with_and_without_instructions(row: dict[str, Any], pair: Pair) -> None:
    assert parse_pair(row) == pair


@pytest.mark.parametrize(
    "row",
    [
        {"text": ["s\nu", "a", "v", "b"]},
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "v"},
                {"role": "assistant", "content": "b"},
            ]
        },
    ],
)
def test_chats_are_read_as_lists_and_as_messages(row: dict[str, Any]) -> None:
    turns = (Turn("user", "s\nu"), Turn("assistant", "a"), Turn("user", "v"), Turn("assistant", "b"))
    assert parse_chat(row) == Chat(turns)


@pytest.mark.parametrize(
    ("parse", "line", "said"),
    [
        (parse_pair, '{"query": 3, "pos": ["a"]}', "expected a string or .instruction, text., found 3"),
        (parse_pair, '{"query": "a", "pos": "b"}', "expected query, and lists pos and neg"),
        (parse_pair, '{"text": "a"}', "expected query"),
        (parse_chat, '{"messages": [{"role": "user", "content": "a"}]}', "expected turns of user and assistant"),
        (parse_chat, '{"messages": [{"role": "user"}]}', "expected turns of text, found null"),
        (parse_chat, '{"text": "a"}', "expected messages"),
        (parse_text, "[1]", "expected a JSON object"),
        (parse_text, "{", "expected a JSON object"),
        (parse_text, '{"text": 1}', "expected text"),
    ],
)
def test_bad_line_is_named_with_its_file_and_reason(tmp_path: Path, parse: Any, line: str, said: str) -> None:
    path = write(tmp_path / "bad.jsonl", f"{{}}\n{line}\n".encode())
    with pytest.raises(ValueError, match=f"bad.jsonl, line 2: {said}"):
        Rows(path, parse, 10)[1]


@pytest.mark.parametrize(
    ("parse", "row"),
    [
        (parse_pair, {"query": " ", "pos": ["a"]}),
        (parse_pair, {"query": "a", "pos": [""]}),
        (parse_chat, {"text": ["a", " "]}),
        (parse_text, {"text": "\n"}),
    ],
)
def test_row_with_nothing_in_it_is_empty_and_not_bad(parse: Any, row: dict[str, Any]) -> None:
    with pytest.raises(EmptyExample):
        parse(row)


def test_draws_leave_out_what_is_empty_and_count_it(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "" if number % 3 == 0 else f"t{number}"}) for number in range(30)]
    source = Source("a", Rows(write(tmp_path / "a.jsonl", "\n".join(lines).encode()), parse_text, 100), 1.0)
    drawn = source.draw(random.Random(1), 10)
    assert len(drawn) == 10 and all(text.startswith("t") for text in drawn)
    assert source.dropped["empty"] > 0
    assert drawn == Source("a", source.rows, 1.0).draw(random.Random(1), 10)
    assert len(Source("a", source.rows, 1.0).draw(random.Random(1), 1000)) == 20


def test_draw_depends_on_nothing_drawn_before(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "" if number % 3 else f"t{number}"}) + "\n" for number in range(30)))
    source = Source("a", Rows(path, parse_text, 1000), 1.0)
    expected = source.draw(random.Random(1), 8)
    for number in range(50):
        source.draw(random.Random(number), 8)
    assert source.draw(random.Random(1), 8) == expected and len(expected) == 8


@pytest.mark.parametrize(("name", "content"), [("a.jsonl.zst", b"no"), ("a.jsonl.gz", b"no"), ("a.jsonl", b"")])
def test_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        Rows(tmp_path / name, parse_text, 10)


def test_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(LINES).encode())
    rows = Rows(path, parse_text, 100)
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="became shorter"):
        rows[40]


def test_file_of_another_form_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    write(tmp_path / "text" / "a.jsonl", b'{"query": "a", "pos": ["b"]}\n')
    with pytest.raises(ValueError, match="a.jsonl, line 1: expected text"):
        read_sources(TrainConfig(data_dir=str(tmp_path), text={"a": 1.0}))


def test_passages_beside_a_chat_are_put_before_its_last_question() -> None:
    row = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann [2]."}]}
    (asked, answered) = parse_chat(row | {"passages": ["Bo\nsleeps.", "Ann reads."]}).turns
    assert asked.text.startswith("Documents:\n[1] Bo sleeps.\n[1]\n\n[2] Ann reads.\n[2]\n\nQuestion: Who?\n")
    assert answered.text == "Ann [2]."
    with pytest.raises(ValueError, match="passages as a list of strings"):
        parse_chat(row | {"passages": "Ann reads."})


def test_single_files_have_caps_of_their_own(tmp_path: Path) -> None:
    for name in ("long", "short"):
        write(tmp_path / f"{name}.jsonl", "\n".join(LINES).encode())
    config = TrainConfig(data_dir=str(tmp_path), text={"long": 1.0, "short": 1.0}, max_rows={"short": 4})
    assert [len(source.rows) for source in read_sources(config).texts] == [50, 4]
    with pytest.raises(ValueError, match="max_rows names elsewhere"):
        TrainConfig(max_rows={"elsewhere": 4})
