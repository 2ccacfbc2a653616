"""Question -> evidence -> prompt -> pieces -> a finished, cited answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from gritdesk import prompting
from gritdesk.config import AnswerConfig
from gritdesk.grit_format import REFUSAL
from gritdesk.passages import Files, gather
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    Citation,
    Evidence,
    EvidenceFound,
    Hit,
    PieceGenerated,
    Prompt,
    Sampling,
    Turn,
)

_MAX_BLANK_PIECES = 8
"""A model that goes on with nothing but white space has no more to say."""
_SILENCE = "The model says nothing."


class AnswerEngine(Protocol):
    """What an answer needs of the engine; engine.host.EngineHost has it."""

    def count_prompt_tokens(self, turns: Sequence[Turn]) -> int: ...

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[object]:
        """Pieces of text; anything else that comes has a `reason` and voids the pieces before it."""
        ...


class Answerer:
    """Joins retrieval, evidence, prompt and generation; holds no state between questions.

    Args:
        search: the hits of a question, best first, more than are read: the others are what the best ones stand out of.
        weigh: whether hits hold an answer to a question; without it any hit does.
        files: what hits lie in, to join those that stand side by side; without it none are.
        num_passages: hits that are read, at most.
        max_passage_tokens: what the model reads of one passage, at most.
    """

    def __init__(
        self,
        search: Callable[[str], Sequence[Hit]],
        engine: AnswerEngine,
        n_ctx: int,
        config: AnswerConfig,
        *,
        weigh: Callable[[str, Sequence[Hit]], Evidence] = lambda question, hits: "found" if hits else "none",
        files: Files | None = None,
        num_passages: int = 3,
        max_passage_tokens: int = 512,
    ) -> None:
        self._search = search
        self._engine = engine
        self._weigh = weigh
        self._files = files
        self._num_passages = num_passages
        self._passage_tokens = min(config.passage_tokens, max_passage_tokens)
        self._sampling = Sampling(
            max_tokens=min(config.max_tokens, n_ctx // 2),
            temperature=config.temperature,
            repeat_penalty=config.repeat_penalty,
        )
        self._max_prompt_tokens = n_ctx - self._sampling.max_tokens

    def prompt_for(self, question: str, hits: Sequence[Hit], history: Sequence[Turn] = ()) -> Prompt:
        """The prompt of a question: passages of its best hits, within the context; no hits: the question alone.

        Raises: as `answer`.
        """
        count, most = self._engine.count_prompt_tokens, self._max_prompt_tokens
        passages = gather(hits, self._num_passages, self._files, self._passage_tokens)
        prompt = prompting.build_prompt(question, passages, history, count, most)
        if prompt.hits == tuple(passages):
            return prompt
        # whole files, and what was joined, would push others out: each passage as it was found
        passages = gather(hits, self._num_passages, None, 0)
        return prompting.build_prompt(question, passages, history, count, most)

    def answer(
        self,
        question: str,
        history: Sequence[Turn] = (),
        is_stopped: Callable[[], bool] = lambda: False,
        *,
        anyway: bool = False,
    ) -> Iterator[AnswerEvent]:
        """Stream one answer; the last event is AnswerFinished, also when it was stopped.

        Args:
            anyway: without evidence have the model answer from what it learned, and say so in the answer.
        Raises: ContextOverflow if the question does not fit; ModelError if the engine refuses the prompt.
        """
        started = time.monotonic()
        self._check_length(question)
        hits = tuple(self._search(question))
        evidence = self._weigh(question, hits)
        retrieved = time.monotonic()
        from_model = evidence == "none" and anyway
        nearest = self._nearest(question, hits) if evidence == "none" else ()
        if evidence == "none" and not anyway:
            yield EvidenceFound(hits[: self._num_passages], evidence)
            yield PieceGenerated(prompting.NO_EVIDENCE)
            timings = {"retrieve_s": retrieved - started, "total_s": time.monotonic() - started}
            text = prompting.NO_EVIDENCE
            yield AnswerFinished(Answer(question, text, False, timings=timings, evidence=evidence, nearest=nearest))
            return

        prompt = self.prompt_for(question, () if from_model else hits, history)
        yield EvidenceFound(prompt.hits, evidence)

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
            pieces.append(_SILENCE if from_model else REFUSAL)
            yield PieceGenerated(pieces[0])
        timings = {
            "retrieve_s": retrieved - started,
            "first_piece_s": first_piece_s,
            "total_s": time.monotonic() - started,
            "num_pieces": float(len(pieces)),
        }
        text, stopped = "".join(pieces).strip(), is_stopped()
        if from_model:
            answer = Answer(question, text, False, (), timings, stopped, nearest=nearest, from_model=True)
        else:
            answer = self._finish(question, text, prompt.hits, timings, stopped)
        yield AnswerFinished(replace(answer, evidence=evidence))

    def _check_length(self, question: str) -> None:
        """Before a search, which would find nothing for so many words. Raises: ContextOverflow."""
        most = self._max_prompt_tokens
        is_short = len(question.encode()) <= most // 2  # no token is shorter than a byte, and the frame has few
        if not is_short and self._engine.count_prompt_tokens([Turn("user", question)]) > most:
            raise prompting.question_too_long(most)

    def _nearest(self, question: str, hits: Sequence[Hit]) -> tuple[Citation, ...]:
        closest = (prompting.closest(question, [hit]) for hit in hits[: self._num_passages])
        return tuple(replace(each, n=n) for n, each in enumerate(closest, start=1))

    def _finish(
        self, question: str, text: str, hits: Sequence[Hit], timings: dict[str, float], stopped: bool
    ) -> Answer:
        refused = text.startswith(REFUSAL.rstrip("."))
        citations = () if refused else prompting.resolve_citations(text, hits) or prompting.attribute(text, hits)
        if citations and prompting.is_supported(text, question, citations, hits):
            return Answer(question, text, True, citations, timings, stopped)
        # a person is better served with a place to look than with words that nothing stands behind
        return Answer(question, text, False, (), timings, stopped, prompting.closest(question, hits))
