"""What a recipe changes of its run is refused, named or nothing to speak of."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from training.config import ModelShape, TrainConfig, config_to_json
from training.resuming import FIXED, UNSEEN, changes


def changed(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    return changes(json.loads(config_to_json(TrainConfig(**old))), TrainConfig(**new))


def test_what_is_fixed_or_unseen_is_a_setting_and_not_both() -> None:
    names = {each.name for each in dataclasses.fields(TrainConfig)}
    assert {each for each in FIXED if " " not in each} | UNSEEN <= names and not FIXED & UNSEEN


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({}, {"attention": "causal"}, 'attention "bidirectional" -> "causal"'),
        ({"projection_dimension": 32}, {"projection_dimension": 16}, "projection_dimension 32 -> 16"),
        ({}, {"model": ModelShape(num_layers=2)}, "model.num_layers 6 -> 2"),
        ({}, {"static_steps": 5}, "static_steps 0 -> 5"),
        ({"base_model": "a"}, {"base_model": "./a"}, 'base_model "a" -> "./a"'),
        ({"teacher": "a"}, {"teacher": "a", "distillation_weight": 1.0}, 'of distillation_weight "" -> "a"'),
    ],
)
def test_what_makes_another_checkpoint_is_fixed(old: dict[str, Any], new: dict[str, Any], named: str) -> None:
    (fixed, of_curve) = changed(old, new)
    assert len(fixed) == 1 and fixed[0].endswith(named)
    assert not [each for each in of_curve if not each.startswith("distillation_weight")]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"muon_lr": 0.003}, {"muon_lr": 0.001}, ["muon_lr 0.003 -> 0.001"]),
        ({"pairs": {"a": 1.0, "b": 2.0}}, {"pairs": {"a": 3.0}}, ["pairs.a 1.0 -> 3.0", "pairs.b 2.0 -> none"]),
        ({}, {"false_negative_margin": 0.1}, ["false_negative_margin none -> 0.1"]),
        ({}, {"passage_tokens": (64,)}, ["passage_tokens [48, 64, 96, 160] -> [64]"]),
        ({"teacher": "a"}, {"teacher": "b"}, ['teacher "a" -> "b"']),
        ({"base_model": "a"}, {"base_model": "a", "model": ModelShape(num_layers=2)}, []),
        ({}, {"max_steps": 5, "num_threads": 1, "output_dir": "elsewhere", "contrastive_backward": "split"}, []),
    ],
)
def test_what_changes_the_curve_alone_is_named(old: dict[str, Any], new: dict[str, Any], named: list[str]) -> None:
    assert changed(old, new) == ([], named)


def test_setting_that_did_not_exist_when_a_run_began_had_its_default() -> None:
    saved = json.loads(config_to_json(TrainConfig()))
    del saved["passages"], saved["warmup_steps"], saved["model"]["rope_theta"]
    saved["forgotten"] = 1
    assert changes(saved, TrainConfig()) == ([], [])
    assert changes(saved, TrainConfig(warmup_steps=7)) == ([], ["warmup_steps 50 -> 7"])
