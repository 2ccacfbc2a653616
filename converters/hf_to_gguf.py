"""A checkpoint folder becomes one GGUF file that embeds and generates, or of an encoder one that embeds.

`convert` tells the story: read the checkpoint's header files, plan the GGUF's keys and tensors, compare the
tokenizers, stream the weights into a file beside the target, quantize, rename. Whatever goes wrong on the way,
the target is either the old file or the whole new one. Every refusal is a ValueError with one line for a person.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
from numpy.typing import NDArray

from converters import architectures, quantize
from converters.adapter import MergedCheckpoint, is_adapter, open_checkpoint
from converters.architectures.base import Architecture, Fields, FieldValue, TensorSpec, permute
from converters.checkpoint import Array, Checkpoint, read_config
from converters.sentence_folder import SentenceSettings, read_sentence_settings
from converters.tokenizer_check import check_tokenizer
from converters.vocab import Vocab, read_vocab
from gritdesk.grit_format import CONFIG_KEY, GritMetadata, Markers, Passages, Pooling, render

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """All that goes into the GGUF, before any weight is read."""

    source: Checkpoint
    architecture: Architecture
    vocab: Vocab
    grit: GritMetadata
    fields: Fields
    specs: list[TensorSpec]


def convert(
    checkpoint: Path,
    out: Path,
    quantization_type: str = "Q8_0",
    *,
    base: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `out`, a GGUF of the checkpoint in the given quantization type.

    Args:
        checkpoint: folder with config.json, safetensors and a tokenizer, or of a PEFT adapter.
        base: folder of the adapter's base, if it is not where the adapter says.
        progress: called with one line per step.
    Raises: ValueError for everything that stands in the way; `out` is then as it was before.
    """
    say = progress or (lambda line: None)
    quantization_type = quantize.parse_quantization_type(quantization_type)
    plan = read_plan(checkpoint, base)
    if isinstance(plan.source, MergedCheckpoint):
        say(f"an adapter of {len(plan.source.modules)} weights, merged into its base {plan.source.folder}")
    if not plan.architecture.generates:
        query, passage = (render(plan.grit.frame(each, "{text}")) for each in ("{instruction}", ""))
        say(f"an encoder: the file will embed ({plan.grit.pooling} pooling) and cannot generate")
        say(f"it will read queries as {query!r} and passages as {passage!r}")
    with replacing(out) as (folder, whole):
        say(f"comparing tokenizers ({plan.vocab.table.model}, {plan.vocab.table.pre})")
        write_gguf(folder / "vocab.gguf", replace(plan, specs=[]), "F32", say)
        special_ids = plan.vocab.special_ids
        enclosing = None if plan.architecture.generates else (special_ids["bos"], special_ids["eos"])
        check_tokenizer(plan.source.tokenizer_folder, folder / "vocab.gguf", enclosing)
        if quantization_type in quantize.NUMPY_TYPES:
            write_gguf(whole, plan, quantization_type, say)
        else:
            write_gguf(folder / "unquantized.gguf", plan, plan.source.dtype, say)
            say(f"quantizing to {quantization_type}")
            quantize.quantize_file(folder / "unquantized.gguf", whole, quantization_type)
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def read_plan(checkpoint: Path, base: Path | None = None) -> Plan:
    """Read everything but the weights, and check that it fits together; see `convert` for the arguments.

    Raises: ValueError naming the file, key or tensor that does not.
    """
    if not is_adapter(checkpoint):
        architectures.find(read_config(checkpoint))  # what cannot be converted is told before its weights are asked for
    source = open_checkpoint(checkpoint, base)
    architecture = architectures.find(source.config)
    hp = architecture.hyperparameters(source.config)
    vocab = read_vocab(source.tokenizer_folder, source.config, hp.vocab_size, generates=architecture.generates)
    if architecture.generates:
        grit = grit_metadata(source.config, vocab, hp.hidden)
    else:
        settings = read_sentence_settings(source.folder, hp.hidden)
        grit = encoder_metadata(source.folder, source.config, vocab, settings, hp.hidden)
        hp = replace(hp, n_ctx=min(hp.n_ctx, settings.max_tokens or hp.n_ctx))
    fields: Fields = {"general.type": "model", "general.name": source.name}
    fields |= grit.to_gguf() | architecture.fields(hp) | vocab.fields()  # first what `gritdesk models` looks for
    if not grit.generates:  # what other programs pool by; a decoder's file must leave it open
        fields[f"{architecture.gguf_name}.pooling_type"] = int(gguf.PoolingType[grit.pooling.upper()])
    specs = matched_tensors(source, architecture.tensors(hp), unused=architecture.unused_tensors, tied=hp.tied)
    return Plan(source, architecture, vocab, grit, fields, specs)


def grit_metadata(config: dict[str, Any], vocab: Vocab, hidden: int) -> GritMetadata:
    """What config.json says about GRIT, or what the vocabulary shows.

    Raises: ValueError if config.json asks for what the model is not, or no program here does.
    """
    stated = config.get(CONFIG_KEY) or {}
    if not isinstance(stated, dict):
        raise ValueError(f"config.json: {CONFIG_KEY} must be an object, found {stated!r}")
    if stated.get("projection"):
        raise ValueError(
            "the model has a projection head, which no GGUF program computes; train it with embedding_dimension instead"
        )
    for name, known in (("markers", get_args(Markers)), ("passages", get_args(Passages))):
        if stated.get(name, known[0]) not in known:
            raise ValueError(f"config.json: {CONFIG_KEY}.{name} is {stated[name]!r}, expected {' or '.join(known)}")
    try:
        values: dict[str, Any] = {"dimension": hidden, "markers": vocab.markers} | stated
        metadata = GritMetadata(**values)
    except TypeError as error:
        raise ValueError(f"config.json: {CONFIG_KEY} has an unknown key: {error}") from error
    if not (isinstance(metadata.dimension, int) and 1 <= metadata.dimension <= hidden):
        raise ValueError(f"config.json: {CONFIG_KEY}.dimension is {metadata.dimension!r}, expected 1 to {hidden}")
    default = GritMetadata(metadata.dimension, metadata.markers, passages=metadata.passages)
    for key, value in vars(metadata).items():
        if value != vars(default)[key]:
            raise ValueError(f"config.json: {CONFIG_KEY}.{key} is {value!r}, expected {vars(default)[key]!r}")
    if metadata.markers == "special" and vocab.markers != "special":
        raise ValueError(
            f"config.json: {CONFIG_KEY}.markers is 'special', but the tokenizer has no such special tokens"
        )
    return metadata


def encoder_metadata(
    folder: Path, config: dict[str, Any], vocab: Vocab, settings: SentenceSettings, hidden: int
) -> GritMetadata:
    """What a sentence-transformers folder says about embedding, and config.json where a person knows better.

    Raises: ValueError if config.json asks for what no encoder does, or texts are prepared as the file cannot say.
    """
    if settings.lowercases and not vocab.table.fields.get("normalizer.lowercase"):
        raise ValueError(f"{folder}: do_lower_case is true, but its tokenizer keeps capital letters")
    known: dict[str, Any] = {
        "pooling": settings.pooling,
        "query_prompt": settings.query_prompt,
        "passage_prompt": settings.passage_prompt,
    }
    stated = config.get(CONFIG_KEY) or {}
    if not isinstance(stated, dict) or not stated.keys() <= known.keys():
        raise ValueError(f"config.json: {CONFIG_KEY} of an encoder holds {', '.join(known)} alone, found {stated!r}")
    values = known | stated
    if values["pooling"] not in get_args(Pooling) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(
            f"config.json: {CONFIG_KEY} needs pooling {' or '.join(get_args(Pooling))} and texts as prompts"
        )
    return GritMetadata(hidden, generation_attention="none", **values)


def matched_tensors(
    source: Checkpoint, specs: Iterator[TensorSpec], *, unused: tuple[str, ...], tied: bool
) -> list[TensorSpec]:
    """The planned tensors, after both sides agree on names and shapes.

    Args:
        unused: endings of tensors that may be left behind.
    Raises: ValueError naming the first tensor that is missing, of another shape, or would be lost.
    """
    planned = list(specs)
    shapes = {name: spec.source_shape for spec in planned for name in spec.sources}
    for name, shape in shapes.items():
        if name not in source.tensors:
            raise ValueError(f"{source.folder}: tensor {name} is missing")
        source.tensors[name].check_weight(name)
        if (found := source.tensors[name].shape) != shape:
            file = source.tensors[name].file
            raise ValueError(f"{file}: tensor {name} has shape {list(found)}, expected {list(shape)}")
    lost = source.tensors.keys() - shapes.keys()
    lost = {name for name in lost if not name.endswith(unused)}
    if tied:
        lost.discard("lm_head.weight")
    if lost:
        raise ValueError(f"{source.folder}: tensor {min(lost)} is unknown to this architecture and would be lost")
    return planned


def write_gguf(path: Path, plan: Plan, quantization_type: str, say: Progress) -> None:
    """One GGUF file of a numpy type; weights are read, quantized and written one at a time."""
    kinds = [quantize.tensor_type(spec.target, spec.shape, quantization_type) for spec in plan.specs]
    writer = gguf.GGUFWriter(path, plan.architecture.gguf_name)
    try:
        for key, value in plan.fields.items():
            _add_field(writer, key, value)
        writer.add_file_type(quantize.file_type(quantization_type))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for spec, kind in zip(plan.specs, kinds, strict=True):
            byte_shape = gguf.quant_shape_to_byte_shape(spec.shape, kind)
            writer.add_tensor_info(spec.target, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, (spec, kind) in enumerate(zip(plan.specs, kinds, strict=True), start=1):
            say(f"writing tensor {number}/{len(plan.specs)} {spec.target} ({kind.name})")
            writer.write_tensor_data(quantized(plan.source, spec, kind))
    finally:
        writer.close()


def quantized(source: Checkpoint, spec: TensorSpec, kind: gguf.GGMLQuantizationType) -> NDArray[np.generic]:
    """One tensor of the GGUF in the bytes of its type; of several experts, one at a time is held as float32."""
    if not spec.num_experts:
        name = spec.source or spec.target
        weight = spec.values if spec.values is not None else load(source, name, spec)
        return quantize.quantize_tensor(name, weight, kind)
    stacked: NDArray[np.generic] | None = None
    for expert, name in enumerate(spec.sources):
        part = quantize.quantize_tensor(name, load(source, name, spec), kind)
        stacked = np.empty((spec.num_experts, *part.shape), part.dtype) if stacked is None else stacked
        stacked[expert] = part
    assert stacked is not None
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
    if not out.parent.is_dir():
        raise ValueError(f"the folder {out.parent} does not exist; make it first")


@contextmanager
def replacing(out: Path) -> Iterator[tuple[Path, Path]]:
    """A scratch folder beside `out`, and the file in it that takes the place of `out` if all goes well.

    Raises: ValueError if the folder cannot be written to, or the disk fills up.
    """
    check_target(out)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            whole = Path(folder) / "whole.gguf"
            yield Path(folder), whole
            os.replace(whole, out)
    except OSError as error:
        # numpy reports a write cut short without an errno
        reason = error.strerror or f"{error}; is the disk full?"
        raise ValueError(f"cannot write {out}: {reason}") from error


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
