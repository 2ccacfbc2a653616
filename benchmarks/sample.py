"""`python benchmarks/sample.py [GGUF]`: questions to the sample documents, whose files and answers are known.

Prints for each question the place of its file among the first three hits by both and by meaning, and the answer.
Too few to choose by; enough to see what a new user will see.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from gritdesk.config import Config, EngineConfig
from gritdesk.desk import Desk
from gritdesk.records import AnswerFinished, SearchMode

SAMPLE = Path(__file__).parents[1] / "assets" / "sample"
QUESTIONS = (
    ("Where is the spare tower key kept?", "keepers-handbook.md", "in the tea tin on the kitchen shelf"),
    ("When is the generator tested?", "keepers-handbook.md", "every Wednesday at 10:00"),
    ("When does Clover the donkey retire?", "meeting-notes-march.md", "1 June 2024"),
    ("How much did the new starter battery of the Marigold cost?", "boat-log.md", "310 euros"),
    ("How long are storm biscuits baked?", "kitchen-recipes.md", "12 minutes at 180 degrees"),
    ("On which channel is the weather forecast?", "radio-howto.md", "channel 23"),
    ("How long does the walk across the sandbar to Little Fennock take?", "tide-almanac.md", "20 minutes"),
    ("Who is the only paid person of the trust?", "budget-2024.md", "the skipper"),
    ("Where is the telescope of Walter Thorne?", "letter-to-ida-thorne.txt", "in a glass case in the tower"),
    ("How much honey did the bees give this year?", "wildlife-diary.txt", "34 kilograms"),
    ("Who designed Fennock Light?", "island-history.html", "Josiah Penrose"),
    ("How many minutes before sunset is the lamp switched on?", "lamp.toml keepers-handbook.md", "15"),
    ("When must the railing of the gallery be repaired?", "inspection-report-2024.pdf", "30 June 2024"),
    ("How long may a shower last?", "volunteer-guide.docx", "three minutes"),
    ("What is the password of the wireless network?", "", "(not in the documents)"),
)


def main(model: str = "") -> None:
    with tempfile.TemporaryDirectory() as home:
        config = dataclasses.replace(Config(Path(home)), engine=EngineConfig(model=model))
        with Desk.open(config) as desk:
            desk.index([SAMPLE])
            num_first = num_supported = 0
            for question, files, expected in QUESTIONS:
                both, meaning = (place(desk, question, files, mode) for mode in ("hybrid", "semantic"))
                answer = next(event.answer for event in desk.ask(question) if isinstance(event, AnswerFinished))
                num_first += both == 1
                num_supported += answer.grounded
                support = f"evidence {answer.evidence}, {'supported' if answer.grounded else 'not supported'}"
                print(
                    f"{question}\n  place {both}, by meaning {meaning}; {support}: {answer.text!r}; wanted: {expected}"
                )
    print(f"{num_first} of {len(QUESTIONS)} files in first place, {num_supported} answers supported")


def place(desk: Desk, question: str, files: str, mode: SearchMode) -> int | None:
    """Rank of the first of the first three hits that lies in one of the files."""
    names = [hit.path.name for hit in desk.search(question, 3, mode)]
    return next((rank for rank, name in enumerate(names, start=1) if name in files.split()), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
