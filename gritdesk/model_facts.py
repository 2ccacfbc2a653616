"""The head of a GGUF file -> what a person wants to know of it: its shape, what it can do, the memory it needs."""

from __future__ import annotations

from dataclasses import dataclass

from gritdesk.config import EngineConfig
from gritdesk.gguf_file import GgufHeader
from gritdesk.grit_format import GritMetadata

_KV_CELLS = 256
"""llama.cpp rounds a context up to a multiple of so many tokens."""


@dataclass(frozen=True)
class ModelFacts:
    """What a file says of itself; numbers are 0 where it does not say."""

    title: str
    """The name its maker gave it; may be empty."""
    family: str
    """The architecture as llama.cpp calls it, such as llama or qwen3."""
    num_parameters: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    num_experts: int
    vocab_size: int
    n_ctx_train: int
    """Tokens of the longest text it was trained on."""
    file_type: str
    """The quantization type of most of its weights, such as Q8_0."""
    weights_bytes: int
    kv_bytes_per_token: int
    """Of a cache in half floats; an encoder has none."""
    grit: GritMetadata | None
    """How it embeds and, unless it only embeds, generates; None if gritdesk cannot use it."""
    problem: str = ""
    """Why it cannot."""
    licence: str = ""
    """As the file names it, such as apache-2.0; "" where it does not."""


@dataclass(frozen=True)
class MemoryNeeded:
    """An estimate, in bytes; the weights are mapped, so that a system short of memory may drop and read them again."""

    weights_bytes: int
    kv_cache_bytes: int
    """Of answers, at the context that the configuration and the model allow."""
    n_ctx: int
    """That context, in tokens; 0 for a model that only embeds."""
    embedding_bytes: int
    """Working memory of embedding: the cache, states and scores of one batch."""
    batch_tokens: int
    bytes_per_passage: int
    """Of an embedding in the index."""


def describe(header: GgufHeader) -> ModelFacts:
    """Read what a file says. Whatever is missing or odd in it is a zero, not an error."""
    family = str(header.values.get("general.architecture", ""))

    def number(key: str, default: int = 0) -> int:
        value = header.values.get(f"{family}.{key}", default)
        return int(value) if isinstance(value, int | float) else default

    num_heads, hidden_size = number("attention.head_count"), number("embedding_length")
    num_kv_heads = number("attention.head_count_kv", num_heads)
    head_size = hidden_size // num_heads if num_heads else 0
    row = number("attention.key_length", head_size) + number("attention.value_length", head_size)
    grit, problem = _grit(header, hidden_size)
    return ModelFacts(
        title=str(header.values.get("general.name", "")),
        family=family,
        num_parameters=sum(tensor.num_values for tensor in header.tensors),
        num_layers=number("block_count"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        num_experts=number("expert_count"),
        vocab_size=header.lengths.get("tokenizer.ggml.tokens", number("vocab_size")),
        n_ctx_train=number("context_length"),
        file_type=_file_type(header),
        weights_bytes=sum(tensor.size_bytes for tensor in header.tensors),
        kv_bytes_per_token=0 if grit and grit.is_encoder else number("block_count") * num_kv_heads * row * 2,
        grit=grit,
        problem=problem,
        licence=str(header.values.get("general.license", "")),
    )


_SHARE_OF_F16 = {"f16": 1.0, "q8_0": 17 / 32, "q4_0": 9 / 32}
"""What a KV cache of a type takes beside one of 16-bit floats; blocks of 32 numbers have a scale."""


def memory_needed(facts: ModelFacts, config: EngineConfig) -> MemoryNeeded:
    """Estimate the memory of the model under these settings.

    Embedding keeps the states of a batch and, computed or not, room for its scores: twice one float for each token
    of the batch and of the vocabulary. Beside its context a writer keeps room for one passage.
    """
    n_ctx = min(config.n_ctx, facts.n_ctx_train or config.n_ctx)
    if facts.grit and not facts.grit.generates:
        n_ctx = 0
    num_cells = _rounded_up(n_ctx + min(config.batch_tokens, n_ctx))
    states = config.batch_tokens * (facts.hidden_size + 2 * facts.vocab_size) * 4
    return MemoryNeeded(
        weights_bytes=facts.weights_bytes,
        kv_cache_bytes=int(num_cells * facts.kv_bytes_per_token * _SHARE_OF_F16[config.kv_type]),
        n_ctx=n_ctx,
        embedding_bytes=_rounded_up(config.batch_tokens) * facts.kv_bytes_per_token + states,
        batch_tokens=config.batch_tokens,
        bytes_per_passage=4 * facts.grit.dimension if facts.grit else 0,
    )


def _grit(header: GgufHeader, hidden_size: int) -> tuple[GritMetadata | None, str]:
    try:
        grit = GritMetadata.from_gguf(header.values)
    except KeyError as error:
        return None, f"it lacks the key {error}; convert it again"
    except ValueError as error:
        return None, str(error)
    if not 1 <= grit.dimension <= hidden_size:
        return None, f"its grit.embedding.dimension is {grit.dimension}, its width {hidden_size}; convert it again"
    return grit, ""


def _file_type(header: GgufHeader) -> str:
    from gguf.constants import LlamaFileType

    try:
        name = LlamaFileType(int(header.values["general.file_type"])).name
    except (KeyError, ValueError):
        return ""
    return str(name).removeprefix("MOSTLY_").removeprefix("ALL_")


def _rounded_up(n_ctx: int) -> int:
    return -(-n_ctx // _KV_CELLS) * _KV_CELLS
