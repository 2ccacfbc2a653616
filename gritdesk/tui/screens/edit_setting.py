"""A small box in which one setting is changed: what it means, what it may be, and what is wrong with a value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.settings import Setting, shown_value
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.lane import Lane
from gritdesk.tui.text import one_line, plain
from gritdesk.tui.widgets.rows import Rows

if TYPE_CHECKING:
    from gritdesk.desk import Desk


class ValueTaken(Message):
    def __init__(self, typed: str) -> None:
        super().__init__()
        self.typed = typed


class ValueRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class EditSettingScreen(Guarded, ModalScreen[str | None]):
    """Dismissed with what was typed or chosen, once the setting may be that; None to leave it."""

    HELP = "**A setting.** `Enter` takes what is chosen or typed; what it may not be is said at once."
    BINDING_GROUP_TITLE = "A setting"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Leave it", id="edit_setting.cancel", tooltip="Leave the setting as it is"),
        Binding("tab", "app.focus_next", "Other way", show=False, id="edit_setting.next", tooltip="Choose, or type"),
    ]

    def __init__(self, desk: Desk, setting: Setting, suggestions: Sequence[tuple[str, str]] = ()) -> None:
        """Arguments: `suggestions` are values and what is said of each; any other may be typed beside them."""
        super().__init__()
        self._desk, self._setting = desk, setting
        choices = [("true", ""), ("false", "")] if isinstance(setting.default, bool) else []
        self._choices = list(suggestions) or choices or [(each, "") for each in setting.choices]
        self._may_type = bool(suggestions) or not self._choices
        self._lane = Lane(self, "checking a value")

    def compose(self) -> ComposeResult:
        value = shown_value(self._setting.value)
        with Vertical(classes="box"):
            yield Static(Content.styled(self._setting.key, "bold"))
            yield Static(Content(plain(self._setting.meaning)), classes="cost")
            if self._choices:
                yield Rows(*map(self._option, self._choices), id="values", markup=False)
            if self._may_type:
                yield Input(value, id="value", placeholder=self._placeholder)
            kind = "" if self._choices else f"{self._setting.kind}; "
            leave = keymap_of(self).key_of("edit_setting.cancel")
            yield Static(Content(f"{kind}Enter sets it, {leave} leaves it."), id="value-note")

    @property
    def _placeholder(self) -> str:
        if self._choices:
            return f"or the path of another; {keymap_of(self).key_of('edit_setting.next')} leads here"
        return shown_value(self._setting.default) or "nothing"

    def _option(self, choice: tuple[str, str]) -> Option:
        value, told = choice
        return Option(Content.assemble((plain(value) or "the default", "bold"), "  ", (plain(told), "$text-muted")))

    def on_mount(self) -> None:
        if self._choices:
            values = [value for value, _ in self._choices]
            now = shown_value(self._setting.value)
            rows = self.query_one("#values", OptionList)
            rows.highlighted = values.index(now) if now in values else 0
            rows.focus()
        else:
            self.query_one("#value", Input).focus()

    @on(Input.Submitted, "#value")
    def _typed(self, event: Input.Submitted) -> None:
        self._check(event.value)

    @on(OptionList.OptionSelected, "#values")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._check(self._choices[event.option_index][0])

    def _check(self, typed: str) -> None:
        self._lane.submit(partial(_checked, self._desk, self._setting.key, typed), ValueRefused)

    def on_value_taken(self, message: ValueTaken) -> None:
        message.stop()
        self.dismiss(message.typed)

    def on_value_refused(self, message: ValueRefused) -> None:
        message.stop()
        self.query_one("#value-note", Static).update(Content.styled(one_line(message.problem), "$text-error"))

    def action_cancel(self) -> None:
        self.dismiss(None)


def _checked(desk: Desk, key: str, typed: str) -> ValueTaken:
    desk.check_setting(key, typed)
    return ValueTaken(typed)
