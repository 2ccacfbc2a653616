"""Whole files: what a GGUF carries, and that a refusal leaves nothing behind and everything as it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from frame_tokenizers import JsonTokenizer, SentencePieceTokenizer
from person import MAIN, Person
from safetensors.numpy import load_file, save_file
from tiny import TOKENIZERS, make_checkpoint

from converters import native
from converters.hf_to_gguf import convert, convert_all
from converters.plan import read_plan
from converters.quantize import FILE_TYPES, Quantization, file_type
from converters.writing import Remaining, quantized, replacing
from gritdesk.engine.llama import LlamaModel
from gritdesk.grit_format import GritMetadata, chat_frame, embedding_frame, encode
from gritdesk.records import Turn

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def sentencepiece_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("spm") / "checkpoint", "mistral", tokenizer="sentencepiece")


def change_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


# ---------------------------------------------------------------- what a file carries


def test_file_says_how_it_embeds_and_generates(tiny_gguf: Path, tiny_checkpoint: Path) -> None:
    with LlamaModel(tiny_gguf) as model:
        assert model.grit == GritMetadata(dimension=256, markers="special", embedding_architecture="llama-embed")
        assert model.metadata["general.name"] == tiny_checkpoint.name
        assert model.metadata["general.file_type"] == 0
        assert "<|assistant|>" in str(model.metadata["tokenizer.chat_template"])
        # attention and pooling are switched at run time; a fixed one would break the other use
        assert not {"llama.attention.causal", "llama.pooling_type"} & model.metadata.keys()


def test_plain_text_markers_are_declared_for_a_vocabulary_without_them(
    sentencepiece_checkpoint: Path, tmp_path: Path
) -> None:
    config = json.loads((sentencepiece_checkpoint / "config.json").read_text(encoding="utf-8"))
    assert config.pop("grit")["markers"] == "text"
    folder = Path(shutil.copytree(sentencepiece_checkpoint, tmp_path / "checkpoint"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    convert(folder, tmp_path / "out.gguf", "Q8_0")
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.grit == GritMetadata(dimension=256, markers="text", embedding_architecture="llama-embed")


@pytest.mark.parametrize("only", ["tokenizer.model", "tokenizer.json"])
def test_one_tokenizer_file_is_enough(sentencepiece_checkpoint: Path, tmp_path: Path, only: str) -> None:
    folder = Path(shutil.copytree(sentencepiece_checkpoint, tmp_path / "checkpoint"))
    (folder / ({"tokenizer.model", "tokenizer.json"} - {only}).pop()).unlink()
    convert(folder, tmp_path / "out.gguf", "Q8_0")
    texts = list(json.loads((DATA / "texts.json").read_text(encoding="utf-8")).values())
    reference = SentencePieceTokenizer(sentencepiece_checkpoint)
    found = native.tokenize(tmp_path / "out.gguf", texts)
    # the library marks an end at NUL, a file it never meets as text
    compared = [(ids, reference.tokenize(text)) for ids, text in zip(found, texts, strict=True) if "\0" not in text]
    assert all(ids == expected for ids, expected in compared) and len(compared) > 15


@pytest.mark.parametrize("name", ["bpe", "sentencepiece"])
def test_frames_in_the_file_are_the_expected_ids(
    tiny_gguf_q8: Path, sentencepiece_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    path = tiny_gguf_q8
    if name == "sentencepiece":
        path = tmp_path / "out.gguf"
        convert(sentencepiece_checkpoint, path, "Q8_0")
    with LlamaModel(path) as model:
        for case in json.loads((DATA / "grit_format.json").read_text(encoding="utf-8")):
            chat = [Turn(role, text) for role, text in case.get("chat", [])]
            frame = chat_frame(chat) if chat else embedding_frame(*case["embedding"])
            encoded = encode(frame, model, model.grit.markers)
            assert encoded.ids == case[name]["ids"], case["name"]
            assert encoded.counts == [flag == "1" for flag in case[name]["counts"]]


def test_marker_in_a_text_is_no_marker_in_the_file(tiny_gguf_q8: Path) -> None:
    tokenizer = JsonTokenizer(TOKENIZERS / "bpe")
    with LlamaModel(tiny_gguf_q8) as model:
        for text in ("<|embed|>", "</s>", "a<|assistant|>\n<s>"):
            assert model.tokenize(text) == tokenizer.tokenize(text) != tokenizer.tokenize_with_special(text)


def test_files_of_the_working_folder_are_not_run_by_the_child(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert native.tokenize(tiny_gguf, [""]) == [[]]


def _tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def mixtral_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("mixtral") / "checkpoint", "mixtral", num_local_experts=6)


def test_experts_are_known_to_the_file_and_routers_stay_exact(mixtral_checkpoint: Path, tmp_path: Path) -> None:
    convert(mixtral_checkpoint, tmp_path / "out.gguf", "Q8_0")
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.metadata["llama.expert_count"] == 6
    tensors = _tensors(tmp_path / "out.gguf")
    assert tensors["blk.0.ffn_up_exps.weight"].tensor_type.name == "Q8_0"
    assert tensors["blk.0.ffn_gate_inp.weight"].tensor_type.name == "F32"


def test_no_layers_experts_are_held_twice(mixtral_checkpoint: Path) -> None:
    plan = read_plan(mixtral_checkpoint)
    spec = next(spec for spec in plan.specs if spec.num_experts)
    tracemalloc.start()
    try:
        (stacked,) = quantized(plan.source, spec, [gguf.GGMLQuantizationType.F32])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < stacked.nbytes * (1 + 3 / 6), "beside all experts, one and a copy of it"


def test_missing_expert_is_refused_by_name(mixtral_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixtral_checkpoint, tmp_path / "checkpoint"))
    lost = "model.layers.1.block_sparse_moe.experts.5.w2.weight"
    change_weights(folder, lambda weights: weights.pop(lost))
    with pytest.raises(ValueError, match=f"tensor {lost} is missing"):
        convert(folder, tmp_path / "out.gguf")


def test_every_quantization_type_gives_a_file_that_loads(tiny_checkpoint: Path, tmp_path: Path) -> None:
    sizes = {}
    convert_all(tiny_checkpoint, {tmp_path / f"{name}.gguf": Quantization(name) for name in FILE_TYPES})
    for quantization_type in FILE_TYPES:
        out = tmp_path / f"{quantization_type}.gguf"
        with LlamaModel(out) as model:
            assert model.grit.dimension == 256
            assert model.metadata["general.file_type"] == file_type(quantization_type)
        sizes[quantization_type] = out.stat().st_size
    assert sizes["F32"] > sizes["F16"] > sizes["Q8_0"] > sizes["Q6_K"] > sizes["Q4_K_M"] > sizes["Q2_K"]


def test_rows_that_fill_no_block_are_kept_in_f16(tmp_path: Path) -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 80, "grit": {"dimension": 48, "markers": "special"}}
    folder = make_checkpoint(tmp_path / "checkpoint", **sizes)
    convert(folder, tmp_path / "out.gguf", "Q8_0")
    tensors = _tensors(tmp_path / "out.gguf")
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == "F16"
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.n_embd == 48


def test_progress_names_each_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    tensors: list[str] = []
    convert(tiny_checkpoint, tmp_path / "out.gguf", "Q4_K_M", say=said.append, progress=tensors.append)
    assert said == ["comparing tokenizers (gpt2, gpt-2)"]
    assert tensors[0] == "writing tensor 1/21 token_embd.weight (Q4_K)" and len(tensors) == 21


def test_progress_tells_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    remaining = Remaining(1000)
    assert str(remaining) == ""
    now, _ = 160.0, remaining.count(100)
    assert str(remaining) == ", 9 min left"
    now, _ = 170.0, remaining.count(800)
    assert str(remaining) == ", 8 s left"


def test_several_types_are_what_each_is_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    names = ("F32", "F16", "Q8_0", "Q4_K_M")
    convert_all(tiny_checkpoint, {tmp_path / f"{name}.gguf": Quantization(name) for name in names})
    for name in names:
        convert(tiny_checkpoint, tmp_path / "alone.gguf", name)
        assert (tmp_path / "alone.gguf").read_bytes() == (tmp_path / f"{name}.gguf").read_bytes(), name


def test_converting_needs_none_of_the_training_libraries(tiny_checkpoint: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
for name in ("torch", "transformers", "tokenizers", "safetensors", "sentencepiece", "google.protobuf"):
    sys.modules[name] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in sys.modules and sys.modules[name] is None else find(name)
from converters.hf_to_gguf import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), "Q8_0")
"""
    arguments = [sys.executable, "-c", code, str(tiny_checkpoint), str(tmp_path / "out.gguf")]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.n_vocab == 600


# ---------------------------------------------------------------- refusals


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "an index of shards that has lost its shards": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
        ),
        r"has no model-2\.safetensors; copy the checkpoint again, every shard of it",
    ),
    "an index that promises too much": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        ),
        r"index\.json promises tensor a in model-1\.safetensors, which does not hold it",
    ),
    "what git keeps in place of weights": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "fetch it with `git lfs pull`",
    ),
    "more layers than weights": (
        lambda folder: change_json(folder / "config.json", num_hidden_layers=10**9),
        r"tensor model\.layers\.2\.input_layernorm\.weight is missing",
    ),
    "a chat template that is no text": (
        lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff\xfe"),
        r"chat_template\.jinja is no text in UTF-8",
    ),
    "an infinite value": (
        lambda folder: change_weights(folder, lambda weights: weights["lm_head.weight"].__setitem__((5, 5), np.inf)),
        r"model\.safetensors: tensor lm_head\.weight holds NaN or infinite",
    ),
    "a window that is no number": (
        lambda folder: change_json(folder / "config.json", architectures=["MistralForCausalLM"], sliding_window="x"),
        "sliding_window must be a positive whole number, found 'x'",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "neither tokenizer.json nor"),
    "unknown architecture": (
        lambda folder: change_json(folder / "config.json", architectures=["DebertaV2Model"]),
        "architecture DebertaV2Model cannot be converted",
    ),
    "truncated weights": (
        lambda folder: os.truncate(folder / "model.safetensors", 100_000),
        r"model\.safetensors is truncated: tensor",
    ),
    "missing tensor": (
        lambda folder: change_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")),
        r"tensor model\.layers\.1\.mlp\.up_proj\.weight is missing",
    ),
    "unknown tensor": (
        lambda folder: change_weights(folder, lambda weights: weights.update(extra=np.zeros(2, dtype=np.float32))),
        "tensor extra is unknown to this architecture and would be lost",
    ),
    "wrong shape": (
        lambda folder: change_weights(
            folder, lambda weights: weights.update({"model.norm.weight": np.ones(255, dtype=np.float32)})
        ),
        r"model\.safetensors: tensor model\.norm\.weight has shape \[255\], expected \[256\]",
    ),
    "NaN": (
        lambda folder: change_weights(folder, lambda weights: weights["lm_head.weight"].__setitem__((5, 5), np.nan)),
        r"model\.safetensors: tensor lm_head\.weight holds NaN",
    ),
    "another dimension": (
        lambda folder: change_json(folder / "config.json", grit={"dimension": 257}),
        r"grit\.dimension is 257, expected 1 to 256",
    ),
    "another pooling": (
        lambda folder: change_json(folder / "config.json", grit={"pooling": "last"}),
        r"grit\.pooling is 'last', expected 'mean'",
    ),
    "unknown GRIT key": (lambda folder: change_json(folder / "config.json", grit={"color": 1}), "unknown key: .*color"),
    "GRIT key that is no object": (
        lambda folder: change_json(folder / "config.json", grit="x"),
        "grit must be an object",
    ),
    "architectures that are no list": (
        lambda folder: change_json(folder / "config.json", architectures=5),
        "architectures must be a list",
    ),
    "no epsilon": (lambda folder: change_json(folder / "config.json", rms_norm_eps=None), "rms_norm_eps must be a pos"),
    "rotary settings that are no object": (
        lambda folder: change_json(folder / "config.json", rope_parameters=5),
        "rope_parameters must be an object",
    ),
    "unknown markers": (lambda folder: change_json(folder / "config.json", grit={"markers": "x"}), "markers is 'x'"),
    "unknown passages": (lambda folder: change_json(folder / "config.json", grit={"passages": "x"}), "passages is 'x'"),
    "a projection head": (
        lambda folder: change_json(folder / "config.json", grit={"projection": 64}),
        "train it with embedding_dimension",
    ),
    "a tokenizer that llama.cpp reads otherwise": (
        # HF takes words whole where they are in the vocabulary, llama.cpp merges from the bottom
        lambda folder: _forget_merges(folder / "tokenizer.json"),
        r"its tokenizer and llama\.cpp read '.*' differently from token \d+ on",
    ),
}


def _forget_merges(path: Path) -> None:
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["model"]["ignore_merges"] = True
    spec["model"]["merges"] = spec["model"]["merges"][:5]
    path.write_text(json.dumps(spec), encoding="utf-8")


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_refusal_is_one_line_and_leaves_the_old_file(
    checkpoint: Path, tmp_path: Path, damage: tuple[Callable[[Path], Any], str]
) -> None:
    apply, message = damage
    apply(checkpoint)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"the old file")
    with unchanged(out.parent), pytest.raises(ValueError, match=message) as refusal:
        convert(checkpoint, out, "F16")
    assert "\n" not in str(refusal.value)


def test_special_markers_that_are_no_tokens_are_refused(sentencepiece_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sentencepiece_checkpoint, tmp_path / "checkpoint"))
    change_json(folder / "config.json", grit={"markers": "special"})
    with pytest.raises(ValueError, match="the tokenizer has no such special tokens"):
        convert(folder, tmp_path / "out.gguf")


def test_unknown_type_and_wrong_places_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'Q5' is unknown; known: F32"):
        convert(tiny_checkpoint, tmp_path / "out.gguf", "Q5")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        convert(tmp_path / "nowhere", tmp_path / "out.gguf")
    with pytest.raises(ValueError, match=r"nowhere does not exist; make it first"):
        convert(tiny_checkpoint, tmp_path / "nowhere" / "out.gguf")
    with pytest.raises(ValueError, match="is a folder; name a file"):
        convert(tiny_checkpoint, tmp_path)


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Writing beyond fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("quantization_type", ["F32", "Q4_K_M"])
def test_full_disk_is_said_in_one_line_and_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, quantization_type: str
) -> None:
    with unchanged(tmp_path), files_limited_to(500_000), pytest.raises(ValueError, match="out.gguf: ") as refusal:
        convert(tiny_checkpoint, tmp_path / "out.gguf", quantization_type)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_too_small_is_told_before_any_weight_is_read(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    outs = {tmp_path / f"{name}.gguf": Quantization(name) for name in ("Q8_0", "Q4_0")}
    message = r"has 1\.0 MB free and \d\.\d MB are needed; make room"
    read: list[str] = []
    with pytest.raises(ValueError, match=message):
        convert_all(tiny_checkpoint, outs, progress=read.append)
    assert read == [] and list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_is_cleared_and_a_running_ones_is_not(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    left = tmp_path / ".out.gguf.partial"
    left.mkdir()
    (left / "whole.gguf").write_bytes(b"half of a file")
    (left / "lock").touch()
    convert(tiny_checkpoint, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    with replacing(tmp_path / "out.gguf") as whole:
        whole.write_bytes(b"the new file")
        with pytest.raises(ValueError, match=r"another conversion is writing .*out\.gguf; wait for it"):
            convert(tiny_checkpoint, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == b"the new file"


def test_stopping_in_the_middle_leaves_the_old_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out.gguf").write_bytes(b"the old file")

    def stop(line: str) -> None:
        if "tensor 9/" in line:
            raise KeyboardInterrupt

    with unchanged(tmp_path), pytest.raises(KeyboardInterrupt):
        convert(tiny_checkpoint, tmp_path / "out.gguf", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.parametrize(
    ("command", "number"),
    [("convert", signal.SIGINT), ("convert", signal.SIGTERM), ("imatrix", signal.SIGINT)],
)
def test_impatient_person_is_told_in_one_line_that_nothing_was_written(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    (tmp_path / "text.txt").write_text("The lamp is lit at dusk.", encoding="utf-8")
    given = {"convert": [tiny_checkpoint], "imatrix": [tiny_gguf, tmp_path / "text.txt"]}[command]
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"the old file")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, command, *map(str, given), str(out)],
        env=Person(tmp_path / "home").environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl+C to all of a command's processes
    )
    until = time.monotonic() + 60
    while not (out.parent / ".model.gguf.partial").exists() and time.monotonic() < until:
        time.sleep(0.005)
    for _ in range(2):
        os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.splitlines()[-1].startswith("gritdesk: stopped; nothing was written"), errors
    assert [path.name for path in out.parent.iterdir()] == ["model.gguf"] and out.read_bytes() == b"the old file"


def test_folders_and_files_may_have_names_that_are_no_text(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / os.fsdecode(b"w\xffeird \xc3\xbc\n x")))
    out = tmp_path / os.fsdecode(b"o\xffut.gguf")
    convert(folder, out)
    assert gguf.GGUFReader(out).fields["general.name"].contents() == "w?eird ü\n x"
