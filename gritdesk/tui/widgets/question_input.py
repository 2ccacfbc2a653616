"""Where a question is written: grows with it, Enter sends, ctrl+n makes a new line."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from gritdesk.tui.keymap import keymap_of


class QuestionInput(TextArea):
    HELP = (
        "**Question.** `question.send` sends, `question.new_line` makes a new line, `Tab` goes to the evidence, "
        "`ask.previous` to the answers. A follow-up may leave out what was said before."
    )
    BINDING_GROUP_TITLE = "Question"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="question.send", tooltip="Ask this question"),
        Binding("ctrl+n", "new_line", "New line", show=False, id="question.new_line", tooltip="Start a new line"),
    ]

    class Sent(Message):
        def __init__(self, question: str) -> None:
            super().__init__()
            self.question = question

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            id=id,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            placeholder="Ask your files …",
        )

    async def _on_key(self, event: events.Key) -> None:
        if event.key in keymap_of(self).keys_of(
            "question.send"
        ):  # TextArea would take it for a new line before any binding
            event.stop()
            event.prevent_default()
            self.action_send()
            return
        await super()._on_key(event)

    def action_send(self) -> None:
        question = self.text.strip()
        if question:
            self.post_message(self.Sent(question))

    def action_new_line(self) -> None:
        self.insert("\n")
