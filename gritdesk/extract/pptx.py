"""pptx and its kin -> text: a section per slide, its title as heading and its number as page; lines are counted within.

Shapes come in the order of the file, which is the order in which they were drawn. Tables, charts, diagrams, speaker
notes and comments belong to their slide; dates, numbers and footers of slides are left out. Hidden slides are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from gritdesk.extract import drawing
from gritdesk.extract.archive import attribute, local_name
from gritdesk.extract.builder import Builder
from gritdesk.extract.opc import Package, listed_parts
from gritdesk.records import Section

_TITLES = ("title", "ctrTitle")
_MARGINS = ("dt", "ftr", "hdr", "sldNum")


def read(package: Package, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a presentation.

    Raises: Damaged; ExtractError if its text is too large.
    """
    builder = Builder(max_chars)
    for number, (_, part) in enumerate(listed_parts(package, "sldIdLst"), start=1):
        slide = package.archive.xml(part)
        title = " ".join(" ".join(_titles(slide)).split()) or f"Slide {number}"
        builder.begin((title,), line=1, page=number)
        for text in [*_texts(slide), *drawing.drawn(package, part), *_comments(package, part)]:
            builder.add(text)
        builder.begin((title, "Notes"), page=number)
        for notes in package.related(part, "notesSlide"):
            for text in _texts(package.archive.xml(notes)):
                builder.add(text)
    return builder.finish()


def _titles(slide: Element) -> Iterator[str]:
    for shape in slide.iter():
        if local_name(shape) == "sp" and _placeholder(shape) in _TITLES:
            yield from drawing.paragraphs(shape)


def _texts(parent: Element) -> Iterator[str]:
    """Each shape's text and each table, groups opened."""
    for child in parent:
        match local_name(child):
            case "sp" if _placeholder(child) in _MARGINS:
                pass
            case "sp" | "cxnSp":
                yield "\n".join(filter(None, drawing.paragraphs(child)))
            case "tbl":
                yield "\n".join(_row(each) for each in child if local_name(each) == "tr")
            case "Fallback":  # a picture of what stands beside it
                pass
            case _:
                yield from _texts(child)


def _row(row: Element) -> str:
    cells = [" ".join(" ".join(drawing.paragraphs(each)).split()) for each in row if local_name(each) == "tc"]
    return " | ".join(cells)


def _placeholder(shape: Element) -> str | None:
    """What a shape stands for in the layout, such as its title."""
    return next((attribute(each, "type") for each in shape.iter() if local_name(each) == "ph"), None)


def _comments(package: Package, slide: str) -> Iterator[str]:
    for part in package.related(slide, "comments"):
        for each in package.archive.xml(part).iter():
            if local_name(each) == "text":
                yield each.text or ""
            elif local_name(each) == "txBody":
                yield "\n".join(drawing.paragraphs(each))
