"""WordPiece from a tokenizer.json: BERT, and the embedding models made of it.

A text becomes words (at spaces, around punctuation and Chinese characters) and a word the longest pieces that spell it,
or one unknown token. llama.cpp writes a piece that begins a word with ▁ and one that goes on without ##. The engine
does what llama.cpp does otherwise: it strips accents, and takes a word of more than 100 characters for unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.piece_table import NORMAL, UNKNOWN, PieceTable, describe, steps

_SETTINGS = {"clean_text": True, "handle_chinese_chars": True}


def read_wordpiece(path: Path, spec: dict[str, Any]) -> PieceTable:
    """Pieces of a WordPiece tokenizer.json.

    Raises: ValueError if it prepares texts in a way that llama.cpp does not.
    """
    model = spec["model"]
    if (prefix := model.get("continuing_subword_prefix", "##")) != "##":
        raise ValueError(f"{path}: continuing_subword_prefix {prefix!r} cannot be converted, only '##'")
    if (longest := model.get("max_input_chars_per_word", 100)) != 100:
        raise ValueError(f"{path}: max_input_chars_per_word {longest!r} cannot be converted, only 100")
    normalizers = steps(spec.get("normalizer"), "normalizers")
    splits = steps(spec.get("pre_tokenizer"), "pretokenizers")
    if [step["type"] for step in (*normalizers, *splits)] != ["BertNormalizer", "BertPreTokenizer"]:
        shown = " + ".join(describe(step) for step in (*normalizers, *splits)) or "nothing"
        raise ValueError(f"{path}: it prepares text by {shown}, which is not how BERT does")
    normalizer = normalizers[0]
    for key, fixed in _SETTINGS.items():
        if normalizer.get(key, fixed) != fixed:
            raise ValueError(f"{path}: {key} is {normalizer[key]!r}, llama.cpp reads texts with {fixed!r}")
    lowercase = bool(normalizer.get("lowercase", True))
    strips_accents = normalizer.get("strip_accents")
    whole = {token["id"] for token in spec.get("added_tokens") or []}
    pieces = {
        token_id: piece if token_id in whole else _as_llama_cpps(piece) for piece, token_id in model["vocab"].items()
    }
    unknown = model["vocab"][model.get("unk_token", "[UNK]")]
    return PieceTable(
        "bert",
        pieces,
        {token_id: UNKNOWN if token_id == unknown else NORMAL for token_id in pieces},
        closes=True,
        fields={
            "normalizer.lowercase": lowercase,
            "normalizer.strip_accents": lowercase if strips_accents is None else bool(strips_accents),
        },
    )


def _as_llama_cpps(piece: str) -> str:
    return piece[2:] if piece.startswith("##") and len(piece) > 2 else f"▁{piece}"
