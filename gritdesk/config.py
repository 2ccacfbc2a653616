"""Where files live, and what config.toml may say.

All state lies in one folder, the home: `GRITDESK_HOME` if set, otherwise the platform's own place for
application data. It holds config.toml, index.sqlite, chats/, models/ and logs/.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gritdesk.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True)
class EngineConfig:
    """[engine]"""

    model: str = ""
    """Path of a GGUF, or a name that `gritdesk models` lists; empty: the default model."""
    n_gpu_layers: int = -1
    """Layers given to Metal or CUDA when the installed llama.cpp has it; -1 is all, 0 is none."""
    n_threads: int = 0
    """CPU threads; 0 is the number of cores this process may use."""
    n_ctx: int = 2048
    """Context for answers, in tokens; a model trained on less lowers it."""
    batch_tokens: int = 512
    """Tokens embedded in one call, and so the longest passage with its title and frame."""
    kv_type: str = "f16"
    """How answers keep keys and values, and so the states on disk: "f16", "q8_0" (half of it) or "q4_0" (a quarter)."""
    states_mb: int = 1024
    """Room on disk for the states of passages, from which answers begin sooner; 0 keeps none."""
    embed_url: str = ""
    """A server that embeds in the model's place, as http://HOST:8080/v1; your texts are sent to it. Empty: none."""
    embed_model: str = ""
    """The embedding model's name, as the server knows it."""
    embed_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the server's key."""
    embed_query_prefix: str = ""
    """Put before a question, as the model's card says; {instruction} stands for the task."""
    embed_passage_prefix: str = ""
    """Put before a passage, as the model's card says."""


@dataclass(frozen=True)
class IndexConfig:
    """[index]"""

    folders: tuple[str, ...] = ()
    """Folders that are kept in the index; `gritdesk index FOLDER` adds one."""
    chunk_tokens: int = 256
    """Longest chunk, in the model's tokens."""
    max_file_mb: int = 32
    """Larger files are not opened, and listed with that reason."""
    quiet: bool = False
    """What watches rests twice as long as it works; `gritdesk watch`, which does nothing else, takes one thread."""
    on_battery: str = "words only"
    """What watching does without mains: "go on", "words only" (meaning follows when it is plugged in) or "pause"."""
    store: str = ""
    """Where the index is: empty, a file at home; postgresql://USER@HOST/DATABASE, one that a team shares."""


@dataclass(frozen=True)
class SearchConfig:
    """[search]: what words and meaning weigh in a hybrid search, measured by benchmarks/fusion.py."""

    keyword_weight: float = 1.0
    """What a hit's rank by words weighs in a hybrid search."""
    semantic_weight: float = 0.3
    """What its rank by meaning weighs."""
    num_passages: int = 3
    """Passages given to an answer."""
    rerank_by: str = "windows"
    """What a closer reading of the hits (`search --rerank`) goes by: "windows", the nearest two sentences of each, or
    "likelihood", how likely the model finds the question behind each."""
    rerank_weight: float = 0.1
    """What it weighs, measured by benchmarks/rerank.py."""
    rerank_budget_s: float = 2.0
    """How long it may take."""


@dataclass(frozen=True)
class AnswerConfig:
    """[answer]"""

    max_tokens: int = 160
    """Longest answer, in the model's tokens."""
    temperature: float = 0.0
    """How freely an answer chooses its words; 0 takes the likeliest, and gives the same answer every time."""
    repeat_penalty: float = 1.1
    """How much less likely a word becomes that the answer has used; 1 is not at all."""
    keep_chats: bool = True
    """Questions and answers are kept at home, to go on with and to search; false: never, by nobody."""
    rewrite: str = "rules"
    """How a question that leaves out what was said before is searched for: "rules", "model" (a larger one) or "off"."""
    passage_tokens: int = 512
    """Passages side by side become one, and a short file is read as a whole, up to so many of the model's tokens."""
    cache: str = "auto"
    """Of what keys and values computed before are used: "none", "query", "doc", "query-doc" or "doc-query"; "auto" is
    "doc" where the model learned to read passages as blocks, else "none"."""


@dataclass(frozen=True)
class AppearanceConfig:
    """[appearance]: of the terminal UI"""

    theme: str = ""
    """A theme's name, as the command palette lists them; empty: gritdesk-dark, and gritdesk-ansi with NO_COLOR."""
    mouse: bool = True
    """Whether clicks and the wheel are taken; false leaves them to the terminal, which selects text with them."""


@dataclass(frozen=True)
class Config:
    """One config.toml: a section per field."""

    home: Path
    engine: EngineConfig = field(default_factory=EngineConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    keys: Mapping[str, object] = field(default_factory=dict)
    """[keys]: by a binding's id its keys, as they stand there; gritdesk/tui/keymap.py says what they may be."""

    @property
    def path(self) -> Path:
        return self.home / "config.toml"

    @property
    def index_path(self) -> Path:
        return self.home / "index.sqlite"

    @property
    def lock_path(self) -> Path:
        return self.home / "index.lock"

    @property
    def keeper_path(self) -> Path:
        return self.home / "index.keeper.json"

    @property
    def pause_path(self) -> Path:
        return self.home / "index.pause.json"

    @property
    def chats_dir(self) -> Path:
        return self.home / "chats"

    @property
    def chats_index_path(self) -> Path:
        return self.home / "chats.sqlite"

    @property
    def chats_lock_path(self) -> Path:
        return self.home / "chats.lock"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def states_dir(self) -> Path:
        return self.home / "states"

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"


_LOCK_S = 5.0
"""Writing config.toml takes milliseconds."""
_LEAST = {
    "engine.n_threads": 0,
    "engine.n_ctx": 16,
    "engine.batch_tokens": 16,
    "engine.states_mb": 0,
    "index.chunk_tokens": 16,
    "index.max_file_mb": 1,
    "search.keyword_weight": 0,
    "search.semantic_weight": 0,
    "search.num_passages": 1,
    "search.rerank_weight": 0,
    "search.rerank_budget_s": 0,
    "answer.max_tokens": 1,
    "answer.temperature": 0,
    "answer.passage_tokens": 0,
}
"""The smallest number that makes sense; what a number is too large for, the engine knows."""

CACHES = ("auto", "none", "query", "doc", "query-doc", "doc-query")

_CHOICES = {
    "engine.kv_type": ("f16", "q8_0", "q4_0"),
    "index.on_battery": ("go on", "words only", "pause"),
    "search.rerank_by": ("windows", "likelihood"),
    "answer.rewrite": ("rules", "model", "off"),
    "answer.cache": CACHES,
}

TITLE_TOKENS = 136
"""Room beside a chunk for its title, which has at most so many bytes (grit_format), and the frame."""

_SECTIONS = {
    "engine": EngineConfig,
    "index": IndexConfig,
    "search": SearchConfig,
    "answer": AnswerConfig,
    "appearance": AppearanceConfig,
}


def home_dir() -> Path:
    """The folder of all state; not created here."""
    set_home = os.environ.get("GRITDESK_HOME")
    if set_home:
        try:
            set_home.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"GRITDESK_HOME {set_home!r} is not valid Unicode, as SQLite needs it") from error
        return _expanded(Path(set_home)).absolute()
    from platformdirs import user_data_path  # 10 ms that a set GRITDESK_HOME does not pay

    return user_data_path("gritdesk", appauthor=False)


def load_config(home: Path | None = None) -> Config:
    """Read HOME/config.toml; what it does not say keeps its default.

    Raises: ConfigError naming the file and the key if it is not TOML, or a key or type is not known.
    """
    home = home or home_dir()
    path = home / "config.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # of a home that is no folder, whoever writes there speaks
        return Config(home)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; mend it or move it away to use the defaults") from error
    return _read_config(home, values)


def _read_config(home: Path, values: Mapping[str, Any]) -> Config:
    path = home / "config.toml"
    config = Config(home, **{name: _read_section(path, name, section) for name, section in values.items()})
    if config.index.chunk_tokens + TITLE_TOKENS > config.engine.batch_tokens:
        raise ConfigError(
            f"{path}: index.chunk_tokens ({config.index.chunk_tokens}) must be at least {TITLE_TOKENS} less than "
            f"engine.batch_tokens ({config.engine.batch_tokens}), or the ends of passages are not embedded"
        )
    folders = tuple(str(_full_path(path, folder)) for folder in config.index.folders)
    return dataclasses.replace(config, index=dataclasses.replace(config.index, folders=folders))


def add_folder(config: Config, folder: Path) -> Config:
    """Write one more folder into config.toml as it stands now, keeping what a person or another process wrote there.

    Returns: the configuration with all folders that are listed now.
    Raises: ConfigError if config.toml cannot be read or written.
    """
    folder = folder.absolute()
    with _held(config):
        listed = load_config(config.home).index.folders
        folders = listed if str(folder) in listed else (*listed, str(folder))
        if folders != listed:
            write_setting(config, "index.folders", folders)
    return dataclasses.replace(config, index=dataclasses.replace(config.index, folders=folders))


def remove_folder(config: Config, folder: str) -> Config:
    """Take a folder out of config.toml as it stands now, keeping everything else that stands there.

    Args:
        folder: as IndexConfig.folders has it.
    Returns: the configuration with all folders that are listed now.
    Raises: ConfigError if config.toml cannot be read or written.
    """
    with _held(config):
        listed = load_config(config.home).index.folders
        folders = tuple(each for each in listed if each != folder)
        if folders != listed:
            write_setting(config, "index.folders", folders)
    return dataclasses.replace(config, index=dataclasses.replace(config.index, folders=folders))


def set_model(config: Config, model: str) -> Config:
    """Write `engine.model` into config.toml, keeping everything else that stands there.

    Args:
        model: as EngineConfig has it; "" for the default, which is written only over another one.
    Raises: ConfigError if config.toml cannot be read or written.
    """
    if load_config(config.home).engine.model != model:
        write_setting(config, "engine.model", model)
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, model=model))


def with_setting(config: Config, key: str, value: Any) -> Config:
    """The configuration as it would be read if config.toml said so; nothing is written.

    Args:
        key: SECTION.NAME.
        value: as config.toml would hold it; None: the default.
    Raises: ConfigError as load_config, naming the key; its message begins with the path of config.toml.
    """
    return _read_config(config.home, _document_with(config, key, value).unwrap())


def write_setting(config: Config, key: str, value: Any) -> Config:
    """Write one setting into config.toml, or take it out if it is the default's, and leave all else as it stands.

    Args: as `with_setting`.
    Returns: the configuration as it is written now.
    Raises: as `with_setting`, and ConfigError if the file cannot be written. Nothing is changed then.
    """
    import tomlkit

    with _held(config):
        document = _document_with(config, key, value)
        changed = _read_config(config.home, document.unwrap())
        try:
            text = tomlkit.dumps(document).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{key} {value!r} is not valid Unicode, as config.toml needs it; rename it") from error
        beside = config.path.with_suffix(".toml.new")
        beside.write_bytes(text)
        beside.replace(config.path)
    return changed


@contextmanager
def _held(config: Config) -> Iterator[None]:
    """While config.toml is read, changed and replaced: threads and processes do it one after another."""
    from filelock import FileLock, Timeout

    lock = config.path.with_suffix(".lock")
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=_LOCK_S, is_singleton=True):  # which one thread may take twice
            yield
    except Timeout as error:
        raise ConfigError(f"{config.path} is being written by another gritdesk; try again") from error
    except OSError as error:
        raise ConfigError(f"cannot write {config.path}: {error.strerror}; check that you may write there") from error


def _document_with(config: Config, key: str, value: Any) -> TOMLDocument:
    """config.toml with one setting changed. Raises: ConfigError if it cannot be read as it stands."""
    import tomlkit
    import tomlkit.items

    load_config(config.home)  # what was wrong before is said of its own place
    section, _, name = key.partition(".")
    document = tomlkit.parse(config.path.read_text(encoding="utf-8") if config.path.exists() else "")
    defaults = {each.name: each.default for each in dataclasses.fields(_SECTIONS.get(section, EngineConfig))}
    if section not in _SECTIONS or name not in defaults:
        raise ConfigError(f"{config.path}: unknown key {key}; `gritdesk settings` lists those that are known")
    table: Any = document.get(section)
    is_default = value is None or value == defaults[name]
    if is_default and (table is None or name not in table):
        return document
    if is_default and not _has_remark(table, name):
        del table[name]
        if isinstance(table, tomlkit.items.Table) and not table.as_string().strip():
            del document[section]
    else:  # a line that a person wrote a remark behind stays, whatever it says now
        value = defaults[name] if value is None else value
        document.setdefault(section, tomlkit.table())[name] = list(value) if isinstance(value, tuple) else value
    return document


def _has_remark(table: Any, name: str) -> bool:
    item = table.item(name) if hasattr(table, "item") else table[name]
    return bool(getattr(item, "trivia", None) and item.trivia.comment)


def written_at(config: Config) -> int:
    """When config.toml was written, to tell whether it was since; 0 if it is not there."""
    try:
        return config.path.stat().st_mtime_ns
    except OSError:
        return 0


def least_of(key: str) -> float | None:
    """The smallest number that SECTION.NAME may be; None if there is none."""
    return _LEAST.get(key)


def choices_of(key: str) -> tuple[str, ...]:
    """All that SECTION.NAME may be; none if it may be anything of its type."""
    return _CHOICES.get(key, ())


def _read_section(path: Path, name: str, values: Any) -> Any:
    if name == "keys" and isinstance(values, dict):
        return dict(_flat(values))
    section = _SECTIONS.get(name)
    if section is None or not isinstance(values, dict):
        raise ConfigError(f"{path}: unknown section [{name}]; known are {', '.join([*_SECTIONS, 'keys'])}")
    known = {each.name: each for each in dataclasses.fields(section)}
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {name}.{key}; known are {', '.join(known)}")
        read[key] = _in_range(path, f"{name}.{key}", _converted(path, f"{name}.{key}", value, known[key].default))
    return section(**read)


def _flat(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """A key with a dot in it is a table to TOML unless it stands in quotes: both mean the same here."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _converted(path: Path, key: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    wanted = "a list of strings" if isinstance(default, tuple) else type(default).__name__
    raise ConfigError(f"{path}: {key} must be {wanted}, found {value!r}")


def _in_range(path: Path, key: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {key} must be a finite number, found {value}")
    if key in _CHOICES and value not in _CHOICES[key]:
        known = ", ".join(f'"{each}"' for each in _CHOICES[key])
        raise ConfigError(f"{path}: {key} must be one of {known}, found {value!r}")
    if key in _LEAST and value < _LEAST[key]:
        raise ConfigError(f"{path}: {key} must be {_LEAST[key]} or more, found {value}")
    return value


def _full_path(path: Path, folder: str) -> Path:
    """A folder of the configuration: relative, it would be another one wherever the program is started."""
    expanded = _expanded(Path(folder))
    if not expanded.is_absolute():
        raise ConfigError(f"{path}: index.folders must be full paths, found {folder!r}")
    return expanded


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: the home folder it begins with is not known; write the full path") from error
