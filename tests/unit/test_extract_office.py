"""Documents that come as zips: what is read of them, and what is refused with which reason."""

import io
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from office_files import (
    BOOK,
    DATA,
    PIXEL,
    book,
    document,
    picture_presentation,
    presentation,
    saved,
    unzipped,
    with_members,
    workbook,
    zipped,
)

from gritdesk.chunking import split
from gritdesk.errors import ExtractError
from gritdesk.extract import read_document
from gritdesk.records import Document, Section

MAX_BYTES = 1_000_000

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Document]:
    def read_bytes(content: bytes, name: str = "a.bin", max_bytes: int = MAX_BYTES) -> Document:
        (tmp_path / name).write_bytes(content)
        return read_document(tmp_path / name, max_bytes)

    return read_bytes


Read = Callable[..., Document]


def reason(read: Read, content: bytes, name: str = "a.bin", max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(ExtractError) as error:
        read(content, name, max_bytes)
    assert "\n" not in str(error.value)
    return str(error.value)


def stretches(document: Document) -> list[tuple[str, Section]]:
    ends = [*(section.start for section in document.sections[1:]), len(document.text)]
    return [(document.text[each.start : end].strip(), each) for each, end in zip(document.sections, ends, strict=True)]


def places(document: Document) -> list[tuple[str, tuple[str, ...], int | None, int]]:
    """(text, headings, page, line) of each section."""
    return [(text, each.heading, each.page, each.line) for text, each in stretches(document)]


def word_document(body: str, **parts: str) -> bytes:
    """A docx of which `body` is the inside of w:body; parts are made by their kind, such as footnotes."""
    kinds = "".join(
        f'<Relationship Id="r{kind}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" '
        f'Target="{kind}.xml"/>'
        for kind in parts
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": f"<Relationships>{kinds}</Relationships>",
        }
        | {f"word/{kind}.xml": f"<w:{kind} {W}>{inside}</w:{kind}>" for kind, inside in parts.items()}
    )


def sheet(rows: str, **parts: str) -> bytes:
    """An xlsx with one sheet named Data."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.xml": f'<workbook xmlns:r="{kind}"><sheets><sheet name="Data" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships><Relationship Id="r1" Type="{kind}/worksheet" '
            'Target="/xl/worksheets/sheet1.xml"/>'
            + "".join(f'<Relationship Id="{each}" Type="{kind}/{each}" Target="{each}.xml"/>' for each in parts)
            + "</Relationships>",
            "xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>",
        }
        | {f"xl/{name}.xml": inside for name, inside in parts.items()}
    )


def open_document(kind: str, body: str) -> bytes:
    """An OpenDocument; `body` is the inside of office:body."""
    spaces = " ".join(
        f'xmlns:{each}="urn:oasis:names:tc:opendocument:xmlns:{each}:1.0"' for each in ("office", "text", "table")
    )
    return zipped(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f"<office:document-content {spaces}><office:body>{body}</office:body>"
            "</office:document-content>",
        }
    )


# ---------------------------------------------------------------- what is read


def test_presentation_has_a_section_per_slide_with_its_notes_tables_and_charts(read: Read) -> None:
    found = read(presentation())
    assert found.format == "pptx"
    assert places(found) == [
        ("Harbour\nguide\n\nFor pilots\nand walkers", ("Harbour guide",), 1, 1),
        ("Greet the walrus.", ("Harbour guide", "Notes"), 1, 7),
        ("Fares\n\nPort | Fare\nNorth | 5\n\nPassengers\nSpring\nAutumn", ("Fares",), 2, 1),
        ("Grouped seal", ("Slide 3",), 3, 1),
    ]


def test_slides_that_are_grouped_into_sections_come_once(read: Read) -> None:
    main = unzipped(presentation())["ppt/presentation.xml"].decode()
    sections = (
        '<p:extLst><p:ext uri="{521415D9-36F7-43E2-AB2F-B90AF26B5E84}"><p14:sectionLst '
        'xmlns:p14="http://schemas.microsoft.com/office/powerpoint/2010/main"><p14:section name="First">'
        '<p14:sldIdLst><p14:sldId id="256"/></p14:sldIdLst></p14:section></p14:sectionLst></p:ext></p:extLst>'
    )
    grouped = main.replace("</p:presentation>", sections + "</p:presentation>")
    assert grouped != main
    assert read(with_members(presentation(), {"ppt/presentation.xml": grouped})).text == read(presentation()).text


def test_workbook_has_its_values_as_shown_with_sheets_and_header_rows_as_headings(read: Read) -> None:
    found = read(workbook())
    assert found.format == "xlsx"
    header = "Port | Day | Left at | Seats taken | Pilot"
    trips = "North pier | 2024-05-01 | 13:30 | 25% | Mara\nSouth | 2024-05-02 07:05 | 06:00:30 | 100%"
    assert places(found) == [
        (header, ("Trips",), None, 1),
        (trips, ("Trips", header), None, 2),
        ("| far |  | TRUE", ("Notes",), None, 2),
        ("| 0.3\n | 0007", ("Notes",), None, 9),
        ("ask the walrus", ("Notes",), None, 9),
        ("kept in the safe", ("Safe",), None, 1),
    ]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ('<c t="str"><f>A1&amp;"x"</f><v>what it came to</v></c>', "what it came to"),
        ('<c t="inlineStr"><is><r><t>in</t></r><r><t>line</t></r></is></c>', "inline"),
        ('<c t="s"><v>1</v></c>', "second tone"),
        ('<c t="s"><v>99</v></c><c><v>1</v></c>', " | 1"),
        ('<c t="e"><v>#REF!</v></c>', "#REF!"),
        ('<c t="b"><v>0</v></c>', "FALSE"),
        ('<c t="d"><v>2024-05-01</v></c>', "2024-05-01"),
        ("<c><v>12345678901234567890</v></c>", "1.23456789012346e+19"),
        ("<c><v>5.0000000000000001E-2</v></c>", "0.05"),
        ('<c s="1"><v>59</v></c>', "1900-02-28"),
        ('<c s="1"><v>45413.5</v></c>', "2024-05-01 12:00"),
        ('<c s="2"><v>1.5625</v></c>', "37:30:00"),
        ('<c s="1"><v>99999999999</v></c>', "99999999999"),
        ('<c s="1"><v>no number</v></c>', "no number"),
        ('<c s="3"><v>7</v></c>', "7"),
        ('<c s="77"><v>7</v></c>', "7"),
    ],
)
def test_cells_of_every_type_are_shown_as_a_person_sees_them(read: Read, cell: str, shown: str) -> None:
    strings = "<sst><si><t>first</t></si><si><t>second_x000A_tone</t><rPh><t>furigana</t></rPh></si></sst>"
    styles = (
        '<styleSheet><numFmts><numFmt numFmtId="170" formatCode="[hh]:mm"/>'
        '<numFmt numFmtId="171" formatCode="&quot;day &quot;0"/></numFmts>'
        '<cellXfs><xf/><xf numFmtId="14"/><xf numFmtId="170"/><xf numFmtId="171"/></cellXfs></styleSheet>'
    )
    assert read(sheet(f"<row>{cell}</row>", sharedStrings=strings, styles=styles)).text == shown


def test_document_finds_its_headings_by_outline_and_its_header_comes_once(read: Read) -> None:
    found = read(document())
    assert found.format == "docx"
    assert places(found) == [
        ("Guide", ("Guide",), None, 1),
        ("Tides\n\nHigh water at noon.", ("Guide", "Tides"), None, 3),
        ("Harbour office", (), None, 7),
    ]


def test_nothing_that_a_reader_of_a_document_sees_is_lost(read: Read) -> None:
    body = (
        "<w:sdt><w:sdtPr/><w:sdtContent><w:p><w:r><w:t>in a control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:r><w:t>kept</w:t></w:r><w:ins><w:r><w:t> inserted</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText> deleted</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText></w:r>"
        "<w:hyperlink><w:r><w:t> linked</w:t><w:tab/><w:t>x</w:t><w:br/></w:r></w:hyperlink>"
        '<w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        "<w:p><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></w:pict></w:r></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>Port</w:t></w:r></w:p><w:p><w:r><w:t>North</w:t></w:r></w:p></w:tc>"
        "<w:sdt><w:sdtContent><w:tc><w:tbl><w:tr><w:tc><w:p><w:r><w:t>inner</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
        "</w:tc></w:sdtContent></w:sdt></w:tr></w:tbl>"
        '<w:p><w:pPr><w:pStyle w:val="V1"/></w:pPr><w:r><w:t>Tides .... 3</w:t></w:r></w:p>'
    )
    notes = '<w:footnote w:id="2"><w:p><w:r><w:t>noted</w:t></w:r></w:p></w:footnote>'
    styles = '<w:style w:styleId="V1"><w:name w:val="toc 1"/></w:style>'
    assert read(word_document(body, footnotes=notes, styles=styles)).text == (
        "in a control\n\nkept inserted linked\tx\n\n\nnoted\n\nboxed\n\nPort North | inner"
    )


def test_styles_and_notes_that_lead_in_a_circle_have_an_end(read: Read) -> None:
    styles = "".join(
        f'<w:style w:styleId="{one}"><w:name w:val="{one}"/><w:basedOn w:val="{other}"/></w:style>'
        for one, other in ("ab", "ba")
    )
    note = '<w:footnote w:id="1"><w:p><w:r><w:t>noted</w:t><w:footnoteReference w:id="1"/></w:r></w:p></w:footnote>'
    body = '<w:p><w:pPr><w:pStyle w:val="a"/></w:pPr><w:r><w:t>text</w:t><w:footnoteReference w:id="1"/></w:r></w:p>'
    assert read(word_document(body, styles=styles, footnotes=note)).text == "text\n\nnoted"


def test_open_document_text_has_headings_notes_comments_boxes_and_tables(read: Read) -> None:
    found = read((DATA / "guide.odt").read_bytes())
    assert found.format == "odt"
    assert places(found) == [
        ("Guide\n\nBefore the parts.", ("Guide",), None, 1),
        (
            "Tides\n\nHigh water   at noon,\nlow water at six.\n\nGive or take an hour.\n\nAsk the pilot.\n\nBoats\n\n"
            "Buoys",
            ("Guide", "Tides"),
            None,
            5,
        ),
        ("Table\n\nPort | Fare\nNorth | 5\n\nA box beside.", ("Guide", "Tides", "Table"), None, 18),
        ("Harbour office", (), None, 25),
    ]


def test_open_document_sheets_have_row_numbers_dates_and_hidden_sheets(read: Read) -> None:
    found = read((DATA / "fares.ods").read_bytes())
    assert found.format == "ods"
    header = "Port | From | Fare"
    assert places(found) == [
        (header, ("Fares",), None, 1),
        ("North | 2024-05-01 | 5.00 €", ("Fares", header), None, 2),
        ("South closed in winter |  | 7.50 €", ("Fares", header), None, 13),
        ("kept in the safe", ("Hidden",), None, 1),
    ]


def test_open_document_presentation_has_a_section_per_page(read: Read) -> None:
    found = read((DATA / "talk.odp").read_bytes())
    assert found.format == "odp"
    assert places(found) == [
        ("Tides\n\nHigh water at noon.", ("Tides",), 1, 1),
        ("Mention the pilot.", ("Tides", "Notes"), 1, 5),
        ("A page without a title.", ("Slide 2",), 2, 1),
    ]


def test_book_is_read_in_the_order_of_its_spine_with_its_chapters(read: Read) -> None:
    found = read(book())
    assert found.format == "epub"
    assert [(text, heading) for text, heading, _, _ in places(found)] == [
        ("The Lamp\n\nA. Keeper, B. Wick", ()),
        ("Oil is\nkept below.", ("The oil",)),
        ("More of the oil.", ("The oil",)),
        ("Wicks\n\nTrim them & wait.", ("Wicks",)),
        ("Spare wicks\n\nIn the drawer.", ("Wicks", "Spare wicks")),
    ]
    for text, section in stretches(found):
        assert found.text.split("\n")[section.line - 1] == text.split("\n")[0]


def test_book_of_the_older_kind_has_its_chapters_too(read: Read) -> None:
    contents = (
        '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "ncx.dtd"><ncx><navMap><navPoint><navLabel><text>The oil'
        '</text></navLabel><content src="text/two.xhtml"/></navPoint></navMap></ncx>'
    )
    package = str(BOOK["OPS/book.opf"]).replace(
        'href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"',
        'href="toc.ncx" media-type="application/x-dtbncx+xml"',
    )
    found = read(zipped(BOOK | {"OPS/book.opf": package, "OPS/toc.ncx": contents}))
    assert found.sections[1].heading == ("The oil",)
    damaged = read(zipped(BOOK | {"OPS/book.opf": package, "OPS/toc.ncx": contents[:99]}))
    assert damaged.text == found.text


@pytest.mark.parametrize(
    ("make", "part", "kin"),
    [
        (document, "wordprocessingml.document", "ms-word.document.macroEnabled"),
        (document, "wordprocessingml.document", "wordprocessingml.template"),
        (workbook, "spreadsheetml.sheet", "ms-excel.sheet.macroEnabled"),
        (workbook, "spreadsheetml.sheet", "spreadsheetml.template"),
        (presentation, "presentationml.presentation", "ms-powerpoint.presentation.macroEnabled"),
        (presentation, "presentationml.presentation", "presentationml.template"),
        (presentation, "presentationml.presentation", "presentationml.slideshow"),
    ],
)
def test_macros_and_templates_are_read_as_their_kin(read: Read, make: Callable[[], bytes], part: str, kin: str) -> None:
    content = make()
    types = unzipped(content)["[Content_Types].xml"].decode()
    assert f"{part}.main+xml" in types
    altered = with_members(content, {"[Content_Types].xml": types.replace(f"{part}.main", f"{kin}.main")})
    assert read(altered).text == read(content).text


@pytest.mark.parametrize("make", [document, workbook, presentation, book])
def test_content_decides_over_the_name(read: Read, make: Callable[[], bytes]) -> None:
    assert read(make(), "a.txt").text == read(make(), "a.zip").text == read(make(), "a.docx").text


def test_names_of_any_case_and_the_strict_form_are_read(read: Read) -> None:
    strict = {
        name.replace("word/document.xml", "word/Document.XML"): content.replace(
            b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
            b"http://purl.oclc.org/ooxml/wordprocessingml/main",
        ).replace(
            b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
            b"http://purl.oclc.org/ooxml/officeDocument/relationships",
        )
        for name, content in unzipped(document()).items()
    }
    assert read(zipped(strict)).text == read(document()).text


def test_chunks_of_a_sheet_end_where_rows_end(read: Read) -> None:
    rows = "".join(f'<row><c t="str"><v>Dr. Who{n}</v></c><c><v>{n}</v></c></row>' for n in range(40))
    document = read(sheet(rows))
    chunks = split(document, lambda texts: [len(text) for text in texts], max_tokens=100)
    lines = set(document.text.split("\n"))
    assert len(chunks) > 4
    assert {line for chunk in chunks for line in chunk.text.split("\n")} == lines
    assert [(chunk.line_start, chunk.line_end) for chunk in chunks][:2] == [(1, 7), (8, 14)]


# ---------------------------------------------------------------- bombs


def test_archive_that_unpacks_to_too_much_is_not_opened(read: Read) -> None:
    content = with_members(document(), {"word/media/a.bin": bytes(9_000_000)})
    assert re.fullmatch(
        "it unpacks to 10 MB, more than .*; it was not opened; .* raise index.max_file_mb to include it",
        reason(read, content),
    )


def test_archive_that_unpacks_to_many_times_its_size_is_not_opened(read: Read) -> None:
    bomb = with_members(document(), {"word/media/a.bin": bytes(30_000_000)})
    said = reason(read, bomb, max_bytes=30_000_000)
    assert re.match(
        "it unpacks to 31 MB, [0-9]+ times its size, as documents do not and bombs do; .* another format", said
    )
    assert read(with_members(document(), {"word/media/a.bin": bytes(15_000_000)}), max_bytes=30_000_000).text


def test_archive_that_lies_about_its_size_unpacks_to_no_more_than_it_says(read: Read) -> None:
    text = "<w:p><w:r><w:t>" + "x" * 50_000_000 + "</w:t></w:r></w:p>"
    content = word_document(text)
    real = unzipped(content)["word/document.xml"]
    lying = content.replace(struct.pack("<I", len(real)), struct.pack("<I", 1000))
    assert lying != content
    tracemalloc.start()
    try:
        assert "damaged docx" in reason(read, lying)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_compressions_that_unpack_without_a_limit_are_refused(read: Read) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        for name, member in unzipped(document()).items():
            archive.writestr(name, member)
    assert "damaged docx" in reason(read, file.getvalue())


def test_archive_within_a_document_is_never_opened(read: Read) -> None:
    bomb = zipped({"a": bytes(50_000_000)})
    for _ in range(3):
        bomb = zipped({str(n): bomb for n in range(9)})
    assert read(with_members(document(), {"word/embeddings/a.xlsx": bomb})).text == read(document()).text


def test_archive_of_too_many_members_is_not_opened(read: Read) -> None:
    content = zipped({f"word/{n}.xml": b"" for n in range(20_001)} | unzipped(document()))
    assert "more than a document ever has; it was not opened" in reason(read, content, max_bytes=50_000_000)


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@pytest.mark.parametrize(
    "declared", [LAUGHS + "]>", '<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>', '<!DOCTYPE x SYSTEM "y">']
)
@pytest.mark.parametrize(
    ("make", "member"),
    [
        (document, "word/document.xml"),
        (document, "word/styles.xml"),
        (workbook, "xl/worksheets/sheet1.xml"),
        (presentation, "ppt/slides/slide1.xml"),
        (presentation, "ppt/_rels/presentation.xml.rels"),
        ((DATA / "guide.odt").read_bytes, "content.xml"),
        ((DATA / "fares.ods").read_bytes, "content.xml"),
        (book, "META-INF/container.xml"),
    ],
)
def test_xml_that_declares_entities_is_refused(
    read: Read, make: Callable[[], bytes], member: str, declared: str
) -> None:
    xml = unzipped(make())[member].decode()
    start = xml.find("?>") + 2 if xml.startswith("<?xml") else 0
    content = with_members(make(), {member: xml[:start] + declared + xml[start:]})
    assert reason(read, content) == (
        "it declares XML entities, as no program for such files does and as attacks do; it was not opened"
    )


def test_entities_in_the_pages_of_a_book_are_never_expanded(read: Read) -> None:
    page = LAUGHS + "]><html><body><p>lamp &j; oil &nbsp;</p></body></html>"
    text = read(with_members(book(), {"OPS/text/two.xhtml": page})).text
    assert "lamp &j; oil" in text and "hahaha" not in text
    package = str(BOOK["OPS/book.opf"]).replace('<?xml version="1.0"?>', LAUGHS + "]>")
    assert "declares XML entities" in reason(read, with_members(book(), {"OPS/book.opf": package}))


def test_cells_that_stand_for_more_text_than_a_file_may_hold_are_refused(read: Read) -> None:
    strings = f"<sst><si><t>{'long ' * 6000}</t></si></sst>"
    content = sheet('<row><c t="s"><v>0</v></c></row>' * 1000, sharedStrings=strings)
    assert reason(read, content) == "its text is larger than 1 MB; raise index.max_file_mb to include it"


def test_repetitions_in_a_few_bytes_stand_for_no_millions_of_cells(read: Read) -> None:
    cell = '<table:table-cell table:number-columns-repeated="999999999"><text:p>x<text:s text:c="999999999"/>y</text:p>'
    table = (
        '<office:spreadsheet><table:table table:name="Data"><table:table-row table:number-rows-repeated="999999999">'
        f"{cell}</table:table-cell></table:table-row><table:table-row><table:table-cell><text:p>last</text:p>"
        "</table:table-cell></table:table-row></table:table></office:spreadsheet>"
    )
    found = read(open_document("spreadsheet", table))
    assert len(found.text) < 1000
    assert found.sections[-1].line == 1_048_576
    far = read(sheet('<row r="1048576"><c r="A1"><v>1</v></c><c r="XFD1"><v>2</v></c></row>'))
    assert len(far.text) < 300 and far.sections[0].line == 1_048_576


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_elements_nested_without_end_are_refused(read: Read, depth: int) -> None:
    content = word_document("<w:sdt>" * depth + "</w:sdt>" * depth)
    assert "damaged docx" in reason(read, content, max_bytes=10_000_000)


# ---------------------------------------------------------------- what cannot be read


def test_document_of_pictures_says_that_it_has_no_text_layer(read: Read) -> None:
    scan = docx.Document()
    scan.add_picture(io.BytesIO(PIXEL))
    package = str(BOOK["OPS/book.opf"]).replace("The Lamp", "").replace("A. Keeper", "").replace("B. Wick", "")
    pages = {name: "<html><body><img src='cover.png'/></body></html>" for name in BOOK if "/text/" in name}
    for content in (picture_presentation(), saved(scan), zipped(BOOK | {"OPS/book.opf": package} | pages)):
        assert "it has no text layer, only pictures; run text recognition (OCR)" in reason(read, content)
    empty = saved(docx.Document())
    assert "docProps/thumbnail.jpeg" in unzipped(empty)
    assert reason(read, empty) == "it holds no text"


def test_password_is_named_as_the_reason(read: Read) -> None:
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
    assert "old Office file; save it as .docx, .xlsx or .pptx" in reason(read, old, "a.xls")
    manifest = '<manifest xmlns="m"><file-entry><encryption-data/></file-entry></manifest>'
    flagged = bytearray(document())
    at = flagged.index(b"PK\x01\x02", flagged.index(b"word/document.xml") + 20)
    for found in re.finditer(b"PK\x01\x02", bytes(flagged)):
        at = found.start()
        flagged[at + 8] |= 1
    for content in (
        old + "EncryptedPackage".encode("utf-16-le"),
        with_members((DATA / "guide.odt").read_bytes(), {"META-INF/manifest.xml": manifest}),
        with_members((DATA / "fares.ods").read_bytes(), {"encrypted-package": "x"}),
        bytes(flagged),
    ):
        assert reason(read, content) == "it is protected by a password; save it without one"


def test_book_that_its_seller_protects_is_refused_and_one_with_protected_fonts_is_not(read: Read) -> None:
    def encrypted(uri: str) -> bytes:
        inside = f'<encryption><EncryptedData><CipherReference URI="{uri}"/></EncryptedData></encryption>'
        return with_members(book(), {"META-INF/encryption.xml": inside})

    assert "protected by its seller (DRM)" in reason(read, encrypted("OPS/text/one%20a.xhtml"))
    assert read(encrypted("OPS/fonts/a.otf")).text == read(book()).text


BINARY = {
    "_rels/.rels": '<r><Relationship Id="r" Type="x/officeDocument" Target="xl/workbook.bin"/></r>',
    "xl/workbook.bin": bytes(9),
}


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (zipped({"a.txt": "text"}), "a.zip", "it is a packed file or archive; unpack it to include what it holds"),
        (zipped({"META-INF/MANIFEST.MF": "", "A.class": ""}), "a.jar", "it is a packed file or archive; unpack it"),
        (zipped({"word/a.txt": "a folder", "a.txt": "text"}), "a.zip", "it is a packed file or archive; unpack it"),
        (zipped({"word": "x"})[:40], "a.zip", "it is a packed file or archive; unpack it"),
        (zipped({"Index/Document.iwa": "x"}), "a.pages", "Apple's own format; export it as docx or PDF"),
        (with_members(workbook(), BINARY), "a.xlsb", "it is a binary workbook; save it as .xlsx"),
        (b"plain words", "a.xlsm", "it is damaged: its name says xlsm, its content does not"),
        (b"plain words", "a.epub", "it is damaged: its name says epub, its content does not"),
    ],
    ids=["archive", "jar", "folder", "cut", "pages", "xlsb", "xlsm", "epub"],  # the bytes tell the time of day
)
def test_other_archives_and_false_names_have_a_reason(read: Read, content: bytes, name: str, expected: str) -> None:
    assert expected in reason(read, content, name)


@pytest.mark.parametrize(
    ("make", "format_"),
    [
        (document, "docx"),
        (workbook, "xlsx"),
        (presentation, "pptx"),
        (book, "epub"),
        ((DATA / "guide.odt").read_bytes, "odt"),
        ((DATA / "fares.ods").read_bytes, "ods"),
        ((DATA / "talk.odp").read_bytes, "odp"),
    ],
)
def test_cut_document_is_called_damaged_by_its_format(read: Read, make: Callable[[], bytes], format_: str) -> None:
    content = make()
    expected = f"it is a damaged {format_}; open it where it was made and save it anew"
    assert reason(read, content[: len(content) * 2 // 3]) == expected


@pytest.mark.parametrize(
    ("make", "member", "inside", "format_"),
    [
        (document, "word/document.xml", "<w:document", "docx"),
        (document, "_rels/.rels", "no xml", "docx"),
        (document, "word/document.xml", '<?xml version="1.0" encoding="nonsense"?><a/>', "docx"),
        (workbook, "xl/workbook.xml", "<workbook><sheets><sheet name='a'/></sheets></workbook>", "xlsx"),
        (workbook, "xl/worksheets/sheet1.xml", "<worksheet><sheetData><row>", "xlsx"),
        (presentation, "ppt/_rels/presentation.xml.rels", "<Relationships/>", "pptx"),
        (book, "OPS/text/two.xhtml", b"\x00\x01\x02", "epub"),
        (book, "OPS/book.opf", "<package/>", "epub"),
        (book, "META-INF/container.xml", "<container/>", "epub"),
        ((DATA / "guide.odt").read_bytes, "content.xml", "", "odt"),
    ],
)
def test_document_with_a_damaged_part_is_called_damaged(
    read: Read, make: Callable[[], bytes], member: str, inside: bytes | str, format_: str
) -> None:
    assert f"it is a damaged {format_}" in reason(read, with_members(make(), {member: inside}))
