"""A table of TOML or JSON -> a dataclass, each value as the field's annotation says; else one line on what was found.

What an annotation can say: int, float (an int will do), str, bool, Literal, `tuple[X, ...]` (a list), `dict[str, X]`
and a dataclass (tables), unions with None, and `Annotated[X, Range(...)]` of numbers.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers within all bounds that are given."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.at_least <= number <= self.at_most and self.above < number < self.below

    def __str__(self) -> str:
        bounds = dataclasses.asdict(self).items()
        return " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds if math.isfinite(bound))


def from_table(kind: type[Record], values: dict[str, Any], key: str = "") -> Record:
    """The dataclass `kind` of a table's values.

    Args:
        key: what the table is called, where it stands in another.
    Raises: ValueError naming the key that is not known, or whose value is another than it says.
    """
    declared = get_type_hints(kind, include_extras=True)
    prefix = f"{key}." if key else ""
    if unknown := sorted(set(values) - set(declared)):
        raise ValueError(
            f"unknown key {', '.join(prefix + each for each in unknown)}; known are {', '.join(sorted(declared))}"
        )
    return kind(**{name: checked(value, declared[name], prefix + name) for name, value in values.items()})


def check_fields(record: Any) -> None:
    """Raises: ValueError naming the first field of a dataclass that holds what its annotation does not allow."""
    for name, declared in get_type_hints(type(record), include_extras=True).items():
        checked(getattr(record, name), declared, name)


def checked(value: Any, declared: Any, key: str) -> Any:
    """The value as its field wants it: lists become tuples, tables dataclasses, whole numbers floats.

    Raises: ValueError saying what `key` was expected to be.
    """
    kind, parts, bounds = _taken_apart(declared)
    if kind in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (kind,) = (each for each in parts if each is not type(None))
        return checked(value, kind, key)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_table(kind, value, key)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(checked(each, parts[0], f"{key}[{number}]") for number, each in enumerate(value))
    if kind is dict and isinstance(value, dict):
        return {name: checked(each, parts[1], f"{key}.{name}") for name, each in value.items()}
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    fits = value in parts if kind is Literal else type(value) is kind
    if not fits or (kind is float and not math.isfinite(value)) or (bounds and value not in bounds):
        found = repr(value)
        raise ValueError(
            f"{key}: expected {_described(declared)}, found {found if len(found) < 60 else found[:57] + '...'}"
        )
    return value


def _taken_apart(declared: Any) -> tuple[Any, tuple[Any, ...], Range | None]:
    """`tuple[int, ...]` -> tuple, (int, ...); `Annotated[int, Range(1)]` -> int, (), its range."""
    bounds = None
    if get_origin(declared) is Annotated:
        declared, bounds = get_args(declared)
    return get_origin(declared) or declared, get_args(declared), bounds


_WORDS = {int: "whole number", float: "number", str: "string", bool: "boolean"}


def _described(declared: Any, article: str = "a ", plural: str = "") -> str:
    kind, parts, bounds = _taken_apart(declared)
    if kind is Literal:
        return " or ".join(repr(each) for each in parts)
    if kind is tuple:
        return f"a list of {_described(parts[0], '', 's')}"
    if kind is dict:
        return f"a table of {_described(parts[1], '', 's')}"
    if kind not in _WORDS:
        return "a table"
    return f"{article}{_WORDS[kind]}{plural}" + (f", {bounds}" if bounds else "")
