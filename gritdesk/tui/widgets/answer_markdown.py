"""Markdown that a model or a file wrote: formatted, and otherwise shown as it stands."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual.widgets import Markdown

from gritdesk.extract.text_formats import MARKDOWN_SUFFIXES
from gritdesk.tui.text import plain

_NOT_TAKEN = ("entity", "html_inline", "html_block", "link", "image", "autolink", "linkify", "reference")
"""Rules that would show less than there is, or something else: `vector<int>` lost its end, [1] became a link, an
entity became a character that turns the line around, and a link hid where it leads."""


def text_of(quote: str, path: Path) -> str:
    """What a quote says, on one line: that of a Markdown file without its marks."""
    if path.suffix.lower() in MARKDOWN_SUFFIXES:
        quote = " ".join(map(_said, _parser().parse(quote))) or quote
    return plain(" ".join(quote.split()))


def _said(block: Token) -> str:
    if block.type == "list_item_open":  # "1." or "1984." are part of what is said
        return block.info and block.info + block.markup
    return "".join(" " if each.type.endswith("break") else each.content for each in block.children or [block])


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like").disable(_NOT_TAKEN)


class AnswerMarkdown(Markdown):
    """Holds nothing that leads anywhere; control characters are the caller's to take out (text.plain)."""

    def __init__(self, *, classes: str = "") -> None:
        super().__init__(classes=classes, parser_factory=_parser, open_links=False)
