"""Question -> evidence -> prompt -> pieces -> a finished, cited answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gritdesk import citing, prompting, rewriting, supporting
from gritdesk.config import AnswerConfig
from gritdesk.conversation import Recalled, recalled
from gritdesk.engine.wire import Priority
from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import REFUSAL
from gritdesk.passages import Files, gather
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    Citation,
    EmbeddingInput,
    Evidence,
    EvidenceFound,
    Exchange,
    Hit,
    Misses,
    PieceGenerated,
    Prompt,
    Sampling,
    Turn,
)
from gritdesk.rewriting import Rewritten
from gritdesk.scoping import lies_within, scope_name

_MAX_BLANK_PIECES = 8
"""A model that goes on with nothing but white space has no more to say."""
_MAX_CHECK_S = 3.0
"""A person has read the answer by then; what is not compared in meaning is compared by words alone."""
_SILENCE = "The model says nothing."


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

    def prefill(self, turns: Sequence[Turn]) -> None: ...


class Answerer:
    """Joins retrieval, evidence, prompt and generation; holds no state between questions.

    Args:
        search: the best hits of a query line, best first.
        weigh: whether hits hold an answer to a question.
        misses: why a query line found nothing.
        within: the files and folders that are asked, which `search` keeps to; none: all.
        files: what is known of the files that hits lie in; None: passages stay as they were found.
        max_passage_tokens: what a passage may grow to at most, in the model's tokens.
    """

    def __init__(
        self,
        search: Callable[[str, int], Sequence[Hit]],
        engine: AnswerEngine,
        n_ctx: int,
        config: AnswerConfig,
        *,
        weigh: Callable[[str, Sequence[Hit]], Evidence] = lambda question, hits: "found" if hits else "none",
        misses: Callable[[str], Misses] = lambda line: Misses((), ()),
        within: Sequence[Path] = (),
        files: Files | None = None,
        num_passages: int = 3,
        num_looked_at: int = 10,
        max_passage_tokens: int = 512,
    ) -> None:
        self._search = search
        self._engine = engine
        self._weigh = weigh
        self._misses = misses
        self._within = tuple(within)
        self._files = files
        self._num_passages = num_passages
        self._num_looked_at = max(num_passages, num_looked_at)
        self._passage_tokens = min(config.passage_tokens, max_passage_tokens)
        self._rewriting = config.rewrite
        self._sampling = Sampling(
            max_tokens=min(config.max_tokens, n_ctx // 2),
            temperature=config.temperature,
            repeat_penalty=config.repeat_penalty,
        )
        self._max_prompt_tokens = n_ctx - self._sampling.max_tokens

    # ---------------------------------------------------------------- before the model reads

    def prompt(self, question: str, past: Sequence[Exchange] = (), *, anyway: bool = False) -> Prompt:
        """What the model would be given for a question; its passages, evidence or not, unless it answers anyway.

        Raises: as `answer`.
        """
        asked, hits = self._found(question, past)
        from_model = anyway and self._weigh(asked.line, hits) == "none"
        return self._prompt_for(asked, () if from_model else hits, past)

    def prefill(self, question: str, past: Sequence[Exchange] = ()) -> bool:
        """Have the engine read now, in its idle time, what `answer` would give it for this question.

        Another question whose answer rests on the same passages finds those read. Returns: whether there is anything.
        Raises: as `answer`.
        """
        if self._rewriting == "model" and rewriting.rewritten(question, past).leaves_out:
            return False  # the model would write it out first, which is no work for idle time
        asked, hits = self._found(question, past)
        if self._weigh(asked.line, hits) == "none":
            return False
        self._engine.prefill(self._prompt_for(asked, hits, past).turns)
        return True

    def _found(self, question: str, past: Sequence[Exchange]) -> tuple[Rewritten, list[Hit]]:
        """What to search for, and its hits, more of them than the model reads. Raises: ContextOverflow."""
        self._check_length(question)
        asked = self._rewritten(question, past)
        return asked, rewriting.found(asked, past, self._search, self._num_looked_at)

    def _check_length(self, question: str) -> None:
        """Before a search, which would find nothing for so many words. Raises: ContextOverflow."""
        most = self._max_prompt_tokens
        is_short = len(question.encode()) <= most // 2  # no token is shorter than a byte, and the frame has few
        if not is_short and self._engine.count_prompt_tokens([Turn("user", question)]) > most:
            raise prompting.question_too_long(most)

    def _rewritten(self, question: str, past: Sequence[Exchange]) -> Rewritten:
        """The question itself unless it leaves out what was said before."""
        if self._rewriting == "off":
            return Rewritten(question)
        asked = rewriting.rewritten(question, past)
        if self._rewriting == "model" and asked.leaves_out:
            with suppress(ContextOverflow):  # the rules need no room
                asked = rewriting.by_model(asked, past, self._engine.stream)
        return asked

    def _prompt_for(self, asked: Rewritten, hits: Sequence[Hit], past: Sequence[Exchange]) -> Prompt:
        """Passages of the best hits and what is recalled, within the context; no hits: the conversation alone."""
        passages = gather(hits, self._num_passages, self._files, self._passage_tokens)
        prompt = self._built(asked, passages, past)
        if prompt.hits[: len(passages)] == tuple(passages):
            return prompt
        # whole files, and what was joined, would push others out: each passage as it was found
        return self._built(asked, gather(hits, self._num_passages, None, 0), past)

    def _built(self, asked: Rewritten, passages: Sequence[Hit], past: Sequence[Exchange]) -> Prompt:
        recall = self._recalled(asked, past, passages)
        return prompting.build_prompt(
            asked.to_read, recall.hits, recall.turns, self._engine.count_prompt_tokens, self._max_prompt_tokens
        )

    def _recalled(self, asked: Rewritten, past: Sequence[Exchange], passages: Sequence[Hit]) -> Recalled:
        def fits(turns: Sequence[Turn], hits: Sequence[Hit]) -> bool:
            prompt = (*turns, Turn("user", prompting.question_turn(asked.to_read, hits)))
            return self._engine.count_prompt_tokens(prompt) <= self._max_prompt_tokens

        return recalled(past, passages, fits, self._still_stands, carries=asked.leaves_out and bool(passages))

    def _still_stands(self, hit: Hit) -> bool:
        """Whether what was read then is asked, too, and the index still holds it: of a deleted file nothing is read."""
        if not lies_within(hit.path, self._within):
            return False
        if self._files is None:
            return True
        text = self._files.document_text(hit.path)
        return text is not None and text[hit.chunk.char_start : hit.chunk.char_end] == hit.chunk.text

    # ---------------------------------------------------------------- answering

    def answer(
        self,
        question: str,
        past: Sequence[Exchange] = (),
        is_stopped: Callable[[], bool] = lambda: False,
        *,
        anyway: bool = False,
    ) -> Iterator[AnswerEvent]:
        """Stream one answer; the last event is AnswerFinished, also when it was stopped.

        Args:
            past: the conversation so far, oldest first.
            anyway: without evidence have the model answer from what it learned, and say so in the answer.
        Raises: ContextOverflow if the question does not fit; ModelError if the engine refuses the prompt.
        """
        started = time.monotonic()
        asked, hits = self._found(question, past)
        evidence = self._weigh(asked.line, hits)
        timings = {"retrieve_s": time.monotonic() - started}
        if evidence == "none":
            told, hits = self._refusal(asked, hits)
            if not anyway:
                yield EvidenceFound(tuple(hits[: self._num_passages]), evidence)
                yield PieceGenerated(told.text)
                yield AnswerFinished(replace(told, timings=timings | {"total_s": time.monotonic() - started}))
                return
        from_model = evidence == "none"
        prompt = self._prompt_for(asked, () if from_model else hits, past)
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
        timings |= {
            "first_piece_s": first_piece_s,
            "total_s": time.monotonic() - started,
            "num_pieces": float(len(pieces)),
        }
        text, stopped = "".join(pieces).strip(), is_stopped()
        if from_model:
            yield AnswerFinished(replace(told, text=text, from_model=True, timings=timings, stopped=stopped))
            return
        answer = self._finish(asked, text, prompt.hits, timings, stopped)
        answer = replace(answer, evidence=evidence, searched_for=asked.searched_for, within=self._within)
        yield AnswerFinished(answer)

    def _refusal(self, asked: Rewritten, hits: list[Hit]) -> tuple[Answer, list[Hit]]:
        """What is said where there is no evidence, and what came nearest: where filters left nothing, without them."""
        misses = Misses((), ()) if hits else self._misses(asked.line)
        hits = hits or list(misses.nearest)
        told = Answer(
            asked.question,
            prompting.no_evidence(scope_name(self._within)),
            grounded=False,
            evidence="none",
            nearest=self._nearest(asked.line, hits),
            searched_for=asked.searched_for,
            within=self._within,
            removed=misses.removed,
        )
        return told, hits

    def _nearest(self, question: str, hits: Sequence[Hit]) -> tuple[Citation, ...]:
        closest = (citing.closest(question, [hit]) for hit in hits[: self._num_passages])
        return tuple(replace(each, n=n) for n, each in enumerate(closest, start=1))

    def _finish(
        self, asked: Rewritten, text: str, hits: Sequence[Hit], timings: dict[str, float], stopped: bool
    ) -> Answer:
        text, dropped = citing.settle(text, len(hits))
        refused = citing.without_citations(text).startswith(REFUSAL.rstrip("."))
        began = time.monotonic()
        sentences = (
            () if refused or not hits else supporting.check(text, asked.to_read, hits, None if stopped else self._embed)
        )
        timings = timings | {"check_s": time.monotonic() - began}
        if any(each.is_supported for each in sentences):
            citations = supporting.citations(text, sentences, hits)
            return Answer(asked.question, text, True, citations, timings, stopped, None, sentences, dropped)
        # a person is better served with a place to look than with words that nothing stands behind
        closest = citing.closest(asked.line, hits)
        answer = Answer(asked.question, text, False, (), timings, stopped, closest, sentences, dropped)
        return replace(answer, refused=refused)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        inputs = [("", text) for text in texts]
        return self._engine.embed(inputs, priority=Priority.QUERY, timeout_s=_MAX_CHECK_S)
