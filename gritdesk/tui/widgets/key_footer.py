"""The bottom line: the few keys that matter here, as many as fit; F1 shows all of them.

One line of text. Textual's own Footer is a widget for each key, made anew at every change of focus or screen: more than
half of the time that going to another screen took.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from gritdesk.tui.guarding import Guarded

_PADDING = 3
"""Cells around a key and its word: one before the key, one between them, one behind."""


@dataclass(frozen=True)
class _Key:
    key: str
    """As Textual names it."""
    told: str
    """As a person does."""
    word: str
    tooltip: str
    is_enabled: bool

    @property
    def width(self) -> int:
        return len(self.told) + len(self.word) + _PADDING


class KeyFooter(Guarded, Widget):
    """Where there is too little room the last keys go first, but for the very last, help. A click presses a key."""

    ALLOW_SELECT = False

    _keys: tuple[_Key, ...] = ()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._take)

    def _take(self, screen: Screen[object]) -> None:
        if not screen.app.app_focus or screen is not self.screen:
            return
        shown: dict[str, _Key] = {}
        for _, binding, is_enabled, tooltip in screen.active_bindings.values():
            if binding.show and binding.action not in shown:
                told = self.app.get_key_display(binding)
                shown[binding.action] = _Key(binding.key, told, binding.description, tooltip, is_enabled)
        if (keys := tuple(shown.values())) != self._keys:
            self._keys = keys
            self.refresh()

    @property
    def _fitting(self) -> list[_Key]:
        keys = list(self._keys)
        while len(keys) > 1 and sum(each.width for each in keys) > self.size.width:
            del keys[-2]
        return keys

    def render(self) -> Content:
        parts: list[tuple[str, str]] = []
        for each in self._fitting:
            dim = "" if each.is_enabled else " dim"
            parts += [(f" {each.told} ", f"bold $footer-key-foreground{dim}")]
            parts += [(f"{each.word} ", f"$footer-description-foreground{dim}")]
        return Content.assemble(*parts)

    def _key_at(self, x: int) -> _Key | None:
        for each in self._fitting:
            if x < each.width:
                return each
            x -= each.width
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        pointed_at = self._key_at(event.x)
        self.tooltip = pointed_at.tooltip if pointed_at else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if (pressed := self._key_at(event.x)) is None:
            return
        if pressed.is_enabled:
            self.app.simulate_key(pressed.key)
        else:
            self.app.bell()
