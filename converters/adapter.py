"""A PEFT adapter and the checkpoint it was trained beside -> one checkpoint, with the adapter in each of its weights.

Weights are merged as they are read, one at a time, in float32: neither the model nor the merged one is ever held.
What an adapter may do beyond LoRA is long and grows; whatever is not computed here is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.checkpoint import Array, Checkpoint, read_header, read_json
from converters.pickled import read_pickled
from converters.stored import StoredTensor

CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_MERGE_WITH_PEFT = "merge it with peft's merge_and_unload and convert what that saves"
_REFUSED_SETTINGS = (
    *("alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication"),
    *("megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora"),
    *("use_qalora", "velora_config"),
)
"""Settings of LoraConfig under which an adapter is not scale * B A, or its base not the base. fan_in_fan_out is for
weights that lie the other way round, as no family has them that can be converted."""
_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base as it is; others take from it what the adapter begins with."""
_PART = re.compile(r"(.+?)\.lora_(embedding_)?(A|B|magnitude_vector)(\.weight|\.bias)?")
_PARTS = {"A.weight": "a", "B.weight": "b", "B.bias": "bias", "magnitude_vector": "magnitude"}
_PARTS |= {"magnitude_vector.weight": "magnitude", "embedding_A": "embedding_a", "embedding_B": "embedding_b"}


@dataclass(frozen=True)
class _Module:
    """What an adapter adds to one weight."""

    parts: Mapping[str, str]
    """Names in the adapter's file, by _PARTS."""
    scale: float

    @property
    def is_embedding(self) -> bool:
        return "embedding_a" in self.parts

    @property
    def pair(self) -> tuple[str, str]:
        """Names of A and B."""
        kind = "embedding_" if self.is_embedding else ""
        return self.parts[f"{kind}a"], self.parts[f"{kind}b"]


@dataclass(frozen=True)
class MergedCheckpoint(Checkpoint):
    """The base, whose weights come with the adapter in them; those the adapter has of its own are among `tensors`."""

    adapter: Checkpoint
    modules: Mapping[str, _Module]
    """By the name of the base's weight; under that of a bias, what is added to this."""

    @property
    def tokenizer_folder(self) -> Path:
        """The adapter's, where it was saved with one."""
        has_own = any((self.adapter.folder / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
        return self.adapter.folder if has_own else self.folder

    @property
    def name(self) -> str:
        """See Checkpoint."""
        return self.adapter.name

    def read(self, name: str) -> Array:
        """See Checkpoint."""
        weight = super().read(name)
        return self._merged(name, weight, module) if (module := self.modules.get(name)) else weight

    def _merged(self, name: str, weight: Array, module: _Module) -> Array:
        """The weight with what the adapter adds; under DoRA each row then has the length the adapter says.

        Source: LoRA (arXiv 2106.09685), section 4.1; DoRA (arXiv 2402.09353), equation 5.
        """
        scale = np.float32(module.scale)
        if name.endswith(".bias"):
            return weight + scale * self.adapter.read(module.parts["bias"])
        a_RI, b_OR = (self.adapter.read(each) for each in module.pair)
        added = b_OR @ a_RI * scale
        merged: Array = weight + (added.T if module.is_embedding else added)
        if magnitude := module.parts.get("magnitude"):
            lengths = np.linalg.norm(merged, axis=1)
            if not lengths.all():
                raise ValueError(f"{self.adapter.folder}: a row of {name} is all zeros, which DoRA gives no direction")
            merged = merged * (self.adapter.read(magnitude).reshape(-1) / lengths)[:, None]
        return merged


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter of PEFT's."""
    return (folder / CONFIG_FILE).is_file()


def open_checkpoint(folder: Path, base: Path | None = None) -> Checkpoint:
    """A checkpoint folder, or an adapter's with its base; no weight is read yet.

    Args:
        base: folder of the checkpoint that an adapter was trained beside, if it is not where the adapter says.
    Raises: ValueError in one line if a file is missing or damaged, or the adapter does what is not computed here.
    """
    if not is_adapter(folder):
        if base is not None:
            raise ValueError(f"{folder} has no {CONFIG_FILE}, so it is no adapter that has a base; leave --base out")
        return Checkpoint.open(folder)
    settings = read_json(folder / CONFIG_FILE)
    _check_settings(folder, settings)
    plain = Checkpoint.open(_base_folder(folder, settings, base))
    adapter = Checkpoint(folder, settings, _adapter_tensors(folder))
    return _joined(plain, adapter)


def _base_folder(folder: Path, settings: dict[str, Any], base: Path | None) -> Path:
    """Where the base is: as given, beside the adapter's files, or where adapter_config.json says."""
    if base is not None:
        return base
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        return folder
    said = settings.get("base_model_name_or_path")
    for found in (folder / str(said), Path(str(said))) if said else ():
        if found.is_dir():
            return found
    raise ValueError(f"{folder} is an adapter whose base {said!r} is no folder here; give the base with --base")


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{folder}: an adapter of the kind {kind} cannot be merged, only LORA; {_MERGE_WITH_PEFT}")
    for name in _REFUSED_SETTINGS:
        if settings.get(name):
            raise ValueError(f"{folder / CONFIG_FILE}: {name} is set, which is not computed here; {_MERGE_WITH_PEFT}")
    beginning = settings.get("init_lora_weights")
    if beginning not in _PLAIN_BEGINNINGS:
        raise ValueError(
            f"{folder / CONFIG_FILE}: init_lora_weights is {beginning!r}, which changes the base; {_MERGE_WITH_PEFT}"
        )


def _adapter_tensors(folder: Path) -> dict[str, StoredTensor]:
    if not (folder / WEIGHTS_FILE).exists() and (folder / PICKLED_FILE).exists():
        return read_pickled(folder / PICKLED_FILE)
    if not (folder / WEIGHTS_FILE).exists():
        raise ValueError(f"{folder} has {CONFIG_FILE}, but no {WEIGHTS_FILE}; copy the adapter again")
    return read_header(folder / WEIGHTS_FILE)


def _joined(base: Checkpoint, adapter: Checkpoint) -> MergedCheckpoint:
    """Find the base's weight for each of the adapter's tensors.

    Raises: ValueError naming the tensor that has none, or does not fit.
    """
    parts: dict[str, dict[str, str]] = {}
    tensors = dict(base.tensors)
    config = dict(base.config)
    for name in sorted(adapter.tensors):
        inner = name.removeprefix(_PREFIX)
        if found := _PART.fullmatch(inner):
            module, kind, letter, ending = (each or "" for each in found.groups())
            part = _PARTS.get(f"{kind}{letter}{ending}")
        else:
            module, part = "", None if ".lora_" in inner else "own"
        if inner == name or part is None:
            raise ValueError(f"{adapter.folder}: tensor {name} is not known in an adapter; {_MERGE_WITH_PEFT}")
        if part != "own":
            parts.setdefault(module, {})[part] = name
            continue
        weight = _name_in(base, adapter, inner.replace(".base_layer.", ".").replace(".modules_to_save.", "."))
        tensors[weight] = adapter.tensors[name]
        if weight.endswith("embed_tokens.weight"):  # a vocabulary that grew has its rows here
            config["vocab_size"] = adapter.tensors[name].shape[0]
    modules = {}
    for name, found_parts in parts.items():
        weight = _name_in(base, adapter, f"{name}.weight")
        modules[weight] = _Module(found_parts, _scale(adapter, name, found_parts))
        _check_shapes(tensors[weight].shape, adapter, name, modules[weight])
        if "bias" in found_parts:
            modules[_name_in(base, adapter, f"{name}.bias")] = modules[weight]
    _check_tied(base, adapter, modules)
    return MergedCheckpoint(base.folder, config, tensors, adapter, modules)


def _name_in(base: Checkpoint, adapter: Checkpoint, name: str) -> str:
    """What the base calls a weight; a model with a head has one more name before those of its body."""
    if name in base.tensors:
        return name
    found = [each for each in base.tensors if each.endswith(f".{name}") or name.endswith(f".{each}")]
    if len(found) != 1:
        raise ValueError(
            f"{adapter.folder} changes {name}, which the base {base.folder} does not have; is it the adapter's base?"
        )
    return found[0]


def _scale(adapter: Checkpoint, module: str, parts: Mapping[str, str]) -> float:
    """By how much B A is multiplied. Source: rsLoRA (arXiv 2312.03732) for the root of the rank."""
    settings = adapter.config
    rank, alpha = (
        _for_module(settings.get(f"{key}_pattern") or {}, module, settings.get(name))
        for key, name in (("rank", "r"), ("alpha", "lora_alpha"))
    )
    for key, value in (("r", rank), ("lora_alpha", alpha)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"{adapter.folder / CONFIG_FILE}: {key} of {module} must be positive, found {value!r}")
    first = parts.get("a") or parts.get("embedding_a")
    if first is None or adapter.tensors[first].shape[0] != rank:
        found = f"of rank {adapter.tensors[first].shape[0]}" if first else "without its matrix A"
        raise ValueError(f"{adapter.folder}: {module} is {found}, {CONFIG_FILE} says {rank}; copy the adapter again")
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _for_module(pattern: dict[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that fits the end of a module's path, as peft matches them."""
    try:
        return next((value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", module)), default)
    except (AttributeError, re.error) as error:
        raise ValueError(f"{CONFIG_FILE}: a pattern of ranks or scales cannot be read: {error}") from error


def _check_shapes(shape: tuple[int, ...], adapter: Checkpoint, name: str, module: _Module) -> None:
    """Raises: ValueError unless all parts are there and what they make fits the weight."""
    kind = "embedding_" if module.is_embedding else ""
    lacking = {f"{kind}a", f"{kind}b"} - module.parts.keys()
    if bool(adapter.config.get("use_dora")) != ("magnitude" in module.parts):
        lacking.add("magnitude, or use_dora,")
    if module.is_embedding and "magnitude" in module.parts:
        raise ValueError(f"{adapter.folder}: DoRA of the embedding {name} is not computed here; {_MERGE_WITH_PEFT}")
    if lacking:
        raise ValueError(f"{adapter.folder}: {name} lacks its {min(lacking)}; copy the adapter again")
    a_shape, b_shape = (adapter.tensors[each].shape for each in module.pair)
    made = (*b_shape[:-1], *a_shape[1:])
    made = made[::-1] if module.is_embedding else made
    magnitude = adapter.tensors[module.parts["magnitude"]].shape if "magnitude" in module.parts else shape[:1]
    if made != shape or a_shape[:1] != b_shape[-1:] or math.prod(magnitude) != shape[0]:
        raise ValueError(
            f"{adapter.folder}: {name} of the base has shape {list(shape)}, the adapter's is {list(made)}; "
            "is it the adapter's base?"
        )


def _check_tied(base: Checkpoint, adapter: Checkpoint, modules: Mapping[str, _Module]) -> None:
    """Raises: ValueError if one matrix in two places would be two matrices, which the file has no room for."""
    if "model.embed_tokens.weight" not in base.tensors or "lm_head.weight" in base.tensors:
        return
    copied = map(str, adapter.config.get("modules_to_save") or ())
    is_copied = any(name.endswith(("embed_tokens", "lm_head")) for name in copied)
    if is_copied or "model.embed_tokens.weight" in modules:
        raise ValueError(
            f"{adapter.folder} changes the embeddings of a base that has them as its output matrix too; "
            f"{_MERGE_WITH_PEFT} untied"
        )
