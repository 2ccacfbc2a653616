"""A small box that says what an act costs, and asks once."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.text import plain
from gritdesk.tui.widgets.rows import Rows


class ConfirmScreen(Guarded, ModalScreen[bool]):
    """Dismissed with whether the act is wanted; leaving it alone is what Enter does first."""

    HELP = "**Question.** Nothing is done before you say yes."
    BINDING_GROUP_TITLE = "Box"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No", id="confirm.no", tooltip="Leave everything as it is"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
    ]

    def __init__(self, question: str, cost: str, act: str) -> None:
        super().__init__()
        self._question, self._cost, self._act = question, cost, act

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content.styled(self._question, "bold"))
            yield Static(Content(plain(self._cost)), classes="cost")
            yield Rows("Leave it as it is", self._act, id="choices", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index == 1)

    def action_answer(self, is_wanted: bool) -> None:
        self.dismiss(is_wanted)
