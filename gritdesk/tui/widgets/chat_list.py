"""Kept chats as rows: title, when it was last asked in and how many questions, and what a search found of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gritdesk.records import ChatHit, ChatSummary
from gritdesk.tui.text import ago, one_line, snippet
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import count

_SNIPPET_CHARS = 90


@dataclass(frozen=True)
class ChatRow:
    chat: ChatSummary
    hit: ChatHit | None = None
    """The best that a search found of it."""


class ChatList(Rows):
    HELP = (
        "**Chats.** `chats.continue` goes on with the highlighted one in Ask. `chats.rename` gives it another title, "
        "`chats.pin` keeps it on top, `chats.export` writes it to a file, `chats.delete` deletes it after a question. "
        "`chats.back` goes back to the search line."
    )
    BINDING_GROUP_TITLE = "List of chats"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Go on", id="chats.continue", tooltip="Go on with the highlighted chat in Ask"),
        Binding("down,j", "cursor_down", "Down", show=False, id="chats.down", tooltip="Next chat"),
        Binding("up,k", "cursor_up", "Up", show=False, id="chats.up", tooltip="Previous chat"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.rows: tuple[ChatRow, ...] = ()

    @property
    def chosen(self) -> ChatRow | None:
        index = self.highlighted
        return self.rows[index] if index is not None and index < len(self.rows) else None

    def show(self, rows: Sequence[ChatRow], words: Sequence[str] = ()) -> None:
        """Replace the rows; the highlight stays on its chat, or on its place if that is gone."""
        before, place = self.chosen, self.highlighted or 0
        self.rows = tuple(rows)
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(Option(_row(each, words)) for each in rows)
        ids = [each.chat.id for each in rows]
        kept = ids.index(before.chat.id) if before and before.chat.id in ids and place else min(place, len(ids) - 1)
        self.highlighted = kept if ids else None


def _row(row: ChatRow, words: Sequence[str]) -> Content:
    chat = row.chat
    when = ago(round(chat.asked_at * 1e9))
    title = Content.assemble(("★ " if chat.is_pinned else "", "$text-accent"), (one_line(chat.title), "bold"))
    lines = [title, Content.styled(f"{count(chat.num_exchanges, 'question')}, {when}", "$text-muted")]
    if row.hit is not None:
        lines.append(snippet(row.hit.hit.chunk, words, _SNIPPET_CHARS))
    return Content("\n").join(lines)
