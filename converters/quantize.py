"""Which quantization type each tensor gets, and who computes it.

F32, F16, BF16 and Q8_0 are computed here in numpy, tensor by tensor. The K- and IQ-types choose a type per tensor by
rules that live in llama.cpp alone, so llama.cpp does those, from a file that holds the checkpoint's own precision.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, quants
from numpy.typing import NDArray

from converters import native
from converters.checkpoint import Array

NUMPY_TYPES = ("F32", "F16", "BF16", "Q8_0")
NATIVE_TYPES = (
    *("Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_XS", "IQ4_NL"),
    *("Q5_1", "Q5_0", "Q4_1", "Q4_0"),
)
"""Types below Q2_K need an importance matrix, which nothing here makes."""

_KEPT_WHOLE = ("ffn_gate_inp.weight", "position_embd.weight", "token_types.weight")


def parse_quantization_type(name: str) -> str:
    """The canonical name of a quantization type.

    Raises: ValueError that lists the known ones.
    """
    if (known := name.upper()) in (*NUMPY_TYPES, *NATIVE_TYPES):
        return known
    raise ValueError(f"quantization type {name!r} is unknown; known: {', '.join((*NUMPY_TYPES, *NATIVE_TYPES))}")


def file_type(quantization_type: str) -> int:
    """llama.cpp's number for a file of this type (general.file_type)."""
    name = "ALL_F32" if quantization_type == "F32" else f"MOSTLY_{quantization_type}"
    return int(getattr(LlamaFileType, name))


def tensor_type(target: str, shape: tuple[int, ...], quantization_type: str) -> GGMLQuantizationType:
    """Type of one tensor in a file of a numpy type.

    Vectors (norms, biases) stay F32, and so do an encoder's positions and token types: llama.cpp adds them as they are,
    and aborts on another type. So do routers: they are small, and a rounded one sends tokens to other experts. Rows
    that do not fill whole blocks become F16.

    Args:
        target: the tensor's name in the GGUF.
    """
    if len(shape) == 1 or target.endswith(_KEPT_WHOLE):
        return GGMLQuantizationType.F32
    block_size, _ = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[quantization_type]]
    return GGMLQuantizationType[quantization_type if shape[-1] % block_size == 0 else "F16"]


def quantize_tensor(name: str, weight: Array, kind: GGMLQuantizationType) -> NDArray[np.generic]:
    """A weight in the bytes of its type.

    Raises: ValueError if a value does not fit into F16.
    """
    if kind == GGMLQuantizationType.F16 and float(np.abs(weight).max(initial=0.0)) > 65504:
        raise ValueError(f"tensor {name} holds values beyond 65504, which F16 cannot keep; convert to BF16 or F32")
    data: NDArray[np.generic] = quants.quantize(np.ascontiguousarray(weight), kind)
    return data


def quantize_file(source: Path, target: Path, quantization_type: str) -> None:
    """Have llama.cpp write `source` (F32, F16 or BF16) again in a K- or IQ-type.

    Raises: ValueError with llama.cpp's last word if it fails.
    """
    native.quantize(source, target, file_type(quantization_type))
