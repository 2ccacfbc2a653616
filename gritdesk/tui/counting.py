"""What a folder holds and what reading it costs, in words."""

from __future__ import annotations

from textual.content import Content

from gritdesk.records import Estimate, FolderCount
from gritdesk.terminal import about
from gritdesk.tui.text import one_line, size
from gritdesk.tui.widgets.status_line import count


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
