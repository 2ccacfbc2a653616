"""grit-nano's last stage with one loss instead of two: what unifying costs either side.

    python benchmarks/twins.py DATA OUT START READING [--steps N]

START: the checkpoint that grit-nano-language.toml begins with, token embeddings that a teacher taught and blocks that
begin; READING: what grit-nano-reading.toml made. Writes OUT/embedding, trained further from START with the contrastive
loss alone, and OUT/generation, from READING with the next-token loss alone, both on the batches of grit-nano.toml.
Scores come from `python -m training.evaluate`, the model card's row from `benchmarks/model_card.py --twin`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from training.config import read_recipe
from training.train import train

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "grit-nano.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train grit-nano's twins.")
    for name in ("data", "out", "start", "reading"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, help="as many as grit-nano's last stage has")
    given = parser.parse_args()
    recipe = read_recipe(RECIPE, data_dir=given.data, output_dir=given.out, max_steps=given.steps)
    for mode, base in (("embedding", given.start), ("generation", given.reading)):
        train(dataclasses.replace(recipe, mode=mode, base_model=base, output_dir=f"{given.out}/{mode}"))


if __name__ == "__main__":
    main()
