"""`python -m training.evaluate MODEL DATA...`: what a model can do, on data it never saw.

MODEL is a GRIT checkpoint's folder, a .gguf file, or an embedding or language model of others: a folder, a package,
or a name on the Hugging Face hub (training.embedders tells them apart); or `bm25`, the app's search by words, to
compare with. DATA are evaluation sets, one each or folders of them (training.evaluation_sets tells their forms).
`--mteb` and `--lm-eval` run public benchmarks, as the tables of the GRIT paper have them: such a table is one loop over
this command.

Each set's scores are a line of JSON on stdout; a table for people follows on stderr. A set that fails is one line on
stderr, the others still run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from training.config import Precision
from training.embedders import Kind, load_embedder
from training.evaluation_sets import (
    DEFAULT_QUERIES,
    Model,
    NotForThisModel,
    Settings,
    evaluate_set,
    find_sets,
    kind_of_set,
    set_name,
)
from training.model import quiet_loading
from training.public_benchmarks import RECIPES, lm_eval_scores, mteb_scores, mteb_tasks

BY_WORDS = "bm25"
"""The name that means no model; a folder of that name is ./bm25."""

Row = dict[str, Any]
"""One line of the output: set, kind, scores, seconds."""


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if not (given.data or given.mteb or given.lm_eval):
        _say("nothing to evaluate on: give DATA, --mteb or --lm-eval")
        return 1
    quiet_loading()
    try:
        paths, model = _chosen_sets(given.data, given.sets), _loaded(given)
        given.mteb = mteb_tasks(given.mteb)
    except ValueError as error:
        _say(str(error))
        return 1
    rows: list[Row] = []
    failed: list[str] = []
    for name, measure in _measurements(model, paths, given):
        rows += _measured(name, measure, failed)
    if given.output:
        given.output.write_text(_report(given, rows, failed), encoding="utf-8")
    if rows:
        print(table([*rows, *means(rows)]), file=sys.stderr)
    return 1 if failed or not rows else 0


def _loaded(given: argparse.Namespace) -> Model:
    """The model, once it is clear that the hours after it will not be for nothing."""
    if given.output:
        try:
            given.output.open("a").close()
        except OSError as error:
            raise ValueError(f"cannot write {given.output}: {error.strerror}") from error
    if given.model == BY_WORDS:
        return Model(None)
    options = {"precision": given.precision, "kind": given.kind, "prompt": given.prompt}
    return Model(load_embedder(given.model, num_threads=given.threads, **options))


def _measured(name: str, measure: Callable[[], list[Row]], failed: list[str]) -> list[Row]:
    """Rows of one set or task, printed; none and a line on stderr if it fails."""
    started = time.perf_counter()
    try:
        rows = measure()
    except NotForThisModel as error:
        _say(f"{name}: passed over: {error}")
        return []
    except ValueError as error:
        _say(f"{name}: {error}")
        failed.append(name)
        return []
    for row in rows:
        row["seconds"] = round(time.perf_counter() - started, 1)
        print(json.dumps(row), flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description="What a model can do, on data it never saw."
    )
    parser.add_argument("model", help="checkpoint folder, .gguf file, package, name on the Hugging Face hub, or bm25")
    parser.add_argument(
        "data", nargs="*", type=Path, help="a set's folder, a folder of sets, or a .jsonl file of texts"
    )
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these of the sets in DATA")
    parser.add_argument(
        "--mteb", nargs="+", metavar="TASK", default=[], help='of MTEB, such as STS12 or "MTEB(eng, classic)"'
    )
    parser.add_argument(
        "--lm-eval",
        nargs="+",
        metavar="TASK",
        default=[],
        help=f"{', '.join(RECIPES)}, or any of lm-eval",
    )
    parser.add_argument("--allow-code", action="store_true", help="let humaneval run programs that the model writes")
    parser.add_argument(
        "--max-queries", type=_positive, help=f"of each set; {DEFAULT_QUERIES}, or all of a public benchmark"
    )
    parser.add_argument("--rerank", action="store_true", help="also order the ten nearest passages by asking the model")
    parser.add_argument("--hybrid", action="store_true", help="also rank by words and meaning, as the app searches")
    parser.add_argument(
        "--storage", action="store_true", help="also rank by embeddings in bytes, in bits, and of 64 and 128 dimensions"
    )
    parser.add_argument(
        "--ranked", action="store_true", help="put a question's documents in the order of the app's search"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of PyTorch or llama.cpp")
    parser.add_argument("--precision", choices=get_args(Precision), help="bf16 on a GPU, fp32 on a processor")
    parser.add_argument("--kind", choices=get_args(Kind), help="what MODEL is, where its files do not tell")
    parser.add_argument("--prompt", help='of a sentence-transformers model: "Instruct: {instruction}\\nQuery: "')
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all scores there as JSON")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"give a whole number above 0, found {text}")
    return int(text)


def _chosen_sets(data: list[Path], names: list[str] | None) -> list[Path]:
    """Raises: ValueError if a path or a name is none of a set."""
    paths = [path for each in data for path in find_sets(each)]
    present = {set_name(path) for path in paths}
    missing = [name for name in names or [] if name not in present]
    if missing:
        raise ValueError(f"no set named {', '.join(missing)}; there are {', '.join(sorted(present)) or 'none'}")
    return [path for path in paths if not names or set_name(path) in names]


def _measurements(
    model: Model, paths: list[Path], given: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """(name, what measures it) of every set and every task."""
    settings = Settings(
        given.max_queries or DEFAULT_QUERIES, given.seed, given.rerank, given.hybrid, given.storage, given.ranked
    )

    def of_set(path: Path) -> list[Row]:
        return [_row(set_name(path), kind_of_set(path), evaluate_set(model, path, settings))]

    def of_mteb(task: str) -> list[Row]:
        return [mteb_scores(model.embedder, given.model, task)]

    def of_lm_eval(task: str) -> list[Row]:
        limit, allow_code = given.max_queries, given.allow_code
        return lm_eval_scores(model.writer, task, limit=limit, seed=given.seed, allow_code=allow_code)

    yield from ((set_name(path), partial(of_set, path)) for path in paths)
    yield from ((task, partial(of_mteb, task)) for task in given.mteb)
    yield from ((task, partial(of_lm_eval, task)) for task in given.lm_eval)


def _row(name: str, kind: str, scores: dict[str, float]) -> Row:
    return {"set": name, "kind": kind} | {
        key: round(value, 4) if isinstance(value, float) else value for key, value in scores.items()
    }


def _report(given: argparse.Namespace, rows: list[Row], failed: list[str]) -> str:
    names = ("model", "max_queries", "seed", "precision", "ranked")
    asked = {name: getattr(given, name) for name in names}
    return json.dumps(asked | {"sets": rows, "means": means(rows), "failed": failed}, indent=2) + "\n"


def means(rows: list[Row]) -> list[Row]:
    """Of each kind with several sets the mean of every score they share, each set counting alike, as the columns of
    MTEB's tables; tasks of lm-eval have nothing in common."""
    of_kind: dict[str, list[Row]] = {}
    for row in rows:
        of_kind.setdefault(row["kind"], []).append(row)
    found = []
    for kind, some in of_kind.items():
        shared = [key for key in some[0] if key != "seconds" and all(isinstance(row.get(key), float) for row in some)]
        if len(some) > 1 and shared and kind != "lm-eval":
            scores = {key: round(fmean(row[key] for row in some), 4) for key in shared}
            found.append({"set": f"mean of {len(some)}", "kind": kind} | scores)
    return found


def table(rows: list[Row]) -> str:
    """All scores for a person's eye, a set a line."""
    lines = [
        [row["set"], row["kind"], "  ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in _KEYS)]
        for row in rows
    ]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {scores}" for name, kind, scores in lines)


_KEYS = ("set", "kind")


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _say(message: str) -> None:
    print(f"evaluate: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
