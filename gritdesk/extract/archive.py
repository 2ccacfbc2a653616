"""A zip of unknown origin -> its members and their XML, whatever it tries.

Of a bomb nothing is unpacked: what the members say of their sizes is added up first, and no more of a member is
unpacked than it says (of zip's other compressions `zipfile` unpacks whole blocks at once, so they are refused). An
archive inside is a member like others and is never opened. XML may declare no entities, which could stand for
gigabytes or for files of this machine.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from gritdesk.errors import ExtractError

_MAX_MEMBERS = 20_000
"""A presentation of 500 slides has some 3,000."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""All that office programs write."""
_IS_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, OverflowError, ValueError)
"""What zipfile raises for damaged archives; a wrong name in one is a UnicodeDecodeError, which is a ValueError."""
_OUT_OF_MEMORY = 1  # of expat


class Damaged(Exception):
    """The file is not what it should be; whoever knows its format makes the sentence for people of it."""


class Archive:
    """The members of a zip, known by names in lower case with "/" between folders.

    Raises: Damaged if it is no whole zip; ExtractError if it would unpack to more than `max_unpacked_bytes`.
    """

    def __init__(self, content: bytes, max_unpacked_bytes: int) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except _DAMAGE as error:
            raise Damaged(str(error)) from error
        members = self._zip.infolist()
        if len(members) > _MAX_MEMBERS:
            raise ExtractError(f"it packs {len(members):,} files, more than a document ever has; it was not opened")
        unpacked_bytes = sum(member.file_size for member in members)
        if unpacked_bytes > max_unpacked_bytes:
            raise ExtractError(
                f"it unpacks to {unpacked_bytes / 1e6:,.0f} MB, more than a document needs; it was not opened; "
                "if it is sound, raise index.max_file_mb to include it"
            )
        self._members = {member.filename.replace("\\", "/").lower(): member for member in members}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def read(self, name: str) -> bytes:
        """One member.

        Raises: Damaged if it is not there or not whole; ExtractError if it is encrypted.
        """
        with self._open(name) as file:
            try:
                return file.read(
                    self._members[name.lower()].file_size
                )  # without a number it unpacks all, whatever size
            except _DAMAGE as error:
                raise Damaged(f"{name}: {error}") from error

    def xml(self, name: str, *, may_have_dtd: bool = False) -> Element:
        """The root of a member that is XML; a document type is refused unless the format's own programs write one.

        Raises: what `read` raises; Damaged if it is no XML; ExtractError if it declares entities.
        """
        try:
            root: Element = ElementTree.fromstring(self.read(name), forbid_dtd=not may_have_dtd)
        except _NO_XML as error:
            raise _xml_error(name, error) from error
        return root

    def elements(self, name: str) -> Iterator[tuple[str, Element]]:
        """("start" or "end", element) of a large XML member as it is read; to be cleared by whoever is done with them.

        Raises: what `xml` raises.
        """
        with self._open(name) as file:
            try:
                yield from ElementTree.iterparse(file, ("start", "end"), forbid_dtd=True)
            except _NO_XML as error:
                raise _xml_error(name, error) from error
            except _DAMAGE as error:
                raise Damaged(f"{name}: {error}") from error

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name.lower())
        if member is None:
            raise Damaged(f"{name} is missing")
        if member.flag_bits & _IS_ENCRYPTED:
            raise ExtractError("it is protected by a password; save it without one")
        if member.compress_type not in _COMPRESSIONS:
            raise Damaged(f"{name} is compressed as no office program does it")
        try:
            return self._zip.open(member)
        except _DAMAGE as error:
            raise Damaged(f"{name}: {error}") from error


_NO_XML = (ParseError, DefusedXmlException, LookupError)
"""Of what comes from expat; an encoding that Python does not know is a LookupError."""


def _xml_error(name: str, error: Exception) -> Exception:
    if isinstance(error, DefusedXmlException):
        return ExtractError(
            "it declares XML entities, as no program for such files does and as attacks do; it was not opened"
        )
    if isinstance(error, ParseError) and error.code == _OUT_OF_MEMORY:
        return MemoryError()
    return Damaged(f"{name}: {error}")


def local_name(element: Element) -> str:
    """An element's name without its namespace: the strict and the usual forms of a format differ in nothing else."""
    return str(element.tag).rpartition("}")[2]


def attribute(element: Element, name: str) -> str | None:
    """An attribute by its name without the namespace."""
    for key, value in element.items():
        if key.rpartition("}")[2] == name:
            return value
    return None


def number(text: str | None, default: int) -> int:
    """A count of an attribute; the default where there is none, or no number a document could mean."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else default
