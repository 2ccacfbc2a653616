"""`python -m training.reading DATA OUT`: rows that teach to answer from passages, many questions to each reading.

A small model needs some hundred thousand questions before it finds what is asked for. So every row has several
passages and all the questions there are about them: the trainer reads the passages once and each question by itself
(`training.examples`, rows with `passages` and `questions`). Questions come from

    human    the grounded chats of DATA: people's questions and those of templates, their layouts taken off
    made     a sentence with one of its pieces taken out, and a question word in front (cloze translation, Lewis et
             al. 2019, arXiv 1906.04980); they teach to look, not to speak

Answers begin with the number of their passage, "[2] the lamp": first the choice among passages, then words copied as
they stand there. About a quarter of the questions belong to none of the row's passages and are refused.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from gritdesk.grit_format import REFUSAL
from training.examples import find_file, read_rows

MADE_FROM = {
    "reading_short": ("wikipedia_intros", 60_000),
    "reading_wikipedia": ("wikipedia_intros", 70_000),
    "reading_stories": ("fairytales", 10_000),
    "reading_tales": ("children_stories", 10_000),
    "reading_docs": ("libreoffice_help", 2_000),
    "reading_guides": ("digitalgov", 4_000),
    "reading_books": ("openstax", 8_000),
    "reading_health": ("medquad", 5_000),
}
"""Output file -> text file, and how many passages of it."""
WORDS = (35, 110)
"""Least and most words of a passage that is cut from a text."""
SHORT_WORDS = (12, 35)
"""Those of reading_short: among few words a young model finds sooner what an answer has to do with its question."""
WINDOW = 3000
"""Passages among which a row's others are looked for: of sixty the nearest was seldom near, and a model that chose by
a word or two was right."""
PART_ITEMS = 10_000
"""Passages of a file that one process makes rows of."""
MAX_QUESTIONS = 10
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“(A-Z0-9])")
_CITED = re.compile(r"\s*\[(\d)\]\s*\.?\s*$")
_DOCUMENT = re.compile(r"^\[(\d{1,2})\] (.+)$", re.MULTILINE)


@dataclass
class Item:
    """A passage and what is asked about it."""

    passage: str
    questions: list[tuple[str, str]] = field(default_factory=list)
    """(question, answer)."""


# ---------------------------------------------------------------- questions of the grounded chats


def read_grounded(path: Path) -> list[Item]:
    """The cited passage of every answered row with its question; questions about one passage come together."""
    items: dict[str, Item] = {}
    for row in read_rows(path, 10**9):
        if len(row["messages"]) != 2:
            continue
        asked, answer = (message["content"] for message in row["messages"])
        cited = _CITED.search(answer)
        passages = dict(_DOCUMENT.findall(asked))
        if cited is None or cited.group(1) not in passages:
            continue
        passage = passages[cited.group(1)]
        question = _question_of(_DOCUMENT.sub("", asked))
        item = items.setdefault(passage, Item(passage))
        if question:
            item.questions.append((question, plain_answer(answer[: cited.start()], question, passage)))
    return [item for item in items.values() if item.questions]


def _question_of(frame: str) -> str:
    """The question in what a chat says beside its passages."""
    named = re.search(r"(?:Question|answer): (.+)", frame)
    lines = [named.group(1)] if named else [line for line in frame.splitlines() if line.strip().endswith("?")]
    return lines[-1].strip() if lines else ""


def plain_answer(answer: str, question: str, passage: str) -> str:
    """The answer as the passage spells it, without what it repeats of the question and without its full stop."""
    answer = " ".join(answer.split()).rstrip(". ")
    repeated = re.match(r"^(.{3,80}?)(?: (?:is|was|are|were)\b|:) (.+)$", answer)
    if repeated and set(_words(repeated.group(1))) <= set(_words(question)) | _SMALL:
        answer = repeated.group(2)
    at = " ".join(passage.split()).lower().find(answer.lower())
    return " ".join(passage.split())[at : at + len(answer)] if at >= 0 else answer


# ---------------------------------------------------------------- made questions

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = (
    rf"((?:{_MONTHS}) \d{{1,2}},? \d{{4}}|\d{{1,2}} (?:{_MONTHS}) \d{{4}}|(?:{_MONTHS}) \d{{4}}|\b(?:1[5-9]|20)\d\d\b)"
)
_UNITS = "million|billion|percent|kilometers|miles|feet|meters|years|days|people|students|km|mi"
_NUMBER = rf"(\b(?!(?:1[5-9]|20)\d\d\b)\d[\d,.]*\d?(?: (?:{_UNITS}))?\b)"
_NAME = r"(\b[A-Z][\w'’&-]*(?:(?: (?:of|the|and|de|von|van|la))? [A-Z][\w'’&-]*){0,4})"
_DEFINITION = r" (?:is|are|was) ((?:an?|the|one of) [^,.;:()]{4,80}?)(?=[,.;:(]| that | which | who | where | for )"
_PHRASE = (
    r" (?:because|to|with|by|from|into|for|in|on|at|of|and|like|had|was|is|used|has) "
    r"((?:(?:the|an?|his|her|their|its|your) )?(?:[a-z'’-]+ ){0,3}[a-z'’-]+)(?=[,.;:]| and | that | which | when )"
)
_KINDS: tuple[tuple[re.Pattern[str], tuple[str, ...], float], ...] = (
    # what is taken out is the first group
    (re.compile(_DATE), ("when", "when", "what year", "in what year"), 1.0),
    (re.compile(_NUMBER), ("how many", "how many", "what number of", "how much"), 0.5),
    (re.compile(_NAME), ("who", "what", "which", "where"), 1.0),
    (re.compile(_DEFINITION), ("what", "who", "what kind of"), 0.7),
    (re.compile(_PHRASE), ("what", "what", "how", "where", "why"), 0.5),
)
_AUXILIARY = re.compile(r"^(.{2,60}?) (is|was|are|were|had|has|can|will|did|could|would|must|may) (.*)$")
_PRONOUN = re.compile(r"^(?:He|She|It|They|This|The (?:film|album|song|book|town|city|band|series|team|company)) ")
_SMALL = frozenset(
    "a an the of in on at to for and or is was are were by with from as it its his her their that".split()
)


def made_questions(passage: str, title: str, rng: random.Random, most: int) -> list[tuple[str, str]]:
    """Some pieces of the passage, each once, and questions to which they are the answer."""
    found: list[tuple[str, str]] = []
    candidates = []
    for sentence in _SENTENCE_END.split(passage):
        for pattern, words, weight in _KINDS:
            for match in pattern.finditer(sentence):
                candidates.append((rng.random() / weight, sentence, match, words))
    taken: set[str] = set()
    for _, sentence, match, words in sorted(candidates, key=lambda each: each[0]):
        answer = match.group(1)
        if answer.lower() in taken or answer.lower() in _SMALL or len(answer) < 2:
            continue
        question = cloze_question(sentence, match.start(1), match.end(1), title, _question_word(match, words, rng), rng)
        # one word left cannot tell where to look
        if len(set(_words(question)) - _SMALL - set(_words(answer))) >= 4:
            taken.add(answer.lower())
            found.append((question, answer))
        if len(found) == most:
            break
    return found


def _question_word(match: re.Match[str], words: Sequence[str], rng: random.Random) -> str:
    before = match.string[: match.start(1)].rstrip().rsplit(" ", 1)[-1].lower()
    if "where" in words and before in {"in", "at", "near", "from", "into", "on"}:
        return "where"
    if "who" in words and before in {"by", "with"}:
        return "who"
    if "why" in words and before == "because":
        return "why"
    return rng.choice(words)


def cloze_question(sentence: str, start: int, end: int, title: str, asking: str, rng: random.Random) -> str:
    """The sentence around a piece of it as a question for that piece."""
    before, after = sentence[:start].split(), sentence[end:].split()
    if title and _PRONOUN.match(sentence) and start > 3 and rng.random() < 0.8:
        before = [*title.split(), *_PRONOUN.sub("", " ".join(before) + " ").split()]
    before, after = before[-rng.randint(6, 16) :], after[: rng.randint(0, 8)]
    while before and before[-1].lower() in _SMALL and rng.random() < 0.7:
        before.pop()
    text = " ".join([*before, *after])
    moved = _AUXILIARY.match(text)
    if moved and rng.random() < 0.8:
        text = f"{moved.group(2)} {moved.group(1)} {moved.group(3)}"
    kept = [word for word in text.split() if word.lower() not in _SMALL or rng.random() < 0.85]
    question = " ".join([asking, *kept])
    question = re.sub(r"\s*[,;:()\"“”]+\s*", " ", question).rstrip(" .!?")
    if rng.random() < 0.5:
        question = question.lower()
    else:
        question = question[:1].upper() + question[1:]
    return question + ("?" if rng.random() < 0.8 else "")


def cut_passages(text: str, rng: random.Random, words: tuple[int, int] = WORDS) -> Iterator[tuple[str, str]]:
    """(title, passage): whole sentences, the title in front of some; a text's first lines without a full stop are
    its title."""
    title, _, body = text.partition("\n\n")
    if not body or len(title) > 80:
        title, body = "", text
    sentences = _SENTENCE_END.split(" ".join(body.split()))
    least, most = words
    held: list[str] = []
    limit = rng.randint(least + least // 4, most)
    for sentence in sentences:
        if held and len(" ".join(held).split()) + len(sentence.split()) > limit:
            yield from _passage(title, held, least, rng)
            held, limit = [], rng.randint(least + least // 4, most)
        held.append(sentence)
    yield from _passage(title, held, least, rng)


def _passage(title: str, sentences: Sequence[str], least: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    passage = " ".join(sentences)
    if least <= len(passage.split()) <= 180:
        yield title, f"{title}. {passage}" if title and rng.random() < 0.5 else passage


def made_items(
    path: Path, num: int, words: tuple[int, int], rng: random.Random, part: int = 0, num_parts: int = 1
) -> list[Item]:
    """So many passages of a file and their questions; parts share no text."""
    rows = [row["text"] for row in read_rows(path, 10**9)][part::num_parts]
    rng.shuffle(rows)
    items: list[Item] = []
    for text in rows:
        passages = list(cut_passages(text, rng, words))
        for title, passage in rng.sample(passages, min(len(passages), 40)):
            if questions := made_questions(passage, title, rng, rng.randint(2, 5)):
                items.append(Item(passage, questions))
        if len(items) >= num:
            break
    return items[:num]


# ---------------------------------------------------------------- rows


def rows_of(items: Sequence[Item], rng: random.Random, times: int = 1) -> Iterator[dict[str, object]]:
    """Each item with one or two others, near misses or random ones, and all their questions; and questions about
    passages left out, nearest first, that are refused."""
    vectorizer = HashingVectorizer(n_features=2**18, alternate_sign=False, stop_words="english")
    for _ in range(times):
        order = rng.sample(range(len(items)), len(items))
        for at in range(0, len(order) - 4, WINDOW):
            window = [items[number] for number in order[at : at + WINDOW]]
            counts_WV = vectorizer.transform([item.passage for item in window])
            near_WW = np.asarray((counts_WV @ counts_WV.T).todense())
            left = set(range(len(window)))
            while left:
                anchor = left.pop()
                nearest = [int(each) for each in np.argsort(-near_WW[anchor]) if each != anchor]
                others = [each for each in (nearest if rng.random() < 0.75 else list(left)) if each in left]
                chosen = [anchor, *others[: rng.choice((0, 1, 2, 2, 2))]]
                left -= set(chosen)
                rng.shuffle(chosen)
                outside = [window[each] for each in nearest if each not in chosen][:8]
                yield _row([window[each] for each in chosen], outside, rng)


def _row(chosen: Sequence[Item], outside: Sequence[Item], rng: random.Random) -> dict[str, object]:
    asked = [
        (question, f"[{number}] {answer}")
        for number, item in enumerate(chosen, start=1)
        for question, answer in rng.sample(item.questions, min(len(item.questions), 5))
    ]
    asked = rng.sample(asked, min(len(asked), MAX_QUESTIONS))
    there = " ".join(item.passage for item in chosen).lower()
    missing = [
        (question, REFUSAL)
        for item in outside
        for question, answer in item.questions[:1]
        if answer.lower() not in there
    ]
    num_missing = sum(rng.random() < 0.33 for _ in asked)
    questions = [*asked, *missing[:num_missing]]
    rng.shuffle(questions)
    return {"passages": [item.passage for item in chosen], "questions": [list(each) for each in questions]}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.reading", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with chat/ and text/")
    parser.add_argument("out", type=Path, help="folder for the rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="the rows are the same with any number; default 1")
    parser.add_argument("--only", nargs="*", help="names of the chat files and of the made files to make; default: all")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = [*HUMAN, *MADE_FROM] if given.only is None else given.only
    parts = [part for name in chosen for part in parts_of(name, given.data, given.seed)]
    try:
        with ProcessPoolExecutor(given.processes) as pool:
            every_rows = pool.map(made_part, parts)
            for name, group in itertools.groupby(zip(parts, every_rows, strict=True), key=lambda each: each[0].name):
                file_name = f"{name}_reading.jsonl" if name in HUMAN else f"{name}.jsonl"
                _write(given.out / file_name, itertools.chain.from_iterable(rows for _, rows in group))
    except (ValueError, OSError) as error:
        print(f"reading: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True)
class Part:
    """What one process makes rows of: a chat file, or a part of a text file."""

    name: str
    data: Path
    seed: int
    number: int = 0
    num_parts: int = 1


def parts_of(name: str, data: Path, seed: int) -> list[Part]:
    num_parts = 1 if name in HUMAN else -(-MADE_FROM[name][1] // PART_ITEMS)
    return [Part(name, data, seed, number, num_parts) for number in range(num_parts)]


def made_part(part: Part) -> list[dict[str, object]]:
    """The rows of a part. Raises: ValueError if its file is missing or of another form."""
    rng = random.Random(f"{part.seed}/{part.name}/{part.number}")
    if part.name in HUMAN:
        items = read_grounded(find_file(part.data, "chat", part.name))
        return list(rows_of(items, rng, HUMAN[part.name]))
    text, num = MADE_FROM[part.name]
    words = SHORT_WORDS if part.name == "reading_short" else WORDS
    path = find_file(part.data, "text", text)
    return list(rows_of(made_items(path, num // part.num_parts, words, rng, part.number, part.num_parts), rng))


HUMAN = {
    "grounded_fairytaleqa": 6,
    "grounded_trivia": 6,
    "grounded_reading": 8,
    "grounded_wikipedia": 1,
    "grounded_docs": 1,
    "grounded_biomed": 1,
    "grounded_factbook": 1,
    "openstax_qa": 1,
    "medquad": 2,
}
"""Chat file -> how often its passages are put together anew: the natural questions are few."""


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    num_rows = num_questions = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            if row["questions"]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                num_rows, num_questions = num_rows + 1, num_questions + len(row["questions"])  # type: ignore[arg-type]
    print(f"{path.name}: {num_rows} rows, {num_questions} questions", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
