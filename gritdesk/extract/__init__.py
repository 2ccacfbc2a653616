"""File -> Document: bytes become characters here and nowhere else.

The reader is chosen by content first and by suffix second. Each format is one small module that gives a text and
its sections; what cannot be read raises ExtractError with a reason that a person can act on. Readers run in a
child process (see worker.py), because a file can make any library hang, crash or eat the memory.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from gritdesk.errors import ExtractError
from gritdesk.extract.decoding import decode
from gritdesk.records import Document, Section
from gritdesk.walking import is_in_the_cloud

_MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx"})
_HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
_CODE_SUFFIXES = frozenset(
    """.py .pyi .pyx .js .mjs .cjs .jsx .ts .tsx .java .kt .scala .c .h .cc .cpp .cxx .hh .hpp .cs .go .rs .rb .php
    .swift .m .lua .pl .pm .r .jl .sh .bash .zsh .fish .ps1 .bat .sql .css .scss .toml .yaml .yml .json .xml .ini .cfg
    .cmake .mk .gradle .vim .el .clj .ex .exs .erl .hs .ml .nim .zig .dart .v .vhd .tf .proto .asm .s""".split()
)

_PACKED = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"\x28\xb5\x2f\xfd",
    b"Rar!\x1a\x07",
)
"""How gzip, zip, bzip2, xz, 7z, zstd and rar begin."""
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
        raise ExtractError(f"its text is larger than {max_bytes / 1e6:.0f} MB; raise index.max_file_mb to include it")
    return Document(path, _UNREADABLE_TEXT.sub("\ufffd", text), format_, sections)


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
    if b"%PDF-" in content[:1024]:
        from gritdesk.extract import pdf

        return "pdf", *pdf.read(content)
    if content.startswith(b"PK\x03\x04") and b"word/document.xml" in content:
        from gritdesk.extract import docx

        return "docx", *docx.read(content, max_unpacked_bytes=8 * max_bytes)
    _refuse_other_than_text(suffix, content)
    text = decode(content)
    if suffix in _HTML_SUFFIXES or text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        from gritdesk.extract import html

        return "html", *html.read(text)
    if suffix in _MARKDOWN_SUFFIXES:
        from gritdesk.extract import markdown

        return "markdown", text, markdown.sections(text)
    if suffix in _CODE_SUFFIXES or text.startswith("#!"):
        from gritdesk.extract import code

        return "code", text, code.sections(text)
    return "text", text, (Section(0, 1),)


def _refuse_other_than_text(suffix: str, content: bytes) -> None:
    if suffix == ".pdf":
        raise ExtractError("it is damaged: its name says PDF, its content does not")
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise ExtractError("it is an old or password-protected Office file; save it as .docx without a password")
    if content.startswith(_PACKED):
        raise ExtractError("it is a packed file or archive; unpack it to include what it holds")
    if suffix == ".docx":
        raise ExtractError("it is damaged: its name says docx, its content does not")
