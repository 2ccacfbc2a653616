"""How much an error in each column of a weight costs: measured on texts, kept in a file, given to the quantizer.

A column is weighed by the mean square of what it is multiplied with while the model reads (converters.activations).
Files are those of llama.cpp's imatrix tool, in its GGUF form and in the older one: one made there can be used here, and
one made here by llama-quantize. Of paths only the last part is written into files, since these travel.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Literal, get_args

import gguf
import numpy as np
from numpy.typing import NDArray

from converters import native
from converters.architectures.base import Fields, TensorSpec
from converters.checkpoint import name_as_text
from converters.quantize import Importance, Quantization

Mode = Literal["both", "embedding", "generation"]
"""How the model reads the texts: as passages to embed, as text and chats, or each way with equal weight."""

MODES: tuple[Mode, ...] = get_args(Mode)

CHUNK_TOKENS = 512
"""Tokens read in one call, which llama.cpp's files count in."""

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Sums:
    """Of what one weight was multiplied with."""

    squares: NDArray[np.float32]
    """[experts, columns], summed over tokens; one row for a weight without experts."""
    counts: NDArray[np.float32]
    """[experts]: tokens that came to each, in whole numbers."""

    def means(self) -> NDArray[np.float32]:
        """[experts, columns]; where no token came, all columns weigh the same, as llama.cpp has it."""
        counts = self.counts[:, None]
        found: NDArray[np.float32] = np.where(counts > 0, self.squares / np.maximum(counts, 1), np.float32(1))
        return found


@dataclass(frozen=True)
class Matrix:
    """An importance matrix: the sums of all weights of a model that were seen."""

    sums: dict[str, Sums]
    """By the weight's name in the GGUF."""
    dataset: str = ""
    """Name of the texts."""
    num_chunks: int = 0
    """How much was read: calls of CHUNK_TOKENS tokens, or of how many another program took."""
    file: str = ""
    """Name of the file it came from, if it did."""

    def fields(self) -> Fields:
        """What llama.cpp writes about a matrix into a file that was quantized by it."""
        fields: Fields = {"quantize.imatrix.file": self.file, "quantize.imatrix.dataset": self.dataset}
        fields = {key: value for key, value in fields.items() if value}
        counts: Fields = {"quantize.imatrix.entries_count": len(self.sums)}
        return fields | counts | ({"quantize.imatrix.chunks_count": self.num_chunks} if self.num_chunks else {})


@dataclass(frozen=True)
class Calibration:
    """Texts to measure a matrix by."""

    texts: Sequence[str]
    name: str
    """Of the folder or file they are from."""
    mode: Mode = "both"


def measure(model: Path, calibration: Calibration, out: Path, progress: Callable[[str], None] | None = None) -> None:
    """Have a model read the texts, and write its matrix as `out`.

    Args:
        model: a GGUF. Q8_0 is near enough, and takes half the memory of F16, 8 GB for seven billion parameters: means
            of a random Llama were 0.3 % (median) from those of its F32 file, and 14 % where half the texts were read.
        progress: called with a line for each call.
    Raises: ValueError if the model cannot be run, cannot read that way, or gives what is no number.
    """
    found = native.run_child(
        "converters.activations",
        *("measure", str(model), str(out), calibration.name, calibration.mode),
        stdin=list(calibration.texts),
        progress=progress and (lambda line: progress(line) if not line.startswith("{") else None),
    )
    if "refused" in found:
        raise ValueError(found["refused"])


def weigh(quantization: Quantization, matrix: Matrix, specs: Sequence[TensorSpec]) -> Quantization:
    """The same quantization with columns weighed by the matrix.

    Raises: ValueError if it is of another model.
    """
    return replace(quantization, importance=fitted(matrix, specs), importance_fields=matrix.fields())


def fitted(matrix: Matrix, specs: Sequence[TensorSpec]) -> Importance:
    """A matrix in the shapes of a model's weights.

    Raises: ValueError naming the first weight that the model has not, or has in another size.
    """
    of_model = {spec.target: spec for spec in specs}
    source = matrix.file or "the importance matrix"
    importance: Importance = {}
    for name, sums in matrix.sums.items():
        if name not in of_model:
            raise ValueError(f"{source} is of another model: it weighs {name}, which this one does not have")
        spec, means = of_model[name], sums.means()
        shape = (spec.num_experts, spec.shape[-1]) if spec.num_experts else spec.shape[-1:]
        if means.size != np.prod(shape):
            raise ValueError(
                f"{source} is of another model: it weighs {means.size} columns of {name}, not {np.prod(shape)}"
            )
        importance[name] = np.ascontiguousarray(means.reshape(shape))
    return importance


# ---------------------------------------------------------------- files


def write_matrix(out: Path, matrix: Matrix) -> None:
    """Write a matrix as llama.cpp's imatrix tool does. Raises: OSError if it cannot be written."""
    writer = gguf.GGUFWriter(out, "imatrix")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", [matrix.dataset])
    writer.add_uint32("imatrix.chunk_count", matrix.num_chunks)
    writer.add_uint32("imatrix.chunk_size", CHUNK_TOKENS)
    for name in sorted(matrix.sums):
        writer.add_tensor(name + _SUMS, matrix.sums[name].squares)
        writer.add_tensor(name + _COUNTS, matrix.sums[name].counts[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_matrix(path: Path) -> Matrix:
    """Read a matrix that this program or llama.cpp wrote.

    Raises: ValueError if it cannot be read, is none, or holds what is no number.
    """
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
            file.seek(0)
            matrix = _read_gguf(path) if is_gguf else _read_old(file)
    except OSError as error:
        raise ValueError(f"cannot read the importance matrix {path}: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise ValueError(
            f"{path} is no importance matrix: {_reason(error)}; make one with `gritdesk imatrix`"
        ) from error
    for name, sums in matrix.sums.items():
        if not (np.isfinite(sums.squares).all() and (sums.squares >= 0).all() and np.isfinite(sums.counts).all()):
            raise ValueError(f"{path}: the importance of {name} has values that are no squares; measure it again")
    return replace(matrix, file=name_as_text(path))


def _reason(error: Exception) -> str:
    return (
        f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0] if str(error) else "damaged"
    )


def _read_gguf(path: Path) -> Matrix:
    reader = gguf.GGUFReader(path)
    if (field := reader.get_field("general.type")) is None or field.contents() != "imatrix":
        raise ValueError("its general.type is not imatrix")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if wrong := next((each for each in tensors.values() if each.tensor_type.name != "F32"), None):
        raise ValueError(f"{wrong.name} is of type {wrong.tensor_type.name}, expected F32")
    sums = {}
    for name in (each.removesuffix(_SUMS) for each in tensors if each.endswith(_SUMS)):
        counts = np.rint(tensors[name + _COUNTS].data.reshape(-1)).astype(np.float32)
        sums[name] = Sums(tensors[name + _SUMS].data.reshape(len(counts), -1).copy(), counts)
    if not sums:
        raise ValueError("it weighs nothing")
    datasets = reader.get_field("imatrix.datasets")
    chunks = reader.get_field("imatrix.chunk_count")
    dataset = next(iter(datasets.contents()), "") if datasets is not None else ""
    return Matrix(sums, _last_part(dataset), int(chunks.contents()) if chunks is not None else 0)


def _read_old(file: BinaryIO) -> Matrix:
    """llama.cpp's form until 2025: entries, each a name, a number of calls, and each column's mean times the calls."""

    def number() -> int:
        return int(struct.unpack("<i", file.read(4))[0])

    def text() -> str:
        return _exactly(file, number()).decode("utf-8")

    sums = {}
    num_entries = number()
    if num_entries < 1:
        raise ValueError("it begins with no number of entries")
    for _ in range(num_entries):
        name, num_calls, num_values = text(), number(), number()
        values = np.frombuffer(_exactly(file, 4 * num_values), np.float32)
        sums[name] = Sums(values[None].copy(), np.array([max(1, num_calls)], np.float32))
    rest = file.read(4)  # what follows came later
    return Matrix(sums, _last_part(text()) if rest else "", struct.unpack("<i", rest)[0] if rest else 0)


def _last_part(path: str) -> str:
    """Of a path of any system's, which are all taken apart by Windows' rules."""
    return PureWindowsPath(path).name


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = file.read(num_bytes) if num_bytes >= 0 else b""
    if num_bytes < 0 or len(data) < num_bytes:
        raise ValueError("it does not end where it says")
    return data
