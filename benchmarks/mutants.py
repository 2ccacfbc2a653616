"""What damaged files do to the readers: `python benchmarks/mutants.py [COUNT] [RANDOM_SEED]`, by default 2000 and 0.

Prints a table row per format: how many mutants (tests/damaged_files.py) were read, refused with a reason, ended the
reader's process, and the longest that one took. Ends with exit code 1 if a reason was none that a person can use, or
if a process was left behind; the reasons are printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from damaged_files import is_running, mutants, read_all  # noqa: E402


def main(count: int = 2000, random_seed: int = 0) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tallies, process_ids = read_all(mutants(count, random_seed), Path(folder))
    print("| format | read | refused | reader killed | longest s |")
    print("|---|---:|---:|---:|---:|")
    for format_, tally in tallies.items():
        print(f"| {format_} | {tally.read} | {tally.refused} | {tally.killed} | {tally.longest_s:.2f} |")
    faults = sorted({fault for tally in tallies.values() for fault in tally.faults})
    left = [each for each in process_ids if is_running(each)]
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(faults)} useless reasons, {len(left)} processes left behind")
    return 1 if faults or left else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
