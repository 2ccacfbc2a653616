"""A zip of unknown origin -> its members and their XML, whatever it tries.

Of a bomb nothing is unpacked: what the members say of their sizes is added up first, and no more of a member is
unpacked than it says (of zip's other compressions `zipfile` unpacks whole blocks at once, so they are refused). An
archive inside is a member like others and is never opened. XML may declare no entities, which could stand for
gigabytes or for files of this machine: they can only be declared before the root (XML 1.0, 2.8), so expat reads up to
there, and the fast parser after it has nothing left to refuse. (defusedxml does the same in Python code throughout: a
sheet takes it four times as long.)
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError
from xml.parsers import expat

from gritdesk.errors import ExtractError

_MAX_MEMBERS = 20_000
"""A presentation of 500 slides has some 3,000."""
_MAX_RATIO = 100
"""Where Apache POI, too, takes a member for a bomb (ZipSecureFile)."""
_HARMLESS_BYTES = 20_000_000
"""What may be unpacked from however little."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""All that office programs write."""
_IS_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, OverflowError, ValueError)
"""What zipfile raises for damaged archives; a wrong name in one is a UnicodeDecodeError, which is a ValueError."""
_PIECE_BYTES = 1 << 16
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
        if unpacked_bytes > max(_MAX_RATIO * len(content), _HARMLESS_BYTES):
            raise ExtractError(
                f"it unpacks to {unpacked_bytes / 1e6:,.0f} MB, {unpacked_bytes // len(content):,} times its size, as "
                "documents do not and bombs do; it was not opened; if it is sound, save it in another format"
            )
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
        content = self.read(name)
        _refuse_entities(io.BytesIO(content), may_have_dtd)
        try:
            return ElementTree.fromstring(content)
        except _NO_XML as error:
            raise _xml_error(name, error) from error

    def elements(
        self, name: str, wanted: Collection[str], events: Sequence[Literal["start", "end"]] = ("end",)
    ) -> Iterator[tuple[str, Element]]:
        """(event, element) of those local names in a large XML member as it is read.

        Whoever is done with an element clears it: one may be many times as large as memory.
        Raises: what `xml` raises.
        """
        with self._open(name) as file:
            _refuse_entities(file, may_have_dtd=False)
        parser: Any = ElementTree.XMLPullParser(events)  # whose events are of many types
        with self._open(name) as file:
            try:
                while piece := file.read(_PIECE_BYTES):
                    parser.feed(piece)
                    for event, element in parser.read_events():
                        if element.tag.rpartition("}")[2] in wanted:
                            yield event, element
                parser.close()
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


_NO_XML = (ParseError, LookupError)
"""Of what comes from expat; an encoding that Python does not know is a LookupError."""


class _RootBegins(Exception):
    pass


def _refuse_entities(file: IO[bytes], may_have_dtd: bool) -> None:
    """Read up to the root; damage is left for the parser to find.

    Raises: ExtractError if entities are declared there, or could be in another file.
    """

    def refuse(*_: object) -> None:
        raise ExtractError(
            "it declares XML entities, as no program for such files does and as attacks do; it was not opened"
        )

    def stop(*_: object) -> None:
        raise _RootBegins

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop
    if not may_have_dtd:
        parser.StartDoctypeDeclHandler = refuse
    try:
        parser.ParseFile(file)
    except (_RootBegins, expat.ExpatError, LookupError, *_DAMAGE):
        pass


def _xml_error(name: str, error: Exception) -> Exception:
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
