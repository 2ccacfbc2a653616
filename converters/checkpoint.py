"""A checkpoint folder: config.json as a dict, weights as arrays read one by one.

Files are mapped, not loaded, and read without torch: safetensors here, whose header names dtype, shape and byte range
of each tensor, and what torch pickled in pickled.py. Every weight leaves this file as float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.pickled import read_pickled
from converters.stored import BUFFERS, DTYPES, StoredTensor

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Read config.json and the headers of all shards; no weight is read yet.

        Raises: ValueError naming the file that is missing, damaged or of an unknown kind.
        """
        return Checkpoint(folder, read_config(folder), _usually_named(_read_headers(folder)))

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files and those of sentence-transformers lie."""
        return self.folder

    @property
    def name(self) -> str:
        """What the model is called: as its folder."""
        return name_as_text(self.folder.resolve())

    @property
    def dtype(self) -> str:
        """Dtype of the largest tensor: F32, F16 or BF16 (F64 counts as F32)."""
        largest = max(self.tensors.values(), key=lambda tensor: tensor.end - tensor.start)
        return largest.dtype.replace("F64", "F32")

    def read(self, name: str) -> Array:
        """One weight as float32.

        Raises: ValueError if the checkpoint has no such tensor, or the tensor holds NaN or infinity.
        """
        stored = self.tensors[name]
        stored.check_weight(name)
        mapped = np.memmap(stored.file, dtype=np.uint8, mode="r", offset=stored.start, shape=stored.end - stored.start)
        values = np.asarray(mapped).view(DTYPES[stored.dtype]).reshape(stored.shape)
        if stored.dtype == "BF16":
            bits = values.astype(np.uint32)
            bits <<= 16  # in place: a large vocabulary's matrix takes gigabytes
            array: Array = bits.view(np.float32)
        else:
            array = values.astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{stored.file}: tensor {name} holds NaN or infinite values; its training went wrong")
        return array


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder.

    Raises: ValueError if it is missing or damaged, or says that the weights are quantized already.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a checkpoint folder that holds config.json")
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise ValueError(f"{folder} holds already quantized weights; give the unquantized checkpoint")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises: ValueError if the file is missing or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}; is it a checkpoint folder?") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def _read_headers(folder: Path) -> dict[str, StoredTensor]:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    whole, read = safe, read_header
    if not (safe.exists() or _index_of(safe).exists()) and (pickled.exists() or _index_of(pickled).exists()):
        whole, read = pickled, read_pickled
    # as transformers does, which leaves the index of earlier shards behind when it saves the folder anew
    if whole.exists() or not (index := _index_of(whole)).exists():
        return read(_existing(whole))
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
        raise ValueError(f"{index} has no weight_map")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(shard_of.values())):
        tensors |= read(_existing(folder / Path(shard).name))
    if missing := sorted(set(shard_of) - set(tensors)):
        raise ValueError(f"{index} promises tensor {missing[0]} in {shard_of[missing[0]]}, which does not hold it")
    return tensors


def _usually_named(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """A decoder's tensors by the names they have below its output matrix: model.embed_tokens.weight and so on.

    A body saved alone has no `model.` in front, and one that was saved inside of its trainer has two.
    """
    usual, embeddings, head = "model.", "embed_tokens.weight", "lm_head.weight"
    prefixes = [name.removesuffix(embeddings) for name in tensors if name.endswith(embeddings)]
    if len(prefixes) != 1 or prefixes == [usual]:  # none is an encoder's
        return tensors
    (prefix,) = prefixes
    named = {f"{usual}{name.removeprefix(prefix)}" if name.startswith(prefix) else name: name for name in tensors}
    return {head if name.endswith(head) else name: tensors[found] for name, found in named.items()}


def name_as_text(path: Path) -> str:
    """The last part of a path, but for bytes in it that are no text, which no GGUF can hold."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def _index_of(whole: Path) -> Path:
    return whole.with_name(f"{whole.name}.index.json")


def _existing(file: Path) -> Path:
    if file.exists():
        return file
    raise ValueError(f"{file.parent} has no {file.name}; copy the checkpoint again, every shard of it")


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file.

    Raises: ValueError if it is missing, damaged, or holds what no weights are made of.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            beginning = stream.read(8)
            if beginning == b"version ":
                raise ValueError(f"{file} is what git keeps in place of a large file; fetch it with `git lfs pull`")
            data_start = 8 + int.from_bytes(beginning, "little")
            if data_start > size or size <= 8:
                raise ValueError(f"{file} is truncated or no safetensors file ({size} bytes); copy it again")
            header = stream.read(data_start - 8)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        found = {
            name: StoredTensor(
                file, entry["dtype"], tuple(entry["shape"]), *(data_start + at for at in entry["data_offsets"])
            )
            for name, entry in entries.items()
        }
        for name, stored in found.items():
            _check_stored(name, stored, size)
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{file} has no readable safetensors header; copy it again") from error
    return found


def _check_stored(name: str, stored: StoredTensor, size: int) -> None:
    if stored.dtype not in BUFFERS:
        stored.check_weight(name)
    if stored.end > size:
        raise ValueError(
            f"{stored.file} is truncated: tensor {name} ends at byte {stored.end}, the file has {size}; copy it again"
        )
    expected = int(np.prod(stored.shape)) * np.dtype((DTYPES | BUFFERS)[stored.dtype]).itemsize
    if stored.end - stored.start != expected or stored.start < 0:
        raise ValueError(
            f"{stored.file}: tensor {name} of shape {list(stored.shape)} takes {expected} bytes, "
            f"found {stored.end - stored.start}; copy it again"
        )
