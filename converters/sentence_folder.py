"""What a sentence-transformers folder adds to a checkpoint: pooling, normalization, prompts, a longest text.

modules.json lists the parts that make an embedding. Those that llama.cpp and the engine compute are a Transformer, a
Pooling (mean or cls) and a Normalize; every other is refused by name. A folder of transformers has no modules.json, and
is pooled by mean, as sentence-transformers itself does with such a folder. A decoder's folder must ask for what GRIT
does: its prompts are GRIT's frames, which are not pooled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from converters.checkpoint import read_json
from gritdesk.grit_format import EMBED, Pooling

_KNOWN = ("Transformer", "Pooling", "Normalize")
_PASSAGE_NAMES = ("document", "passage", "corpus")
"""Names of the prompt of a passage, in the order in which sentence-transformers looks for them."""


@dataclass(frozen=True)
class SentenceSettings:
    pooling: Pooling = "mean"
    query_prompt: str = ""
    passage_prompt: str = ""
    max_tokens: int | None = None
    """Of a text with its control tokens; None for as many as the model has positions."""
    lowercases: bool = False
    """Texts become lowercase before the tokenizer sees them."""


def read_sentence_settings(folder: Path, hidden: int, *, is_encoder: bool = True) -> SentenceSettings:
    """The settings of a folder, or the default ones where it has no modules.json.

    Raises: ValueError naming the module or setting that cannot be converted.
    """
    max_tokens = _max_tokens(folder)
    if not (folder / "modules.json").exists():
        return SentenceSettings(max_tokens=max_tokens)
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    for kind in kinds:
        if kind not in _KNOWN:
            raise ValueError(f"{folder}: the module {kind} cannot be converted; known: {', '.join(_KNOWN)}")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(f"{folder}: modules.json lists {', '.join(kinds)}; expected {', '.join(_KNOWN)}")
    if path := modules[0][1]:
        raise ValueError(f"{folder}: its Transformer lies in {path}; save it again with sentence-transformers")
    stated = _optional(folder / "config_sentence_transformers.json")
    if "Normalize" not in kinds and (measure := stated.get("similarity_fn_name") or "cosine") != "cosine":
        raise ValueError(
            f"{folder}: similarity_fn_name is {measure!r} of embeddings that are not normalized; gritdesk compares "
            "normalized ones"
        )
    query_prompt, passage_prompt = _prompts(folder, stated)
    pooling_file, has_prompts = folder / modules[1][1] / "config.json", bool(query_prompt or passage_prompt)
    if is_encoder:
        pooling = _pooling(pooling_file, hidden, pools_prompt=True if has_prompts else None)
    else:
        pooling = _pooling(pooling_file, hidden, pools_prompt=False if has_prompts else None)
        _check_grit(folder, pooling, (query_prompt, passage_prompt))
    return SentenceSettings(
        pooling,
        query_prompt,
        passage_prompt,
        max_tokens=max_tokens,
        lowercases=bool(_optional(folder / "sentence_bert_config.json").get("do_lower_case")),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Class name and folder of each module."""
    try:
        entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [(str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'modules.json'} is no list of modules ({error!r}); copy it again") from error


def _max_tokens(folder: Path) -> int | None:
    """Length at which texts are cut; newer versions keep it with the tokenizer."""
    stated = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
    for name, key in stated:
        found = _optional(folder / name).get(key)
        if isinstance(found, int) and found > 2:  # a text, and what it stands between
            return found
    return None


def _check_grit(folder: Path, pooling: Pooling, prompts: tuple[str, str]) -> None:
    """Raises: ValueError unless a decoder embeds as GRIT does."""
    if pooling != "mean":
        raise ValueError(f"{folder}: it pools by {pooling}; a decoder's texts are pooled by mean, as GRIT does")
    for prompt in prompts:
        if prompt and EMBED not in prompt:
            raise ValueError(f"{folder}: its prompt {prompt!r} is none of GRIT's, which end in {EMBED}")


def _pooling(path: Path, hidden: int, *, pools_prompt: bool | None) -> Pooling:
    """How a text's tokens become one; `pools_prompt` says whether those of its prompt must count, None for no prompt.

    Raises: ValueError if that is none of what the engine computes.
    """
    config = read_json(path)
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    modes = modes if isinstance(modes, list) else [modes]
    mode = " with ".join(map(str, modes or ["mean"])).replace("cls_token", "cls").replace("mean_tokens", "mean")
    if mode not in get_args(Pooling):
        raise ValueError(f"{path}: pooling {mode} cannot be converted; known: {', '.join(get_args(Pooling))}")
    width = config.get("embedding_dimension", config.get("word_embedding_dimension", hidden))
    if width != hidden:
        raise ValueError(f"{path}: it pools {width!r} dimensions, the model has {hidden}")
    included = bool(config.get("include_prompt", True))
    if mode == "mean" and pools_prompt is not None and included != pools_prompt:
        how = "pooling without the prompt cannot" if pools_prompt else "a decoder that pools its prompt cannot"
        raise ValueError(f"{path}: include_prompt is {str(included).lower()}; {how} be converted")
    found: Pooling = "cls" if mode == "cls" else "mean"
    return found


def _prompts(folder: Path, stated: dict[str, Any]) -> tuple[str, str]:
    """What stands before a query and before a passage."""
    prompts = stated.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(each, str) for each in prompts.values()):
        raise ValueError(f"{folder}: prompts in config_sentence_transformers.json must be texts by name")
    default = prompts.get(stated.get("default_prompt_name") or "", "")
    passage = next((prompts[name] for name in _PASSAGE_NAMES if name in prompts), default)
    return str(prompts.get("query", default)), str(passage)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
