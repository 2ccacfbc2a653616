"""Lines to search by, above what they find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import Reactive
from textual.suggester import SuggestionReady
from textual.widgets import Input

from gritdesk.completing import Offer
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.text import one_line


class QueryLine(Guarded, Input):
    """Leads down into what it finds; which key does is for each to bind."""

    class LeftDown(Message):
        """The person wants to be in the results."""

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))
    """Without Textual's layout of the whole screen at every key, which would find everything where it was."""

    def action_leave_down(self) -> None:
        self.post_message(self.LeftDown())


class SearchInput(QueryLine):
    """What a filter may say is offered on the lower border, and the first of it can be taken by a key."""

    HELP = """**Query.** Results come as you type. `search.mode` changes the mode, `query.results` goes to the results.

- `"two words"` in this order
- `-word` passages without it
- `lit:C++` letter by letter
- `in:notes` in a folder
- `type:pdf` files of a kind
- `name:plan` files of a name
- `after:7d` modified since
- `before:2024-05`

A minus before `in:`, `type:` or `name:` leaves out. Behind the colon what there is stands below;
`query.complete` takes the first.

`query.last` in the empty line brings back earlier queries. `search.mark` marks the result, `search.ask` asks the
query, `search.preview_down` scrolls its text.
"""
    BINDING_GROUP_TITLE = "Query"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Open", id="query.open", tooltip="Open the highlighted result at its line"),
        Binding("down", "leave_down", "Results", id="query.results", tooltip="Go to the results"),
        Binding("up", "recall_first", "Earlier query", show=False, id="query.last", tooltip="In an empty line"),
        Binding("alt+up", "recall(-1)", "Earlier query", show=False, id="query.earlier", tooltip="An earlier query"),
        Binding("alt+down", "recall(1)", "Later query", show=False, id="query.later", tooltip="A later query"),
        Binding("tab", "take_offer", "Complete", id="query.complete", tooltip="Take what is offered for the filter"),
    ]

    class FolderWanted(Message):
        """That key was pressed where it means: add a folder."""

    adds_folders = False
    """Whether it does in an empty line means that; the screen knows."""
    offers: Sequence[Offer] = ()
    past_queries: Sequence[str] = ()
    """The latest last."""

    def show_offers(self, offers: Sequence[Offer]) -> None:
        """What the filter at the end of the line may say; the first one also stands behind the cursor."""
        if not offers and not self.offers:
            return
        self.offers = tuple(offers)
        names = [Content(one_line(each.value)) for each in offers]
        self.border_subtitle = (
            Content.assemble(
                (f"{keymap_of(self).key_of('query.complete')} ", "bold"),
                names[0].stylize("bold"),
                *(Content(" · ") + each for each in names[1:]),
            )
            if offers
            else None
        )
        if offers and offers[0].line.lower().startswith(self.value.lower()):
            self.post_message(SuggestionReady(self.value, offers[0].line))
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "recall_first":
            return not self.value or self.value in self.past_queries
        return bool(self.offers) if action == "take_offer" else True

    def action_recall(self, step: int) -> None:
        """An earlier query, or a later one; behind the last comes the empty line."""
        lines = [*self.past_queries, ""]
        now = lines.index(self.value) if self.value in lines else len(lines) - 1
        self.value = lines[max(0, min(len(lines) - 1, now + step))]
        self.cursor_position = len(self.value)

    def action_recall_first(self) -> None:
        self.action_recall(-1)

    def action_take_offer(self) -> None:
        self.value = self.offers[0].line
        self.cursor_position = len(self.value)

    async def _on_key(self, event: events.Key) -> None:
        if event.key in keymap_of(self).keys_of("search.add_folder") and self.adds_folders and not self.value:
            event.stop()
            event.prevent_default()
            self.post_message(self.FolderWanted())
            return
        await super()._on_key(event)
