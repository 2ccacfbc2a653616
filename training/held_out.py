"""Which rows are held out from training: those that hold what the evaluation sets ask or show.

The sets themselves are not in the repository. `held_out.npz`, beside this file, holds a sample of their hashes, so that
a run anywhere leaves such rows out. It is made, and made anew when a set changes, by

    python -m training.overlap DATA/eval/open --write training/held_out.npz

A text is compared as its words in lower case: by its runs of ten words, and by its sentences, for questions and the
sentences of pairs may be shorter than that. Hashes are the same on every machine and in every process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

GRAM_WORDS = 10
WINDOW = 10
"""Of so many neighbouring runs of words, the one with the least hash is kept (winnowing: Schleimer, Wilkerson and
Aiken, SIGMOD 2003): two of eleven in all, and at least one of any ten that follow each other, wherever they are."""
MIN_KEPT_SHARED = 2
"""Kept runs that a row shares before it is held out.

Never missed: 29 words in a row are twenty runs, in which at least two are kept; so any quotation of 40 words is found.
One would also find a phrase ("was selected for preservation in the United States National Film Registry"), and by it
always the same films; two seldom do. By chance a run is taken for one of the 167,000 kept ones, of 40 bits each, once
in 7 million: two in a row of 150 words once in 5 * 10^9 rows, in one of 5,000 words once in 4 million.
"""
SENTENCE_WORDS = range(5, GRAM_WORDS + 2 * WINDOW - 1)
"""Lengths at which an evaluation text is also looked for as a whole sentence or text: what is shorter is said by
anyone, and of what is longer two runs are kept. By chance once in 30 million sentences."""
KEPT_BITS = 40
HELD_OUT_FILE = Path(__file__).with_name("held_out.npz")

# what ends a sentence, but not the point of 3.5 or of a name.with.points
_SENTENCE_END = re.compile(r"[.:;!?][\"'’”)\]]*(?=\s|$)|\n")
_BETWEEN_WORDS = re.compile(r"(?:[^\w\n]|_)+")
_SPACE, _LINE_END, _TEXT_END = 32, 10, b"\f"  # these three alone stand between words, and no letter's byte is below


# ---------------------------------------------------------------- text -> hashes


@dataclass(frozen=True)
class TextHashes:
    """All uint64."""

    grams: Hashes
    """Of each run of ten words, in their order."""
    sentences: Hashes
    """Of each sentence of a length of `SENTENCE_WORDS`."""
    wholes: Hashes
    """Of each text of such a length."""


def text_hashes(*texts: str) -> TextHashes:
    """Of all texts of a row at once: a pass over a short one costs its calls and not its letters.

    Runs from one text into the next are among the grams: a title and its passage may be a row's query and positive.
    """
    lines = [_BETWEEN_WORDS.sub(" ", _SENTENCE_END.sub("\n", text.lower())).encode() for text in texts]
    letters = np.frombuffer(_TEXT_END.join(lines), dtype=np.uint8)
    words, starts = _word_hashes(letters)
    is_end = letters < _SPACE
    sentences, wholes = (_span_hashes(words, np.cumsum(each)[starts]) for each in (is_end, letters == _TEXT_END[0]))
    return TextHashes(_gram_hashes(words), sentences, wholes)


def _mixed(values: Hashes) -> Hashes:
    """Each bit of a value moves half of the result's (the last step of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _numbers(num: int, seed: int) -> Hashes:
    """Odd ones: what is multiplied with them loses nothing."""
    every = np.arange(1, num + 1, dtype=np.uint64) + np.uint64(seed << 32)
    return _mixed(every * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)


_NONE, _NOT = np.zeros(0, np.uint64), np.zeros(1, np.bool_)
_OF_BYTE = _numbers(256, 1)
_OF_BYTE[[_SPACE, _LINE_END, _TEXT_END[0]]] = 0
_AT_BYTE, _AT_WORD = _numbers(256, 2), _numbers(32, 3)


def _word_hashes(letters: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.int64]]:
    """Of each word between spaces and ends: its hash, and where it begins."""
    is_letter = letters > _SPACE
    starts = np.flatnonzero(is_letter & ~np.concatenate((_NOT, is_letter[:-1])))
    if not len(starts):
        return _NONE, starts
    # counted from each word's start; in a word of more than 256 bytes the places repeat
    places = np.arange(starts[0], len(letters)) - np.repeat(starts, _lengths(starts, len(letters)))
    values = _OF_BYTE[letters[starts[0] :]] * _AT_BYTE[places & 255]
    return _mixed(np.add.reduceat(values, starts - starts[0])), starts


def _lengths(starts: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    return np.concatenate((starts[1:], [end])) - starts


def _gram_hashes(words: Hashes) -> Hashes:
    num = len(words) - GRAM_WORDS + 1
    if num < 1:
        return _NONE
    grams = np.zeros(num, np.uint64)
    for at in range(GRAM_WORDS):
        grams += words[at : at + num] * _AT_WORD[at]
    return _mixed(grams)


def _span_hashes(words: Hashes, span_of: NDArray[np.int64]) -> Hashes:
    """Of the words with the same number, where they are as many as `SENTENCE_WORDS` allows."""
    if not len(words):
        return _NONE
    starts = np.flatnonzero(np.concatenate((~_NOT, span_of[1:] != span_of[:-1])))
    lengths = _lengths(starts, len(words))
    fits = (lengths >= SENTENCE_WORDS.start) & (lengths < SENTENCE_WORDS.stop)
    if not fits.any():
        return _NONE
    places = np.arange(len(words)) - np.repeat(starts, lengths)
    return _mixed(np.add.reduceat(words * _AT_WORD[places & 31], starts) + lengths.astype(np.uint64))[fits]


def among(hashes: Hashes, kept: Hashes) -> NDArray[np.bool_]:
    """Which of them are in `kept`, which is sorted."""
    if not len(kept):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(kept, hashes)
    return np.asarray(kept[np.minimum(places, len(kept) - 1)] == hashes)


# ---------------------------------------------------------------- a sample of them, in a file


@dataclass(frozen=True)
class HeldOut:
    """A sample of the hashes of all evaluation texts."""

    grams: Hashes
    """Kept runs of ten words, sorted, each once: their first 40 bits."""
    wholes: Hashes
    """Whole short texts, in the same way."""
    num_texts: dict[str, int]
    """By evaluation file, as set/file."""

    def holds(self, texts: Iterable[str]) -> bool:
        """Whether a row of these texts is held out."""
        found = text_hashes(*texts)
        short, grams = shortened(np.concatenate((found.sentences, found.wholes))), shortened(found.grams)
        if among(short, self.wholes).any():
            return True
        return len(set(grams[among(grams, self.grams)].tolist())) >= MIN_KEPT_SHARED


def shortened(hashes: Hashes) -> Hashes:
    return hashes >> np.uint64(64 - KEPT_BITS)


def hold_out(evaluation: Iterable[tuple[str, str]]) -> HeldOut:
    """A sample of these evaluation texts, (set/file, text) each."""
    grams, wholes = [_NONE], [_NONE]
    num_texts: dict[str, int] = {}
    for name, text in evaluation:
        found = text_hashes(text)
        grams.append(_winnowed(found.grams))
        wholes.append(found.wholes)
        num_texts[name] = num_texts.get(name, 0) + 1
    kept = [np.unique(shortened(np.concatenate(each))) for each in (grams, wholes)]
    return HeldOut(kept[0], kept[1], num_texts)


def _winnowed(grams: Hashes) -> Hashes:
    if len(grams) <= WINDOW:
        return grams.min(keepdims=True) if len(grams) else grams
    return np.asarray(np.lib.stride_tricks.sliding_window_view(grams, WINDOW).min(axis=1))


def write_held_out(path: Path, held_out: HeldOut) -> None:
    """As .npz: names of the sets with their numbers of texts, and the hashes as `_packed`."""
    np.savez_compressed(
        path,
        names=np.array(list(held_out.num_texts)),
        num_texts=np.array(list(held_out.num_texts.values()), dtype=np.int64),
        grams=_packed(held_out.grams),
        wholes=_packed(held_out.wholes),
    )


def read_held_out(path: Path = HELD_OUT_FILE) -> HeldOut:
    """Raises: ValueError if it is none."""
    try:
        with np.load(path) as file:
            num_texts = dict(zip(file["names"].tolist(), file["num_texts"].tolist(), strict=True))
            return HeldOut(_unpacked(file["grams"]), _unpacked(file["wholes"]), num_texts)
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no hashes of evaluation sets ({error}); see training/held_out.py") from error


def _packed(hashes: Hashes) -> NDArray[np.uint8]:
    """The differences of sorted hashes, uint8[8, N], the lowest bytes first: the high ones are zeros, and vanish."""
    return np.ascontiguousarray(np.diff(hashes, prepend=np.uint64(0)).astype("<u8").view(np.uint8).reshape(-1, 8).T)


def _unpacked(packed: NDArray[np.uint8]) -> Hashes:
    return np.cumsum(np.ascontiguousarray(packed.T).view("<u8").ravel(), dtype=np.uint64)
