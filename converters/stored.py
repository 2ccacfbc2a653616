"""Where a weight lies on the disk, whatever kind of file holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""Dtypes that weights come in, as safetensors calls them; BF16 is the upper half of a float32, which numpy lacks."""
BUFFERS = {"I64": np.int64}
"""Dtypes of what old encoders hold beside their weights: the numbers of their positions."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor's bytes lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte offset in the file."""
    end: int

    def check_weight(self, name: str) -> None:
        """Raises: ValueError if its numbers are of no dtype that weights have."""
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.file}: tensor {name} is {self.dtype}; weights must be one of {', '.join(DTYPES)}")
