"""What columns weigh: measured as transformers multiplies, kept as llama.cpp keeps it, and felt by the quantizer."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import reference_quantizer
from click.testing import CliRunner
from numpy.typing import NDArray
from tiny import make_checkpoint, make_encoder

from converters import ggml_tensors
from converters.activations import embedding_ids, generation_ids, measure
from converters.hf_to_gguf import convert
from converters.importance import Matrix, Sums, fitted, read_matrix, write_matrix
from converters.plan import read_plan
from converters.quantize import file_type
from gritdesk import cli_convert
from gritdesk.cli import main
from gritdesk.engine.llama import EmbeddingContext, LlamaModel

TEXTS = [
    "The lamp is lit at dusk and put out at dawn; nobody has ever counted the hours between.",
    "Three boats lie in the harbour, two of them blue, and the third has no colour left at all.",
    "A window.",
    "Whoever climbs the tower counts the steps, and no two people have found the same number of them yet.",
]
NAMES = {
    **{"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"},
    **{"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp"},
    **{"query": "attn_q", "key": "attn_k", "value": "attn_v", "attention.output.dense": "attn_output"},
    **{"intermediate.dense": "ffn_up", "output.dense": "ffn_down"},
}
"""End of a module's name in transformers -> what llama.cpp calls its weight; the longest end that fits counts."""


class Hooks:
    """Sums of the squares of what transformers' modules are given: of layers' matrices, and of stacked experts."""

    def __init__(self, folder: Path, *, is_encoder: bool = False) -> None:
        import torch
        import transformers

        self._torch, self._is_encoder = torch, is_encoder
        kind = transformers.AutoModel if is_encoder else transformers.AutoModelForCausalLM
        self._model: Any = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.sums: dict[str, Any] = defaultdict(lambda: 0)
        for path, module in self._model.named_modules():
            layer = next((part for part in path.split(".") if part.isdigit()), None)
            name = next((NAMES[end] for end in sorted(NAMES, key=len, reverse=True) if path.endswith(end)), None)
            if layer and name and hasattr(module, "weight"):
                module.register_forward_pre_hook(self._adds(f"blk.{layer}.{name}.weight"))
            elif path.endswith("experts"):
                module.register_forward_pre_hook(self._adds_experts(f"blk.{layer}."))

    def read(self, sequences: Sequence[Sequence[int]], *, causal: bool) -> int:
        """Returns: how many tokens were read."""
        with self._torch.no_grad():
            for ids in sequences:
                attention = {} if self._is_encoder else {"is_causal": causal, "use_cache": False}
                self._model.base_model(self._torch.tensor([ids]), **attention)
        return sum(map(len, sequences))

    def _adds(self, name: str) -> Any:
        def hook(module: Any, inputs: Any) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            self.sums[name] = self.sums[name] + (rows**2).sum(0, keepdim=True).numpy()

        return hook

    def _adds_experts(self, prefix: str) -> Any:
        def hook(experts: Any, inputs: Any) -> None:
            rows, chosen = inputs[0].reshape(-1, inputs[0].shape[-1]), inputs[1]
            for name in ("gate", "up", "down"):
                found = []
                for expert in range(len(experts.gate_up_proj)):
                    given = rows[(chosen == expert).any(-1)]
                    if name == "down":
                        gate, up = (given @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
                        given = self._torch.nn.functional.silu(gate) * up
                    found.append((given.double() ** 2).sum(0).numpy())
                self.sums[f"{prefix}ffn_{name}_exps.weight"] = self.sums[f"{prefix}ffn_{name}_exps.weight"] + np.array(
                    found
                )

        return hook


def assert_same_sums(found: Matrix, expected: dict[str, NDArray[np.float64]], tolerance: float = 2e-4) -> None:
    assert found.sums.keys() == expected.keys()
    for name, values in expected.items():
        assert found.sums[name].squares.shape == values.shape, name
        np.testing.assert_allclose(found.sums[name].squares, values, rtol=tolerance, atol=1e-5, err_msg=name)


GELU_TOLERANCE = 5e-3
"""ggml looks GELU up in a table of half floats."""

MODELS: dict[str, dict[str, Any]] = {
    "dense": {"family": "qwen3"},
    "experts": {"family": "mixtral", "num_local_experts": 5, "num_experts_per_tok": 2},
    "windows": {"family": "gemma3", "tokenizer": "sentencepiece", "pre": "gemma", "sliding_window": 24},
}


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS.keys())
def test_squares_are_those_of_what_transformers_multiplies(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **settings)
    convert(folder, tmp_path / "model.gguf", "F32")
    hooks, num_tokens, tolerance = {}, {}, GELU_TOLERANCE if settings["family"] == "gemma3" else 2e-4
    with LlamaModel(tmp_path / "model.gguf") as model:
        room = EmbeddingContext(model).max_tokens
        for mode, ids in (("embedding", embedding_ids), ("generation", generation_ids)):
            hooks[mode] = Hooks(folder)
            num_tokens[mode] = hooks[mode].read(list(ids(model, TEXTS, room)), causal=mode == "generation")
            found = measure(model, TEXTS, "texts", mode)  # type: ignore[arg-type]
            assert_same_sums(found, hooks[mode].sums, tolerance)
            dense = [sums.counts for name, sums in found.sums.items() if "_exps" not in name]
            assert all(counts.tolist() == [num_tokens[mode]] for counts in dense)
        both = measure(model, TEXTS, "texts", "both")
    for name, sums in both.sums.items():
        # of equal weight, whichever mode read more tokens; among experts up to a factor of each
        expected = sum(hooks[mode].sums[name] / num_tokens[mode] for mode in hooks)
        found_means = sums.means()
        scale = expected.sum(axis=1) / np.maximum(found_means.sum(axis=1), 1e-30)
        np.testing.assert_allclose(found_means * scale[:, None], expected, rtol=2 * tolerance, atol=1e-6, err_msg=name)
        if len(scale) == 1:
            assert abs(scale[0] - 2) < 0.01, name
    difference = hooks["embedding"].sums["blk.1.attn_q.weight"] / num_tokens["embedding"]
    difference = difference / (hooks["generation"].sums["blk.1.attn_q.weight"] / num_tokens["generation"])
    assert np.abs(difference - 1).max() > 0.01, "the modes differ, or this test would prove little"


def test_encoder_is_measured_in_what_it_does(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder", "bert")
    convert(folder, tmp_path / "model.gguf", "F32")
    with LlamaModel(tmp_path / "model.gguf") as model:
        hooks = Hooks(folder, is_encoder=True)
        hooks.read(list(embedding_ids(model, TEXTS, 128)), causal=False)
        assert_same_sums(measure(model, TEXTS, "texts", "both"), hooks.sums, GELU_TOLERANCE)
        with pytest.raises(ValueError, match="only embeds: it cannot be measured in generation"):
            measure(model, TEXTS, "texts", "generation")


def test_tensors_that_are_laid_out_otherwise_are_refused_before_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ctypes.Structure):
        _fields_ = [*ggml_tensors._Struct._fields_[:-1], ("new", ctypes.c_int64), ggml_tensors._Struct._fields_[-1]]

    ggml_tensors._checked_library.cache_clear()
    monkeypatch.setattr(ggml_tensors, "_Struct", Other)
    with pytest.raises(ValueError, match="keeps its tensors in a way that is not known here"):
        ggml_tensors.operation(0)
    monkeypatch.undo()
    assert ggml_tensors._checked_library()


# ---------------------------------------------------------------- files


def means_by_the_formula(path: Path) -> dict[str, NDArray[np.float32]]:
    """As llama-quantize reads a file: sums / counts, and ones where nothing was counted."""
    tensors = {each.name: each.data for each in gguf.GGUFReader(path).tensors}
    return {
        name.removesuffix(".in_sum2"): np.where(
            counts > 0, np.float32(sums) / np.maximum(counts, np.float32(1)), np.float32(1)
        )
        for name, sums in tensors.items()
        if name.endswith(".in_sum2")
        for counts in [tensors[name.replace(".in_sum2", ".counts")]]
    }


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_files_quantized_by_a_measured_matrix_are_llama_cpps_byte_for_byte(tmp_path: Path, family: Any) -> None:
    experts = {"num_local_experts": 4} if family == "mixtral" else {}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", family, **experts)
    (tmp_path / "texts.md").write_text("\n\n".join(TEXTS * 3), encoding="utf-8")
    convert(checkpoint, tmp_path / "F32.gguf", "F32")
    run("imatrix", tmp_path / "F32.gguf", tmp_path / "texts.md", tmp_path / "matrix.gguf")
    names = ("Q4_K_M", "Q2_K", "IQ4_XS")
    types = [option for name in names for option in ("--type", name)]
    run("convert", checkpoint, tmp_path / "{type}.ours.gguf", *types, "--imatrix", tmp_path / "matrix.gguf")
    theirs = {tmp_path / f"{name}.theirs.gguf": file_type(name) for name in names}
    importance = means_by_the_formula(tmp_path / "matrix.gguf")
    assert any("_exps" in name for name in importance) == bool(experts)
    reference_quantizer.quantize(tmp_path / "F32.gguf", theirs, importance)
    for name in names:
        ours = gguf.GGUFReader(tmp_path / f"{name}.ours.gguf")
        expected = gguf.GGUFReader(tmp_path / f"{name}.theirs.gguf")
        found, wanted = (
            {each.name: (each.tensor_type.name, each.data.tobytes()) for each in file.tensors}
            for file in (ours, expected)
        )
        assert found == wanted, name
        said = {key: field.contents() for key, field in ours.fields.items() if "imatrix" in key}
        assert said == {
            "quantize.imatrix.file": "matrix.gguf",
            "quantize.imatrix.dataset": "texts.md",
            "quantize.imatrix.entries_count": len(importance),
            "quantize.imatrix.chunks_count": 2,
        }


def test_matrix_is_read_as_it_was_written_and_so_is_the_older_form(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    squares = {
        "blk.0.ffn_up.weight": random.gamma(1, size=(1, 8)),
        "blk.0.ffn_up_exps.weight": random.gamma(1, size=(3, 4)),
    }
    counts = {"blk.0.ffn_up.weight": [7], "blk.0.ffn_up_exps.weight": [5, 0, 2]}
    sums = {name: Sums(np.float32(squares[name]), np.float32(counts[name])) for name in squares}
    write_matrix(tmp_path / "m.gguf", Matrix(sums, "texts", 3))
    found = read_matrix(tmp_path / "m.gguf")
    assert (found.dataset, found.num_chunks, found.file) == ("texts", 3, "m.gguf")
    for name, expected in sums.items():
        assert np.array_equal(found.sums[name].squares, expected.squares)
        assert np.array_equal(found.sums[name].counts, expected.counts)
    assert found.sums["blk.0.ffn_up_exps.weight"].means()[1].tolist() == [1, 1, 1, 1]

    data = struct.pack("<i", 1) + struct.pack("<i", 19) + b"blk.0.ffn_up.weight" + struct.pack("<ii", 4, 8)
    data += np.float32(squares["blk.0.ffn_up.weight"] * 4).tobytes()
    for ending, dataset, num_chunks in (
        (b"", "", 0),
        (struct.pack("<ii", 4, 0), "", 4),  # texts that came from no file
        (struct.pack("<ii", 4, 9) + b"/my/texts", "texts", 4),
        (struct.pack("<ii", 4, 11) + b"C:\\my\\texts", "texts", 4),
    ):
        (tmp_path / "m.dat").write_bytes(data + ending)
        old = read_matrix(tmp_path / "m.dat")
        assert (old.dataset, old.num_chunks) == (dataset, num_chunks)
        np.testing.assert_allclose(old.sums["blk.0.ffn_up.weight"].means(), squares["blk.0.ffn_up.weight"], rtol=1e-6)


def test_what_is_no_matrix_is_refused_in_one_line(tmp_path: Path, tiny_gguf: Path) -> None:
    for content in (
        b"",
        b"\x01",
        b"GGUF",
        b"GGUF" + bytes(40),
        b"PK\x03\x04" + bytes(99),
        b"\x01\0\0\0\xff\xff\xff\x7f",
    ):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(ValueError, match=r"m is no importance matrix: [^\n]+; make one with `gritdesk imatrix`$"):
            read_matrix(tmp_path / "m")
    with pytest.raises(ValueError, match="its general.type is not imatrix"):
        read_matrix(tiny_gguf)
    with pytest.raises(ValueError, match="cannot read the importance matrix .*: No such file"):
        read_matrix(tmp_path / "nowhere")
    for wrong in (np.nan, np.inf, -1.0):
        sums = {"blk.0.attn_q.weight": Sums(np.full((1, 4), wrong, np.float32), np.ones(1, np.float32))}
        write_matrix(tmp_path / "m", Matrix(sums))
        with pytest.raises(ValueError, match="m: the importance of blk.0.attn_q.weight has values that are no squares"):
            read_matrix(tmp_path / "m")


def test_matrix_of_another_model_is_refused(tiny_checkpoint: Path) -> None:
    specs = read_plan(tiny_checkpoint).specs
    row, one = np.ones((1, 256), np.float32), np.ones(1, np.float32)
    assert fitted(Matrix({"blk.1.attn_q.weight": Sums(row, one)}), specs)["blk.1.attn_q.weight"].shape == (256,)
    for name, columns, reason in (
        ("blk.2.attn_q.weight", 256, "it weighs blk.2.attn_q.weight, which this one does not have"),
        ("blk.1.attn_q.weight", 128, "it weighs 128 columns of blk.1.attn_q.weight, not 256"),
    ):
        with pytest.raises(ValueError, match=f"m.gguf is of another model: {reason}"):
            fitted(Matrix({name: Sums(row[:, :columns], one)}, file="m.gguf"), specs)


# ---------------------------------------------------------------- the commands


def run(*arguments: str | Path) -> str:
    outcome = CliRunner().invoke(main, [*map(str, arguments)], prog_name="gritdesk")
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def refusal(*arguments: str | Path, code: int = 1) -> str:
    outcome = CliRunner().invoke(main, [*map(str, arguments)], prog_name="gritdesk")
    assert outcome.exit_code == code, outcome.output
    lines = [line for line in outcome.output.splitlines() if line.startswith("gritdesk")]
    assert len(lines) == 1, outcome.output
    return lines[0]


def test_model_is_weighed_by_a_persons_texts_while_it_is_converted(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "letters").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "letters" / f"{number}.txt").write_text(text, encoding="utf-8")
    said = run(
        *("convert", tiny_checkpoint, tmp_path / "{type}.gguf", "--type", "Q2_K", "--type", "Q8_0"),
        *("--calibrate", tmp_path / "letters"),
    )
    assert "weighed columns by 4 texts of letters" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Q2_K.gguf", "Q8_0.gguf", "letters"]
    run("convert", tiny_checkpoint, tmp_path / "plain.gguf", "--type", "Q2_K")
    weighed, plain, exact = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("Q2_K", "plain", "Q8_0"))
    assert weighed.fields["quantize.imatrix.dataset"].contents() == "letters"
    assert "quantize.imatrix.file" not in weighed.fields
    assert not any("imatrix" in key for key in exact.fields), "it changes nothing there"
    changed = {
        one.name
        for one, other in zip(weighed.tensors, plain.tensors, strict=True)
        if one.data.tobytes() != other.data.tobytes()
    }
    assert changed == {
        name for name in (each.name for each in plain.tensors) if name.startswith("blk.") and "norm" not in name
    }
    run("imatrix", tmp_path / "Q8_0.gguf", tmp_path / "letters", tmp_path / "m.gguf")
    run("convert", tiny_checkpoint, tmp_path / "again.gguf", "--type", "Q2_K", "--imatrix", tmp_path / "m.gguf")
    again = {each.name: each.data.tobytes() for each in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    assert again == {each.name: each.data.tobytes() for each in weighed.tensors}


def test_folder_of_texts_and_matrix_may_have_names_that_are_no_text(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts, matrix = tmp_path / os.fsdecode(b"l\xffetters"), tmp_path / os.fsdecode(b"m\xff.gguf")
    texts.mkdir()
    (texts / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    convert(tiny_checkpoint, tmp_path / "model.gguf", "Q8_0")
    run("imatrix", tmp_path / "model.gguf", texts, matrix)
    run("convert", tiny_checkpoint, tmp_path / "out.gguf", "--type", "Q4_0", "--imatrix", matrix)
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    said = [fields[f"quantize.imatrix.{name}"].contents() for name in ("file", "dataset")]
    assert said == ["m?.gguf", "l?etters"]


def test_line_of_progress_is_gone_before_the_outcome_is_said(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    for command in (
        ("convert", tiny_checkpoint, tmp_path / "model.gguf"),
        ("imatrix", tmp_path / "model.gguf", tmp_path / "a.txt", tmp_path / "m.gguf"),
    ):
        lines: list[str] = []
        monkeypatch.setattr(cli_convert, "rewrite_line", lambda line="", lines=lines: lines.append(line))
        run(*command)
        assert len(lines) > 1 and lines[-2] and not lines[-1]


def test_what_cannot_be_weighed_is_said_in_one_line_and_leaves_nothing(
    tmp_path: Path, tiny_checkpoint: Path, tiny_gguf: Path
) -> None:
    (tmp_path / "texts").mkdir()
    out = tmp_path / "out.gguf"
    assert "holds text that can be read" in refusal(
        "convert", tiny_checkpoint, out, "--type", "Q4_0", "--calibrate", tmp_path / "texts"
    )
    assert "holds text that can be read" in refusal("imatrix", tiny_gguf, tmp_path / "texts", out)
    assert "there is nothing at" in refusal("imatrix", tiny_gguf, tmp_path / "nowhere", out)
    (tmp_path / "texts" / "a.txt").write_text("Something to read.")
    for name in ("F32", "F16", "Q8_0"):
        assert f"importance changes nothing in a file of type {name}; give one of fewer bits" in refusal(
            "convert", tiny_checkpoint, out, "--type", name, "--calibrate", tmp_path / "texts"
        )
    before = tiny_gguf.read_bytes()
    assert "is the model itself; name another file" in refusal("imatrix", tiny_gguf, tmp_path / "texts", tiny_gguf)
    assert tiny_gguf.read_bytes() == before
    assert "no model file at" in refusal("imatrix", tmp_path / "nowhere.gguf", tmp_path / "texts", out)
    assert "give one of them" in refusal(
        "convert", tiny_checkpoint, out, "--calibrate", tmp_path, "--imatrix", tmp_path, code=2
    )
    data = bytearray(tiny_gguf.read_bytes())
    tensor = next(each for each in gguf.GGUFReader(tiny_gguf).tensors if each.name == "blk.1.ffn_up.weight")
    data[int(tensor.data_offset) : int(tensor.data_offset) + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.gguf").write_bytes(data)
    assert "blk.1.ffn_down.weight is multiplied with values that are no numbers" in refusal(
        "imatrix", tmp_path / "nan.gguf", tmp_path / "texts", out
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nan.gguf", "texts"]
