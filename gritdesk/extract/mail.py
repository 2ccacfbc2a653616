"""eml and mbox -> text: of each message who, to whom, when and about what, then what it says, then its attachments.

The body is the plain one, or the HTML one where the plain one only says that there is another. Attached text is read,
other attachments are named. Each message is a section, and its lines are those of the source wherever the source
spells the text in lines: base64 gives its first.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import Parser

from gritdesk.errors import ExtractError
from gritdesk.extract import html
from gritdesk.extract.decoding import decode
from gritdesk.extract.source_lines import Block, join
from gritdesk.records import Section

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_FROM_LINE = re.compile(r"^From [^\n]*\d\d:\d\d[^\n]*\n(?=[!-9;-~]+:|>From )", re.MULTILINE)
"""What begins a message in a mbox: a blank line is above it, a header below."""
_HEADER_LINE = re.compile(rb"(?:Return-Path|Received|Delivered-To|X-[\w-]+|Message-ID|From|To|Date|Subject):", re.I)
_SENDER, _ENVELOPE = re.compile(rb"^From:", re.I | re.M), re.compile(rb"^(?:Date|Received|Message-ID):", re.I | re.M)
_MAX_BOUNDARIES = 300
"""More make the parser slow, which holds each line against all of them; the parts are then read as one text."""
_MAX_HEADER_CHARS = 5000
_MAX_DEPTH = 30
"""Of parts inside parts."""


def begins(content: bytes) -> bool:
    """Whether it is a mbox, or a message, by how it begins: Thunderbird's and a Maildir's files have no suffix."""
    headers = re.split(rb"\r?\n\r?\n", content[:65536], maxsplit=1)[0]
    is_message = _HEADER_LINE.match(headers) and _SENDER.search(headers) and _ENVELOPE.search(headers)
    return bool(is_message or _FROM_LINE.match(content[:4096].decode("latin-1").replace("\r\n", "\n")))


def read(content: bytes) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a message or of a mailbox.

    Raises: ExtractError if no message is in it, or one is damaged beyond reading.
    """
    source = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("ascii", "surrogateescape")
    newlines = [match.start() for match in re.finditer("\n", source)]
    blocks: list[Block] = []
    try:
        for start, end in _messages(source):
            blocks += _Reader(source, newlines, start, end).blocks()
    except (MessageError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # the parser promises to raise nothing, and on odd headers lets through all of these
        raise ExtractError("it is a damaged message; export it anew from the mail program") from error
    if not blocks:
        raise ExtractError("it holds no message: it does not begin with headers as From: and Subject:")
    return join(blocks)


def _messages(source: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each message in the source."""
    length = re.match(r"(\d{1,9})[ \t]*\n", source)
    if length:  # Apple Mail's .emlx: the message's bytes, then the message, then a property list
        yield length.end(), length.end() + int(length[1])
        return
    lines = [each for each in _FROM_LINE.finditer(source) if each.start() < 2 or source[each.start() - 2] == "\n"]
    if not lines or lines[0].start() > 0:
        yield 0, len(source)
        return
    for each, end in zip(lines, [*(each.start() for each in lines[1:]), len(source)], strict=True):
        yield each.end(), end


class _Reader:
    """One message as blocks, each with its line in the source.

    Args:
        newlines: where they stand in the source.
    """

    def __init__(self, source: str, newlines: Sequence[int], start: int, end: int) -> None:
        self._source = source
        self._newlines = newlines
        self._at = start  # parts stand in the source in the order in which they are read
        self._end = end

    def blocks(self) -> Iterator[Block]:
        is_nested = self._source.count("boundary=", self._at, self._end) > _MAX_BOUNDARIES
        message = Parser().parsestr(self._source[self._at : self._end], headersonly=is_nested)
        yield from self._message(message, (), 0)

    def _message(self, message: Message, above: tuple[str, ...], depth: int) -> Iterator[Block]:
        header_end = self._source.find("\n\n", self._at, self._end)
        header_end = self._end if header_end < 0 else header_end
        values = {name: value for name in _HEADERS if (value := _header(message, name))}
        if not values:
            return
        heading = (*above, values.get("Subject") or values.get("From", ""))
        for number, (name, value) in enumerate(values.items()):
            found = re.compile(rf"^{name}:", re.I | re.M).search(self._source, self._at, header_end)
            line = self._line(found.start() if found else self._at)
            yield Block(f"{name}: {value}", line, heading, "\n" if number else "\n\n")
        self._at = header_end
        yield from self._part(message, heading, depth)

    def _part(self, part: Message, heading: tuple[str, ...], depth: int) -> Iterator[Block]:
        type_ = part.get_content_type()
        payload = part.get_payload()
        inside = [each for each in payload if isinstance(each, Message)] if isinstance(payload, list) else []
        if depth > _MAX_DEPTH:
            return
        if not inside:
            yield from self._leaf(part, heading)
        elif type_ == "message/rfc822":
            named = self._source.find("message/rfc822", self._at, self._end)
            self._at = max(self._at, self._source.find("\n\n", max(named, 0), self._end) + 2)
            for each in inside:
                yield from self._message(each, heading, depth + 1)
        elif type_ == "multipart/alternative":
            # each in its place, because a part's place is looked for behind the one before
            found = [(each, [*self._part(each, heading, depth + 1)]) for each in inside]
            yield from _best(found)
        else:
            for each in inside:
                yield from self._part(each, heading, depth + 1)

    def _leaf(self, part: Message, heading: tuple[str, ...]) -> Iterator[Block]:
        name = _plain_header(part.get_filename() or "")
        is_attached = bool(name) or part.get_content_disposition() == "attachment"
        lines = self._lines(part)  # also of what is only named, to find the next part behind it
        if is_attached or lines is None:
            if part.get("Content-ID") and part.get_content_maintype() == "image" and lines is None:
                return  # a picture inside of the HTML
            if lines is None or name:
                line = self._line(self._at)
                yield Block(f"Attachment: {name or part.get_content_type()}", line, heading, "\n\n")
                heading = (*heading, name)
        before = "\n\n"
        for text, line in lines or ():
            if text:
                yield Block(text, line, heading, before)
            before = "\n" if text else "\n\n"

    def _lines(self, part: Message) -> list[tuple[str, int]] | None:
        """(text, source line) of each line of a part that is text."""
        raw = _raw(part)
        at = self._source.find(raw, self._at, self._end) if raw else -1
        first = self._line(at if at >= 0 else self._at)
        self._at = at + len(raw) if at >= 0 else self._at
        if part.get_content_maintype() not in ("text", "multipart"):  # multipart that has no parts is text
            return None
        try:
            text = _decoded(part)
        except ExtractError:
            return None
        encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower() if at >= 0 else "none"
        source_line = _SourceLines(raw, first, encoding)
        if part.get_content_type() != "text/html":
            return [(line.rstrip(), source_line(number)) for number, line in enumerate(text.split("\n"))]
        return [(line, source_line(number - 1)) for line, number in _html_lines(text)]

    def _line(self, at: int) -> int:
        return 1 + bisect_right(self._newlines, at - 1)


class _SourceLines:
    """Line in the source of a decoded part's lines, counted from 0."""

    def __init__(self, raw: str, first: int, encoding: str) -> None:
        self._first = first
        self._is_plain = encoding in ("", "7bit", "8bit", "binary")
        self._starts = [0]
        if encoding == "quoted-printable":  # a line that ends in = goes on in the next
            raws = raw.split("\n")
            self._starts += [
                number for number, line in enumerate(raws[:-1], start=1) if not line.rstrip().endswith("=")
            ]

    def __call__(self, number: int) -> int:
        return self._first + (number if self._is_plain else self._starts[min(number, len(self._starts) - 1)])


def _html_lines(text: str) -> Iterator[tuple[str, int]]:
    """(text, line in the HTML) of each line that it shows."""
    shown, sections = html.read(text)
    starts = [section.start for section in sections]
    at = 0
    for line in shown.split("\n"):
        section = sections[bisect_right(starts, at) - 1]
        yield line, section.line + shown.count("\n", section.start, at)
        at += len(line) + 1


def _best(alternatives: Sequence[tuple[Message, list[Block]]]) -> list[Block]:
    """The plain one, or if it says next to nothing beside the last one, which is the sender's choice, that one."""
    rich = max((blocks for _, blocks in alternatives), key=_num_chars, default=[])
    plain = [blocks for part, blocks in alternatives if part.get_content_type() == "text/plain"]
    return plain[0] if plain and _num_chars(plain[0]) * 4 >= _num_chars(rich) else rich


def _num_chars(blocks: Sequence[Block]) -> int:
    return sum(len(block.text) for block in blocks)


def _raw(part: Message) -> str:
    """A part as it stands in the source."""
    raw = str(part.get_payload())
    decoded = b"" if raw.isascii() else part.get_payload(decode=True)  # bytes beyond ASCII are decoded in the other
    return decoded.decode("ascii", "surrogateescape") if isinstance(decoded, bytes) and decoded else raw


def _decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    content = content if isinstance(content, bytes) else b""
    try:
        text = content.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):  # none of that name, or a wrong one
        return decode(content)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _header(message: Message, name: str) -> str:
    values = [value for each, value in message.raw_items() if each.lower() == name.lower()]
    return _plain_header(values[0]) if values else ""


def _plain_header(value: str) -> str:
    """A header's value without encoded words and folds. Raw bytes, against the standard, are guessed."""
    value = value[:_MAX_HEADER_CHARS]
    try:
        value = decode(value.encode("ascii", "surrogateescape")) if not value.isascii() else value
    except (ExtractError, UnicodeEncodeError):
        pass
    try:
        value = str(make_header(decode_header(" ".join(value.split()))))
    except (MessageError, ValueError, LookupError):
        pass
    return " ".join(value.split())
