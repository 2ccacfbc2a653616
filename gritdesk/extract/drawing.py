"""DrawingML, which office documents of all kinds draw with: the paragraphs of shapes, charts and diagrams."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from gritdesk.extract.archive import local_name
from gritdesk.extract.opc import Package

_DRAWN = ("chart", "chartEx", "diagramData")
"""Relationships to what stands in parts of its own."""


def paragraphs(root: Element) -> Iterator[str]:
    """Each paragraph below an element."""
    return (paragraph(each) for each in root.iter() if local_name(each) == "p")


def paragraph(element: Element) -> str:
    pieces = []
    for each in element.iter():
        match local_name(each):
            case "t":
                pieces.append(each.text or "")
            case "br":
                pieces.append("\n")
    return "".join(pieces).replace("\v", "\n").strip()


def drawn(package: Package, part: str) -> Iterator[str]:
    """The text of each chart and diagram of a part, a paragraph or label a line."""
    for kind in _DRAWN:
        for target in package.related(part, kind):
            root = package.archive.xml(target)
            yield "\n".join(filter(None, dict.fromkeys([*paragraphs(root), *_labels(root)])))


def _labels(root: Element) -> Iterator[str]:
    """Names of a chart's series and categories, as it keeps them beside the sheet they come from."""
    for cache in root.iter():
        if local_name(cache) == "strCache":
            for value in cache.iter():
                if local_name(value) == "v" and value.text:
                    yield " ".join(value.text.split())
