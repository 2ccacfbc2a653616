"""One document's text with a passage marked: for files an editor cannot show, and people who have none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from gritdesk.records import Hit
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import SurroundingsRead
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import heading_path, one_line, opens_as_text, place, surroundings
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from gritdesk.desk import Desk

VIEWER_CHARS = 300_000
"""Shown on either side of the passage."""


class ViewerScreen(DeskScreen):
    HELP = "**Viewer.** A file's text as it is indexed, the passage marked. `viewer.open` opens it in your editor."
    BINDING_GROUP_TITLE = "Viewer"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="viewer.close", tooltip="Back to where you came from"),
        Binding("o,enter", "open", "Editor", id="viewer.open", tooltip="Open the file in your editor at this place"),
        Binding("p", "to_passage", "Passage", id="viewer.passage", tooltip="Scroll back to the marked passage"),
        Binding("y", "copy_path", "Copy path", id="viewer.copy", tooltip="Copy the file's path"),
    ]

    def __init__(self, hit: Hit, words: Sequence[str], tab: str, cited: str = "") -> None:
        super().__init__()
        self._hit = hit
        self._words = words
        self._tab = tab
        self._cited = cited
        self._lane = Lane(self, "viewer")

    def compose(self) -> ComposeResult:
        yield StatusLine(self._tab)
        yield Static(self._title(), id="viewer-title")
        yield PassageView(id="viewer-text")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(PassageView).focus()
        if self.desk is not None:
            self._lane.submit(partial(_read, self.desk, self._hit))

    def on_surroundings_read(self, message: SurroundingsRead) -> None:
        message.stop()
        view = self.query_one(PassageView)
        view.show(message.surroundings, self._words, numbered=opens_as_text(self._hit), cited=self._cited)
        if not message.surroundings.is_whole:
            self.query_one("#viewer-title", Static).update(
                Content.assemble(self._title(), ("   only the part around the passage", "$text-warning"))
            )

    def _title(self) -> Content:
        parts = [
            Content.styled(one_line(str(self._hit.path)), "bold"),
            Content.styled(place(self._hit), "$text-primary"),
        ]
        if self._hit.chunk.heading:
            parts.append(Content.styled(heading_path(self._hit), "$text-secondary"))
        return Content("   ").join(parts)

    def action_close(self) -> None:
        self.dismiss()

    def action_open(self) -> None:
        self.open_hit(self._hit)

    def action_to_passage(self) -> None:
        self.query_one(PassageView).scroll_to_passage()

    def action_copy_path(self) -> None:
        self.copy_path(self._hit)


def _read(desk: Desk, hit: Hit) -> SurroundingsRead:
    return SurroundingsRead(hit, surroundings(desk.document_text(hit.path), hit.chunk, VIEWER_CHARS))
