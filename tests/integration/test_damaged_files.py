"""Damaged files of every format through the reader's own process; `benchmarks/mutants.py` runs as many as one likes."""

from pathlib import Path

from damaged_files import TIMEOUT_S, is_running, mutants, read_all, seeds

NUM_MUTANTS = 360


def test_every_damaged_file_is_read_or_refused_with_a_reason_for_people(tmp_path: Path) -> None:
    tallies, process_ids = read_all(mutants(NUM_MUTANTS), tmp_path)
    assert sum(tally.read + tally.refused + tally.killed for tally in tallies.values()) == NUM_MUTANTS
    assert {suffix: tally.faults for suffix, tally in tallies.items() if tally.faults} == {}
    assert max(tally.longest_s for tally in tallies.values()) < TIMEOUT_S
    assert [each for each in process_ids if is_running(each)] == []


def test_every_seed_is_sound_so_that_its_mutants_reach_its_reader(tmp_path: Path) -> None:
    tallies, _ = read_all(iter(seeds()), tmp_path)
    assert {suffix: tally for suffix, tally in tallies.items() if tally.read != 1} == {}
