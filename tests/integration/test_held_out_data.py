"""The committed sample is of the evaluation sets as they are, and keeps the training data apart from them."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from training.config import TrainConfig
from training.examples import Source, read_sources, texts_of
from training.held_out import hold_out, read_held_out
from training.overlap import MIN_SHARED, Compared, evaluation_texts

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("GRITDESK_DATA", ROOT.parent / "shared" / "data"))


def test_committed_sample_is_of_the_sets_as_they_are() -> None:
    """Where the data lies beside the project; what the file holds is recorded in tests/unit/test_held_out.py."""
    if not (DATA / "eval" / "open").is_dir():
        return
    fresh, committed = hold_out(evaluation_texts(DATA / "eval" / "open")), read_held_out()
    assert fresh.num_texts == committed.num_texts
    assert np.array_equal(fresh.grams, committed.grams) and np.array_equal(fresh.wholes, committed.wholes)


def test_rows_that_overlap_are_dropped_and_no_others_overlap() -> None:
    """Every row of files in which some do, by each kind; all files take minutes: `python -m training.overlap`."""
    if not (DATA / "eval" / "open").is_dir():
        return
    compared = Compared.with_texts(evaluation_texts(DATA / "eval" / "open"))
    config = TrainConfig(
        data_dir=str(DATA),
        pairs={"18f_blog": 1.0},
        chat={"medquad": 1.0},
        text={"wordnet": 1.0},
        max_rows_per_file=3000,
    )
    sources = read_sources(config)
    every: list[Source[Any]] = [*sources.pairs, *sources.chats, *sources.texts]
    for source in every:
        source.dropped.clear()
        num_rows = len(source.rows)
        drawn = source.draw(random.Random(1), num_rows)
        assert 0 < num_rows - len(drawn) == source.dropped["held out for evaluation"] < num_rows / 8
        assert not any(compared.overlap(texts_of(example), MIN_SHARED) for example in drawn)
