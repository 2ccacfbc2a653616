"""Batches are the same whoever makes them, and a teacher's kept embeddings are the teacher's."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_data import write_data

from gritdesk.records import EmbeddingInput
from training.config import TrainConfig
from training.data import Batches, in_lower_case, tokenizer_sample
from training.examples import read_sources
from training.prefetch import each_step
from training.teach import KeptTeacher, keep, load_teacher, main
from training.tokenizer import FrameTokenizer, train_tokenizer


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data_dir=str(write_data(tmp_path / "data")),
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        max_steps=5,
        language_steps=3,
        embedding_batch_size=6,
        generation_tokens=120,
    )


class CountsLetters:
    """A teacher for which texts are alike that have like many of each letter, in whatever case."""

    dimension = 26

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        letters = "abcdefghijklmnopqrstuvwxyz"
        counts = np.array([[text.lower().count(each) for each in letters] for _, text in inputs], dtype=np.float32)
        vectors: NDArray[np.float32] = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return vectors


def test_workers_make_the_same_batches_in_the_same_order(config: TrainConfig) -> None:
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    batches = Batches(sources, tokenizer, config)
    alone = list(each_step(batches, 1, config))
    with_workers = dataclasses.replace(config, batch_workers=2)
    if "fork" not in multiprocessing.get_all_start_methods():
        with pytest.raises(ValueError, match="batch_workers"):
            next(each_step(batches, 1, with_workers))
        return
    by_workers = list(each_step(batches, 1, with_workers))
    assert [step for step, _ in by_workers] == [1, 2, 3, 4]
    for (_, (pairs, texts)), (_, (same_pairs, same_texts)) in zip(alone, by_workers, strict=True):
        assert texts is not None and same_texts is not None
        assert all(torch.equal(a.ids_BT, b.ids_BT) for a, b in zip(texts.rows, same_texts.rows, strict=True))
        assert (pairs is None) == (same_pairs is None)
        if pairs is not None and same_pairs is not None:
            assert torch.equal(pairs.keys_N, same_pairs.keys_N)


def test_kept_embeddings_are_the_teachers_also_of_queries_in_lower_case(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "letters.teacher"
    num_texts = keep(CountsLetters(), config, folder)
    rows = read_sources(config).pairs[0].rows
    pairs = [rows[number] for number in range(len(rows))]
    assert num_texts == len({each for pair in pairs for each in (pair.query, *pair.positives, *pair.negatives)})
    asked = [each for pair in pairs for each in (in_lower_case(pair).query, *pair.positives)]
    kept = load_teacher(dataclasses.replace(config, teacher=str(folder), batch_workers=2))
    assert kept.dimension == 26
    np.testing.assert_allclose(kept.embed(asked), CountsLetters().embed(asked), atol=1e-3)


def test_text_that_is_not_kept_and_a_folder_that_is_not_there_are_named(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "letters.teacher"
    with pytest.raises(ValueError, match=r"cannot read the teacher .*letters\.teacher"):
        KeptTeacher(folder).embed([("", "an otter")])
    keep(CountsLetters(), config, folder)
    with pytest.raises(ValueError, match="lacks 'no such text'"):
        KeptTeacher(folder).embed([("", "no such text")])


def test_workers_ask_no_teacher_that_computes(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match=r"training\.teach"):
        load_teacher(dataclasses.replace(config, teacher="some_package", batch_workers=1))


def test_output_of_another_name_is_refused_before_the_teacher_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[pairs]\nanimals = 1.0\n[text]\nanimals = 1.0\n")
    assert main(["some_package", str(recipe), "--output", str(tmp_path / "vectors")]) == 1
    assert "NAME.teacher" in capsys.readouterr().err
