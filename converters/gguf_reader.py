"""A GGUF under comparison: the one place where converters/ reaches into the app's engine.

What people run is this file through this engine, so the engine is what is compared. Its cache is kept in float32
here, which people do not do: half floats differ by more than an exact conversion does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFReader, LlamaFileType
from gguf.quants import dequantize
from numpy.typing import NDArray

from gritdesk.engine.llama import EmbeddingContext, GenerationContext, LlamaModel

MAX_TOKENS = 512
"""Of one text: what the app embeds in one call."""


class GgufReader:
    """A converters.comparison.Reader of a GGUF file. Raises: GritDeskError, as the engine does."""

    def __init__(self, path: Path) -> None:
        self.model = LlamaModel(path)
        self.name = str(path)
        self.quantization_type = _file_type(self.model.metadata.get("general.file_type"))
        self.grit = self.model.grit
        self.n_vocab = self.model.n_vocab
        self.max_tokens = min(MAX_TOKENS, self.model.n_ctx_train)
        self.pre = str(self.model.metadata.get("tokenizer.ggml.pre", "none"))
        self.tokenize = self.model.tokenize
        self.control_id = self.model.control_id
        self._tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        self._embedding = EmbeddingContext(self.model, batch_tokens=MAX_TOKENS, kv_type="f32")
        self.max_embedded_tokens = self._embedding.max_tokens
        self._generation: GenerationContext | None = None
        if self.grit.generates:
            self._generation = GenerationContext(self.model, n_ctx=MAX_TOKENS, kv_type="f32")

    def hidden_states(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See Reader."""
        return self._embedding.hidden_states([ids])[0]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See Reader."""
        assert self._generation is not None, f"{self.name} only embeds"
        return np.concatenate(list(self._generation.every_logits(ids)))

    def types(self) -> dict[str, str]:
        """See converters.weights.Weights."""
        return {name: str(tensor.tensor_type.name) for name, tensor in self._tensors.items()}

    def weight(self, name: str) -> NDArray[np.float32]:
        """See converters.weights.Weights."""
        tensor = self._tensors[name]
        values: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
        return values


def _file_type(number: object) -> str:
    try:
        name = str(LlamaFileType(int(str(number))).name)
    except ValueError:
        return "unknown"
    return name.removeprefix("ALL_").removeprefix("MOSTLY_")
