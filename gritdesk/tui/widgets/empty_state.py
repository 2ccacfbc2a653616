"""What a screen says when it has nothing to show: why, and the one thing to do about it."""

from __future__ import annotations

from textual.content import Content
from textual.dom import DOMNode
from textual.widgets import Static

from gritdesk.tui.keymap import keymap_of


class EmptyState(Static):
    _said = Content()

    def say(self, title: str, *lines: str) -> None:
        """A title and what to do; `lines` may name bindings by their ids between backquotes. All is taken as text."""
        body = Content("\n").join([with_keys(self, line) for line in lines])
        said = Content.assemble((title, "bold"), "\n\n", body.stylize_before("$text-muted"))
        if not said.is_same(self._said):
            self._said = said
            self.update(said, layout=False)  # it takes what room there is, whatever it says


def with_keys(node: DOMNode, line: str) -> Content:
    """A line of text with the ids of bindings between backquotes as their keys, set off."""
    parts = keymap_of(node).told(line).split("`")
    return Content.assemble(*[(part, "bold $text-primary" if index % 2 else "") for index, part in enumerate(parts)])
