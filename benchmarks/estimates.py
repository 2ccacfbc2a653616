"""How long indexing takes beside what `gritdesk index --estimate` said: python benchmarks/estimates.py FOLDER...

Each folder gets a home of its own and the default model. The estimate is made, then the folder is indexed, then the
estimate is made once more: on a machine that does other things, too, the time is held against the mean of both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.records import IndexProgress
from gritdesk.terminal import LEAST_OF_ESTIMATE, MOST_OF_ESTIMATE


def main() -> None:
    columns = "folder|files|MB|passages|were|words, s|took|all, s|said after it|took|took / said|in the range".split(
        "|"
    )
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as home:
            print(_row(Path(name).absolute(), Path(home)), flush=True)


def _row(folder: Path, home: Path) -> str:
    with Desk.open(load_config(home)) as desk:
        *_, count = desk.count_files(folder)
        began_at = time.perf_counter()
        said = desk.estimate([count])
        trial_s = time.perf_counter() - began_at
        words_at = 0.0
        began_at = time.perf_counter()

        def on_progress(progress: IndexProgress) -> None:
            nonlocal words_at
            if not words_at and progress.files_done >= progress.files_total:
                words_at = time.perf_counter() - began_at

        report = desk.index([folder], on_progress)
    with Desk(load_config(home)) as desk:
        after = desk.estimate([count])
    ratio = report.seconds / ((said.seconds + after.seconds) / 2)
    cells = [
        f"{folder.name} (trial of {trial_s:.1f} s)",
        f"{said.num_files:,}",
        f"{said.size_bytes / 1e6:.2f}",
        f"{said.num_passages:,}",
        f"{report.chunks_embedded:,}",
        f"{said.words_s:.1f}",
        f"{words_at:.1f}",
        f"{said.seconds:.0f}",
        f"{after.seconds:.0f}",
        f"{report.seconds:.0f}",
        f"{ratio:.2f}",
        "yes" if LEAST_OF_ESTIMATE <= ratio <= MOST_OF_ESTIMATE else "no",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
