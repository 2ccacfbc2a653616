"""Tokenizers of Hugging Face and SentencePiece as grit_format.FrameTokenizer: what llama.cpp is compared with."""

from __future__ import annotations

from pathlib import Path


class JsonTokenizer:
    """A folder's tokenizer.json, by the `tokenizers` library."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def tokenize(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = True
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tokenize_with_special(self, text: str, *, enclosed: bool = False) -> list[int]:
        """Ids of a whole frame as one string: special tokens in it are found, as GritLM's own training does.

        Args:
            enclosed: put the text between the special tokens that the tokenizer itself adds.
        """
        self._tokenizer.encode_special_tokens = False
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=enclosed).ids
        return ids

    def control_id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        assert found is not None, token
        return int(found)

    def piece(self, token_id: int) -> str:
        return str(self._tokenizer.id_to_token(token_id))


class SentencePieceTokenizer:
    """A folder's tokenizer.model, by the `sentencepiece` library."""

    def __init__(self, folder: Path) -> None:
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def control_id(self, token: str) -> int:
        return int(self._processor.piece_to_id(token))

    def piece(self, token_id: int) -> str:
        return str(self._processor.id_to_piece(token_id))
