"""Question -> evidence -> prompt -> pieces -> a finished, cited answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from gritdesk import prompting
from gritdesk.config import AnswerConfig
from gritdesk.grit_format import REFUSAL
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    EvidenceFound,
    Hit,
    PieceGenerated,
    Prompt,
    Sampling,
    Turn,
)

_MAX_BLANK_PIECES = 8
"""A model that goes on with nothing but white space has no more to say."""


class AnswerEngine(Protocol):
    """What an answer needs of the engine; engine.host.EngineHost has it."""

    def count_prompt_tokens(self, turns: Sequence[Turn]) -> int: ...

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[object]:
        """Pieces of text; anything else that comes has a `reason` and voids the pieces before it."""
        ...

    def prefill(self, turns: Sequence[Turn]) -> None: ...


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

    def prompt_for(self, question: str, hits: Sequence[Hit], history: Sequence[Turn] = ()) -> Prompt:
        """What the model reads to answer, the passages first. Raises: ContextOverflow if the question does not fit."""
        room = self._n_ctx - self._sampling.max_tokens
        return prompting.build_prompt(question, hits, history, self._engine.count_prompt_tokens, room)

    def prefill(self, question: str, history: Sequence[Turn] = ()) -> bool:
        """Have the engine read now, in its idle time, what `answer` would give it for this question.

        Another question whose answer rests on the same passages finds those read. Returns: whether there is anything.
        Raises: as `answer`.
        """
        hits = tuple(self._search(question))
        if hits:
            self._engine.prefill(self.prompt_for(question, hits, history).turns)
        return bool(hits)

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

        prompt = self.prompt_for(question, hits, history)
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
        refused = text.startswith(REFUSAL.rstrip("."))
        citations = () if refused else prompting.resolve_citations(text, hits) or prompting.attribute(text, hits)
        if citations and prompting.is_supported(text, question, citations, hits):
            return Answer(question, text, True, citations, timings, stopped)
        # a person is better served with a place to look than with words that nothing stands behind
        return Answer(question, text, False, (), timings, stopped, prompting.closest(question, hits))
