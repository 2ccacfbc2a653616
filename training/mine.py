"""`python -m training.mine MODEL PAIRS OUT`: pairs -> the same pairs with hard negatives that a teacher finds.

A hard negative is a passage that looks like an answer and is none. The nearest passages of a query look most like one,
and among them are answers that nobody has marked; so those that reach `max_share` of the positive's score are left
out (TopK-PercPos of NV-Retriever, arXiv 2407.15831, whose best share is 0.95).

The search is exact. Memory holds the embeddings and a few numbers of each text; texts are read again when needed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray

from gritdesk.records import EmbeddingInput
from training.data import passage_key
from training.embedders import TextEmbedder, load_embedder
from training.examples import EmptyExample, Pair, Rows, parse_pair, parse_text

_TEXTS_AT_ONCE = 4096
"""Texts read and embedded in one call: enough for rows of like length, few enough to hold."""
_QUERY_BLOCK, _PASSAGE_BLOCK = 1024, 16384
"""Queries and passages compared at once: 64 MiB of scores."""


@dataclass(frozen=True)
class Rule:
    """Which of a query's nearest passages become its hard negatives."""

    num: int = 7
    """Hard negatives of each query, or as many as there are."""
    max_share: float = 0.95
    """Of the positive's score, which a negative stays below. With several positives it is the least similar one's:
    it is an answer, and so may be what scores like it."""
    skip: int = 0
    """So many of the nearest that are left after that are passed over too."""
    keep: bool = False
    """Leave the row's own hard negatives in front of the mined ones."""

    def __post_init__(self) -> None:
        if self.num < 1 or self.skip < 0 or not 0 < self.max_share <= 1:
            raise ValueError(
                "expected num from 1, skip from 0 and max-share above 0 and at most 1, "
                f"found {self.num}, {self.skip} and {self.max_share}"
            )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.mine", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="the teacher: a folder, a GGUF, an installed package or a name on the hub")
    parser.add_argument("pairs", type=Path, help="pairs as jsonl, also .zst or .gz")
    parser.add_argument("out", type=Path, help="where they go, also .zst or .gz")
    parser.add_argument("--num", type=int, default=Rule.num, help="hard negatives of each query")
    parser.add_argument("--max-share", type=float, default=Rule.max_share, help="of the positive's score")
    parser.add_argument("--skip", type=int, default=Rule.skip, help="pass over so many of the nearest")
    parser.add_argument("--keep", action="store_true", help="keep the negatives that are there, in front")
    parser.add_argument("--corpus", type=Path, nargs="+", default=[], help="more passages: pairs, or texts")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    try:
        rule = Rule(given.num, given.max_share, given.skip, given.keep)
        if not given.out.parent.is_dir():
            raise ValueError(f"there is no folder {given.out.parent} to write {given.out.name} to")
        texts = Texts(given.pairs, given.corpus)  # a bad line is found before the teacher is loaded
        mine(load_embedder(given.model, num_threads=given.threads), texts, given.out, rule)
    except OSError as error:
        print(f"mine: cannot read or write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"mine: {error}", file=sys.stderr)
        return 1
    return 0


def mine(embedder: TextEmbedder, texts: Texts, out: Path, rule: Rule) -> None:
    """Write all rows in their order, with their hard negatives, and tell on stderr what was found."""
    started = time.monotonic()
    numbers = [number for number, positives in enumerate(texts.positives) if positives]
    query_QD = embed_all(embedder, len(numbers), lambda at: texts.query(numbers[at]))
    passage_ND = embed_all(embedder, texts.num_passages, texts.passage)
    embedded_s = time.monotonic() - started
    limit_Q = limits(query_QD, passage_ND, [texts.positives[number] for number in numbers], rule.max_share)
    excluded = [texts.excluded(number, rule.keep) for number in numbers]
    found_QK, num_over_Q = nearest_below(query_QD, passage_ND, limit_Q, excluded, rule.num + rule.skip)
    mined = {
        number: [int(each) for each in row[rule.skip :] if each >= 0]
        for number, row in zip(numbers, found_QK, strict=True)
    }
    with whole_file(out) as file:
        for row in texts.rows_with(mined, rule.keep):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    print(
        f"{len(numbers)} queries, {texts.num_passages} passages; embedded in {embedded_s:.1f} s, "
        f"all in {time.monotonic() - started:.1f} s",
        *_report(num_over_Q, [len(mined[number]) for number in numbers], rule),
        sep="\n",
        file=sys.stderr,
    )


def _report(num_over_Q: NDArray[np.int64], num_mined: Sequence[int], rule: Rule) -> Iterator[str]:
    """How many queries lost how many candidates, and how many are left with few."""
    edges = (0, 1, 4, 11, 101)
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        inside = (num_over_Q >= low) & (True if high is None else num_over_Q < high)
        span = f"{low}" if high == low + 1 else f"{low} or more" if high is None else f"{low} to {high - 1}"
        yield f"{int(inside.sum())} queries with {span} candidates at {rule.max_share} of the positive's score or above"
    few, none = sum(0 < num < rule.num for num in num_mined), sum(num == 0 for num in num_mined)
    yield f"{few} queries with fewer than {rule.num} hard negatives, {none} with none"


# ---------------------------------------------------------------- the texts


@dataclass(frozen=True)
class _Row:
    values: dict[str, Any]
    """As the file has them."""
    pair: Pair | None
    """None where the row holds nothing, or is a text."""
    passages: tuple[EmbeddingInput, ...]


def _pair_row(values: dict[str, Any]) -> _Row:
    try:
        pair = parse_pair(values)
    except EmptyExample:
        return _Row(values, None, ())
    return _Row(values, pair, (*pair.positives, *pair.negatives))


def _corpus_row(values: dict[str, Any]) -> _Row:
    return _pair_row(values) if "query" in values else _Row(values, None, (("", parse_text(values)),))


class Texts:
    """All queries, and all passages that differ by more than case and white space, each by its number."""

    def __init__(self, pairs: Path, corpus: Sequence[Path]) -> None:
        """Reads all files once. Raises: ValueError naming file and line of one that is not of the form."""
        self._files = [Rows(pairs, _pair_row, sys.maxsize), *(Rows(each, _corpus_row, sys.maxsize) for each in corpus)]
        self._places = array("q")
        """File, row and place in the row of each passage."""
        self._number_of: dict[int, int] = {}
        """The passage with a key."""
        self.positives: list[Collection[int]] = []
        """Of each row, passages that answer its query; a query asked in several rows has those of all."""
        self._index()

    def _index(self) -> None:
        by_query: dict[int, set[int]] = {}
        for file_number, rows in enumerate(self._files):
            for row_number in range(len(rows)):
                row = self._row(file_number, row_number)
                numbers = [
                    self._number(text, (file_number, row_number, place))
                    for place, (_, text) in enumerate(row.passages if row else ())
                ]
                if file_number == 0:
                    pair = row.pair if row else None
                    positives = by_query.setdefault(_key(pair.query[1]), set()) if pair else set()
                    positives.update(numbers[: len(pair.positives)] if pair else ())
                    self.positives.append(positives)

    def _number(self, text: str, place: tuple[int, int, int]) -> int:
        number = self._number_of.setdefault(_key(text), self.num_passages)
        if number == self.num_passages:
            self._places.extend(place)
        return number

    def _row(self, file_number: int, row_number: int) -> _Row | None:
        """None for a white line, or an empty text."""
        try:
            return self._files[file_number][row_number]
        except EmptyExample:
            return None

    def _pair(self, number: int) -> Pair:
        row = self._row(0, number)
        assert row is not None and row.pair is not None
        return row.pair

    @property
    def num_passages(self) -> int:
        return len(self._places) // 3

    def query(self, number: int) -> EmbeddingInput:
        return self._pair(number).query

    def passage(self, number: int) -> EmbeddingInput:
        file_number, row_number, place = self._places[3 * number : 3 * number + 3]
        row = self._row(file_number, row_number)
        assert row is not None
        return row.passages[place]

    def excluded(self, number: int, keep: bool) -> set[int]:
        """Passages that are no candidates of a row: its query's positives, the query itself, what it has already."""
        pair = self._pair(number)
        texts = [pair.query[1], *(text for _, text in pair.negatives if keep)]
        return {*self.positives[number], *(self._number_of[key] for key in map(_key, texts) if key in self._number_of)}

    def rows_with(self, mined: dict[int, list[int]], keep: bool) -> Iterator[dict[str, Any]]:
        """The rows of the pairs with these passages as hard negatives; empty rows as they are."""
        for number in range(len(self.positives)):
            row = self._row(0, number)
            if row is None or row.pair is None:
                yield from [row.values] if row else []
                continue
            as_strings = all(isinstance(each, str) for each in row.values["pos"])
            found = [self.passage(each) for each in mined[number]]
            spelled = [each[1] if as_strings and not each[0] else list(each) for each in found]
            yield row.values | {"neg": [*(row.values.get("neg", []) if keep else []), *spelled]}


def _key(text: str) -> int:
    return passage_key(" ".join(text.split()).casefold())


def embed_all(embedder: TextEmbedder, num: int, text_of: Callable[[int], EmbeddingInput]) -> NDArray[np.float32]:
    """float32[num, D]; a block of texts is read at a time."""
    found = np.empty((num, embedder.dimension), dtype=np.float32)
    for at in range(0, num, _TEXTS_AT_ONCE):
        end = min(at + _TEXTS_AT_ONCE, num)
        found[at:end] = embedder.embed([text_of(number) for number in range(at, end)])
        print(f"embedded {end} of {num}", file=sys.stderr, flush=True)
    return found


# ---------------------------------------------------------------- the search


def limits(
    query_QD: NDArray[np.float32],
    passage_ND: NDArray[np.float32],
    positives: Sequence[Collection[int]],
    max_share: float,
) -> NDArray[np.float32]:
    """The score that negatives of each query stay below, float32[Q].

    A positive below zero, of which a share would be more than it, is a limit as it is.
    """
    lowest = [
        float((passage_ND[list(each)] @ query_D).min()) for query_D, each in zip(query_QD, positives, strict=True)
    ]
    return np.array([min(max_share * each, each) for each in lowest], dtype=np.float32)


def nearest_below(
    query_QD: NDArray[np.float32],
    passage_ND: NDArray[np.float32],
    limit_Q: NDArray[np.float32],
    excluded: Sequence[Collection[int]],
    num: int,
    block: tuple[int, int] = (_QUERY_BLOCK, _PASSAGE_BLOCK),
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The passages nearest to each query whose score is below its limit, without those excluded.

    Args:
        excluded: numbers of the passages that are no candidates of each query.
        block: queries and passages compared at once.
    Returns: their numbers, nearest first, int64[Q, num], -1 where there are no more; and how many candidates of each
        query are not below its limit, int64[Q].
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found_QK = np.full((len(query_QD), num), -1, dtype=np.int64)
    num_over_Q = np.zeros(len(query_QD), dtype=np.int64)
    for at in range(0, len(query_QD), block[0]):
        part = slice(at, at + block[0])
        query_BD = torch.from_numpy(query_QD[part]).to(device)
        limit_B1 = torch.from_numpy(limit_Q[part]).to(device)[:, None]
        best_BK = torch.full((len(query_BD), num), -torch.inf, device=device)
        number_BK = torch.full((len(query_BD), num), -1, device=device)
        for start in range(0, len(passage_ND), block[1]):
            passage_PD = torch.from_numpy(passage_ND[start : start + block[1]]).to(device)
            score_BP = query_BD @ passage_PD.T
            score_BP[_places(excluded[part], start, len(passage_PD), device)] = -torch.inf
            over_BP = score_BP >= limit_B1
            num_over_Q[part] += over_BP.sum(dim=1).cpu().numpy()
            score_BP.masked_fill_(over_BP, -torch.inf)
            numbers_BP = torch.arange(start, start + len(passage_PD), device=device).expand(len(query_BD), -1)
            best_BK, chosen_BK = torch.cat([best_BK, score_BP], dim=1).topk(num, dim=1)
            number_BK = torch.cat([number_BK, numbers_BP], dim=1).gather(1, chosen_BK)
        found_QK[part] = number_BK.masked_fill(best_BK == -torch.inf, -1).cpu().numpy()
    return found_QK, num_over_Q


def _places(
    excluded: Sequence[Collection[int]], start: int, num: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column, in a block of scores, of the passages excluded."""
    places = [
        (row, each - start) for row, numbers in enumerate(excluded) for each in numbers if 0 <= each - start < num
    ]
    rows_columns = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 2)
    return rows_columns[:, 0], rows_columns[:, 1]


# ---------------------------------------------------------------- the file


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, packed as its suffix says; it takes its name when it is whole."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file, _packed(file, path.suffix) as packed:
            yield packed
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _packed(file: IO[bytes], suffix: str) -> Any:
    if suffix == ".zst":
        return zstandard.ZstdCompressor(level=10).stream_writer(file, closefd=False)
    return gzip.GzipFile(fileobj=file, mode="wb") if suffix == ".gz" else nullcontext(file)


if __name__ == "__main__":
    sys.exit(main())
