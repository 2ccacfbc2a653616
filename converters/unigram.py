"""SentencePiece unigram from a tokenizer.json: XLM-RoBERTa, and the embedding models made of it.

A text's characters are mapped by a table that the tokenizer carries, and which llama.cpp reads as it is; runs of spaces
become one ▁, with one in front; and of all pieces that spell the text those of the highest score are taken.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from converters.piece_table import NORMAL, UNKNOWN, PieceTable, describe, steps


def read_unigram(path: Path, spec: dict[str, Any]) -> PieceTable:
    """Pieces and scores of a unigram tokenizer.json.

    Raises: ValueError if it prepares texts in a way that llama.cpp does not.
    """
    model = spec["model"]
    if model.get("byte_fallback"):
        raise ValueError(f"{path}: a unigram tokenizer with byte fallback cannot be converted")
    pieces = {token_id: piece for token_id, (piece, _) in enumerate(model["vocab"])}
    if (unknown := model.get("unk_id")) not in pieces:
        raise ValueError(f"{path}: it has no unknown token, which llama.cpp needs")
    return PieceTable(
        "t5",  # llama.cpp's name for all unigram tokenizers
        pieces,
        {token_id: UNKNOWN if token_id == unknown else NORMAL for token_id in pieces},
        scores={token_id: float(score) for token_id, (_, score) in enumerate(model["vocab"])},
        add_space_prefix=True,
        closes=True,
        fields={"remove_extra_whitespaces": True, "precompiled_charsmap": _character_map(path, spec)},
    )


def _character_map(path: Path, spec: dict[str, Any]) -> bytes:
    """The table that maps characters; what else is done to a text must be how llama.cpp treats spaces."""
    normalizers = steps(spec.get("normalizer"), "normalizers")
    splits = steps(spec.get("pre_tokenizer"), "pretokenizers")
    maps = [step for step in normalizers if step["type"] == "Precompiled"]
    others = [step for step in normalizers if step["type"] not in ("Precompiled", "Replace", "Strip")]
    # which spaces it merges shows in the comparison of token ids: files of many versions say it in many ways
    if len(maps) != 1 or others or not splits or splits[-1]["type"] != "Metaspace":
        shown = " + ".join(describe(step) for step in (*normalizers, *splits)) or "nothing"
        raise ValueError(f"{path}: it prepares text by {shown}, which is not how XLM-RoBERTa does")
    try:
        return base64.b64decode(maps[0]["precompiled_charsmap"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{path}: its table of characters is damaged; copy it again") from error
