"""The line under the query: the three search modes, and what the last search found."""

from __future__ import annotations

from typing import get_args

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from gritdesk.records import SearchMode
from gritdesk.tui.guarding import Guarded

MODES: tuple[SearchMode, ...] = get_args(SearchMode)
_GAP = "  "


class ModeLine(Guarded, Widget):
    mode: reactive[SearchMode] = reactive("hybrid")
    summary: reactive[str] = reactive("")

    class ModePicked(Message):
        def __init__(self, mode: SearchMode) -> None:
            super().__init__()
            self.mode = mode

    def render(self) -> Content:
        modes = Content(_GAP).join(
            [
                Content.styled(each, "bold $text-primary underline" if each == self.mode else "$text-muted")
                for each in MODES
            ]
        )
        room = max(0, self.content_size.width - modes.cell_length - len(_GAP))
        summary = Content.styled(self.summary, "$text-muted").truncate(room, ellipsis=True)
        gap = " " * max(0, self.content_size.width - modes.cell_length - summary.cell_length)
        return Content.assemble(modes, gap, summary)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        start = 0
        for mode in MODES:
            if offset is not None and start <= offset.x < start + len(mode):
                self.post_message(self.ModePicked(mode))
            start += len(mode) + len(_GAP)
