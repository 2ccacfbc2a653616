"""Damaged files of every format, made from sound ones, and what the reader's process says to each.

A mutant comes from its seed by one to three hits of bits, cuts, zeros, numbers at their limits, words in each other's
places, or pieces of itself or of another file. In a zip, where a checksum would find that at once, half of the
mutants are hit inside a member and packed anew.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from office_files import DATA, book, document, presentation, unzipped, workbook, zipped
from text_files import CSV, MAIL, MBOX, ORG, RST, RTF, SRT, TEX, notebook

from gritdesk.errors import ExtractError
from gritdesk.extract.worker import Reader

MAX_BYTES = 10_000_000
TIMEOUT_S = 30.0
_NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff")
_WORDS = (b"4294967295", b"-1", b"1e999", b"999999999", b"NaN")
_WORD = re.compile(rb"[A-Za-z0-9.]+")


def seeds() -> list[tuple[str, bytes]]:
    """(name, content) of one sound file per format; its suffix names it in the table."""
    files = ("text.txt", "notes.md", "module.py", "page.html", "report.pdf", "guide.odt", "fares.ods", "talk.odp")
    return [
        *((name, (DATA / name).read_bytes()) for name in files),
        ("a.docx", document()),
        ("a.xlsx", workbook()),
        ("a.pptx", presentation()),
        ("a.epub", book()),
        ("a.eml", MAIL),
        ("a.mbox", MBOX.encode()),
        ("a.rtf", RTF),
        ("a.tex", TEX.encode()),
        ("a.srt", SRT.encode()),
        ("a.org", ORG.encode()),
        ("a.rst", RST.encode()),
        ("a.csv", CSV.encode()),
        ("a.ipynb", notebook({"cell_type": "code", "source": ["fare = 5"], "outputs": [], "metadata": {}}).encode()),
    ]


@dataclass
class Tally:
    """What became of the mutants of one format."""

    read: int = 0
    refused: int = 0
    killed: int = 0
    """Those that the reader's process did not survive, by their own doing or by its limits."""
    longest_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    """Reasons that tell a person nothing: what a library raised, or more than a line."""


def mutants(count: int, random_seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name, content), each format in turn; the same ones for the same seed."""
    rng = random.Random(random_seed)
    sound = seeds()
    for number in range(count):
        name, content = sound[number % len(sound)]
        yield name, _mutant(content, rng.choice(sound)[1], rng)


def read_all(files: Iterator[tuple[str, bytes]], folder: Path) -> tuple[dict[str, Tally], Sequence[int]]:
    """(tally by suffix, ids of the processes that read) of all files, each written to the folder first."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    process_ids = set()
    with Reader(MAX_BYTES, timeout_s=TIMEOUT_S) as reader:
        for name, content in files:
            path = folder / name
            path.write_bytes(content)
            tally = tallies[path.suffix[1:]]
            started_at = time.perf_counter()
            try:
                reader.read(path)
                tally.read += 1
            except ExtractError as error:
                _count(tally, str(error))
            tally.longest_s = max(tally.longest_s, time.perf_counter() - started_at)
            if reader._child is not None:
                process_ids.add(reader._child.pid)
    return dict(tallies), sorted(process_ids)


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def _count(tally: Tally, reason: str) -> None:
    if reason.startswith(("reading it ended the reader", "reading it took longer")):
        tally.killed += 1
    else:
        tally.refused += 1
    if "could not be read (" in reason or "\n" in reason or not reason:
        tally.faults.append(reason)


def _mutant(content: bytes, other: bytes, rng: random.Random) -> bytes:
    if content.startswith(b"PK") and rng.random() < 0.5:
        members = unzipped(content)
        name = rng.choice(sorted(name for name in members if members[name]))
        return zipped(members | {name: _hit(members[name], other, rng)})
    return _hit(content, other, rng)


def _hit(content: bytes, other: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(damaged) + 1)
        end = min(len(damaged), start + int(2 ** rng.uniform(0, 10)))
        match rng.choice(("bits", "cut", "gap", "zeros", "number", "copy", "splice", "word", "word")):
            case "bits":
                for at in rng.choices(range(len(damaged)), k=rng.randint(1, 16)) if damaged else ():
                    damaged[at] ^= 1 << rng.randrange(8)
            case "cut":
                del damaged[start:]
            case "gap":
                del damaged[start:end]
            case "zeros":
                damaged[start:end] = bytes(end - start)
            case "number":
                number = rng.choice(_NUMBERS)
                damaged[start : start + len(number)] = number
            case "copy":
                damaged[start:start] = damaged[start:end] * rng.choice((1, 1, 100))
            case "word":  # leaves the grammar alone, and so gets further
                words = [match.span() for match in _WORD.finditer(damaged)]
                if len(words) > 1:
                    (start, end), (from_, to) = rng.choices(words, k=2)
                    damaged[start:end] = rng.choice((damaged[from_:to], *_WORDS))
            case "splice":
                at = rng.randrange(len(other))
                damaged[start:end] = other[at : at + end - start]
    return bytes(damaged)
