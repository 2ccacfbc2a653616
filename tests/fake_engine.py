"""Stands in for the model: a text's embedding is a sum of pseudo-random vectors of its words, a token is a word."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.errors import ExtractError
from gritdesk.records import Document, EmbeddingInput

DIMENSION = 16


class FakeEngine:
    def __init__(self) -> None:
        self.texts_embedded: list[str] = []

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        self.texts_embedded += [text for _, text in inputs]
        return np.stack([_embedding(text) for _, text in inputs])

    def embed_query(self, question: str) -> NDArray[np.float32]:
        return self.embed([("", question)])[0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def read_plain(path: Path) -> Document:
    """A reader of UTF-8 text in this process; a file that says so fails."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ExtractError(f"cannot be read: {error.strerror}") from error
    if text.startswith("broken"):
        raise ExtractError("it is broken")
    return Document(path, text, "text")


def _embedding(text: str) -> NDArray[np.float32]:
    words = [word.strip(".,?!").lower() for word in text.split()]
    embedding = sum((_word_vector(word) for word in words), np.zeros(DIMENSION, np.float32))
    return (embedding / np.linalg.norm(embedding)).astype(np.float32)


def _word_vector(word: str) -> NDArray[np.float32]:
    digest = hashlib.blake2b(word.encode(), digest_size=DIMENSION).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
