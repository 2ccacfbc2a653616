"""A conversion is proved where it is right and refused where it is not: real files, and real damage in them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from tiny import copy_without_grit, make_checkpoint, make_encoder, make_sentence_folder

from converters.battery import TEXTS, read_texts
from converters.comparison import Reader, compare
from converters.gguf_reader import GgufReader
from converters.hf_to_gguf import convert
from converters.plan import read_plan
from converters.quantize import Quantization
from converters.verify import LIMITS, Report, Row, limits_of, report_from_json, verify
from converters.writing import write_ggufs
from gritdesk.cli import main

FEW = (*TEXTS[:2], *TEXTS[6:8], *TEXTS[14:16])
"""Enough to tell a damaged file from a whole one."""

WEIGHTS = ("blk.1.attn_k.weight", "blk.0.ffn_down.weight", "output.weight")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Reader:
    """The checkpoint by transformers."""
    import torch

    from converters.checkpoint_reader import CheckpointReader

    torch.set_num_threads(1)
    return CheckpointReader(tiny_checkpoint)


def values(report: Report) -> dict[str, float]:
    return {row.name: row.value for row in report.rows}


def failed(report: Report) -> set[str]:
    return {row.name for row in report.rows if not row.ok}


def rewritten(checkpoint: Path, out: Path, fields: dict[str, Any] | None = None) -> Path:
    """A GGUF with other metadata, written without any check."""
    plan = read_plan(checkpoint)
    write_ggufs({out: Quantization("F32")}, replace(plan, fields=plan.fields | (fields or {})), lambda line: None)
    return out


def damaged(source: Path, out: Path, name: str, change: Callable[[Any], None]) -> Path:
    """A copy in which one tensor is changed in place."""
    shutil.copy(source, out)
    reader = gguf.GGUFReader(out, "r+")
    change(next(tensor.data for tensor in reader.tensors if tensor.name == name))
    reader.data.flush()
    return out


# ---------------------------------------------------------------- files that are right


@pytest.mark.parametrize("quantization_type", ["F32", "F16", "Q8_0", "Q4_K_M"])
def test_converted_file_is_near_its_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, reference: Reader, quantization_type: str
) -> None:
    convert(tiny_checkpoint, tmp_path / "out.gguf", quantization_type)
    report = compare(GgufReader(tmp_path / "out.gguf"), reference, FEW)
    assert report.ok, report
    assert (report.quantization_type, report.against_type) == (quantization_type, "F32")
    if quantization_type == "F32":
        found = values(report)
        assert found["embedding cosine, worst"] > 0.999999 and found["same next token"] == 1
        assert (
            found["error of the worst weights"] == 0
            and found["KL divergence in nats"] < 1e-6
            and found["change of perplexity"] < 1e-5
        )


def test_sentencepiece_model_with_markers_as_text_is_compared_too(tmp_path: Path) -> None:
    from converters.checkpoint_reader import CheckpointReader

    folder = make_checkpoint(tmp_path / "checkpoint", "mistral", tokenizer="sentencepiece", dtype="bfloat16")
    convert(folder, tmp_path / "out.gguf", "BF16")
    report = compare(GgufReader(tmp_path / "out.gguf"), CheckpointReader(folder), TEXTS)
    assert report.ok and report.against_type == "BF16"
    # what a checkpoint has in 16 bits loses nothing in as many, but processors differ in how they round what it meets
    assert values(report)["same next token"] > 0.98


LONG_WINDOW = {"tokenizer": "sentencepiece", "pre": "gemma", "sliding_window": 24}
"""Shorter than most texts, for embeddings end with the window and next tokens do not."""
FAMILY_CASES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 3},
    "gemma2": LONG_WINDOW,
    "gemma3": LONG_WINDOW | {"num_hidden_layers": 7},
    "phi3": {"tokenizer": "sentencepiece", "dtype": "bfloat16"},
    "llama": {"pre": "smollm", "tie_word_embeddings": True},
}


@pytest.mark.parametrize("family", FAMILY_CASES)
def test_every_family_is_near_its_checkpoint_and_a_damaged_layer_is_not(tmp_path: Path, family: Any) -> None:
    from converters.checkpoint_reader import CheckpointReader

    folder = make_checkpoint(tmp_path / "checkpoint", family, **FAMILY_CASES[family])
    convert(folder, tmp_path / "out.gguf", "F32")
    reference = CheckpointReader(folder)
    report = compare(GgufReader(tmp_path / "out.gguf"), reference, FEW)
    assert report.ok, report
    assert values(report)["error of the worst weights"] < 1e-6
    name = "blk.1.attn_output.weight"
    path = damaged(tmp_path / "out.gguf", tmp_path / "damaged.gguf", name, lambda data: np.negative(data, out=data))
    assert {"embedding cosine, worst", "KL divergence in nats"} <= failed(compare(GgufReader(path), reference, FEW))


ENCODER_ROWS = ["texts with other token ids", "error of the worst weights", "embedding cosine, worst"]


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_model_that_only_embeds_is_compared_in_what_it_does(tmp_path: Path, family: Any) -> None:
    from converters.checkpoint_reader import CheckpointReader

    encoder = make_encoder(tmp_path / "encoder", family)
    prompts = {"query": "query: ", "document": "passage: "}
    folder = make_sentence_folder(encoder, tmp_path / "model", pooling="cls", prompts=prompts)
    reference = CheckpointReader(folder)
    for quantization_type, texts in (("F32", TEXTS), ("Q8_0", FEW), ("Q4_K_M", FEW)):
        convert(folder, tmp_path / f"{quantization_type}.gguf", quantization_type)
        report = compare(GgufReader(tmp_path / f"{quantization_type}.gguf"), reference, texts)
        assert report.ok, report
        assert [row.name for row in report.rows] == [*ENCODER_ROWS, "embedding cosine, median"]
        assert 0 < report.num_tokens < 129 * (len(texts) + 3)
    as_mean = make_sentence_folder(encoder, tmp_path / "mean", pooling="mean", prompts=prompts)
    with pytest.raises(ValueError, match=r"its grit\.embedding\.pooling is cls, expected mean"):
        compare(GgufReader(tmp_path / "F32.gguf"), CheckpointReader(as_mean), FEW)
    path = damaged(
        tmp_path / "F32.gguf", tmp_path / "out.gguf", "position_embd.weight", lambda data: data.__setitem__(3, 0)
    )
    assert "embedding cosine, worst" in failed(compare(GgufReader(path), reference, FEW))


def test_model_that_generates_is_not_one_that_only_embeds(tiny_gguf: Path, tmp_path: Path) -> None:
    convert(make_encoder(tmp_path / "encoder"), tmp_path / "out.gguf", "F32")
    for found, expected in ((tiny_gguf, tmp_path / "out.gguf"), (tmp_path / "out.gguf", tiny_gguf)):
        with pytest.raises(ValueError, match=r"is not of .*: its grit\.jobs is embedding.*, expected embedding"):
            compare(GgufReader(found), GgufReader(expected), FEW)


def test_all_texts_are_read_and_none_too_long(tiny_gguf: Path) -> None:
    model = GgufReader(tiny_gguf)
    report = compare(model, model, [*TEXTS, "word " * 3000])
    assert report.num_texts == len(TEXTS) + 1 and report.num_tokens < 10_000
    assert report.ok and values(report)["KL divergence in nats"] == 0


def test_another_gguf_is_compared_without_torch(tiny_gguf: Path, tiny_gguf_q8: Path) -> None:
    code = """
import sys
for name in ("torch", "transformers", "tokenizers"):
    sys.modules[name] = None
from pathlib import Path
from converters.comparison import compare
from converters.gguf_reader import GgufReader
print(compare(*(GgufReader(Path(each)) for each in sys.argv[1:3]), ["How deep is the water under the bridge?"]).ok)
"""
    arguments = [sys.executable, "-c", code, str(tiny_gguf_q8), str(tiny_gguf)]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


# ---------------------------------------------------------------- files that are not


@pytest.mark.parametrize("name", WEIGHTS)
def test_scaled_tensor_is_found(tiny_gguf: Path, tmp_path: Path, reference: Reader, name: str) -> None:
    def scale(data: Any) -> None:
        data *= np.float32(1.2)

    report = compare(GgufReader(damaged(tiny_gguf, tmp_path / "out.gguf", name, scale)), reference, FEW)
    assert failed(report) > {"KL divergence in nats", "error of the worst weights"}
    worst = report.rows[1]
    assert worst.detail == name and worst.value == pytest.approx(0.2, rel=1e-4)
    # a larger head makes the same choices, and no embedding goes through it
    assert ("embedding cosine, worst" in failed(report)) == (name != "output.weight")


@pytest.mark.parametrize("quantization_type", ["F32", "Q8_0", "Q4_K_M"])
def test_permuted_rows_are_found(
    tiny_checkpoint: Path, tmp_path: Path, reference: Reader, quantization_type: str
) -> None:
    """As a converter does that forgets to reorder the rows of query and key."""
    convert(tiny_checkpoint, tmp_path / "whole.gguf", quantization_type)

    def permute(data: Any) -> None:
        data[:] = data.reshape(2, 2, len(data) // 4, -1).swapaxes(1, 2).reshape(data.shape).copy()

    for name in ("blk.0.attn_k.weight", "blk.1.ffn_up.weight"):
        path = damaged(tmp_path / "whole.gguf", tmp_path / "out.gguf", name, permute)
        report = compare(GgufReader(path), reference, FEW)
        assert not report.ok and report.rows[1].detail == name and "error of the worst weights" in failed(report)


def test_numbers_that_are_none_are_never_near_enough(tiny_gguf: Path, tmp_path: Path, reference: Reader) -> None:
    path = damaged(tiny_gguf, tmp_path / "out.gguf", "output_norm.weight", lambda data: data.__setitem__(7, np.nan))
    report = compare(GgufReader(path), reference, FEW[:2])
    assert len(failed(report)) == len(report.rows) - 1
    as_json = json.loads(json.dumps(report.to_json()), parse_constant=pytest.fail)
    assert as_json["rows"][2]["value"] is None and not as_json["ok"]


def test_wrong_pre_tokenizer_is_refused_with_the_first_text_it_cuts_otherwise(
    tiny_checkpoint: Path, tmp_path: Path, reference: Reader
) -> None:
    path = rewritten(tiny_checkpoint, tmp_path / "out.gguf", {"tokenizer.ggml.pre": "qwen2"})
    with pytest.raises(ValueError, match=r"reads the text '.*' as other tokens from token \d+ on: .*expected") as error:
        compare(GgufReader(path), reference, TEXTS)
    assert "tokenizer.ggml.pre is 'qwen2', expected 'gpt-2'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grit.embedding.dimension": 128}, "its grit.embedding.dimension is 128, expected 256"),
        ({"grit.generation.passages": "causal_blocks"}, "its grit.generation.passages is causal_blocks"),
        ({"tokenizer.ggml.bos_token_id": 2}, "its <s> is token 2, expected 0"),
    ],
)
def test_metadata_of_another_model_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, reference: Reader, fields: dict[str, Any], said: str
) -> None:
    path = rewritten(tiny_checkpoint, tmp_path / "out.gguf", fields)
    with pytest.raises(ValueError, match=said):
        compare(GgufReader(path), reference, FEW)


def test_another_vocabulary_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", vocab_size=640)
    convert(folder, tmp_path / "other.gguf", "F32")
    with pytest.raises(ValueError, match="its vocabulary is 640, expected 600"):
        compare(GgufReader(tmp_path / "other.gguf"), GgufReader(tiny_gguf), FEW)


# ---------------------------------------------------------------- limits and texts


def test_limits_are_those_of_the_coarser_file() -> None:
    assert limits_of("F32", "Q8_0") == limits_of("Q8_0", "F16") == LIMITS["Q8_0"]
    assert limits_of("Q4_K_M") == limits_of("IQ4_XS") == LIMITS["Q4"]
    assert limits_of("Q5_0") == LIMITS["Q5"] and limits_of("unknown") == limits_of("IQ2_XXS") == LIMITS["Q2"]


def test_limits_widen_from_type_to_type() -> None:
    ordered = list(LIMITS.values())
    for finer, coarser in zip(ordered, ordered[1:], strict=False):
        assert limits_of_both(finer, coarser) == coarser


def limits_of_both(finer: Any, coarser: Any) -> Any:
    larger = {"divergence", "perplexity"}
    pairs = {name: (getattr(finer, name), getattr(coarser, name)) for name in vars(finer)}
    return type(finer)(**{name: max(pair) if name in larger else min(pair) for name, pair in pairs.items()})


def test_report_survives_the_way_out_of_the_child() -> None:
    report = Report("a", "F32", "b", "Q8_0", 3, 40, [Row("x", 0.5, 1.0, "at least"), Row("y", 0.5, 1.0, "at most")])
    as_json = report.to_json()
    assert [row.pop("ok") for row in as_json["rows"]] == [False, True] and not as_json.pop("ok")
    assert report_from_json(as_json) == report


def test_battery_spells_every_marker_and_repeats_nothing() -> None:
    assert len(set(TEXTS)) == len(TEXTS)
    for marker in ("<|embed|>", "<|user|>", "<|assistant|>", "<s>", "</s>"):
        assert any(marker in text for text in TEXTS)


def test_texts_of_a_file_stand_apart_by_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\n\n\n\nthree\n", encoding="utf-8")
    assert [each.strip() for each in read_texts(path)] == ["one\ntwo", "three"]
    for content, said in ((b" \n\n \n", "holds no text"), (b"\xff\xfe", "is no UTF-8 text")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            read_texts(path)
    with pytest.raises(ValueError, match="cannot read the texts"):
        read_texts(tmp_path)


# ---------------------------------------------------------------- the command


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.timeout(300)  # a child each for the tokenizer and for torch: slow on a busy machine
def test_conversion_is_verified_as_it_is_made(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = run("convert", tiny_checkpoint, tmp_path / "out.gguf", "--type", "F16", "--verify")
    assert done.exit_code == 0, done.output
    assert f"against {tiny_checkpoint} (F32)" in done.stdout
    assert done.stdout.count("ok  ") == 7 and "wrong" not in done.stdout


def test_damaged_file_fails_the_command_which_names_what_is_wrong(tiny_gguf: Path, tmp_path: Path) -> None:
    path = damaged(tiny_gguf, tmp_path / "out.gguf", "output.weight", lambda data: np.negative(data, out=data))
    (tmp_path / "texts.txt").write_text("Who keeps the ledger of the mill?", encoding="utf-8")
    done = run("verify", path, "--against", tiny_gguf, "--texts", tmp_path / "texts.txt", "--json")
    assert done.exit_code == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("gritdesk: 4 of 7 checks failed: error of the worst weights, same")
    )
    report = json.loads(done.stdout, parse_constant=pytest.fail)
    assert not report["ok"] and report["num_texts"] == len(TEXTS) + 1
    assert {row["name"] for row in report["rows"] if row["ok"]} > {"embedding cosine, worst"}


def test_what_cannot_be_compared_is_said_in_one_line(
    tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str | Path) -> str:
        done = run(*arguments)
        assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.output
        return str(done.stderr)

    assert "nothing to compare with" in refused("verify", tiny_gguf, "--against", tmp_path / "nowhere")
    assert "cannot read the texts" in refused("verify", tiny_gguf, "--against", tiny_gguf, "--texts", tmp_path)
    assert "no model file at" in refused("verify", tmp_path / "nowhere", "--against", tiny_gguf)
    foreign = tmp_path / "foreign.gguf"
    writer = gguf.GGUFWriter(foreign, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "foreign.gguf" in refused("verify", foreign, "--against", tiny_gguf)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    line = refused("verify", tiny_gguf, "--against", tiny_checkpoint)
    assert 'needs torch: pip install "gritdesk[train]"' in line and "GGUF of type F32" in line
    assert line == refused("convert", tiny_checkpoint, tmp_path / "out.gguf", "--verify")
    assert not (tmp_path / "out.gguf").exists()


def test_folder_that_is_no_checkpoint_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        verify(tiny_gguf, tmp_path)


def test_checkpoint_that_says_nothing_of_grit_is_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from converters.checkpoint_reader import CheckpointReader

    folder = copy_without_grit(tiny_checkpoint, tmp_path / "checkpoint")
    convert(folder, tmp_path / "out.gguf", "Q8_0")
    assert compare(GgufReader(tmp_path / "out.gguf"), CheckpointReader(folder), FEW[:3]).ok
