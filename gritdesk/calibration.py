"""A person's own files -> texts to weigh a model's columns by: the passages that it will read and embed later."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from gritdesk.chunking import split
from gritdesk.errors import ConfigError, ExtractError
from gritdesk.extract.worker import Reader
from gritdesk.walking import Walk

_MAX_FILES = 2000
_MAX_FILE_BYTES = 20_000_000


def calibration_texts(path: Path, num_texts: int = 256, seed: int = 0) -> list[str]:
    """Passages drawn from all files below a folder, or from one file; the same ones each time.

    Args:
        num_texts: passages at most; a few hundred are enough for means of columns.
    Raises: ConfigError if nothing is there, or no file holds text.
    """
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}; give a folder or a file of texts")
    draw = random.Random(seed)
    files = [file for file, _ in Walk(path).files()]
    of_one_file = max(num_texts // 8, num_texts // max(1, len(files)))  # of many files, none speaks for all
    passages: list[str] = []
    with Reader(_MAX_FILE_BYTES) as reader:
        for file in draw.sample(files, min(len(files), _MAX_FILES)):
            try:
                document = reader.read(file)
            except ExtractError:
                continue  # what cannot be read is left out of a sample
            found = [chunk.text for chunk in split(document, _rough_tokens)]
            passages += draw.sample(found, min(len(found), of_one_file))
            if len(passages) >= 4 * num_texts:
                break
    if not passages:
        raise ConfigError(f"no file at {path} holds text that can be read; give a folder of documents")
    return draw.sample(passages, min(len(passages), num_texts))


def _rough_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens as most vocabularies have them, before there is a model to ask."""
    return [len(text.encode()) // 4 + 1 for text in texts]
