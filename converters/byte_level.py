"""Byte-level BPE from a tokenizer.json: GPT-2, Llama 3, Qwen, SmolLM.

A text is cut into words by a pre-tokenizer first, and llama.cpp knows those by name only. The rule owned here: the
name is found from the regular expression itself, and an unknown one is refused; under a wrong name most texts get
other token ids, without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.piece_table import NORMAL, PieceTable, describe, steps

_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MODERN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    _GPT2_WORDS: "gpt-2",
    _MODERN_WORDS.replace("DIGITS", "{1,3}"): "llama-bpe",
    _MODERN_WORDS.replace("DIGITS", ""): "qwen2",
}
"""Regular expression that cuts words -> llama.cpp's name for it."""
DIGITS = "smollm"
"""llama.cpp's name for digits taken one by one, and GPT-2's words in what lies between."""


def is_byte_level(spec: dict[str, Any]) -> bool:
    return any(step["type"] == "ByteLevel" for step in steps(spec.get("pre_tokenizer"), "pretokenizers"))


def read_byte_level(path: Path, spec: dict[str, Any]) -> PieceTable:
    """Pieces and merges of a byte-level tokenizer.json.

    Raises: ValueError if it cuts texts in a way that llama.cpp does not know.
    """
    model = spec["model"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ValueError(f"{path}: {key} {model[key]!r} cannot be converted")
    pieces = {token_id: piece for piece, token_id in model["vocab"].items()}
    return PieceTable(
        "gpt2",
        pieces,
        dict.fromkeys(pieces, NORMAL),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]),
        pre=pre_tokenizer_name(path, spec),
    )


def pre_tokenizer_name(path: Path, spec: dict[str, Any]) -> str:
    """llama.cpp's name for the way a byte-level tokenizer.json cuts words.

    Raises: ValueError that shows what is unknown.
    """
    normalizers = [step["type"] for step in steps(spec.get("normalizer"), "normalizers")]
    *splits, last = steps(spec["pre_tokenizer"], "pretokenizers")
    name = None
    if last["type"] == "ByteLevel" and not last.get("add_prefix_space"):
        if not splits and last.get("use_regex", True):
            name = "gpt-2"
        elif len(splits) == 1 and _splits_digits(splits[0]) and last.get("use_regex", True):
            name = DIGITS
        elif len(splits) == 1 and _splits_words(splits[0]) and not last.get("use_regex", True):
            name = PRE_TOKENIZERS.get(splits[0]["pattern"].get("Regex", ""))
    # Qwen2 composes characters first (NFC) and llama.cpp does not; nearly all text is composed already.
    if name is None or normalizers not in ([], ["NFC"] if name == "qwen2" else []):
        shown = " + ".join([*normalizers, *(describe(step) for step in (*splits, last))])
        raise ValueError(
            f"{path}: pre-tokenizer {shown} is unknown; known: {', '.join((*PRE_TOKENIZERS.values(), DIGITS))}"
        )
    return name


def _splits_words(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert")


def _splits_digits(step: dict[str, Any]) -> bool:
    """Several digits together are a kind that llama.cpp does not know."""
    return bool(step["type"] == "Digits" and step.get("individual_digits"))
