"""File -> Document: bytes become characters here and nowhere else.

The reader is chosen by content first and by suffix second. Each format is one small module that gives a text and
its sections; what cannot be read raises ExtractError with a reason that a person can act on. Readers run in a
child process (see worker.py), because a file can make any library hang, crash or eat the memory.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from gritdesk.errors import ExtractError
from gritdesk.extract import text_formats
from gritdesk.extract.builder import too_much_text
from gritdesk.records import Document, Section
from gritdesk.walking import is_in_the_cloud

_PACKED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"\x28\xb5\x2f\xfd",
    b"Rar!\x1a\x07",
)
"""How gzip, bzip2, xz, 7z, zstd and rar begin."""
ZIP_SUFFIXES = frozenset(
    """.docx .docm .dotx .dotm .xlsx .xlsm .xltx .xltm .pptx .pptm .potx .potm .ppsx .ppsm .odt .ott .ods .ots .odp
    .otp .odg .epub""".split()
)
"""Of documents that are zips."""
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
"""What a new Office file with a password has in the shell of an old one."""
_MAX_TITLE_CHARS, _MAX_TITLES = 300, 20
_UNREADABLE_TEXT = re.compile("[\0\ud800-\udfff]")


def read_document(path: Path, max_bytes: int) -> Document:
    """Read one file of at most `max_bytes`.

    Raises: ExtractError with the reason if it is missing, unreadable, empty, too large, binary, of an unknown
        encoding, damaged, protected or without text.
    """
    content = _read_bytes(path, max_bytes)
    format_, text, sections = _read(path, content, max_bytes)
    if not text.strip():
        raise ExtractError("it holds no text")
    if len(text) > max_bytes:
        raise too_much_text(max_bytes)
    return Document(path, _readable(text), format_, tuple(_with_short_headings(sections)))


def _with_short_headings(sections: Iterable[Section]) -> Iterator[Section]:
    """A heading is repeated with every chunk below it, and some are whole chapters by mistake."""
    headings: dict[tuple[str, ...], tuple[str, ...]] = {}
    for section in sections:
        if section.heading not in headings:
            titles = (_readable(title[:_MAX_TITLE_CHARS]) for title in section.heading[:_MAX_TITLES])
            headings[section.heading] = tuple(titles)
        short = headings[section.heading]
        yield section if short == section.heading else replace(section, heading=short)


def _readable(text: str) -> str:
    return _UNREADABLE_TEXT.sub("\ufffd", text)


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ExtractError("it is not an ordinary file")
        if is_in_the_cloud(found):
            raise ExtractError("it lies in the cloud and not on this disk; download it to include it")
        if found.st_size > max_bytes:
            size = f"{found.st_size / 1e6:.1f} MB, more than {max_bytes / 1e6:g} MB"
            raise ExtractError(f"it is too large ({size}); raise index.max_file_mb to include it")
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise ExtractError("it is not there any more") from error
    except PermissionError as error:
        raise ExtractError("no permission to read it") from error
    except OSError as error:
        raise ExtractError(f"it cannot be read: {error.strerror}") from error
    if not content:
        raise ExtractError("it is empty")
    return content


def _read(path: Path, content: bytes, max_bytes: int) -> tuple[str, str, tuple[Section, ...]]:
    """(format, text, sections) by the reader that fits; a reader's module is imported when it is needed."""
    suffix = path.suffix.lower()
    if content[:1024].lstrip().startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in content[:1024]):
        from gritdesk.extract import pdf

        return "pdf", *pdf.read(content, max_bytes)
    if content.startswith(b"PK\x03\x04"):
        from gritdesk.extract import zipped

        return zipped.read(content, suffix, max_bytes)
    _refuse_other_than_text(suffix, content)
    return text_formats.read(suffix, content)


def _refuse_other_than_text(suffix: str, content: bytes) -> None:
    if suffix == ".pdf":
        raise ExtractError("it is damaged: its name says PDF, its content does not")
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        if _ENCRYPTED_PACKAGE in content:
            raise ExtractError("it is protected by a password; save it without one")
        raise ExtractError("it is an old Office file; save it as .docx, .xlsx or .pptx, a message as .eml")
    if content.startswith(_PACKED):
        raise ExtractError("it is a packed file or archive; unpack it to include what it holds")
    if suffix in ZIP_SUFFIXES:
        raise ExtractError(f"it is damaged: its name says {suffix[1:]}, its content does not")
