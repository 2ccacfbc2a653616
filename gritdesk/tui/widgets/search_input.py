"""The query line of the search screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestionReady
from textual.widgets import Input

from gritdesk.completing import Offer
from gritdesk.tui.text import one_line


class SearchInput(Input):
    """Down goes to the results; what a filter may say is offered on the lower border, where Tab takes the first."""

    HELP = """**Query.** Results come as you type. `Tab` changes the mode, `Down` goes to the results.

- `"two words"` in this order
- `-word` passages without it
- `lit:C++` letter by letter
- `in:notes` in a folder
- `type:pdf` files of a kind
- `name:plan` files of a name
- `after:7d` modified since
- `before:2024-05`

A minus before `in:`, `type:` or `name:` leaves out. Behind the colon what there is stands below; `Tab` takes the first.

`Ctrl+T` marks the result, `Ctrl+G` asks the query, `Shift+Down` scrolls its text.
"""
    BINDING_GROUP_TITLE = "Query"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Open", id="query.open", tooltip="Open the highlighted result at its line"),
        Binding("down", "leave_down", "Results", id="query.results", tooltip="Go to the results"),
        Binding("tab", "take_offer", "Complete", id="query.complete", tooltip="Take what is offered for the filter"),
    ]

    class LeftDown(Message):
        """The person wants to be in the results."""

    class FolderWanted(Message):
        """`+` was pressed where it means: add a folder."""

    adds_folders = False
    """Whether `+` in an empty line means that; the screen knows."""
    offers: Sequence[Offer] = ()

    def show_offers(self, offers: Sequence[Offer]) -> None:
        """What the filter at the end of the line may say; the first one also stands behind the cursor."""
        if not offers and not self.offers:
            return
        self.offers = tuple(offers)
        names = [Content(one_line(each.value)) for each in offers]
        self.border_subtitle = (
            Content.assemble(("Tab ", "bold"), names[0].stylize("bold"), *(Content(" · ") + each for each in names[1:]))
            if offers
            else None
        )
        if offers and offers[0].line.lower().startswith(self.value.lower()):
            self.post_message(SuggestionReady(self.value, offers[0].line))
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.offers) if action == "take_offer" else True

    def action_take_offer(self) -> None:
        self.value = self.offers[0].line
        self.cursor_position = len(self.value)

    def action_leave_down(self) -> None:
        self.post_message(self.LeftDown())

    async def _on_key(self, event: events.Key) -> None:
        if event.character == "+" and self.adds_folders and not self.value:
            event.stop()
            event.prevent_default()
            self.post_message(self.FolderWanted())
            return
        await super()._on_key(event)
