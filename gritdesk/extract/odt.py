"""OpenDocument texts -> text: a paragraph or table row a line, headings make sections. Lines are those of this text.

Footnotes, comments and boxes follow the paragraph that holds them; deleted text and tables of contents are left out,
headers and footers come once, at the end.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from gritdesk.extract import odf
from gritdesk.extract.archive import Archive, attribute, local_name
from gritdesk.extract.builder import Builder
from gritdesk.records import Section

_STYLES = "styles.xml"
_MARGINS = ("header", "footer", "header-left", "footer-left", "header-first", "footer-first")


def read(archive: Archive, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: Damaged; ExtractError if it asks for a password or its text is too large.
    """
    odf.refuse_encrypted(archive)
    builder = Builder(max_chars)
    content = archive.xml(odf.CONTENT)
    titles = _title_styles(content)
    for body in content:
        if local_name(body) != "body":
            continue
        for level, text in odf.blocks(body, titles):
            if level:
                builder.add_heading(level, text)
            else:
                builder.add(text)
    if _STYLES in archive:
        margins = [odf.text_of(each) for each in archive.xml(_STYLES).iter() if local_name(each) in _MARGINS]
        builder.begin()
        for text in dict.fromkeys(margins):
            builder.add(text)
    return builder.finish()


def _title_styles(content: Element) -> frozenset[str]:
    """The style named Title, and those a program made of it for single paragraphs."""
    names = {"Title"}
    for style in content.iter():
        if local_name(style) == "style" and attribute(style, "parent-style-name") == "Title":
            names.add(attribute(style, "name") or "Title")
    return frozenset(names)
