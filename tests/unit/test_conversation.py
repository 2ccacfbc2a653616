"""What of a conversation goes into the next prompt, and what goes first when there is no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gritdesk.conversation import recalled
from gritdesk.records import Answer, Chunk, Citation, Exchange, Hit, Turn


def hit(n: int, text: str = "") -> Hit:
    text = text or f"passage {n}"
    return Hit(n, Path("notes.md"), Chunk(text, 100 * n, 100 * n + len(text), n, n), score=1.0)


def exchange(question: str, answer: str, hits: Sequence[Hit], *cited: int) -> Exchange:
    citations = tuple(Citation(n, hits[n - 1].path, 1, 1, "") for n in cited)
    return Exchange(Answer(question, answer, True, citations), tuple(hits))


OLD = exchange("q1", "a1 [2].", [hit(1), hit(2)], 2)
LAST = exchange("q2", "a2 [1].", [hit(3), hit(4)], 1)
FOUND = (hit(9),)


def room_for(num: int) -> Callable[[Sequence[Turn], Sequence[Hit]], bool]:
    """A context in which every turn and every passage takes one place."""
    return lambda turns, hits: len(turns) + len(hits) <= num


def texts(turns: Sequence[Turn]) -> list[str]:
    return [turn.text for turn in turns]


def test_turns_and_cited_passages_are_recalled_and_uncited_ones_are_not() -> None:
    kept = recalled([OLD, LAST], FOUND, room_for(99))
    assert [each.chunk_id for each in kept.hits] == [9, 3, 2]
    assert texts(kept.turns) == ["q1", "a1.", "q2", "a2."]  # [n] meant the passages of another prompt


def test_old_exchanges_go_before_what_the_last_answer_cited() -> None:
    kept = recalled([OLD, LAST], FOUND, room_for(5))
    assert [each.chunk_id for each in kept.hits] == [9, 3] and texts(kept.turns) == ["q2", "a2."]
    kept = recalled([OLD, LAST], FOUND, room_for(3))
    assert [each.chunk_id for each in kept.hits] == [9, 3] and kept.turns == ()
    kept = recalled([OLD, LAST], FOUND, room_for(0))
    assert (kept.hits, kept.turns) == (FOUND, ())


def test_question_that_stands_alone_gets_no_old_passages() -> None:
    kept = recalled([OLD, LAST], FOUND, room_for(99), carries=False)
    assert kept.hits == FOUND and len(kept.turns) == 4


def test_no_passage_stands_in_a_prompt_twice() -> None:
    copy = hit(7, "passage 3")
    assert recalled([LAST], [hit(3)], room_for(99)).hits == (hit(3),)
    assert recalled([LAST], [copy], room_for(99)).hits == (copy,)


def test_answer_that_was_stopped_before_its_first_word_says_nothing() -> None:
    assert recalled([exchange("q", "", [hit(1)])], FOUND, room_for(99)).turns == ()


def test_passages_that_the_index_no_longer_holds_are_not_carried() -> None:
    assert recalled([LAST], FOUND, room_for(9)).hits == (*FOUND, LAST.hits[0])
    assert recalled([LAST], FOUND, room_for(9), lambda each: each != LAST.hits[0]).hits == FOUND


def test_of_passages_that_overlap_the_longer_one_is_read() -> None:
    joined = hit(1, "One. Two.")
    part = replace(joined, chunk=replace(joined.chunk, text="Two.", char_start=105))
    past = [exchange("q", "Two [1].", [joined], 1)]
    assert recalled(past, [part], room_for(9)).hits == (joined,)
    assert recalled([exchange("q", "Two [1].", [part], 1)], [joined], room_for(9)).hits == (joined,)


def test_answers_that_say_nothing_of_the_files_are_no_turns() -> None:
    refused = replace(LAST, answer=replace(LAST.answer, refused=True))
    none = replace(LAST, answer=replace(LAST.answer, evidence="none"))
    assert recalled([refused, none], FOUND, room_for(9)).turns == ()
