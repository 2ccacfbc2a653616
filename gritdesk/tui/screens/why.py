"""Why a hit stands where it does: what its words and its meaning gave, as `gritdesk search --explain` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from gritdesk.records import Hit
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.text import one_line, place, plain
from gritdesk.tui.widgets.empty_state import with_keys
from gritdesk.wording import NEWEST_FIRST, held, reasons

_MEANT_BY = {
    "words": "BM25 weighs the words that a passage has: the rarer and the more often, the more.",
    "meaning": "The cosine tells how near the meanings are; 1 is the same.",
    "spelled as asked": "The passage has the words in this very order, or spelled with the same signs.",
    "read again": "The model has read the passage again, knowing what was asked.",
}


class WhyScreen(Guarded, ModalScreen[None]):
    """Up and down go through the hits, to compare them."""

    HELP = (
        "**Why this rank.** What words and meaning gave the result, and what it has of the query. `why.next` and "
        "`why.previous` go through the others."
    )
    BINDING_GROUP_TITLE = "Why this rank"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,x,q,enter", "close", "Back", id="why.close", tooltip="Back to the results"),
        Binding("down,j", "move(1)", "Next", id="why.next", tooltip="The next result"),
        Binding("up,k", "move(-1)", "Previous", id="why.previous", tooltip="The result before"),
        Binding("pagedown", "scroll_box(1)", "Scroll down", show=False, id="why.scroll_down", tooltip="Read on"),
        Binding("pageup", "scroll_box(-1)", "Scroll up", show=False, id="why.scroll_up", tooltip="Read back"),
    ]

    def __init__(self, hits: Sequence[Hit], index: int) -> None:
        """Args: hits: explained, best first; index: which one to begin with."""
        super().__init__()
        self._hits = hits
        self.index = index

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box", can_focus=False) as box:  # the arrow keys are for other results
            box.border_subtitle = with_keys(self, "`why.next` `why.previous` other results · `why.close` back")
            yield Static(id="why-text")

    def on_mount(self) -> None:
        self._show()

    def _show(self) -> None:
        hit = self._hits[self.index]
        head = Content.assemble(
            (f"Result {self.index + 1} of {len(self._hits)}   ", "$text-muted"),
            (one_line(hit.path.name), "bold"),
            "  ",
            (place(hit), "$text-primary"),
        )
        told = list(reasons(hit))
        rows = [
            Content.assemble(
                (f"{each.added:8.2f}  ", "bold"),
                (f"{each.source:<17}", "$text-primary"),
                (each.because, "$text-muted"),
            )
            for each in told
        ]
        if rows:
            rows.append(Content.assemble((f"{hit.score:8.2f}  ", "bold $text-accent"), "in all; the more, the higher"))
        else:
            rows.append(Content(f"          {NEWEST_FIRST}"))
        parts = [Content.assemble((f"{name:>8}  ", "$text-secondary"), plain(terms)) for name, terms in held(hit)]
        meant = [Content.styled(_MEANT_BY[each.source], "$text-muted") for each in told]
        note = Content.styled("Scores compare within one search; they are no probabilities.", "$text-muted")
        lines = [
            head,
            Content(""),
            *rows,
            Content(""),
            *parts,
            Content("") if parts else None,
            *meant,
            note,
        ]
        self.query_one("#why-text", Static).update(Content("\n").join([each for each in lines if each is not None]))

    def action_move(self, step: int) -> None:
        self.index = max(0, min(len(self._hits) - 1, self.index + step))
        self._show()

    def action_scroll_box(self, step: int) -> None:
        box = self.query_one(VerticalScroll)
        box.scroll_page_down(animate=False) if step > 0 else box.scroll_page_up(animate=False)

    def action_close(self) -> None:
        self.dismiss()
