"""The files that could not be read, each with its reason."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from gritdesk.records import FailedFile
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import one_line, plain, short_folder
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.status_line import StatusLine, count

_MAX_SHOWN = 500


class FailuresScreen(DeskScreen):
    HELP = "**Unread files.** Each with its reason. They are tried again when they change, or in the Library."
    BINDING_GROUP_TITLE = "Unread files"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="failures.close", tooltip="Back to where you came from"),
    ]

    def compose(self) -> ComposeResult:
        yield StatusLine("")
        yield Static(id="failures-title")
        with VerticalScroll(id="failures"):
            yield Static(id="failures-list")
        yield KeyFooter()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        failed = now.status.failed if now.status else ()
        title = f"{count(len(failed), 'file')} could not be read" if failed else "Every file could be read"
        self.query_one("#failures-title", Static).update(Content.styled(title, "bold"))
        rows = [_row(each) for each in failed[:_MAX_SHOWN]]
        if len(failed) > _MAX_SHOWN:
            rows.append(Content(f"and {len(failed) - _MAX_SHOWN:,} more; `gritdesk status` lists all"))
        self.query_one("#failures-list", Static).update(Content("\n").join(rows))

    def action_close(self) -> None:
        self.dismiss()


def _row(failed: FailedFile) -> Content:
    name = (plain(failed.path.name), "bold")
    return Content.assemble(name, "  ", (short_folder(failed.path), "$text-muted"), "\n  ", one_line(failed.reason))
