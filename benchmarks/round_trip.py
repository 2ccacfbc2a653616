"""How near a GGUF of each type stays to its checkpoint, family by family: `python benchmarks/round_trip.py`.

Each family is a random checkpoint of two layers (tests/tiny.py), all of whose rows fill blocks of 256, so that no type
falls back to another. Both sides embed and continue a quarter of the texts of `gritdesk verify`: transformers in
float32, and the GGUF through the engine with a float32 cache. Random weights are the worst case for a quantization; a
mistake of the conversion shows in the column of F32, which must be exact. Ends with 1 if one of those is not.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from tiny import Family, make_checkpoint, make_encoder

from converters.battery import TEXTS
from converters.checkpoint_reader import CheckpointReader
from converters.comparison import Reader, compare
from converters.gguf_reader import GgufReader
from converters.hf_to_gguf import convert_all
from converters.quantize import Quantization

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
SENTENCEPIECE: dict[str, Any] = {"tokenizer": "sentencepiece"}
SETTINGS: dict[str, dict[str, Any]] = {
    "mistral": SENTENCEPIECE,
    "mixtral": {"num_local_experts": 8},
    "qwen2": {"pre": "qwen2"},
    "qwen3": {"pre": "qwen2"},
    "gemma2": SENTENCEPIECE | {"pre": "gemma", "sliding_window": 512},
    "gemma3": SENTENCEPIECE | {"pre": "gemma", "sliding_window": 512},
    "phi3": SENTENCEPIECE,
}


def main() -> int:
    torch.set_num_threads(1)
    print(f"| family | what | {' | '.join(TYPES)} |\n|---|---|{'---|' * len(TYPES)}")
    is_exact = True
    for family in (*get_args(Family), "bert", "xlm-roberta"):
        with tempfile.TemporaryDirectory() as folder:
            measured = list(measure(family, Path(folder)))
        for name, shown in (("worst cosine", "embedding cosine, worst"), ("same next token", "same next token")):
            cells = [f"{each[shown]:.5f}" if shown in each else "" for each in measured]
            if any(cells):
                print(f"| {family} | {name} | {' | '.join(cells)} |", flush=True)
        is_exact &= measured[0]["embedding cosine, worst"] > 0.9999 and measured[0].get("same next token", 1) == 1
    return 0 if is_exact else 1


def measure(family: str, folder: Path) -> Iterator[dict[str, float]]:
    """What `gritdesk verify` measures of each type, by name."""
    if family in get_args(Family):
        checkpoint = make_checkpoint(folder / "checkpoint", cast(Family, family), **SETTINGS.get(family, {}))
    else:
        checkpoint = make_encoder(folder / "checkpoint", cast(Any, family))
    files = {folder / f"{name}.gguf": Quantization(name) for name in TYPES}
    convert_all(checkpoint, files)
    expected = remembering(CheckpointReader(checkpoint))
    for file in files:
        yield {row.name: row.value for row in compare(GgufReader(file), expected, TEXTS[::4]).rows}


def remembering(reader: CheckpointReader) -> Reader:
    """The reader, which computes each text once."""

    @cache
    def hidden_states(ids: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return CheckpointReader.hidden_states(reader, ids)

    @cache
    def logits(ids: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return CheckpointReader.logits(reader, ids)

    reader.hidden_states = lambda ids: hidden_states(tuple(ids))  # type: ignore[method-assign]
    reader.logits = lambda ids: logits(tuple(ids))  # type: ignore[method-assign]
    return reader


if __name__ == "__main__":
    sys.exit(main())
