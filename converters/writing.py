"""A plan becomes GGUF files: each weight is read once, laid out, quantized and written before the next one is read.

Files appear whole or not at all: they grow in a folder beside their target, which one conversion at a time may use,
and which the next one clears if its owner was killed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock
import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from converters import quantize
from converters.architectures.base import FieldValue, TensorSpec, permute
from converters.checkpoint import Array, Checkpoint
from converters.plan import Plan
from converters.quantize import Quantization

Progress = Callable[[str], None]
Kinds = list[GGMLQuantizationType]


def write_ggufs(files: Mapping[Path, Quantization], plan: Plan, progress: Progress) -> None:
    """Write the same model once for each file; a weight is read once for all of them.

    Raises: ValueError if a weight is damaged or does not fit into its type; OSError if a file cannot be written.
    """
    kinds = [quantize.tensor_types(plan.specs, each, plan.shape) for each in files.values()]
    with ExitStack() as open_files:
        writers = [
            open_files.enter_context(_header(path, plan, each, kind))
            for (path, each), kind in zip(files.items(), kinds, strict=True)
        ]
        remaining = Remaining(sum(int(np.prod(spec.shape)) for spec in plan.specs))
        for number, (spec, *types) in enumerate(zip(plan.specs, *kinds, strict=True), start=1):
            names = ", ".join(dict.fromkeys(kind.name for kind in types))
            progress(f"writing tensor {number}/{len(plan.specs)} {spec.target} ({names}){remaining}")
            weighed = [each.importance.get(spec.target) for each in files.values()]
            for writer, tensor in zip(writers, quantized(plan.source, spec, types, weighed), strict=True):
                writer.write_tensor_data(tensor)
            remaining.count(int(np.prod(spec.shape)))


def file_size(plan: Plan, quantization: Quantization) -> int:
    """Bytes that a file's tensors will take."""
    kinds = quantize.tensor_types(plan.specs, quantization, plan.shape)
    return sum(_num_bytes(spec, kind) for spec, kind in zip(plan.specs, kinds, strict=True))


def quantized(
    source: Checkpoint,
    spec: TensorSpec,
    kinds: Sequence[GGMLQuantizationType],
    importance: Sequence[NDArray[np.float32] | None] = (),
) -> list[NDArray[np.generic]]:
    """One tensor of the GGUF in the bytes of each type; of several experts, one at a time is held as float32.

    Args:
        importance: of each kind, float32[columns] or [experts, columns]; none where all columns weigh the same.
    """
    importance = importance or [None] * len(kinds)
    if not spec.num_experts:
        name = spec.source or spec.target
        weight = spec.values if spec.values is not None else load(source, name, spec)
        return [quantize.quantize_tensor(name, weight, *each) for each in zip(kinds, importance, strict=True)]
    stacked: list[NDArray[np.generic]] = []
    for expert, name in enumerate(spec.sources):
        weight = load(source, name, spec)
        for number, (kind, weighed) in enumerate(zip(kinds, importance, strict=True)):
            part = quantize.quantize_tensor(name, weight, kind, None if weighed is None else weighed[expert])
            if not expert:
                stacked.append(np.empty((spec.num_experts, *part.shape), part.dtype))
            stacked[number][expert] = part
    return stacked


def load(source: Checkpoint, name: str, spec: TensorSpec) -> Array:
    """A weight as the GGUF keeps it: its rows in the order llama.cpp expects, what is to be added to it added."""
    weight = source.read(name)
    weight = weight[spec.first_row :][: spec.shape[0]] if spec.num_source_rows else weight
    weight = permute(weight, spec.permuted_heads) if spec.permuted_heads else weight
    return weight + np.float32(spec.added) if spec.added else weight


def check_target(out: Path) -> None:
    """Raises: ValueError if no file can have this name."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file to write")
    if out.exists() and not out.is_file():  # replacing /dev/null, as root may, harms the whole machine
        raise ValueError(f"{out} is a device or a pipe; name a file to write")
    if out.exists() and not os.access(out, os.W_OK):
        raise ValueError(f"{out} may not be written to; allow it, or name another file")
    if not out.parent.is_dir():
        raise ValueError(f"the folder {out.parent} does not exist; make it first")


def check_space(sizes: Mapping[Path, int]) -> None:
    """Raises: ValueError if files of these sizes in bytes do not fit on their disks."""
    needed: dict[int, list[tuple[Path, int]]] = {}
    for out, size_bytes in sizes.items():
        needed.setdefault(out.parent.stat().st_dev, []).append((out, size_bytes))
    for files in needed.values():
        total, free = sum(size_bytes for _, size_bytes in files), shutil.disk_usage(files[0][0].parent).free
        if total > free:
            raise ValueError(
                f"{files[0][0].parent} has {free / 1e6:,.1f} MB free and {total / 1e6:,.1f} MB are needed; "
                "make room or write elsewhere"
            )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `out` if all goes well, alone in a scratch folder beside it.

    Raises: ValueError if the folder cannot be written to, or the disk fills up, or another conversion writes `out`.
    """
    check_target(out)
    scratch = out.parent / f".{out.name}.partial"
    lock = filelock.FileLock(scratch / "lock", blocking=False)
    is_anothers = False
    try:  # from before the folder is made: Ctrl+C may come at any moment
        with _told_of(out):
            scratch.mkdir(exist_ok=True)
            lock.acquire()
            for left_behind in scratch.glob("*.gguf"):  # by a conversion that was killed
                left_behind.unlink()
            yield scratch / "whole.gguf"
            os.replace(scratch / "whole.gguf", out)
    except filelock.Timeout as error:
        is_anothers = True
        raise ValueError(f"another conversion is writing {out}; wait for it") from error
    finally:
        lock.release()
        if not is_anothers:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _told_of(out: Path) -> Iterator[None]:
    try:
        yield
    except filelock.Timeout:
        raise
    except OSError as error:
        # numpy reports a write cut short without an errno
        reason = error.strerror or f"{error}; is the disk full?"
        raise ValueError(f"cannot write {out}: {reason}") from error


class Remaining:
    """How long the rest will take, as a part of a line; empty until there is something to go by."""

    def __init__(self, num_values: int) -> None:
        self._num_values, self._done, self._start = num_values, 0, time.monotonic()

    def count(self, num_values: int) -> None:
        self._done += num_values

    def __str__(self) -> str:
        elapsed_s = time.monotonic() - self._start
        if elapsed_s < 5:
            return ""
        left_s = elapsed_s * (self._num_values / max(1, self._done) - 1)
        return f", {left_s / 60:.0f} min left" if left_s >= 90 else f", {left_s:.0f} s left"


@contextmanager
def _header(path: Path, plan: Plan, quantization: Quantization, kinds: Kinds) -> Iterator[gguf.GGUFWriter]:
    """A writer that has written all but the weights and waits for them in order."""
    writer = gguf.GGUFWriter(path, plan.architecture.gguf_name)
    try:
        for key, value in {**plan.fields, **quantization.importance_fields}.items():
            _add_field(writer, key, value)
        writer.add_file_type(quantize.file_type(quantization.file_type))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for spec, kind in zip(plan.specs, kinds, strict=True):
            byte_shape, size_bytes = gguf.quant_shape_to_byte_shape(spec.shape, kind), _num_bytes(spec, kind)
            writer.add_tensor_info(spec.target, byte_shape, np.dtype(np.uint8), size_bytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield writer
    finally:
        writer.close()


def _num_bytes(spec: TensorSpec, kind: GGMLQuantizationType) -> int:
    return int(np.prod(gguf.quant_shape_to_byte_shape(spec.shape, kind)))


def _add_field(writer: Any, key: str, value: FieldValue) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)
