"""LoRA (arXiv 2106.09685) and QLoRA (arXiv 2305.14314): a frozen base model with small trained matrices beside its own.

peft puts them into the model, whose class stays what it was. A checkpoint holds them twice: added to the base's
weights, as a model that any program loads, and by themselves in the run's state, from which it goes on. They are never
added to the model that trains, for taking them out again would leave rounding behind, and a resumed run another curve.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from training.config import TrainConfig

_NAME = "default"


def check_installed(config: TrainConfig) -> None:
    """Raises: ValueError if the recipe needs a package that is not here."""
    needed = ["peft"] * bool(config.lora_rank) + ["bitsandbytes"] * config.quantized_base
    missing = [each for each in needed if importlib.util.find_spec(each) is None]
    if missing:
        raise ValueError(f"no package {' and '.join(missing)}: run `pip install gritdesk[lora]`")


def loading(config: TrainConfig) -> dict[str, Any]:
    """How `from_pretrained` takes the base model: in 4 bits if the recipe says so, but for its head and embeddings."""
    if not config.quantized_base:
        return {}
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        )
    }


def load_adapted(config: TrainConfig) -> PreTrainedModel:
    """The base model, frozen, with adapters that change nothing yet.

    One that is not float32 is converted whole on each rank before it is sharded: 28 GB of main memory for 7B weights.
    """
    model = AutoModelForCausalLM.from_pretrained(config.base_model, dtype=torch.float32, **loading(config))
    add_adapters(model, config)
    return model


# ---------------------------------------------------------------- into the model


def add_adapters(model: PreTrainedModel, config: TrainConfig) -> None:
    """Freeze the model and put an adapter beside each target in its blocks; the same ones on all ranks.

    Raises: ValueError if a target is not there, or the base is to have 4 bits and cannot.
    """
    from peft import LoraConfig, inject_adapter_in_model

    modules, parameters = target_names(model, config.lora_targets)
    if config.quantized_base and any(_experts(model)):
        raise ValueError(
            "quantized_base is for models without experts: theirs are no linear layers and stay as they are"
        )
    torch.manual_seed(config.seed)
    model.requires_grad_(False)
    settings: dict[str, Any] = {"r": config.lora_rank, "lora_alpha": config.lora_alpha}
    if modules:
        inject_adapter_in_model(
            LoraConfig(target_modules=modules, lora_dropout=config.lora_dropout, **settings), model, _NAME
        )
        del model.peft_config  # or the second would warn of the first
    if parameters:  # which know no dropout
        inject_adapter_in_model(LoraConfig(target_modules=[], target_parameters=parameters, **settings), model, _NAME)


def target_names(model: PreTrainedModel, targets: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Full names of the linear layers in the blocks, and of the experts' matrices where a family keeps those of all
    experts in one parameter; of these, the ones that `targets` names by their last part, or all.

    The router of a mixture of experts is none of them.

    Raises: ValueError if a target is neither.
    """
    modules = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("model.layers.")
    ]
    parameters = list(_experts(model))
    known = {_last(name) for name in [*modules, *parameters]}
    if unknown := set(targets) - known:
        raise ValueError(
            f"lora_targets: no {', '.join(sorted(unknown))} in the blocks; there are {', '.join(sorted(known))}"
        )
    chosen = set(targets) or known
    return [name for name in modules if _last(name) in chosen], [name for name in parameters if _last(name) in chosen]


def _experts(model: PreTrainedModel) -> Iterator[str]:
    return (name for name, weight in model.named_parameters() if weight.ndim == 3 and name.startswith("model.layers."))


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


# ---------------------------------------------------------------- out of the model


def adapter_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of all weights of a model those of its adapters; none if it has none."""
    return {name: weight for name, weight in weights.items() if ".lora_" in name}


def restore_adapters(model: PreTrainedModel, saved: Mapping[str, Tensor]) -> None:
    """Give the adapters the weights that `adapter_weights` took out.

    Raises: ValueError if these are of other adapters.
    """
    own = adapter_weights(model.state_dict())
    if {name: weight.shape for name, weight in own.items()} != {name: weight.shape for name, weight in saved.items()}:
        raise ValueError(
            "the run has other adapters than the recipe: name another output, or its lora_rank and targets"
        )
    for name, weight in saved.items():
        own[name].copy_(weight)


def plain_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it would be without adapters and quantization, without weights: what `save_pretrained` describes."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = type(model)(config)
    plain.generation_config = model.generation_config
    return plain


def merged_weights(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `plain_model`: the base's, out of their 4 bits, with the adapters added.

    Args:
        weights: the model's, whole and on the CPU.
    """
    from peft.tuners.lora import LoraLayer

    merged = {_plain(name): weight for name, weight in weights.items() if _is_whole(name)}
    merged |= {_plain(f"{name}.weight"): weight for name, weight in _dequantized(model)}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            changed = _plain(f"{name}.{getattr(module, 'parameter_name', 'weight')}")
            merged[changed] = merged[changed] + _delta(module, name, weights)
    return merged


def _plain(name: str) -> str:
    return name.replace(".base_layer", "")


def _is_whole(name: str) -> bool:
    """Neither an adapter's nor one of the tables by which 4 bits are read, such as `q_proj.weight.absmax`."""
    return ".lora_" not in name and ".weight." not in name


def _dequantized(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    if getattr(model, "is_loaded_in_4bit", False):
        from bitsandbytes.functional import dequantize_4bit

        for name, module in model.named_modules():
            packed: Any = getattr(module, "weight", None)
            if hasattr(packed, "quant_state"):
                yield name, dequantize_4bit(packed.data, packed.quant_state).float().cpu()


def _delta(layer: Any, name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """What an adapter adds: scaling B A; of E experts, whose A and B lie side by side, for each its own."""
    a_RI, b_OR = (weights[f"{name}.lora_{each}.{_NAME}.weight"] for each in "AB")
    scaling: float = layer.scaling[_NAME]
    if not hasattr(layer, "num_experts"):
        return scaling * (b_OR @ a_RI)
    a_ERI = a_RI.reshape(layer.num_experts, -1, a_RI.shape[1])
    b_ORE = b_OR.reshape(b_OR.shape[0], -1, layer.num_experts)
    is_transposed = getattr(layer.get_base_layer(), "is_transposed", False)
    return scaling * torch.einsum("ore,eri->eio" if is_transposed else "ore,eri->eoi", b_ORE, a_ERI)
