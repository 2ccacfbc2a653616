"""docx and its kin -> text: a paragraph or table row a line, headings make sections. Lines are those of this text.

All that a reader of the document sees is in it, wherever it stands: content controls, tracked insertions, text
boxes, tables in tables, footnotes (after the paragraph that calls them), comments, headers and footers (once, at the
end), charts and diagrams. Deleted text, field codes and tables of contents are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from gritdesk.extract import drawing
from gritdesk.extract.archive import attribute, local_name, number
from gritdesk.extract.builder import Builder
from gritdesk.extract.opc import Package
from gritdesk.records import Section

# rt is how the base of a w:ruby is pronounced
_SKIPPED = frozenset({"del", "moveFrom", "Fallback", "instrText", "delText", "rt", "pPr", "rPr", "tblPr", "sdtPr"})
_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes", "commentReference": "comments"}
"""What calls a note, and as what the document names the part that holds it."""
_Block = tuple[int, str]
"""(heading level or 0, text)."""


def read(package: Package, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document.

    Raises: Damaged; ExtractError if its text is too large.
    """
    builder = Builder(max_chars)
    document = _Document(package)
    for level, text in document.blocks():
        if level:
            builder.add_heading(level, text)
        else:
            builder.add(text)
    builder.begin()
    for text in document.beside():
        builder.add(text)
    return builder.finish()


class _Document:
    def __init__(self, package: Package) -> None:
        self._package = package
        self._styles = {_value(each, "styleId"): each for each in self._part("styles")}
        self._levels: dict[str, int] = {}
        """Heading level by style, of those that were met."""
        self._notes = {(call, _value(note, "id")): note for call, kind in _NOTES.items() for note in self._part(kind)}

    def blocks(self) -> Iterator[_Block]:
        """What stands in the document, in its order."""
        return self._blocks(self._package.main)

    def beside(self) -> Iterator[str]:
        """Charts and diagrams, headers and footers."""
        package, main_part = self._package, self._package.main_part
        yield from drawing.drawn(package, main_part)
        margins = [
            text
            for kind in ("header", "footer")
            for part in package.related(main_part, kind)
            for _, text in self._blocks(package.archive.xml(part))
        ]
        yield from dict.fromkeys(margins)  # first, left and right pages say much the same

    def _part(self, kind: str) -> Iterator[Element]:
        for part in self._package.related(self._package.main_part, kind):
            yield from self._package.archive.xml(part)

    def _blocks(self, parent: Element) -> Iterator[_Block]:
        for child in parent:
            match local_name(child):
                case "p":
                    yield from self._paragraph(child)
                case "tbl":
                    yield 0, "\n".join(filter(None, map(self._row, _within(child, "tr"))))
                case name if name not in _SKIPPED:
                    yield from self._blocks(child)

    def _paragraph(self, paragraph: Element) -> Iterator[_Block]:
        properties = next(_children(paragraph, "pPr"), None)
        style = _child_value(properties, "pStyle")
        if self._style_name(style).startswith("toc "):
            return
        below: list[Element] = []
        text = "".join(self._inline(paragraph, below))
        yield _outline_level(properties) or self._style_level(style), text
        for each in below:
            yield from self._blocks(each)

    def _inline(self, parent: Element, below: list[Element]) -> Iterator[str]:
        """The text of a paragraph; text boxes and notes in it go to `below`."""
        for child in parent:
            name = local_name(child)
            if name == "t":
                yield child.text or ""
            elif name in _CHARACTERS:
                yield _CHARACTERS[name]
            elif name == "txbxContent":
                below.append(child)
            elif name in _NOTES:
                note = self._notes.pop((name, _value(child, "id")), None)  # a note that calls itself has no end
                if note is not None:
                    below.append(note)
            elif name not in _SKIPPED:
                yield from self._inline(child, below)

    def _row(self, row: Element) -> str:
        cells = [" ".join(" ".join(text for _, text in self._blocks(cell)).split()) for cell in _within(row, "tc")]
        return " | ".join(cells) if any(cells) else ""

    def _style_level(self, style: str) -> int:
        """Heading level of a style, or else of the nearest that it is based on; the title is above all headings."""
        if style not in self._levels:
            self._levels[style] = 0  # for styles that are based on each other in a circle
            name, element = self._style_name(style), self._styles.get(style)
            if name == "title":
                self._levels[style] = 1
            elif name.startswith("heading "):
                self._levels[style] = number(name[8:], -1) + 1
            elif element is not None:
                level = _outline_level(next(_children(element, "pPr"), None))
                self._levels[style] = level or self._style_level(_child_value(element, "basedOn"))
        return self._levels[style]

    def _style_name(self, style: str) -> str:
        return _child_value(self._styles.get(style), "name").lower()


def _within(parent: Element, name: str) -> Iterator[Element]:
    """The nearest descendants of a name: content controls may stand around rows and cells."""
    for child in parent:
        if local_name(child) == name:
            yield child
        elif local_name(child) not in _SKIPPED:
            yield from _within(child, name)


def _outline_level(properties: Element | None) -> int:
    """Heading level by the outline levels 0 to 8; 9 is body text."""
    level = number(_child_value(properties, "outlineLvl"), 9)
    return level + 2 if level < 9 else 0


def _child_value(parent: Element | None, name: str) -> str:
    return next(map(_value, _children(parent, name)), "") if parent is not None else ""


def _children(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if local_name(child) == name)


def _value(element: Element, name: str = "val") -> str:
    return attribute(element, name) or ""
