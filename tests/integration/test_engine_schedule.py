"""Who makes the next step in the engine."""

from __future__ import annotations

import pytest

from gritdesk.engine.wire import CountTokens, Prefill, Priority, Request, Stream
from gritdesk.engine.worker import Schedule
from gritdesk.records import Sampling

ANSWER, QUERY, INDEXING, IDLE = Priority


def steps_of(schedule: Schedule, num_steps: dict[int, int]) -> list[int]:
    """Take every job for its number of steps. Returns: the jobs' numbers in the order of their steps."""
    order: list[int] = []
    left = dict(num_steps)
    while left:
        job = schedule.take()
        order.append(job.number)
        left[job.number] -= 1
        if left[job.number]:
            schedule.put_back(job)
        else:
            schedule.forget(job)
            del left[job.number]
    return order


def schedule_of(*priorities: Priority) -> Schedule:
    schedule = Schedule()
    for number, priority in enumerate(priorities):
        schedule.add(Request(number, priority, CountTokens([])))
    return schedule


def test_answers_come_before_queries_those_before_indexing_and_reading_ahead_comes_last() -> None:
    schedule = schedule_of(IDLE, INDEXING, QUERY, ANSWER)
    assert steps_of(schedule, {0: 1, 1: 1, 2: 1, 3: 1}) == [3, 2, 1, 0]


def test_queries_are_let_in_between_two_tokens_of_an_answer_and_indexing_is_not() -> None:
    schedule = schedule_of(ANSWER, QUERY, QUERY, INDEXING)
    assert steps_of(schedule, {0: 4, 1: 1, 2: 1, 3: 2}) == [0, 1, 0, 2, 0, 0, 3, 3]


@pytest.mark.parametrize("background", [INDEXING, IDLE])
def test_query_waits_for_one_step_of_background_work_at_most(background: Priority) -> None:
    schedule = schedule_of(background)
    job = schedule.take()
    schedule.add(Request(1, QUERY, CountTokens([])))
    schedule.put_back(job)
    assert steps_of(schedule, {0: 2, 1: 1}) == [1, 0, 0]


def test_answers_are_written_one_after_the_other() -> None:
    schedule = schedule_of(ANSWER, ANSWER)
    assert steps_of(schedule, {0: 3, 1: 2}) == [0, 0, 0, 1, 1]


def test_indexing_requests_take_turns() -> None:
    schedule = schedule_of(INDEXING, INDEXING)
    assert steps_of(schedule, {0: 2, 1: 2}) == [0, 1, 0, 1]


def test_prompt_read_ahead_is_given_up_for_another_and_for_an_answer_and_for_nothing_else() -> None:
    schedule = Schedule()
    for number in range(2):
        schedule.add(Request(number, IDLE, Prefill([])))
    first, second = schedule.take(), schedule.take()
    assert (first.is_cancelled, second.is_cancelled) == (True, False)
    schedule.add(Request(2, QUERY, CountTokens([])))
    assert not second.is_cancelled
    schedule.add(Request(3, ANSWER, Stream([], Sampling())))
    assert second.is_cancelled and not schedule.take().is_cancelled


def test_only_a_job_that_is_not_done_can_be_cancelled() -> None:
    schedule = schedule_of(ANSWER, QUERY)
    schedule.cancel(1)
    first, second = schedule.take(), schedule.take()
    assert (first.is_cancelled, second.is_cancelled) == (False, True)
    schedule.forget(first)
    schedule.cancel(0)
    schedule.cancel(99)
    assert not first.is_cancelled
