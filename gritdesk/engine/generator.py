"""Turns -> pieces of text: causal attention, one token at a time, over what is already read.

Rules owned here: bytes become characters here and nowhere else; a piece never holds a control token or half a
character; the same turns with the same sampling and caching give the same text, whatever was generated or kept
before; and passages are read as the model's metadata says it learned to read them, but where an answer takes their
states.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gritdesk.engine.llama import BLOCK_TOKENS, GenerationContext, LlamaModel, Sampler
from gritdesk.engine.states import StateStore
from gritdesk.errors import ContextOverflow, ModelError
from gritdesk.grit_format import (
    MARKERS,
    Cache,
    EncodedFrame,
    block_text,
    chat_frame,
    embedding_frame,
    encode,
    likelihood_frame,
)
from gritdesk.records import Sampling, Turn

_LIKELIHOOD_TOKENS = BLOCK_TOKENS
"""Of a passage and a question that are read for how likely the question is: no more than a batch of other work."""


class Generator:
    """Generates answers with its own context; use it from one thread at a time.

    What `cache` says of an answer is told in `grit_format.Caching`; "auto" is what is best for the model.

    A passage that is read as a block and longer than the context's `max_block_tokens` is cut at its end, as Embedder
    cuts a text: llama.cpp reads a block in one call or not at all.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        n_ctx: int = 2048,
        n_threads: int = 0,
        kv_type: str = "f16",
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        """Arguments: see GenerationContext. `close()` of the model frees the context."""
        self._model = model
        self.context = GenerationContext(
            model, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type, block_tokens=block_tokens
        )
        self.n_ctx = self.context.n_ctx
        self._reader: Callable[[], GenerationContext] = lambda: GenerationContext(
            model,
            n_ctx=min(n_ctx, _LIKELIHOOD_TOKENS),
            n_threads=n_threads,
            kv_type=kv_type,
            block_tokens=block_tokens,
        )
        self._reading: GenerationContext | None = None
        """Of likelihoods, made by the first: an answer under way, and a prompt read ahead, keep their KV cache."""
        self.states: StateStore | None = None
        special = model.grit.markers == "special"
        self._marker_ids = {model.control_id(marker) for marker in MARKERS} if special else set()

    def keep_states_in(self, states: StateStore | None) -> None:
        """From now on, look for the states of blocks there, and keep them there."""
        self.states = self.context.states = states

    def count_prompt_tokens(self, turns: Sequence[Turn], cache: Cache = "auto") -> int:
        """Tokens of the whole chat frame as it is read. Raises: ModelError if the turns do not alternate."""
        return len(self.encode(turns, cache).ids)

    def stream(
        self,
        turns: Sequence[Turn],
        sampling: Sampling,
        is_stopped: Callable[[], bool] = lambda: False,
        cache: Cache = "auto",
    ) -> Iterator[str]:
        """Generate the next turn. Raises: as `steps`."""
        return (piece for piece in self.steps(turns, sampling, is_stopped, cache) if piece)

    def steps(
        self, turns: Sequence[Turn], sampling: Sampling, is_stopped: Callable[[], bool], cache: Cache = "auto"
    ) -> Iterator[str]:
        """Generate the next turn, one call to llama.cpp a step.

        Ends at the model's end token, at `max_tokens`, where the context is full, or once `is_stopped()` is true,
        which is asked before every call. A step that completes no character yields "".

        Raises: ContextOverflow if the prompt leaves no room for a token; ModelError for turns that do not alternate
        or settings out of their range.
        """
        frame = self.encode(turns, cache)
        num_prompt = len(frame.ids)
        if num_prompt + 1 > self.n_ctx:
            raise ContextOverflow(f"a prompt of {num_prompt} tokens does not fit the context of {self.n_ctx}")
        sampler = Sampler(self._model, sampling)
        try:
            for _ in self.context.prefill_steps(frame.ids, frame.blocks, self.moved_blocks(frame, cache)):
                yield ""
                if is_stopped():
                    return
            text = _TextDecoder(strip_first_space=self._model.adds_space_prefix)
            num_pieces = min(sampling.max_tokens, self.n_ctx - num_prompt)
            for number in range(num_pieces):
                token_id = self.context.sample(sampler)
                if self._model.is_end(token_id) or token_id in self._marker_ids:
                    return
                yield text.decode(self._model.piece(token_id))
                if is_stopped() or number + 1 == num_pieces:
                    return
                self.context.decode([token_id])
        finally:
            sampler.close()

    def prefill_steps(self, turns: Sequence[Turn], cache: Cache = "auto") -> Iterator[None]:
        """Read a prompt, one call to llama.cpp a step, and leave it to what is generated next.

        Raises: ContextOverflow if it leaves no room for a token; ModelError for turns that do not alternate.
        """
        frame = self.encode(turns, cache)
        yield from self.context.prefill_steps(frame.ids, frame.blocks, self.moved_blocks(frame, cache))

    def log_likelihood(self, question: str, passage: str) -> float:
        """Log probability of the question behind the passage, as it stands there in a prompt.

        The passage's end is cut where both together are longer than _LIKELIHOOD_TOKENS. It is one step, so that two who
        ask by turns do not read into one another's cache.

        Raises: ContextOverflow if the question alone does not fit.
        """
        context = self._reading = self._reading or self._reader()
        frame = self._likelihood_frame(question, passage, context)
        asked_from = len(frame.ids) - sum(frame.counts)
        first_V = context.prefill(frame.ids[:asked_from], frame.blocks[:asked_from])
        logits_TV = np.concatenate([first_V[None], *context.append_steps(frame.ids[asked_from:-1])])
        highest_T1 = logits_TV.max(axis=1, keepdims=True).astype(np.float64)
        log_sums_T = np.log(np.exp(logits_TV - highest_T1).sum(axis=1)) + highest_T1[:, 0]
        return float((logits_TV[np.arange(len(logits_TV)), frame.ids[asked_from:]] - log_sums_T).sum())

    def _likelihood_frame(self, question: str, passage: str, context: GenerationContext) -> EncodedFrame:
        grit = self._model.grit
        while True:
            segments = likelihood_frame(passage, question, blocks=grit.passages != "plain")
            frame = cut_blocks(encode(segments, self._model, grit.markers), context.max_block_tokens)
            if len(frame.ids) <= context.n_ctx or len(passage) < 2:
                return frame
            passage = passage[: len(passage) // 2]

    def warm_steps(self, passages: Sequence[str], cache: Cache = "auto", *, fills: bool = False) -> Iterator[bool]:
        """Compute and keep the states of passages that may be asked about, one a step.

        A step tells whether there was something to compute. What was read of a prompt stays in the KV cache.

        Args:
            passages: the texts as `documents_turn` takes them.
            cache: how they will be asked about; there is no step where that takes no states of passages.
            fills: end where the next state would remove another one.
        """
        states = self.states
        if states is None or not self.context.can_move or "doc" not in self._model.grit.caching(cache):
            return
        for passage in passages:
            ids = self.passage_ids(passage)
            is_new = bool(ids) and ids not in states
            if is_new:
                state = self.context.state(ids)
                if fills and states.is_full_for(len(state)):
                    return
                states.keep(ids, state)
            yield is_new

    def passage_ids(self, passage: str) -> list[int]:
        """Token ids of a passage as a block of a prompt has them; none of an empty one."""
        text = block_text(passage)
        if not text:
            return []
        ids = encode(embedding_frame("", text), self._model, self._model.grit.markers).ids
        return ids[: self.context.max_block_tokens]

    def encode(self, turns: Sequence[Turn], cache: Cache = "auto") -> EncodedFrame:
        """The chat frame as this model reads it. Raises: ModelError if the turns do not alternate."""
        grit = self._model.grit
        try:
            segments = chat_frame(turns, blocks=grit.passages != "plain", caching=grit.caching(cache))
        except ValueError as error:
            raise ModelError(str(error)) from error
        return cut_blocks(encode(segments, self._model, grit.markers), self.context.max_block_tokens)

    def moved_blocks(self, frame: EncodedFrame, cache: Cache = "auto") -> set[int]:
        """Numbers of the blocks that come from their states."""
        caching = self._model.grit.caching(cache)
        return {block for block in set(frame.blocks) if ("doc" if block > 0 else "query") in caching and block}


def cut_blocks(frame: EncodedFrame, max_tokens: int) -> EncodedFrame:
    """The frame with no more than the first `max_tokens` tokens of each block."""
    read: Counter[int] = Counter()
    kept = []
    for place, block in enumerate(frame.blocks):
        read[block] += 1
        if not block or read[block] <= max_tokens:
            kept.append(place)
    if len(kept) == len(frame.blocks):
        return frame
    return EncodedFrame(
        [frame.ids[place] for place in kept],
        [frame.counts[place] for place in kept],
        [frame.blocks[place] for place in kept],
    )


class _TextDecoder:
    """Tokens' bytes -> text, a character once all its bytes are there."""

    def __init__(self, *, strip_first_space: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip = strip_first_space

    def decode(self, data: bytes) -> str:
        text = self._decoder.decode(data)
        if text and self._strip:
            text, self._strip = text.removeprefix(" "), False
        return text
