"""Texts -> a byte-level BPE tokenizer with GRIT's markers as real special tokens.

The pre-tokenizer is GPT-2's, which every GGUF program knows, and by which a frame's newline never merges with
the text beside it: ids of the parts are the ids of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gritdesk.grit_format import BOS, CHAT_TEMPLATE, EOS, MARKERS

PAD = "<|pad|>"
SPECIAL_TOKENS = [PAD, BOS, EOS, *MARKERS]


class FrameTokenizer:
    """gritdesk.grit_format.FrameTokenizer on a `tokenizers` tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        # a person's text may spell a marker; it must stay text
        tokenizer.encode_special_tokens = True
        self.pad_id: int = tokenizer.token_to_id(PAD)
        self.eos_id: int = tokenizer.token_to_id(EOS)

    @classmethod
    def from_folder(cls, folder: Path) -> FrameTokenizer:
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def control_id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}; train it with training.tokenizer")
        return int(found)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of `vocab_size` tokens, special ones included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
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
