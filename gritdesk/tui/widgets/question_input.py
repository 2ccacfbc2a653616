"""Where a question is written: grows with it, Enter sends, ctrl+n makes a new line, @ picks what is asked."""

from __future__ import annotations

import re
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of

_MENTION = re.compile(r"(?:^|(?<=\s))@(\S*)$")
"""An @ that begins a word, and the letters behind it up to the cursor."""
_PICKING_KEYS = {"up": -1, "down": 1, "tab": 0, "enter": 0}
"""What a key does to the picker: a step, or 0 to take."""
_KEYS_OF_SCREENS = ("f6", "f7")
"""A TextArea selects with them."""


class QuestionInput(Guarded, TextArea):
    HELP = (
        "**Question.** `question.send` sends, `question.new_line` makes a new line (other keys for it only where "
        "the terminal tells them from `question.send`), `up` in an empty line brings back earlier questions.\n\n"
        "`@` and some letters pick a file or folder to ask: `Tab` or `Enter` takes one, `Esc` leaves the text as it "
        "is. `Backspace` in an empty line takes the last one away, `/all` asks all files again, `/new` begins a new "
        "conversation. A follow-up may leave out what was said before.\n\n"
        "`ask.stop` stops an answer. `Tab` goes to the evidence and `ask.previous` to the answers, where `ask.open_1` "
        "to `ask.open_9` show sources."
    )
    BINDING_GROUP_TITLE = "Question"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="question.send", tooltip="Ask this question"),
        Binding(
            "ctrl+n,shift+enter,alt+enter",
            "new_line",
            "New line",
            show=False,
            id="question.new_line",
            tooltip="Start a new line",
        ),
    ]

    class Sent(Message):
        def __init__(self, question: str) -> None:
            super().__init__()
            self.question = question

    class Mentioned(Message):
        """Letters stand behind an @ at the cursor; None: none do any more."""

        def __init__(self, letters: str | None) -> None:
            super().__init__()
            self.letters = letters

    class Picking(Message):
        """A key for the picker: another row, or 0 to take the one it is on."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class PlaceDropped(Message):
        """The last file or folder is not to be asked any more."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            id=id,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            placeholder="Ask your files …  @ picks which",
        )
        for key in _KEYS_OF_SCREENS:
            self._bindings.key_to_bindings.pop(key, None)
        self.is_picking = False
        """Whether the picker has, or may yet have, something for these keys."""
        self.letters: str | None = None
        """Behind an @ at the cursor."""
        self._left_at: tuple[int, int] | None = None
        """Of an @ that is to be left as it is."""
        self._asked: list[str] = []
        self._place = 0
        """In what was asked; behind its end stands the empty line."""
        self._recalled = ""

    async def _on_key(self, event: events.Key) -> None:
        if self.is_picking and (event.key in _PICKING_KEYS or event.key == "escape"):
            event.stop()
            event.prevent_default()
            if event.key == "escape":
                self._left_at = self._mention_start()
                self._look_for_mention()
            else:
                self.post_message(self.Picking(_PICKING_KEYS[event.key]))
            return
        # TextArea would take it for a new line before any binding
        if event.key in keymap_of(self).keys_of("question.send"):
            event.stop()
            event.prevent_default()
            self.action_send()
            return
        await super()._on_key(event)
        self._look_for_mention()  # at once, for what is typed fast is not to be sent in place of picked

    def action_send(self) -> None:
        question = self.text.strip()
        if question:
            self.remember(question)
            self.post_message(self.Sent(question))

    def type_in(self, character: str) -> None:
        """Take what was typed elsewhere."""
        self.insert(character)
        self._look_for_mention()

    def action_new_line(self) -> None:
        self.insert("\n")

    def action_delete_left(self) -> None:
        if not self.text:
            self.post_message(self.PlaceDropped())
        super().action_delete_left()

    # what is asked

    def on_text_area_selection_changed(self) -> None:
        self._look_for_mention()

    def _look_for_mention(self) -> None:
        start = self._mention_start()
        if start is None or start != self._left_at:
            self._left_at = None
        letters = None
        if start is not None and self._left_at is None:
            letters = self.document.get_line(start[0])[start[1] + 1 : self.cursor_location[1]]
        if letters != self.letters:
            self.letters, self.is_picking = letters, letters is not None
            self.post_message(self.Mentioned(letters))

    def _mention_start(self) -> tuple[int, int] | None:
        row, column = self.cursor_location
        found = _MENTION.search(self.document.get_line(row)[:column])
        return (row, found.start()) if found else None

    def take_mention_out(self) -> None:
        """The @ and its letters have served."""
        start = self._mention_start()
        if start is not None:
            self.delete(start, self.cursor_location)

    # what was asked before

    def remember(self, question: str) -> None:
        if self._asked[-1:] != [question]:
            self._asked.append(question)
        self._place, self._recalled = len(self._asked), ""

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self._recall(-1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self._recall(1):
            super().action_cursor_down(select)

    def _recall(self, step: int) -> bool:
        """Go to an earlier or later question, unless the line holds something else."""
        if not self.text:
            self._place, self._recalled = len(self._asked), ""
        place = self._place + step
        if self.text != self._recalled or not 0 <= place <= len(self._asked):
            return False
        self._place, self._recalled = place, [*self._asked, ""][place]
        self.text = self._recalled
        self.move_cursor(self.document.end)
        return True
