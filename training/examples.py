"""jsonl files -> examples, each read from its file when it is drawn: memory holds where lines begin and no more.

One file is one source. Forms (also as .zst or .gz; the field `query`, `messages` or `text` tells them apart):

    pair   {"query": TEXT, "pos": [TEXT, ...], "neg": [TEXT, ...]}     TEXT is a string or [instruction, string]
    chat   {"messages": [{"role": "user" | "assistant", "content": ...}, ...]}  or  {"text": [user, assistant, ...]}
           with "passages": [TEXT, ...] they are numbered and put before the last question; with
           "questions": [[question, answer], ...] instead of messages, each is one about those passages
    text   {"text": ...}
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import os
import random
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np
import zstandard
from numpy.typing import NDArray

from gritdesk.grit_format import documents_turn
from gritdesk.records import EmbeddingInput, Turn
from training.config import TrainConfig
from training.held_out import HeldOut, read_held_out

Example = TypeVar("Example")

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Pair:
    query: EmbeddingInput
    positives: tuple[EmbeddingInput, ...]
    negatives: tuple[EmbeddingInput, ...]


@dataclass(frozen=True)
class Chat:
    turns: tuple[Turn, ...]
    others: tuple[tuple[Turn, Turn], ...] = ()
    """Further questions about the same passages with their answers, each instead of the last two turns."""


# ---------------------------------------------------------------- one row


def parse_pair(row: dict[str, Any]) -> Pair:
    """Raises: ValueError if it is none."""
    if "query" not in row or not isinstance(row.get("pos"), list) or not isinstance(row.get("neg", []), list):
        raise ValueError("expected query, and lists pos and neg, of strings or [instruction, text]")
    positives = [_embedding_input(each) for each in row["pos"]]
    negatives = [_embedding_input(each) for each in row.get("neg", [])]
    pair = Pair(
        _embedding_input(row["query"]),
        tuple(each for each in positives if each[1].strip()),
        tuple(each for each in negatives if each[1].strip()),
    )
    if not pair.query[1].strip() or not pair.positives:
        raise EmptyExample
    return pair


def _embedding_input(value: Any) -> EmbeddingInput:
    if isinstance(value, str):
        return "", value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value):
        return value[0], value[1]
    raise ValueError(f"expected a string or [instruction, text], found {json.dumps(value)[:60]}")


def parse_chat(row: dict[str, Any]) -> Chat:
    """GRIT knows no system turn: its text is put before the first user's, as Tulu 2 was trained on.

    Raises: ValueError if it is none.
    """
    if "questions" in row:
        return _reading(row)
    turns = _turns(row)
    if passages := row.get("passages"):
        turns = _with_passages(turns, passages)
    if len(turns) > 1 and [turns[0][0], turns[1][0]] == ["system", "user"]:
        turns = [("user", f"{turns[0][1]}\n{turns[1][1]}"), *turns[2:]]
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError("expected turns of user and assistant by turns, ending with the assistant")
    if not any(text.strip() for _, text in turns[1::2]):
        raise EmptyExample
    return Chat(tuple(Turn("assistant" if number % 2 else "user", text) for number, (_, text) in enumerate(turns)))


def _reading(row: dict[str, Any]) -> Chat:
    """Several questions about the same passages."""
    found: list[tuple[Turn, Turn]] = []
    passages, questions = row.get("passages"), row["questions"]
    if not isinstance(questions, list) or not isinstance(passages, list) or not passages:
        raise ValueError("expected questions as a list, and the passages they are about")
    for each in questions:
        if not (isinstance(each, list) and len(each) == 2 and all(isinstance(text, str) for text in each)):
            raise ValueError(f"expected [question, answer], found {json.dumps(each)[:60]}")
        [(_, asked)] = _with_passages([("user", each[0])], passages)
        found.append((Turn("user", asked), Turn("assistant", each[1])))
    if not found:
        raise EmptyExample
    return Chat(found[0], tuple(found[1:]))


def _with_passages(turns: list[tuple[Any, str]], passages: Any) -> list[tuple[Any, str]]:
    if not isinstance(passages, list) or not all(isinstance(each, str) for each in passages):
        raise ValueError("expected passages as a list of strings")
    last = max((number for number, (role, _) in enumerate(turns) if role == "user"), default=-1)
    return [
        (role, documents_turn(passages, text) if number == last else text) for number, (role, text) in enumerate(turns)
    ]


def _turns(row: dict[str, Any]) -> list[tuple[Any, str]]:
    """(role, text) of each turn."""
    if isinstance(row.get("text"), list):
        turns = list(zip(itertools.cycle(("user", "assistant")), row["text"], strict=False))
    elif isinstance(row.get("messages"), list) and all(isinstance(each, dict) for each in row["messages"]):
        turns = [(each.get("role"), each.get("content")) for each in row["messages"]]
    else:
        raise ValueError("expected messages with role and content, or text as a list of turns")
    for _, text in turns:
        if not isinstance(text, str):
            raise ValueError(f"expected turns of text, found {json.dumps(text)[:60]}")
    return turns


def parse_text(row: dict[str, Any]) -> str:
    """Raises: ValueError if it is none."""
    if not isinstance(row.get("text"), str):
        raise ValueError("expected text")
    if not row["text"].strip():
        raise EmptyExample
    return str(row["text"])


class EmptyExample(Exception):
    """A row of the right form with nothing in it."""

    reason = "empty"
    """What its draws are counted as."""


class HeldOutExample(EmptyExample):
    """A row that holds what an evaluation set asks or shows: for training there is nothing in it."""

    reason = "held out for evaluation"


AnyExample = TypeVar("AnyExample", bound=Pair | Chat | str)


def texts_of(example: Pair | Chat | str) -> list[str]:
    """All that is read of a row, without its instructions."""
    if isinstance(example, Pair):
        return [text for _, text in (example.query, *example.positives, *example.negatives)]
    if isinstance(example, Chat):
        # the others' passages are those of the first
        others = [text for asked, answer in example.others for text in (asked.text.rsplit("\n\n", 1)[-1], answer.text)]
        return [*(turn.text for turn in example.turns), *others]
    return [example]


def not_held_out(
    parse: Callable[[dict[str, Any]], AnyExample], held_out: HeldOut
) -> Callable[[dict[str, Any]], AnyExample]:
    """The same parser, for which a held-out row is HeldOutExample."""

    def parse_kept(row: dict[str, Any]) -> AnyExample:
        example = parse(row)
        if held_out.holds(texts_of(example)):
            raise HeldOutExample
        return example

    return parse_kept


# ---------------------------------------------------------------- one file


class Rows(Sequence[Example], Generic[Example]):
    """The examples of one file, parsed when they are asked for.

    Raises: ValueError naming the file, and the line with its reason, if one is not of the form; EmptyExample.
    """

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], Example], limit: int) -> None:
        self.path = path
        self._parse = parse
        self._file = _plain(path)
        weakref.finalize(self, self._file.close)
        self._starts = _line_starts(self._file)
        self._num = min(len(self._starts) - 1, limit)
        if self._num == 0:
            raise ValueError(f"{path} holds no row")

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._num))]
        if not 0 <= index < self._num:
            raise IndexError(index)
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        line = os.pread(self._file.fileno(), end - start, start) if hasattr(os, "pread") else self._seek(start, end)
        if len(line) < end - start:
            raise ValueError(f"{self.path} became shorter while it was read; start again when it is whole")
        if not line.strip():
            raise EmptyExample
        try:
            return self._parse(_json_object(line))
        except ValueError as error:
            raise ValueError(f"{self.path}, line {index + 1}: {error}") from error

    def _seek(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"expected a JSON object, found {line[:60]!r}") from error
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {line[:60]!r}")
    return row


def _plain(path: Path) -> IO[bytes]:
    """The file itself; of a compressed one, its content in a file without a name that goes with the process."""
    if path.suffix not in (".zst", ".gz"):
        return path.open("rb")
    unpacked = tempfile.TemporaryFile()
    try:
        with _opened(path) as packed:
            shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
    except (zstandard.ZstdError, gzip.BadGzipFile, EOFError) as error:
        unpacked.close()
        raise ValueError(f"{path} is damaged or no {path.suffix} file: {error}") from error
    return unpacked


def _opened(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".zst":
        stream = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True, read_across_frames=True)
        return io.BufferedReader(stream)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _line_starts(file: IO[bytes]) -> NDArray[np.int64]:
    """Where each line begins, and the end of the last; white lines at the end are none."""
    file.seek(0)
    starts, at, last = [np.zeros(1, dtype=np.int64)], 0, b""
    while block := file.read(_BLOCK_BYTES):
        starts.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10) + (at + 1))
        at += len(block)
        last = block
    found = np.concatenate(starts)
    return found if not last or last.endswith(b"\n") else np.append(found, at)


def read_rows(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl file, also as .zst or .gz, in their order.

    Raises: ValueError naming file and line if a line is not a JSON object.
    """
    with _opened(path) as lines:
        for number, line in enumerate(itertools.islice(lines, limit), start=1):
            try:
                yield _json_object(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


# ---------------------------------------------------------------- all files


@dataclass(frozen=True)
class Source(Generic[Example]):
    """One file's examples and its share of the draws."""

    name: str
    rows: Sequence[Example]
    weight: float
    dropped: Counter[str] = field(default_factory=Counter)
    """Draws that came to nothing, by reason."""

    def draw(self, rng: random.Random, num: int) -> list[Example]:
        """`num` different examples, or as many as there are. They depend on nothing but `rng`: not on draws before."""
        found: list[Example] = []
        for index in rng.sample(range(len(self.rows)), min(num, len(self.rows))):
            self._add(index, found)
        for _ in range(len(self.rows)):  # of a file of empty rows there is nothing to find
            if not len(found) < num < len(self.rows):
                break
            self._add(rng.randrange(len(self.rows)), found)
        return found

    def _add(self, index: int, found: list[Example]) -> None:
        try:
            found.append(self.rows[index])
        except EmptyExample as error:
            self.dropped[error.reason] += 1


@dataclass(frozen=True)
class Sources:
    pairs: list[Source[Pair]]
    chats: list[Source[Chat]]
    texts: list[Source[str]]

    def dropped(self) -> dict[str, int]:
        """Draws that came to nothing: "file: reason" -> how many."""
        every: list[Source[Any]] = [*self.pairs, *self.chats, *self.texts]
        return {f"{source.name}: {reason}": num for source in every for reason, num in source.dropped.items() if num}


def read_sources(config: TrainConfig) -> Sources:
    """All files that the recipe names, without the rows that are held out for evaluation.

    Raises: ValueError if one is missing, holds nothing or begins with rows of another form.
    """
    held_out = read_held_out()

    def read(kind: str, weights: dict[str, float], parse: Callable[[dict[str, Any]], Any]) -> list[Source[Any]]:
        sources = []
        for name, weight in weights.items():
            limit = min(config.max_rows_per_file, config.max_rows.get(name, config.max_rows_per_file))
            rows = Rows(find_file(Path(config.data_dir), kind, name), not_held_out(parse, held_out), limit)
            source = Source(name, rows, weight * math.sqrt(len(rows)))
            source.draw(random.Random(config.seed), 20)  # a file of another form is found now and not in an hour
            sources.append(source)
        return sources

    return Sources(
        read("pairs", config.pairs, parse_pair),
        read("chat", config.chat, parse_chat),
        read("text", config.text, parse_text),
    )


def find_file(data: Path, kind: str, name: str) -> Path:
    """NAME.jsonl in the folder of its kind or in the data folder itself, or NAME as a path."""
    folders = (data / kind, data)
    candidates = [folder / f"{name}.jsonl{packed}" for folder in folders for packed in ("", ".zst", ".gz")]
    for path in (*candidates, data / name, Path(name)):
        if path.is_file():
            return path
    raise ValueError(f"no file {name}.jsonl, .jsonl.zst or .jsonl.gz in {data / kind} or {data}")
