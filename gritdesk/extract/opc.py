"""The package that docx, xlsx and pptx share (ECMA-376 part 2): parts, and relationships from one to another."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from gritdesk.extract.archive import Archive, Damaged, attribute, local_name

_USUAL_MAIN_PARTS = ("word/document.xml", "xl/workbook.xml", "ppt/presentation.xml")


class Package:
    """An archive whose parts name each other."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    @cached_property
    def main_part(self) -> str:
        """Name of the part that the others belong to; "" if this is no office document."""
        if "_rels/.rels" in self.archive:
            for part in self.related("", "officeDocument"):
                return part
        return next((part for part in _USUAL_MAIN_PARTS if part in self.archive), "")

    @cached_property
    def main(self) -> Element:
        """Root of the main part.

        Raises: Damaged if there is none.
        """
        return self.archive.xml(self.main_part)

    def related(self, part: str, kind: str) -> Iterator[str]:
        """Names of the parts that are there and that `part` names as its `kind`, the last word of such a type."""
        for _, found_kind, target in self._relationships(part):
            if found_kind == kind and target in self.archive:
                yield target

    def targets(self, part: str) -> dict[str, str]:
        """Part by relationship id."""
        return {id_: target for id_, _, target in self._relationships(part)}

    def _relationships(self, part: str) -> Iterator[tuple[str, str, str]]:
        """(id, kind, target) of each relationship of a part to another."""
        folder, name = posixpath.split(part)
        rels = posixpath.join(folder, "_rels", f"{name}.rels")
        if rels not in self.archive:
            return
        for each in self.archive.xml(rels):
            target = attribute(each, "Target")
            if local_name(each) != "Relationship" or target is None or attribute(each, "TargetMode") == "External":
                continue
            path = posixpath.normpath(posixpath.join("/", folder, unquote(target)))
            yield attribute(each, "Id") or "", (attribute(each, "Type") or "").rpartition("/")[2], path.lstrip("/")


def listed_parts(package: Package, list_name: str) -> Iterator[tuple[Element, str]]:
    """(entry, its part) of a list in the main part; extensions further in have entries of the same name without parts.

    Raises: Damaged if an entry names no part.
    """
    targets = package.targets(package.main_part)
    for entries in package.main:
        if local_name(entries) == list_name:
            for entry in entries:
                part = targets.get(_relationship_id(entry))
                if part is None:
                    raise Damaged(f"{local_name(entry)} names no part")
                yield entry, part


def _relationship_id(element: Element) -> str:
    """The r:id of an element; its other id, if it has one, is without a namespace."""
    return next((value for key, value in element.items() if key.startswith("{") and key.endswith("}id")), "")
