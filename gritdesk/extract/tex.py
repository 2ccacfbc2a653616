"""TeX -> text as it reads: commands and comments dropped, formulas kept, each line where it was; sections by its own.

What stands before the document's text is dropped but for the title. This knows how documents are written as a rule,
not what their macros do: of an unknown command the text in its braces stays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate, pairwise

from gritdesk.extract.source_lines import Heading, outline
from gritdesk.records import Section

_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,500}\}){0,500}\}){0,2000}\}"
"""Braces with braces in them, up to the third depth; bounded, because one that is never closed is looked for long."""
_OPTION = r"(?:\[[^\]\n]{0,500}\])"
_VERBATIM = (
    r"\\begin\{(?P<verbatim>verbatim\*?|Verbatim|lstlisting|minted|alltt)\}"
    r"(?P<code>(?:(?!\\begin\{(?P=verbatim)).)*?)\\end\{(?P=verbatim)\}"
)
_TOKEN = re.compile(
    rf"""{_VERBATIM}
    |(?P<comment>%[^\n]*)
    |(?P<formula>\$\$(?:[^$\\]|\\.){{1,4000}}\$\$|\$(?:[^$\\\n]|\\.|\n(?![ \t]*\n)){{1,1000}}\$
        |\\\[(?:(?!\\\[).){{1,4000}}?\\\]|\\\((?:(?!\\\().){{1,1000}}?\\\)
        |\\begin\{{(?P<math>(?:equation|align|gather|multline|eqnarray|displaymath)\*?)\}}
            (?:(?!\\begin\{{(?P=math)).){{1,8000}}?\\end\{{(?P=math)\}})
    |\\(?P<accent>[`'^"~=.]|[uvHckrdb](?![a-zA-Z]))[ \t]*
        (?:\{{[ ]*\\?(?P<braced>[a-zA-Z])[ ]*\}}|\\?(?P<letter>[a-zA-Z]))
    |\\(?:begin|end)[ \t]*\{{[^{{}}\n]*\}}(?P<option>{_OPTION})?(?:\{{[^{{}}\n]*\}})*
    |\\(?:url|path)\{{(?P<url>[^{{}}\n]*)\}}
    |\\(?:href\{{[^{{}}\n]*\}}|(?:label|index|[vh]space|includegraphics|bibliographystyle|bibliography|usepackage
        |documentclass|input|include|pagestyle|thispagestyle|setlength|setcounter|hypersetup)\*?(?:{_OPTION}|{_BRACES})+)
    |\\item(?![a-zA-Z])(?P<item>[ \t]*)
    |\\(?P<command>[a-zA-Z@]+)\*?{_OPTION}?[ \t]*
    |\\\\(?:{_OPTION})?
    |\\(?P<escaped>[^a-zA-Z\n])
    |(?P<sign>---|--|``|''|[ \t]*&[ \t]*|[~{{}}])""",
    re.DOTALL | re.VERBOSE,
)
_SKIPPED = re.compile(rf"{_VERBATIM}|\\.|%[^\n]*", re.DOTALL)
_HEADING = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph)\*?[ \t]*(?:\[[^\]]{0,500}\])?\s*(" + _BRACES + ")"
    r"|\\begin\{(abstract)\}"
)
_LEVELS = {"part": 1, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6, "abstract": 3}
_TITLE = re.compile(rf"\\title[ \t]*(?:{_OPTION})?\s*({_BRACES})")
_BODY_BEGIN, _BODY_END = re.compile(r"\\begin[ \t]*\{document\}"), re.compile(r"\\end[ \t]*\{document\}")
_ACCENTS = dict(zip("`'^\"~=.uvHckrdb", map(chr, (768, 769, 770, 776, 771, 772, 775, 774, 780, 779, 807, 808, 778, 803,
                                                   817)), strict=True))  # fmt: skip
_COMMANDS = {
    **{"ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "aa": "å", "AA": "Å", "l": "ł"},
    **{"L": "Ł", "i": "ı", "S": "§", "copyright": "©", "pounds": "£", "euro": "€", "LaTeX": "LaTeX", "TeX": "TeX"},
    **{"textendash": "–", "textemdash": "—", "ldots": "…", "dots": "…", "quad": " ", "qquad": " ", "footnote": " "},
}
_SIGNS = {"---": "—", "--": "–", "``": "“", "''": "”", "~": " ", "&": " | ", "{": "", "}": ""}


def read(text: str) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of a document, or of a part of one that another includes."""
    visible = _SKIPPED.sub(_blank, text)
    begin, end = _BODY_BEGIN.search(visible), _BODY_END.search(visible)
    begin_at, end_at = begin.end() if begin else 0, end.start() if end else len(text)
    title = _TITLE.search(visible)
    first_line = 1 + text.count("\n", 0, begin_at)
    text, visible = text[begin_at:end_at], visible[begin_at:end_at]
    lines = _readable(_parted(text, visible)).split("\n")
    headings = _headings(visible, lines, first_line)
    named = [Heading(0, first_line, 0, _readable(title[1]))] if title else []
    return "\n".join(lines), outline([*named, *headings], first_line)


def _blank(match: re.Match[str]) -> str:
    """Blanks in place of what holds no commands; those outside are kept but for an escaped percent sign."""
    is_command = match[0].startswith("\\") and match["code"] is None and match[0] not in ("\\%", "\\\\")
    return match[0] if is_command else re.sub(r"[^\n]", " ", match[0])


def _parted(text: str, visible: str) -> str:
    """A blank before and after every heading that touches its neighbours, with which it would make one word."""
    borders = [border for match in _HEADING.finditer(visible) for border in match.span()]
    parts = [text[start:end] for start, end in pairwise([0, *borders, len(text)]) if start < end]
    touching = [not (before[-1].isspace() or after[0].isspace()) for before, after in pairwise(parts)]
    return "".join(part + " " * gap for part, gap in zip(parts, [*touching, False], strict=True)) if parts else ""


def _headings(visible: str, lines: list[str], first_line: int) -> Iterator[Heading]:
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    number, counted = 0, 0
    for match in _HEADING.finditer(visible):
        number, counted = number + visible.count("\n", counted, match.start()), match.start()
        title = " ".join(_readable(match[2]).split()) if match[2] else "Abstract"
        yield Heading(starts[number], first_line + number, _LEVELS[match[1] or match[3]], title)


def _readable(text: str) -> str:
    """Text without commands, with as many lines."""
    return "\n".join(line.strip() for line in _TOKEN.sub(_read_token, text).split("\n"))


def _read_token(match: re.Match[str]) -> str:
    shown = _shown(match)
    return shown + "\n" * (match[0].count("\n") - shown.count("\n"))


def _shown(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return match["code"]
    if match["formula"]:
        return match["formula"]
    if match["accent"]:
        return unicodedata.normalize("NFC", (match["braced"] or match["letter"]) + _ACCENTS[match["accent"]])
    if match["option"] and not re.fullmatch(r"\[[tbchpH!]*\]|.*=.*|\[\w*sep\]", match["option"]):
        return f"({match['option'][1:-1]})"  # the name of a theorem
    if match["item"] is not None:
        return "• "
    if match["command"]:
        return _COMMANDS.get(match["command"], "")
    if match["sign"]:
        return _SIGNS[match["sign"].strip()]
    return match["url"] or (match["escaped"] or "").strip(",;:!/-")
