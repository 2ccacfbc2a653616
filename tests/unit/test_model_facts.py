"""What is said of a model is what its file says, and the memory told is what its shape asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gritdesk.config import EngineConfig
from gritdesk.gguf_file import read_header
from gritdesk.model_facts import describe, memory_needed


def test_facts_are_those_of_the_checkpoint(tiny_gguf: Path, tiny_gguf_q8: Path) -> None:
    facts = describe(read_header(tiny_gguf_q8))
    assert (facts.family, facts.num_layers, facts.hidden_size) == ("llama", 2, 256)
    assert (facts.vocab_size, facts.n_ctx_train, facts.file_type) == (600, 1024, "Q8_0")
    assert (facts.num_heads, facts.num_kv_heads, facts.num_experts) == (4, 2, 0)
    embeddings, attention, feed_forward, norms = 2 * 600 * 256, 256 * (256 + 128 + 128 + 256), 3 * 256 * 256, 512
    assert facts.num_parameters == embeddings + 2 * (attention + feed_forward + norms) + 256
    assert describe(read_header(tiny_gguf)).weights_bytes == 4 * facts.num_parameters
    assert facts.grit is not None and (facts.grit.dimension, facts.grit.markers) == (256, "special")


def test_memory_follows_the_settings(tiny_gguf: Path) -> None:
    facts = describe(read_header(tiny_gguf))
    per_token = 2 * 2 * (64 + 64) * 2  # layers, heads of keys and values, their sizes, half floats
    assert facts.kv_bytes_per_token == per_token
    needed = memory_needed(facts, EngineConfig(n_ctx=300, batch_tokens=512))
    assert (needed.n_ctx, needed.kv_cache_bytes) == (300, 768 * per_token), "a passage of 300 beside 300, in 256s"
    small = memory_needed(facts, EngineConfig(n_ctx=300, batch_tokens=512, kv_type="q4_0"))
    assert small.kv_cache_bytes == 768 * per_token * 9 // 32
    assert needed.embedding_bytes == 512 * (per_token + 4 * 256 + 8 * 600)
    assert needed.bytes_per_passage == 1024
    assert memory_needed(facts, EngineConfig(n_ctx=1 << 20)).n_ctx == 1024


def test_file_of_somebody_else_is_described_with_what_keeps_it_from_use(tiny_gguf: Path) -> None:
    header = read_header(tiny_gguf)
    plain = {key: value for key, value in header.values.items() if not key.startswith("grit.")}
    facts = describe(dataclasses.replace(header, values=plain))
    assert facts.grit is None and "grit" in facts.problem and facts.num_layers == 2
    foreign = plain | {"general.architecture": "unheard-of", "general.file_type": 999}
    assert describe(dataclasses.replace(header, values=foreign)).num_layers == 0
