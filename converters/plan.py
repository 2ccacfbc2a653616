"""What goes into a GGUF, before any weight is read: keys, and tensors with what each is made from.

Every refusal that needs no weights is made here, as a ValueError with one line for a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import gguf

from converters import architectures
from converters.adapter import is_adapter, open_checkpoint
from converters.architectures.base import Architecture, Fields, Hyperparameters, TensorSpec
from converters.checkpoint import Checkpoint, read_config
from converters.quantize import ModelShape
from converters.sentence_folder import SentenceSettings, read_sentence_settings
from converters.vocab import Vocab, read_vocab
from gritdesk.grit_format import CONFIG_KEY, GritMetadata, Markers, Passages, Pooling


@dataclass(frozen=True)
class Plan:
    """All that goes into the GGUF, before any weight is read."""

    source: Checkpoint
    architecture: Architecture
    vocab: Vocab
    grit: GritMetadata
    fields: Fields
    specs: list[TensorSpec]
    shape: ModelShape


def read_plan(checkpoint: Path, base: Path | None = None) -> Plan:
    """Read everything but the weights, and check that it fits together; see hf_to_gguf.convert for the arguments.

    Raises: ValueError naming the file, key or tensor that does not.
    """
    if not is_adapter(checkpoint):
        architectures.find(read_config(checkpoint))  # what cannot be converted is told before its weights are asked for
    source = open_checkpoint(checkpoint, base)
    architecture = architectures.find(source.config)
    hp = architecture.hyperparameters(source.config)
    is_encoder = architecture.is_encoder
    vocab = read_vocab(source.tokenizer_folder, source.config, hp.vocab_size, is_encoder=is_encoder)
    settings = read_sentence_settings(source.folder, hp.hidden, is_encoder=is_encoder)
    if not is_encoder:
        grit = grit_metadata(source.config, vocab, hp.hidden, generates=architecture.generates)
    else:
        grit = encoder_metadata(source.folder, source.config, vocab, settings, hp.hidden)
        hp = replace(hp, n_ctx=min(hp.n_ctx, settings.max_tokens or hp.n_ctx))
    grit = replace(grit, embedding_architecture=architecture.embedding_twin(hp))
    fields: Fields = {"general.type": "model", "general.name": source.name}
    fields |= grit.to_gguf() | architecture.fields(hp) | vocab.fields()  # first what `gritdesk models` looks for
    if is_encoder:  # what other programs pool by; a decoder's file must leave it open
        fields[f"{architecture.gguf_name}.pooling_type"] = int(gguf.PoolingType[grit.pooling.upper()])
    specs = matched_tensors(source, architecture.tensors(hp), unused=architecture.unused_tensors, tied=hp.tied)
    return Plan(source, architecture, vocab, grit, fields, specs, model_shape(architecture, hp, specs))


def model_shape(architecture: Architecture, hp: Hyperparameters, specs: list[TensorSpec]) -> ModelShape:
    """What the mixtures of quantization types depend on."""
    grouped = hp.num_heads != hp.num_kv_heads
    return ModelShape(
        num_layers=hp.num_layers,
        heads_per_kv_head=hp.num_heads // hp.num_kv_heads,
        num_experts=hp.num_experts,
        tied=all(spec.target != "output.weight" for spec in specs),
        is_70b=hp.num_layers == 80
        and (architecture.gguf_name == "qwen2" or architecture.gguf_name == "llama" and grouped),
    )


def grit_metadata(config: dict[str, Any], vocab: Vocab, hidden: int, *, generates: bool = True) -> GritMetadata:
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
        values: dict[str, Any] = {"dimension": hidden, "markers": vocab.markers}
        values |= {"generation_attention": "causal" if generates else "none"} | stated
        metadata = GritMetadata(**values)
    except TypeError as error:
        raise ValueError(f"config.json: {CONFIG_KEY} has an unknown key: {error}") from error
    if not (isinstance(metadata.dimension, int) and 1 <= metadata.dimension <= hidden):
        raise ValueError(f"config.json: {CONFIG_KEY}.dimension is {metadata.dimension!r}, expected 1 to {hidden}")
    default = GritMetadata(
        metadata.dimension,
        metadata.markers,
        generation_attention="causal" if generates else "none",
        passages=metadata.passages if generates else "plain",
    )
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
    return GritMetadata(hidden, generation_attention="none", is_encoder=True, **values)


def matched_tensors(
    source: Checkpoint, specs: Iterator[TensorSpec], *, unused: tuple[str, ...], tied: bool
) -> list[TensorSpec]:
    """The planned tensors, after both sides agree on names and shapes.

    Args:
        unused: endings of tensors that may be left behind.
    Raises: ValueError naming the first tensor that is missing, of another shape, or would be lost.
    """
    planned: list[TensorSpec] = []
    used: set[str] = set()
    for spec in specs:
        for name in spec.sources:
            if name not in source.tensors:
                raise ValueError(f"{source.folder}: tensor {name} is missing")
            stored, shape = source.tensors[name], spec.source_shape
            stored.check_weight(name)
            if stored.shape != shape:
                raise ValueError(f"{stored.file}: tensor {name} has shape {list(stored.shape)}, expected {list(shape)}")
            used.add(name)
        planned.append(spec)
    lost = source.tensors.keys() - used
    lost = {name for name in lost if not name.endswith(unused)}
    if tied:
        lost.discard("lm_head.weight")
    if lost:
        raise ValueError(f"{source.folder}: tensor {min(lost)} is unknown to this architecture and would be lost")
    return planned
