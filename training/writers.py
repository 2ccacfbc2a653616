"""A loaded model -> an AnswerWriter: whatever writes, behind one method, so that all are measured alike.

    model                   reads                                   runs on
    GRIT checkpoint         GRIT's chat frame                       transformers
    GGUF                    GRIT's chat frame                       the app's own engine (training.gguf)
    chat model of others    its own chat template                   transformers
    plain language model    the turns as lines of text              transformers

Answers are greedy: the same question has the same answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from gritdesk import grit_format
from gritdesk.grit_format import (
    BOS,
    EOS,
    MARKERS,
    EncodedFrame,
    Markers,
    Passages,
    chat_frame,
    embedding_frame,
    encode,
)
from gritdesk.records import Turn
from training.attention import passage_mask
from training.embedders import DecoderEmbedder, TextEmbedder
from training.tokenizer import FrameTokenizer

MAX_CONTEXT = 2048
"""Tokens of prompt and answer, or of a text under measurement: the app's default, so that all are cut alike."""

TokenNats = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Of each token but the first: what it costs after those before it, and whether it is the likeliest there."""


class AnswerWriter(Protocol):
    """Whatever writes answers and says what a text costs."""

    context_length: int

    def answer(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str] = ()) -> str:
        """The next turn, greedily, up to the first of `stops`. Of a prompt that does not fit the beginning is cut."""
        ...

    def answer_nats(self, turns: Sequence[Turn]) -> tuple[float, bool]:
        """What the last turn, the assistant's, costs without its end; and whether greedy writing gives it."""
        ...

    def text_nats(self, text: str) -> tuple[float, int]:
        """What a text costs, read in windows of the context, each after a BOS; and its number of tokens."""
        ...

    def count_tokens(self, turns: Sequence[Turn]) -> int:
        """Tokens of a prompt that ends with the user's turn."""
        ...


def writer_of(embedder: TextEmbedder) -> AnswerWriter:
    """The writer on an embedder's loaded model. Raises: ValueError if the model embeds only."""
    if isinstance(embedder, DecoderEmbedder):
        decoder = embedder.model.decoder
        if embedder.framer is embedding_frame:
            return GritWriter(decoder, embedder.tokenizer, embedder.model.passages)
        if embedder.folder is not None:
            return ChatWriter(decoder, embedder.folder)
    elif hasattr(embedder, "writer"):  # training.gguf is not imported where no GGUF is measured
        writer: AnswerWriter = embedder.writer()
        return writer
    raise ValueError("this model embeds and does not write; give a GRIT model or a language model")


class FrameWriter(ABC):
    """What all writers share: prompts that fit, windows of text, sums of nats."""

    context_length: int
    _last_next: tuple[list[int], NDArray[np.float64]] | None = None

    @abstractmethod
    def count_tokens(self, turns: Sequence[Turn]) -> int: ...

    @abstractmethod
    def encode_answer(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Ids of the prompt, and of the last turn's text after it."""

    @abstractmethod
    def encode_text(self, text: str) -> tuple[int, list[int]]:
        """The id that begins every window, and those of the text."""

    @abstractmethod
    def token_nats(self, ids: Sequence[int]) -> TokenNats: ...

    @abstractmethod
    def next_nats(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """What each token of the vocabulary costs after these, float64[V]."""

    @abstractmethod
    def write(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str]) -> str:
        """An answer to turns that fit; it may go on behind a stop."""

    def answer(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str] = ()) -> str:
        """See AnswerWriter."""
        max_tokens = min(max_tokens, self.context_length // 2)
        fitting = self._fitted(turns, self.context_length - max_tokens)
        return cut_at(self.write(fitting, max_tokens, stops), stops).strip()

    def answer_nats(self, turns: Sequence[Turn]) -> tuple[float, bool]:
        """See AnswerWriter."""
        prompt, answer = self.encode_answer(turns)
        answer = answer[: self.context_length - 1]
        # the beginning of a long prompt is cut, but not what begins every text
        room = self.context_length - 1 - len(answer)
        prompt = [*prompt[:1], *prompt[1:][max(len(prompt) - 1 - room, 0) :]]
        if not answer:
            return 0.0, True
        if len(answer) == 1:
            nats_V = self._remembered_next(prompt)
            return float(nats_V[answer[0]]), int(nats_V.argmin()) == answer[0]
        nats, is_best = self.token_nats([*prompt, *answer])
        return float(nats[-len(answer) :].sum()), bool(is_best[-len(answer) :].all())

    def text_nats(self, text: str) -> tuple[float, int]:
        """See AnswerWriter."""
        begin, ids = self.encode_text(text)
        window = self.context_length - 1
        windows = [ids[at : at + window] for at in range(0, len(ids), window)]
        return sum(float(self.token_nats([begin, *each])[0].sum()) for each in windows), len(ids)

    def _remembered_next(self, prompt: list[int]) -> NDArray[np.float64]:
        """The choices of a question, A to D or Yes and No, are asked for one after the other: it is read once."""
        if self._last_next is None or self._last_next[0] != prompt:
            self._last_next = prompt, self.next_nats(prompt)
        return self._last_next[1]

    def _fitted(self, turns: Sequence[Turn], max_tokens: int) -> list[Turn]:
        fitting = list(turns)
        while fitting[0].text and (num_tokens := self.count_tokens(fitting)) > max_tokens:
            text = fitting[0].text
            kept = min(len(text) * max_tokens // num_tokens, len(text) - 1)
            fitting[0] = Turn(fitting[0].role, text[len(text) - kept :])
        return fitting


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop that is in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


class GritFrames(FrameWriter):
    """A FrameWriter on GRIT's chat frame.

    It answers from passages as the model learned to read them. What a text costs is told of plain text.
    """

    frame_tokenizer: grit_format.FrameTokenizer
    markers: Markers
    passages: Passages = "plain"

    def count_tokens(self, turns: Sequence[Turn]) -> int:
        return len(self._prompt(turns).ids)

    def encode_answer(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        prompt = self._encode(turns[:-1])
        return prompt, self._encode(turns)[len(prompt) : -1]

    def encode_text(self, text: str) -> tuple[int, list[int]]:
        return self.frame_tokenizer.control_id(BOS), self.frame_tokenizer.tokenize(text)

    def _prompt(self, turns: Sequence[Turn]) -> EncodedFrame:
        return encode(chat_frame(turns, blocks=self.passages != "plain"), self.frame_tokenizer, self.markers)

    def _encode(self, turns: Sequence[Turn]) -> list[int]:
        return encode(chat_frame(turns), self.frame_tokenizer, self.markers).ids


# ---------------------------------------------------------------- transformers


class GritWriter(GritFrames):
    """A GRIT checkpoint. It ends its turn at EOS, or where it would begin another's."""

    def __init__(self, decoder: PreTrainedModel, tokenizer: FrameTokenizer, passages: Passages = "plain") -> None:
        self.decoder = decoder
        self.passages = passages
        self.frame_tokenizer = tokenizer
        self.markers = tokenizer.markers
        self.context_length = min(MAX_CONTEXT, decoder.config.max_position_embeddings)
        markers = MARKERS if self.markers == "special" else ()
        self._end_ids = [tokenizer.control_id(each) for each in (EOS, *markers)]
        self._pad_id = tokenizer.pad_id
        self._text_of = tokenizer.tokenizer.decode

    def token_nats(self, ids: Sequence[int]) -> TokenNats:
        return decoder_nats(self.decoder, ids)

    def next_nats(self, ids: Sequence[int]) -> NDArray[np.float64]:
        return decoder_next_nats(self.decoder, ids)

    def write(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str]) -> str:
        config = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, eos_token_id=self._end_ids, pad_token_id=self._pad_id
        )
        frame = self._prompt(turns)
        return decoder_text(self.decoder, frame.ids, config, self._text_of, stops, self._read_passages(frame))

    @torch.no_grad()
    def _read_passages(self, frame: EncodedFrame) -> DynamicCache | None:
        """What a prompt with passages as blocks leaves in the cache, but for its last token."""
        if not frame.blocks:
            return None
        device = self.decoder.device
        ids_1T, block_1T = (torch.tensor([each[:-1]], device=device) for each in (frame.ids, frame.blocks))
        both_ways = self.passages == "bidirectional_blocks"
        mask = passage_mask(torch.ones_like(ids_1T), block_1T, self.decoder.dtype, bidirectional=both_ways)
        cache = DynamicCache()
        self.decoder.model(input_ids=ids_1T, attention_mask=mask, past_key_values=cache, use_cache=True)
        return cache


class ChatWriter(FrameWriter):
    """A language model that others made: in its own chat template, or, without one, plain lines of text."""

    def __init__(self, decoder: PreTrainedModel, folder: Path) -> None:
        self.decoder = decoder
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.context_length = min(MAX_CONTEXT, getattr(decoder.config, "max_position_embeddings", MAX_CONTEXT))
        own = decoder.generation_config.eos_token_id if decoder.generation_config else None
        self._end_ids = own if own is not None else self.tokenizer.eos_token_id

    def count_tokens(self, turns: Sequence[Turn]) -> int:
        return len(self._encode(turns))

    def encode_answer(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        return self._encode(turns[:-1]), self._plain_ids(turns[-1].text)

    def encode_text(self, text: str) -> tuple[int, list[int]]:
        begin = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if begin is None else begin, self._plain_ids(text)

    def token_nats(self, ids: Sequence[int]) -> TokenNats:
        return decoder_nats(self.decoder, ids)

    def next_nats(self, ids: Sequence[int]) -> NDArray[np.float64]:
        return decoder_next_nats(self.decoder, ids)

    def write(self, turns: Sequence[Turn], max_tokens: int, stops: Sequence[str]) -> str:
        pad_id = self.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self._end_ids,
            pad_token_id=self.tokenizer.eos_token_id if pad_id is None else pad_id,
        )
        return decoder_text(self.decoder, self._encode(turns), config, self.tokenizer.decode, stops)

    def _encode(self, turns: Sequence[Turn]) -> list[int]:
        if self.tokenizer.chat_template:
            messages = [{"role": turn.role, "content": turn.text} for turn in turns]
            ids: list[int] = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            return ids
        begin, text = self.encode_text("".join(f"{turn.text}\n" for turn in turns))
        return [begin, *text]

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


@torch.no_grad()
def decoder_nats(decoder: PreTrainedModel, ids: Sequence[int]) -> TokenNats:
    """Of a decoder of transformers, the logits in float32."""
    ids_1T = torch.tensor([list(ids)], device=decoder.device)
    log_likely_TV = decoder(input_ids=ids_1T, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    targets_T1 = ids_1T[0, 1:, None]
    is_best_T = log_likely_TV.argmax(dim=-1) == targets_T1[:, 0]
    return -log_likely_TV.gather(1, targets_T1)[:, 0].double().cpu().numpy(), is_best_T.cpu().numpy()


@torch.no_grad()
def decoder_next_nats(decoder: PreTrainedModel, ids: Sequence[int]) -> NDArray[np.float64]:
    """Of a decoder of transformers, float64[V]."""
    ids_1T = torch.tensor([list(ids)], device=decoder.device)
    log_likely_V = decoder(input_ids=ids_1T, use_cache=False).logits[0, -1].float().log_softmax(dim=-1)
    found: NDArray[np.float64] = -log_likely_V.double().cpu().numpy()
    return found


@torch.no_grad()
def decoder_text(
    decoder: PreTrainedModel,
    ids: Sequence[int],
    config: GenerationConfig,
    text_of: Callable[..., str],
    stops: Sequence[str],
    cache: DynamicCache | None = None,
) -> str:
    """What a decoder of transformers writes after these ids.

    Args:
        text_of: ids -> text, as tokenizers' `decode`.
        cache: what all ids but the last left behind; None: they are read here.
    """
    ids_1T = torch.tensor([list(ids)], device=decoder.device)

    def written(ids_1T: torch.Tensor) -> str:
        return text_of(ids_1T[0, len(ids) :].tolist(), skip_special_tokens=True)

    class StopAt(StoppingCriteria):
        def __call__(self, ids_1T: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
            is_done = any(stop in written(ids_1T) for stop in stops)
            return torch.full((1,), is_done, dtype=torch.bool, device=ids_1T.device)

    criteria = StoppingCriteriaList([StopAt()] if stops else [])
    output = decoder.generate(
        ids_1T,
        attention_mask=torch.ones_like(ids_1T),
        generation_config=config,
        stopping_criteria=criteria,
        past_key_values=cache,
    )
    return written(output)
