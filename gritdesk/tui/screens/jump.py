"""Jump mode: a letter on each pane that takes the focus; that letter goes there, any other key leaves."""

from __future__ import annotations

from collections.abc import Iterator

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Label

from gritdesk.tui.guarding import Guarded

_LETTERS = "asdfghjklqwertyuiopzxcvbnm"
"""The row under the fingers first."""


class JumpScreen(Guarded, ModalScreen[Widget | None]):
    """Dismissed with the pane that was chosen, or None."""

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self._panes = dict(zip(_LETTERS, _panes_of(screen), strict=False))

    def compose(self) -> ComposeResult:
        for letter, pane in self._panes.items():
            label = Label(f" {letter.upper()} ", classes="jump")
            label.absolute_offset = _place_of(pane)
            yield label

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss(self._panes.get(event.key.lower()))

    def on_click(self) -> None:
        self.dismiss(None)

    def on_resize(self, event: events.Resize) -> None:
        for label, pane in zip(self.query(Label), self._panes.values(), strict=True):
            label.absolute_offset = _place_of(pane)


def _panes_of(screen: Screen[object]) -> Iterator[Widget]:
    """What can take the focus and is in sight."""
    return (each for each in screen.focus_chain if each.region.intersection(screen.region).area)


def _place_of(pane: Widget) -> Offset:
    region = pane.screen.region.intersection(pane.region)
    return region.offset + (min(1, max(0, region.width - 3)), 0)
