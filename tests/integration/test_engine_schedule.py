"""Who makes the next step in the engine."""

from __future__ import annotations

from gritdesk.engine.wire import CountTokens, Priority, Request
from gritdesk.engine.worker import Schedule

ANSWER, QUERY, INDEXING = Priority


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


def test_answers_come_before_queries_and_queries_before_indexing() -> None:
    schedule = schedule_of(INDEXING, QUERY, ANSWER)
    assert steps_of(schedule, {0: 1, 1: 1, 2: 1}) == [2, 1, 0]


def test_queries_are_let_in_between_two_tokens_of_an_answer_and_indexing_is_not() -> None:
    schedule = schedule_of(ANSWER, QUERY, QUERY, INDEXING)
    assert steps_of(schedule, {0: 4, 1: 1, 2: 1, 3: 2}) == [0, 1, 0, 2, 0, 0, 3, 3]


def test_query_waits_for_one_step_of_indexing_at_most() -> None:
    schedule = schedule_of(INDEXING)
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


def test_only_a_job_that_is_not_done_can_be_cancelled() -> None:
    schedule = schedule_of(ANSWER, QUERY)
    schedule.cancel(1)
    first, second = schedule.take(), schedule.take()
    assert (first.is_cancelled, second.is_cancelled) == (False, True)
    schedule.forget(first)
    schedule.cancel(0)
    schedule.cancel(99)
    assert not first.is_cancelled
