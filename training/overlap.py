"""`python -m training.overlap DATA EVAL`: training and evaluation data -> training rows that hold evaluation texts.

Here every run of ten words of either side counts. What training leaves out by itself is told by the sample of them in
training/held_out.py, which `python -m training.overlap EVAL --write FILE` makes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from training.examples import EmptyExample, parse_chat, parse_pair, parse_text, read_rows, texts_of
from training.held_out import (
    GRAM_WORDS,
    Hashes,
    HeldOut,
    among,
    hold_out,
    read_held_out,
    text_hashes,
    write_held_out,
)

MIN_SHARED = 20
"""Different runs of ten words that a row shares with the evaluation sets before it is printed: 29 words in a row.

In the 729,106 rows of the collection that DATA.md describes, 1,300 share one to six and one row shares 39. The one is a
quotation of 48 words. The others are phrases ("of the skin and soft tissues of half of the face"), titles said twice
("The Hitchhiker's Guide to the Galaxy") and definitions, which are found as sentences. A run of 29 words that is found
here is held out in training (see `MIN_KEPT_SHARED`). By sentences 1,016 more rows are found: 973 of text/wordnet, whose
definitions are sentences of sts12 to sts14, 19 with a question of medquad_held or fairytaleqa_test, and 24 with what
anyone says ("Think of it this way"), which are no loss.
"""
DISTRACTOR = "wd"
"""Passages whose _id begins so answer no query and are public text that rows may hold."""
_PARSERS: dict[str, Callable[[dict[str, Any]], Any]] = {"pairs": parse_pair, "chat": parse_chat, "text": parse_text}
_SHOWN_CHARACTERS = 80


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: no row overlaps; 1: some do, or a folder cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m training.overlap", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder with pairs/, chat/ and text/")
    parser.add_argument("eval", type=Path, help="folder of evaluation sets")
    parser.add_argument("--min-shared", type=int, default=MIN_SHARED, help="runs of ten words that a row may not share")
    parser.add_argument("--as-trained", action="store_true", help="pass over rows that training leaves out by itself")
    parser.add_argument(
        "--write", type=Path, help="write the sample of EVAL that training goes by, and compare nothing"
    )
    given = parser.parse_args(arguments)
    if given.write is None and given.data is None:
        parser.error("expected DATA EVAL, or EVAL --write FILE")
    try:
        if given.write is not None:
            return _write(given.eval, given.write)
        return _compare(given.data, given.eval, given.min_shared, read_held_out() if given.as_trained else None)
    except (ValueError, OSError, EOFError, zstandard.ZstdError) as error:
        print(f"training.overlap: {error}", file=sys.stderr)
        return 1


def _write(evaluation: Path, out: Path) -> int:
    held_out = hold_out(evaluation_texts(evaluation))
    write_held_out(out, held_out)
    print(
        f"{out}: {len(held_out.grams)} runs of {GRAM_WORDS} words and {len(held_out.wholes)} short texts of "
        f"{sum(held_out.num_texts.values())} texts, {out.stat().st_size} bytes"
    )
    return 0


def _compare(data: Path, evaluation: Path, min_shared: int, held_out: HeldOut | None) -> int:
    started = time.monotonic()
    compared = Compared.with_texts(evaluation_texts(evaluation))
    found: Counter[tuple[Path, str]] = Counter()
    num_rows = 0
    for path, line, texts in training_rows(data):
        num_rows += 1
        overlap = compared.overlap(texts, min_shared)
        if overlap and not (held_out and held_out.holds(texts)):
            found[path, overlap.name] += 1
            print(f"{path}, line {line}: {overlap.told}")
    for (path, name), num in sorted(found.items()):
        print(f"{path}: {num} rows overlap with {name}")
    print(f"{sum(found.values())} of {num_rows} rows overlap; {time.monotonic() - started:.0f} s")
    return 1 if found else 0


# ---------------------------------------------------------------- reading


def evaluation_texts(folder: Path) -> Iterator[tuple[str, str]]:
    """(set/file, text) of every query, question, passage, document, sentence and text with a label in the sets.

    Answers are left out: they are too short to be anyone's own. So are distractors.
    Raises: ValueError if there is none.
    """
    paths = sorted(path for path in folder.rglob("*.jsonl*") if path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no evaluation set: expected .jsonl files, also .zst or .gz")
    for path in paths:
        name = path.relative_to(folder).as_posix().split(".jsonl")[0]
        for row in read_rows(path, sys.maxsize):
            if not str(row.get("_id", "")).startswith(DISTRACTOR):
                for text in _evaluation_texts(row):
                    yield name, text


def _evaluation_texts(row: dict[str, Any]) -> Iterator[str]:
    for field in ("text", "query", "question", "sentence1", "sentence2"):
        if isinstance(row.get(field), str):
            # a training row gives title and text as one or as two
            title = row.get("title") if field == "text" else None
            yield f"{title}\n{row[field]}" if title else row[field]
    for field in ("documents", "positive", "negative"):
        yield from row.get(field) or []


def training_rows(data: Path) -> Iterator[tuple[Path, int, list[str]]]:
    """(file, line from 1, texts) of every row that is not empty.

    Raises: ValueError if there is none, or naming file and line of one that is of another form than its folder says.
    """
    paths = [(kind, path) for kind in _PARSERS for path in sorted((data / kind).glob("*.jsonl*"))]
    if not paths:
        raise ValueError(f"{data} holds no training data: expected pairs/, chat/ or text/ with .jsonl files")
    for kind, path in paths:
        for line, row in enumerate(read_rows(path, sys.maxsize), start=1):
            try:
                yield path, line, texts_of(_PARSERS[kind](row))
            except EmptyExample:
                continue
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Overlap:
    name: str
    """The set/file it shares most with."""
    told: str
    """What is shared, and how it begins."""


@dataclass(frozen=True)
class Compared:
    """Every hash of the evaluation sets, sorted, with the number of the set/file that has it first."""

    names: list[str]
    grams: Hashes
    gram_names: NDArray[np.int64]
    wholes: Hashes
    whole_names: NDArray[np.int64]
    whole_texts: dict[int, str]
    """By hash."""

    @classmethod
    def with_texts(cls, evaluation: Iterator[tuple[str, str]]) -> Compared:
        names: dict[str, int] = {}
        grams: list[Hashes] = []
        wholes: list[Hashes] = []
        numbers: list[int] = []
        whole_texts: dict[int, str] = {}
        for name, text in evaluation:
            found = text_hashes(text)
            numbers.append(names.setdefault(name, len(names)))
            grams.append(found.grams)
            wholes.append(found.wholes)
            whole_texts.update((each, text) for each in found.wholes.tolist())
        return cls(list(names), *_numbered(grams, numbers), *_numbered(wholes, numbers), whole_texts)

    def overlap(self, texts: list[str], min_shared: int) -> Overlap | None:
        """What a row of these texts shares, if it is enough: a short text as a sentence, or so many runs of words."""
        found = text_hashes(*texts)
        short = np.concatenate((found.sentences, found.wholes))
        for hit in short[among(short, self.wholes)]:
            name = self.names[self.whole_names[np.searchsorted(self.wholes, hit)]]
            return Overlap(name, f"the sentence {_shown(self.whole_texts[int(hit)])!r} of {name}")
        shared = np.unique(found.grams[among(found.grams, self.grams)])
        if len(shared) < max(min_shared, 1):
            return None
        numbers = self.gram_names[np.searchsorted(self.grams, shared)]
        name = self.names[np.bincount(numbers).argmax()]
        first = next((text for text in texts if among(text_hashes(text).grams, self.grams).any()), texts[0])
        return Overlap(name, f"{len(shared)} runs of {GRAM_WORDS} words of {name}, in {_shown(first)!r}")


def _numbered(hashes: list[Hashes], numbers: list[int]) -> tuple[Hashes, NDArray[np.int64]]:
    every, first = np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes]), return_index=True)
    return every, np.repeat(np.array(numbers, dtype=np.int64), [len(each) for each in hashes])[first]


def _shown(text: str) -> str:
    return " ".join(text.split())[:_SHOWN_CHARACTERS]


if __name__ == "__main__":
    sys.exit(main())
