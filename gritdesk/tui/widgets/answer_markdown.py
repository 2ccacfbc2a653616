"""Markdown that a model or a file wrote: formatted, and otherwise shown as it stands."""

from __future__ import annotations

from markdown_it import MarkdownIt
from textual.widgets import Markdown

_NOT_TAKEN = ("entity", "html_inline", "html_block", "link", "image", "autolink", "linkify", "reference")
"""Rules that would show less than there is, or something else: `vector<int>` lost its end, [1] became a link, an
entity became a character that turns the line around, and a link hid where it leads."""


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like").disable(_NOT_TAKEN)


class AnswerMarkdown(Markdown):
    """Holds nothing that leads anywhere; control characters are the caller's to take out (text.plain)."""

    def __init__(self, *, classes: str = "") -> None:
        super().__init__(classes=classes, parser_factory=_parser, open_links=False)
