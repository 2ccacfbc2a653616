"""The query line of the search screen."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import Reactive
from textual.widgets import Input


class SearchInput(Input):
    """Down goes to the results; a first `+` asks for a folder while there is none."""

    HELP = "**Query.** Results come as you type. `Tab` changes the mode, `Down` goes to the results, `Enter` opens one."
    BINDING_GROUP_TITLE = "Query"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Open", id="query.open", tooltip="Open the highlighted result at its line"),
        Binding("down", "leave_down", "Results", id="query.results", tooltip="Go to the results"),
    ]

    class LeftDown(Message):
        """The person wants to be in the results."""

    class FolderWanted(Message):
        """`+` was pressed where it means: add a folder."""

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))
    """Without Textual's layout of the whole screen at every key, which would find everything where it was."""

    adds_folders = False
    """Whether `+` in an empty line means that; the screen knows."""

    def action_leave_down(self) -> None:
        self.post_message(self.LeftDown())

    async def _on_key(self, event: events.Key) -> None:
        if event.character == "+" and self.adds_folders and not self.value:
            event.stop()
            event.prevent_default()
            self.post_message(self.FolderWanted())
            return
        await super()._on_key(event)
