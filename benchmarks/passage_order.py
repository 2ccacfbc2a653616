"""`python benchmarks/passage_order.py DATA [--questions N] [--model MODEL]`: which passage should stand first.

Questions of DATA/chat (of people, on tales and trivia) are answered from their passage and the two others of the same
file that are nearest by words, in three orders: its own passage first, in the middle, last. Printed are token F1
of the answers and how often the passage is cited. These rows were trained on; orders are compared here, not models.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from gritdesk.grit_format import documents_turn
from gritdesk.models import default_model
from gritdesk.records import Turn
from training.embedders import load_embedder
from training.metrics import token_f1
from training.reading import read_grounded
from training.search import AppIndex
from training.writers import AnswerWriter, writer_of

FILES = ("grounded_trivia", "grounded_fairytaleqa")
PLACES = ("first", "in the middle", "last")
NUM_PASSAGES = 900
MAX_ANSWER_TOKENS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--questions", type=int, default=60, metavar="N", help="of each file")
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    writer = writer_of(load_embedder(given.model, num_threads=given.threads))
    print("| its passage stands | " + " | ".join(f"{name}: F1, cited" for name in FILES) + " |\n|---|---|---|")
    scores = {name: _scores(given.data / "chat" / f"{name}.jsonl.zst", given.questions, writer) for name in FILES}
    for place, name in enumerate(PLACES):
        cells = (f"{scores[file][place][0]:.3f}, {scores[file][place][1]:.2f}" for file in FILES)
        print(f"| {name} | " + " | ".join(cells) + " |")


def _scores(path: Path, num: int, writer: AnswerWriter) -> list[tuple[float, float]]:
    """(F1, share that cites the passage) of each place."""
    items = read_grounded(path)[:NUM_PASSAGES]
    asked = [(question, answer, item.passage) for item in items for question, answer in item.questions]
    random.Random(2).shuffle(asked)
    found: list[list[tuple[float, float]]] = [[] for _ in PLACES]
    texts = {str(number): item.passage for number, item in enumerate(items)}
    with AppIndex(texts) as index:
        for question, answer, gold in asked[:num]:
            near = [texts[each] for each in index.search(question, 5, "keyword") if texts[each] != gold][:2]
            for place in range(len(PLACES)):
                turn = Turn("user", documents_turn([*near[:place], gold, *near[place:]], question))
                said = writer.answer([turn], MAX_ANSWER_TOKENS)
                number = min(place, len(near)) + 1
                found[place].append((token_f1(said, answer), float(f"[{number}]" in said)))
    return [(float(np.mean([f1 for f1, _ in each])), float(np.mean([cited for _, cited in each]))) for each in found]


if __name__ == "__main__":
    main()
