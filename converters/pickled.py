"""pytorch_model.bin: where its weights lie, found without torch and without running what is in it.

torch.save writes a zip archive: a pickle, and beside it one uncompressed entry for each storage, so weights can be
mapped where they lie. A pickle is a program. Of the names it may call, those that put tensors together are answered
here by records, and every other one is refused: nothing of torch and nothing of a stranger's is ever run.

Source: PyTorch's serialization notes for the format; torch/_weights_only_unpickler.py for what weights need.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from converters.stored import BUFFERS, DTYPES, StoredTensor

_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
}
_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip entry: 30 bytes that end in the lengths of the name and of what is extra; both stand before the data."""


def read_pickled(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file.

    Raises: ValueError if it is missing, damaged, of torch's format before 1.6, or wants to run more than weights need.
    """
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
            entries = {entry.filename: entry for entry in archive.infolist()}
            (pickled,) = [name for name in entries if name.endswith("/data.pkl")]
            folder = pickled.removesuffix("data.pkl")
            if entries.keys() >= {f"{folder}byteorder"} and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError(f"{file} was written by a big-endian machine; save it again as safetensors")
            with archive.open(pickled) as program:
                found = _WeightsOnly(program).load()
            tensors = {name: each for name, each in found.items() if isinstance(each, _Tensor)}
            return {
                name: _stored(file, name, each, stream, entries[f"{folder}data/{each.storage.entry}"])
                for name, each in tensors.items()
            }
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except _Refused as error:
        raise ValueError(f"{file} {error}; get the checkpoint from another place, or as safetensors") from error
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged or of an old format; copy it again, or save it as safetensors") from error


@dataclass(frozen=True)
class _Storage:
    dtype: str
    entry: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    """Items of the storage before the tensor's first."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def is_contiguous(self) -> bool:
        expected = [prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return all(
            size == 1 or found == stride for size, found, stride in zip(self.shape, self.stride, expected, strict=True)
        )


class _Refused(Exception):
    pass


class _WeightsOnly(pickle.Unpickler):
    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (full_name := f"{module}.{name}") in known:
            return known[full_name]
        raise _Refused(f"asks to run {full_name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, entry, *_ = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise _Refused(f"holds a {kind} of {dtype}")
        return _Storage(dtype, entry)


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _stored(file: Path, name: str, tensor: _Tensor, stream: IO[bytes], entry: zipfile.ZipInfo) -> StoredTensor:
    if entry.compress_type != zipfile.ZIP_STORED or not tensor.is_contiguous():
        raise ValueError(f"{file}: tensor {name} does not lie there in one piece; save it again as safetensors")
    stream.seek(entry.header_offset)
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    item_bytes = np.dtype((DTYPES | BUFFERS)[tensor.storage.dtype]).itemsize
    first = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    start = first + tensor.offset * item_bytes
    end = start + prod(tensor.shape) * item_bytes
    if tensor.offset < 0 or end > first + entry.file_size:
        raise ValueError(f"{file}: tensor {name} is larger than what is kept of it; copy the file again")
    return StoredTensor(file, tensor.storage.dtype, tensor.shape, start, end)
