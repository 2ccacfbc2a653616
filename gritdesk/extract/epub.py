"""EPUB -> text: its pages in reading order, each through the reader of HTML; chapters and their headings make sections.

Lines are those of this text: the lines of pages inside an archive tell a reader nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from gritdesk.errors import ExtractError
from gritdesk.extract import html
from gritdesk.extract.archive import Archive, Damaged, attribute, local_name
from gritdesk.extract.builder import Builder
from gritdesk.extract.decoding import decode
from gritdesk.records import Section

CONTAINER = "meta-inf/container.xml"
"""What every EPUB has, and no other archive."""
_ENCRYPTION = "meta-inf/encryption.xml"
_HEAD = re.compile(r"<head\b.*?</head\s*>|<head\s*/>", re.IGNORECASE | re.DOTALL)
_PAGES = ("application/xhtml+xml", "text/html")
_CONTENTS = "application/x-dtbncx+xml"


def read(archive: Archive, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a book.

    Raises: Damaged; ExtractError if it is encrypted or its text is too large.
    """
    builder = Builder(max_chars)
    book = _Book(archive)
    for text in book.names():
        builder.add(text)
    chapters = book.chapters()
    chapter = ""
    for page in book.pages():
        chapter = chapters.get(page.lower(), chapter)  # a long chapter has several pages, and names the first
        _add_page(builder, chapter, *html.read(_HEAD.sub("", _decoded(archive, page))))
    return builder.finish()


def _add_page(builder: Builder, chapter: str, text: str, sections: tuple[Section, ...]) -> None:
    ends = [*(section.start for section in sections[1:]), len(text)]
    heading: tuple[str, ...] | None = None
    gap = "\n\n"
    for section, end in zip(sections, ends, strict=True):
        found = section.heading if not chapter or chapter in section.heading else (chapter, *section.heading)
        if found != heading:
            heading = found
            builder.begin(found)
        piece = text[section.start : end]
        builder.add(piece, gap)
        gap = "" if piece.strip() else gap


def _decoded(archive: Archive, page: str) -> str:
    content = archive.read(page)
    try:
        return decode(content)
    except ExtractError as error:
        raise Damaged(f"{page}: {error}") from error


class _Book:
    """The package document: what a book is made of, and in which order it is read."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        rootfiles = [each for each in archive.xml(CONTAINER).iter() if local_name(each) == "rootfile"]
        path = next((attribute(each, "full-path") for each in rootfiles), None)
        if path is None:
            raise Damaged("the container names no book")
        self._folder = posixpath.dirname(path)
        self._package = archive.xml(path, may_have_dtd=True)
        self._items = {attribute(each, "id"): each for each in self._named("item")}

    def names(self) -> Iterator[str]:
        """Title and authors."""
        for name in ("title", "creator"):
            yield ", ".join(filter(None, (" ".join((each.text or "").split()) for each in self._named(name))))

    def pages(self) -> list[str]:
        """Members that hold the text, in reading order.

        Raises: Damaged if there are none; ExtractError if they are encrypted.
        """
        spine = [self._items.get(attribute(each, "idref")) for each in self._named("itemref")]
        found = [self._path(each) for each in spine if each is not None and attribute(each, "media-type") in _PAGES]
        pages = [page for page in found if page in self._archive]
        if not pages:
            raise Damaged("it names no pages")
        if not {page.lower() for page in pages}.isdisjoint(self._encrypted()):  # fonts often are, which is no matter
            raise ExtractError("it is protected by its seller (DRM); only the seller's own programs can read it")
        return pages

    def chapters(self) -> dict[str, str]:
        """Title of the chapter that begins with a page, by its name in lower case."""
        chapters: dict[str, str] = {}
        for item in self._items.values():
            is_contents = attribute(item, "media-type") == _CONTENTS
            if not is_contents and "nav" not in (attribute(item, "properties") or "").split():
                continue
            try:
                root = self._archive.xml(self._path(item), may_have_dtd=True)
            except Damaged:  # the pages have headings of their own
                continue
            folder = posixpath.dirname(self._path(item))
            for title, href in _points(root) if is_contents else _links(root):
                chapters.setdefault(_resolved(folder, href).lower(), title)
        return chapters

    def _encrypted(self) -> Iterator[str]:
        if _ENCRYPTION in self._archive:
            for each in self._archive.xml(_ENCRYPTION).iter():
                if local_name(each) == "CipherReference":
                    yield _resolved("", attribute(each, "URI") or "").lower()

    def _named(self, name: str) -> Iterator[Element]:
        return (each for each in self._package.iter() if local_name(each) == name)

    def _path(self, item: Element) -> str:
        return _resolved(self._folder, attribute(item, "href") or "")


def _resolved(folder: str, href: str) -> str:
    path = unquote(href.partition("#")[0])
    return posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")


def _points(contents: Element) -> Iterator[tuple[str, str]]:
    """(title, target) of each entry of an EPUB 2 table of contents."""
    for point in contents.iter():
        if local_name(point) == "navPoint":
            label = next((each for each in point if local_name(each) == "navLabel"), None)
            target = next((attribute(each, "src") for each in point if local_name(each) == "content"), None)
            if label is not None and target:
                yield " ".join("".join(label.itertext()).split()), target


def _links(contents: Element) -> Iterator[tuple[str, str]]:
    """(title, target) of each link of an EPUB 3 table of contents."""
    for link in contents.iter():
        if local_name(link) == "a" and (target := attribute(link, "href")):
            yield " ".join("".join(link.itertext()).split()), target
