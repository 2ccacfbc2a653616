"""What the default model says of itself and of passages: every row is read, true to its passages, and short."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gritdesk.cli import main
from gritdesk.grit_format import REFUSAL
from training.examples import parse_chat, read_rows, texts_of
from training.held_out import read_held_out

ROWS = list(read_rows(Path(__file__).parents[2] / "training" / "small_talk.jsonl", 10**6))
_CITED = re.compile(r"\[(\d)\] (.+)")


def replies() -> Iterator[tuple[list[str], str]]:
    """The passages of a row, if it has any, and each of its answers."""
    for row in ROWS:
        chat = parse_chat(row)
        answers = [turn.text for turn in chat.turns[1::2]] + [answer.text for _, answer in chat.others]
        yield from ((row.get("passages", []), answer) for answer in answers)


def test_rows_are_many_and_none_is_held_out() -> None:
    assert len(ROWS) >= 200
    held_out = read_held_out()
    assert [row for row in ROWS if held_out.holds(texts_of(parse_chat(row)))] == []


def test_no_answer_is_empty_or_longer_than_25_words() -> None:
    assert [answer for _, answer in replies() if not 1 <= len(answer.split()) <= 25] == []


def test_cited_answer_stands_in_its_passage_word_for_word() -> None:
    cited = [(passages, match) for passages, answer in replies() if (match := _CITED.fullmatch(answer))]
    assert len(cited) >= 200
    for passages, match in cited:
        assert match[2] in passages[int(match[1]) - 1] and not match[2].endswith(".")


def test_answer_without_a_citation_refuses_or_talks_and_numbers_nothing() -> None:
    plain = [(passages, answer) for passages, answer in replies() if not _CITED.fullmatch(answer)]
    assert [answer for _, answer in plain if re.search(r"\[\d", answer) or not answer.endswith((".", "?"))] == []
    assert [answer for passages, answer in plain if answer == REFUSAL and not passages] == []


def test_commands_it_names_are_there() -> None:
    named = {name for _, answer in replies() for name in re.findall(r"`gritdesk (\w+)", answer)}
    assert named and named <= set(main.commands)
