"""F1: what has the focus, what its screen is for, and the keys of both; then those that hold everywhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import bindings_of, keymap_of, shown

_KEYS_WIDTH = 11
_MOST_NAMED = 3
"""Of more keys that do the same to one thing or another, the first and the last are named."""


class HelpPanel(Guarded, VerticalScroll, can_focus=True):
    """Follows the focus, but for when it has that itself, to be scrolled."""

    DEFAULT_CLASSES = "-textual-system"
    HELP = "**Help.** The arrow keys scroll it; `app.help` takes it away."

    def compose(self) -> ComposeResult:
        yield Static()

    def on_mount(self) -> None:
        self._about: Widget = self.screen
        self.watch(self.screen, "focused", self._focus_moved)

    def on_resize(self) -> None:
        self._show()

    def _focus_moved(self, focused: Widget | None) -> None:
        if focused is not self:
            self._about = focused or self.screen
            self._show()

    def _show(self) -> None:
        nodes: list[DOMNode] = [each for each in self._about.ancestors_with_self if each is not self.app]
        parts = [part for node in [*nodes, self.app] if (part := self._part(node))]
        parts.append(Content.styled("`gritdesk keys` lists all keys, to be changed in config.toml.", "$text-muted"))
        self.query_one(Static).update(Content("\n\n").join(parts))

    def _part(self, node: DOMNode) -> Content:
        """The help of a widget, a screen or the app, and its keys; empty if it has neither."""
        told = (node.HELP if isinstance(node, Widget) else None) or ""
        # lines that are wrapped in the code are one here, but for the points of a list
        told = re.sub(r"(?<!\n)\n(?!\n|- )", " ", inspect.cleandoc(told))
        is_typed_in = isinstance(node, Input | TextArea)
        lines = [_with_marks(keymap_of(self).told(told, while_typing=is_typed_in))] if told else []
        rows = [row for keys, what in self._keys_of(node) for row in self._rows(keys, what)]
        if rows and not told:
            lines.append(Content.styled(str(node.BINDING_GROUP_TITLE or ""), "bold"))
        return Content("\n").join([*lines, *rows])

    def _keys_of(self, node: DOMNode) -> Iterator[tuple[str, str]]:
        keymap = keymap_of(self)
        acts: dict[str, list[Binding]] = {}
        for each in bindings_of(type(node)):
            numbered = re.sub(r"\(\d+\)", "", each.action)
            acts.setdefault(numbered, []).append(each)
        for same in acts.values():
            keys = [shown(key) for each in same for key in keymap.keys_of(str(each.id))]
            yield " ".join(keys) if len(keys) <= _MOST_NAMED else f"{keys[0]} … {keys[-1]}", same[0].tooltip

    def _rows(self, keys: str, what: str) -> list[Content]:
        """A key, and beside it what it does, on as many lines as that takes."""
        room = max(12, self.query_one(Static).content_size.width - _KEYS_WIDTH)
        first, *others = Content(what).wrap(room) or [Content()]
        key = Content.styled(f"{keys:<{_KEYS_WIDTH - 1}} ", "bold $text-primary")
        return [Content.assemble(key, first), *[Content.assemble(" " * _KEYS_WIDTH, each) for each in others]]


def _with_marks(text: str) -> Content:
    """The little Markdown that help is written in: **title** and `key`."""
    parts = re.split(r"\*\*(.+?)\*\*|`(.+?)`", text)
    styles = ("", "bold", "bold $text-primary")
    return Content.assemble(*[(part, styles[number % 3]) for number, part in enumerate(parts) if part])
