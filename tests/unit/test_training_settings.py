"""A recipe says what the trainer can do, or one line says where it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from training.config import ModelShape, TrainConfig, config_from_dict, config_to_json, read_recipe

WRONG = {
    # of another kind
    'mode = "unify"': "mode: expected 'unified' or 'embedding' or 'generation', found 'unify'",
    'attention = "causl"': "attention: expected 'bidirectional' or 'causal' or 'causal_instruction', found 'causl'",
    'pooling = "avg"': "pooling: expected 'mean' or .*, found 'avg'",
    'optimizer = "adam"': "optimizer: expected 'muon' or 'adamw', found 'adam'",
    'passages = "block"': "passages: expected 'plain' or .*, found 'block'",
    'quantization_aware_type = "Q5_0"': "quantization_aware_type: expected 'Q4_0' or 'Q8_0', found 'Q5_0'",
    'contrastive_backward = "cache"': "contrastive_backward: expected 'whole' or 'split' or 'cached', found 'cache'",
    'learning_rate = "2e-5"': "learning_rate: expected a number, at least 0, found '2e-5'",
    "learning_rate = nan": "learning_rate: expected a number, at least 0, found nan",
    f"learning_rate = 1{'0' * 400}": r"learning_rate: expected a number, at least 0, found 10+\.\.\.",
    'max_steps = "5"': "max_steps: expected a whole number, at least 1, found '5'",
    "max_steps = 5.0": "max_steps: expected a whole number, at least 1, found 5.0",
    "max_steps = true": "max_steps: expected a whole number, at least 1, found True",
    "compile_layers = 1": "compile_layers: expected a boolean, found 1",
    "teacher = 1979-05-27": "teacher: expected a string, found datetime",
    'false_negative_margin = "no"': "false_negative_margin: expected a number, found 'no'",
    "passage_tokens = 64": "passage_tokens: expected a list of whole numbers, at least 1, found 64",
    'passage_tokens = [64, "96"]': r"passage_tokens\[1\]: expected a whole number, at least 1, found '96'",
    'lora_targets = "q_proj"': "lora_targets: expected a list of strings, found 'q_proj'",
    'pairs = ["animals"]': r"pairs: expected a table of numbers, above 0, found \['animals'\]",
    'pairs.animals = "1"': "pairs.animals: expected a number, above 0, found '1'",
    "pairs.a = 1\nmax_rows.a = 0.5": "max_rows.a: expected a whole number, at least 1, found 0.5",
    "model = 3": "model: expected a table, found 3",
    "[model]\nhiden_size = 3": "unknown key model.hiden_size; known are context_length, .*hidden_size",
    '[model]\nhidden_size = "256"': "model.hidden_size: expected a whole number, at least 1, found '256'",
    # out of range
    "max_steps = 0": "max_steps: expected a whole number, at least 1, found 0",
    "save_every_steps = 0": "save_every_steps: expected a whole number, at least 1, found 0",
    "log_every_steps = 0": "log_every_steps: expected a whole number, at least 1, found 0",
    "micro_batch_tokens = 0": "micro_batch_tokens: expected a whole number, at least 1",
    "hard_negatives = -1": "hard_negatives: expected a whole number, at least 0, found -1",
    "embedding_batch_size = 1": "embedding_batch_size: expected a whole number, at least 2, found 1",
    "contrastive_temperature = 0": "contrastive_temperature: expected a number, above 0, found 0.0",
    "repeated_text_share = 1.5": "repeated_text_share: expected a number, at least 0 and at most 1, found 1.5",
    "lora_dropout = -0.1": "lora_dropout: expected a number, at least 0 and at most 1, found -0.1",
    "adam_beta2 = 1.0": "adam_beta2: expected a number, at least 0 and below 1, found 1.0",
    "pairs.animals = 0": "pairs.animals: expected a number, above 0, found 0.0",
    "matryoshka_dimensions = [0]": r"matryoshka_dimensions\[0\]: expected a whole number, at least 1, found 0",
    # one beside another
    "passage_tokens = []": "passage_tokens: expected at least one length, found none",
    "loss_emb_weight = 0": 'loss_emb_weight must be above 0, found 0; mode = "generation"',
    "matryoshka_dimensions = [128, 999]": "must be below the embedding's dimension 256, found 128, 999",
    "matryoshka_dimensions = [64]\nmodel.embedding_dimension = 64": "must be below the embedding's dimension 64",
    "matryoshka_dimensions = [32]\nprojection_dimension = 16": "must be below the embedding's dimension 16, found 32",
    "repeated_text_share = 0.5\nsequence_tokens = 33": "repeated_text_share needs sequence_tokens of at least 34",
    'base_model = "x"\nstatic_steps = 3': "static_steps and token_embeddings_from start a model of",
    "[model]\nhidden_size = 64\nembedding_dimension = 100": "at most hidden_size, found 100 and 64",
    "[model]\nhidden_size = 100\nnum_heads = 3": "same even number of dimensions, found 100 and 3",
    "[model]\nnum_kv_heads = 3": "num_heads must be a multiple of num_kv_heads, found 4 and 3",
    "[model]\nvocab_size = 100": "vocab_size must be at least 2[0-9]+, bytes and special tokens, found 100",
}


@pytest.mark.parametrize(("recipe", "reason"), WRONG.items(), ids=[each[:50] for each in WRONG])
def test_wrong_setting_is_told_in_one_line_with_its_recipe(recipe: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(recipe)
    with pytest.raises(ValueError, match=reason) as raised:
        read_recipe(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_recipe_that_is_no_text_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot read recipe .*wrong.toml"):
        read_recipe(tmp_path / "wrong.toml")


def test_settings_come_back_from_json_as_they_were() -> None:
    config = TrainConfig(
        pairs={"a": 1.0}, max_rows={"a": 3}, model=ModelShape(num_layers=1), false_negative_margin=-0.1
    )
    assert config_from_dict(json.loads(config_to_json(config)), "json") == config
    assert config_from_dict({"learning_rate": 1, "pairs": {"a": 2}}, "json").pairs == {"a": 2.0}


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(ValueError, match="max_steps: expected a whole number, at least 1, found 0"):
        dataclasses.replace(TrainConfig(), max_steps=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"text": {"a": 1.0}}, r"\[pairs\]"),
        ({"mode": "embedding"}, r"\[pairs\]"),
        ({"mode": "generation", "static_steps": 1, "text": {"a": 1.0}}, r"\[pairs\]"),
        ({"pairs": {"a": 1.0}}, r"\[chat\] or \[text\]"),
        ({"mode": "generation", "pairs": {"a": 1.0}}, r"\[chat\] or \[text\]"),
    ],
)
def test_mode_without_its_files_names_the_missing_table(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TrainConfig(**settings).check_files()


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "embedding", "pairs": {"a": 1.0}},
        {"mode": "generation", "text": {"a": 1.0}},
        {"pairs": {"a": 1.0}, "chat": {"a": 1.0}},
        {"chat": {"a": 1.0}, "language_steps": 1000, "max_steps": 1000},
    ],
)
def test_mode_needs_no_other_files_than_its_own(settings: dict[str, Any]) -> None:
    TrainConfig(**settings).check_files()
