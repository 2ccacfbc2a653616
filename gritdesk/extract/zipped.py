"""A zip -> the reader of the documents that come as zips, chosen by what is inside. Other archives are refused."""

from __future__ import annotations

import re
from collections.abc import Callable

from gritdesk.errors import ExtractError
from gritdesk.extract import ZIP_SUFFIXES, docx, epub, odp, ods, odt, pptx, xlsx
from gritdesk.extract.archive import Archive, Damaged, local_name
from gritdesk.extract.opc import Package
from gritdesk.records import Section

_UNPACKED = 8
"""What a document may unpack to, as a multiple of the largest file that is read."""

_Read = tuple[str, tuple[Section, ...]]
_OPENDOCUMENT = "application/vnd.oasis.opendocument."
_BY_MIMETYPE: dict[str, tuple[str, Callable[[Archive, int], _Read]]] = {
    "text": ("odt", odt.read),
    "spreadsheet": ("ods", ods.read),
    "presentation": ("odp", odp.read),
    "graphics": ("odp", odp.read),
}
"""(format, reader) by what the member named mimetype says of an OpenDocument, where templates add "-template"."""
_BY_ROOT: dict[str, tuple[str, Callable[[Package, int], _Read]]] = {
    "document": ("docx", docx.read),
    "workbook": ("xlsx", xlsx.read),
    "presentation": ("pptx", pptx.read),
}
"""(format, reader) of Microsoft's formats by the root of the main part, alike with macros and for templates."""
_NAME = rb"PK\x03\x04.{26}"
"""What a member begins with, up to its name."""
_MARKS = {
    "docx": _NAME + rb"word/",
    "xlsx": _NAME + rb"xl/",
    "pptx": _NAME + rb"ppt/",
    "odt": rb"opendocument\.text",
    "ods": rb"opendocument\.spreadsheet",
    "odp": rb"opendocument\.presentation",
    "epub": rb"application/epub\+zip",
    "Office file": _NAME + rb"\[Content_Types\]",
}
"""What shows of a zip that cannot be opened which format it was: neither names nor mimetypes are packed."""
_APPLE = {".pages": "docx", ".numbers": "xlsx", ".key": "pptx"}
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".emf", ".wmf", ".svg", ".webp", ".jp2")
_PREVIEW = "thumbnail"
"""A picture of the document for the file manager."""


def read(content: bytes, suffix: str, max_bytes: int) -> tuple[str, str, tuple[Section, ...]]:
    """(format, text, sections) of a document.

    Raises: ExtractError if it is another archive, damaged, protected, a bomb, or has nothing but pictures.
    """
    format_, archive = "", None
    try:
        archive = Archive(content, max_unpacked_bytes=_UNPACKED * max_bytes)
        format_, open_and_read = _reader(archive)
        text, sections = open_and_read(max_bytes)
    except (Damaged, RecursionError) as error:
        may_be_known = archive is None or "[content_types].xml" in archive  # and no archive that holds a document
        kind = format_ or (_kind(content) if may_be_known else "") or (suffix[1:] if suffix in ZIP_SUFFIXES else "")
        if not kind:
            raise _other_archive(suffix) from error
        raise ExtractError(f"it is a damaged {kind}; open it where it was made and save it anew") from error
    if not text.strip() and any(name.endswith(_PICTURES) and _PREVIEW not in name for name in archive):
        raise ExtractError("it has no text layer, only pictures; run text recognition (OCR) over it and save it again")
    return format_, text, sections


def _reader(archive: Archive) -> tuple[str, Callable[[int], _Read]]:
    """(format, what reads at most so many characters of it).

    Raises: Damaged if it is no document of these formats.
    """
    mimetype = archive.read("mimetype").decode("ascii", "replace").strip() if "mimetype" in archive else ""
    if mimetype == "application/epub+zip" or epub.CONTAINER in archive:
        return "epub", lambda max_chars: epub.read(archive, max_chars)
    if found := _BY_MIMETYPE.get(mimetype.removeprefix(_OPENDOCUMENT).partition("-")[0]):
        format_, read_archive = found
        return format_, lambda max_chars: read_archive(archive, max_chars)
    package = Package(archive)
    if package.main_part.endswith(".bin"):
        raise ExtractError("it is a binary workbook; save it as .xlsx")
    if found_package := _BY_ROOT.get(local_name(package.main)):
        format_, read_package = found_package
        return format_, lambda max_chars: read_package(package, max_chars)
    raise Damaged(f"{package.main_part} is of no known kind")


def _kind(content: bytes) -> str:
    return next((kind for kind, mark in _MARKS.items() if re.search(mark, content, re.DOTALL)), "")


def _other_archive(suffix: str) -> ExtractError:
    if suffix in _APPLE:
        return ExtractError(f"it is a document of Apple's own format; export it as {_APPLE[suffix]} or PDF")
    return ExtractError("it is a packed file or archive; unpack it to include what it holds")
