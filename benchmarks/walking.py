"""`python benchmarks/walking.py [NUM_FILES] [NUM_PATTERNS]`: what finding the documents costs beside a bare walk.

Makes a tree of NUM_FILES small notes, a hundred to a folder, under a .gitignore of NUM_PATTERNS lines, and prints
seconds of CPU, the best of five: os.walk with the state of every file, a Walk, and Walk.skips of every path as a
watcher asks it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gritdesk.walking import Walk

RULES = ("*.ext{}", "build{}/", "/docs/gen{}/**", "!keep{}.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_files", nargs="?", type=int, default=10_000)
    parser.add_argument("num_patterns", nargs="?", type=int, default=48)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(given.num_files):
            path = folder / f"part {number // 1000}" / f"chapter {number // 100}" / f"note {number}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a note")
        patterns = [RULES[number % len(RULES)].format(number) for number in range(given.num_patterns)]
        (folder / ".gitignore").write_text("\n".join(patterns))
        paths = [path for path, _ in Walk(folder).files()]
        print(f"{len(paths)} documents, {len(patterns)} patterns; seconds of CPU")
        print(f"os.walk and os.lstat  {best_of_five(lambda: bare_walk(folder)):.3f}")
        print(f"Walk.files            {best_of_five(lambda: list(Walk(folder).files())):.3f}")
        print(f"Walk.skips, each path {best_of_five(lambda: skipped(folder, paths)):.3f}")


def bare_walk(folder: Path) -> list[os.stat_result]:
    return [os.lstat(os.path.join(top, name)) for top, _, names in os.walk(folder) for name in names]


def skipped(folder: Path, paths: list[Path]) -> list[bool]:
    walk = Walk(folder)
    return [walk.skips(path) for path in paths]


def best_of_five(act: Callable[[], object]) -> float:
    spent = []
    for _ in range(5):
        began = time.process_time()
        act()
        spent.append(time.process_time() - began)
    return min(spent)


if __name__ == "__main__":
    main()
