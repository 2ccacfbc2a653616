"""GGUF files under measurement: the one place where training/ reaches into the app's engine.

What people run is this file through this engine, so the engine is what is measured, rounding and limits included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import EngineConfig
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.llama import LlamaModel
from gritdesk.errors import GritDeskError
from gritdesk.records import EmbeddingInput
from training.embedders import visible


class GgufEmbedder:
    """A training.embedders.TextEmbedder on the app's engine, with the settings the app starts with."""

    def __init__(self, model: LlamaModel, num_threads: int = 0) -> None:
        self.model = model
        self.num_threads = num_threads
        self._embedder = Embedder(model, batch_tokens=EngineConfig().batch_tokens, n_threads=num_threads)
        self.dimension = self._embedder.dimension

    @classmethod
    def load(cls, path: Path, num_threads: int = 0) -> GgufEmbedder:
        """Raises: ValueError if the file cannot be used."""
        with engine_errors():
            return cls(LlamaModel(path, n_gpu_layers=EngineConfig().n_gpu_layers), num_threads)

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """See TextEmbedder."""
        with engine_errors():
            return self._embedder.embed([(instruction, visible(text)) for instruction, text in inputs])


@contextmanager
def engine_errors() -> Iterator[None]:
    """The app's errors as ValueError, as training/ raises them."""
    try:
        yield
    except GritDeskError as error:
        raise ValueError(str(error)) from error
