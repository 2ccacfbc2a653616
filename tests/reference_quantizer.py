"""llama.cpp's own quantizer on whole files, as the reference for ours; in a child, since it may abort."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def quantize(
    source: Path,
    targets: Mapping[Path, int],
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    overrides: Sequence[tuple[str, int]] = (),
) -> None:
    """Write `source`, an unquantized GGUF, once for each target as its file type (a number of llama.cpp's).

    Args:
        overrides: pattern of a tensor's name -> number of its type.
    """
    job = {
        "source": str(source),
        "targets": {str(path): number for path, number in targets.items()},
        "importance": {name: weights.reshape(-1).tolist() for name, weights in (importance or {}).items()},
        "overrides": list(overrides),
    }
    subprocess.run([sys.executable, __file__], input=json.dumps(job), text=True, check=True, capture_output=True)


def _main() -> None:
    import ctypes

    import llama_cpp

    class Weights(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t)]

    class Override(ctypes.Structure):
        _fields_ = [("pattern", ctypes.c_char_p), ("type", ctypes.c_int)]

    job = json.load(sys.stdin)
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = 2
    if job["importance"]:
        weights = (Weights * (len(job["importance"]) + 1))()
        kept = [(ctypes.c_float * len(values))(*values) for values in job["importance"].values()]
        for each, name, values in zip(weights, job["importance"], kept, strict=False):
            each.name, each.size = name.encode(), len(values)
            each.data = ctypes.cast(values, ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(weights, type(params.imatrix))
    if job["overrides"]:
        overrides = (Override * (len(job["overrides"]) + 1))()
        for each, (pattern, number) in zip(overrides, job["overrides"], strict=False):
            each.pattern, each.type = pattern.encode(), number
        params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    for target, number in job["targets"].items():
        params.ftype = number
        if llama_cpp.llama_model_quantize(job["source"].encode(), target.encode(), ctypes.byref(params)):
            sys.exit(1)


if __name__ == "__main__":
    _main()
