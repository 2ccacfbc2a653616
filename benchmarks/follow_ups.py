"""`python benchmarks/follow_ups.py [DATA]`: do follow-up questions find their passage, and do others stay as they were?

The conversations of benchmarks/conversations.jsonl were written by hand over the sample documents and, with DATA, over
two sets of DATA/text that answers are never measured on. Each question has a file and words that its passage holds, and
is marked by whether it stands alone. The earlier exchanges hold the right answers, citing the right passages.

Printed for each way to search: in how many cases the first hit, and one of the first three, is in the file and holds
the words. `foreign` are questions that stand alone, asked after somebody else's conversation: what is lost there is
harm. The line of rules says how often they and the marks agree.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from gritdesk.config import Config, EngineConfig
from gritdesk.desk import Desk
from gritdesk.records import Answer, Citation, Exchange, Hit
from gritdesk.rewriting import Rewritten, found, rewritten, stands_alone

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "assets" / "sample"
TOP = 3
OTHER_COUNTRIES = 60
"""Of the countries that nobody asks about every 60th is there, too."""

Turn = tuple[str, str, str, str]
"""Question, words of its passage, names of its files, and `alone` or `follows`."""
Way = Callable[[str, Sequence[Exchange], str], Rewritten]


def main(data: str = "") -> None:
    lines = (HERE / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    by_corpus: dict[str, list[list[Turn]]] = defaultdict(list)
    for each in map(json.loads, lines):
        by_corpus[each["corpus"]].append([tuple(turn) for turn in each["turns"]])
    turns = [turn for talks in by_corpus.values() for talk in talks for turn in talk]
    agree = sum(stands_alone(question) == (kind == "alone") for question, _, _, kind in turns)
    print(f"rules and marks agree on {agree} of {len(turns)} questions", flush=True)
    for corpus, talks in by_corpus.items():
        if corpus == "sample" or data:
            with tempfile.TemporaryDirectory() as folder:
                measure(corpus, talks, files_of(corpus, talks, data, Path(folder) / "files"), Path(folder) / "home")


def measure(corpus: str, talks: Sequence[Sequence[Turn]], files: Path, home: Path) -> None:
    with Desk.open(Config(home, engine=EngineConfig(n_threads=1))) as desk:
        desk.index([files])
        known: dict[tuple[str, int], list[Hit]] = {}

        def search(line: str, n: int) -> list[Hit]:
            if (line, n) not in known:
                known[line, n] = desk.search(line, n)
            return known[line, n]

        ways: dict[str, Way] = {
            "as asked": lambda question, past, kind: Rewritten(question),
            "by rules": lambda question, past, kind: rewritten(question, past),
            "by marks": by_marks,
        }
        for name, way in ways.items():
            places = defaultdict(list)
            for talk in talks:
                past: list[Exchange] = []
                for turn in talk:
                    question, words, names, kind = turn
                    asked = way(question, past, kind)
                    if past:
                        places[kind].append(place(found(asked, past, search, TOP), words, names))
                    past.append(answered(turn, asked.searched_for, search))
            for turn, past in foreign(talks, search):
                asked = way(turn[0], past, "alone")
                places["foreign"].append(place(found(asked, past, search, TOP), turn[1], turn[2]))
            told = [
                f"{kind} {sum(each == 1 for each in ranks)} / {sum(each > 0 for each in ranks)} of {len(ranks)}"
                for kind, ranks in sorted(places.items())
            ]
            print(f"{corpus:<10} {name}: {'; '.join(told)}", flush=True)


def by_marks(question: str, past: Sequence[Exchange], kind: str) -> Rewritten:
    """As if the rules had judged every question rightly."""
    if kind == "alone" or not past:
        return Rewritten(question)
    asked = rewritten("And it?", past)
    own = question.casefold().split()
    return Rewritten(question, tuple(word for word in asked.carried if word.casefold() not in own), leaves_out=True)


def place(hits: Sequence[Hit], words: str, names: str) -> int:
    """Rank of the first hit that is right, 0 if none is."""
    return next((rank for rank, hit in enumerate(hits, start=1) if is_right(hit, words, names)), 0)


def is_right(hit: Hit, words: str, names: str) -> bool:
    in_file = not names or hit.path.name in names.split() or hit.path.stem == names
    return in_file and plain(words) in plain(hit.chunk.text)


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def answered(turn: Turn, searched_for: str, search: Callable[[str, int], list[Hit]]) -> Exchange:
    question, words, names, _ = turn
    hit = next((each for each in search(f"{question} {words}", 200) if is_right(each, words, names)), None)
    if hit is None:
        return Exchange(Answer(question, words, True, searched_for=searched_for))
    citation = Citation(1, hit.path, hit.chunk.line_start, hit.chunk.line_end, words)
    return Exchange(Answer(question, f"{words} [1].", True, (citation,), searched_for=searched_for), (hit,))


def foreign(
    talks: Sequence[Sequence[Turn]], search: Callable[[str, int], list[Hit]]
) -> list[tuple[Turn, list[Exchange]]]:
    chance = random.Random(1)
    asked = []
    for talk in talks:
        for turn in talk:
            if turn[3] == "alone":
                other = chance.choice([each for each in talks if each is not talk])
                asked.append((turn, [answered(each, "", search) for each in other[:2]]))
    return asked


def files_of(corpus: str, talks: Sequence[Sequence[Turn]], data: str, folder: Path) -> Path:
    if corpus == "sample":
        return SAMPLE
    import zstandard

    folder.mkdir()
    asked_about = {names for talk in talks for _, _, names, _ in talk}
    with open(Path(data) / "text" / f"{corpus}.jsonl.zst", "rb") as packed:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8")
        for number, line in enumerate(lines):
            text = json.loads(line)["text"]
            title = text.split("\n")[0]
            if corpus != "factbook" or title in asked_about or number % OTHER_COUNTRIES == 0:
                name = title if corpus == "factbook" else f"{number:03}"
                (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    main(*sys.argv[1:])
