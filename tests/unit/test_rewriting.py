"""A question that leaves out what was said before is searched for with it; any other as it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gritdesk.records import Answer, Chunk, Citation, Exchange, Hit, Sampling, Turn
from gritdesk.rewriting import Rewritten, by_model, found, keeps, rewritten, stands_alone

BOAT = Exchange(Answer("When was the Marigold built?", "The Marigold was built in Port Arden in 1998 [1].", True))


@pytest.mark.parametrize(
    "question",
    [
        "How long is it?",
        "And how fast?",
        "Who cut it free?",
        "Why?",
        "How much?",
        "With what?",
        "And the other one?",
        "And in August?",
        "What about small children?",
        "Which of them is waterproof?",
        "What did that storm destroy?",
        "Can I swim there?",
        "Where is his telescope?",
        "What does a new one cost?",
        "At what times?",
        "Is there electricity?",
        "How long is the tower closed for it?",
    ],
)
def test_question_that_points_back_or_says_too_little_takes_words_from_before(question: str) -> None:
    assert not stands_alone(question)
    line = rewritten(question, [BOAT]).line
    assert line.startswith(question) and "Marigold" in line


@pytest.mark.parametrize(
    "question",
    [
        "When was the Marigold built?",
        "And where is the spare tower key kept?",
        "What time is it when the tours start?",
        "Is it allowed to bring dogs to the island?",
        "How long does it take to walk across the sandbar?",
        "How many handheld radios are there?",
        "When did Walter Thorne leave his tower?",
        "Does the Marigold sail when it is dark?",
        "What about gorse syrup, how long does that stand?",
        "What happened on the boat that left this year?",
        "How long may a shower last?",
        "What are lifetimes?",
        "What do I do if the light fails because it rains?",
        "in:notes what is rate_limit()?",
        "Wann wurde sie denn gebaut?",
        "灯塔的备用钥匙放在哪里？",
    ],
)
def test_question_that_stands_alone_is_searched_for_as_it_was_asked(question: str) -> None:
    assert rewritten(question, [BOAT]).searched_for == ""


def test_first_question_is_never_rewritten() -> None:
    assert rewritten("Why?", []).line == "Why?"


def test_topic_is_kept_over_several_short_questions() -> None:
    first = rewritten("How long is it?", [BOAT])
    second = Exchange(Answer("How long is it?", "11 metres [1].", True, searched_for=first.line))
    assert "Marigold" in rewritten("And how wide?", [BOAT, second]).line


def test_words_of_the_question_are_not_carried_twice() -> None:
    assert rewritten("Who built it?", [BOAT]).carried.count("built") == 0


def test_what_is_carried_is_never_syntax_of_a_query() -> None:
    odd = Exchange(Answer('What is -draft in:notes "two words" lit:x?', "It is -old after:2024 [1].", True))
    carried = rewritten("Why is it?", [odd]).carried
    assert carried and not any(set(word) & set('":') or word.startswith("-") for word in carried)


@pytest.mark.parametrize("written", ["How long is the Marigold?", '"How long is the Marigold?"'])
def test_model_that_keeps_the_question_writes_it_out(written: str) -> None:
    asked_for: list[Sequence[Turn]] = []

    def generate(turns: Sequence[Turn], sampling: Sampling) -> Iterable[object]:
        asked_for.append(turns)
        yield from written

    asked = by_model(rewritten("How long is it?", [BOAT]), [BOAT], generate)
    assert asked.line == asked.searched_for == "How long is the Marigold?"
    assert [turn.role for turn in asked_for[0]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "written",
    [
        "",
        "It is 11 metres long.",
        "When was it?",
        "How long is the Titanic?",
        "How long\nis the Marigold?",
        "long " * 99,
    ],
)
def test_what_a_model_writes_is_left_when_it_drops_or_invents_words(written: str) -> None:
    asked = by_model(rewritten("What colour has it?", [BOAT]), [BOAT], lambda turns, sampling: iter(written))
    assert asked == rewritten("What colour has it?", [BOAT])
    assert not keeps("What colour has it?", written, [BOAT])


def test_hits_of_the_question_and_of_its_line_are_weighed_and_the_cited_file_comes_first() -> None:
    def hit(n: int, name: str, score: float) -> Hit:
        return Hit(n, Path(name), Chunk(f"text {n}", 0, 6, 1, 1), score)

    by_line = {
        "Why is it?": [hit(1, "a.md", 1.0), hit(2, "b.md", 0.5)],
        "Why is it? Marigold": [hit(2, "b.md", 1.0), hit(3, "boat.md", 0.95)],
    }
    cited = replace(BOAT, answer=replace(BOAT.answer, citations=(Citation(1, Path("boat.md"), 1, 1, ""),)))
    asked = Rewritten("Why is it?", ("Marigold",), leaves_out=True)
    best = found(asked, [cited], lambda line, n: by_line[line], 2)
    assert [each.chunk_id for each in best] == [3, 2]
    assert [each.chunk_id for each in found(asked, [BOAT], lambda line, n: by_line[line], 3)] == [2, 3, 1]
    alone = found(Rewritten("Why is it?"), [cited], lambda line, n: by_line[line], 9)
    assert alone == by_line["Why is it?"]


def test_evidence_is_weighed_by_the_distances_of_the_line_alone() -> None:
    asked = rewritten("How long is it?", [BOAT])

    def search(line: str, n: int) -> list[Hit]:
        both, one = (0.9, 0.8) if line == asked.question else (0.2, 0.1)
        other = 2 if line == asked.question else 3
        return [near(1, both), near(other, one)]

    distances = {hit.chunk_id: hit.distance for hit in found(asked, [BOAT], search, 9)}
    assert distances == {1: 0.2, 2: None, 3: 0.1}


def near(number: int, distance: float) -> Hit:
    return Hit(number, Path(f"{number}.md"), Chunk(f"text {number}", 0, 6, 1, 1), score=0.5, distance=distance)
