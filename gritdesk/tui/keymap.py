"""Which key does what: every binding of ours by its id, and what [keys] of config.toml changes of that.

    [keys]
    "search.ask" = "x,ctrl+g"

A line that cannot be followed is told in one sentence, and its binding keeps its own keys: an id that no binding has,
a key that is none or that no terminal hands on, and a key that does something else at the same time: in the same
screen, in a widget of it, or everywhere. Texts name a binding by its id between backquotes, `app.ask`, and show its
key: `told` is the one place where ids become keys.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, cast

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import Keys, format_key
from textual.screen import Screen
from textual.widget import Widget

if TYPE_CHECKING:
    from gritdesk.tui.app import GritDeskApp

_ALIASES = {"esc": "escape", "return": "enter", "del": "delete", "pgup": "pageup", "pgdn": "pagedown", "ins": "insert"}
_NAMED = {each.value for each in Keys if each.value.isalnum()} | {"enter", "tab", "space", "backspace"}
_SAME_AS = {"h": "backspace", "i": "tab", "j": "enter", "m": "enter", "[": "escape"}
"""What a terminal sends for ctrl and one of these: both are one code in ASCII."""
_TAKEN = {
    "ctrl+c": "ctrl+c twice always quits",
    "ctrl+q": "some terminals keep ctrl+q to let a halted screen go on",
    "ctrl+s": "some terminals keep ctrl+s to halt the screen",
    "ctrl+z": "ctrl+z suspends the program",
}
_CONTROL = re.compile(r"[a-z@\\\]^_]")
"""What has a code of its own with ctrl."""
_SHOWN = {"escape": "Esc", "delete": "Del", "pageup": "PgUp", "pagedown": "PgDn", "insert": "Ins"}


@dataclass(frozen=True)
class Bound:
    """One binding of a screen, a widget or the app."""

    id: str
    group: str
    """Where it holds, as F1 calls it: "Search", "Everywhere"."""
    title: str
    what: str
    default: tuple[str, ...]
    """Its keys unless config.toml says otherwise, as Textual names them."""


class Keymap:
    """The keys of all bindings as they are now."""

    def __init__(self, wanted: Mapping[str, object] | None = None) -> None:
        """Take what `wanted` says, as [keys] has it, as far as it can be followed."""
        self.bound = {each.id: each for owner in owners() for each in _bound_of(owner)}
        self.problems: list[str] = []
        """One line for each of `wanted` that is not followed, with the reason."""
        self.changed: dict[str, tuple[str, ...]] = {}
        for name, value in (wanted or {}).items():
            self._take(name, value)
        self._undo_clashes()

    def keys_of(self, id: str) -> tuple[str, ...]:
        return self.changed.get(id) or self.bound[id].default

    def key_of(self, id: str, *, while_typing: bool = False) -> str:
        """The first key of a binding as a person reads it: "F3", "Tab", "ctrl+g".

        With `while_typing` the first of those that type nothing, if there are any.
        """
        keys = self.keys_of(id)
        return shown(next((each for each in keys if not (while_typing and _types(each))), keys[0]))

    def told(self, text: str, *, while_typing: bool = False) -> str:
        """The text with the ids of bindings between backquotes as their keys, as `key_of` has them."""

        def key_or_id(found: re.Match[str]) -> str:
            return f"`{self.key_of(found[1], while_typing=while_typing) if found[1] in self.bound else found[1]}`"

        return re.sub(r"`([a-z_]+\.\w+)`", key_or_id, text)

    def for_textual(self) -> dict[str, str]:
        """What App.set_keymap takes."""
        return {id: ",".join(keys) for id, keys in self.changed.items()}

    def _take(self, name: str, value: object) -> None:
        if name not in self.bound:
            self._refuse(name, "no binding has this id; `gritdesk keys` lists them")
        elif not isinstance(value, str) or not value.strip():
            self._refuse(name, f'its keys must be text such as "a,ctrl+g", found {value!r}')
        else:
            try:
                self.changed[name] = tuple(parsed(key) for key in value.split(","))
            except ValueError as error:
                self._refuse(name, str(error))

    def _refuse(self, name: str, reason: str) -> None:
        self.problems.append(f"[keys] {name}: {reason}")

    def _undo_clashes(self) -> None:
        """Take back the last change that clashes until none does: what it gives back may be what another one took."""
        while clash := self._clash():
            id, key, other = clash
            del self.changed[id]
            whose = f"{other.id} ({other.group}: {other.title})" if other.id else f"{other.group}'s own ({other.title})"
            self._refuse(id, f"{shown(key)} is {whose} already; it stays {self.key_of(id)}")

    def _clash(self) -> tuple[str, str, Bound] | None:
        for id in reversed(self.changed):
            for other in self._beside(id):
                theirs = self.keys_of(other.id) if other.id else other.default
                if key := next((key for key in self.keys_of(id) if key in theirs), None):
                    return id, key, other
        return None

    def _beside(self, id: str) -> Iterator[Bound]:
        """The other bindings that hold wherever this one does, and what a widget of Textual's takes before them."""
        for context in contexts():
            ids = [str(each.id) for owner in context for each in bindings_of(owner)]
            if id in ids:
                yield from (self.bound[each] for each in ids if each != id)
                if not any(each.id == id for each in bindings_of(context[-1])):
                    yield from _inherited_by(context[-1])


def keymap_of(node: DOMNode) -> Keymap:
    """The keymap of the app that a screen or a widget is part of."""
    return cast("GritDeskApp", node.app).keymap


def parsed(text: str) -> str:
    """A key as Textual names it, from how people write it: "Ctrl+G", "?", "F3", "Esc".

    Raises: ValueError saying what is wrong: it is no key, or one that never arrives.
    """
    text = text.strip()
    head, name = (text[:-1], "+") if text == "+" or text.endswith("++") else ("", text)
    if "+" in name and name != "+":
        head, _, name = name.rpartition("+")
    modifiers = [each.lower() for each in head.split("+") if each]
    name = name if len(name) == 1 else _ALIASES.get(name.lower(), name.lower())
    is_named = name in _NAMED or _character(name)
    if not name or not is_named or set(modifiers) - {"ctrl", "alt", "shift"} or len(set(modifiers)) < len(modifiers):
        raise ValueError(f"{text!r} is no key; keys are written as a, ctrl+g, alt+up, f9, space, ?")
    if len(name) == 1 and name.isalpha() and "ctrl" in modifiers:
        name = name.lower()
    key = "+".join([*sorted(modifiers), _textual_name(name)])
    if reason := swallowed(key):
        raise ValueError(f"{text} does not arrive: {reason}")
    return key


def swallowed(key: str) -> str:
    """Why a key, as Textual names it, never reaches a program in some terminal; empty if it does."""
    *modifiers, name = key.split("+")
    if key in _TAKEN:
        return _TAKEN[key]
    character = _character(name)
    if "ctrl" in modifiers and character in _SAME_AS:
        return f"terminals send {shown(_SAME_AS[character])} for it"
    if "ctrl" in modifiers and (name in ("enter", "tab", "backspace", "escape") or "shift" in modifiers and character):
        return "terminals send the same without ctrl or shift"
    if "ctrl" in modifiers and character and not _CONTROL.fullmatch(character) and name != "space":
        return "terminals have no code for ctrl with it"
    if "shift" in modifiers and (character or name in ("enter", "escape", "backspace")):
        return "terminals send it as a capital letter, or as if shift were not held"
    return ""


def shown(key: str) -> str:
    """A key of Textual's as a person reads it: "F3", "Tab", "ctrl+g", "+"."""
    *modifiers, name = key.split("+")
    name = _character(name) or _SHOWN.get(name) or name.capitalize()
    return "+".join([*modifiers, name])


@cache
def owners() -> tuple[type[DOMNode], ...]:
    """The app, then every screen, then every widget of ours that binds keys."""
    from gritdesk.tui import screens, widgets
    from gritdesk.tui.app import GritDeskApp

    found = [each for package in (screens, widgets) for each in _classes_of(package)]
    return (GritDeskApp, *(each for each in found if "BINDINGS" in vars(each)))


@cache
def contexts() -> tuple[tuple[type[DOMNode], ...], ...]:
    """What holds at the same time: the app, a screen, and one of the widgets in its module that take the focus."""
    found: list[tuple[type[DOMNode], ...]] = []
    app, *others = owners()
    screens = [each for each in others if issubclass(each, Screen)]
    for screen in (each for each in screens if not any(each in other.__bases__ for other in screens)):
        used = [each for each in vars(sys.modules[screen.__module__]).values() if inspect.isclass(each)]
        panes = [each for each in used if issubclass(each, Widget) and each.can_focus and not issubclass(each, Screen)]
        found += [(app, screen, each) for each in panes] or [(app, screen)]
    return tuple(found)


def _classes_of(package: ModuleType) -> Iterator[type[DOMNode]]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for each in vars(module).values():
            if inspect.isclass(each) and issubclass(each, DOMNode) and each.__module__ == module.__name__:
                yield each


@cache
def bindings_of(owner: type[DOMNode]) -> Sequence[Binding]:
    """Ours that hold in a screen, a widget or the app: its own, and those of its bases that it does not bind anew."""
    held: list[Binding] = []
    for each in reversed(owner.__mro__):
        own = [bound for bound in vars(each).get("BINDINGS", ()) if isinstance(bound, Binding) and bound.id]
        taken = {key for bound in own for key in _keys(bound)}
        held = [bound for bound in held if not taken.issuperset(_keys(bound))] + own
    return held


@cache
def _bound_of(owner: type[DOMNode]) -> Sequence[Bound]:
    """Ours: those with an id."""
    bindings = [each for each in vars(owner).get("BINDINGS", ()) if isinstance(each, Binding) and each.id]
    return [_bound(owner, each) for each in bindings]


@cache
def _inherited_by(owner: type[DOMNode]) -> Sequence[Bound]:
    """What a widget does by a key since it is a list or a text of Textual's; letters are typed there in any case."""
    bases = [each for each in owner.__mro__ if issubclass(each, Widget) and "BINDINGS" in vars(each)]
    bindings = [each for base in bases for each in base.BINDINGS if isinstance(each, Binding) and not each.id]
    return [_bound(owner, each) for each in bindings if not issubclass(owner, Screen)]


def _bound(owner: type[DOMNode], binding: Binding) -> Bound:
    group = str(owner.BINDING_GROUP_TITLE or owner.__name__)
    return Bound(binding.id or "", group, binding.description, binding.tooltip, _keys(binding))


def _keys(binding: Binding) -> tuple[str, ...]:
    return tuple(_textual_name(key.strip()) for key in binding.key.split(","))


def _character(name: str) -> str:
    """What a key named `name` types; empty if it types nothing."""
    character = "" if name in _NAMED else name if len(name) == 1 else format_key(name)
    return character if len(character) == 1 else ""


def _types(key: str) -> bool:
    """Whether a key, as Textual names it, goes into a line of text."""
    return key == "space" or "+" not in key and bool(_character(key))


def _textual_name(key: str) -> str:
    """As App.set_keymap would normalise it."""
    return App._normalize_keymap({"": key})[""]
