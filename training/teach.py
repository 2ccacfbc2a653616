"""`python -m training.teach TEACHER RECIPE --data DATA --output NAME.teacher`: a teacher's embeddings, kept for a run.

A run asks its teacher for the same texts again and again. Kept, each is embedded once, before or beside the first
steps, and the processes that make batches can look it up. With `teacher = "NAME.teacher"` in the recipe.

A folder NAME.teacher holds keys.npy, int64[N] in rising order, and vectors.npy, float16[N, K].
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.records import EmbeddingInput
from training.config import TrainConfig, read_recipe
from training.data import passage_key
from training.embedders import TextEmbedder, load_embedder
from training.examples import EmptyExample, read_sources

SUFFIX = ".teacher"
CHUNK = 65_536
"""Texts that are embedded in one call, those of like length together."""


class KeptTeacher:
    """A TextEmbedder of the texts that are kept; opened when it is first asked, and mapped: processes share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def _kept(self) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        try:
            keys_N, vectors_NK = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("keys", "vectors"))
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the teacher {self.folder}: {error}; make it with training.teach") from error
        return keys_N, vectors_NK

    @property
    def dimension(self) -> int:
        return self._kept[1].shape[1]

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """See TextEmbedder. Raises: ValueError if a text is not kept."""
        keys_N, vectors_NK = self._kept
        keys = np.array([_key(each) for each in inputs], dtype=np.int64)
        at = np.minimum(np.searchsorted(keys_N, keys), len(keys_N) - 1)
        missing = np.flatnonzero(keys_N[at] != keys)
        if len(missing):
            text = inputs[int(missing[0])][1][:60]
            raise ValueError(f"{self.folder} lacks {text!r}: make it anew, with the recipe's [pairs]")
        return vectors_NK[at].astype(np.float32)


def load_teacher(config: TrainConfig) -> TextEmbedder:
    """The recipe's teacher. Raises: ValueError if there is none, or batches are made where none can compute."""
    if Path(config.teacher).suffix == SUFFIX:
        return KeptTeacher(Path(config.teacher))
    if config.batch_workers:
        raise ValueError(
            "batch_workers ask no teacher that computes: keep its embeddings with python -m training.teach"
        )
    return load_embedder(config.teacher)


def _key(each: EmbeddingInput) -> int:
    # a query may be read in lower case, which is taught the same
    return passage_key(f"{each[0]}\n{each[1].lower()}")


def keep(teacher: TextEmbedder, config: TrainConfig, folder: Path) -> int:
    """Embed every text of the recipe's pairs; returns how many.

    Raises: ValueError if the recipe has no pairs, or they cannot be read.
    """
    if not config.pairs:
        raise ValueError("the recipe has no [pairs], whose texts a teacher embeds")
    # each file by a process of its own: rows take longer to read than a GPU to embed
    alone = [dataclasses.replace(config, mode="embedding", pairs={name: 1.0}, max_rows={}) for name in config.pairs]
    found: dict[int, EmbeddingInput] = {}
    with ProcessPoolExecutor() as pool:
        for of_file in pool.map(_texts_of, alone):
            found |= of_file
    keys = sorted(found)
    texts = [found[key] for key in keys]
    chunks = [teacher.embed(texts[at : at + CHUNK]).astype(np.float16) for at in range(0, len(texts), CHUNK)]
    beside = folder.with_name(folder.name + ".new")
    beside.mkdir(parents=True, exist_ok=True)
    np.save(beside / "keys.npy", np.array(keys, dtype=np.int64))
    np.save(beside / "vectors.npy", np.concatenate(chunks))
    beside.rename(folder)
    return len(keys)


def _texts_of(config: TrainConfig) -> dict[int, EmbeddingInput]:
    """By key, of all rows of the recipe's pairs."""
    found: dict[int, EmbeddingInput] = {}
    for source in read_sources(dataclasses.replace(config, chat={}, text={})).pairs:
        for number in range(len(source.rows)):
            try:
                pair = source.rows[number]
            except EmptyExample:
                continue
            found |= {_key(each): each for each in (pair.query, *pair.positives, *pair.negatives)}
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.teach", description=__doc__.split("\n")[0])
    parser.add_argument("teacher", help="what embeds: a folder, a package, a name on the Hugging Face hub, a GGUF")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", help="folder with pairs/")
    parser.add_argument("--output", type=Path, required=True, help=f"folder to make, NAME{SUFFIX}")
    given = parser.parse_args(arguments)
    try:
        config = read_recipe(given.recipe, data_dir=given.data)
        if given.output.suffix != SUFFIX or given.output.exists():
            raise ValueError(f"--output must be a new folder NAME{SUFFIX}, found {given.output}")
        num_texts = keep(load_embedder(given.teacher), config, given.output)
    except (ValueError, OSError) as error:
        print(f"teach: {error}", file=sys.stderr)
        return 1
    print(f"{num_texts} texts kept in {given.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
