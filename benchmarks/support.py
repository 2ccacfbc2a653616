"""`python benchmarks/support.py DATA EVAL [--model GGUF]`: how often a sentence is rightly marked as unsupported.

DATA/chat gives the labelled set that thresholds are chosen on, EVAL/grounded_* the one that is reported; both are made
the same way. Supported: the answer with the passage it was written from. Unsupported, in kinds:

    passage     the same answer, with near passages instead of its own, none of which spells it
    number      a number of it changed
    name        a name of it changed to one from another answer
    inside      a name of it changed to another of the same passage
    negation    "not" put behind its verb
    question    the answer to another question about the same passage

Prints the thresholds that are best on the chat side, beside those the app has, and a table of what is marked as
unsupported: its precision and recall, both classes weighing the same, and the share that is marked of each kind.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk import supporting
from gritdesk.config import EngineConfig
from gritdesk.engine.host import EngineHost
from gritdesk.models import default_model
from gritdesk.records import Chunk, Hit
from gritdesk.supporting import Signs
from training.examples import read_rows

CHAT = "biomed docs factbook fairytaleqa reading trivia wikipedia".split()
NUM_PASSAGES = 3
_REFUSAL = re.compile(r"do(?:es)? not (?:say|tell|contain|answer)|no (?:document|source)")
_DOCUMENT = re.compile(r"^\[(\d{1,2})\] (.+?)(?=\n\[\d{1,2}\] |\n\n(?!\[)|\Z)", re.MULTILINE | re.DOTALL)
_QUESTION = re.compile(r"(?:^Question: |^Using the documents above, answer: )(.+)$", re.MULTILINE)
_NAME = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][a-z]{2,}\b|(?<=^)[A-Z][a-z]+(?= [A-Z][a-z])")
_VERB = re.compile(r"\b(is|are|was|were|has|had|can|could|will|would|should|did|does|may|must)\b(?! not)")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Case:
    """An answer, the passages of its prompt, and whether they support it."""

    question: str
    answer: str
    passages: tuple[str, ...]
    n: int
    """Which of them it cites."""
    kind: str = "supported"

    @property
    def is_supported(self) -> bool:
        return self.kind == "supported"


# ---------------------------------------------------------------- the labelled sets


def chat_answers(data: Path, name: str) -> list[Case]:
    """Answers of one file of the training side, with the passages they were written from."""
    rows = read_rows(data / "chat" / f"grounded_{name}.jsonl.zst", 6000)
    return [case for row in rows if (case := _chat_case(row["messages"]))]


def eval_answers(folder: Path) -> list[Case]:
    """The same of one set of grounded answers."""
    rows = [row for row in read_rows(folder / "data.jsonl.zst", 6000) if row["answerable"]]
    return [Case(row["question"], row["answers"][0], tuple(row["documents"]), row["gold"]) for row in rows]


def cases_of(written: dict[str, list[Case]], most: int) -> list[Case]:
    """Cases made of up to `most` answers of each source."""
    return [case for name, answers in written.items() for case in _spoilt(answers, most, random.Random(f"{name}0"))]


def _chat_case(messages: Sequence[dict[str, str]]) -> Case | None:
    asked, answer = messages[0]["content"], messages[-1]["content"]
    cited = {int(n) for n in re.findall(r"\[(\d{1,2})\]", answer)}
    passages = [text.strip() for _, text in _DOCUMENT.findall(asked)]
    question = found.group(1) if (found := _QUESTION.search(asked)) else asked.rstrip().rsplit("\n", 1)[-1]
    claim = re.sub(r"\s*\[\d{1,2}\]", "", answer).strip()
    if len(messages) != 2 or len(cited) != 1 or _REFUSAL.search(answer) or not claim:
        return None
    n = cited.pop()
    return Case(question.strip(), claim, tuple(passages), n) if 1 <= n <= len(passages) else None


def _spoilt(written: Sequence[Case], most: int, draw: random.Random) -> list[Case]:
    """Up to `most` of the cases, each with near passages around it and followed by what can be made wrong of it."""
    near = _Near([text for case in written for text in case.passages])
    by_passage = defaultdict(list)
    for case in written:
        by_passage[case.passages[case.n - 1]].append(case)
    names = sorted({name for case in written for name in _NAME.findall(case.answer)})
    cases = []
    for case in draw.sample(written, min(most, len(written))):
        gold = case.passages[case.n - 1]
        others = near.to(f"{case.question} {case.answer}", case.answer, gold)[:NUM_PASSAGES]
        if len(others) < NUM_PASSAGES:
            continue
        place = draw.randrange(NUM_PASSAGES)
        around = others[: NUM_PASSAGES - 1]
        case = replace(case, passages=(*around[:place], gold, *around[place:]), n=place + 1)
        cases += [case, replace(case, passages=tuple(others), n=1, kind="passage")]
        cases += [replace(case, answer=answer, kind=kind) for kind, answer in _changed(case, gold, names, draw)]
        if rest := [each for each in by_passage[gold] if _differ(each.answer, case.answer)]:
            cases.append(replace(case, answer=draw.choice(rest).answer, kind="question"))
    return cases


def _changed(case: Case, gold: str, names: Sequence[str], draw: random.Random) -> Iterator[tuple[str, str]]:
    answer = case.answer
    if numbers := list(re.finditer(r"\d+", answer)):
        found = draw.choice(numbers)
        other = str(int(found.group()) + draw.choice((-7, -3, -2, -1, 1, 2, 3, 10))).lstrip("-")
        if not re.search(rf"\b{other}\b", gold):
            yield "number", answer[: found.start()] + other + answer[found.end() :]
    if here := list(_NAME.finditer(answer)):
        found = draw.choice(here)
        said = set(_NAME.findall(f"{gold} {case.question} {answer}"))
        if strange := [name for name in names if name not in said and name not in gold]:
            yield "name", answer[: found.start()] + draw.choice(strange) + answer[found.end() :]
        if inside := sorted(set(_NAME.findall(gold)) - set(_NAME.findall(f"{case.question} {answer}"))):
            yield "inside", answer[: found.start()] + draw.choice(inside) + answer[found.end() :]
    if verb := _VERB.search(answer):
        yield "negation", f"{answer[: verb.end()]} not{answer[verb.end() :]}"


def _differ(one: str, other: str) -> bool:
    words, others = ({word.casefold() for word in _WORD.findall(each)} for each in (one, other))
    return len(words & others) < 0.3 * min(len(words), len(others))


class _Near:
    """Passages nearest to a text by their rarer words."""

    def __init__(self, passages: Sequence[str]) -> None:
        self._passages = list(dict.fromkeys(passages))
        self._words = [set(_WORD.findall(text.casefold())) for text in self._passages]
        counts = Counter(word for words in self._words for word in words)
        self._weight = {word: log(len(self._passages) / count) for word, count in counts.items()}
        self._holders = defaultdict(list)
        for number, words in enumerate(self._words):
            for word in words:
                self._holders[word].append(number)

    def to(self, text: str, answer: str, gold: str) -> list[str]:
        """Nearest first; neither `gold` nor one that spells the answer."""
        scores: Counter[int] = Counter()
        for word in sorted(set(_WORD.findall(text.casefold()))):
            if self._weight.get(word, 0) > 1.5:
                for number in self._holders[word]:
                    scores[number] += self._weight[word]
        found = (self._passages[number] for number, _ in scores.most_common(12))
        return [each for each in found if each != gold and answer.casefold().rstrip(".") not in each.casefold()]


# ---------------------------------------------------------------- what is marked

Rule = Callable[[Case, Signs], bool]
"""Whether a case counts as supported."""
Measured = list[tuple[Case, Signs]]


def names_and_share(case: Case, signs: Signs) -> bool:
    return signs.has_names and signs.share >= supporting.MIN_SHARE_ALONE


def words_alone(case: Case, signs: Signs) -> bool:
    return replace(signs, likeness=None).are_enough


def both(case: Case, signs: Signs) -> bool:
    return signs.are_enough


def both_and_kind(case: Case, signs: Signs) -> bool:
    return signs.are_enough and not supporting.doubt_of_kind(case.question, case.answer)


def meaning_above(threshold: float) -> Rule:
    return lambda case, signs: (signs.likeness or 0.0) >= threshold


def marked(measured: Measured, rule: Rule) -> dict[str, float]:
    """Precision and recall of marking, and the share that is marked of each kind."""
    kinds = dict.fromkeys(case.kind for case, _ in measured)
    shares = {kind: np.mean([not rule(case, signs) for case, signs in measured if case.kind == kind]) for kind in kinds}
    recall = np.mean([not rule(case, signs) for case, signs in measured if not case.is_supported])
    wrong = shares["supported"]
    precision = recall / max(1e-9, recall + wrong)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"precision": precision, "recall": recall, "F1": f1, **shares}


def best_thresholds(measured: Measured) -> tuple[float, float, float]:
    """(share, likeness, likeness that is enough) that tell the most of both classes apart."""
    likeness = np.array([signs.likeness or 0.0 for _, signs in measured])
    low, high = np.quantile(likeness, np.linspace(0, 0.4, 9)), np.quantile(likeness, np.linspace(0.5, 0.95, 10))

    def gain(given: tuple[float, float, float]) -> float:
        share, least, enough = given

        def rule(case: Case, signs: Signs) -> bool:
            like = signs.likeness or 0.0
            stands = signs.has_names and not signs.is_negated
            return stands and like >= least and (signs.share >= share or like >= enough)

        found = marked(measured, rule)
        return found["recall"] - found["supported"]

    return max(itertools.product((0.5, 0.6, 0.7, 0.8), map(float, low), map(float, high)), key=gain)


def print_kinds(sets: dict[str, list[Case]]) -> None:
    """Of all answers to questions of a kind, how many the check of kinds doubts: right ones, and ones to others."""
    print("| answers | questions | right ones doubted | of another question | doubted |")
    print("|---|---|---|---|---|")
    for name, cases in sets.items():
        draw = random.Random(name)
        by_passage = defaultdict(list)
        for case in cases:
            by_passage[case.passages[case.n - 1]].append(case)
        asked = [case for case in cases if supporting.asks_for_a_kind(case.question)]
        rest = [[o for o in by_passage[c.passages[c.n - 1]] if _differ(o.answer, c.answer)] for c in asked]
        others = [(case, draw.choice(each).answer) for case, each in zip(asked, rest, strict=True) if each]
        wrong = sum(bool(supporting.doubt_of_kind(case.question, case.answer)) for case in asked)
        caught = sum(bool(supporting.doubt_of_kind(case.question, answer)) for case, answer in others)
        print(f"| {name} | {len(asked)} | {wrong} | {len(others)} | {caught} |")


def measure(cases: Sequence[Case], embed: supporting.Embed) -> Measured:
    measured = []
    for case in cases:
        hits = [Hit(n, Path("case"), Chunk(text, 0, len(text), 1, 1), 0.0) for n, text in enumerate(case.passages)]
        ((*signs,),) = supporting.signs([case.answer], case.question, hits, embed)
        measured.append((case, signs[case.n - 1]))
    return measured


def remembering(engine: EngineHost) -> supporting.Embed:
    """Embeds each text once: the cases made of one answer share their passages."""
    known: dict[str, NDArray[np.float32]] = {}

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, engine.embed([("", text) for text in new]), strict=True))
        return np.stack([known[text] for text in texts])

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("eval", type=Path, metavar="EVAL")
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--per-file", type=int, default=30, help="answers drawn from each file of DATA/chat")
    parser.add_argument("--per-set", type=int, default=90, help="answers drawn from each set of EVAL")
    given = parser.parse_args()
    chat = {name: chat_answers(given.data, name) for name in CHAT}
    held = {name: eval_answers(given.eval / name) for name in ("grounded_nq", "grounded_fairytale")}
    sets = {"chat": cases_of(chat, given.per_file)}
    sets |= {name: cases_of({name: answers}, given.per_set) for name, answers in held.items()}
    with (
        tempfile.TemporaryDirectory() as logs,
        EngineHost(given.model, EngineConfig(n_threads=1), Path(logs)) as engine,
    ):
        embed = remembering(engine)
        measured = {name: measure(cases, embed) for name, cases in sets.items()}
    share, least, enough = best_thresholds(measured["chat"])
    here = f"{supporting.MIN_SHARE}, {supporting.MIN_LIKENESS}, {supporting.LIKENESS_ENOUGH}"
    print(f"best on chat: share {share}, likeness {least:.2f}, enough {enough:.2f}; the app has {here}")
    levels = np.quantile([signs.likeness or 0.0 for _, signs in measured["chat"]], np.linspace(0.02, 0.98, 49))

    def gain(level: float) -> float:
        found = marked(measured["chat"], meaning_above(level))
        return found["recall"] - found["supported"]

    level = max(map(float, levels), key=gain)
    rules: dict[str, Rule] = {"words, but for not": names_and_share, "words": words_alone}
    rules |= {f"meaning, from {level:.2f}": meaning_above(level)}
    rules |= {"words and meaning": both, "these and the question's kind": both_and_kind}
    columns = "supported passage number name inside negation question".split()
    print("| set | signs | precision | recall | F1 | " + " | ".join(columns) + " |")
    print("|---" * (5 + len(columns)) + "|")
    for name, cases in measured.items():
        counts = Counter(case.kind for case, _ in cases)
        print(f"| {name} | cases | | | | " + " | ".join(str(counts[each] or "") for each in columns) + " |")
        for signs, rule in rules.items():
            found = marked(cases, rule)
            cells = [f"{found[each]:.2f}" if each in found else "" for each in ("precision", "recall", "F1", *columns)]
            print(f"| {name} | {signs} | " + " | ".join(cells) + " |")
    print()
    print_kinds(chat | held)


if __name__ == "__main__":
    main()
