"""srt and vtt -> text: what is said, in paragraphs that begin with their time, as "[0:12:05] So we went ashore."

A paragraph ends with a sentence after half a minute, or with a pause. Every line knows its line in the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from gritdesk.extract.source_lines import Block, join
from gritdesk.records import Section

_TIME = r"(?:(\d+):)?(\d\d?):(\d\d?)(?:[.,](\d{1,3}))?"
_CUE = re.compile(rf"[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}")
_VOICE = re.compile(r"<v(?:\.[^ \t>]*)?[ \t]+([^>]+)>")
_MARKUP = re.compile(r"</?[a-zA-Z][^>]*>|<[\d:.]+>|\{\\[^}]*\}")
_SENTENCE_END = re.compile(r"""[.!?…。！？♪]["'”’)\]]*$""")

_PARAGRAPH_S = 30.0
_LONGEST_PARAGRAPH_S = 90.0
_PAUSE_S = 4.0


def read(text: str) -> tuple[str, tuple[Section, ...]]:
    """(text, sections) of subtitles; a file without any keeps its text."""
    blocks = [*_blocks(text.split("\n"))]
    return join(blocks) if blocks else (text, (Section(0, 1),))


def _blocks(lines: list[str]) -> Iterator[Block]:
    began_s = ended_s = -_LONGEST_PARAGRAPH_S
    said = ""
    for start_s, end_s, number, line in _said(lines):
        if line == said:  # live captions repeat the line above
            continue
        is_new = start_s - ended_s >= _PAUSE_S or (
            start_s - began_s >= (_PARAGRAPH_S if _SENTENCE_END.search(said) else _LONGEST_PARAGRAPH_S)
        )
        if is_new or not said:
            began_s = start_s
            yield Block(f"[{_clock(start_s)}] {line}", number, before="\n\n")
        else:
            yield Block(line, number, before=" ")
        ended_s, said = end_s, line


def _said(lines: list[str]) -> Iterator[tuple[float, float, int, str]]:
    """(start, end, source line, text) of each line of a cue; what is outside of cues are numbers, styles and notes."""
    start_s = end_s = 0.0
    in_cue = False
    for number, line in enumerate(lines, start=1):
        if match := _CUE.match(line):
            start_s, end_s = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:])
            in_cue = True
        elif not line.strip() or (line.strip().isdigit() and number < len(lines) and _CUE.match(lines[number])):
            in_cue = False  # by a blank line, or without one by the next cue's number
        elif in_cue and (said := " ".join(unescape(_MARKUP.sub("", _VOICE.sub(r"\1: ", line))).split())):
            yield start_s, end_s, number, said


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
