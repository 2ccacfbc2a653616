"""The query line of the search screen."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from gritdesk.tui.keymap import keymap_of


class SearchInput(Input):
    """Down goes to the results; a first `+`, or what key has its place, asks for a folder while there is none."""

    HELP = (
        "**Query.** Results come as you type. `search.mode` changes the mode, `query.results` goes to the results, "
        "`query.open` opens one. `in:notes`, `type:pdf`, `after:2024-05`, `name:report`, quotes and a minus narrow it."
    )
    BINDING_GROUP_TITLE = "Query"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Open", id="query.open", tooltip="Open the highlighted result at its line"),
        Binding("down", "leave_down", "Results", id="query.results", tooltip="Go to the results"),
    ]

    class LeftDown(Message):
        """The person wants to be in the results."""

    class FolderWanted(Message):
        """That key was pressed where it means: add a folder."""

    adds_folders = False
    """Whether it does in an empty line means that; the screen knows."""

    def action_leave_down(self) -> None:
        self.post_message(self.LeftDown())

    async def _on_key(self, event: events.Key) -> None:
        if event.key in keymap_of(self).keys_of("search.add_folder") and self.adds_folders and not self.value:
            event.stop()
            event.prevent_default()
            self.post_message(self.FolderWanted())
            return
        await super()._on_key(event)
