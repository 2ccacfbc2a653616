"""Every recipe is run for some steps with the model shrunk, and its checkpoint loads and converts like any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import make_checkpoint
from training_data import write_data
from transformers import AutoModelForCausalLM, AutoTokenizer

from converters.hf_to_gguf import convert
from gritdesk.engine.llama import LlamaModel
from training.config import TrainConfig, read_recipe
from training.tokenizer import FrameTokenizer
from training.train import train

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))
TINY_BASES = {"Mistral": "mistral", "Mixtral": "mixtral", "Qwen3": "qwen3", "SmolLM2": "llama"}


def shrunk(config: TrainConfig, folder: Path) -> TrainConfig:
    """The recipe with its own modes, losses and schedule on a model and data of the smallest size."""
    animals = write_data(folder / "data")
    for kind, names in (("pairs", config.pairs), ("chat", config.chat), ("text", config.text)):
        for name in names:
            path = animals / kind / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((animals / kind / "animals.jsonl").read_text())
    base = next((family for name, family in TINY_BASES.items() if name in config.base_model), "")
    if base:
        tokenizer = "sentencepiece" if base in ("mistral", "mixtral") else "bpe"
        base = str(make_checkpoint(folder / "base", base, tokenizer=tokenizer))  # type: ignore[arg-type]
    teacher = str(make_checkpoint(folder / "teacher", "llama", tokenizer="bpe")) if config.teacher else ""
    return dataclasses.replace(
        config,
        base_model=base,
        teacher=teacher,
        data_dir=str(animals),
        output_dir=str(folder / "model"),
        max_steps=3,
        language_steps=min(config.language_steps, 1),
        static_steps=min(config.static_steps, 2),
        static_teacher="",
        token_embeddings_from="",
        model=dataclasses.replace(
            config.model,
            vocab_size=400,
            hidden_size=256,
            intermediate_size=256,
            num_layers=1,
            embedding_dimension=min(config.model.embedding_dimension, 128),
        ),
        embedding_batch_size=8,
        matryoshka_dimensions=(64,) if config.matryoshka_dimensions else (),
        generation_tokens=min(config.generation_tokens, 400),
        generation_sequences=min(config.generation_sequences, 4),
        micro_batch_tokens=300,
        batch_workers=min(config.batch_workers, 1),
        compile_layers=False,
        log_every_steps=1,
        num_threads=1,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_and_its_checkpoint_is_an_ordinary_one(path: Path, tmp_path: Path) -> None:
    config = shrunk(read_recipe(path), tmp_path)
    folder = train(config)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert AutoTokenizer.from_pretrained(folder)("a word")["input_ids"]
    convert(folder, tmp_path / "model.gguf", "Q8_0")
    with LlamaModel(tmp_path / "model.gguf") as gguf:
        assert gguf.grit.markers == FrameTokenizer.from_folder(folder).markers
