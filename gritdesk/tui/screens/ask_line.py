"""A small box that asks for one line: a title, a file to write to."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.text import plain


class AskLineScreen(Guarded, ModalScreen[str | None]):
    """Dismissed with the line, or None if it was left or is empty."""

    HELP = "**One line.** `Enter` takes it. `ask_line.cancel` leaves everything as it is."
    BINDING_GROUP_TITLE = "One line"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="ask_line.cancel", tooltip="Leave everything as it is"),
    ]

    def __init__(self, title: str, value: str, act: str) -> None:
        """Args: value: what stands there at first; act: what Enter does, as "takes it"."""
        super().__init__()
        self._title, self._value, self._act = title, value, act

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content.styled(plain(self._title), "bold"), classes="title")
            yield Input(plain(self._value), id="line")
            leave = keymap_of(self).key_of("ask_line.cancel")
            yield Static(Content(f"Enter {self._act}, {leave} leaves."), classes="note")

    @on(Input.Submitted, "#line")
    def _line_given(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip() or None)

    def action_cancel(self) -> None:
        self.dismiss(None)
