"""A GGUF is its checkpoint: hidden states, logits and token ids against transformers, family by family.

transformers is the plain formula here, run in float32 with eager attention; llama.cpp is what users run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_tokenizers import JsonTokenizer
from numpy.typing import NDArray
from tiny import make_checkpoint

from converters.hf_to_gguf import convert
from gritdesk.engine.llama import EmbeddingContext, GenerationContext, LlamaModel
from gritdesk.grit_format import EncodedFrame, chat_frame, embedding_frame, encode, render
from gritdesk.records import Turn

DATA = Path(__file__).parents[1] / "data"
TEXTS: dict[str, str] = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))
CHAT = [Turn("user", "Where does the wind come from?"), Turn("assistant", "The south west."), Turn("user", "Always?")]

CASES: dict[str, dict[str, Any]] = {
    "llama, BPE": {"family": "llama"},
    "llama, SentencePiece, tied": {"family": "llama", "tokenizer": "sentencepiece", "tie_word_embeddings": True},
    "llama, biases, scaled rotation, bfloat16 shards": {
        "family": "llama",
        "pre": "llama-bpe",
        "dtype": "bfloat16",
        "shard_size": "1MB",
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama, digits one by one, tied": {"family": "llama", "pre": "smollm", "tie_word_embeddings": True},
    "llama, linearly scaled rotation": {
        "family": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "llama, yarn with an attention factor": {
        "family": "llama",
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "attention_factor": 1.5,
        },
    },
    "mistral, SentencePiece, narrow heads": {"family": "mistral", "tokenizer": "sentencepiece", "head_dim": 32},
    "mixtral, three of five experts": {"family": "mixtral", "num_local_experts": 5, "num_experts_per_tok": 3},
    "qwen2, BPE, tied, float16": {
        "family": "qwen2",
        "pre": "qwen2",
        "dtype": "float16",
        "tie_word_embeddings": True,
    },
    "qwen3, BPE, wide heads": {"family": "qwen3", "pre": "llama-bpe", "head_dim": 128},
    "qwen3, BPE, yarn": {
        "family": "qwen3",
        "pre": "qwen2",
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 20000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
    "gemma2, SentencePiece": {"family": "gemma2", "tokenizer": "sentencepiece", "pre": "gemma"},
    "gemma3, SentencePiece, scaled rotation": {
        "family": "gemma3",
        "tokenizer": "sentencepiece",
        "pre": "gemma",
        "num_hidden_layers": 7,
        "dtype": "bfloat16",
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
    "phi3, SentencePiece, heads rotated in part, two lists of factors": {
        "family": "phi3",
        "tokenizer": "sentencepiece",
        "dtype": "bfloat16",
        "max_position_embeddings": 8192,
        "original_max_position_embeddings": 1024,  # less than a batch below: llama.cpp would take the other list
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0 + 0.05 * pair for pair in range(24)],
            "long_factor": [1.0 + 0.5 * pair for pair in range(24)],
        },
    },
}


@dataclass
class Pair:
    """One model twice: in transformers and in llama.cpp."""

    reference: Any
    gguf: LlamaModel
    checkpoint: Path
    rounding: float = 1e-4
    """How far values may lie apart although nothing is kept in F16."""

    def encode_embedding(self, instruction: str, text: str) -> EncodedFrame:
        return encode(embedding_frame(instruction, text), self.gguf, self.gguf.grit.markers)

    def encode_chat(self) -> list[int]:
        return encode(chat_frame(CHAT), self.gguf, self.gguf.grit.markers).ids

    def reference_hidden(self, ids: Sequence[int], *, is_causal: bool) -> NDArray[np.float32]:
        """float32[T, D]"""
        import torch

        batch = torch.tensor([ids])
        with torch.no_grad():
            found = self.reference.model(batch, attention_mask=torch.ones_like(batch), is_causal=is_causal)
        hidden: NDArray[np.float32] = found.last_hidden_state[0].numpy()
        return hidden

    def reference_logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """float32[V], of the token after the last"""
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self.reference(torch.tensor([ids])).logits[0, -1].numpy()
        return logits


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    folder = make_checkpoint(tmp_path_factory.mktemp("exact") / "checkpoint", **request.param)
    convert(folder, folder.parent / "exact.gguf", "F32")
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with LlamaModel(folder.parent / "exact.gguf") as gguf:
        # llama.cpp looks GELU up in a table of F16 values
        yield Pair(reference, gguf, folder, **({"rounding": 5e-3} if "gemma" in request.param["family"] else {}))


def embed(hidden: NDArray[np.float32], frame: EncodedFrame) -> NDArray[np.float32]:
    pooled = hidden[np.array(frame.counts)].astype(np.float64).mean(axis=0)
    unit: NDArray[np.float32] = (pooled / np.linalg.norm(pooled)).astype(np.float32)
    return unit


def frames(pair: Pair) -> list[EncodedFrame]:
    """All texts as passages, and some as queries; cut so that they fit one batch together."""
    passages = [pair.encode_embedding("", text) for text in TEXTS.values() if text.strip()]
    queries = [pair.encode_embedding("Find what the keeper wrote", text) for text in list(TEXTS.values())[:3]]
    return [EncodedFrame(frame.ids[:80], frame.counts[:80]) for frame in (*passages, *queries)]


def test_embeddings_equal_those_of_transformers_with_full_attention(pair: Pair) -> None:
    batch = frames(pair)
    with closing(EmbeddingContext(pair.gguf, batch_tokens=2048, kv_type="f16")) as context:
        found = context.hidden_states([frame.ids for frame in batch])
    for frame, hidden in zip(batch, found, strict=True):
        reference = pair.reference_hidden(frame.ids, is_causal=False)
        assert embed(hidden, frame) @ embed(reference, frame) > 0.9999
        assert np.abs(hidden - reference).max() < 2e-2


def test_hidden_states_are_exact_with_an_f32_cache(pair: Pair) -> None:
    batch = frames(pair)[:4]
    with closing(EmbeddingContext(pair.gguf, kv_type="f32")) as context:
        found = context.hidden_states([frame.ids for frame in batch])
    for frame, hidden in zip(batch, found, strict=True):
        np.testing.assert_allclose(hidden, pair.reference_hidden(frame.ids, is_causal=False), atol=pair.rounding)


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_next_token_logits_equal_those_of_transformers(pair: Pair, kv_type: str) -> None:
    tolerance = 1e-2 if kv_type == "f16" else pair.rounding
    prompts = [pair.encode_chat(), frames(pair)[0].ids, frames(pair)[3].ids]
    with closing(GenerationContext(pair.gguf, n_ctx=512, kv_type=kv_type)) as context:
        for ids in prompts:
            expected = pair.reference_logits(ids)
            assert expected.std() > 0.1, "the checkpoint's logits must vary for this to mean anything"
            np.testing.assert_allclose(context.prefill(ids), expected, atol=tolerance)


def test_token_ids_equal_those_of_the_checkpoints_tokenizer(pair: Pair) -> None:
    tokenizer = JsonTokenizer(pair.checkpoint)
    for name, text in TEXTS.items():
        assert pair.gguf.tokenize(text) == tokenizer.tokenize(text), name


def test_frames_cut_in_segments_equal_the_tokenizers_ids_of_the_whole_string(pair: Pair) -> None:
    whole = JsonTokenizer(pair.checkpoint)
    ordinary = [text for name, text in TEXTS.items() if "newlines" not in name and "returns" not in name]
    frames = [embedding_frame(instruction, text) for text in ordinary for instruction in ("", "Find: what matters")]
    for frame in [*frames, chat_frame(CHAT)]:
        assert encode(frame, pair.gguf, pair.gguf.grit.markers).ids == whole.tokenize_with_special(render(frame))


def test_last_word_reaches_the_first_token_when_embedding_only(pair: Pair) -> None:
    one = pair.gguf.tokenize("The wind came from the north in winter")
    other = [*one[:-1], one[-1] + 1]
    with closing(EmbeddingContext(pair.gguf)) as context:
        first, second = (context.hidden_states([ids])[0] for ids in (one, other))
    assert np.abs(first[0] - second[0]).max() > 1e-3
    with closing(GenerationContext(pair.gguf, n_ctx=512)) as context:
        first, second = (context.hidden_states(ids) for ids in (one, other))
    np.testing.assert_array_equal(first[:-1], second[:-1])
    assert np.abs(first[-1] - second[-1]).max() > 1e-3


def test_instruction_is_read_but_never_pooled(pair: Pair) -> None:
    text = "How many ships passed on Tuesday?"
    plain, instructed = (pair.encode_embedding(each, text) for each in ("", "Represent the sentence for retrieval"))
    pooled = [[i for i, counts in zip(f.ids, f.counts, strict=True) if counts] for f in (plain, instructed)]
    assert pooled[0] == pooled[1], "the same text tokens are pooled with and without an instruction"
    with closing(EmbeddingContext(pair.gguf)) as context:
        hidden_plain, hidden_instructed = context.hidden_states([plain.ids, instructed.ids])
    assert embed(hidden_plain, plain) @ embed(hidden_instructed, instructed) < 0.9999
    hidden_instructed[: instructed.num_prefix] = np.nan
    assert np.isfinite(embed(hidden_instructed, instructed)).all(), "a pooled instruction token would show as NaN"


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_window_ends_where_the_checkpoints_ends_and_embeddings_stay_within_it(tmp_path: Path, family: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    layer_types = ["full_attention", "sliding_attention"]  # another pattern than llama.cpp's own
    folder = make_checkpoint(tmp_path / "checkpoint", family, sliding_window=8, layer_types=layer_types)
    convert(folder, tmp_path / "out.gguf", "F32")
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with LlamaModel(tmp_path / "out.gguf") as gguf:
        pair = Pair(reference, gguf, folder)
        ids = pair.encode_chat()
        with closing(GenerationContext(gguf, n_ctx=512)) as context:
            np.testing.assert_allclose(context.prefill(ids), pair.reference_logits(ids), atol=1e-2)
        with closing(EmbeddingContext(gguf)) as context:
            assert context.max_tokens == 8
            hidden = context.hidden_states([ids[:8]])[0]
            np.testing.assert_allclose(hidden, pair.reference_hidden(ids[:8], is_causal=False), atol=2e-2)


def test_quantized_files_stay_near_the_checkpoint(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures for the record. Random weights are the worst case: nothing in them is redundant."""
    texts = [text for text in TEXTS.values() if text.strip()][:8]
    exact_embeddings, exact_logits = _figures(tiny_gguf, texts)
    least_cosine = {"F16": 0.99999, "BF16": 0.9999, "Q8_0": 0.999, "Q6_K": 0.995, "Q4_K_M": 0.95}
    lines = []
    for quantization_type, least in least_cosine.items():
        out = tmp_path / f"{quantization_type}.gguf"
        convert(tiny_checkpoint, out, quantization_type)
        embeddings, logits = _figures(out, texts)
        cosine, logits_off = (embeddings * exact_embeddings).sum(axis=1).min(), np.abs(logits - exact_logits).max()
        size_bytes = out.stat().st_size
        lines.append(f"{quantization_type:8} {size_bytes:>9} bytes  cosine {cosine:.6f}  logits off {logits_off:.4f}")
        assert cosine > least
    with capsys.disabled():
        print("\nagainst F32, least embedding cosine and largest logit difference:", *lines, sep="\n  ")


def _figures(path: Path, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of the texts, and next-token logits after the chat."""
    with LlamaModel(path) as model:
        batch = [encode(embedding_frame("", text), model, model.grit.markers) for text in texts]
        with closing(EmbeddingContext(model, batch_tokens=1024)) as context:
            hidden = context.hidden_states([frame.ids for frame in batch])
        with closing(GenerationContext(model, n_ctx=512)) as generation:
            logits = generation.prefill(encode(chat_frame(CHAT), model, model.grit.markers).ids)
    return np.stack([embed(each, frame) for each, frame in zip(hidden, batch, strict=True)]), logits
