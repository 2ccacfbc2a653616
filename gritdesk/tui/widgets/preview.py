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
    """Draws anew only what changes: hits by meaning mostly bring the same first hit as those by words."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[object, ...] = ()
        self._lines: dict[str, Content] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="preview-title")
        yield PassageView(id="preview-text")
        yield Static(id="preview-related")

    def show(self, hit: Hit, surroundings: Surroundings, words: Sequence[str]) -> None:
        title = "  ".join(part for part in (one_line(hit.path.name), place(hit), heading_path(hit)) if part)
        self._say("#preview-title", Content(title))
        shown = (hit.path, hit.chunk, surroundings, tuple(words))
        if shown != self._shown:
            self._shown = shown
            self.query_one(PassageView).show(surroundings, words, numbered=opens_as_text(hit))

    def clear(self) -> None:
        self._shown = ()
        self._say("#preview-title", Content())
        self.query_one(PassageView).clear()
        self.show_related(())

    def show_related(self, names: Sequence[str]) -> None:
        """Names of files like the shown one; none clears the line."""
        related = Content.assemble(("related  ", "$text-muted"), " · ".join(map(one_line, names)))
        self._say("#preview-related", related if names else Content())

    def _say(self, selector: str, line: Content) -> None:
        if not line.is_same(self._lines.get(selector, Content())):
            self._lines[selector] = line
            self.query_one(selector, Static).update(line, layout=False)

    def scroll_text(self, steps: int) -> None:
        """Some rows down, or up if `steps` is negative."""
        self.query_one(PassageView).scroll_relative(y=_ROWS_A_STEP * steps, animate=False)
