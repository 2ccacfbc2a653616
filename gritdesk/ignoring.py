"""Text of a .gitignore -> the line that speaks of a path, as git reads it (gitignore(5) and git's wildmatch.c).

A pattern speaks of the very path that it matches, never of what lies below: git does not look into an ignored
folder, and a folder that a later line brings back brings back nothing inside it. Of the 300 random trees in
tests/unit/test_ignoring.py the library pathspec 1.1.1, whose patterns speak for all below them, judges 21 differently
from git and 103 not at all: it raises on brackets that git takes for a pattern without a match.

The manual holds where git's code does something else (`a**/b`, a bracket with a slash in it), and `?` and brackets
stand for a character, where git counts bytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_FOLDS_CASE = sys.platform in ("win32", "darwin")
"""What git assumes of the file systems there (core.ignorecase)."""
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_NEVER = "(?!)"


@dataclass(frozen=True)
class Pattern:
    """One line that says something."""

    line: int
    """1-based."""
    text: str
    """As it stands there, without white space behind it."""

    @property
    def ignores(self) -> bool:
        """False for a line that brings back what an earlier one ignores."""
        return not self.text.startswith("!")

    @property
    def _glob(self) -> str:
        return self.text.removeprefix("!")

    @property
    def is_path(self) -> bool:
        """Whether it is matched with the path from the file's folder, and not with a name at any depth."""
        return "/" in self._glob[:-1]

    @property
    def regex(self) -> str:
        """Matches a name or a path; folders end in a slash there."""
        glob = self._glob
        end = "/" if glob.endswith("/") else "/?"
        glob = glob.removesuffix("/")
        return (_path_regex(glob.removeprefix("/").split("/")) if self.is_path else _name_regex(glob)) + end


class Patterns:
    """The lines of one file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def speaking_of(self, inside: str) -> Pattern | None:
        """The last line that matches a path, None if no line does.

        Args:
            inside: from the file's folder to the path, with slashes; a folder's ends in one.
        """
        name = inside[inside.rfind("/", 0, -1) + 1 :]
        found = [self._names.last_match(name), self._paths.last_match(inside)]
        return max((each for each in found if each is not None), key=lambda each: each.line, default=None)

    @cached_property
    def _names(self) -> _Alternatives:
        return _Alternatives([each for each in self._all if not each.is_path])

    @cached_property
    def _paths(self) -> _Alternatives:
        return _Alternatives([each for each in self._all if each.is_path])

    @cached_property
    def _all(self) -> list[Pattern]:
        lines = self._text.removeprefix("\ufeff").split("\n")
        trimmed = ((number, _trimmed(line.removesuffix("\r"))) for number, line in enumerate(lines, start=1))
        return [Pattern(number, line) for number, line in trimmed if line and not line.startswith("#")]


class _Alternatives:
    """Patterns as one regular expression: the walk asks about every path, and C is quick at saying no."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._last_first = patterns[::-1]
        flags = re.DOTALL | (re.IGNORECASE if _FOLDS_CASE else 0)
        # the empty group tells which one it was, and stands behind it: a first letter that differs is seen at once
        self._regex = re.compile("|".join(f"{each.regex}()" for each in self._last_first) or _NEVER, flags)

    def last_match(self, text: str) -> Pattern | None:
        match = self._regex.fullmatch(text)
        return self._last_first[match.lastindex - 1] if match and match.lastindex else None


def _trimmed(line: str) -> str:
    """Without the spaces at its end, but for one that a backslash keeps."""
    bare = line.rstrip(" ")
    num_backslashes = len(bare) - len(bare.rstrip("\\"))
    return bare + line[len(bare) :][: num_backslashes % 2]


def _path_regex(steps: Sequence[str]) -> str:
    # like _name_regex with steps for characters: `**` in the middle is any number of steps, at the end at least one
    groups: list[list[str]] = [[]]
    for step in steps[:-1]:
        if len(step) > 1 and not step.strip("*"):
            groups.append([])
        else:
            groups[-1].append(_name_regex(step) + "/")
    is_open = len(steps[-1]) > 1 and not steps[-1].strip("*")
    groups[-1].append(".+" if is_open else _name_regex(steps[-1]))
    return _starred(["".join(each) for each in groups], any_number="(?:[^/]+/)*")


def _name_regex(glob: str) -> str:
    """Of one name, or one step of a path."""
    parts = [""]
    for token in _tokens(glob):
        if token == "*":
            parts.append("")
        else:
            parts[-1] += token
    return _starred(parts, any_number="[^/]*")


def _starred(parts: Sequence[str], any_number: str) -> str:
    """Parts with any number of something between them.

    Of a part in the middle the first place is as good as any, so it is never looked for again (`?>`): a pattern of
    many stars in somebody else's repository would keep us for ever otherwise.
    """
    first, *others = parts
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>{any_number}?{each})" for each in middle) + any_number + last


def _tokens(glob: str) -> Iterator[str]:
    """Regular expressions of one character each, and "*" for any number of them."""
    position = 0
    while position < len(glob):
        each = glob[position]
        position += 1
        if each == "*":
            yield "*"
        elif each == "?":
            yield "[^/]"
        elif each == "[":
            token, position = _bracket(glob, position)
            yield token
        elif each == "\\":
            yield re.escape(glob[position]) if position < len(glob) else _NEVER
            position += 1
        else:
            yield re.escape(each)


def _bracket(glob: str, position: int) -> tuple[str, int]:
    """The regular expression of a bracket whose inside begins at `position`, and where it ends."""
    is_negated = glob[position : position + 1] in ("!", "^")
    position += is_negated
    members: list[str] = []
    start: str | None = None  # of a range that may follow
    is_first = True
    while position < len(glob) and (is_first or glob[position] != "]"):
        is_first = False
        each = glob[position]
        named = re.compile(r"\[:([^\]]*):\]").match(glob, position)
        if named:
            if named[1] not in _CLASSES:
                break
            members.append(_CLASSES[named[1]])
            start, position = None, named.end()
            continue
        is_range = each == "-" and start is not None and glob[position + 1 : position + 2] not in ("", "]")
        position += is_range
        position += glob[position] == "\\"
        if position == len(glob):
            break
        end, position = glob[position], position + 1
        if not is_range:
            members.append(re.escape(end))
            start = end
        else:
            assert start is not None
            if start <= end:
                members.append(f"{re.escape(start)}-{re.escape(end)}")
            start = None
    if glob[position : position + 1] != "]":  # never closed, or a class that nobody knows: git matches nothing
        return _NEVER, len(glob)
    if not members:
        return ("[^/]" if is_negated else _NEVER), position + 1
    return f"(?!/)[{'^' if is_negated else ''}{''.join(members)}]", position + 1
