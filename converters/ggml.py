"""ggml's own quantizer, called on one weight: blocks that are bit for bit what llama.cpp writes.

llama.cpp quantizes whole files and needs an unquantized one to read from. The routine inside takes rows, and takes
them from anywhere: so a weight goes from its checkpoint to its blocks without a file between. It runs in this
process, since what makes it abort (rows that fill no blocks, a matrix that is too short) is refused before.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

_LIBRARY = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}.get(sys.platform, "libggml-base.so")
_CHUNK_VALUES = 1 << 20
"""Some tenths of a second of work: short enough to stop soon, long enough that threads do not wait for each other."""


def quantize_rows(
    weight: NDArray[np.float32], kind: GGMLQuantizationType, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """A weight in blocks of a quantization type.

    Args:
        weight: [rows, columns]; columns fill whole blocks.
        importance: float32[columns], what an error in a column weighs; None where all weigh the same.
    Returns: uint8[rows, bytes of a row].
    Raises: ValueError if values are too large for the type.
    Source: ggml.h `ggml_quantize_chunk`, as llama.cpp's llama-quant.cpp calls it.
    """
    assert weight.dtype == np.float32 and weight.flags.c_contiguous and weight.ndim == 2
    assert importance is None or (importance.shape == weight.shape[1:] and importance.dtype == np.float32)
    num_rows, num_columns = weight.shape
    quantized = np.empty(gguf.quant_shape_to_byte_shape(weight.shape, kind), np.uint8)
    library, pointer = _library(), None if importance is None else importance.ctypes.data
    rows_at_once = max(1, _CHUNK_VALUES // num_columns)

    def quantize_from(row: int) -> bool:
        source, target = weight[row : row + rows_at_once], quantized[row : row + rows_at_once]
        library.ggml_quantize_chunk(kind, source.ctypes.data, target.ctypes.data, 0, len(source), num_columns, pointer)
        return bool(library.ggml_validate_row_data(kind, target.ctypes.data, target.nbytes))

    pool = ThreadPoolExecutor(os.cpu_count())  # ctypes lets other threads run while ggml works
    try:
        valid = all(pool.map(quantize_from, range(0, num_rows, rows_at_once)))
    finally:
        pool.shutdown(cancel_futures=True)
    if not valid:
        raise ValueError(f"values are too large for {kind.name}; convert to BF16 or F32")
    return quantized


@functools.cache
def _library() -> ctypes.CDLL:
    size, address = ctypes.c_int64, ctypes.c_void_p
    return load(
        {
            "ggml_quantize_chunk": (ctypes.c_size_t, ctypes.c_int, address, address, size, size, size, address),
            "ggml_validate_row_data": (ctypes.c_bool, ctypes.c_int, address, ctypes.c_size_t),
        }
    )


def load(functions: Mapping[str, tuple[Any, ...]]) -> ctypes.CDLL:
    """ggml's library, with these functions: what each returns, and takes.

    Raises: ValueError if it is not there or lacks one.
    """
    found = importlib.util.find_spec("llama_cpp")  # found, not imported: that would load every backend
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / "lib" / _LIBRARY
    try:
        library = ctypes.CDLL(str(path))
        for name, (returned, *taken) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = returned, taken
    except (OSError, AttributeError) as error:
        raise ValueError(f"llama-cpp-python has no usable {path}; install it again") from error
    return library
