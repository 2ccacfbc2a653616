"""Bytes -> text: which encoding a file has, and when it is no text at all."""

from __future__ import annotations

import codecs
import re
import unicodedata

from gritdesk.errors import ExtractError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED = [
    "cp1252",
    "cp1250",
    "cp1251",
    "koi8_r",
    "shift_jis",
    "euc_jp",
    "euc_kr",
    "gb18030",
    "big5",
    "cp1253",
    "cp1255",
]
"""All that is guessed: of every encoding there is, charset-normalizer took hp_roman8 for plain German."""
_OF_SEVERAL_BYTES = frozenset({"shift_jis", "euc_jp", "euc_kr", "gb18030", "big5"})
"""Encodings that refuse most wrong bytes; of the others a known language must be recognised."""
_SAMPLE_BYTES = 64 * 1024
_CONTROLS = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")


def decode(content: bytes) -> str:
    """Text of a file with "\\n" between its lines and no byte order mark.

    Raises: ExtractError if it is binary, or of an encoding that cannot be told.
    """
    text = _decoded(content)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _strict(content[len(mark) :], encoding)
    utf16 = _utf16_by_zero_bytes(content[:_SAMPLE_BYTES])
    if utf16 is not None:
        return _strict(content, utf16)
    sample = content[:_SAMPLE_BYTES]
    if b"\0" in sample or len(_CONTROLS.findall(sample)) * 50 > len(sample):
        raise ExtractError("it is binary, not text")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _almost_utf8(content) or _guessed(content)


def _strict(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        raise ExtractError(
            f"it is wrongly encoded: it begins as {encoding.upper()} and is not from line {line} on; save it as UTF-8"
        ) from error


def _utf16_by_zero_bytes(sample: bytes) -> str | None:
    """UTF-16 of Western text has a zero in every second byte, and hardly any in the others."""
    pairs = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd * 10 > pairs * 4 and even * 20 < pairs:
        return "utf-16-le"
    if even * 10 > pairs * 4 and odd * 20 < pairs:
        return "utf-16-be"
    return None


def _almost_utf8(content: bytes) -> str | None:
    """UTF-8 with a rare bad byte (a cut log, a pasted word): the bad ones become U+FFFD."""
    text = content.decode(errors="replace")
    bad = text.count("\ufffd")
    good = _num_foreign(text) - bad
    return text if bad < good and bad * 1000 <= len(text) else None


def _guessed(content: bytes) -> str:
    """One of the old encodings: Western if it makes sense so, otherwise what statistics of letters say."""
    if (text := _sensible(content, "cp1252")) and _num_foreign(text) * 4 <= len(text):
        return text
    import charset_normalizer

    best = charset_normalizer.from_bytes(content[:_SAMPLE_BYTES], cp_isolation=_GUESSED).best()
    if best is not None and (best.coherence > 0 or best.encoding in _OF_SEVERAL_BYTES):  # any bytes are some alphabet
        if text := _sensible(content, best.encoding):
            return text
    raise ExtractError("it is wrongly encoded: neither UTF-8 nor another known encoding; save it as UTF-8")


def _sensible(content: bytes, encoding: str) -> str:
    """The text if nearly all beyond ASCII in it is letters and punctuation, as in writing; otherwise ""."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return ""
    sample = text[:_SAMPLE_BYTES]
    foreign = [character for character in sample if character > "\x7f"]
    written = sum(unicodedata.category(each)[0] in "LMP" or each in "\u20ac\xa3\xa7\xa9\xb0\xa0" for each in foreign)
    return text if written * 10 >= len(foreign) * 9 else ""


def _num_foreign(text: str) -> int:
    return sum(character > "\x7f" for character in text)
