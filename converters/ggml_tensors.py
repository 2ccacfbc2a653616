"""What ggml holds while it computes: an address -> the tensor there, its name, sizes and values.

ggml exports functions for most of what a tensor says of itself, but none for its sizes, its strides and what it was
computed from: these are read from its memory, by the layout of its struct. So the layout is first held against
tensors that ggml itself made in sizes known here, and where one detail differs, nothing is read.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from converters import ggml

_VALUES = {GGMLQuantizationType.F32: np.dtype(np.float32), GGMLQuantizationType.I32: np.dtype(np.int32)}
_DIMENSIONS, _SOURCES = 4, 10


class _Struct(ctypes.Structure):
    """ggml.h `struct ggml_tensor`, as far as its sources."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * _DIMENSIONS),
        ("strides", ctypes.c_size_t * _DIMENSIONS),
        ("operation", ctypes.c_int),
        ("operation_parameters", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("sources", ctypes.c_void_p * _SOURCES),
    ]


class _Memory(ctypes.Structure):
    """ggml.h `struct ggml_init_params`."""

    _fields_ = [("size_bytes", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("without_values", ctypes.c_bool)]


@dataclass(frozen=True)
class Tensor:
    """What a tensor says of itself; its sizes as in numpy, the longest stride first."""

    address: int
    type: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes; of types in blocks, of no use but to compare."""
    sources: tuple[int, ...]
    """Addresses of the tensors it is computed from."""


def operation(address: int) -> bytes:
    """How a tensor is computed, such as b"MUL_MAT"."""
    found: bytes = _checked_library().ggml_op_desc(address)
    return found


def name(address: int) -> str:
    """A weight has its name in the file."""
    found: bytes = _checked_library().ggml_get_name(address)
    return found.decode("utf-8", "replace")


def tensor(address: int) -> Tensor:
    """What stands at an address that ggml gave."""
    _checked_library()
    return _read(address)


def values(address: int) -> NDArray[Any]:
    """A copy of the values of a computed tensor of floats or integers.

    Raises: ValueError for a tensor of another type.
    """
    found, library = tensor(address), _checked_library()
    if found.type not in _VALUES:
        raise ValueError(f"values of {name(address)} are of type {found.type}, expected F32 or I32")
    data = np.empty(library.ggml_nbytes(address), np.uint8)
    library.ggml_backend_tensor_get(address, data.ctypes.data, 0, data.nbytes)
    kind = _VALUES[GGMLQuantizationType(found.type)]
    return np.ndarray(found.shape, kind, data.data, strides=found.strides)


def _read(address: int) -> Tensor:
    found = _Struct.from_address(address)
    sources = tuple(each for each in found.sources if each)
    return Tensor(address, found.type, tuple(found.sizes)[::-1], tuple(found.strides)[::-1], sources)


@functools.cache
def _checked_library() -> ctypes.CDLL:
    size, address = ctypes.c_size_t, ctypes.c_void_p
    shape = [ctypes.c_int64] * 3
    library = ggml.load(
        {
            "ggml_op_desc": (ctypes.c_char_p, address),
            "ggml_get_name": (ctypes.c_char_p, address),
            "ggml_nbytes": (size, address),
            "ggml_backend_tensor_get": (None, address, address, size, size),
            "ggml_tensor_overhead": (size,),
            "ggml_init": (address, _Memory),
            "ggml_free": (None, address),
            "ggml_new_tensor_2d": (address, address, ctypes.c_int, *shape[:2]),
            "ggml_new_tensor_3d": (address, address, ctypes.c_int, *shape),
            "ggml_mul_mat_id": (address, address, address, address, address),
        }
    )
    memory = library.ggml_init(_Memory(1 << 16, None, True))
    try:
        is_known = ctypes.sizeof(_Struct) <= library.ggml_tensor_overhead() and _is_laid_out(library, memory)
    finally:
        library.ggml_free(memory)
    if not is_known:
        raise ValueError(
            "this llama-cpp-python keeps its tensors in a way that is not known here; "
            "install gritdesk again, with the version of it that belongs to it"
        )
    return library


def _is_laid_out(library: ctypes.CDLL, memory: int) -> bool:
    """Whether the struct reads tensors that ggml makes: weights of 3 experts, two inputs of 7 tokens, 4 experts each.

    The sizes are the least that tell all apart; nothing is computed.
    """
    half, single, integer = (int(GGMLQuantizationType[kind]) for kind in ("F16", "F32", "I32"))
    weights = library.ggml_new_tensor_3d(memory, half, 8, 5, 3)
    inputs = library.ggml_new_tensor_3d(memory, single, 8, 2, 7)
    chosen = library.ggml_new_tensor_2d(memory, integer, 4, 7)
    product = library.ggml_mul_mat_id(memory, weights, inputs, chosen)
    expected = [
        Tensor(weights, half, (1, 3, 5, 8), (240, 80, 16, 2), ()),
        Tensor(inputs, single, (1, 7, 2, 8), (448, 64, 32, 4), ()),
        Tensor(chosen, integer, (1, 1, 7, 4), (112, 112, 16, 4), ()),
        Tensor(product, single, (1, 7, 4, 5), (560, 80, 20, 4), (weights, inputs, chosen)),
    ]
    return library.ggml_op_desc(product) == b"MUL_MAT_ID" and [_read(each.address) for each in expected] == expected
