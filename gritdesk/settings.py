"""What a person may set: every key of config.toml with its meaning, its value, its limits, and when a change counts.

The dataclasses of config.py say all of it once. What a key means is the string beneath its field, read from the source
file, since Python keeps no docstrings of fields.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from gritdesk.config import Config, choices_of, least_of
from gritdesk.errors import ConfigError

Applies = Literal["at once", "on opening", "at start"]
"""on opening: where the index or the model is opened next, and the terminal UI opens both anew at once; at start: where
the terminal UI is started next."""

_STARTED_WITH = frozenset({"appearance", "keys"})
"""Sections that the terminal UI reads when it starts."""

_OPENED_WITH = frozenset({"index.chunk_tokens", "index.max_file_mb", "index.store"})
"""Beside [engine], what is used to open the index and its readers; all else is looked up when it is needed."""
_KEPT_BY_COMMANDS = {
    "index.folders": "`gritdesk index FOLDER` adds one, `gritdesk forget FOLDER` takes one out; here the Library does"
}
"""Settings whose change is more than a line of config.toml."""
_BY_HAND = "it is written in config.toml itself"
_YES, _NO = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True)
class Setting:
    """One key of config.toml."""

    key: str
    """SECTION.NAME."""
    meaning: str
    """In one line, for a person."""
    value: Any
    default: Any
    choices: tuple[str, ...] = ()
    """All that it may be; none if it may be anything of its type."""
    least: float | None = None
    """The smallest number that it may be."""
    applies: Applies = "at once"
    kept_by: str = ""
    """What changes it instead, as a person is told; "" if it is changed like the others."""

    @property
    def section(self) -> str:
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    @property
    def is_default(self) -> bool:
        return bool(self.value == self.default)

    @property
    def kind(self) -> str:
        """What it may be, as a person is told."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, int | float):
            number = "a whole number" if isinstance(self.default, int) else "a number"
            return number if self.least is None else f"{number}, {self.least:g} or more"
        return "a text" if isinstance(self.default, str) else "a list of texts"


def settings_of(config: Config) -> tuple[Setting, ...]:
    """Every setting, in the order of config.py."""
    return tuple(_settings(config))


def find_setting(config: Config, key: str) -> Setting:
    """The setting of a key, SECTION.NAME or a NAME that only one section has. Raises: ConfigError if there is none."""
    known = settings_of(config)
    found = [each for each in known if key in (each.key, each.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{key} may be {' or '.join(each.key for each in found)}; write which")
    near = [each.key for each in known if key.partition(".")[2] and each.name == key.partition(".")[2]]
    near = near or [each.key for each in known if each.section == key.rstrip(".")]
    hint = f"; known there: {', '.join(near)}" if near else "; `gritdesk settings` lists all"
    raise ConfigError(f"there is no setting {key!r}{hint}")


def followed(config: Config, written: Config) -> Config:
    """`config` as `written` has it, but for what the index and the model were opened with."""
    names = [key.removeprefix("index.") for key in _OPENED_WITH]
    kept = {name: getattr(config.index, name) for name in names}
    return dataclasses.replace(written, engine=config.engine, index=dataclasses.replace(written.index, **kept))


def shown_value(value: Any) -> str:
    """A value as a person types it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {shown_value(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def parsed(setting: Setting, text: str) -> Any:
    """What a person typed, as config.toml would hold it; its limits are config.py's to look at.

    Raises: ConfigError saying what was expected.
    """
    typed = text.strip()
    if setting.kept_by:
        raise ConfigError(f"{setting.key} is not set by hand: {setting.kept_by}")
    try:
        if isinstance(setting.default, bool):
            return _truth(typed)
        if isinstance(setting.default, int):
            return int(typed)
        if isinstance(setting.default, float):
            return float(typed)
    except ValueError as error:
        raise ConfigError(f"{setting.key} must be {setting.kind}, found {typed!r}") from error
    if isinstance(setting.default, tuple):
        return [each.strip() for each in typed.split(",") if each.strip()]
    return text  # spaces count in a prefix


def _truth(typed: str) -> bool:
    if typed.lower() in _YES | _NO:
        return typed.lower() in _YES
    raise ValueError


def _settings(config: Config) -> Iterator[Setting]:
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        if isinstance(values, Mapping):
            yield from _open_settings(section.name, values)
        if not dataclasses.is_dataclass(values) or isinstance(values, type):
            continue  # the home
        meanings = _meanings(type(values))
        for each in dataclasses.fields(values):
            key = f"{section.name}.{each.name}"
            value = getattr(values, each.name)
            default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
            is_open = isinstance(default, bool | int | float | str | tuple)
            yield Setting(
                key=key,
                meaning=meanings.get(each.name, ""),
                value=value,
                default=default,
                choices=choices_of(key),
                least=least_of(key),
                applies=_applies(key),
                kept_by=_KEPT_BY_COMMANDS.get(key, "" if is_open else _BY_HAND),
            )


def _open_settings(section: str, values: Mapping[str, Any]) -> Iterator[Setting]:
    """Of a section whose keys are not known beforehand: what stands there."""
    meaning = _meanings(Config).get(section, "")
    for name, value in values.items():
        key = f"{section}.{name}"
        yield Setting(key, meaning, value, "", applies=_applies(key), kept_by=_BY_HAND)


def _applies(key: str) -> Applies:
    section = key.partition(".")[0]
    if section in _STARTED_WITH and key != "appearance.theme":
        return "at start"
    return "on opening" if section == "engine" or key in _OPENED_WITH else "at once"


@cache
def _meanings(section: type) -> Mapping[str, str]:
    """By name of each field, the string beneath it, on one line."""
    try:
        (tree,) = ast.parse(inspect.getsource(section)).body
    except (OSError, SyntaxError):  # installed without its source: the settings stand there without words
        return {}
    assert isinstance(tree, ast.ClassDef)
    meanings = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            meanings[field.target.id] = " ".join(str(text).split())
    return meanings
