"""What travels between the app and the engine's process: length-prefixed pickles over two pipes.

Both ends are this program, so pickles are as safe as the program itself. Requests carry a number; what answers
them carries the same one.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from gritdesk.config import EngineConfig
from gritdesk.engine.states import StateSettings
from gritdesk.errors import ModelError
from gritdesk.grit_format import Cache, Passages
from gritdesk.records import EmbeddingInput, Sampling, Turn

ONLY_EMBEDS = (
    "this model only embeds: it finds passages and cannot write answers; "
    "search with it, or choose a GRIT model with `engine.model`"
)
_LENGTH = struct.Struct("<Q")


class Priority(IntEnum):
    """Who is served first; smaller is sooner."""

    ANSWER = 0
    QUERY = 1
    INDEXING = 2
    IDLE = 3


@dataclass(frozen=True)
class EngineInfo:
    """What the engine found when it loaded its model."""

    model_path: Path
    dimension: int
    n_ctx: int
    """Tokens of prompt and answer together; 0 where the model only embeds."""
    max_text_tokens: int
    """Tokens of an embedded text with its frame; what is longer is cut."""
    markers: str
    description: str
    system: str
    pid: int
    self_test: dict[str, float]
    """See `self_test.self_test`; and load_s, the seconds until all was ready."""
    passages: Passages = "plain"
    """How the model reads the passages of a question, as grit_format.Passages."""
    on_gpu: bool = False
    """Whether llama.cpp was built for a GPU and is given layers to it."""

    @property
    def generates(self) -> bool:
        return self.n_ctx > 0


# ---------------------------------------------------------------- app -> engine


@dataclass(frozen=True)
class Load:
    """Always the first message."""

    model_path: Path
    config: EngineConfig
    states: StateSettings | None = None
    """None: no states are kept."""


@dataclass(frozen=True)
class Embed:
    """Answered by Done(float32[len(inputs), dimension])."""

    inputs: Sequence[EmbeddingInput]


@dataclass(frozen=True)
class CountTokens:
    """Answered by Done(list of int)."""

    texts: Sequence[str]


@dataclass(frozen=True)
class CountPromptTokens:
    """Answered by Done(int)."""

    turns: Sequence[Turn]
    cache: Cache = "auto"


@dataclass(frozen=True)
class Stream:
    """Answered by Pieces, then Done(None)."""

    turns: Sequence[Turn]
    sampling: Sampling
    cache: Cache = "auto"


@dataclass(frozen=True)
class Warm:
    """Have the states of passages kept that may be asked about; answered by Done(Warmed)."""

    passages: Sequence[str]
    """As grit_format.documents_turn takes them."""
    cache: Cache = "auto"
    """How they will be asked about: where that takes no states of passages there is nothing to do."""
    fills: bool = False
    """End where the next state would remove another one."""


@dataclass(frozen=True)
class Warmed:
    """What came of Warm."""

    num_new: int
    """States computed and kept."""
    is_full: bool
    """Whether not all passages were looked at, for want of room, or because no states are kept at all."""


@dataclass(frozen=True)
class Prefill:
    """Read a prompt ahead of the Stream that may begin like it. Answered by Done(None), or by nothing where a Stream or
    another Prefill takes its place."""

    turns: Sequence[Turn]
    cache: Cache = "auto"


@dataclass(frozen=True)
class ReadQuestion:
    """Answered by Done(list of float): of each passage, the log probability of the question behind it."""

    question: str
    passages: Sequence[str]


Task = Embed | CountTokens | CountPromptTokens | Stream | Warm | Prefill | ReadQuestion


@dataclass(frozen=True)
class Request:
    number: int
    priority: Priority
    task: Task


@dataclass(frozen=True)
class Cancel:
    """The answer to this request is no longer wanted; what is not done of it is dropped without a word."""

    number: int


# ---------------------------------------------------------------- engine -> app


@dataclass(frozen=True)
class Loaded:
    info: EngineInfo


@dataclass(frozen=True)
class LoadFailed:
    """The engine ends after it."""

    error: ModelError


@dataclass(frozen=True)
class Working:
    """From now on the engine works for this request: if it dies, this one is to blame."""

    number: int


@dataclass(frozen=True)
class Piece:
    number: int
    text: str


@dataclass(frozen=True)
class Noticed:
    """What a person should know, though every request is served."""

    notice: str


@dataclass(frozen=True)
class Done:
    number: int
    value: Any


@dataclass(frozen=True)
class Failed:
    number: int
    error: ModelError


def write(pipe: BinaryIO, message: object) -> None:
    """Send one message at once. Raises: OSError or ValueError if the other side is gone or the pipe closed."""
    data = pickle.dumps(message, protocol=5)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def read(pipe: BinaryIO) -> Any:
    """Wait for one message. Raises: EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))
    return pickle.loads(_read_exactly(pipe, length))


def _read_exactly(pipe: BinaryIO, length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
