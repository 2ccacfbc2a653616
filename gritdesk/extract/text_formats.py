"""Which reader takes a file that is text: by its content where that is plain to see, otherwise by its suffix."""

from __future__ import annotations

import re

from gritdesk.extract.decoding import decode
from gritdesk.records import Section

_FORMATS = {
    suffix: format_
    for format_, suffixes in {
        "markdown": ".md .markdown .mdown .mkd .mdx .qmd .rmd",
        "html": ".html .htm .xhtml",
        "rst": ".rst .rest",
        "org": ".org",
        "csv": ".csv .tsv .tab",
        "email": ".eml .emlx .mbox .mbx",
        "notebook": ".ipynb",
        "tex": ".tex .ltx .latex",
        "subtitles": ".srt .vtt",
        "code": """.py .pyi .pyx .pyw .js .mjs .cjs .jsx .ts .tsx .mts .cts .vue .svelte .java .kt .kts .scala .groovy
            .c .h .cc .cpp .cxx .hh .hpp .hxx .inl .cu .cs .fs .vb .go .rs .rb .php .swift .m .mm .lua .pl .pm .r .jl
            .sh .bash .zsh .ksh .fish .ps1 .bat .cmd .sql .css .scss .sass .less .toml .yaml .yml .json .jsonl .ndjson
            .geojson .json5 .xml .xsd .xsl .ini .cfg .conf .properties .cmake .mk .gradle .vim .el .lisp .scm .rkt .clj
            .ex .exs .erl .hs .ml .mli .nim .zig .dart .v .sv .vhd .vhdl .tf .hcl .nix .proto .thrift .graphql .asm .s
            .f .f90 .f95 .pas .ada .adb .tcl .awk .sed .m4 .diff .patch""",
    }.items()
    for suffix in suffixes.split()
}
MARKDOWN_SUFFIXES = frozenset(suffix for suffix, format_ in _FORMATS.items() if format_ == "markdown")
_EMBEDDED = re.compile(r"(;base64,)[A-Za-z0-9+/=]{256,}")
"""A picture written into a text."""


def read(suffix: str, content: bytes) -> tuple[str, str, tuple[Section, ...]]:
    """(format, text, sections) by the reader that fits; a reader's module is imported when it is needed.

    Args:
        suffix: of the file's name, in lower case.
    Raises: ExtractError with the reason if the content is no text, or not what its suffix says.
    """
    format_ = _FORMATS.get(suffix)
    if content.startswith(b"{\\rtf"):
        from gritdesk.extract import rtf

        return "rtf", *rtf.read(content)
    if format_ == "email" or (format_ is None and suffix != ".txt" and b":" in content[:64]):
        from gritdesk.extract import mail

        if format_ == "email" or mail.begins(content):
            return "email", *mail.read(content)
    text = _EMBEDDED.sub(r"\1", decode(content))
    if format_ == "html" or text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        from gritdesk.extract import html

        return "html", *html.read(text)
    if format_ is None and text.startswith("#!"):
        format_ = "code"
    return format_ or "text", *_read_as(format_, suffix, text)


def _read_as(format_: str | None, suffix: str, text: str) -> tuple[str, tuple[Section, ...]]:
    match format_:
        case "markdown":
            from gritdesk.extract import markdown

            return text, markdown.sections(text)
        case "code":
            from gritdesk.extract import code

            return text, code.sections(text, suffix)
        case "rst":
            from gritdesk.extract import rst

            return text, rst.sections(text)
        case "org":
            from gritdesk.extract import org

            return text, org.sections(text)
        case "csv":
            from gritdesk.extract import delimited

            return delimited.read(text, suffix)
        case "notebook":
            from gritdesk.extract import notebook

            return notebook.read(text)
        case "tex":
            from gritdesk.extract import tex

            return tex.read(text)
        case "subtitles":
            from gritdesk.extract import subtitles

            return subtitles.read(text)
    return text, (Section(0, 1),)
