"""The floor of benchmarks/frame.py: a Textual app of one line to type into, importing nothing else."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Input

MARK = "a bare app"
BORDER = "▊ "


class BareApp(App[None]):
    BINDINGS = [("ctrl+q", "quit"), ("escape", "clear")]

    def compose(self) -> ComposeResult:
        yield Input(placeholder=MARK)

    def action_clear(self) -> None:
        self.query_one(Input).value = ""


if __name__ == "__main__":
    BareApp().run()
