"""`python benchmarks/abstention.py DATA EVAL [--model MODEL]`: when to say that the files answer nothing, and how well.

The weights of gritdesk/evidence.py are found on questions of DATA/chat, which are searched among all passages of their
file by the app's own index and search. Every second question keeps its passage, which stands among the first three hits
with the two best others; of the rest it is taken out. What holds the words of the answer beside it is taken out of all.
So both kinds are what EVAL's sets are, and a wrong passage is as near as the file has one. Lines to put into
gritdesk/evidence.py are printed.

Then, never tuned there, EVAL's grounded_nq and grounded_fairytale, at the floors found before:

    given      the three documents of each question are its first hits, in the order of search, as in
               `training.evaluate --ranked`; hits of all other documents stand behind them
    searched   the question is asked of an index of all documents, as a person asks; documents that were left out of its
               own three may be found there, so some that count as unanswerable are not

Precision and recall are those of "no evidence". MODEL is any that training.evaluate takes; the default is the app's.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk import evidence
from gritdesk.config import SearchConfig
from gritdesk.evidence import NUM_BESIDE, NUM_READ, Rarity, Signals, signals, telling_words
from gritdesk.grit_format import query_input
from gritdesk.models import default_model
from gritdesk.records import Chunk, Document, Hit
from gritdesk.retriever import Retriever
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore
from training.embedders import TextEmbedder, load_embedder
from training.examples import read_rows
from training.reading import read_grounded

CHATS = ("grounded_trivia", "grounded_fairytaleqa")
"""Files with people's questions."""
MAX_QUESTIONS = 1200
SETS = ("grounded_nq", "grounded_fairytale")
SHARE_UNANSWERABLE = 2 / 7
"""As in both sets; how often nothing answers decides where a floor is best."""
THIN_UNDER = 0.85
"""Thin is evidence of which fewer than so many in a hundred hold an answer."""
_MANY = 50


@dataclass(frozen=True)
class Case:
    found: Signals
    is_answerable: bool

    @property
    def weighed(self) -> tuple[float, float, float]:
        return self.found.paired, self.found.ahead, self.found.apart


class Index:
    """Texts as files of one passage each, in the app's own index."""

    def __init__(self, texts: Sequence[str], embedder: TextEmbedder, cache: Path | None) -> None:
        self._embedder, self._cache = embedder, cache
        self._passages_ND = passages_ND = self._embed("passages", [("", text) for text in texts])
        self._number = {text: number for number, text in enumerate(texts)}
        self._store = SqliteStore(":memory:")
        self._store.enter_space(Space("benchmark", passages_ND.shape[1]))
        for number, text in enumerate(texts):
            chunk, key = Chunk(text, 0, len(text), 1, 1 + text.count("\n")), str(number).encode()
            document = Document(Path(str(number)), text, "text")
            self._store.replace_document(document, FileState(len(text), 0, ""), [chunk], [key])
            self._store.add_embeddings({key: passages_ND[number]})

    def ask(self, questions: Sequence[str]) -> Iterator[tuple[list[Hit], NDArray[np.float32]]]:
        """The hits of each question, best first, and its embedding."""
        queries_QD = self._embed("questions", [query_input(question) for question in questions])
        for question, query_D in zip(questions, queries_QD, strict=True):
            yield Retriever(self._store, lambda _, it=query_D: it, SearchConfig()).search(question, _MANY), query_D

    def hit(self, text: str, query_D: NDArray[np.float32]) -> Hit:
        """A passage as a hit, for one that was not found."""
        number = self._number[text]
        distance = 1.0 - float(self._passages_ND[number] @ query_D)
        return Hit(-1, Path(str(number)), Chunk(text, 0, len(text), 1, 1), 0.0, distance)

    def signals(self, question: str, hits: Sequence[Hit]) -> Signals:
        return signals(question, hits[:NUM_BESIDE], Rarity(*self._store.frequencies(telling_words(question))))

    def _embed(self, kind: str, inputs: list[tuple[str, str]]) -> NDArray[np.float32]:
        if self._cache is None:
            return self._embedder.embed(inputs)
        path = self._cache.with_name(f"{self._cache.name}.{kind}.npy")
        if not path.exists():
            np.save(path, self._embedder.embed(inputs))
        found: NDArray[np.float32] = np.load(path)
        assert len(found) == len(inputs), f"{path} is of other texts; remove it"
        return found


# ---------------------------------------------------------------- questions with and without an answer


def chat_cases(path: Path, embedder: TextEmbedder, cache: Path | None) -> list[Case]:
    """Half of the questions with their passage among the hits, half without."""
    items = read_grounded(path)
    asked = [(question, answer, item.passage) for item in items for question, answer in item.questions]
    random.Random(3).shuffle(asked)
    asked = asked[:MAX_QUESTIONS]
    index = Index([item.passage for item in items], embedder, cache)
    cases = []
    found = index.ask([question for question, _, _ in asked])
    for number, ((question, answer, gold), (hits, query_D)) in enumerate(zip(asked, found, strict=True)):
        others = [hit for hit in hits if hit.chunk.text != gold and _plain(answer) not in _plain(hit.chunk.text)]
        if number % 2 == 0:
            own = next((hit for hit in hits if hit.chunk.text == gold), None) or index.hit(gold, query_D)
            read = sorted([own, *others[: NUM_READ - 1]], key=lambda hit: -hit.score)
            others = [*read, *others[NUM_READ - 1 :]]
        if others:  # else every hit holds the answer, and none may stand for a question without one
            cases.append(Case(index.signals(question, others), number % 2 == 0))
    return cases


def set_cases(folder: Path, embedder: TextEmbedder, cache: Path | None) -> dict[str, list[Case]]:
    """Of each way to ask the questions of a set."""
    rows = list(read_rows(folder / "data.jsonl.zst", 10**9))
    index = Index(list(dict.fromkeys(text for row in rows for text in row["documents"])), embedder, cache)
    cases: dict[str, list[Case]] = {"given": [], "searched": []}
    for row, (hits, query_D) in zip(rows, index.ask([row["question"] for row in rows]), strict=True):
        question, given = row["question"], dict.fromkeys(row["documents"])
        own = {hit.chunk.text: hit for hit in hits if hit.chunk.text in given}
        others = [hit for hit in hits if hit.chunk.text not in given]
        own |= {text: index.hit(text, query_D) for text in given if text not in own}
        cases["given"].append(Case(index.signals(question, [*own.values(), *others]), row["answerable"]))
        cases["searched"].append(Case(index.signals(question, hits), row["answerable"]))
    return cases


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


# ---------------------------------------------------------------- weights and floors


def fit(cases: Sequence[Case], decay: float = 1.0) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a logistic regression, both kinds of questions weighing alike; Newton's method."""
    inputs_NF = np.array([[*case.weighed, 1.0] for case in cases])
    answers_N = np.array([float(case.is_answerable) for case in cases])
    weigh_N = np.where(answers_N > 0, 0.5 / answers_N.mean(), 0.5 / (1 - answers_N.mean()))
    found_F, decay_F = np.zeros(inputs_NF.shape[1]), np.array([decay] * (inputs_NF.shape[1] - 1) + [0.0])
    for _ in range(50):
        chance_N = 1 / (1 + np.exp(-inputs_NF @ found_F))
        slope_F = inputs_NF.T @ (weigh_N * (answers_N - chance_N)) - decay_F * found_F
        curve_FF = (inputs_NF * (weigh_N * chance_N * (1 - chance_N))[:, None]).T @ inputs_NF + np.diag(decay_F)
        found_F = found_F + np.linalg.solve(curve_FF, slope_F)
    return found_F[:-1], float(found_F[-1])


def floors(chances: Sequence[float], is_answerable: Sequence[bool]) -> tuple[float, float]:
    """(none below, thin below): where F1 of "no evidence" is best, and where THIN_UNDER of such have an answer.

    Both with SHARE_UNANSWERABLE of the questions unanswerable.
    """
    chance_N, answers_N = np.array(chances), np.array(is_answerable)
    weigh_N = np.where(answers_N, (1 - SHARE_UNANSWERABLE) / answers_N.sum(), SHARE_UNANSWERABLE / (~answers_N).sum())

    def f1(floor: float) -> float:
        is_none = chance_N < floor
        right = weigh_N[is_none & ~answers_N].sum()
        return float(2 * right / (weigh_N[is_none].sum() + SHARE_UNANSWERABLE))

    none_below = max(np.arange(0.05, 0.95, 0.01), key=f1)
    odds = THIN_UNDER / (1 - THIN_UNDER) * SHARE_UNANSWERABLE / (1 - SHARE_UNANSWERABLE)
    return float(none_below), max(float(odds / (1 + odds)), float(none_below))


def report(name: str, chances: Sequence[float], is_answerable: Sequence[bool], none_below: float, thin: float) -> str:
    """A row of the table."""
    chance_N, answers_N = np.array(chances), np.array(is_answerable)
    is_none, is_thin = chance_N < none_below, (chance_N >= none_below) & (chance_N < thin)
    right = int((is_none & ~answers_N).sum())
    precision, recall = right / max(int(is_none.sum()), 1), right / max(int((~answers_N).sum()), 1)
    both = (chance_N[answers_N][:, None] > chance_N[~answers_N]).mean()
    thin_hold = answers_N[is_thin].mean() if is_thin.any() else float("nan")
    found_hold = answers_N[chance_N >= max(none_below, thin)].mean()
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return (
        f"| {name} | {len(chance_N)} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {both:.3f} | {is_thin.mean():.2f} "
        f"| {thin_hold:.2f} | {found_hold:.2f} |"
    )


HEADER = (
    "| questions | number | precision | recall | F1 | area under ROC | thin | of thin hold an answer | of found |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("eval_dir", type=Path, metavar="EVAL")
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep embeddings there, for another run")
    given = parser.parse_args()
    embedder = load_embedder(given.model, num_threads=given.threads)

    def cached(name: str) -> Path | None:
        if given.cache is not None:
            given.cache.mkdir(parents=True, exist_ok=True)
        return given.cache / name if given.cache else None

    chats = {name: chat_cases(given.data / "chat" / f"{name}.jsonl.zst", embedder, cached(name)) for name in CHATS}
    sets = {name: set_cases(given.eval_dir / name, embedder, cached(name)) for name in SETS}
    weights_F, bias = fit([case for cases in chats.values() for case in cases])

    def chance(case: Case) -> float:
        return float(1 / (1 + np.exp(-(np.array(case.weighed) @ weights_F + bias))))

    training = [case for cases in chats.values() for case in cases]
    none_below, thin_below = floors([chance(case) for case in training], [case.is_answerable for case in training])
    print(f"PAIRED, AHEAD, APART, BIAS = {', '.join(f'{each:.2f}' for each in [*weights_F, bias])}")
    print(f"NONE_BELOW = {none_below:.2f}\nTHIN_BELOW = {thin_below:.2f}\n")

    def guarded(case: Case) -> float:
        return max(chance(case), none_below) if case.found.whole else chance(case)

    ways = {f"{name}, {way}": cases for name, of_ways in sets.items() for way, cases in of_ways.items()}
    print("Area under ROC of each signal alone:\n")
    print("| signal | " + " | ".join([*chats, *ways]) + " |\n" + "|---" * (1 + len(chats) + len(ways)) + "|")
    for field in fields(Signals):
        areas = [
            _area(cases, lambda case, name=field.name: getattr(case.found, name))
            for cases in [*chats.values(), *ways.values()]
        ]
        print(f"| {field.name} | " + " | ".join(f"{area:.3f}" for area in areas) + " |")
    print(f"\nWith the weights found now:\n\n{HEADER}")
    for name, cases in (chats | ways).items():
        print(report(name, [guarded(case) for case in cases], _answerable(cases), none_below, thin_below))
    print(f"\nAs gritdesk/evidence.py has it:\n\n{HEADER}")
    for name, cases in ways.items():
        shipped = [evidence.chance(case.found) for case in cases]
        print(report(name, shipped, _answerable(cases), evidence.NONE_BELOW, evidence.THIN_BELOW))


def _answerable(cases: Sequence[Case]) -> list[bool]:
    return [case.is_answerable for case in cases]


def _area(cases: Sequence[Case], score: Callable[[Case], float]) -> float:
    values_N, answers_N = np.array([float(score(case)) for case in cases]), np.array(_answerable(cases))
    difference = values_N[answers_N][:, None] - values_N[~answers_N]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


if __name__ == "__main__":
    main()
