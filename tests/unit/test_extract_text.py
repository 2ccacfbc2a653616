"""Formats that are text, and what is told apart from text."""

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_files import MAIL, MBOX, RTF, SRT, TEX, notebook

from gritdesk.errors import ExtractError
from gritdesk.extract import read_document, text_formats
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


def read_text(tmp_path: Path, text: str, name: str) -> Document:
    return read_bytes(tmp_path, text.encode(), name)


def outline(document: Document) -> list[tuple[int, str]]:
    """(line, heading path) where the headings change."""
    found: list[tuple[int, str]] = []
    for section in document.sections:
        if not found or found[-1][1] != " > ".join(section.heading):
            found.append((section.line, " > ".join(section.heading)))
    return found


def lines(document: Document) -> dict[str, int]:
    """The source line of each word of the text that stands in it once."""
    found: dict[str, int] = {}
    ends = [*(section.start for section in document.sections[1:]), len(document.text)]
    for section, end in zip(document.sections, ends, strict=True):
        for number, line in enumerate(document.text[section.start : end].split("\n")):
            for word in line.split():
                found[word] = -1 if word in found else section.line + number
    return {word: line for word, line in found.items() if line >= 0}


def assert_lines_are_those_of(source: str, document: Document, at_least: int, but: str = "") -> None:
    """Each word that stands once in both, but for some, stands in the line that the document says."""
    places = {
        word: n for n, line in enumerate(source.split("\n"), 1) for word in line.split() if source.count(word) == 1
    }
    places = {word: line for word, line in places.items() if word not in but.split()}
    shared = {word: line for word, line in lines(document).items() if word in places}
    assert len(shared) >= at_least
    assert shared == {word: places[word] for word in shared}


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


# ---------------------------------------------------------------- Markdown, reStructuredText, Org


def test_markdown_lies_below_the_title_of_its_front_matter(tmp_path: Path) -> None:
    text = """---
title: "Harbour notes"
tags: [a]
---
Before.

# Tides

```sh
# not a heading
```

Low `water`
-----------

```` inline ```` is no fence

## Wind
"""
    document = read_text(tmp_path, text, "a.md")
    assert document.text == text
    assert outline(document) == [
        (1, "Harbour notes"),
        (7, "Harbour notes > Tides"),
        (13, "Harbour notes > Tides > Low water"),
        (18, "Harbour notes > Tides > Wind"),
    ]


def test_title_of_front_matter_that_the_first_heading_repeats_is_said_once(tmp_path: Path) -> None:
    document = read_text(tmp_path, "+++\ntitle = 'Tides'\n+++\n\n# Tides\n\nText\n\n## Low\n", "a.md")
    assert outline(document) == [(1, ""), (5, "Tides"), (9, "Tides > Low")]


def test_picture_written_into_a_text_is_left_out(tmp_path: Path) -> None:
    picture = "![plan](data:image/png;base64," + "iVBORw0KGgo" * 1000 + ")"
    assert read_text(tmp_path, f"before\n{picture}\nafter\n", "a.md").text == (
        "before\n![plan](data:image/png;base64,)\nafter\n"
    )


def test_titles_of_restructuredtext_are_of_the_level_in_which_their_line_comes(tmp_path: Path) -> None:
    text = """=============
 The handbook
=============

Intro to :ref:`all <top>`.

Tides
=====

A table::

    No title
    ========

=====  =====
Port   Fare
=====  =====
North  5
=====  =====

The :func:`low <x.low>` ``water``
---------------------------------

one line

----

Wind
====
"""
    document = read_text(tmp_path, text, "a.rst")
    assert (document.format, document.text) == ("rst", text)
    assert outline(document) == [
        (1, "The handbook"),
        (7, "The handbook > Tides"),
        (21, "The handbook > Tides > The low water"),
        (28, "The handbook > Wind"),
    ]


def test_org_headlines_make_sections_without_states_and_tags(tmp_path: Path) -> None:
    text = """#+TITLE: Logbook
#+AUTHOR: Me

Before.
* TODO [#A] Mend the [[https://x.org][net]]   :work:boat:
Text with *bold* word.
** DONE it
#+begin_src sh
,* no headline
#+end_src
* Plans
"""
    document = read_text(tmp_path, text, "a.org")
    assert (document.format, document.text) == ("org", text)
    assert outline(document) == [
        (1, "Logbook"),
        (5, "Logbook > Mend the net"),
        (7, "Logbook > Mend the net > it"),
        (11, "Logbook > Plans"),
    ]


# ---------------------------------------------------------------- TeX


def test_tex_is_read_without_its_commands(tmp_path: Path) -> None:
    document = read_text(tmp_path, TEX, "a.tex")
    assert document.format == "tex"
    assert [line for line in document.text.split("\n") if line.strip()] == [
        "We measure 50% of all At noon.",
        "tides.",
        "Introduction",
        "As Knuth knuth84 said, naïve — “good” Möller, café, Øresund.",
        "See the page or http://y.org/%20.",
        "\\begin{equation}",
        "E = mc^2",
        "\\end{equation}",
        "The method of $n$ steps",
        "• First thing",
        "% verbatim \\section{Not}",
        "Port | Fare",
        "(Cauchy)",
        "Last $a_{n} < b$.",
    ]
    title = "On the Tides of Grünholm"
    assert outline(document) == [
        (4, title),
        (6, f"{title} > Abstract"),
        (11, f"{title} > Introduction"),
        (17, f"{title} > Introduction > The method of $n$ steps"),
    ]
    assert_lines_are_those_of(TEX, document, at_least=15)


def test_part_of_a_tex_document_is_read_from_its_first_line(tmp_path: Path) -> None:
    document = read_text(tmp_path, "\n\\section{Hi}The ibex.\\paragraph{Low} It\n\\section\n{Two}Words", "words.tex")
    assert document.text.split("\n") == ["", "Hi The ibex. Low It", "", "Two Words"]
    document = read_text(tmp_path, "\\chapter{One}\n\nText {that never closes \\section{Two\n", "part.tex")
    assert outline(document) == [(1, "One")]
    assert "Text that never closes" in document.text


# ---------------------------------------------------------------- tables


def test_row_of_a_table_says_what_its_values_are(tmp_path: Path) -> None:
    text = 'Port,Fare,"Open\nfrom",2024\nNorth,5,,x\n"South, old",6.50,"May\n2",y\n\nEast,7,June,z,more\n'
    document = read_text(tmp_path, text, "a.csv")
    assert document.format == "csv"
    assert document.text.split("\n") == [
        "Port | Fare | Open from | 2024",
        "Port: North | Fare: 5 | 2024: x",
        "Port: South, old | Fare: 6.50 | Open from: May 2 | 2024: y",
        "Port: East | Fare: 7 | Open from: June | 2024: z | more",
    ]
    assert {word: line for word, line in lines(document).items() if word in ("5", "old", "East")} == {
        "5": 3,
        "old": 4,
        "East": 7,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name;price\nrope;1,50\nnet;22,00\n"),
        ("a.csv", "sep=;\nname;price\nrope;1,50\nnet;22,00\n"),
        ("a.tsv", "name\tprice\nrope\t1,50\nnet\t22,00\n"),
        ("a.csv", "name\tprice\nrope\t1,50\nnet\t22,00\n"),
        ("a.csv", "name|price\nrope|1,50\nnet|22,00\n"),
        ("a.csv", 'Report of May\n\n"name";"price"\n"rope";"1,50"\n"net";"22,00"\n'),
    ],
)
def test_delimiter_of_a_table_is_told_from_its_rows(tmp_path: Path, name: str, text: str) -> None:
    document = read_text(tmp_path, text, name)
    assert "name: rope | price: 1,50\nname: net | price: 22,00" in document.text
    source_line = next(number for number, line in enumerate(text.split("\n"), start=1) if "rope" in line)
    assert lines(document)["rope"] == source_line


def test_table_without_a_header_keeps_its_rows(tmp_path: Path) -> None:
    assert read_text(tmp_path, "1,North,5\n2,South,6\n", "a.csv").text == "1 | North | 5\n2 | South | 6"


def test_quote_that_is_never_closed_does_not_swallow_the_table(tmp_path: Path) -> None:
    text = "size,name\n" + 'a 5" pipe,x\n"open,y\n' + "4,last\n" * 30_000
    document = read_text(tmp_path, text, "a.csv")
    assert 'size: "open | name: y\nsize: 4 | name: last\n' in document.text


def test_names_of_a_long_table_stand_in_its_heading(tmp_path: Path) -> None:
    text = "a long name of a column,another long name\n" + "1,2\n" * 200_000
    document = read_text(tmp_path, text, "a.csv")
    assert document.text.startswith("a long name of a column | another long name\n1 | 2\n1 | 2\n")
    assert outline(document) == [(1, "a long name of a column | another long name")]


# ---------------------------------------------------------------- subtitles


def test_subtitles_are_paragraphs_that_begin_with_their_time(tmp_path: Path) -> None:
    document = read_text(tmp_path, SRT, "a.srt")
    assert document.format == "subtitles"
    assert document.text == (
        "[0:00:01] We went ashore at the north pier. Nobody knew us & we knew nobody\n\n"
        "[0:00:20] Morning came.\n\n[1:02:03] The end."
    )
    assert_lines_are_those_of(SRT, document, at_least=10)


def test_web_subtitles_are_read_without_notes_styles_and_repeats(tmp_path: Path) -> None:
    text = (
        "WEBVTT - A title\n\nNOTE\nNot said.\n\nSTYLE\n::cue { color: red }\n\nintro\n"
        "00:01.000 --> 00:03.000 align:start\n<v.loud Ann Lee>Good <00:02.000><c>morning</c>\n\n"
        "00:03.000 --> 00:05.000\nAnn Lee: Good morning\nto all.\n"
    )
    document = read_text(tmp_path, text, "a.vtt")
    assert document.text == "[0:00:01] Ann Lee: Good morning to all."
    assert lines(document)["all."] == 15


def test_long_talk_has_a_time_every_half_minute(tmp_path: Path) -> None:
    cues = [
        f"{n}\n00:{n // 20:02}:{n * 3 % 60:02},000 --> 00:{n // 20:02}:{n * 3 % 60 + 2:02},900\nSentence {n}.\n"
        for n in range(40)
    ]
    document = read_text(tmp_path, "\n".join(cues), "a.srt")
    assert [paragraph.split()[0] for paragraph in document.text.split("\n\n")] == [
        "[0:00:00]",
        "[0:00:30]",
        "[0:01:00]",
        "[0:01:30]",
    ]


def test_file_of_no_subtitles_keeps_its_text(tmp_path: Path) -> None:
    assert read_text(tmp_path, "only words\n", "a.srt").text == "only words\n"


# ---------------------------------------------------------------- mail


def test_message_is_read_with_its_headers_its_plain_body_and_its_attachments(tmp_path: Path) -> None:
    document = read_bytes(tmp_path, MAIL, "a.eml")
    assert document.format == "email"
    assert document.text == (
        'From: Jörg Harbour <joerg@example.org>\nTo: "Lee, Ann" <ann@example.org>, crew@example.org\n'
        "Date: Tue, 2 Apr 2024 10:11:12 +0200\nSubject: Grüße vom Hafen\n\n"
        "Dear crew,\n\nthe ferry leaves at noon, and whoever is late has to row. The tür of the shed is open.\n"
        "Yours, Jörg\n\n"
        "Attachment: Fahrpläne.pdf\n\nAttachment: Fahrpläne.csv\n\nPort,Fare\nNorth,5\n\n"
        "From: ann@example.org\nSubject: Asked before\n\nWhen does it leave?"
    )
    assert [heading for _, heading in outline(document)] == [
        "Grüße vom Hafen",
        "Grüße vom Hafen > Fahrpläne.csv",
        "Grüße vom Hafen > Asked before",
    ]
    # what is folded over lines begins in the first of them
    assert_lines_are_those_of(MAIL.decode(), document, at_least=20, but="crew@example.org shed open.")
    assert lines(document)["shed"] == 22


def test_windows_line_ends_do_not_move_the_lines_of_a_message(tmp_path: Path) -> None:
    documents = [read_bytes(tmp_path, content, "a.eml") for content in (MAIL, MAIL.replace(b"\n", b"\r\n"))]
    assert documents[0] == documents[1]


def message(body: str, *headers: str) -> str:
    return "\n".join(["From: a@example.org", "Date: Tue, 2 Apr 2024 10:11:12 +0200", *headers, "", body])


def test_html_body_is_read_where_the_plain_one_only_points_to_it(tmp_path: Path) -> None:
    text = message(
        "--b\nContent-Type: text/plain\n\nSee the HTML.\n--b\nContent-Type: multipart/related; boundary=c\n\n"
        "--c\nContent-Type: text/html\n\n"
        "<html><style>x</style>\n<h1>Sale</h1>\n<p>All the ropes of the\n<b>harbour</b> are"
        " cheaper than anywhere else this month &amp; next.</p></html>\n--c\nContent-Type: image/png\nContent-ID: <x>\n"
        "Content-Transfer-Encoding: base64\n\niVBORw0KGgo=\n--c--\n--b--",
        "Subject: Sale",
        "Content-Type: multipart/alternative; boundary=b",
    )
    document = read_text(tmp_path, text, "a.eml")
    assert document.text.split("\n\n", 1)[1] == (
        "Sale\n\nAll the ropes of the\nharbour are cheaper than anywhere else this month & next."
    )
    assert_lines_are_those_of(text.replace("<b>harbour</b>", "harbour"), document, at_least=8)


def test_headers_in_raw_bytes_and_wrong_charsets_are_guessed(tmp_path: Path) -> None:
    text = message("Grüße, schöne Häfen.", "Subject: Größe der Häfen", "Content-Type: text/plain; charset=us-ascii")
    for encoding in ("utf-8", "cp1252"):
        found = read_bytes(tmp_path, text.encode(encoding), "a.eml").text
        assert "Subject: Größe der Häfen\n\nGrüße, schöne Häfen." in found


@pytest.mark.parametrize("name", ["a.mbox", "Inbox"])
def test_mailbox_has_a_section_per_message(tmp_path: Path, name: str) -> None:
    document = read_text(tmp_path, MBOX, name)
    assert document.format == "email"
    assert outline(document) == [(2, "First"), (10, "Second")]
    assert_lines_are_those_of(MBOX, document, at_least=9)


def test_message_without_a_suffix_is_known_by_its_headers(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, MAIL, "1712045472.M1P2.host:2,S").format == "email"
    assert read_text(tmp_path, "To do: from A to B.\nFrom: nowhere\n\nText", "notes").format == "text"


def test_message_of_apple_mail_is_read_without_what_follows_it(tmp_path: Path) -> None:
    text = message("The body.", "Subject: Apple")
    document = read_text(tmp_path, f"{len(text)}\n{text}<?xml version='1.0'?><plist>flags</plist>", "1.emlx")
    assert document.text.endswith("Subject: Apple\n\nThe body.")
    assert lines(document)["body."] == 6


@pytest.mark.parametrize(
    "text",
    [
        "Subject: =?none?q?x?=\nFrom: =?utf-8?b?!!!?=\nDate: never\nContent-Type: text/plain; charset=none\n\nbody",
        "Subject: s\nContent-Type: multipart/mixed\n\nbody without a boundary",
        "Subject: s\nContent-Type: multipart/mixed; boundary=x\n\nbefore\n--x\n\nbody that is cut",
        'Subject: s\nContent-Type: ;;;="\nContent-Transfer-Encoding: =?=\n\nbody',
        "Subject: s\nContent-Transfer-Encoding: base64\n\nYm9keQ=\n",
    ],
)
def test_odd_message_still_gives_its_body(tmp_path: Path, text: str) -> None:
    assert "body" in read_text(tmp_path, text, "a.eml").text


def test_what_is_no_message_is_refused(tmp_path: Path) -> None:
    assert "no message" in reason(tmp_path, b"only words\nand lines\n", "a.eml")


# ---------------------------------------------------------------- notebooks


def test_notebook_is_read_as_markdown_with_its_code_and_outputs(tmp_path: Path) -> None:
    picture = {
        "data": {"image/png": "iVBORw0KGgo" * 999, "text/plain": ["<Figure size 640x480>"]},
        "output_type": "display_data",
    }
    text = notebook(
        {"cell_type": "markdown", "metadata": {}, "source": ["# Tides\n", "\n", "We *measure* größe."]},
        {
            "cell_type": "code",
            "execution_count": 1,
            "metadata": {},
            "outputs": [
                {"name": "stdout", "output_type": "stream", "text": ["\x1b[31mred\x1b[0m output\n", "second\n"]},
                picture,
                {"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": ["\x1b[0;31mlong"]},
            ],
            "source": ["# no heading\n", "import math\n", "print('```')"],
        },
        {"cell_type": "markdown", "metadata": {}, "source": ["## Wind\n", "Storms."]},
    )
    document = read_text(tmp_path, text, "a.ipynb")
    assert document.format == "notebook"
    assert document.text == (
        "# Tides\n\nWe *measure* größe.\n\n````python\n# no heading\nimport math\nprint('```')\n````\n\n"
        "```\nred output\nsecond\n```\n\n```\n<Figure size 640x480>\n```\n\n```\nValueError: bad\n```\n\n"
        "## Wind\nStorms."
    )
    assert [heading for _, heading in outline(document)] == ["Tides", "Tides > Wind"]
    source = text.split("\n")
    for word in ("*measure*", "math", "second", "Storms."):
        assert word in source[lines(document)[word] - 1]


def test_long_output_of_a_notebook_is_cut(tmp_path: Path) -> None:
    output = {"output_type": "stream", "text": [f"row {n}\n" for n in range(10_000)]}
    document = read_text(tmp_path, notebook({"cell_type": "code", "source": "x", "outputs": [output]}), "a.ipynb")
    assert 2000 < len(document.text) < 2500
    assert document.text.endswith(" …\n```")


def test_notebook_of_the_old_format_is_read(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "input": ["y = 1"], "outputs": [], "language": "python"},
    ]
    document = read_text(tmp_path, json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3}), "a.ipynb")
    assert document.text == "## Old\n\n```\ny = 1\n```"
    assert outline(document) == [(1, "Old")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"cells": [', "damaged notebook"),
        (b"[" * 100_000, "damaged notebook"),
        (b'{"cells": []}', "without cells"),
        (b"[1, 2]", "without cells"),
        (b'{"cells": [1, {"cell_type": []}, {"source": {}}]}', "no text"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in reason(tmp_path, content, "a.ipynb")


# ---------------------------------------------------------------- RTF


def test_rtf_is_read_in_paragraphs_and_rows(tmp_path: Path) -> None:
    for name in ("a.rtf", "a.doc", "a.txt"):
        document = read_bytes(tmp_path, RTF, name)
        assert document.format == "rtf"
        assert document.text.split("\n\n") == [
            "Grüße vom Hafen—end.",
            'Second link("http://x.org").',
            "Port | Fare\nNorth | 5",
            "End.",
        ]


@pytest.mark.parametrize(
    "content",
    [rb"{\rtf1\u99999999 x}", rb"{\rtf1\ansicpg0 \'ff \uc x", rb"{\rtf1{\fonttbl{\f0\fcharset9999999999999 A;}}"],
)
def test_damaged_rtf_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.rtf").write_bytes(content)
    try:
        read_document(tmp_path / "a.rtf", MAX_BYTES)
    except ExtractError as error:
        assert "damaged RTF" in str(error) or "no text" in str(error)


# ---------------------------------------------------------------- code


def test_methods_lie_below_their_class_with_what_stands_above_them(tmp_path: Path) -> None:
    text = """import os

LIMIT = 3
# of the desk
@final
class Desk(Base):
    size = 1

    # opens it
    @property
    def open(self):
        def inner(): ...
        return inner

    async def close(self):
        pass
        # of close

    left = 2

if LIMIT:
    def chosen(): ...

class Empty: ...
main()
"""
    assert outline(read_text(tmp_path, text, "a.py")) == [
        (1, ""),
        (4, "Desk"),
        (9, "Desk > open"),
        (15, "Desk > close"),
        (18, "Desk"),
        (20, ""),
        (22, "chosen"),
        (24, "Empty"),
        (25, ""),
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.js",
            "/** doc\n of it */\nexport class Desk {\n  open() {}\n  close = () => {\n  }\n}\n"
            "export const run = async () => {\n}\nmodule.exports.stop = function () {}\n",
            [(1, "Desk"), (4, "Desk > open"), (5, "Desk > close"), (8, "run"), (10, "module.exports.stop")],
        ),
        (
            "A.java",
            "package a;\n/** doc */\n@Entity\npublic class Desk {\n  int a;\n\n  // opens\n  @Override\n"
            "  void open() {}\n  enum Kind { X }\n}\n",
            [(1, ""), (2, "Desk"), (7, "Desk > open"), (10, "Desk > Kind")],
        ),
        (
            "a.go",
            "package a\n\n// Close it.\nfunc (s *Store[T]) Close() {\n}\n\ntype Hit struct {\n}\n\nfunc main() {}\n",
            [(1, ""), (3, "Store[T] > Close"), (7, "Hit"), (10, "main")],
        ),
        (
            "a.rs",
            "use x;\n/// doc\n#[derive(Debug)]\npub struct A;\n\nimpl Display for A {\n    #[inline]\n"
            "    fn fmt(&self) {}\n}\nmod tests {\n    fn works() {}\n}\n",
            [(1, ""), (2, "A"), (7, "A > fmt"), (10, "tests"), (11, "tests > works")],
        ),
        ("run", "#!/usr/bin/env bash\nset -e\n\n# lists\nlist() {\n  ls\n}\nlist\n", [(1, ""), (4, "list"), (8, "")]),
        (
            "a.sql",
            '-- ports\nCREATE TABLE IF NOT EXISTS port (a);\ncreate view "free" as x;\n',
            [(1, "port"), (3, "free")],
        ),
        ("a.toml", "a = 1\n\n# why\n[tool.ruff]\nb = [\n 1]\n[[x]]\n", [(1, ""), (3, "tool.ruff"), (7, "x")]),
        (
            "a.c",
            "#include <a.h>\n\n/* adds */\nstatic int add(int a,\n  int b)\n{\n  if (a) {\n }\n}\n",
            [(1, ""), (3, "add")],
        ),
    ],
)
def test_definitions_of_each_language_are_known(
    tmp_path: Path, name: str, text: str, expected: list[tuple[int, str]]
) -> None:
    document = read_text(tmp_path, text, name)
    assert (document.format, document.text) == ("code", text)
    assert outline(document) == expected


def test_code_that_never_closes_is_read_by_its_margin(tmp_path: Path) -> None:
    # the grammar of Bash takes half a minute over it
    text = "function first {\n" + "function f(){if(x){" * 10_000 + "\nfunction last {\n}\n"
    assert [heading for _, heading in outline(read_text(tmp_path, text, "a.sh"))] == ["first", "f", "last"]


# ---------------------------------------------------------------- every format

PIECES = st.sampled_from(
    [*"aB1 \n\n\n:=-#*|,;<>{}[]()%$'\"\\`", "\n\n", "Title\n=====\n", "* Head\n", "# Head\n", "---\n", "title: x\n"]
    + [
        "\\section{A}",
        "\\begin{document}",
        "% x\n",
        "\\begin{verbatim}",
        "\\end{verbatim}",
        "```\n",
        "größe",
        "::\n\n   ",
    ]
    + [
        "1\n00:00:01,0 --> 00:00:02,0\n",
        "class A:\n",
        "    def b(self):\n",
        "fn f() {\n",
        "From: a@b\n",
        "Subject: s\n",
    ]
    + [
        "\n\nFrom a Tue 10:10:10 2024\nFrom: c@d\n\n",
        "Content-Type: multipart/mixed; boundary=x\n\n--x\n\n",
        '"a\nb",c\n',
    ]
)
SUFFIXES = [
    ".md",
    ".rst",
    ".org",
    ".tex",
    ".csv",
    ".srt",
    ".eml",
    ".mbox",
    ".py",
    ".js",
    ".rs",
    ".sh",
    ".c",
    ".html",
    ".txt",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=40).map("".join), st.sampled_from(SUFFIXES))
@example("\\begin{document}\\section{A}", ".tex")
@example("def a(): 0", ".py")
def test_sections_of_any_text_are_in_order_and_in_lines_of_the_source(text: str, suffix: str) -> None:
    try:
        _, shown, sections = text_formats.read(suffix, text.encode())
    except ExtractError as error:
        assert "\n" not in str(error)
        return
    starts = [section.start for section in sections]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] <= len(shown)
    num_lines = text.count("\n") + 1
    assert all(1 <= section.line <= num_lines for section in sections)
    if shown == text:  # then lines are counted, and a citation opens where its words stand
        assert [section.line for section in sections] == [1 + text.count("\n", 0, start) for start in starts]
