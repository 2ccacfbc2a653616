"""Question -> evidence -> prompt -> pieces -> a finished, cited answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gritdesk import citing, prompting, supporting
from gritdesk.config import AnswerConfig
from gritdesk.engine.wire import Priority
from gritdesk.grit_format import REFUSAL
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    EmbeddingInput,
    EvidenceFound,
    Hit,
    PieceGenerated,
    Sampling,
    Turn,
)

_MAX_BLANK_PIECES = 8
"""A model that goes on with nothing but white space has no more to say."""
_MAX_CHECK_S = 3.0
"""A person has read the answer by then; what is not compared in meaning is compared by words alone."""


class AnswerEngine(Protocol):
    """What an answer needs of the engine; engine.host.EngineHost has it."""

    def count_prompt_tokens(self, turns: Sequence[Turn]) -> int: ...

    def embed(
        self, inputs: Sequence[EmbeddingInput], *, priority: Priority, timeout_s: float | None
    ) -> NDArray[np.float32]:
        """Raises: ModelError if it cannot, or not in time."""
        ...

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[object]:
        """Pieces of text; anything else that comes has a `reason` and voids the pieces before it."""
        ...


class Answerer:
    """Joins retrieval, prompt and generation; holds no state between questions."""

    def __init__(
        self,
        search: Callable[[str], Sequence[Hit]],
        engine: AnswerEngine,
        n_ctx: int,
        config: AnswerConfig,
    ) -> None:
        self._search = search
        self._engine = engine
        self._n_ctx = n_ctx
        self._sampling = Sampling(
            max_tokens=min(config.max_tokens, n_ctx // 2),
            temperature=config.temperature,
            repeat_penalty=config.repeat_penalty,
        )

    def answer(
        self, question: str, history: Sequence[Turn] = (), is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[AnswerEvent]:
        """Stream one answer; the last event is AnswerFinished, also when it was stopped.

        Raises: ContextOverflow if the question does not fit; ModelError if the engine refuses the prompt.
        """
        started = time.monotonic()
        hits = tuple(self._search(question))
        retrieved = time.monotonic()
        if not hits:
            yield EvidenceFound(())
            yield PieceGenerated(prompting.NO_EVIDENCE)
            timings = {"retrieve_s": retrieved - started, "total_s": time.monotonic() - started}
            yield AnswerFinished(Answer(question, prompting.NO_EVIDENCE, grounded=False, timings=timings))
            return

        prompt = prompting.build_prompt(
            question, hits, history, self._engine.count_prompt_tokens, self._n_ctx - self._sampling.max_tokens
        )
        yield EvidenceFound(prompt.hits)

        pieces: list[str] = []
        first_piece_s, num_blank = 0.0, 0
        for piece in self._engine.stream(prompt.turns, self._sampling, is_stopped=is_stopped):
            if isinstance(piece, str):
                piece = piece if pieces else piece.lstrip()
                num_blank = 0 if piece.strip() else num_blank + 1
                if num_blank > _MAX_BLANK_PIECES:
                    break
                if piece:
                    first_piece_s = first_piece_s or time.monotonic() - started
                    pieces.append(piece)
                    yield PieceGenerated(piece)
            else:
                pieces.clear()
                yield AnswerRestarted(str(getattr(piece, "reason", piece)))
        if not pieces and not is_stopped():
            pieces.append(REFUSAL)
            yield PieceGenerated(REFUSAL)
        timings = {
            "retrieve_s": retrieved - started,
            "first_piece_s": first_piece_s,
            "total_s": time.monotonic() - started,
            "num_pieces": float(len(pieces)),
        }
        yield AnswerFinished(self._finish(question, "".join(pieces).strip(), prompt.hits, timings, is_stopped()))

    def _finish(
        self, question: str, text: str, hits: Sequence[Hit], timings: dict[str, float], stopped: bool
    ) -> Answer:
        text, dropped = citing.settle(text, len(hits))
        refused = text.startswith(REFUSAL.rstrip("."))
        began = time.monotonic()
        sentences = (
            () if refused or not hits else supporting.check(text, question, hits, None if stopped else self._embed)
        )
        timings = timings | {"check_s": time.monotonic() - began}
        if any(each.is_supported for each in sentences):
            citations = supporting.citations(text, sentences, hits)
            return Answer(question, text, True, citations, timings, stopped, None, sentences, dropped)
        # a person is better served with a place to look than with words that nothing stands behind
        closest = citing.closest(question, hits)
        return Answer(question, text, False, (), timings, stopped, closest, sentences, dropped)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        inputs = [("", text) for text in texts]
        return self._engine.embed(inputs, priority=Priority.QUERY, timeout_s=_MAX_CHECK_S)
