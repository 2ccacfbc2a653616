"""A checkpoint becomes a quantized GGUF: in our one step, beside llama.cpp's two (convert, then quantize).

    python benchmarks/convert.py FOLDER [--shape gritlm-7b|small|mixtral] [--type Q4_K_M] [--rounds 1]

Makes a checkpoint of random weights in FOLDER, if none is there (14.5 GB at the exact shapes of GritLM-7B, bfloat16 in
shards, SentencePiece with 32,000 pieces), and converts it both ways, with as many threads on either side. The
checkpoint is read once before each, so that both find the page cache alike. Prints a table: seconds of the wall and of
the processor, resident memory of all processes together and what of it is no mapped file, and disk taken beyond the
result; then whether all tensors have the same bytes. The official side downloads llama.cpp's converter once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from converters.quantize import FILE_TYPES, file_type

TESTS = Path(__file__).parents[1] / "tests"
FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True)
class Shape:
    num_layers: int
    hidden: int
    ffn: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    shard_bytes: int
    num_experts: int = 0


SHAPES = {
    "gritlm-7b": Shape(32, 4096, 14336, 32, 8, 32_000, 5_000_000_000),
    "small": Shape(4, 1024, 3584, 16, 4, 8_000, 50_000_000),
    "mixtral": Shape(2, 1024, 3584, 16, 4, 8_000, 200_000_000, num_experts=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a checkpoint our way and llama.cpp's.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="gritlm-7b")
    parser.add_argument("--type", choices=FILE_TYPES, default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    checkpoint = given.folder / given.shape
    if not (checkpoint / "config.json").exists():
        make_checkpoint(checkpoint, SHAPES[given.shape])
    out = given.folder / f"{given.shape}-out"
    if SHAPES[given.shape].num_experts:
        print(f"one layer's experts take {experts_bytes(SHAPES[given.shape], given.type) / 1e6:,.0f} MB in the file\n")
    print("| side | wall s | CPU s | peak MB | of it no file MB | disk beyond the result MB | step |")
    print("|---|---|---|---|---|---|---|")
    for _ in range(given.rounds):
        out.mkdir()
        measure_ours(checkpoint, out, given.type)
        measure_official(checkpoint, out, given.type)
        print(f"same tensors: {describe_difference(out / 'ours.gguf', out / 'official.gguf')}", flush=True)
        for path in out.iterdir():
            path.unlink()
        out.rmdir()


def measure_ours(checkpoint: Path, out: Path, quantization_type: str) -> None:
    read_once(checkpoint)
    program = str(Path(sys.executable).with_name("gritdesk"))
    used = run([program, "convert", str(checkpoint), str(out / "ours.gguf"), "--type", quantization_type], out)
    used.print("ours", out / "ours.gguf", "convert")


def measure_official(checkpoint: Path, out: Path, quantization_type: str) -> None:
    sys.path.append(str(TESTS))
    from official_converter import installed

    script = str(installed() / "convert_hf_to_gguf.py")
    read_once(checkpoint)
    is_float, result = quantization_type in FLOATS, out / "official.gguf"
    whole = result if is_float else out / "whole.gguf"
    name = FLOATS[quantization_type] if is_float else "bf16"
    first = run([sys.executable, script, str(checkpoint), "--outfile", str(whole), "--outtype", name], out)
    first.print("official", whole, f"convert to {name}")
    if is_float:
        return
    job = {"source": str(whole), "targets": {str(result): file_type(quantization_type)}}
    job |= {"importance": {}, "overrides": []}
    second = run([sys.executable, str(TESTS / "reference_quantizer.py")], out, stdin=json.dumps(job))
    second.print("official", result, "quantize")
    (first + second).print("official", result, "both")


def experts_bytes(shape: Shape, quantization_type: str) -> int:
    """Of one layer, all in the type that most tensors of the file have."""
    kind = gguf.GGMLQuantizationType[FILE_TYPES[quantization_type]]
    wide, narrow = (shape.ffn, shape.hidden), (shape.hidden, shape.ffn)
    sizes = [np.prod(gguf.quant_shape_to_byte_shape(each, kind)) for each in (wide, wide, narrow)]
    return shape.num_experts * int(sum(sizes))


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Used:
    """What a command took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Resident in all of its processes at one time."""
    anonymous_bytes: int
    """The same without the pages of mapped files, which the system takes back when it needs them."""
    disk_bytes: int
    """Most that lay in the output's folder at one time, beyond what lay there before."""

    def __add__(self, other: Used) -> Used:
        """One command after the other."""
        return Used(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            max(self.peak_bytes, other.peak_bytes),
            max(self.anonymous_bytes, other.anonymous_bytes),
            self.disk_bytes + other.disk_bytes,
        )

    def print(self, side: str, result: Path, step: str) -> None:
        sizes = (self.peak_bytes, self.anonymous_bytes, self.disk_bytes - result.stat().st_size)
        columns = [f"{self.wall_s:.1f}", f"{self.cpu_s:.1f}", *(f"{size / 1e6:,.0f}" for size in sizes)]
        print(f"| {side} | {' | '.join(columns)} | {step} |", flush=True)


def run(command: Sequence[str], out: Path, stdin: str = "") -> Used:
    """Run a command to its end and watch what it takes.

    Raises: SystemExit with what it said if it fails.
    """
    before = folder_bytes(out)
    cpu_before = children_cpu_s()
    started = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        watcher = Watcher(process.pid, out)
        _, said = process.communicate(stdin)
        wall_s = time.monotonic() - started
        watcher.stop()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {said[-2000:]}")
    cpu_s = children_cpu_s() - cpu_before
    return Used(wall_s, cpu_s, watcher.peak_bytes, watcher.anonymous_bytes, watcher.disk_bytes - before)


class Watcher(threading.Thread):
    """Looks at a process, its descendants and a folder twenty times a second."""

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self._pid, self._folder, self._ended = pid, folder, threading.Event()
        self.peak_bytes = self.anonymous_bytes = self.disk_bytes = 0
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            sizes = [resident_bytes(pid) for pid in descendants(self._pid)]
            self.peak_bytes = max(self.peak_bytes, sum(whole for whole, _ in sizes))
            self.anonymous_bytes = max(self.anonymous_bytes, sum(anonymous for _, anonymous in sizes))
            self.disk_bytes = max(self.disk_bytes, folder_bytes(self._folder))

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self.disk_bytes = max(self.disk_bytes, folder_bytes(self._folder))


def descendants(pid: int) -> Iterator[int]:
    """The process and all that it started, as far as they live."""
    yield pid
    try:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from descendants(int(child))
    except OSError:  # it has ended meanwhile
        pass


def resident_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of one process, and what of it is of no file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in lines)
        if value.endswith("kB")
    }
    return sizes.get("VmRSS", 0), sizes.get("RssAnon", 0)


def folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                pass
    return total


def children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def read_once(folder: Path) -> None:
    """Into the page cache, as far as it has room."""
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass


def describe_difference(ours: Path, official: Path) -> str:
    found, expected = ({each.name: each for each in gguf.GGUFReader(path).tensors} for path in (ours, official))
    if found.keys() != expected.keys():
        return f"no, names differ: {sorted(found.keys() ^ expected.keys())}"
    other = [
        name
        for name, each in expected.items()
        if found[name].tensor_type != each.tensor_type or not np.array_equal(found[name].data, each.data)
    ]
    return f"no, {len(other)} of {len(expected)} differ, such as {other[0]}" if other else f"all {len(expected)}"


# ---------------------------------------------------------------- a checkpoint of random weights


def make_checkpoint(folder: Path, shape: Shape) -> None:
    """Write config.json last, so that a folder that has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    shards = list(in_shards(tensor_shapes(shape), shape.shard_bytes))
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / name, tensors, random)
        weight_map |= dict.fromkeys(tensors, name)
    total = sum(2 * int(np.prod(each)) for tensors in shards for each in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    write_tokenizer(folder, shape.vocab_size, random)
    family = "Mixtral" if shape.num_experts else "Mistral"
    config = {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config |= {"num_local_experts": shape.num_experts, "num_experts_per_tok": 2} if shape.num_experts else {}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def tensor_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, kv_rows = shape.hidden, shape.hidden // shape.num_heads * shape.num_kv_heads
    yield "model.embed_tokens.weight", (shape.vocab_size, hidden)
    for layer in range(shape.num_layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        for name, rows in (("q", hidden), ("k", kv_rows), ("v", kv_rows), ("o", hidden)):
            yield f"{prefix}self_attn.{name}_proj.weight", (rows, hidden)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        if not shape.num_experts:
            for name in ("gate", "up"):
                yield f"{prefix}mlp.{name}_proj.weight", (shape.ffn, hidden)
            yield prefix + "mlp.down_proj.weight", (hidden, shape.ffn)
            continue
        yield prefix + "block_sparse_moe.gate.weight", (shape.num_experts, hidden)
        for expert in range(shape.num_experts):
            for name, size in (("w1", (shape.ffn, hidden)), ("w2", (hidden, shape.ffn)), ("w3", (shape.ffn, hidden))):
                yield f"{prefix}block_sparse_moe.experts.{expert}.{name}.weight", size
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (shape.vocab_size, hidden)


def in_shards(tensors: Iterator[tuple[str, tuple[int, ...]]], shard_bytes: int) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    for name, size in tensors:
        if shard and sum(2 * int(np.prod(each)) for each in [*shard.values(), size]) > shard_bytes:
            yield shard
            shard = {}
        shard[name] = size
    yield shard


def write_shard(path: Path, tensors: dict[str, tuple[int, ...]], random: np.random.Generator) -> None:
    """A safetensors file of bfloat16, one weight in memory at a time."""
    header, at = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + 2 * int(np.prod(size))]}
        at = header[name]["data_offsets"][1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for size in tensors.values():
            values = random.standard_normal(size, dtype=np.float32)
            values *= np.float32(0.02)
            if len(size) == 1:
                values += 1
            stream.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def write_tokenizer(folder: Path, vocab_size: int, random: np.random.Generator) -> None:
    """A SentencePiece BPE tokenizer whose pieces are put together from earlier ones, as merging makes them."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = vocab_size
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    kinds = model.SentencePiece
    model.pieces.add(piece="<unk>", score=0.0, type=kinds.UNKNOWN)
    for token in ("<s>", "</s>"):
        model.pieces.add(piece=token, score=0.0, type=kinds.CONTROL)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    pieces = dict.fromkeys("▁etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,;:!?'-")
    parts = list(pieces)
    while len(pieces) < vocab_size - len(model.pieces):
        left, right = (parts[int(random.integers(len(parts)))] for _ in range(2))
        if "▁" not in right and len(left + right) <= 12 and left + right not in pieces:
            pieces[left + right] = None
            parts.append(left + right)
    letters = sum(len(piece) == 1 for piece in pieces)
    merged = parts[letters:]
    for rank, piece in enumerate([*merged, *parts[:letters]]):  # letters last, as SentencePiece numbers them
        model.pieces.add(piece=piece, score=-float(rank), type=kinds.NORMAL)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    main()
