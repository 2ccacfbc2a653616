"""Our files beside those of llama.cpp's own converter: the same tensors byte for byte, the same keys but for a list.

Tiny checkpoints of every family that both know. llama.cpp's converter is downloaded once; see official_converter.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import official_converter
import pytest
from official_converter import Conversion
from sentencepiece import sentencepiece_model_pb2
from tiny import TOKENIZERS, Family, make_checkpoint, make_encoder, make_sentence_folder

from converters.hf_to_gguf import convert_all
from converters.piece_table import CONTROL, UNKNOWN
from converters.plan import read_plan
from converters.quantize import Quantization

pytestmark = pytest.mark.timeout(600)  # the first of these tests downloads the converter, if it is not there yet


Make = Callable[[Path], Path]
SPECIAL = {"special": True, "normalized": False}


def with_settings(make: Make, **settings: Any) -> Make:
    """The checkpoint with more in its tokenizer_config.json."""

    def made(folder: Path) -> Path:
        update_json(make(folder) / "tokenizer_config.json", settings)
        return folder

    return made


def with_post_processor(make: Make, post_processor: dict[str, Any]) -> Make:
    """The checkpoint with what puts special tokens around a text."""

    def made(folder: Path) -> Path:
        update_json(make(folder) / "tokenizer.json", {"post_processor": post_processor})
        return folder

    return made


def update_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def make_gemma(folder: Path, family: Family, **config: Any) -> Path:
    """With both files of a tokenizer, and "\n\n" a piece of its own: Gemma's tokenizer.model names such, too."""
    make_checkpoint(folder, family, tokenizer="sentencepiece", pre="gemma", **config)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((TOKENIZERS / "sentencepiece" / "tokenizer.model").read_bytes())
    model.normalizer_spec.add_dummy_prefix = False
    model.pieces[-1].piece, model.pieces[-1].type = "\n\n", model.SentencePiece.USER_DEFINED
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    added = {str(len(model.pieces) - 1): {"content": "\n\n", "special": False}}
    update_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added})
    return folder


def make_sentences(folder: Path) -> Path:
    make_encoder(folder / "encoder", vocab_size=569)  # as many as its tokenizer has
    return make_sentence_folder(folder / "encoder", folder / "whole", pooling="cls")


mistral = partial(make_checkpoint, family="mistral", tokenizer="sentencepiece", head_dim=32)
qwen2 = partial(make_checkpoint, family="qwen2", pre="qwen2", dtype="float16", tie_word_embeddings=True)
llama3 = partial(
    make_checkpoint,
    family="llama",
    pre="llama-bpe",
    dtype="bfloat16",
    shard_size="1MB",
    attention_bias=True,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
)
longrope = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0 + 0.05 * pair for pair in range(24)],
    "long_factor": [1.0 + 0.5 * pair for pair in range(24)],
}

CASES: dict[str, Make] = {
    "llama": partial(make_checkpoint, family="llama"),
    "llama, SentencePiece": partial(
        make_checkpoint,
        family="llama",
        tokenizer="sentencepiece",
        vocab_size=608,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "llama 3": with_post_processor(
        llama3,
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
    ),
    "smollm": partial(make_checkpoint, family="llama", pre="smollm", tie_word_embeddings=True, vocab_size=608),
    "mistral": with_settings(
        mistral,
        added_tokens_decoder={
            str(number): {"content": token, **SPECIAL} for number, token in enumerate(("<unk>", "<s>", "</s>"))
        },
        add_bos_token=True,
        add_eos_token=False,
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}",
    ),
    "mixtral": partial(make_checkpoint, family="mixtral", tokenizer="sentencepiece", num_local_experts=4),
    "qwen2": with_post_processor(
        # transformers adds <|endoftext|> where no unk_token is named, beyond this vocabulary
        with_settings(qwen2, unk_token="<|pad|>", add_bos_token=False),
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ),
    "qwen3": partial(
        make_checkpoint,
        family="qwen3",
        pre="qwen2",
        head_dim=128,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 20000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    ),
    "gemma2": partial(make_gemma, family="gemma2"),
    "gemma3": partial(
        make_gemma,
        family="gemma3",
        num_hidden_layers=7,
        dtype="bfloat16",
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    ),
    "phi": partial(make_checkpoint, family="phi3", tokenizer="sentencepiece"),
    "phi, longrope": partial(
        make_checkpoint,
        family="phi3",
        tokenizer="sentencepiece",
        max_position_embeddings=8192,
        original_max_position_embeddings=1024,
        rope_parameters=longrope,
    ),
    "bert": partial(make_encoder, family="bert"),
    "bert, sentence-transformers": make_sentences,
    "xlm-roberta": with_settings(
        partial(make_encoder, family="xlm-roberta"), add_prefix_space=True, clean_up_tokenization_spaces=True
    ),
}


def ours_alone(ours: Any, theirs: Any) -> bool:
    return theirs is None


def theirs_alone(ours: Any, theirs: Any) -> bool:
    return ours is None


def ours_then_theirs(*expected: Any) -> Callable[[Any, Any], bool]:
    return lambda *found: found == expected


def same_words(ours: str, theirs: str) -> bool:
    return ours.lower().replace("-", " ") == theirs.lower()


def unknown_is_control(ours: list[int], theirs: list[int]) -> bool:
    return theirs == [CONTROL if kind == UNKNOWN else kind for kind in ours]


def first_three_are_low(ours: list[float], theirs: list[float]) -> bool:
    return theirs == [-1000.0] * 3 + ours[3:]


def same_order_of_merges(ours: list[float], theirs: list[float]) -> bool:
    """Of pieces that something is merged into: neither special, nor bytes, nor single letters."""
    first, last = 3 + 256, min(i for i, score in enumerate(ours) if i >= 3 + 256 and score == min(ours))
    return last - first > 200 and all(
        scores[first:last] == sorted(scores[first:last])[::-1] for scores in (ours, theirs)
    )


DIFFERENCES: dict[tuple[str, str], tuple[Callable[[Any, Any], bool], str]] = {
    ("*", "*-embed*.*"): (ours_alone, "the embedding twin's, by which llama.cpp reads the same weights both ways"),
    ("*", "grit.*"): (ours_alone, "how to do GRIT"),
    ("*", "general.name"): (same_words, "ours is the folder's name as it is"),
    ("*", "general.size_label"): (theirs_alone, "a rounded number of weights, for names of files on the hub"),
    ("bert, s*", "general.tags"): (theirs_alone, "what the README says for the hub's search"),
    ("*", "tokenizer.chat_template"): (ours_alone, "GRIT's, where the checkpoint has none; an equal one where it has"),
    ("*", "tokenizer.ggml.add_[be]os_token"): (ours_alone, "theirs where the tokenizer's files say so"),
    ("qwen2", "tokenizer.ggml.add_bos_token"): (ours_then_theirs(True, False), "GRIT's frames begin with it"),
    ("*", "tokenizer.ggml.add_space_prefix"): (ours_alone, "theirs where tokenizer_config.json says so, and for Gemma"),
    ("*", "*.attention.key_length"): (ours_alone, "theirs where config.json has head_dim"),
    ("*", "*.attention.value_length"): (ours_alone, "the same"),
    ("*", "*.rope.dimension_count"): (ours_alone, "theirs for llama and phi3 alone; else it follows from the heads"),
    ("*", "*.vocab_size"): (ours_alone, "theirs for llama alone; else it is the number of tokens"),
    ("gemma2", "gemma2.rope.freq_base"): (ours_alone, "theirs leaves llama.cpp to its 10000"),
    ("gemma?", "tokenizer.ggml.scores"): (
        same_order_of_merges,
        "ours from tokenizer.json, since SentencePiece would take pieces like a pair of newlines whole",
    ),
    ("mistral", "tokenizer.ggml.token_type"): (unknown_is_control, "llama.cpp treats the two alike"),
    ("mistral", "tokenizer.ggml.scores"): (first_three_are_low, "of special tokens, which nothing is merged into"),
    ("phi*", "tokenizer.ggml.token_type"): (unknown_is_control, "llama.cpp treats the two alike"),
    ("phi*", "tokenizer.ggml.scores"): (first_three_are_low, "of special tokens, which nothing is merged into"),
    ("phi", "phi3.rope.scaling.original_context_length"): (theirs_alone, "nothing is scaled"),
    ("phi, longrope", "phi3.context_length"): (ours_then_theirs(1024, 8192), "to where the first factors hold"),
    ("bert*", "tokenizer.ggml.token_type"): (unknown_is_control, "llama.cpp treats the two alike"),
    ("bert", "tokenizer.ggml.tokens"): (
        lambda ours, theirs: theirs == [token.replace("[PAD5", "▁[PAD5") for token in ours],
        "of rows that no token has; theirs makes them the beginnings of words",
    ),
    ("bert*", "tokenizer.ggml.normalizer.strip_accents"): (ours_alone, "null in tokenizer.json: as lowercase says"),
    ("bert", "bert.pooling_type"): (ours_alone, "mean, where no folder of sentence-transformers says otherwise"),
    ("xlm-roberta", "bert.pooling_type"): (ours_alone, "the same"),
}
"""Case and key, as patterns -> what may differ there (our value and theirs, None where there is none), and why."""


PAIRS = [
    (case, each)
    for case in CASES
    for each in ("F32", "F16", "BF16")
    if case != "xlm-roberta" or each == "F32"  # gguf takes four seconds to read its table of characters
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds CASE.TYPE.ours.gguf and CASE.TYPE.theirs.gguf of every pair."""
    folder, jobs = tmp_path_factory.mktemp("official"), []
    for case, make in CASES.items():
        checkpoint = make(folder / case)
        files = {each: folder / f"{case}.{each}.ours.gguf" for name, each in PAIRS if name == case}
        convert_all(checkpoint, {path: Quantization(each) for each, path in files.items()})
        pre = read_plan(checkpoint).vocab.table.pre
        jobs += [
            Conversion(str(checkpoint), str(folder / f"{case}.{each}.theirs.gguf"), each.lower(), pre) for each in files
        ]
    official_converter.convert(jobs)
    return folder


@functools.cache
def read(path: Path) -> tuple[dict[str, tuple[str, list[int], str]], dict[str, tuple[str, Any]]]:
    """Type, shape and hash of each tensor; type and value of each key."""
    reader = gguf.GGUFReader(path)
    tensors = {
        each.name: (each.tensor_type.name, [int(size) for size in each.shape], sha256(each.data.tobytes()).hexdigest())
        for each in reader.tensors
    }
    fields = {
        key: (" of ".join(kind.name for kind in field.types[:2]), field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }
    return tensors, fields


def different_fields(folder: Path, case: str, quantization_type: str) -> dict[str, tuple[Any, Any]]:
    """Keys with our value and theirs, None where there is none."""
    ours, theirs = (read(folder / f"{case}.{quantization_type}.{side}.gguf")[1] for side in ("ours", "theirs"))
    for key in ours.keys() & theirs.keys():
        assert ours[key][0] == theirs[key][0], f"{key} is of another type"
    found = {key: tuple(side.get(key, (None, None))[1] for side in (ours, theirs)) for key in ours | theirs}
    return {key: (first, second) for key, (first, second) in found.items() if first != second}


def listed(case: str, key: str) -> list[tuple[str, str]]:
    return [(cases, keys) for cases, keys in DIFFERENCES if fnmatch(case, cases) and fnmatch(key, keys)]


@pytest.mark.parametrize(("case", "quantization_type"), PAIRS)
def test_tensors_are_theirs_byte_for_byte(folder: Path, case: str, quantization_type: str) -> None:
    ours, theirs = (read(folder / f"{case}.{quantization_type}.{side}.gguf")[0] for side in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if ours[name] != theirs[name]]
    # llama.cpp chooses a list by the size of its context, ours ends where the first list does: see phi3.py
    assert different == (["rope_factors_long.weight"] if case == "phi, longrope" else [])


@pytest.mark.parametrize(("case", "quantization_type"), PAIRS)
def test_keys_are_theirs_but_for_those_listed(folder: Path, case: str, quantization_type: str) -> None:
    for key, (ours, theirs) in different_fields(folder, case, quantization_type).items():
        allowed = [DIFFERENCES[entry][0] for entry in listed(case, key)]
        assert any(holds(ours, theirs) for holds in allowed), f"{key} is {ours!r}, theirs {theirs!r}"


def test_what_is_listed_does_differ(folder: Path) -> None:
    found = {entry for case in CASES for key in different_fields(folder, case, "F32") for entry in listed(case, key)}
    assert found == DIFFERENCES.keys()
