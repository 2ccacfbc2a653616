import io
import os
import re
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gritdesk.errors import ExtractError, ReaderClosed
from gritdesk.extract import read_document
from gritdesk.extract.worker import Reader
from gritdesk.records import Document, Section

DATA = Path(__file__).parent.parent / "data"
MAX_BYTES = 10_000_000


def read(name: str | Path) -> Document:
    return read_document(DATA / name, MAX_BYTES)


def read_bytes(tmp_path: Path, content: bytes, name: str = "a.txt") -> Document:
    (tmp_path / name).write_bytes(content)
    return read_document(tmp_path / name, MAX_BYTES)


def reason(path: Path, max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(ExtractError) as error:
        read_document(path, max_bytes)
    assert "\n" not in str(error.value)
    return str(error.value)


def stretches(document: Document) -> list[tuple[str, Section]]:
    ends = [*(section.start for section in document.sections[1:]), len(document.text)]
    return [(document.text[each.start : end], each) for each, end in zip(document.sections, ends, strict=True)]


def outline(document: Document) -> list[tuple[int, tuple[str, ...]]]:
    """(line, headings) where the headings change."""
    found: list[tuple[int, tuple[str, ...]]] = []
    for section in document.sections:
        if not found or found[-1][1] != section.heading:
            found.append((section.line, section.heading))
    return found


# ---------------------------------------------------------------- formats


def test_text_is_read_as_it_is() -> None:
    document = read("text.txt")
    assert document.format == "text"
    assert document.text == (DATA / "text.txt").read_text(encoding="utf-8")
    assert document.sections == (Section(0, 1),)


def test_markdown_headings_make_sections_and_fenced_lines_do_not() -> None:
    document = read("notes.md")
    assert document.format == "markdown"
    assert document.text == (DATA / "notes.md").read_text(encoding="utf-8")
    assert outline(document) == [
        (1, ()),
        (5, ("Rate limits",)),
        (9, ("Rate limits", "Token bucket")),
        (18, ("Rate limits", "Setext part")),
        (23, ("Rate limits", "Setext part", "Deeper code")),
    ]


def test_code_has_a_section_per_definition() -> None:
    document = read("module.py")
    assert document.format == "code"
    assert outline(document) == [
        (1, ()),
        (8, ("first",)),
        (17, ("Second",)),
        (20, ("Second", "method")),
        (24, ("third",)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        (
            "a.rs",
            "use x;\n\n/// Doc.\npub(crate) async fn run<T>() {}\n\nimpl<T> Iterator for A {}",
            ["run", "A"],
        ),
        ("a.ts", "export default class Desk {}\nexport async function open() {}\n", ["Desk", "open"]),
        ("a.go", "package x\n\nfunc (s *Store) Close() {}\n\ntype Hit struct {}\n", ["Close", "Hit"]),
        ("a.cpp", "namespace grit {\nstruct Hit {};\n}\nclass Store::Inner {};\n", ["grit", "Hit", "Store::Inner"]),
    ],
)
def test_definitions_of_other_languages_are_known(tmp_path: Path, name: str, text: str, names: list[str]) -> None:
    document = read_bytes(tmp_path, text.encode(), name)
    assert [each.heading[-1] for each in document.sections if each.heading] == names


def test_html_is_read_as_a_browser_shows_it() -> None:
    document = read("page.html")
    assert document.format == "html"
    assert document.text == (
        "Harbour guide\n\nTides & ships\n\nThe tide table is\nprinted every May.\nIt hangs at the pier.\n\nFerries\n\n"
        "To the island\nTo the town\n\n  two spaces\n    four\n\n\nFare\n5 €\n\nLast\nline"
    )
    assert outline(document) == [(4, ()), (10, ("Tides & ships",)), (15, ("Tides & ships", "Ferries"))]


def test_html_lines_are_those_of_the_source() -> None:
    document = read("page.html")
    source = (DATA / "page.html").read_text(encoding="utf-8").splitlines()
    for text, section in stretches(document):
        for number, line in enumerate(text.split("\n")):
            for word in line.replace("5 €", "").replace("&", "").split():
                assert word in source[section.line - 1 + number], (word, section.line + number)


@pytest.mark.parametrize(
    "source",
    [
        "<p>alpha <b>foo</b>\nbeta more\n<i>gamma</i>\ndelta",
        "<p>\na\nalpha\n\n<b>beta</b>\n\n\n gamma <i> delta\n</i>\n",
        "<pre>\n\nalpha\n\n<b>beta\n</b>\n\ngamma</pre>\n<p>\n delta\n\n<b>epsilon</b>",
        "<h1>\nalpha\n<b>beta</b>\n</h1>\n\ngamma\n",
    ],
)
def test_html_lines_are_right_around_inline_tags(tmp_path: Path, source: str) -> None:
    document = read_bytes(tmp_path, f"<html>{source}".encode(), "a.html")
    found = {
        word: section.line + number
        for text, section in stretches(document)
        for number, line in enumerate(text.split("\n"))
        for word in line.split()
    }
    names = [word for word in ("a", "alpha", "beta", "gamma", "delta", "epsilon", "foo", "more") if word in found]
    assert len(names) >= 3
    for number, line in enumerate(source.split("\n"), start=1):
        for word in re.sub("<[^>]*>", " ", line).split():
            assert found[word] == number, word


def test_broken_html_still_gives_its_text(tmp_path: Path) -> None:
    document = read_bytes(
        tmp_path, b"<html><p>one <b>two<p>three</i> &bogus; &#xD800; <![if x]> < 5 </nav>four", "a.html"
    )
    assert [word for word in ("one", "two", "three", "four") if word not in document.text] == []


def test_pdf_has_a_section_per_page() -> None:
    document = read("report.pdf")
    assert document.format == "pdf"
    assert stretches(document) == [
        ("The first page is about walruses.\nIt has two lines.\n\n", Section(0, 1, page=1)),
        ("The second page is about tides.", Section(53, 1, page=2)),
    ]


def pdf(*objects: str) -> bytes:
    """A PDF of numbered objects, the catalog first; its readers find them without a table."""
    numbered = "".join(f"{number} 0 obj\n{each}\nendobj\n" for number, each in enumerate(objects, start=1))
    return f"%PDF-1.7\n{numbered}trailer\n<< /Root 1 0 R >>\n%%EOF".encode()


def stream(content: str) -> str:
    return f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"


def page(words: str, rest: str = "") -> tuple[str, str]:
    """A page whose content is the object after it."""
    font = "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    content = f"BT /F1 12 Tf 20 170 Td ({words}) Tj ET"
    return f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] {font} {rest} >>", stream(content)


def test_pdf_has_its_bookmarks_as_headings_and_what_was_filled_in(tmp_path: Path) -> None:
    notes = (
        "/Annots [<< /Subtype /Widget /FT /Tx /T (name) /V (Mara Bell) /Rect [0 0 9 9] >>"
        " << /Subtype /FreeText /Contents (typed onto the form) /Rect [0 0 9 9] >>"
        " << /Subtype /Link /Contents (no text) /Rect [0 0 9 9] >>]"
    )
    content = pdf(
        "<< /Type /Catalog /Pages 2 0 R /Outlines 10 0 R >>",
        "<< /Type /Pages /Kids [4 0 R 6 0 R 8 0 R] /Count 3 >>",
        "null",
        *page("one", "/Contents 5 0 R"),
        *page("two", f"/Contents 7 0 R {notes}"),
        *page("three", "/Contents 9 0 R"),
        "<< /First 11 0 R /Last 11 0 R >>",
        "<< /Title (Tides) /Parent 10 0 R /Dest [6 0 R /Fit] /First 12 0 R /Last 12 0 R >>",
        "<< /Title (Low water) /Parent 11 0 R /Dest [6 0 R /Fit] /Next 12 0 R >>",
    )
    document = read_bytes(tmp_path, content, "a.pdf")
    assert [(text.strip(), each.heading, each.page) for text, each in stretches(document)] == [
        ("one", (), 1),
        ("two\n\nMara Bell\n\ntyped onto the form", ("Tides",), 2),
        ("three", ("Tides", "Low water"), 3),
    ]


def test_broken_page_costs_no_more_than_that_page(tmp_path: Path) -> None:
    content = (DATA / "report.pdf").read_bytes().replace(b"/Count 2", b"/Count 9")
    assert read_bytes(tmp_path, content, "a.pdf").text == read("report.pdf").text
    (tmp_path / "a.pdf").write_bytes(content.replace(b"/Kids [4 0 R 6 0 R]", b"/Kids [3 0 R 9 0 R]"))
    assert "damaged PDF" in reason(tmp_path / "a.pdf")


def test_pdf_with_more_text_than_a_file_may_hold_is_refused(tmp_path: Path) -> None:
    content = (DATA / "report.pdf").read_bytes().replace(b"/Kids [4", b"/Kids [" + b"6 0 R " * 99 + b"4")
    (tmp_path / "a.pdf").write_bytes(content.replace(b"/Count 2", b"/Count 101"))
    assert "its text is larger than" in reason(tmp_path / "a.pdf", 2_000)


def test_docx_has_headings_and_the_text_of_its_tables() -> None:
    document = read("guide.docx")
    assert document.format == "docx"
    assert document.text == (
        "Guide\n\nBefore the parts.\n\nTides\n\nHigh water at noon.\nLow water at six.\n\nTable\n\n"
        "Port | Fare\nNorth | 5\n\nAfter the table."
    )
    assert outline(document) == [(1, ("Guide",)), (5, ("Guide", "Tides")), (10, ("Guide", "Tides", "Table"))]


@pytest.mark.parametrize(
    ("name", "other"), [("report.pdf", "report.txt"), ("guide.docx", "guide.zip"), ("page.html", "x")]
)
def test_content_decides_over_the_name(tmp_path: Path, name: str, other: str) -> None:
    assert read_bytes(tmp_path, (DATA / name).read_bytes(), other).text == read(name).text


# ---------------------------------------------------------------- encodings

TEXT = "Grüße aus Köln: naïve Käse, größer als süß.\nZweite Zeile mit Öl.\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("cp1252"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
    ],
)
def test_encodings_and_line_ends_are_told_apart(tmp_path: Path, content: bytes) -> None:
    assert read_bytes(tmp_path, content).text == TEXT


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Съешь же ещё этих мягких французских булок, да выпей чаю. "),
        ("shift_jis", "これは日本語の文章です。文字コードの判定を試します。"),
        ("gb18030", "这是一个中文文本，用来测试编码的识别。"),
    ],
)
def test_other_alphabets_are_guessed(tmp_path: Path, encoding: str, text: str) -> None:
    assert read_bytes(tmp_path, (text * 5).encode(encoding)).text == text * 5


def test_rare_bad_byte_does_not_cost_the_file(tmp_path: Path) -> None:
    content = (TEXT * 50).encode() + b"cut \xc3"
    assert read_bytes(tmp_path, content).text == TEXT * 50 + "cut \ufffd"


def test_text_holds_nothing_that_cannot_be_stored(tmp_path: Path) -> None:
    text = read_bytes(tmp_path, "<html>a\0b &#0; &#xD800; c".encode("utf-16")).text
    assert "\0" not in text
    assert text.encode().decode() == text


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"", "it is empty"),
        ("a.txt", b" \n\t\n", "no text"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        ("a.bin", bytes(range(1, 32)) * 9, "binary"),
        ("a.txt", b"\xff\xfe" + b"a\0" * 9 + b"\0\xd8", "wrongly encoded"),
        ("a.txt", b"\xef\xbb\xbfgood\nbad \xff\xff", "wrongly encoded.*from line 2"),
        ("a.txt", b"\x81\x8d\x8f\x90\x9d\xff\xfe text \x81\x8d" * 3, "wrongly encoded"),
        ("a.pdf", b"no pdf at all", "damaged"),
        ("a.pdf", b"%PDF-1.4\nnothing else", "damaged PDF"),
        ("a.docx", b"no docx", "damaged"),
        ("a.gz", b"\x1f\x8b\x08\0", "unpack it"),
        ("a.docx", b"PK\x03\x04 word/document.xml and nothing", "damaged docx"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "Office file"),
        ("a.zip", b"PK\x03\x04\x14\0\0\0", "unpack it"),
    ],
)
def test_what_cannot_be_read_has_a_reason(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExtractError, match=expected):
        read_document(tmp_path / name, MAX_BYTES)


def test_missing_file_and_folder_have_a_reason(tmp_path: Path) -> None:
    assert "not there" in reason(tmp_path / "gone.txt")
    assert "ordinary file" in reason(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="permissions are another matter there")
def test_file_without_permission_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("secret")
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything
        monkeypatch.setattr("builtins.open", _refuse)
    assert reason(path) == "no permission to read it"


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "ordinary file" in reason(tmp_path / "pipe.txt")


def test_huge_file_is_not_opened(tmp_path: Path) -> None:
    with open(tmp_path / "huge.txt", "wb") as file:
        file.truncate(20_000_000)
    assert "too large (20.0 MB, more than 10 MB); raise index.max_file_mb" in reason(tmp_path / "huge.txt")


def test_scan_without_text_says_so() -> None:
    assert "no text layer" in reason(DATA / "scan.pdf")


def test_pdf_with_a_password_says_so() -> None:
    assert "password" in reason(DATA / "protected.pdf")


def test_docx_that_unpacks_to_too_much_is_not_opened(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<w>" + b" " * 1_000_000)
    (tmp_path / "bomb.docx").write_bytes(packed.getvalue())
    assert "unpacks to 1 MB" in reason(tmp_path / "bomb.docx", 100_000)


@pytest.mark.parametrize("name", ["report.pdf", "guide.docx", "page.html"])
def test_cut_files_are_read_or_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    whole = (DATA / name).read_bytes()
    for end in range(1, len(whole), len(whole) // 9):
        (tmp_path / name).write_bytes(whole[:end])
        try:
            read_document(tmp_path / name, MAX_BYTES)
        except ExtractError as error:
            assert str(error)


# ---------------------------------------------------------------- the child process


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(MAX_BYTES) as reader:
        yield reader


def child_pid(reader: Reader) -> int:
    assert reader._child is not None
    return reader._child.pid


def test_child_reads_every_format_as_this_process_does(reader: Reader) -> None:
    names = ["text.txt", "notes.md", "module.py", "page.html", "report.pdf", "guide.docx"]
    assert [reader.read(DATA / name) for name in names] == [read(name) for name in names]


def test_one_child_lives_for_many_files_also_for_bad_ones(reader: Reader, tmp_path: Path) -> None:
    reader.read(DATA / "text.txt")
    pid = child_pid(reader)
    with pytest.raises(ExtractError, match="not there"):
        reader.read(tmp_path / "gone.txt")
    reader.read(DATA / "notes.md")
    assert child_pid(reader) == pid


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_of_any_bytes_reach_the_child(reader: Reader, tmp_path: Path) -> None:
    for name in (b"new\nline \xe9.txt", "🐋.txt".encode()):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_text("walrus")
        assert reader.read(path) == Document(path, "walrus", "text")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_file_that_kills_the_child_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, monkeypatch, "os.abort()")
    with Reader(MAX_BYTES) as reader:
        with pytest.raises(ExtractError, match="SIGABRT.*damaged"):
            reader.read(tmp_path / "evil.txt")
        assert reader.read(DATA / "text.txt") == read("text.txt")


def test_file_that_hangs_the_child_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, monkeypatch, "while True: pass")
    with Reader(MAX_BYTES, timeout_s=0.5) as reader:
        with pytest.raises(ExtractError, match="longer than 0.5 s"):
            reader.read(tmp_path / "evil.txt")
    monkeypatch.undo()
    with Reader(MAX_BYTES) as reader:
        assert reader.read(DATA / "text.txt") == read("text.txt")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is not enforced there")
def test_file_that_floods_the_memory_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, monkeypatch, "bytearray(3_000_000_000)")
    with Reader(MAX_BYTES) as reader:
        with pytest.raises(ExtractError, match="more memory"):
            reader.read(tmp_path / "evil.txt")
        assert reader.read(DATA / "text.txt") == read("text.txt")


@pytest.mark.skipif(os.name == "nt", reason="pipes have no such numbers there")
@pytest.mark.parametrize(
    ("deed", "expected"),
    [
        (
            "from gritdesk.records import Document, Section\n"
            "        return Document(path, 'x', 'text', (Section(0, 1, ('x' * 9_500_000,)),))",
            "more headings and pages than a file of its size ever has",
        ),
        ("os.write(answers(), bytes([255] * 9)); import time; time.sleep(60)", "ended the reader"),
    ],
)
def test_answer_that_is_too_large_is_refused_and_the_next_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, expected: str
) -> None:
    play(tmp_path, monkeypatch, deed)
    with Reader(1_000_000) as reader:
        with pytest.raises(ExtractError, match=expected):
            reader.read(tmp_path / "evil.txt")
        assert reader.read(DATA / "text.txt") == read("text.txt")


@pytest.mark.skipif(os.name == "nt", reason="priorities are another matter there")
def test_child_steps_back_behind_the_programs_of_the_person(reader: Reader) -> None:
    reader.read(DATA / "text.txt")
    mine, childs = os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, child_pid(reader))
    assert childs > mine


def test_headings_are_short_enough_to_stand_over_every_chunk(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\n\n".join(f"{'#' * (1 + n % 6)} {n}{'x' * 10_000}\n\ntext" for n in range(60)))
    document = reader.read(tmp_path / "a.md")
    assert document == read_document(tmp_path / "a.md", MAX_BYTES)
    assert {len(title) for section in document.sections for title in section.heading} == {300}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_child_that_was_ended_from_outside_is_replaced(reader: Reader) -> None:
    reader.read(DATA / "text.txt")
    os.kill(child_pid(reader), signal.SIGKILL)
    assert reader._child is not None
    reader._child.wait()
    assert reader.read(DATA / "text.txt") == read("text.txt")


def test_answer_that_was_not_waited_for_does_not_meet_the_next_request(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gritdesk.extract.worker._receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            reader.read(DATA / "text.txt")
    assert reader.read(DATA / "notes.md") == read("notes.md")


def test_what_a_library_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, "print('noise'); os.write(1, b'more noise')")
    with Reader(MAX_BYTES) as reader:
        assert reader.read(tmp_path / "evil.txt").text == "evil"


def test_closed_reader_leaves_no_child(reader: Reader) -> None:
    reader.read(DATA / "text.txt")
    child = reader._child
    reader.close()
    reader.close()
    assert child is not None and child.returncode is not None


@pytest.mark.skipif(os.name == "nt", reason="pipes with names are a POSIX matter")
def test_close_does_not_wait_for_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "begun")
    play(tmp_path, monkeypatch, f"open({str(tmp_path / 'begun')!r}, 'w').close(); import time; time.sleep(60)")
    errors: list[ExtractError] = []

    def read_evil() -> None:
        try:
            reader.read(tmp_path / "evil.txt")
        except ExtractError as error:
            errors.append(error)

    with Reader(MAX_BYTES) as reader:
        threads = [threading.Thread(target=read_evil) for _ in range(2)]  # the second waits for the first
        for thread in threads:
            thread.start()
        (tmp_path / "begun").read_bytes()  # waits until the file is being read
        closed_at = time.monotonic()
        reader.close()
        for thread in threads:
            thread.join()
        assert time.monotonic() - closed_at < 20
        assert [(type(error), "gritdesk is closing" in str(error)) for error in errors] == [(ReaderClosed, True)] * 2
        assert reader.read(DATA / "text.txt") == read("text.txt")


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    """Have the child do something bad when it reads evil.txt, by way of a module that Python imports at its start."""
    (tmp_path / "evil.txt").write_text("evil")
    (tmp_path / "sitecustomize.py").write_text(
        "import gritdesk.extract as extract, os, stat\n"
        "def is_pipe(n):\n"
        "    return os.path.exists(f'/dev/fd/{n}') and stat.S_ISFIFO(os.fstat(n).st_mode)\n"
        "def answers():\n"
        "    return next(filter(is_pipe, range(3, 99)))\n"
        "read = extract.read_document\n"
        "def evil(path, max_bytes):\n"
        "    if path.name == 'evil.txt':\n"
        f"        {deed}\n"
        "    return read(path, max_bytes)\n"
        "extract.read_document = evil\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
