"""`python benchmarks/prefill.py EVAL_DIR [--questions 15] [--reading 2]`: what reading ahead saves, and what it costs.

Makes an index of the passages of EVAL_DIR/fairytaleqa_test, a file each, with the app's model, and takes turns: a
question is searched for and asked at once, and the one before it is searched for, read ahead while a person would look
at the results (`--reading` seconds), and asked. Timed is the wait from asking to the first piece of the answer, its
own search included. An answer is the same both ways, or the run fails.

Then the other side: how long the embedding of a query waits while nothing is done and while prompts are read ahead,
beside the time of one batch, which is what it may wait for.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gritdesk.config import AnswerConfig, Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.engine.host import Priority
from gritdesk.grit_format import query_input
from gritdesk.records import AnswerFinished, PieceGenerated
from training.examples import read_rows

SET = "fairytaleqa_test"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval_dir", type=Path, metavar="EVAL_DIR")
    parser.add_argument("--questions", type=int, default=15)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--reading", type=float, default=2.0, help="seconds between a search and its question")
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    texts = texts_of(given.eval_dir / SET, "corpus")[: given.files]
    questions = texts_of(given.eval_dir / SET, "queries")
    random.Random(0).shuffle(questions)
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs"
        docs.mkdir()
        for number, text in enumerate(texts):
            (docs / f"{number}.txt").write_text(text, encoding="utf-8")
        config = Config(
            Path(folder) / "home",
            engine=EngineConfig(model=given.model, n_threads=given.threads),
            index=IndexConfig(on_battery="go on"),
            answer=dataclasses.replace(AnswerConfig(), max_tokens=40),
        )
        with Desk.open(config) as desk:
            desk.index([docs])
            print(f"{desk.status().files} files, {desk.status().chunks} passages, {desk.engine_info().description}")
            first_pieces(desk, questions[: given.questions + 1], given.reading)
            waiting(desk, questions[: given.questions])


def texts_of(folder: Path, name: str) -> list[str]:
    return [str(row["text"]) for row in read_rows(next(folder.glob(f"{name}.jsonl*")), 10_000)]


def first_pieces(desk: Desk, questions: list[str], reading_s: float) -> None:
    without_s: list[float] = []
    with_s: list[float] = []
    texts: dict[str, str] = {}
    for before, question in zip(["", *questions], questions, strict=False):
        if before:
            desk.search(before, 30)
            desk.prefill(before)
            time.sleep(reading_s)
            wait_s, text = asked(desk, before)
            with_s.append(wait_s)
            assert text == texts[before], f"another answer to {before!r}: {text!r}, without {texts[before]!r}"
        desk.search(question, 30)
        wait_s, texts[question] = asked(desk, question)
        without_s.append(wait_s)
    with_ms, without_ms = 1000 * np.median(with_s), 1000 * np.median(without_s[: len(with_s)])
    print(f"first piece, median of {len(with_s)}: without {without_ms:.0f} ms, read ahead {with_ms:.0f} ms", end=", ")
    print(f"{with_ms / without_ms:.2f} of it; all answers the same")


def asked(desk: Desk, question: str) -> tuple[float, str]:
    """Seconds until the first piece, and the answer."""
    started = time.perf_counter()
    first_s = 0.0
    for event in desk.ask(question):
        if isinstance(event, PieceGenerated):
            first_s = first_s or time.perf_counter() - started
        elif isinstance(event, AnswerFinished):
            return first_s, event.answer.text
    raise AssertionError("an answer without an end")


def waiting(desk: Desk, questions: list[str]) -> None:
    engine = desk.engine()
    longest = " ".join(["word"] * 480)
    batch = [seconds(lambda: engine.embed([("", longest)], priority=Priority.QUERY)) for _ in range(9)]
    idle: list[float] = []
    reading: list[float] = []
    for number, question in enumerate(questions):
        other = query_input(questions[number - 1])

        def embed(other: tuple[str, str] = other) -> object:
            return engine.embed([other], priority=Priority.QUERY)

        idle.append(seconds(embed))
        desk.prefill(question)
        for _ in range(4):  # the first finds it at its first batch, the others later
            reading.append(seconds(embed))
        time.sleep(0.5)
    for name, found in (("one batch of 512 tokens", batch), ("idle", idle), ("while a prompt is read", reading)):
        median, worst = 1000 * np.median(found), 1000 * max(found)
        print(f"{name}: median {median:.1f} ms, worst {worst:.1f} ms of {len(found)}")


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
