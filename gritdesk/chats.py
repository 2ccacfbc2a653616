"""Conversations kept on this machine: each a file of lines, which is written and read here and nowhere else.

    HOME/chats/20240309-150000-3f2a.jsonl
        {"kind": "exchange", "answer": {...}, "hits": [...], "asked_at": 1709992800.0}
        {"kind": "title", "title": "Keys"}
        {"kind": "pin", "is_pinned": true}

A line is one fact, written at once, synced to the disk and never changed; a chat is what its lines add up to. So a
crash loses the answer under way and nothing else, a damaged line loses itself, and processes that write to one chat
add their lines one after the other. Nothing of it ever leaves the machine, whatever the index is kept in.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from filelock import FileLock, Timeout

from gritdesk.config import Config
from gritdesk.errors import ConfigError, StoreBusy, StoreError
from gritdesk.records import UNSUPPORTED, Answer, Chat, ChatSummary, Citation, Exchange

ExportFormat = Literal["markdown", "json"]

_LOCK_S = 10.0
_TITLE_CHARACTERS = 80
_SUFFIX = ".jsonl"
_NOT_OURS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What a line that is not what we wrote may raise."""


class Chats:
    """All chats of one home. Any thread and any process may use it."""

    def __init__(self, config: Config) -> None:
        self._folder = config.chats_dir
        self._lock_path = config.chats_lock_path

    # ------------------------------------------------------------ what is there

    def paths(self) -> list[Path]:
        """The files of all chats."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def all(self) -> list[ChatSummary]:
        """All chats that can be read, pinned ones first, then those last asked in."""
        found = [summary for path in self.paths() if (summary := _summary(path)) is not None]
        return sorted(found, key=lambda each: (not each.is_pinned, -each.asked_at))

    def size_bytes(self) -> int:
        return sum(_size_bytes(path) for path in self.paths())

    def find(self, name: str) -> str:
        """The id of the chat that is meant: all of it, or a part that no other id has.

        Raises: ConfigError if none or several have it.
        """
        ids = [path.stem for path in self.paths()]
        if name in ids:
            return name
        meant = [each for each in ids if name and name in each]
        if len(meant) == 1:
            return meant[0]
        found = f"{len(meant)} chats have {name!r} in their ids" if meant else f"there is no chat {name}"
        raise ConfigError(f"{found}; `gritdesk chats` lists them")

    def latest(self) -> str:
        """The id of the chat in which was last asked. Raises: ConfigError if there is none."""
        found = max(self.all(), key=lambda each: each.asked_at, default=None)
        if found is None:
            raise ConfigError("there is no chat to go on with; `gritdesk ask QUESTION` in a terminal begins one")
        return found.id

    def read(self, id_: str) -> Chat:
        """A whole chat, without the lines that cannot be read. Raises: ConfigError if it is not there; StoreError."""
        path = self.path(id_)
        try:
            return read_chat(path)
        except FileNotFoundError as error:
            raise ConfigError(f"there is no chat {id_}; `gritdesk chats` lists them") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; may you read it?") from error

    def path(self, id_: str) -> Path:
        return self._folder / f"{id_}{_SUFFIX}"

    # ------------------------------------------------------------ what changes

    def new_id(self) -> str:
        """An id for a chat to begin; its file comes with the first answer."""
        return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def add(self, id_: str, exchange: Exchange, *, begins: bool = False) -> None:
        """Write one more question and answer; on the disk when this returns.

        Args:
            begins: whether this is the first of a new chat; otherwise one that is not there was deleted meanwhile.
        Raises: StoreError if it cannot be written; StoreBusy.
        """
        self._append(id_, {"kind": "exchange", **plain(exchange)}, begins=begins)

    def rename(self, id_: str, title: str) -> None:
        """Raises: as `add`."""
        self._append(id_, {"kind": "title", "title": " ".join(title.split())})

    def pin(self, id_: str, is_pinned: bool = True) -> None:
        """Raises: as `add`."""
        self._append(id_, {"kind": "pin", "is_pinned": is_pinned})

    def delete(self, id_: str) -> None:
        """Raises: as `add`."""
        path = self.path(id_)
        with self._writing():
            try:
                path.unlink()
            except FileNotFoundError as error:
                raise ConfigError(f"there is no chat {id_}; `gritdesk chats` lists them") from error
            except OSError as error:
                raise StoreError(f"cannot delete {path}: {error.strerror}; may you write there?") from error

    def _append(self, id_: str, line: Mapping[str, Any], *, begins: bool = False) -> None:
        path = self.path(id_)
        written = json.dumps(line, default=float).encode() + b"\n"
        with self._writing():
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if begins else 0) | getattr(os, "O_BINARY", 0)
                with open(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
                    if not _ends_a_line(file.fileno()):
                        written = b"\n" + written  # a line that a crash cut short stays alone
                    _write_all(file.fileno(), written)
                    os.fsync(file.fileno())
                if begins:
                    _sync_folder(self._folder)
            except FileNotFoundError as error:
                raise StoreError(f"the chat {id_} is not there any more; what is new was not kept") from error
            except OSError as error:
                raise StoreError(f"cannot write {path}: {error.strerror}; is there room, and may you write?") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, in whatever process: what two append at once would mix on some file systems."""
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock_path, timeout=_LOCK_S):
                yield
        except Timeout as error:
            raise StoreBusy(f"another gritdesk writes chats for too long ({self._lock_path}); try again") from error
        except OSError as error:
            raise StoreError(f"cannot lock {self._lock_path}: {error.strerror}; may you write there?") from error


# ---------------------------------------------------------------- lines to a chat


def read_chat(path: Path) -> Chat:
    """What the lines of a file add up to. Raises: OSError."""
    exchanges: list[Exchange] = []
    title, is_pinned, num_damaged = "", False, 0
    for line in _lines(path):
        try:
            fact = json.loads(line)
            if fact["kind"] == "exchange":
                exchanges.append(restored(Exchange, fact))
            elif fact["kind"] == "title":
                title = restored(str, fact["title"])
            elif fact["kind"] == "pin":
                is_pinned = restored(bool, fact["is_pinned"])
        except _NOT_OURS:
            num_damaged += 1
    first = exchanges[0].question if exchanges else ""
    return Chat(path.stem, title or _as_title(first), tuple(exchanges), is_pinned, num_damaged, bool(title))


def _summary(path: Path) -> ChatSummary | None:
    """What a list shows, without the passages being read; None if the file cannot be read, or has gone."""
    begins, small = b'{"kind": "exchange"', []
    try:
        lines = _lines(path)
    except OSError:
        return None
    exchanges = [line for line in lines if line.startswith(begins) and line.endswith(b"}")]
    title, is_pinned = "", False
    for line in lines:
        if not line.startswith(begins):
            small.append(line)
    for line in small:
        try:
            fact = json.loads(line)
            title = restored(str, fact.get("title", title))
            is_pinned = restored(bool, fact.get("is_pinned", is_pinned))
        except _NOT_OURS:
            continue
    first, last = _first_whole(exchanges), _first_whole(reversed(exchanges))
    if first is None or last is None:
        return None if not title else ChatSummary(path.stem, title, 0, 0.0, 0.0, is_pinned, _size_bytes(path))
    return ChatSummary(
        path.stem,
        title or _as_title(first.question),
        len(exchanges),
        first.asked_at,
        last.asked_at,
        is_pinned,
        _size_bytes(path),
    )


def _first_whole(lines: Iterable[bytes]) -> Exchange | None:
    for line in lines:
        try:
            exchange: Exchange = restored(Exchange, json.loads(line))
            return exchange
        except _NOT_OURS:
            continue
    return None


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line.strip()]


def _as_title(question: str) -> str:
    text = " ".join(question.split())
    return text if len(text) <= _TITLE_CHARACTERS else text[:_TITLE_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _ends_a_line(file: int) -> bool:
    size = os.lseek(file, 0, os.SEEK_END)
    if size == 0:
        return True
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    """Have a new file's name survive a power cut, too; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ---------------------------------------------------------------- records to JSON and back


def plain(value: Any) -> Any:
    """A record as JSON has it; names of files keep their bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def restored(kind: Any, value: Any) -> Any:
    """The value of a type that `plain` was given; what an older or newer version did not write has its default.

    Raises: TypeError if it is none of that type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        if value is None and NoneType in inner:
            return None
        return restored(next(each for each in inner if each is not NoneType), value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {each.name: value[each.name] for each in fields(kind) if each.name in _as(dict, value)}
        return kind(**{name: restored(hints[name], each) for name, each in known.items()})  # type: ignore[operator]
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(restored(each_kind, each) for each_kind, each in zip(inner, _as(list, value), strict=True))
    if origin is tuple:
        return tuple(restored(inner[0], each) for each in _as(list, value))
    if kind is Path:
        return Path(_as(str, value))
    if kind is float:
        return float(_as((int, float), value))
    if isinstance(kind, type):
        return _as(kind, value)
    return value


def _as(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind}, found {value!r}")
    return value


# ---------------------------------------------------------------- a chat for other programs


def exported(chat: Chat, format_: ExportFormat) -> str:
    """A chat as Markdown to read, or as JSON with all that is kept of it."""
    if format_ == "json":
        return json.dumps(plain(chat), indent=2) + "\n"
    parts = [f"# {chat.title}"]
    for exchange in chat.exchanges:
        parts.append(f"## {' '.join(exchange.question.split())}")
        parts.append(f"*{local_time(exchange.asked_at)}*")
        parts += _answer_parts(exchange.answer)
    return "\n\n".join(parts) + "\n"


def _answer_parts(answer: Answer) -> list[str]:
    """The text, what nothing supports marked in it, what it rests on, and what a person must know of it."""
    text = answer.text
    for sentence in reversed(answer.sentences if answer.grounded else ()):
        if not sentence.is_supported:
            text = f"{text[: sentence.end]} {UNSUPPORTED}{text[sentence.end :]}"
    parts = [text, *map(_cited, answer.citations)]
    if answer.within:
        parts.append(f"*Asked of: {', '.join(f'`{_shown(each)}`' for each in answer.within)}*")
    if answer.searched_for:
        parts.append(f"*Searched for: {answer.searched_for}*")
    if answer.from_model:
        parts.append("*From the model, not from your files.*")
    elif answer.evidence == "none":
        parts += [f"*Found without {restriction}: {num}*" for restriction, num in answer.removed]
        parts += ["*The nearest:*", *map(_cited, answer.nearest)] if answer.nearest else []
    elif not answer.grounded:
        parts.append("*No passage supports this answer.*")
    elif answer.evidence == "thin":
        parts.append("*The files hold little on this.*")
    return [*parts, "*Stopped before its end.*"] if answer.stopped else parts


def _cited(citation: Citation) -> str:
    page = f", page {citation.page}" if citation.page else ""
    heading = f", {citation.heading}" if citation.heading else ""
    path = _shown(citation.path)
    quote = "\n".join(f"> {line}".rstrip() for line in citation.quote.splitlines())
    return f"[{citation.n}] `{path}`, line {citation.line_start}{page}{heading}\n\n{quote}"


def _shown(path: Path) -> str:
    return str(path).encode(errors="replace").decode()


def local_time(seconds: float) -> str:
    """Of a moment since 1970, to the minute; "" if there is none."""
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}" if seconds else ""
    except (OverflowError, OSError, ValueError):
        return ""


def now() -> float:
    return time.time()
