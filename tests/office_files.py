"""Documents that tests need, made by the libraries that people make theirs with, or by hand where none can."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from datetime import date, datetime, time
from functools import cache
from pathlib import Path

import docx
import openpyxl
import pptx
from openpyxl.comments import Comment
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

DATA = Path(__file__).parent / "data"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe"
    "0def46b80000000049454e44ae426082"
)
"""A PNG of one white pixel."""


def saved(document: object) -> bytes:
    """The bytes of a document of python-docx, python-pptx or openpyxl."""
    file = io.BytesIO()
    document.save(file)  # type: ignore[attr-defined]
    return file.getvalue()


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return file.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_members(content: bytes, members: Mapping[str, bytes | str]) -> bytes:
    """A zip with some members replaced or added."""
    return zipped(unzipped(content) | members)


@cache
def presentation() -> bytes:
    """Three slides: a title with notes, a table and a chart in a group's neighbourhood, shapes without a title."""
    document = pptx.Presentation()
    title, only_title, blank = (document.slide_layouts[number] for number in (0, 5, 6))
    slide = document.slides.add_slide(title)
    slide.shapes.title.text = "Harbour\vguide"
    slide.placeholders[1].text = "For pilots\nand walkers"
    slide.notes_slide.notes_text_frame.text = "Greet the walrus."
    slide = document.slides.add_slide(only_title)
    slide.shapes.title.text = "Fares"
    box = (Inches(1), Inches(1), Inches(4), Inches(2))
    table = slide.shapes.add_table(2, 2, *box).table
    for row, texts in enumerate((("Port", "Fare"), ("North", "5"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    chart = CategoryChartData()
    chart.categories = ["Spring", "Autumn"]
    chart.add_series("Passengers", (3, 4))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *box, chart)
    slide = document.slides.add_slide(blank)
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(*box).text_frame.text = "Grouped seal"
    slide.shapes.add_picture(io.BytesIO(PIXEL), 0, 0)
    slide._element.set("show", "0")  # hidden
    return saved(document)


@cache
def picture_presentation() -> bytes:
    """A slide that holds nothing but a picture."""
    document = pptx.Presentation()
    document.slides.add_slide(document.slide_layouts[6]).shapes.add_picture(io.BytesIO(PIXEL), 0, 0)
    return saved(document)


@cache
def workbook() -> bytes:
    """A sheet of trips with dates and percents, one of gaps and a comment, and a hidden one."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Trips"
    sheet.append(["Port", "Day", "Left at", "Seats taken", "Pilot"])
    sheet.append(["North\npier", date(2024, 5, 1), time(13, 30), 0.25, "Mara"])
    sheet.append(["South", datetime(2024, 5, 2, 7, 5), time(6, 0, 30), 1, "=A2"])
    for row in (2, 3):
        sheet[f"D{row}"].number_format = "0%"
    other = book.create_sheet("Notes")
    other["B2"] = "far"
    other["D2"] = True
    other["B9"] = 0.1 + 0.2
    other["B10"] = 7
    other["B10"].number_format = "0000"
    other["B9"].comment = Comment("ask the walrus", "Mara")
    hidden = book.create_sheet("Safe")
    hidden.sheet_state = "hidden"
    hidden.append(["kept in the safe"])
    return saved(book)


@cache
def document() -> bytes:
    """A page with a heading of its own style, a merged table and a header."""
    made = docx.Document()
    made.add_heading("Guide", 0)
    style = made.styles.add_style("Chapter", 1)
    style.base_style = made.styles["Heading 1"]
    made.add_paragraph("Tides", "Chapter")
    made.add_paragraph("High water at noon.")
    made.sections[0].header.paragraphs[0].text = "Harbour office"
    return saved(made)


BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
    "OPS/book.opf": """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/" version="3.0">
<metadata><dc:title>The Lamp</dc:title><dc:creator>A. Keeper</dc:creator><dc:creator>B. Wick</dc:creator></metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="one" href="text/one%20a.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="text/two.xhtml" media-type="application/xhtml+xml"/>
<item id="more" href="text/more.xhtml" media-type="application/xhtml+xml"/>
<item id="cover" href="cover.png" media-type="image/png"/>
</manifest>
<spine><itemref idref="two"/><itemref idref="more"/><itemref idref="one"/></spine>
</package>""",
    "OPS/nav.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>'
    '<nav epub:type="toc"><ol><li><a href="text/two.xhtml">The <i>oil</i></a></li>'
    '<li><a href="text/one%20a.xhtml#start">Wicks</a></li></ol></nav></body></html>',
    "OPS/text/one a.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>The Lamp</title></head><body>'
    "<h1>Wicks</h1>\n<p>Trim them &amp; wait.</p>\n<h2>Spare wicks</h2><p>In the drawer.</p></body></html>",
    "OPS/text/two.xhtml": '<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x.dtd">\n'
    "<html><head><title>The Lamp</title></head><body>\n\n<p>Oil is\nkept below.</p></body></html>",
    "OPS/text/more.xhtml": "<html><body><p>More of the oil.</p></body></html>",
    "OPS/cover.png": PIXEL,
}
"""Members of an EPUB 3: two chapters, the first over two pages and without a heading of its own."""


def book() -> bytes:
    return zipped(BOOK)
