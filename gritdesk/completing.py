"""A query line that ends in a filter -> what may stand there: kinds, folders and names of the index, and dates.

What is offered is offered as it would be typed, with quotation marks where there is a space in it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gritdesk.store.base import FileState

_FILTER = re.compile(r"""(?<!\S)-?(?P<key>in|type|name|after|before):(?P<value>"[^"]*|[^\s"]*)\Z""")
_MOST_NAMES = 5_000
"""Names of files that are offered, of those modified last: nobody types the name of what they forgot."""
MOST_OFFERS = 8


@dataclass(frozen=True)
class FilterValues:
    """What filters can name, the likeliest first."""

    folders: tuple[Path, ...] = ()
    """Those with files in them or below, as far up as those that are indexed."""
    types: tuple[str, ...] = ()
    """Suffixes without their dot."""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """One way to go on."""

    value: str
    """What the filter would say."""
    line: str
    """The whole line with it."""


def filter_values(files: Mapping[Path, FileState], folders: Sequence[Path]) -> FilterValues:
    """Of the files of an index: folders and kinds with many files come first, of names those modified last."""
    indexed = {path: state for path, state in files.items() if state.state == "indexed"}
    types = Counter(path.suffix[1:].lower() for path in indexed if len(path.suffix) > 1)
    direct = Counter(path.parent for path in indexed)
    within: Counter[Path] = Counter()
    listed = set(folders)
    for folder, num in direct.items():
        for each in (folder, *folder.parents):
            within[each] += num
            if each in listed:
                break
    known = [each for each, _ in within.most_common() if any(each.is_relative_to(folder) for folder in listed)]
    newest = sorted(indexed, key=lambda path: -indexed[path].mtime_ns)[:_MOST_NAMES]
    return FilterValues(
        tuple(known), tuple(each for each, _ in types.most_common()), tuple(dict.fromkeys(path.name for path in newest))
    )


def is_filter(line: str) -> bool:
    """Whether the line ends in a filter, so that something could be offered."""
    return _FILTER.search(line) is not None


def settled(line: str) -> str:
    """The line without a filter at its end that says nothing yet: `type:` on its way to `type:pdf` is no word."""
    found = _FILTER.search(line)
    return line if found is None or found["value"].strip('"') else line[: found.start()]


def offers(line: str, known: FilterValues, today: date) -> list[Offer]:
    """How the filter at the end of a line may go on; nothing where it says all already, or there is none."""
    found = _FILTER.search(line)
    if found is None:
        return []
    typed = found["value"].lstrip('"')
    values = list(dict.fromkeys(_fitting(found["key"], typed, known, today)))[:MOST_OFFERS]
    if values == [typed]:
        return []
    before = line[: found.start("value")]
    return [Offer(each, f'{before}"{each}"' if re.search(r"\s", each) else before + each) for each in values]


def _fitting(key: str, typed: str, known: FilterValues, today: date) -> Iterable[str]:
    if key in ("after", "before"):
        return (each for each in _dates(today) if each.startswith(typed.lower()))
    if key == "in":
        return _folders(typed, known.folders)
    if key == "type":
        return (each for each in known.types if each.startswith(typed.lower().lstrip("*.")))
    begun = typed.lower()
    beginning = [each for each in known.names if each.lower().startswith(begun)]
    return beginning + [each for each in known.names if begun in each.lower()]


def _dates(today: date) -> list[str]:
    year = [str(today.year - ago) for ago in range(3)]
    return ["today", "yesterday", "7d", "2w", "1mo", "3mo", "1y", *year, f"{today:%Y-%m}", f"{today:%Y-%m-%d}"]


def _folders(typed: str, folders: Sequence[Path]) -> Iterable[str]:
    """Full paths where one is begun; else the folders of such a name, or below such a one."""
    if typed.startswith("~"):
        home = os.path.expanduser("~").rstrip("/")
        at_home = (str(each)[len(home) :] for each in folders if str(each).startswith(home + "/"))
        return (each for each in (f"~{below}" for below in at_home) if _begins(each, typed))
    if os.path.isabs(typed):
        return (str(each) for each in folders if _begins(str(each), typed))
    if "/" in typed:
        parts = typed.count("/") + 1
        return (tail for each in folders if _begins(tail := "/".join(each.parts[-parts:]), typed))
    return (each.name for each in folders if each.name and _begins(each.name, typed))


def _begins(text: str, typed: str) -> bool:
    return text.lower().startswith(typed.lower())
