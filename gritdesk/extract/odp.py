"""OpenDocument presentations and drawings -> text: a section per page, its title as heading; lines are counted within.

Speaker notes and comments belong to their page; dates, numbers and footers of pages are left out, because they stand
in its master. Hidden pages are shown.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from gritdesk.extract import odf
from gritdesk.extract.archive import Archive, attribute, local_name
from gritdesk.extract.builder import Builder
from gritdesk.records import Section


def read(archive: Archive, max_chars: int) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a presentation.

    Raises: Damaged; ExtractError if it asks for a password or its text is too large.
    """
    odf.refuse_encrypted(archive)
    builder = Builder(max_chars)
    pages = [each for each in archive.xml(odf.CONTENT).iter() if local_name(each) == "page"]
    for number, page in enumerate(pages, start=1):
        title = _title(page) or f"Slide {number}"
        builder.begin((title,), line=1, page=number)
        notes = [each for each in page if local_name(each) == "notes"]
        for each in notes:
            page.remove(each)
        for _, text in odf.blocks(page):
            builder.add(text)
        builder.begin((title, "Notes"), page=number)
        for each in notes:
            builder.add(odf.text_of(each))
    return builder.finish()


def _title(page: Element) -> str:
    for frame in page:
        if attribute(frame, "class") == "title":
            return " ".join(odf.text_of(frame).split())
    return ""
