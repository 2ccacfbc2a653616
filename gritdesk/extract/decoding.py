"""Bytes -> text: which encoding a file has, and when it is no text at all."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from typing import Any

from gritdesk.errors import ExtractError
from gritdesk.extract.binary import kind

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED = """cp1252 cp1250 cp1251 koi8_r koi8_u shift_jis euc_jp euc_kr gb18030 big5 cp1253 cp1254 cp1255 cp1256
    tis_620 iso8859_2 iso8859_5 cp852 cp866 mac_cyrillic mac_roman""".split()
"""All that is guessed: of every encoding there is, charset-normalizer took hp_roman8 for plain German."""
_OF_SEVERAL_BYTES = frozenset({"shift_jis", "euc_jp", "euc_kr", "gb18030", "big5"})
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
"""Encodings whose text holds zero bytes; those of four bytes refuse nearly all that is not of them."""
_LATIN = ("cp1252", "cp1250", "cp1254", "iso8859_2", "mac_roman", "cp850", "cp852")
_ALPHABETS = [
    frozenset(letters)
    for letters in """àâæçéèêëîïôœùûüÿ äöüß áéíñóúüªº¿¡ áâãàçéêíóôõúü àèéìíîòóùú äåéöà æøåéòôóü áéíóúýðþæö äõöüšž
    éèëêïíóöü àçéèíïóòúü· ąćęłńóśźż áčďéěíňóřšťúůýž áäčďéíĺľňóôŕšťúýž áéíóöőúüű ăâîşţ čćđšž çğıöşüâîûi̇""".split()
]
"""Letters beyond ASCII: French, German, Spanish, Portuguese, Italian, Swedish and Finnish, Danish and Norwegian,
Icelandic, Estonian, Dutch, Catalan; Polish, Czech, Slovak, Hungarian, Romanian, Croatian and Slovene; Turkish."""
_RARE = re.compile("[\u3131-\u318e\uff61-\uff9f]")
"""Single Korean letters and half-width kana: what wrongly decoded bytes become, and people hardly ever write."""
_TYPOGRAPHY = frozenset("„“”‚‘’–—…«»‹›°€£§©®™• \xa0\xad½¼¾²³×±´·")
_OF_7_BITS = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$B", "iso2022_jp"), (b"\x1b$@", "iso2022_jp"))
_SAMPLE_BYTES = 64 * 1024
_CONTROLS = re.compile(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f]")
_WRITTEN = re.compile(
    "[\t\n\r\f -~\u00a0-\u024f\u0300-\u052f\u0590-\u06ff\u0900-\u0eff\u10d0-\u10ff\u1e00-\u1fff\u2010-\u2049\u20ac"
    "\u2190-\u21ff\u2500-\u257f\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uffef]"
)
"""What nearly all of a text consists of, in the scripts of today."""


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
    sample = content[:_SAMPLE_BYTES]
    for escape, encoding in _OF_7_BITS:
        if escape in sample and (text := _sensible(content, encoding)):
            return text
    if b"\0" in sample:
        return _with_zeros(content)
    if _has_many_controls(sample):
        raise _binary(content)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _almost_utf8(content) or _guessed(content)


def _with_zeros(content: bytes) -> str:
    """UTF-8 with a few zeros, such as a crash leaves at the end of a log, or UTF-16 or UTF-32 without a mark."""
    ended = content.rstrip(b"\0")
    sample = ended[:_SAMPLE_BYTES]
    if sample.count(0) * 100 <= len(sample) and not _has_many_controls(sample):
        try:
            return ended.decode()
        except UnicodeDecodeError:
            pass
    if (text := _wide(content)) is not None:
        return text
    raise _binary(content)


def _has_many_controls(sample: bytes) -> bool:
    return len(_CONTROLS.findall(sample)) * 50 > len(sample)


def _binary(content: bytes) -> ExtractError:
    what = kind(content)
    return ExtractError(f"it is binary, not text: {what}" if what else "it is binary, not text")


def _strict(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        raise ExtractError(
            f"it is wrongly encoded: it begins as {encoding.upper()} and is not from line {line} on; save it as UTF-8"
        ) from error


def _wide(content: bytes) -> str | None:
    """The text of UTF-16 or UTF-32 without a mark: nearly all of it is what people write, in one of them only."""
    for encoding in _WIDE:
        width = 4 if "32" in encoding else 2
        try:
            sample = content[: _SAMPLE_BYTES - 2].decode(encoding)
        except UnicodeDecodeError as error:
            if error.end < min(len(content), _SAMPLE_BYTES - 2) - width:  # not just a character cut in two
                continue
            sample = content[: error.start].decode(encoding)
        if len(_WRITTEN.findall(sample)) * 50 >= len(sample) * 49 and not _CONTROLS.search(sample.encode()):
            return _strict(content, encoding)
    return None


def _almost_utf8(content: bytes) -> str | None:
    """UTF-8 with a rare bad byte (a cut log, a pasted word): the bad ones become U+FFFD."""
    text = content.decode(errors="replace")
    bad = text.count("\ufffd")
    good = _num_foreign(text) - bad
    return text if bad < good and bad * 1000 <= len(text) else None


def _guessed(content: bytes) -> str:
    """One of the old encodings: of Latin letters if it makes sense so, otherwise what statistics of letters say."""
    if text := _latin(content):
        return text
    import charset_normalizer

    matches = charset_normalizer.from_bytes(content[:_SAMPLE_BYTES], cp_isolation=_GUESSED)
    best = max(matches, key=lambda each: each.coherence + (0.2 if _is_of_several_bytes(each) else 0), default=None)
    if best is not None and (best.coherence > 0 or _is_of_several_bytes(best)):  # any bytes are some alphabet
        if text := _sensible(content, best.encoding):
            return text
    raise ExtractError("it is wrongly encoded: neither UTF-8 nor another known encoding; save it as UTF-8")


def _latin(content: bytes) -> str:
    """The text in the encoding that makes its letters those of one language, Western if several do; "" if none does.

    Statistics as of charset-normalizer mistake every third text of a few lines: measured with twelve languages.
    """
    best, best_rank = "cp1252" if _sensible(content, "cp1252") else "", 0.0
    for encoding in _LATIN:
        counts = Counter(content[:_SAMPLE_BYTES].decode(encoding, "replace").lower())
        counts = Counter({each: num for each, num in counts.items() if each > "\x7f"})
        signs = sum(num for each, num in counts.items() if each in _TYPOGRAPHY)
        known = max(sum(num for each, num in counts.items() if each in alphabet) for alphabet in _ALPHABETS)
        rank = (known + signs / 2) / max(1, counts.total())  # signs are in every encoding, not where letters should be
        if rank > best_rank and known >= 0.9 * (counts.total() - signs):
            best, best_rank = encoding, rank
        elif encoding == "cp1252":
            best_rank = rank
    text = content.decode(best, "replace") if best else ""
    return text if _num_foreign(text) * 4 <= len(text) else ""


def _is_of_several_bytes(match: Any) -> bool:
    """Whether it is an encoding of several bytes that fits: these refuse most of what is not of them."""
    return match.encoding in _OF_SEVERAL_BYTES and match.chaos < 0.05 and not _RARE.search(str(match))


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
