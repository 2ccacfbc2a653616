"""What every kind of tokenizer is read into: pieces by id, before the checkpoint's special tokens are laid over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from converters.architectures.base import Fields

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Token types of a GGUF."""


@dataclass(frozen=True)
class PieceTable:
    model: str
    """llama.cpp's name: "gpt2" for byte-level BPE, "llama" for SentencePiece BPE, "bert" for WordPiece, "t5" for
    SentencePiece unigram."""
    pieces: dict[int, str]
    types: dict[int, int]
    merges: tuple[str, ...] = ()
    """Of byte-level BPE, first merge first; the two sides are divided by a space."""
    scores: dict[int, float] | None = None
    """Of SentencePiece; the larger merges first, or of unigram the larger sum is taken."""
    pre: str = "default"
    add_space_prefix: bool = False
    bos_id: int | None = None
    eos_id: int | None = None
    closes: bool = False
    """A text is put between two control tokens, and not only behind one."""
    fields: Fields = field(default_factory=dict)
    """GGUF keys of this kind alone, without `tokenizer.ggml.` in front."""


def steps(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer in tokenizer.json: a Sequence's, or the one, or none."""
    if not step:
        return []
    return list(step[key]) if step.get("type") == "Sequence" else [step]


def describe(step: dict[str, Any]) -> str:
    """A step as an error message shows it."""
    pattern = (step.get("pattern") or {}).get("Regex", "")
    return f"{step['type']}({pattern})" if pattern else str(step["type"])
