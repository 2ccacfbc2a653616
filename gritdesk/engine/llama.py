"""llama.cpp behind one door: a GGUF file and token ids in, hidden states, logits and sampled tokens out.

Two rules are owned here. Pointers and return codes become Python values and ModelErrors here and nowhere else;
and nothing reaches llama.cpp that it answers by ending the process: it aborts on too large a batch, on sampling
where there are no logits, on unknown token ids and on two threads in one context, so each of these is checked
before its call. Only functions that are safe are used: no `llama_encode` (it crashes on decoders), no
`llama_chat_apply_template` (it guesses), and not the `Llama` class (it embeds causally).

One model serves two contexts: EmbeddingContext attends bidirectionally, GenerationContext causally, but for the
passages of a prompt that are read as blocks.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gritdesk.errors import CHOOSE_MODEL, ContextOverflow, ModelError
from gritdesk.gguf_file import check_gguf
from gritdesk.grit_format import BOS, EOS, LONG_WORD, GritMetadata, strip_accents
from gritdesk.records import Sampling

# Both are read when the native libraries load. Spinning OpenMP threads make a busy machine ten times slower;
# a backtrace on abort starts a debugger, which prints to stdout.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp as C  # noqa: E402

_NON_CAUSAL, _CAUSAL, _POOLING_NONE = 1, 0, 0
_KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}
_LOG_WARNING, _LOG_ERROR = 3, 4
_RANDOM_SEED = 0xFFFFFFFF
"""What llama.cpp takes as "choose a seed yourself"."""

_MAX_THREADS = 512
"""llama.cpp aborts on more."""
_MAX_BATCH_TOKENS = 8192
"""Memory grows with the batch, and a system that promises too much ends the process when it is used."""

PREFILL_TOKENS = 64
"""Tokens of a prompt read in one call: small enough to stop soon, large enough to be fast."""

BLOCK_TOKENS = 512
"""Longest passage read as a block, unless said otherwise: what the embedding context holds."""

_PROMPT, _BLOCK = 0, 1
"""Sequences of a generation context: all that was read, and a passage while it sees itself alone."""

_complaints: deque[str] = deque(maxlen=20)
"""llama.cpp's last warnings and errors. Its log is one per process, so this is too."""


@C.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _data: object) -> None:
    if level in (_LOG_WARNING, _LOG_ERROR) and text.strip():
        _complaints.append(text.decode("utf-8", "replace").strip())
        print(_complaints[-1], file=sys.stderr, flush=True)


_EMBEDDING_TENSOR = b"result_embd_pooled"
"""What llama.cpp calls the last hidden states where it makes embeddings, pooled or not."""


def _name_function() -> Any:
    """ggml's `ggml_get_name`, or None where the system finds no function through a library that needs its library."""
    function = getattr(C.llama_cpp._lib, "ggml_get_name", None)
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
    return function


_tensor_name: Any = _name_function()


Watch = Callable[[int, bool], bool]
"""Asked with a tensor's address and True whether it is to be seen; shown it with False when it has its values, says
whether to go on."""


def _ending_at_embeddings(watch: Watch | None) -> Any:
    """The callback that ends the graph where the head would come, and lets `watch` see what comes before.

    Were it to raise, ctypes would say False in its place, which stops nothing that was not asked for.
    """

    @C.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
    def on_tensor(tensor: int, is_question: bool, _data: object) -> bool:
        if _tensor_name is not None and _tensor_name(tensor) == _EMBEDDING_TENSOR:
            return is_question
        return watch is not None and watch(tensor, is_question)

    return on_tensor


class LlamaModel:
    """A GGUF file, loaded once: its weights, vocabulary and metadata. It is a `grit_format.FrameTokenizer`."""

    def __init__(self, path: Path, *, n_gpu_layers: int = 0) -> None:
        """Load the file.

        Args:
            n_gpu_layers: layers for Metal or CUDA, -1 for all; without effect where llama.cpp was built without.
        Raises: ModelError if it is missing, damaged, foreign, or carries no grit.* metadata.
        """
        check_gguf(path)
        C.llama_log_set(_on_log, ctypes.c_void_p(0))
        C.llama_backend_init()
        self.path = path
        self.on_gpu = n_gpu_layers != 0 and bool(C.llama_supports_gpu_offload())
        params = C.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if self.on_gpu else 0
        if platform.machine().lower() in ("x86_64", "amd64"):
            params.use_extra_bufts = False  # repacked weights: slower prompts, twice the memory, seconds to load
        params.kv_overrides = _overrides()
        _complaints.clear()
        self._pointer: Any = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._pointer:
            raise ModelError(
                f"cannot load {path}: {_last_complaint()}; copy it again, or make it again with "
                f"`gritdesk convert CHECKPOINT OUT.gguf`, or {CHOOSE_MODEL}"
            )
        self.pid = os.getpid()
        self._contexts: list[_Context] = []
        self._vocab = C.llama_model_get_vocab(self._pointer)
        self._control_ids: dict[str, int] = {}
        self.n_embd = int(C.llama_model_n_embd(self._pointer))
        self.n_vocab = int(C.llama_vocab_n_tokens(self._vocab))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(self._pointer))
        self.metadata = self._read_metadata()
        window = self.metadata.get(f"{self.metadata.get('general.architecture')}.attention.sliding_window", 0)
        self._is_wordpiece = self.metadata.get("tokenizer.ggml.model") == "bert"
        self._strips_accents = bool(self.metadata.get("tokenizer.ggml.normalizer.strip_accents", False))
        self.n_window = int(window)
        """Tokens that windowed layers look back, 0 without any. llama.cpp lets them look ahead without end, so that
        beyond a window a text is embedded neither bidirectionally nor as in training."""
        try:
            self.grit = GritMetadata.from_gguf(self.metadata)
            if not 1 <= self.grit.dimension <= self.n_embd:
                raise ValueError(f"its grit.embedding.dimension is {self.grit.dimension}, its width {self.n_embd}")
        except (KeyError, ValueError) as error:
            self.close()
            reason = f"it lacks the key {error}; convert it again" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"{path} cannot be used by gritdesk: {reason}; {CHOOSE_MODEL}") from error

    @property
    def pointer(self) -> Any:
        """What llama.cpp's functions take. Raises: ModelError once the model is closed."""
        if self._pointer is None:
            raise ModelError(f"the model {self.path} is closed")
        return self._pointer

    @property
    def description(self) -> str:
        """Architecture, size and quantization type, such as "llama 30M Q8_0"."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_desc(self.pointer, buffer, len(buffer))
        told = buffer.value.decode("utf-8", "replace")
        # llama.cpp names the sizes of well-known models only
        return told.replace("?B", f"{C.llama_model_n_params(self.pointer) / 1e6:,.1f}M")

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored in fewer bits than a 16-bit float."""
        return int(self.metadata.get("general.file_type", 0)) not in (0, 1, 32)  # F32, F16, BF16

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: no BOS, nothing in it parsed as a special token."""
        if not self._is_wordpiece:
            return self._tokenize(text, parse_special=False)
        ids: list[int] = []
        for number, part in enumerate(LONG_WORD.split(strip_accents(text) if self._strips_accents else text)):
            ids += [int(self.metadata["tokenizer.ggml.unknown_token_id"])] if number else []
            ids += self._tokenize(part, parse_special=False)
        return ids

    def control_id(self, token: str) -> int:
        """Id of a control token; BOS and EOS are the model's own, whatever their spelling.

        Raises: ModelError if the vocabulary has no such token.
        """
        if token not in self._control_ids:
            self._control_ids[token] = self._find_control(token)
        return self._control_ids[token]

    def piece(self, token_id: int) -> bytes:
        """Text of one token as bytes, perhaps a part of a character; empty for control tokens."""
        self.check_ids([token_id])
        buffer = ctypes.create_string_buffer(64)
        length = int(C.llama_token_to_piece(self._vocab, token_id, buffer, len(buffer), 0, False))
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = int(C.llama_token_to_piece(self._vocab, token_id, buffer, len(buffer), 0, False))
        return buffer.raw[: max(length, 0)]

    def is_end(self, token_id: int) -> bool:
        """Whether the model ends its turn with this token."""
        self.check_ids([token_id])
        return bool(C.llama_vocab_is_eog(self._vocab, token_id))

    @property
    def adds_space_prefix(self) -> bool:
        """Whether the vocabulary puts a space before a text that it tokenizes."""
        is_sentencepiece = self.metadata.get("tokenizer.ggml.model") == "llama"
        return bool(self.metadata.get("tokenizer.ggml.add_space_prefix", is_sentencepiece))

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises: ModelError if the model is closed or an id is none of its vocabulary."""
        self.pointer  # noqa: B018  raises when closed
        if ids and not (0 <= min(ids) and max(ids) < self.n_vocab):
            wrong = next(each for each in ids if not 0 <= each < self.n_vocab)
            raise ModelError(f"token id {wrong} is not in the vocabulary of {self.n_vocab} tokens of {self.path}")

    def close(self) -> None:
        """Free the contexts, then the model; calling it again does nothing."""
        for context in self._contexts:
            context.close()
        if self._pointer is not None:
            C.llama_model_free(self._pointer)
            self._pointer = None

    def __enter__(self) -> LlamaModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep(self, context: _Context) -> None:
        """Remember a context that must be freed before the model."""
        self._contexts.append(context)

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        self.pointer  # noqa: B018  raises when closed
        data = text.encode("utf-8", "replace")
        ids = np.empty(len(data) + 8, dtype=np.int32)
        for _ in range(2):
            found = int(C.llama_tokenize(self._vocab, data, len(data), _as_int32(ids), len(ids), False, parse_special))
            if found >= 0:
                return [int(each) for each in ids[:found]]
            ids = np.empty(-found, dtype=np.int32)
        raise ModelError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")

    def _find_control(self, token: str) -> int:
        named = {BOS: "tokenizer.ggml.bos_token_id", EOS: "tokenizer.ggml.eos_token_id"}.get(token)
        if named is None:
            ids = self._tokenize(token, parse_special=True)
            if len(ids) == 1 and C.llama_vocab_is_control(self._vocab, ids[0]):
                return ids[0]
        elif named in self.metadata:  # llama.cpp makes up an id where the file names none
            self.check_ids([int(self.metadata[named])])
            return int(self.metadata[named])
        raise ModelError(f"{self.path} has no control token {token}; convert its checkpoint again")

    def _read_metadata(self) -> dict[str, str | int | float | bool]:
        """All values but arrays. llama.cpp gives them as text: what reads as a number or a truth value becomes one."""
        count = int(C.llama_model_meta_count(self.pointer))
        texts = {
            self._meta(C.llama_model_meta_key_by_index, index): self._meta(C.llama_model_meta_val_str_by_index, index)
            for index in range(count)
        }
        return {key: _typed(value) for key, value in texts.items()}

    def _meta(self, function: Any, index: int) -> str:
        buffer = ctypes.create_string_buffer(512)
        length = int(function(self.pointer, index, buffer, len(buffer)))
        if length >= len(buffer):
            buffer = ctypes.create_string_buffer(length + 1)
            function(self.pointer, index, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")


class _Context:
    """Working memory of llama.cpp: created with its parameters, used by one thread at a time, freed once."""

    def __init__(self, model: LlamaModel, params: Any) -> None:
        _complaints.clear()
        self._model = model
        self._lock = threading.Lock()
        self._pointer: Any = C.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise ModelError(f"llama.cpp cannot make a context of {params.n_ctx} tokens: {_last_complaint()}")
        model.keep(self)
        self._n_batch = min(int(C.llama_n_batch(self._pointer)), int(C.llama_n_ubatch(self._pointer)))
        self._batch = _Batch(self._n_batch, params.n_seq_max)

    def close(self) -> None:
        """Free it; calling it again does nothing."""
        with self._lock:
            if self._pointer is not None:
                C.llama_free(self._pointer)
                self._pointer = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads, a forked child and the time after close() away: each would end the process."""
        if not self._lock.acquire(blocking=False):
            raise ModelError("two threads used one context at the same time; let one thread serve both")
        try:
            if self._pointer is None:
                raise ModelError("the context is closed")
            if os.getpid() != self._model.pid:
                raise ModelError("the context belongs to the parent process; load the model in this one")
            yield
        finally:
            self._lock.release()

    def _decode(
        self, sequences: Sequence[Sequence[int]], first_position: int, *, outputs: str, first_sequence: int = 0
    ) -> None:
        num_tokens = sum(map(len, sequences))
        if not sequences or not all(sequences):
            raise ModelError("llama.cpp was given an empty sequence; every text needs at least one token")
        if num_tokens > self._n_batch:
            raise ContextOverflow(f"a batch of {num_tokens} tokens is more than the {self._n_batch} that fit")
        if first_sequence + len(sequences) > self._batch.max_sequences:
            raise ContextOverflow(f"{len(sequences)} sequences are more than the {self._batch.max_sequences} that fit")
        for ids in sequences:
            self._model.check_ids(ids)
        _complaints.clear()
        batch = self._batch.fill(sequences, first_position, outputs, first_sequence)
        code = int(C.llama_decode(self._pointer, batch))
        if code != 0:
            raise ModelError(f"llama.cpp could not decode {num_tokens} tokens (code {code}): {_last_complaint()}")

    def _rows(self, pointer: Any, num_rows: int, num_columns: int) -> NDArray[np.float32]:
        """A copy of what llama.cpp points at. Raises: ModelError if it points at nothing."""
        if not pointer:
            raise ModelError("llama.cpp gave no output for the last batch; restart the engine")
        return np.ctypeslib.as_array(pointer, shape=(num_rows, num_columns)).copy()


class EmbeddingContext(_Context):
    """Bidirectional attention: token ids -> last hidden states. Causal attention too, for measuring a whole model."""

    def __init__(
        self,
        model: LlamaModel,
        *,
        batch_tokens: int = 512,
        max_sequences: int = 64,
        n_threads: int = 0,
        kv_type: str = "f16",
        causal: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """Make the context.

        Args:
            batch_tokens: tokens of all sequences of one call together.
            n_threads: 0 for as many as there are cores for this process.
            kv_type: f32, f16, q8_0 or q4_0.
            causal: let no token see what comes after it.
            watch: sees the tensors that llama.cpp computes on the way.
        """
        if not 16 <= batch_tokens <= _MAX_BATCH_TOKENS:
            raise ModelError(f"batch_tokens is {batch_tokens}; give 16 to {_MAX_BATCH_TOKENS}")
        if not 0 < max_sequences <= int(C.llama_max_parallel_sequences()):
            raise ModelError(f"max_sequences is {max_sequences}; llama.cpp takes 1 to 256")
        params = _context_params(model, n_threads, kv_type)
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = max_sequences
        # separate caches would cut the batch into equal lengths, and longer texts would silently lose their end
        params.kv_unified = True
        params.attention_type = _CAUSAL if causal else _NON_CAUSAL
        params.embeddings = True
        # llama.cpp would go on to the logits of every token, a quarter of the time of a small model with 8192 tokens;
        # layers on a GPU are computed ahead of such questions, and there the head is cheap
        if watch is not None or (_tensor_name is not None and not model.on_gpu):
            params.cb_eval = self._callback = _ending_at_embeddings(watch)  # kept, for llama.cpp holds no reference
        super().__init__(model, params)
        self.batch_tokens = min(batch_tokens, self._n_batch)
        self.max_sequences = max_sequences
        self.max_tokens = min(self.batch_tokens, model.n_ctx_train, model.n_window or self.batch_tokens)
        """Tokens of one sequence: the batch, or less where the model was trained on less or looks back less far."""

    def hidden_states(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Last hidden states of each sequence, each attending to all of itself and nothing else.

        Returns: one float32[T, n_embd] per sequence.
        Raises: ContextOverflow if they do not fit one call; ModelError for an empty one or an unknown id.
        """
        longest = max(map(len, sequences), default=0)
        if longest > self.max_tokens:
            raise ContextOverflow(f"a text of {longest} tokens is longer than the {self.max_tokens} that fit")
        with self._alone():
            C.llama_memory_clear(C.llama_get_memory(self._pointer), False)
            self._decode(sequences, 0, outputs="all")
            num_tokens = sum(map(len, sequences))
            rows = self._rows(C.llama_get_embeddings(self._pointer), num_tokens, self._model.n_embd)
        return np.split(rows, np.cumsum([len(ids) for ids in sequences])[:-1])


@dataclass(frozen=True)
class _Part:
    """What one call reads of a prompt. Only the same parts leave the same state: the same ids as a block have seen
    nothing but themselves, and in batches of other sizes, or read elsewhere and moved to their place, they give logits
    that differ in the third digit."""

    ids: tuple[int, ...]
    is_block: bool
    is_moved: bool = False


class States(Protocol):
    """Where the states of blocks are kept; `engine.states.StateStore` is one."""

    def find(self, ids: Sequence[int]) -> NDArray[np.uint8] | None:
        """The state of a block of these ids as it was kept, every byte of it; None if there is none."""
        ...

    def keep(self, ids: Sequence[int], state: NDArray[np.uint8]) -> None: ...


class GenerationContext(_Context):
    """Causal attention: token ids -> logits of the next token, over a KV cache that is kept between calls.

    Where a prompt says so, its passages are blocks: each is read at its place in the prompt but sees itself alone,
    causally or both ways, and all that follows sees it. A block is a sequence of its own while it is read, in one call,
    because llama.cpp has no bidirectional attention over several; then it joins the prompt's.

    What a block leaves in the KV cache, its state, depends on nothing but its ids: rotary positions are relative, so
    that it can be computed before there is a prompt, kept, and moved to any place.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        n_ctx: int = 2048,
        n_threads: int = 0,
        kv_type: str = "f16",
        block_tokens: int = BLOCK_TOKENS,
        states: States | None = None,
    ) -> None:
        """Make the context.

        Args:
            n_ctx: tokens of prompt and answer together; lowered to what the model was trained on.
            n_threads, kv_type: as for EmbeddingContext.
            block_tokens: longest block, lowered to n_ctx and to the window of windowed layers.
            states: where the states of blocks are looked for, and kept; without it they are computed for each prompt.
        """
        if not model.grit.generates:
            raise ModelError(f"{model.path} only embeds and cannot generate; {CHOOSE_MODEL}")
        if n_ctx < 16:
            raise ModelError(f"n_ctx is {n_ctx}; give at least 16")
        if not 16 <= block_tokens <= _MAX_BATCH_TOKENS:
            raise ModelError(f"block_tokens is {block_tokens}; give 16 to {_MAX_BATCH_TOKENS}")
        self.n_ctx = min(n_ctx, model.n_ctx_train)
        # an embedding pass reads a passage both ways, so that is what a model that has learned no blocks knows
        self._has_causal_blocks = model.grit.passages == "causal_blocks"
        self._prefill_tokens = min(PREFILL_TOKENS, self.n_ctx)
        self.max_block_tokens = min(block_tokens, self.n_ctx, model.n_window or self.n_ctx)
        """Tokens of one block."""
        self.states = states
        params = _context_params(model, n_threads, kv_type)
        params.n_ctx = self.n_ctx + self.max_block_tokens  # a state can be computed beside a prompt that fills its part
        params.n_batch = params.n_ubatch = max(self.max_block_tokens, self._prefill_tokens)
        params.n_seq_max = 2
        params.kv_unified = True  # what joins another sequence is then a mark on its cells and no copy
        params.attention_type = _CAUSAL
        params.embeddings = False
        self.state_format = (
            f"{'causal' if self._has_causal_blocks else 'both ways'}/{kv_type}/flash {params.flash_attn_type}/"
            f"gpu {int(model.on_gpu)}/llama_cpp {C.__version__}/1"
        )
        """What a state depends on beside the model's file, which also says how positions are rotated."""
        super().__init__(model, params)
        self._ids: list[int] = []
        self._parts: list[_Part] = []
        self._has_logits = False
        self.can_move = bool(C.llama_memory_can_shift(C.llama_get_memory(self._pointer)))
        """Whether states can be moved; otherwise each block is read at its place."""

    @property
    def num_tokens(self) -> int:
        """Tokens in the KV cache."""
        return len(self._ids)

    def reuse_prefix(self, ids: Sequence[int], blocks: Sequence[int] = (), moved: Collection[int] = ()) -> int:
        """Keep what the KV cache has in common with this prompt, and drop the rest.

        Only what would be read again in the same calls is kept, prefill batches and blocks, and never the last of
        them: read in batches of other sizes, the same tokens give logits that differ in the third digit, and the
        same question would not get the same answer.

        Args:
            blocks, moved: as for `prefill_steps`.
        Returns: how many of the ids are in the cache; the others are to be decoded.
        """
        kept = 0
        for ours, theirs in zip(self._parts, self._parts_of(ids, blocks, moved)[:-1], strict=False):
            if ours != theirs:
                break
            kept += len(ours.ids)
        with self._alone():
            self._drop_from(kept)
        return len(self._ids)

    def prefill_steps(
        self, ids: Sequence[int], blocks: Sequence[int] = (), moved: Collection[int] = ()
    ) -> Iterator[None]:
        """Read a prompt, one batch or block a step; what the cache already holds of it is not read again.

        Args:
            blocks: for each id the number of its passage, 0 for none, as EncodedFrame has them; none at all if
                the prompt has no passages. The model's metadata says how blocks are read.
            moved: numbers of the blocks that come from their states, which are computed where none is kept. Either way
                they are computed apart from the prompt, so that the logits are the same bit for bit.
        Raises: ContextOverflow if there is no room for the prompt and one token more, or a block is longer than
            `max_block_tokens`: nothing is read then.
        """
        self._model.check_ids(ids)
        if len(ids) + 1 > self.n_ctx:
            raise ContextOverflow(f"a prompt of {len(ids)} tokens does not fit the context of {self.n_ctx}")
        parts = self._parts_of(ids, blocks, moved)
        self._check_blocks(parts)
        self.reuse_prefix(ids, blocks, moved)
        for number in range(len(self._parts), len(parts)):
            part, is_last = parts[number], number + 1 == len(parts)
            if part.is_moved:
                self._move_block(part.ids)
            elif part.is_block:
                self._read_block(part.ids, with_logits=is_last)
            else:
                self.decode(part.ids, with_logits=is_last)
            self._parts.append(part)
            yield

    def prefill(
        self, ids: Sequence[int], blocks: Sequence[int] = (), moved: Collection[int] = ()
    ) -> NDArray[np.float32]:
        """Read a whole prompt, see `prefill_steps`. Returns: float32[n_vocab], the logits of the token after it."""
        for _ in self.prefill_steps(ids, blocks, moved):
            pass
        return self.logits()

    def state(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        """State of a block of these ids; the prompt in the cache is left alone.

        Raises: ContextOverflow if it is longer than `max_block_tokens`; ModelError for no ids or an unknown one.
        """
        self._check_block_length(len(ids))
        with self._alone():
            try:
                self._read_apart(ids)
                return self._state()
            finally:
                C.llama_memory_seq_rm(C.llama_get_memory(self._pointer), _BLOCK, -1, -1)

    def decode(self, ids: Sequence[int], *, with_logits: bool = True) -> None:
        """Append at most one batch of tokens to the sequence.

        Raises: ContextOverflow if the context is full.
        """
        with self._alone():
            self._append(ids, _PROMPT, with_logits=with_logits)

    def logits(self) -> NDArray[np.float32]:
        """float32[n_vocab] after the last decoded token. Raises: ModelError if nothing was decoded."""
        with self._alone():
            self._check_logits()
            return self._rows(C.llama_get_logits_ith(self._pointer, -1), 1, self._model.n_vocab).reshape(-1)

    def every_logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Logits after each of these tokens, float32[tokens of a batch, n_vocab] a step; for measuring.

        What the KV cache held is lost. Raises: ContextOverflow if they do not fit the context.
        """
        with self._alone():
            self._drop_from(0)
        yield from self.append_steps(ids)

    def append_steps(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Append tokens to the sequence. Yields and raises: as `every_logits`."""
        if len(self._ids) + len(ids) > self.n_ctx:
            raise ContextOverflow(f"a text of {len(ids)} tokens does not fit the context of {self.n_ctx}")
        for start in range(0, len(ids), self._prefill_tokens):
            batch = ids[start : start + self._prefill_tokens]
            with self._alone():
                self._decode([batch], len(self._ids), outputs="all")
                self._ids.extend(batch)
                rows = self._rows(C.llama_get_logits(self._pointer), len(batch), self._model.n_vocab)
            yield rows

    def sample(self, sampler: Sampler) -> int:
        """Choose the next token; the sampler takes note of it. Raises: ModelError if nothing was decoded."""
        with self._alone():
            self._check_logits()
            return int(C.llama_sampler_sample(sampler.pointer, self._pointer, -1))

    def hidden_states(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Last hidden states under causal attention, float32[T, n_embd]; for checks. The KV cache is lost."""
        with self._alone():
            self._drop_from(0)
            C.llama_set_embeddings(self._pointer, True)
            try:
                self._decode([ids], 0, outputs="all")
                return self._rows(C.llama_get_embeddings(self._pointer), len(ids), self._model.n_embd)
            finally:
                C.llama_set_embeddings(self._pointer, False)
                self._drop_from(0)

    def _parts_of(self, ids: Sequence[int], blocks: Sequence[int], moved: Collection[int]) -> list[_Part]:
        """The calls that read a prompt: each block in one, what lies between in prefill batches."""
        parts: list[_Part] = []
        end = 0
        for block, run in groupby(blocks or [0] * len(ids)):
            start, end = end, end + sum(1 for _ in run)
            step = end - start if block else self._prefill_tokens
            num_parts = max(1, (end - start) // step) if 2 * step <= self._n_batch else -(-(end - start) // step)
            starts = [start + number * step for number in range(num_parts)]
            is_moved = block in moved and self.can_move and end < len(ids)  # a state holds no logits
            parts += [
                _Part(tuple(ids[at:to]), block != 0, is_moved)
                for at, to in pairwise([*starts, end])  # the last one with the rest: few tokens cost as much as many
            ]
        assert end == len(ids), f"{end} block numbers for {len(ids)} ids"
        return parts

    def _check_blocks(self, parts: Sequence[_Part]) -> None:
        self._check_block_length(max((len(part.ids) for part in parts if part.is_block), default=0))

    def _check_block_length(self, length: int) -> None:
        if length > self.max_block_tokens:
            raise ContextOverflow(f"a passage of {length} tokens is longer than the {self.max_block_tokens} that fit")

    def _read_block(self, ids: Sequence[int], *, with_logits: bool) -> None:
        """Append a passage that sees itself alone; all that comes after it sees it."""
        with self._alone():
            memory = C.llama_get_memory(self._pointer)
            C.llama_set_causal_attn(self._pointer, self._has_causal_blocks)
            try:
                self._append(ids, _BLOCK, with_logits=with_logits)
                C.llama_memory_seq_cp(memory, _BLOCK, _PROMPT, -1, -1)
            finally:
                C.llama_memory_seq_rm(memory, _BLOCK, -1, -1)
                C.llama_set_causal_attn(self._pointer, True)

    def _move_block(self, ids: Sequence[int]) -> None:
        """Append a passage by its state: the kept one, or else one that is computed now, and kept."""
        with self._alone():
            memory = C.llama_get_memory(self._pointer)
            self._has_logits = False
            try:
                kept = self.states.find(ids) if self.states else None
                if kept is None or not self._restore(kept, len(ids)):
                    self._read_apart(ids)
                    if self.states:
                        self.states.keep(ids, self._state())
                C.llama_memory_seq_add(memory, _BLOCK, 0, -1, len(self._ids))
                C.llama_memory_seq_cp(memory, _BLOCK, _PROMPT, -1, -1)
            finally:
                C.llama_memory_seq_rm(memory, _BLOCK, -1, -1)
            self._ids.extend(ids)

    def _read_apart(self, ids: Sequence[int]) -> None:
        """Read a passage into the block's sequence, from position 0 on."""
        self._has_logits = False
        C.llama_set_causal_attn(self._pointer, self._has_causal_blocks)
        try:
            self._decode([ids], 0, outputs="none", first_sequence=_BLOCK)
        finally:
            C.llama_set_causal_attn(self._pointer, True)

    def _state(self) -> NDArray[np.uint8]:
        """What the block's sequence holds."""
        state = np.empty(int(C.llama_state_seq_get_size(self._pointer, _BLOCK)), dtype=np.uint8)
        written = int(C.llama_state_seq_get_data(self._pointer, _as_bytes(state), len(state), _BLOCK))
        if not 0 < written == len(state):
            raise ModelError(f"llama.cpp gave {written} of {len(state)} bytes of a state: {_last_complaint()}")
        return state

    def _restore(self, state: NDArray[np.uint8], num_tokens: int) -> bool:
        """Put a state into the block's sequence; False, and nothing there, if it is not of so many tokens."""
        memory = C.llama_get_memory(self._pointer)
        read = int(C.llama_state_seq_set_data(self._pointer, _as_bytes(state), len(state), _BLOCK))
        ends = C.llama_memory_seq_pos_min(memory, _BLOCK), C.llama_memory_seq_pos_max(memory, _BLOCK)
        if read == len(state) and ends == (0, num_tokens - 1):
            return True
        C.llama_memory_seq_rm(memory, _BLOCK, -1, -1)
        return False

    def _append(self, ids: Sequence[int], sequence: int, *, with_logits: bool) -> None:
        start = len(self._ids)
        if start + len(ids) > self.n_ctx:
            raise ContextOverflow(f"the context of {self.n_ctx} tokens is full")
        self._has_logits = False
        try:
            self._decode([ids], start, outputs="last" if with_logits else "none", first_sequence=sequence)
        except ModelError:
            self._drop_from(start)
            raise
        self._ids.extend(ids)
        self._has_logits = with_logits

    def _check_logits(self) -> None:
        if not self._has_logits:
            raise ModelError("there are no logits to sample from; decode a token first")

    def _drop_from(self, position: int) -> None:
        memory = C.llama_get_memory(self._pointer)
        if not C.llama_memory_seq_rm(memory, _PROMPT, position, -1):
            C.llama_memory_clear(memory, False)  # a cache that cannot be cut is read anew
            position = 0
        del self._ids[position:]
        while sum(len(part.ids) for part in self._parts) > position:
            self._parts.pop()
        self._has_logits = False


class Sampler:
    """How one answer chooses its tokens: llama.cpp's sampler chain."""

    def __init__(self, model: LlamaModel, sampling: Sampling) -> None:
        """Build the chain: penalty for repeated tokens of the answer, then greedy, or top-p, temperature and chance.

        Raises: ModelError if a setting is out of its range.
        """
        if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
            raise ModelError(f"temperature is {sampling.temperature}; give 0 (greedy) or more")
        if not 0 < sampling.top_p <= 1:
            raise ModelError(f"top_p is {sampling.top_p}; give more than 0 and at most 1")
        if not (math.isfinite(sampling.repeat_penalty) and sampling.repeat_penalty > 0):
            raise ModelError(f"repeat_penalty is {sampling.repeat_penalty}; give more than 0, 1 is off")
        self._pointer: Any = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if sampling.repeat_penalty != 1.0:
            self._add(C.llama_sampler_init_penalties(model.n_vocab, 64, sampling.repeat_penalty, 0.0, 0.0))
        if sampling.temperature == 0:
            self._add(C.llama_sampler_init_greedy())
        else:
            self._add(C.llama_sampler_init_top_p(sampling.top_p, 1))
            self._add(C.llama_sampler_init_temp(sampling.temperature))
            self._add(C.llama_sampler_init_dist(sampling.seed % _RANDOM_SEED))

    @property
    def pointer(self) -> Any:
        """What llama.cpp's functions take. Raises: ModelError once the sampler is closed."""
        if self._pointer is None:
            raise ModelError("the sampler is closed")
        return self._pointer

    def close(self) -> None:
        """Free the chain; calling it again does nothing."""
        if self._pointer is not None:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def _add(self, sampler: Any) -> None:
        if not sampler:
            raise ModelError("llama.cpp cannot make a sampler; check the sampling settings")
        C.llama_sampler_chain_add(self._pointer, sampler)  # the chain frees it


class _Batch:
    """A llama_batch over numpy arrays, so that filling it takes no Python call per token."""

    def __init__(self, capacity: int, max_sequences: int) -> None:
        self.max_sequences = max_sequences
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._num_ids = np.ones(capacity, dtype=np.int32)
        self._sequence_ids = np.arange(max_sequences, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.uintp)
        self._output = np.zeros(capacity, dtype=np.int8)
        self._batch = C.llama_batch()
        self._batch.token = _as_int32(self._token)
        self._batch.pos = _as_int32(self._position)
        self._batch.n_seq_id = _as_int32(self._num_ids)
        self._batch.seq_id = self._sequence.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self._batch.logits = self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))

    def fill(self, sequences: Sequence[Sequence[int]], first_position: int, outputs: str, first_sequence: int) -> Any:
        """Write the sequences in; `outputs` says for which tokens: all, last, none. The caller checked the sizes."""
        address = self._sequence_ids.ctypes.data
        end = 0
        for number, ids in enumerate(sequences, start=first_sequence):
            start, end = end, end + len(ids)
            self._token[start:end] = ids
            self._position[start:end] = np.arange(first_position, first_position + len(ids))
            self._sequence[start:end] = address + number * self._sequence_ids.itemsize
        self._output[:end] = outputs == "all"
        self._output[end - 1] = outputs != "none"
        self._batch.n_tokens = end
        return self._batch


def system_info() -> str:
    """What llama.cpp was built with and found in this machine, in one line."""
    return str(C.llama_print_system_info().decode("utf-8", "replace").strip())


def num_cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _context_params(model: LlamaModel, n_threads: int, kv_type: str) -> Any:
    if kv_type not in _KV_TYPES:
        raise ModelError(f"kv_type is {kv_type!r}; known are {', '.join(_KV_TYPES)}")
    if not 0 <= n_threads <= _MAX_THREADS:
        raise ModelError(f"n_threads is {n_threads}; give 0 (all cores) to {_MAX_THREADS}")
    params = C.llama_context_default_params()
    params.n_threads = params.n_threads_batch = n_threads or min(num_cores(), _MAX_THREADS)
    params.pooling_type = _POOLING_NONE  # llama.cpp's own pooling would count the instruction
    # pinned, because "auto" may decide differently from run to run; without it an F32 cache is exact to 1e-5
    params.flash_attn_type = 0 if kv_type == "f32" else 1
    params.type_k = params.type_v = _KV_TYPES[kv_type]
    params.offload_kqv = params.op_offload = model.on_gpu
    params.no_perf = True
    return params


def _overrides() -> Any:
    """Metadata that a file may hold and llama.cpp is not to follow: it would take more than accents away."""
    overrides = (C.llama_model_kv_override * 2)()  # an empty one ends the list
    overrides[0].key = b"tokenizer.ggml.normalizer.strip_accents"
    overrides[0].tag = C.LLAMA_KV_OVERRIDE_TYPE_BOOL
    overrides[0].value.val_bool = False
    return overrides


def _as_int32(array: NDArray[np.int32]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def _as_bytes(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _last_complaint() -> str:
    """llama.cpp's own reason for the last failure, without the name of the function that gave it."""
    reasons = [line.partition(": ")[2] for line in _complaints if "failed to load model" not in line]
    return reasons[-1].removeprefix("error loading model: ") if reasons else "llama.cpp gave no reason"


def _typed(value: str) -> str | int | float | bool:
    if value in ("true", "false"):
        return value == "true"
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value
