"""Question -> evidence -> prompt -> pieces -> a finished, cited answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gritdesk import citing, prompting, rewriting, supporting
from gritdesk.config import AnswerConfig
from gritdesk.conversation import Recalled, recalled
from gritdesk.engine.wire import Priority
from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import REFUSAL
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    EmbeddingInput,
    EvidenceFound,
    Exchange,
    Hit,
    PieceGenerated,
    Sampling,
    Turn,
)
from gritdesk.rewriting import Rewritten

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
        search: Callable[[str, int], Sequence[Hit]],
        engine: AnswerEngine,
        n_ctx: int,
        config: AnswerConfig,
        num_passages: int = 3,
    ) -> None:
        self._search = search
        self._num_passages = num_passages
        self._engine = engine
        self._n_ctx = n_ctx
        self._rewriting = config.rewrite
        self._sampling = Sampling(
            max_tokens=min(config.max_tokens, n_ctx // 2),
            temperature=config.temperature,
            repeat_penalty=config.repeat_penalty,
        )

    def answer(
        self, question: str, past: Sequence[Exchange] = (), is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[AnswerEvent]:
        """Stream one answer; the last event is AnswerFinished, also when it was stopped.

        Args:
            past: the conversation so far, oldest first.
        Raises: ContextOverflow if the question does not fit; ModelError if the engine refuses the prompt.
        """
        started = time.monotonic()
        asked = self._rewritten(question, past)
        hits = rewriting.found(asked, past, self._search, self._num_passages)
        retrieved = time.monotonic()
        recall = self._recalled(asked, past, hits)
        if not recall.hits:
            yield EvidenceFound(())
            yield PieceGenerated(prompting.NO_EVIDENCE)
            timings = {"retrieve_s": retrieved - started, "total_s": time.monotonic() - started}
            answer = Answer(question, prompting.NO_EVIDENCE, grounded=False, timings=timings)
            yield AnswerFinished(replace(answer, searched_for=asked.searched_for))
            return

        prompt = prompting.build_prompt(
            asked.to_read, recall.hits, recall.turns, self._engine.count_prompt_tokens, self._max_prompt_tokens
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
        answer = self._finish(question, "".join(pieces).strip(), prompt.hits, timings, is_stopped())
        yield AnswerFinished(replace(answer, searched_for=asked.searched_for))

    @property
    def _max_prompt_tokens(self) -> int:
        return self._n_ctx - self._sampling.max_tokens

    def _rewritten(self, question: str, past: Sequence[Exchange]) -> Rewritten:
        """What to search for; the question itself unless it leaves out what was said before."""
        if self._rewriting == "off":
            return Rewritten(question)
        asked = rewriting.rewritten(question, past)
        if self._rewriting == "model" and asked.leaves_out:
            with suppress(ContextOverflow):  # the rules need no room
                asked = rewriting.by_model(asked, past, self._engine.stream)
        return asked

    def _recalled(self, asked: Rewritten, past: Sequence[Exchange], found: Sequence[Hit]) -> Recalled:
        def fits(turns: Sequence[Turn], hits: Sequence[Hit]) -> bool:
            prompt = (*turns, Turn("user", prompting.question_turn(asked.to_read, hits)))
            return self._engine.count_prompt_tokens(prompt) <= self._max_prompt_tokens

        return recalled(past, found, fits, carries=asked.leaves_out)

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
