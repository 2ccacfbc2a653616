"""A proof before the weights are written: llama.cpp cuts hard texts into the ids the checkpoint's tokenizer gives."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from converters import native

HARD_TEXTS = (
    "Hello world",
    "  two spaces before,   three within, and at the end  ",
    "a\tb\t\tc \n\n\n d\r\n\r\ne\n \n",
    "def f(x):\n    return {'a': x[0]**2}  # it's 100%\n\n\tif x != 1_000.5e-3: pass",
    "I'll say it's theirs, WE'VE said they'd SHE'S don't",
    "0 12 345 6789 1234567890 3.14159 1,000,000 ½ ² Ⅷ ٣",
    "Größe, naïve café, Ελληνικά, Русский, עברית, العربية, हिन्दी, ไทย",
    "日本語のテキスト、中文文本。한국어",
    "👍🏽 👩‍👩‍👧‍👦 🇫🇷 ☃️ 🤦🏿‍♂️ plain",
    "https://example.org/a_b?c=d&e=%20#f  <b>bold</b> && || :: -> =>",
    "--- === *** ... !!! ?!? ((())) [[]] {{}} \\n \\t $x^2$",
    "\u00a0no-break\u2003em\u200bzero\ufeffbom\u2028line",
    "ALLCAPS MixedCase snake_case kebab-case x1y2z3",
    "a" * 40 + " " * 40 + "b",
    "\x00\x01\x7f control",
)
"""Composed characters only: Qwen2's tokenizer composes text first (NFC), and llama.cpp does not."""


def check_tokenizer(checkpoint: Path, vocab_file: Path, enclosing: tuple[int, int] | None = None) -> None:
    """Compare token ids on HARD_TEXTS, where a library that reads the checkpoint's tokenizer is installed.

    Args:
        enclosing: the control tokens that an encoder's texts stand between; spaces at the ends of those do not count.
    Raises: ValueError showing the first text on which they differ.
    """
    if enclosing:
        _check_enclosing(checkpoint, *enclosing)
    texts = [text.strip() if enclosing else text for text in HARD_TEXTS]
    found = native.tokenize(vocab_file, texts)
    tokenize = reference_tokenizer(checkpoint)
    if tokenize is None:
        return
    for text, found_ids in zip(texts, found, strict=True):
        expected_ids = tokenize(text)
        if expected_ids != found_ids:
            at = first_difference(expected_ids, found_ids)
            raise ValueError(
                f"{checkpoint}: its tokenizer and llama.cpp read {text[:60]!r} differently from token {at} on "
                f"({expected_ids[at : at + 4]} and {found_ids[at : at + 4]}); this tokenizer cannot be converted"
            )


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Place of the first id that differs in two lists that are not equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def reference_tokenizer(checkpoint: Path) -> Callable[[str], list[int]] | None:
    """The checkpoint's own tokenizer, reading plain text: nothing in it is parsed as a special token.

    Returns: None where no library for it is installed.
    Raises: ValueError if the library cannot read its file.
    """
    if tokenizer := _json_tokenizer(checkpoint):
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
    if (path := checkpoint / "tokenizer.model").exists() and importlib.util.find_spec("sentencepiece"):
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        return lambda text: list(processor.encode(text))
    return None


def _check_enclosing(checkpoint: Path, opening: int, closing: int) -> None:
    tokenizer = _json_tokenizer(checkpoint)
    plain, enclosed = (
        tokenizer.encode("a", add_special_tokens=each).ids if tokenizer else [] for each in (False, True)
    )
    if tokenizer and enclosed != [opening, *plain, closing]:
        raise ValueError(
            f"{checkpoint}: its tokenizer reads 'a' as {enclosed}, expected {plain} between {opening} and {closing}"
        )


def _json_tokenizer(checkpoint: Path) -> Any:
    """The checkpoint's tokenizer.json, read by the tokenizers library; None without either."""
    path = checkpoint / "tokenizer.json"
    if not path.exists() or not importlib.util.find_spec("tokenizers"):
        return None
    from tokenizers import Tokenizer

    try:
        spec = path.read_text(encoding="utf-8")  # the libraries themselves open no path that is no text
        tokenizer = Tokenizer.from_str(spec)
        if type(tokenizer.model).__name__ == "Unigram":
            tokenizer = Tokenizer.from_str(_without_special_pieces(spec))
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"{path} cannot be read by the installed tokenizers library: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # lengths for which somebody once saved it
    tokenizer.no_padding()
    return tokenizer


def _without_special_pieces(spec: str) -> str:
    """A unigram tokenizer whose special tokens are spelled as nothing is: it finds them among its pieces in any text.

    SentencePiece does not, and neither does llama.cpp: "</s>" in a text is then what it is to every other tokenizer.
    """
    values = json.loads(spec)
    spelled = {}
    for token in values["added_tokens"]:
        if token["special"]:
            spelled[token["content"]] = token["content"] = f"\U0010fffd{token['id']}"
    values["model"]["vocab"] = [[spelled.get(piece, piece), score] for piece, score in values["model"]["vocab"]]
    return json.dumps(values)
