"""A run that goes on, and a recipe that was changed since: what of the change may be, and what it is called."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from training.config import TrainConfig

_DISTILLED = "teacher of distillation_weight"

FIXED = frozenset(
    {
        *("base_model", "model", "quantized_base"),  # the weights themselves
        *("lora_rank", "lora_alpha", "lora_targets", "projection_dimension", "optimizer"),  # what lies beside them
        *("attention", "pooling", "passages"),  # config.json says how they are used, from the first step on
        # the model was made with them, and nobody looks at them again
        *("tokenizer_sample_mb", "token_embeddings_from"),
        *("static_steps", "static_batch_size", "static_lr", "static_temperature"),
        *("static_teacher", "static_teacher_texts", "static_distillation_weight"),
        _DISTILLED,
    }
)
"""Keys that a run keeps: with another value its weights would have other shapes, or its checkpoint say of them what is
not so."""

UNSEEN = frozenset(
    {
        *(
            "max_steps",
            "max_seconds",
            "output_dir",
            "data_dir",
        ),  # the command's own options: a run is lengthened, and moved
        *("log_every_steps", "save_every_steps", "keep_every_steps"),
        # how the same numbers are computed
        *("num_threads", "micro_batch_tokens", "compile_layers", "gradient_checkpointing", "contrastive_backward"),
        *("pack_generation", "batch_workers"),
    }
)
"""Keys that change nothing in a curve but its end, and are not spoken of.

All that is in neither set, such as learning rates, temperatures, weights of files and batch sizes, changes the curve
alone: a run is continued with other ones on purpose, and says so."""


def changes(saved: Mapping[str, Any], config: TrainConfig) -> tuple[list[str], list[str]]:
    """What a recipe changes: of the keys in FIXED, and of those which change the curve, each as "key old -> new".

    Args:
        saved: the run's training_config.json; a key that did not exist then had its default.
    """
    old, new = _settings(saved), _settings(dataclasses.asdict(config))
    fixed: list[str] = []
    of_curve: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        name = key.split(".")[0]
        unused = name == "model" and config.base_model
        if name in UNSEEN or unused or old.get(key) == new.get(key):
            continue
        (fixed if name in FIXED else of_curve).append(f"{key} {_spelled(old.get(key))} -> {_spelled(new.get(key))}")
    return fixed, of_curve


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them, those of tables by `table.key`; without what is no setting any more."""
    flat: dict[str, Any] = {}
    for name, default in dataclasses.asdict(TrainConfig()).items():
        value = values.get(name, default)
        if isinstance(default, dict):
            flat |= {f"{name}.{key}": each for key, each in (default | value).items()}
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    # a head has its dimension; a teacher of cosines alone may become another
    flat[_DISTILLED] = flat["teacher"] if flat["distillation_weight"] else ""
    return flat


def _spelled(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
