"""Weights of two files, tensor by tensor: a slight damage hides behind coarse quantization, but not here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from converters.checkpoint import Array
from converters.verify import Row

ERRORS = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.015,
    "Q6": 0.05,
    "Q5": 0.1,
    "Q4": 0.18,
    "Q3": 0.3,
    "Q2": 0.6,
}
"""Largest error of a tensor of one type, as a share of its length; about twice that of normally distributed weights."""


class Weights(Protocol):
    """A file's tensors by the names they have in a GGUF."""

    def types(self) -> dict[str, str]:
        """Quantization type of each tensor."""
        ...

    def weight(self, name: str) -> Array:
        """One tensor's values, of any shape."""
        ...


def weights_row(found: Weights, expected: Weights) -> Row:
    """The tensor that misses what it should be by most, measured by what its type allows.

    Raises: ValueError if only one of the two has a tensor.
    """
    return max(_rows(found, expected), key=lambda row: row.value / row.limit if np.isfinite(row.value) else np.inf)


def _rows(found: Weights, expected: Weights) -> Iterator[Row]:
    found_types, expected_types = found.types(), expected.types()
    if missing := sorted(expected_types.keys() ^ found_types.keys()):
        raise ValueError(f"only one of the two files has the tensor {missing[0]}; they are not of one model")
    for name, found_type in found_types.items():
        limit = max(allowed_error(found_type), allowed_error(expected_types[name]))
        yield Row(
            "error of the worst weights", _error(found.weight(name), expected.weight(name)), limit, "at most", name
        )


def allowed_error(tensor_type: str) -> float:
    """The limit for tensors of a type; IQ4_XS counts as a Q4, an unknown type as a Q2."""
    return ERRORS.get(tensor_type) or ERRORS.get(tensor_type.removeprefix("I")[:2], ERRORS["Q2"])


def _error(found: Array, expected: Array) -> float:
    if found.size != expected.size:
        return np.inf
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found.reshape(-1) - expected.reshape(-1))) / (length or 1.0)
