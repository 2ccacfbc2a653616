"""How a store keeps a text but once: a chunk has its own and the gap before it, the document what follows the last."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gritdesk.records import Chunk, Document


def gaps_of(document: Document, chunks: Sequence[Chunk]) -> tuple[list[str], str]:
    """The text before each chunk that no chunk holds, and the text after the last."""
    gaps = []
    end = 0
    for chunk in chunks:
        assert chunk.char_start >= end and document.text[chunk.char_start : chunk.char_end] == chunk.text, chunk
        gaps.append(document.text[end : chunk.char_start])
        end = chunk.char_end
    return gaps, document.text[end:]


def text_hash_of(text: bytes) -> bytes:
    """What `integrity` compares the joined text with, 16 bytes."""
    return hashlib.blake2b(text, digest_size=16).digest()
