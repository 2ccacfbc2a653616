"""The top line of every screen: where you are, and what goes on behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from gritdesk.tui.messages import Activity
from gritdesk.tui.text import plain

if TYPE_CHECKING:
    from gritdesk.tui.app import GritDeskApp

_GAP = "  "
_STATUS_WIDTH = 36
"""Left for what goes on; where the names of all screens leave less, only the one at hand is named."""


class StatusLine(Widget):
    """Tabs at the left, activity at the right; what does not fit is left out, the least important first."""

    activity: reactive[Activity] = reactive(Activity())

    def __init__(self, active_tab: str) -> None:
        super().__init__()
        self._active_tab = active_tab

    def on_mount(self) -> None:
        self.watch(self.app, "activity", self._take)

    def _take(self, activity: Activity) -> None:
        self.activity = activity

    def render(self) -> Content:
        width = self.content_size.width
        tabs = self._tabs(is_full=True)
        if width - tabs.cell_length < _STATUS_WIDTH:
            tabs = self._tabs(is_full=False)
        room = width - tabs.cell_length - len(_GAP)
        shown = next((each for each in status_lines(self.activity) if each.cell_length <= room), Content())
        return Content.assemble(tabs, " " * (width - tabs.cell_length - shown.cell_length), shown)

    def _tabs(self, *, is_full: bool) -> Content:
        app = cast("GritDeskApp", self.app)
        parts: list[Content | str | tuple[str, str]] = [("gritdesk", "bold $primary"), _GAP]
        for name in (*app.MODES, "doctor"):
            is_active = name == self._active_tab
            parts.append((app.keymap.key_of(f"app.{name}"), "$text-muted"))
            if is_full or is_active:
                title = app.keymap.bound[f"app.{name}"].title
                parts.append((f" {title}", "bold underline" if is_active else "$text-muted"))
            parts.append(_GAP if is_full else " ")
        return Content.assemble(*parts).rstrip()


def status_lines(activity: Activity) -> list[Content]:
    """The same status in falling length, to be taken by what room there is."""
    failures, model, index = _failures(activity), _model(activity), _index(activity)
    current = _current(activity)
    candidates = (
        [index, current, _named_model(activity), failures],
        [index, current, model, failures],
        [index, model, failures],
        [index, failures],
        [index],
    )
    return [Content("  ").join([part for part in parts if part]) for parts in candidates]


def _index(activity: Activity) -> Content:
    if activity.desk == "opening":
        return Content.styled("opening the index …", "$text-muted")
    if activity.desk == "failed":
        return Content.styled("✕ index not open", "bold $text-error")
    if activity.index_problem:
        return Content.styled("✕ indexing stopped", "$text-warning")
    progress, status = activity.progress, activity.status
    sign = "‖ " if status is not None and status.paused else "▸ "
    rests = ", paused" if status is not None and status.paused else ", quiet" if status and status.quiet else ""
    if activity.is_indexing and progress is not None and progress.files_done < progress.files_total:
        return Content.assemble(
            (sign, "$primary"),
            (f"{progress.files_done:,}", "bold"),
            (f" of {progress.files_total:,} files{rests}", ""),
        )
    if activity.is_indexing and progress is not None and progress.chunks_awaiting:
        return Content.assemble(
            (sign, "$primary"),
            (f"{progress.chunks_awaiting:,}", "bold"),
            (f" passages await meaning{rests}", ""),
        )
    if activity.status is None:
        return Content.styled("reading the index …", "$text-muted")
    if not activity.status.folders:
        return Content.styled("no folders yet", "$text-muted")
    return Content.styled(f"{count(activity.status.files, 'file')} indexed{rests}", "$text-muted")


def _current(activity: Activity) -> Content:
    progress = activity.progress
    if not activity.is_indexing or progress is None or progress.current is None:
        return Content()
    if progress.files_done >= progress.files_total:
        return Content()
    return Content(plain(progress.current.name)).truncate(28, ellipsis=True).stylize("$text-muted")


def _model(activity: Activity) -> Content:
    if activity.desk != "open":
        return Content()
    if activity.model == "loading":
        return Content.styled("◌ model loading", "$text-warning")
    if activity.model == "failed":
        return Content.styled("✕ model failed", "bold $text-error")
    return Content.assemble(("● ", "$text-success"), ("model ready", "$text-muted"))


def _named_model(activity: Activity) -> Content:
    """With its name, where it has answered; where it failed, with what tells more."""
    if activity.desk == "open" and activity.model == "failed":
        return Content.assemble(_model(activity), (", see Doctor", "$text-error"))
    if activity.model != "ready" or activity.status is None:
        return _model(activity)
    return Content.assemble(("● ", "$text-success"), (plain(Path(activity.status.model).stem), "$text-muted"))


def _failures(activity: Activity) -> Content:
    num_failed = len(activity.status.failed) if activity.status else 0
    return Content.styled(f"! {num_failed:,} unread", "$text-warning") if num_failed else Content()


def count(number: int, noun: str) -> str:
    """ "1 file", "1,204 files"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
