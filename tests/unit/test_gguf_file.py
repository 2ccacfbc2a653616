"""A GGUF's head is read as the gguf package reads it, damage is told, and what is written anew says the same."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import pytest

from gritdesk.errors import ModelError
from gritdesk.gguf_file import read_header, read_opening, write_with


def contents(path: Path) -> dict[str, Any]:
    """All values, as the reader of the format's makers gives them."""
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def test_header_is_what_the_gguf_package_reads(tiny_gguf_q8: Path) -> None:
    header, reader = read_header(tiny_gguf_q8), gguf.GGUFReader(tiny_gguf_q8)
    expected = contents(tiny_gguf_q8)
    assert dict(header.values) == {key: value for key, value in expected.items() if not isinstance(value, list)}
    assert dict(header.lengths) == {key: len(value) for key, value in expected.items() if isinstance(value, list)}
    assert header.data_start == reader.data_offset and header.size_bytes == tiny_gguf_q8.stat().st_size
    found = [(each.name, each.shape, each.num_values, each.size_bytes) for each in header.tensors]
    assert found == [(each.name, tuple(each.shape), each.n_elements, each.n_bytes) for each in reader.tensors]


def test_written_with_more_values_nothing_else_changes(tiny_gguf_q8: Path, tmp_path: Path) -> None:
    added: dict[str, str | int | bool] = {"my.text": "für mich", "my.number": 7, "my.truth": True, "my.nothing": ""}
    assert write_with(read_header(tiny_gguf_q8), added, tmp_path / "more.gguf", lambda: False)
    assert contents(tmp_path / "more.gguf") == contents(tiny_gguf_q8) | added
    pairs = zip(gguf.GGUFReader(tmp_path / "more.gguf").tensors, gguf.GGUFReader(tiny_gguf_q8).tensors, strict=True)
    for ours, theirs in pairs:
        assert (ours.name, ours.tensor_type) == (theirs.name, theirs.tensor_type)
        assert ours.data.tobytes() == theirs.data.tobytes()


def test_written_with_nothing_more_it_is_the_same_file(tiny_gguf: Path, tmp_path: Path) -> None:
    write_with(read_header(tiny_gguf), {}, tmp_path / "same.gguf", lambda: False)
    assert (tmp_path / "same.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_opening_ends_before_the_first_list(tiny_gguf_q8: Path) -> None:
    values, keys = dict(read_opening(tiny_gguf_q8)), list(contents(tiny_gguf_q8))
    first_list = next(key for key, value in contents(tiny_gguf_q8).items() if isinstance(value, list))
    assert list(values) == keys[: keys.index(first_list)] and values["grit.jobs"] == "embedding, generation"


def test_file_without_tensors_is_whole(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "vocab.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert read_header(tmp_path / "vocab.gguf").tensors == ()


def test_stopped_writing_says_so(tiny_gguf: Path, tmp_path: Path) -> None:
    assert not write_with(read_header(tiny_gguf), {}, tmp_path / "part.gguf", lambda: True)


def test_alignment_of_the_file_is_kept(tmp_path: Path) -> None:
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "wide.gguf", "llama")
    writer.add_custom_alignment(128)
    writer.add_tensor("one", np.arange(5, dtype=np.float32))
    writer.add_tensor("two", np.arange(7, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_with(read_header(tmp_path / "wide.gguf"), {"my.text": "x"}, tmp_path / "more.gguf", lambda: False)
    one, two = gguf.GGUFReader(tmp_path / "more.gguf").tensors
    assert (one.data.tolist(), two.data.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01, 0.001])
def test_file_that_is_cut_off_is_told(tiny_gguf: Path, tmp_path: Path, kept: float) -> None:
    data = tiny_gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelError, match=r"cut\.gguf is (cut off|damaged): .*copy it again"):
        read_header(tmp_path / "cut.gguf")


def head(num_tensors: int, num_values: int, rest: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, num_tensors, num_values) + rest + bytes(100)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"PNG" * 99, "not a GGUF file"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 1), "GGUF version"),
        (head(0, 1, struct.pack("<Q", 1 << 60)), "a name in it is"),
        (head(0, 1, struct.pack("<Q", 1 << 20)), "it ends after"),
        (head(0, 1, struct.pack("<Q1sI", 1, b"k", 77)), "a value in it is of type 77"),
        (head(0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1)), "a value in it is of type 9"),
        (head(0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 1 << 60)), "it ends after"),
        (head(0, 1, struct.pack("<Q17sII", 17, b"general.alignment", 4, 0)), "general.alignment is 0"),
        (head(1, 1, struct.pack("<Q1sIIQ1sI", 1, b"k", 4, 0, 1, b"t", 99)), "tensor t has 99 dimensions"),
        (head(1, 1, struct.pack("<Q1sIIQ1sIQIQ", 1, b"k", 4, 0, 1, b"t", 1, 8, 999, 0)), "type 999"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=said) as caught:
        read_header(tmp_path / "bad.gguf")
    assert "bad.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_folder_and_nothing_are_no_models(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ModelError, match="no model file at"):
            read_header(path)
