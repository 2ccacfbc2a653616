"""The checks of `gritdesk doctor`, each as it is made, with what to do about what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from gritdesk.tui.lane import Lane
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import one_line
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.doctor import Check


_INDENT = " " * 9
"""What was found stands under the name of its check."""


class CheckMade(Message):
    def __init__(self, number: int, check: Check) -> None:
        super().__init__()
        self.number, self.check = number, check


class ChecksEnded(Message):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class DoctorScreen(DeskScreen):
    HELP = "**Doctor.** What `gritdesk doctor` checks. What is wrong says what to do; `doctor.copy` copies all of it."
    BINDING_GROUP_TITLE = "Doctor"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="doctor.close", tooltip="Back to where you came from"),
        Binding("r", "again", "Check again", id="doctor.again", tooltip="Make all checks again"),
        Binding("y", "copy", "Copy", id="doctor.copy", tooltip="Copy what was found, to show it to somebody"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lane = Lane(self, "doctor")
        self._number = 0
        """Of the latest round; a check of an older one is stale."""
        self._checks: list[Check] = []
        self._is_over = False

    def compose(self) -> ComposeResult:
        yield StatusLine("doctor")
        yield Static(id="doctor-title")
        with VerticalScroll(id="doctor"):
            yield Static(id="doctor-list")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#doctor").focus()
        self.action_again()

    def action_again(self) -> None:
        self._number += 1
        self._checks, self._is_over = [], False
        desk, number = self.desk, self._number
        self._lane.submit(lambda: self._examine(desk, number))
        self._show()

    def _examine(self, desk: Desk | None, number: int) -> ChecksEnded:
        """Runs in a thread."""
        from gritdesk.doctor import examine

        for check in examine(desk):
            if number != self._number:
                break
            self.post_message(CheckMade(number, check))
        return ChecksEnded(number)

    def on_check_made(self, message: CheckMade) -> None:
        message.stop()
        if message.number == self._number:
            self._checks.append(message.check)
            self._show()

    def on_checks_ended(self, message: ChecksEnded) -> None:
        message.stop()
        if message.number == self._number:
            self._is_over = True
            self._show()

    def _show(self) -> None:
        wrong = sum(not check.ok for check in self._checks)
        if not self._is_over:
            title = "Checking …"
        else:
            title = f"{count(wrong, 'check')} failed" if wrong else "Everything is as it should be"
        self.query_one("#doctor-title", Static).update(Content.styled(title, "bold"))
        room = max(20, self.query_one("#doctor").scrollable_content_region.width - len(_INDENT))
        rows = [_row(check, room) for check in self._checks]
        self.query_one("#doctor-list", Static).update(Content("\n\n").join(rows))

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def action_copy(self) -> None:
        text = "\n".join(f"{'ok   ' if check.ok else 'wrong'}  {check.name}: {check.found}" for check in self._checks)
        self.app.copy_to_clipboard(text)
        self.notify("What was found is copied.")

    def action_close(self) -> None:
        self._number += 1
        self.dismiss()


def _row(check: Check, room: int) -> Content:
    mark = ("● ok     ", "$text-success") if check.ok else ("✕ wrong  ", "bold $text-error")
    found = [Content.assemble(_INDENT, each) for each in Content(one_line(check.found)).wrap(room)]
    return Content("\n").join([Content.assemble(mark, (check.name, "bold")), *found])
