"""Formats that are text, and what is told apart from text."""

import random
import struct
from pathlib import Path

import pytest

from gritdesk.errors import ExtractError
from gritdesk.extract import read_document
from gritdesk.records import Document

MAX_BYTES = 10_000_000


def read_bytes(tmp_path: Path, content: bytes, name: str) -> Document:
    (tmp_path / name).write_bytes(content)
    return read_document(tmp_path / name, MAX_BYTES)


def reason(tmp_path: Path, content: bytes, name: str) -> str:
    with pytest.raises(ExtractError) as error:
        read_bytes(tmp_path, content, name)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- encodings

PROSE = {
    "de": "Die Gäste werden gebeten, frühzeitig zu erscheinen, denn für Nachzügler ist kein Platz in der Küche.\n",
    "fr": "La séance commence à dix heures ; où étaient déjà les invités, près de la forêt et du château ?\n",
    "pt": "As questões serão respondidas amanhã; as opiniões estão já à disposição, e as lições também.\n",
    "is": "Það er kalt á eyjunni á haustin og þá förum við yfir brúna til að kaupa brauð, þar sem fólkið býr.\n",
    "hu": "Ősszel a szigeten hideg van, és átmegyünk a hídon, hogy gyümölcsöt és sűrű tejfölt vegyünk a boltból.\n",
    "pl": "Jesienią na wyspie jest zimno, więc idziemy przez most, żeby kupić chleb, mąkę i śmietanę.\n",
    "tr": "Konukların erken gelmeleri rica olunur, çünkü geç kalanlara yer olmayacak; ışık yanıyor, şimdi gidiyoruz.\n",
    "ru": "Гостей просят прийти пораньше, потому что для опоздавших уже не будет мест в большом зале.\n",
    "el": "Το βράδυ θα πάμε στο θέατρο μαζί με τους φίλους μας, γιατί βρέχει και κάνει κρύο στο νησί.\n",
    "ar": "سنذهب الليلة إلى المسرح مع أصدقائنا لأن الجو بارد على الجزيرة والمطر ينزل.\n",
    "th": "วันนี้เราจะไปโรงละครกับเพื่อน เพราะฝนตกและอากาศหนาวบนเกาะ\n",
    "ja": "今日は友達と一緒に劇場へ行きます。島は寒くて、雨が降っているからです。\n",
    "zh": "今天晚上我们和朋友一起去剧院，因为岛上很冷，外面在下雨。\n",
    "ko": "오늘 저녁에 친구들과 함께 극장에 갈 것입니다. 섬은 춥고 비가 오기 때문입니다.\n",
}


@pytest.mark.parametrize("language", ["de", "ru", "el", "ar", "th", "ja", "zh", "ko"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32"])
def test_unicode_is_known_with_and_without_its_mark(tmp_path: Path, language: str, encoding: str) -> None:
    text = PROSE[language] * 2
    assert read_bytes(tmp_path, text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize(
    ("language", "encoding"),
    [(language, "cp1252") for language in ("de", "fr", "pt", "is")]
    + [(language, encoding) for language in ("hu", "pl") for encoding in ("cp1250", "iso8859_2", "cp852")]
    + [("de", "mac_roman"), ("fr", "mac_roman"), ("de", "cp850"), ("fr", "cp437"), ("tr", "cp1254")]
    + [("ru", encoding) for encoding in ("cp1251", "koi8_r", "cp866", "iso8859_5", "mac_cyrillic")]
    + [("el", "cp1253"), ("ar", "cp1256"), ("th", "cp874"), ("ja", "shift_jis"), ("ja", "euc_jp")]
    + [("ja", "iso2022_jp"), ("zh", "gb18030"), ("ko", "euc_kr"), ("ko", "iso2022_kr")],
)
def test_old_encodings_are_told_by_their_language(tmp_path: Path, language: str, encoding: str) -> None:
    text = PROSE[language] * 2
    assert read_bytes(tmp_path, text.encode(encoding), "a.txt").text == text


def test_log_that_a_crash_ended_in_zeros_is_read(tmp_path: Path) -> None:
    log = "a log líne\n" * 100
    assert read_bytes(tmp_path, log.encode() + bytes(4096), "a.log").text == log
    assert read_bytes(tmp_path, log.encode() + b"\0cut\n" + log.encode(), "a.log").text == log + "\ufffdcut\n" + log


# ---------------------------------------------------------------- what is no text


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP image"),
        (b"\0\0\0\x18ftypmp42", "MPEG-4 or QuickTime video"),
        (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
        (b"ID3\x04", "MP3 audio"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\0\x01\0\0\0\x0f", "a font"),
        (b"\x7fELF\x02\x01\x01", "a program or library (ELF)"),
        (b"MZ\x90\0", "a Windows program or library"),
        (b"\xa7\r\r\n", "compiled Python"),
        (b"d\x86\x04\0", "an object file (COFF)"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"PAR1\x15\0", "a Parquet table"),
    ],
)
def test_binary_file_is_refused_by_name(tmp_path: Path, start: bytes, name: str) -> None:
    content = start + random.Random(0).randbytes(600) + bytes(range(32)) * 4
    assert reason(tmp_path, content, "a.txt") == f"it is binary, not text: {name}"


def test_tar_archive_is_refused_by_name(tmp_path: Path) -> None:
    assert "a tar archive; unpack it" in reason(tmp_path, b"a.txt".ljust(257, b"\0") + b"ustar\x0000" + bytes(248), "a")


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_not_taken_for_an_alphabet(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    numbers = [int(draw.gauss(0, 3000)) for _ in range(3000)]
    for content in (
        draw.randbytes(3000),
        struct.pack("<3000h", *numbers),
        struct.pack("<3000I", *map(abs, numbers)),
        struct.pack("<3000f", *numbers),
        struct.pack("<3000H", *(draw.randrange(20_000) for _ in numbers)),
    ):
        assert "binary" in (found := reason(tmp_path, content, "a.dat")) or "wrongly encoded" in found
