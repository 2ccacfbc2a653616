"""What a folder would cost: counted in a thread, and said in the same words wherever a person is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from gritdesk.records import Estimate, FolderCount
from gritdesk.terminal import about
from gritdesk.tui.lane import problem_of
from gritdesk.tui.text import one_line, size
from gritdesk.tui.widgets.status_line import count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_WHAT_FOLLOWS = "Its files are read and embedded, now and whenever they change. The files themselves stay as they are."


def cost_of_adding(desk: Desk, folder: Path, is_stopped: Callable[[], bool]) -> str:
    """What to tell before this folder is added; "" once it is stopped. Counts for seconds, and never fails."""
    told = _tell_cost(desk, folder, is_stopped)
    return "" if is_stopped() else f"{folder}\n\n{told}\n\n{_WHAT_FOLLOWS}"


def _tell_cost(desk: Desk, folder: Path, is_stopped: Callable[[], bool]) -> str:
    try:
        *_, counted = desk.count_files(folder, is_stopped)
    except Exception as error:  # a worker's edge
        counted = FolderCount(folder, problem=problem_of(error))
    if counted.problem:
        return f"Its files cannot be counted: {told_count(counted)}\nIt can be added all the same."
    if not counted.num_files or is_stopped():
        return f"It holds {told_count(counted)}."
    if counted.is_whole and counted.num_known == counted.num_files:
        return f"It holds {told_count(counted)}: all of them are in the index as they are."
    try:
        times = told_estimate(desk.estimate([counted])).plain
    except Exception as error:  # a worker's edge
        times = f"How long they take cannot be told: {one_line(problem_of(error))}"
    return f"It holds {told_count(counted)}.\n{times}"


def told_count(counted: FolderCount) -> str:
    """ "1,204 files, 13 MB, 83 skipped", or why it cannot be said."""
    if counted.problem:
        return one_line(counted.problem)
    if counted.is_over and not counted.num_files:
        return f"no files to read, {counted.num_skipped:,} skipped" if counted.num_skipped else "no files to read"
    files = f"{count(counted.num_files, 'file')}, {size(counted.size_bytes)}"
    skipped = f", {counted.num_skipped:,} skipped" if counted.num_skipped else ""
    if not counted.is_over:
        return f"{files}{skipped} …"
    return f"{files}{skipped}" if counted.is_whole else f"more than {files}{skipped}"


def told_estimate(estimate: Estimate) -> Content:
    """How much is new, and after how long it is found by words and by meaning."""
    more = "" if estimate.is_whole else "More than "
    files = f"{more}{count(estimate.num_new, 'file')}, {count(estimate.num_passages, 'passage')}: "
    return Content.assemble(
        (files, "bold"),
        f"found by words after {about(estimate.words_s)}, by meaning after {about(estimate.seconds)}. ",
        ("You can search meanwhile.", "$text-muted"),
    )
