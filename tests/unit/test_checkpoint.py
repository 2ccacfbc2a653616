"""Safetensors are read as the library wrote them, and damaged ones are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.checkpoint import Checkpoint, read_json

WEIGHTS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "b": np.linspace(-2, 2, 5).astype(np.float16),
    "c": np.array([[1.5], [-3.25]], dtype=np.float64),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    return tmp_path


def shard(folder: Path) -> None:
    """Put the same weights into two files with an index."""
    (folder / "model.safetensors").unlink()
    save_file({"a": WEIGHTS["a"]}, folder / "one.safetensors")
    save_file({"b": WEIGHTS["b"], "c": WEIGHTS["c"]}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("is_sharded", [False, True])
def test_weights_are_read_as_float32(folder: Path, is_sharded: bool) -> None:
    if is_sharded:
        shard(folder)
    checkpoint = Checkpoint.open(folder)
    assert set(checkpoint.tensors) == set(WEIGHTS)
    for name, expected in WEIGHTS.items():
        found = checkpoint.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def write_raw(path: Path, header: Any, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bfloat16_is_the_upper_half_of_a_float32(folder: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 1e-40], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    entry = {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}
    write_raw(folder / "model.safetensors", {"a": entry}, upper.tobytes())
    checkpoint = Checkpoint.open(folder)
    np.testing.assert_array_equal(checkpoint.read("a").view(np.uint32), upper.astype(np.uint32) << 16)
    assert checkpoint.dtype == "BF16"


def test_truncated_file_is_refused_with_the_tensor_that_is_cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated: tensor [abc] ends at byte \d+"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 64, b"\x05" + bytes(7) + b"hello"])
def test_file_that_is_no_safetensors_is_refused(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors (is truncated or|has no readable)"):
        Checkpoint.open(folder)


def test_whole_numbers_may_lie_beside_the_weights_but_are_none(folder: Path) -> None:
    write_raw(folder / "model.safetensors", {"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8))
    with pytest.raises(ValueError, match="tensor a is I64; weights must be one of"):
        Checkpoint.open(folder).read("a")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}, "tensor a is I32"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, r"tensor a of shape \[3\] takes 12 bytes, found 8"),
        ({"dtype": "F32", "data_offsets": [0, 8]}, "no readable safetensors header"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "no readable safetensors header"),
        ("F32", "no readable safetensors header"),
    ],
)
def test_wrong_header_is_refused(folder: Path, entry: Any, message: str) -> None:
    write_raw(folder / "model.safetensors", {"a": entry}, bytes(8))
    with pytest.raises(ValueError, match=message):
        Checkpoint.open(folder)


def test_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "two.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no two\.safetensors"):
        Checkpoint.open(folder)


def test_tensor_promised_by_the_index_but_absent_is_named(folder: Path) -> None:
    shard(folder)
    save_file({"b": WEIGHTS["b"]}, folder / "two.safetensors")
    with pytest.raises(ValueError, match=r"promises tensor c in two\.safetensors"):
        Checkpoint.open(folder)


def test_index_that_an_earlier_save_left_behind_is_not_asked(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}', encoding="utf-8")
    assert Checkpoint.open(folder).tensors.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {"a": 1}}', "[]", "{"])
def test_damaged_index_is_refused(folder: Path, index: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match=r"index\.json"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weight_that_is_no_number_is_refused_by_name(folder: Path, bad: float) -> None:
    save_file({"model.norm.weight": np.array([1.0, bad], dtype=np.float32)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: tensor model\.norm\.weight holds NaN or infinite"):
        Checkpoint.open(folder).read("model.norm.weight")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Checkpoint.open(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        Checkpoint.open(tmp_path / "nowhere")


def test_already_quantized_weights_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"quantization_config": {"bits": 4}}', encoding="utf-8")
    with pytest.raises(ValueError, match="already quantized"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[1]", b""])
def test_file_that_is_no_json_object_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
