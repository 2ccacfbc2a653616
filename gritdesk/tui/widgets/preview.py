"""What stands beside a list of hits: the highlighted one in its surroundings, and under it the files like its own."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from gritdesk.records import Hit
from gritdesk.tui.text import Surroundings, heading_path, one_line, opens_as_text, place
from gritdesk.tui.widgets.passage_view import PassageView

_ROWS_A_STEP = 3


class Preview(Vertical):
    def compose(self) -> ComposeResult:
        yield Static(id="preview-title")
        yield PassageView(id="preview-text")
        yield Static(id="preview-related")

    def show(self, hit: Hit, surroundings: Surroundings, words: Sequence[str]) -> None:
        title = "  ".join(part for part in (one_line(hit.path.name), place(hit), heading_path(hit)) if part)
        self.query_one("#preview-title", Static).update(Content(title), layout=False)
        self.query_one(PassageView).show(surroundings, words, numbered=opens_as_text(hit))

    def clear(self) -> None:
        self.query_one("#preview-title", Static).update("", layout=False)
        self.query_one(PassageView).clear()
        self.show_related(())

    def show_related(self, names: Sequence[str]) -> None:
        """Names of files like the shown one; none clears the line."""
        line = Content.assemble(("related  ", "$text-muted"), " · ".join(map(one_line, names))) if names else ""
        self.query_one("#preview-related", Static).update(line, layout=False)

    def scroll_text(self, steps: int) -> None:
        """Some rows down, or up if `steps` is negative."""
        self.query_one(PassageView).scroll_relative(y=_ROWS_A_STEP * steps, animate=False)
