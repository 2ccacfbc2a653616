"""SentencePiece BPE, from its own tokenizer.model or from a tokenizer.json made of one: Llama 1 and 2, Mistral, Gemma.

llama.cpp merges by a score per piece, and prepares a text by one thing only: spaces become ▁, with perhaps one in
front. A tokenizer that does more to a text is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converters.piece_table import BYTE, CONTROL, NORMAL, UNKNOWN, PieceTable, describe, steps
from converters.sentencepiece_model import BPE, read_sentencepiece
from gritdesk.grit_format import BOS, EOS

_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def read_sentencepiece_model(path: Path) -> PieceTable:
    """Pieces and scores of a tokenizer.model.

    Raises: ValueError if it is of another kind, or prepares texts in a way that llama.cpp does not.
    """
    model = read_sentencepiece(path)
    if model.model_type != BPE:
        raise ValueError(f"{path}: only SentencePiece BPE models can be converted, this is of type {model.model_type}")
    if model.normalizes or model.remove_extra_whitespaces:
        raise ValueError(f"{path}: it changes characters or spaces before it cuts them, which llama.cpp does not")
    _require_bytes(path, model.pieces)
    return PieceTable(
        "llama",
        dict(enumerate(model.pieces)),
        dict(enumerate(model.types)),
        scores=dict(enumerate(model.scores)),
        add_space_prefix=model.add_space_prefix,
        bos_id=None if model.bos_id < 0 else model.bos_id,
        eos_id=None if model.eos_id < 0 else model.eos_id,
    )


def read_sentencepiece_json(path: Path, spec: dict[str, Any]) -> PieceTable:
    """Pieces and scores of a tokenizer.json: a piece's score is minus the rank of its first merge.

    Raises: ValueError as above.
    """
    model = spec["model"]
    if not model.get("byte_fallback"):
        raise ValueError(f"{path}: neither byte-level nor with byte fallback; such a tokenizer cannot be converted")
    _require_bytes(path, model["vocab"])
    rank: dict[str, int] = {}
    for position, merge in enumerate(model["merges"]):
        rank.setdefault(merge.replace(" ", "") if isinstance(merge, str) else "".join(merge), position)
    pieces = {token_id: piece for piece, token_id in model["vocab"].items()}
    return PieceTable(
        "llama",
        pieces,
        {token_id: _piece_type(piece, model.get("unk_token")) for token_id, piece in pieces.items()},
        scores={token_id: -float(rank.get(piece, len(rank))) for token_id, piece in pieces.items()},
        add_space_prefix=_adds_space_prefix(path, spec),
    )


def _piece_type(piece: str, unknown: str | None) -> int:
    if piece == unknown:
        return UNKNOWN
    if piece in (BOS, EOS):
        return CONTROL
    return BYTE if piece in _BYTE_PIECES else NORMAL


def _adds_space_prefix(path: Path, spec: dict[str, Any]) -> bool:
    """Whether a space is put before the text; spaces must become ▁ and nothing else may change."""
    normalizers = steps(spec.get("normalizer"), "normalizers")
    splits = steps(spec.get("pre_tokenizer"), "pretokenizers")
    prepends = [step for step in normalizers if step["type"] == "Prepend"]
    replaces = [step for step in normalizers if step["type"] == "Replace" and step.get("content") == "▁"]
    if len(splits) == 1 and splits[0]["type"] == "Metaspace" and not normalizers:
        return bool(splits[0].get("prepend_scheme", "always") != "never")
    if len(splits) == 1 and _splits_at(splits[0], " ") and replaces == normalizers[-1:]:
        splits = []  # Gemma's: no space is left by then to split at
    if not splits and len(replaces) == 1 and len(prepends) <= 1 and len(normalizers) == len(replaces) + len(prepends):
        return bool(prepends)
    shown = " + ".join(describe(step) for step in (*normalizers, *splits)) or "nothing"
    raise ValueError(f"{path}: it prepares text by {shown}, which is not how SentencePiece models do")


def _splits_at(step: dict[str, Any], text: str) -> bool:
    return step["type"] == "Split" and (step.get("pattern") or {}).get("String") == text


def _require_bytes(path: Path, pieces: Iterable[str]) -> None:
    """llama.cpp aborts on a character that neither a piece nor bytes can spell."""
    if missing := _BYTE_PIECES.difference(pieces):
        raise ValueError(f"{path}: it has no piece {min(missing)} for a single byte; retrain it with byte fallback")
