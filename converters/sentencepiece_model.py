"""Reading a SentencePiece tokenizer.model: a protobuf message, of which a few fields are needed.

Read from the wire format itself, so that converting needs neither sentencepiece nor protobuf installed.
Field numbers: google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNIGRAM, BPE = 1, 2
"""Values of `SentencePieceModel.model_type` that occur."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class SentencePieceModel:
    pieces: list[str]
    scores: list[float]
    types: list[int]
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte: the same numbers as in a GGUF."""
    model_type: int
    bos_id: int
    eos_id: int
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    normalizes: bool
    """It maps characters (NFKC or the like) before cutting them into pieces."""


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Parse a tokenizer.model.

    Raises: ValueError if it is no SentencePiece model.
    """
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            message = dict(_fields(value)) if isinstance(value, bytes) else {}
            if number == 1:
                pieces.append(_bytes(message[1]).decode("utf-8"))
                scores.append(struct.unpack("<f", _bytes(message.get(2, bytes(4))))[0])
                types.append(_int(message.get(3, 1)))
            elif number == 2:
                trainer = message
            elif number == 3:
                normalizer = message
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise ValueError(f"{path} is no SentencePiece model; copy it again") from error
    if not pieces:
        raise ValueError(f"{path} is no SentencePiece model: it holds no pieces")
    return SentencePieceModel(
        pieces,
        scores,
        types,
        model_type=_int(trainer.get(3, UNIGRAM)),
        bos_id=_signed(_int(trainer.get(41, 1))),
        eos_id=_signed(_int(trainer.get(42, 2))),
        add_space_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        normalizes=bool(normalizer.get(2, b"")),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one message: varints as int, all else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("the message ends early")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at


def _int(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("expected a number")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("expected bytes")


def _signed(value: int) -> int:
    """A negative int32 travels as a 64-bit varint."""
    return value - (1 << 64) if value >> 63 else value
