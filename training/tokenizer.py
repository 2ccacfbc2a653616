"""Texts -> a byte-level BPE tokenizer with GRIT's markers as real special tokens.

The pre-tokenizer is GPT-2's, which every GGUF program knows, and by which a frame's newline never merges with
the text beside it: ids of the parts are the ids of the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gritdesk.grit_format import BOS, CHAT_TEMPLATE, EOS, MARKERS, Markers
from training.config import read_json

PAD = "<|pad|>"
SPECIAL_TOKENS = [PAD, BOS, EOS, *MARKERS]

REMEMBERED_TEXTS = 512
"""Texts whose ids are kept: those of a row or two, and the pieces of all frames."""


class FrameTokenizer:
    """gritdesk.grit_format.FrameTokenizer on a `tokenizers` tokenizer."""

    def __init__(
        self, tokenizer: Tokenizer, bos_id: int | None = None, eos_id: int | None = None, pad_id: int | None = None
    ) -> None:
        """Args: ids that the tokenizer's own names do not tell, as of a model that others made.

        Raises: ValueError if there is no token to begin or to end with.
        """
        self.tokenizer = tokenizer
        # a person's text may spell a marker; it must stay text
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()  # which some keep in their file, as padding
        tokenizer.no_padding()
        self.bos_id = _known(tokenizer.token_to_id(BOS) if bos_id is None else bos_id, "begins a text (bos_token)")
        self.eos_id = _known(tokenizer.token_to_id(EOS) if eos_id is None else eos_id, "ends an answer (eos_token)")
        own_pad_id = tokenizer.token_to_id(PAD)
        self.pad_id: int = next(each for each in (pad_id, own_pad_id, self.eos_id) if each is not None)
        special = {content.content for content in tokenizer.get_added_tokens_decoder().values() if content.special}
        self.markers: Markers = "special" if special.issuperset(MARKERS) else "text"
        self._remembered = functools.lru_cache(maxsize=REMEMBERED_TEXTS)(self._ids)

    @classmethod
    def from_folder(cls, folder: Path, config: dict[str, Any] | None = None) -> FrameTokenizer:
        """Of a checkpoint; its special tokens as tokenizer_config.json names them, else its config.json."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise ValueError(f"{folder} has no tokenizer.json; save its tokenizer with transformers' fast class")
        tokenizer = Tokenizer.from_file(str(path))
        settings = _read_if_there(folder / "tokenizer_config.json")
        config = _read_if_there(folder / "config.json") if config is None else config

        def id_of(name: str) -> int | None:
            token = settings.get(f"{name}_token")
            content = token.get("content") if isinstance(token, dict) else token
            token_id = config.get(f"{name}_token_id") if content is None else tokenizer.token_to_id(content)
            return token_id[0] if isinstance(token_id, list) else token_id

        return cls(tokenizer, id_of("bos"), id_of("eos"), id_of("pad"))

    def tokenize(self, text: str) -> list[int]:
        # frames repeat: a passage stands before each of its questions, and every frame has the same pieces
        return list(self._remembered(text))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def control_id(self, token: str) -> int:
        """BOS and EOS are the model's own, whatever their spelling."""
        found = {BOS: self.bos_id, EOS: self.eos_id}.get(token, self.tokenizer.token_to_id(token))
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}; train it with training.tokenizer")
        return int(found)


def _known(token_id: int | None, purpose: str) -> int:
    if token_id is None:
        raise ValueError(f"the tokenizer names no token that {purpose}, which GRIT's frames need")
    return token_id


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of `vocab_size` tokens, special ones included."""
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_level(model: models.BPE) -> Tokenizer:
    """A tokenizer of these merges, over GPT-2's words."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write the files by which transformers and the converter know the tokenizer."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(MARKERS),
        model_max_length=context_length,
        padding_side="right",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
