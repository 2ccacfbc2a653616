"""GGUF files under measurement: the one place where training/ reaches into the app's engine.

What people run is this file through this engine, so the engine is what is measured, rounding and limits included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.config import EngineConfig
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import LlamaModel
from gritdesk.records import EmbeddingInput, Sampling, Turn
from training.app_errors import app_errors
from training.embedders import visible
from training.writers import MAX_CONTEXT, GritFrames, TokenNats


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
        with app_errors():
            return cls(LlamaModel(path, n_gpu_layers=EngineConfig().n_gpu_layers), num_threads)

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """See TextEmbedder."""
        with app_errors():
            return self._embedder.embed([(instruction, visible(text)) for instruction, text in inputs])

    def writer(self) -> GgufWriter:
        """The writer on the same weights."""
        with app_errors():
            return GgufWriter(self.model, self.num_threads)


class GgufWriter(GritFrames):
    """A training.writers.AnswerWriter on the app's engine. The penalty for repeated words, a setting of the app and
    not of the model, is off."""

    def __init__(self, model: LlamaModel, num_threads: int = 0) -> None:
        # no passage of a prompt that fits is cut, so that both writers read the same
        self._generator = Generator(model, n_ctx=MAX_CONTEXT, n_threads=num_threads, block_tokens=MAX_CONTEXT)
        self.frame_tokenizer = model
        self.markers = model.grit.markers
        self.passages = model.grit.passages
        self.context_length = self._generator.n_ctx

    def token_nats(self, ids: Sequence[int]) -> TokenNats:
        nats, is_best = [], []
        with app_errors():
            targets = list(ids[1:])
            for logits_TV in self._generator.context.every_logits(ids[:-1]):
                now, targets = targets[: len(logits_TV)], targets[len(logits_TV) :]
                picked_T = logits_TV[np.arange(len(now)), now].astype(np.float64)
                nats.append(_log_sum_exp(logits_TV) - picked_T)
                is_best.append(logits_TV.argmax(axis=1) == now)
        return np.concatenate(nats), np.concatenate(is_best)

    def next_nats(self, ids: Sequence[int]) -> NDArray[np.float64]:
        with app_errors():
            logits_1V = self._generator.context.prefill(ids)[None]
        found: NDArray[np.float64] = _log_sum_exp(logits_1V)[0] - logits_1V[0].astype(np.float64)
        return found

    def write(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str]) -> str:
        text = ""
        with app_errors():
            for piece in self._generator.stream(turns, Sampling(max_tokens=max_tokens, repeat_penalty=1.0)):
                text += piece
                if any(stop in text for stop in stops):
                    break
        return text


def _log_sum_exp(logits_TV: NDArray[np.float32]) -> NDArray[np.float64]:
    highest_T1 = logits_TV.max(axis=1, keepdims=True).astype(np.float64)
    sums: NDArray[np.float64] = np.log(np.exp(logits_TV - highest_T1).sum(axis=1)) + highest_T1[:, 0]
    return sums
