"""The head of a GGUF file: what it says of itself and which tensors follow; and the same file saying more.

It is read as a stream and in one pass. Arrays, such as a vocabulary, are counted and passed over: the gguf package's
reader makes objects of their items, 617 MiB and 26 times the time for 128256 tokens and 280147 merges. Written anew,
everything that was there is copied byte for byte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gritdesk.errors import CHOOSE_MODEL, ModelError

Value = str | int | float | bool

_HEAD_BYTES = 24
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Format of each of the other types of values, by its number."""
_COPY_BYTES = 4 << 20
_MAX_DIMENSIONS = 4
_MAX_STRING_BYTES = 16 << 20
"""Of a key or a value; the longest that people write are chat templates, some kilobytes long."""


@dataclass(frozen=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    num_values: int
    size_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights."""

    path: Path
    size_bytes: int
    """Of the whole file."""
    values: Mapping[str, Value]
    """All values but arrays."""
    lengths: Mapping[str, int]
    """How many items each array has."""
    tensors: tuple[TensorInfo, ...]
    values_end: int
    """Where the values end in the file and the descriptions of the tensors begin."""
    tensors_end: int
    """Where these descriptions end."""
    data_start: int
    """Where the weights begin, to which the tensors' places relate."""

    @property
    def alignment(self) -> int:
        """Weights begin at multiples of so many bytes."""
        return int(self.values.get("general.alignment", 32))


def check_gguf(path: Path) -> None:
    """Look at a file's first bytes before llama.cpp does.

    Raises: ModelError if it is missing, unreadable, empty, no GGUF, or cut off right at its start.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ModelError(f"no model file at {path}, found {found}; {CHOOSE_MODEL}")
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; check its permissions") from error
    if not head:
        raise ModelError(f"the model {path} is empty; copy it again, or {CHOOSE_MODEL}")
    if head[:4] != b"GGUF":
        raise ModelError(
            f"{path} is not a GGUF file (it begins with {head[:4]!r}); "
            f"make one with `gritdesk convert CHECKPOINT OUT.gguf`, or {CHOOSE_MODEL}"
        )
    version, num_tensors, num_values = struct.unpack("<IQQ", head[4:].ljust(20, b"\0"))
    if version not in (2, 3):
        raise ModelError(
            f"{path} has GGUF version {version}, this program reads 2 and 3; convert it again, or {CHOOSE_MODEL}"
        )
    if not num_values or 24 * num_tensors + 13 * num_values > size_bytes:  # least bytes of their descriptions
        reason = f"its {size_bytes} bytes cannot hold what it lists"
        raise ModelError(f"{path} is damaged: {reason}; copy it again, or {CHOOSE_MODEL}")


def read_header(path: Path) -> GgufHeader:
    """Read a file's values and the descriptions of its tensors.

    Raises: ModelError if it is no GGUF, damaged, or shorter than its tensors are.
    """
    check_gguf(path)
    try:
        with path.open("rb") as file:
            header, end = _Reader(path, file).read()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; check its permissions") from error
    if header.size_bytes < end:
        raise ModelError(
            f"{path} is cut off: {header.size_bytes} of its {end} bytes are here; copy it again, or {CHOOSE_MODEL}"
        )
    return header


def read_opening(path: Path) -> Mapping[str, Value]:
    """The values that stand before the first array, such as a vocabulary: some kilobytes, whatever the file's size.

    Raises: ModelError if it is no GGUF, or damaged there.
    """
    check_gguf(path)
    try:
        with path.open("rb") as file:
            return _Reader(path, file).read_opening()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; check its permissions") from error


def write_with(header: GgufHeader, values: Mapping[str, Value], out: Path, is_stopped: Callable[[], bool]) -> bool:
    """Write the file again as `out` with more values, some megabytes at a time.

    Args:
        values: keys the file does not have; numbers are written as uint32 or float32.
        is_stopped: asked between copies.
    Returns: whether all was written, False if it was stopped.
    Raises: OSError if the one cannot be read or the other not be written.
    """
    added = b"".join(_packed(key, value) for key, value in values.items())
    with header.path.open("rb") as source, out.open("wb") as target:
        magic, version, num_tensors, num_values = struct.unpack("<4sIQQ", source.read(_HEAD_BYTES))
        target.write(struct.pack("<4sIQQ", magic, version, num_tensors, num_values + len(values)))
        target.write(source.read(header.values_end - _HEAD_BYTES))
        target.write(added)
        target.write(source.read(header.tensors_end - header.values_end))
        target.write(bytes(-target.tell() % header.alignment))
        source.seek(header.data_start)
        while piece := source.read(_COPY_BYTES):
            if is_stopped():
                return False
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())  # it takes its name next, which must not outlive its content
    return True


class _Reader:
    """One pass over a file's head; whatever it says is held against the file's length before it is believed."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._values: dict[str, Value] = {}
        self._lengths: dict[str, int] = {}

    def read(self) -> tuple[GgufHeader, int]:
        """The header, and where the last tensor ends."""
        num_tensors, num_values = self._counts()
        for _ in range(num_values):
            self._read_value()
        values_end = self._file.tell()
        tensors = list(self._tensors(num_tensors))
        tensors_end = self._file.tell()
        alignment = self._values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"its general.alignment is {alignment!r}")
        data_start = tensors_end + -tensors_end % alignment
        header = GgufHeader(
            self._path,
            self._size_bytes,
            self._values,
            self._lengths,
            tuple(info for info, _ in tensors),
            values_end,
            tensors_end,
            data_start,
        )
        return header, max((data_start + offset + info.size_bytes for info, offset in tensors), default=tensors_end)

    def read_opening(self) -> dict[str, Value]:
        """The values before the first array."""
        _, num_values = self._counts()
        for _ in range(num_values):
            key, kind = self._string(), self._number("I")
            if kind == _ARRAY:
                break
            self._values[key] = self._value(kind)
        return self._values

    def _counts(self) -> tuple[int, int]:
        _, _, num_tensors, num_values = struct.unpack("<4sIQQ", self._take(_HEAD_BYTES))
        return num_tensors, num_values

    def _read_value(self) -> None:
        key, kind = self._string(), self._number("I")
        if kind == _ARRAY:
            self._lengths[key] = self._pass_array()
        else:
            self._values[key] = self._value(kind)

    def _pass_array(self) -> int:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:  # an array of arrays, which llama.cpp does not read either, is refused as an unknown type
            self._skip(length * struct.calcsize(self._format(kind)))
        return length

    def _tensors(self, count: int) -> Iterator[tuple[TensorInfo, int]]:
        """Each tensor, and its place after the beginning of the weights."""
        from gguf.constants import GGML_QUANT_SIZES

        sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        for _ in range(count):
            name = self._string()
            num_dimensions = self._number("I")
            if num_dimensions > _MAX_DIMENSIONS:
                raise self._damaged(f"tensor {name} has {num_dimensions} dimensions")
            shape = tuple(self._number("Q") for _ in range(num_dimensions))
            kind, offset = self._number("I"), self._number("Q")
            if kind not in sizes:
                raise ModelError(f"{self._path}: tensor {name} is of type {kind}, which is not known; update gritdesk")
            num_values = 1
            for size in shape:
                num_values *= size
            block_size, block_bytes = sizes[kind]
            yield TensorInfo(name, shape, num_values, num_values // block_size * block_bytes), offset

    def _string(self) -> str:
        length = self._number("Q")
        if length > _MAX_STRING_BYTES:
            raise self._damaged(f"a name in it is {length} bytes long")
        return self._take(length).decode("utf-8", "replace")

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        letter = self._format(kind)
        value: Value = struct.unpack(f"<{letter}", self._take(struct.calcsize(letter)))[0]
        return value

    def _number(self, letter: str) -> int:
        return int(struct.unpack(f"<{letter}", self._take(struct.calcsize(f"<{letter}")))[0])

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise self._damaged(f"a value in it is of type {kind}")
        return _SCALARS[kind]

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise self._damaged(f"it ends after {self._size_bytes} bytes, in its head")
        return data

    def _skip(self, length: int) -> None:
        if length > self._size_bytes:
            raise self._damaged(f"it ends after {self._size_bytes} bytes, in its head")
        if length < 64:
            self._take(length)
        else:
            self._file.seek(length, os.SEEK_CUR)

    def _damaged(self, reason: str) -> ModelError:
        return ModelError(f"{self._path} is damaged: {reason}; copy it again, or {CHOOSE_MODEL}")


def _packed(key: str, value: Value) -> bytes:
    if isinstance(value, bool):
        return _packed_string(key) + struct.pack("<I?", 7, value)
    if isinstance(value, float):
        return _packed_string(key) + struct.pack("<If", 6, value)
    if isinstance(value, int):
        return _packed_string(key) + struct.pack("<II", 4, value)
    return _packed_string(key) + struct.pack("<I", _STRING) + _packed_string(value)


def _packed_string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
