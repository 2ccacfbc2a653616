"""The bottom line: the few keys that matter here, as many as fit; F1 shows all of them."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_PADDING = 3
"""Cells that Textual leaves around a key and its word."""


class KeyFooter(Footer):
    """Textual's footer, of which the last keys but the very last, help, go first where there is too little room."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False)

    def compose(self) -> ComposeResult:
        keys = [each for each in super().compose() if isinstance(each, FooterKey)]
        room = self.size.width or self.app.size.width
        while len(keys) > 1 and sum(map(_width, keys)) > room:
            del keys[-2]
        yield from keys

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.recompose)


def _width(key: FooterKey) -> int:
    return len(key.key_display) + len(key.description) + _PADDING
