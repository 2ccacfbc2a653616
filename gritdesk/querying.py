"""A query line -> what to look for, and where: the search language, spelled here and nowhere else.

    token bucket          words, and what they mean
    "token bucket"        these words in this order
    -draft  -"old plan"   passages without them
    lit:std::vector       letter by letter, upper and lower case alike; lit:"two words", lit:'say "now"'
    -lit:"C++"
    in:notes  in:~/work  in:"my notes"  -in:old          folders, and files by their full paths
    type:pdf  -type:md                                   kinds of files
    name:report  name:*.test.*  -name:draft              files' names
    after:2024-05  before:yesterday  after:3mo           when files were modified

A literal part is spelled like a filter, because a shell takes backticks for a command to run, and quotation marks mean
word order. What only looks like a filter is text: `std::vector`, `12:30`, `C:\\x`, a URL, `foo:bar`, `in:` with nothing
behind it. So are options of commands (`-v`, `--force`) and a quotation mark that is never closed.
"""

from __future__ import annotations

import os
import re
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from gritdesk.errors import QueryError
from gritdesk.records import Query, Scope

_PART = re.compile(
    r"""
    (?<!\S) (?P<not_key>-)? (?P<key> lit | in | type | name | after | before ) :
        (?: (?P<quoted> "[^"]*" | '[^']*' ) (?!\S) | (?P<value> \S+ ) )
    | (?: (?<!\S) (?P<not_phrase>-) )? (?<![0-9A-Za-z]) "(?P<phrase>[^"]*)" (?![0-9A-Za-z])
    | (?<!\S) - (?P<not_word> \w\S+ | [^\W\x00-\x7f] )
    | (?P<word> (?: (?! (?<![0-9A-Za-z]) "[^"]*" (?![0-9A-Za-z]) ) \S )+ )
    """,
    re.VERBOSE,
)
"""One part of a line. A quotation mark beside a letter or digit, as in 5", opens or closes nothing."""

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_AGO = re.compile(r"(\d{1,6})(d|w|mo|y)")
_MAX_NS = 2**63 - 1
"""What a store can compare; in the year 2262."""


@dataclass(frozen=True)
class _Part:
    kind: str
    """word, phrase, or the key of a filter."""
    value: str
    typed: str
    is_excluded: bool = False


def parse(line: str, now: datetime | None = None) -> Query:
    """Take a query line apart; any line has a meaning, and one without our syntax means itself.

    Args:
        now: what `today` and `7d` count from, in local time; None: the clock.
    Raises: QueryError for `after:` or `before:` with what is no date.
    """
    return _assembled(line, list(_parts(line)), now)


def asked_of(query: Query, within: Sequence[Path]) -> Query:
    """The query held to files and folders, given by their full paths, beside all that it says itself."""
    return replace(query, scope=replace(query.scope, within=tuple(map(str, within))))


def widened(query: Query, now: datetime | None = None) -> Iterator[tuple[str, Query]]:
    """Each restriction of a query, as it was typed, and the query without it.

    Filters of which a file need meet only one, such as two of `in:`, count as one. Quoted and literal parts stay as
    words that need not be there. What the query is asked of (`asked_of`) stays as it is.
    """
    parts = list(_parts(query.line))
    for named, group in _restrictions(parts):
        yield named, _asked_as(query, _assembled(query.line, _without(group, parts), now))


def widest(query: Query) -> tuple[str, Query] | None:
    """As `widened`, of all its restrictions together; None where there are not several."""
    several = list(_restrictions(_parts(query.line)))
    return (_named_together(several), unrestricted(query)) if len(several) > 1 else None


def without(line: str, restriction: str) -> str:
    """The line without what `widened` or `widest` name so; of a phrase only the quotation marks go."""
    parts = list(_parts(line))
    each_alone = list(_restrictions(parts))
    together = [part for _, group in each_alone for part in group]
    groups = (group for named, group in each_alone if named == restriction)
    taken = next(groups, together if restriction == _named_together(each_alone) else [])
    return " ".join(part.typed for part in _without(taken, parts))


def unrestricted(query: Query) -> Query:
    """The query without any restriction: its words, quoted and literal parts, all as words; asked of the same."""
    rest = [word for part in _parts(query.line) for word in ([part] if part.kind == "word" else _loosened(part))]
    return _asked_as(query, _assembled(query.line, [part for part in rest if not part.is_excluded], None))


def _asked_as(query: Query, other: Query) -> Query:
    return replace(other, scope=replace(other.scope, within=query.scope.within))


def keyword_text(query: Query) -> str:
    """The text as Store.keyword takes it: quotation marks stand around its phrases and nowhere else."""
    return " ".join([each.replace('"', " ") for each in query.words] + [f'"{each}"' for each in query.phrases])


def _restrictions(parts: Iterable[_Part]) -> Iterator[tuple[str, list[_Part]]]:
    """What narrows a search, as a person is told it; two of `in:` are one, since a file need meet only one of them."""
    groups: dict[object, list[_Part]] = {}
    for number, part in enumerate(parts):
        if part.kind != "word" or part.is_excluded:
            any_will_do = part.kind in ("in", "type") and not part.is_excluded
            groups.setdefault(part.kind if any_will_do else number, []).append(part)
    for group in groups.values():
        yield _named(group), group


def _named(group: Sequence[_Part]) -> str:
    """As it is typed, phrases last, of which only the quotation marks restrict anything."""
    is_phrase = [part.kind == "phrase" and not part.is_excluded for part in group]
    filters = " ".join(part.typed for part, is_one in zip(group, is_phrase, strict=True) if not is_one)
    phrases = " ".join(part.typed for part, is_one in zip(group, is_phrase, strict=True) if is_one)
    return " and ".join(filter(None, (filters, phrases and f"the quotation marks of {phrases}")))


def _named_together(restrictions: Iterable[tuple[str, list[_Part]]]) -> str:
    return _named([part for _, group in restrictions for part in group])


def _without(group: Sequence[_Part], parts: Iterable[_Part]) -> list[_Part]:
    return [loosened for part in parts for loosened in (_loosened(part) if part in group else [part])]


def _loosened(part: _Part) -> list[_Part]:
    if part.is_excluded or part.kind not in ("phrase", "lit"):
        return []
    return [_Part("word", word, word) for word in part.value.split()]


def _parts(line: str) -> Iterator[_Part]:
    for found in _PART.finditer(line):
        typed = found.group().strip()
        if (key := found["key"]) and not (found["not_key"] and key in ("after", "before")):
            value = found["quoted"][1:-1] if found["quoted"] else found["value"]
            if key != "lit":
                value = value.replace('"', "").strip()
            yield _Part(key, value, typed, bool(found["not_key"])) if value.strip() else _Part("word", typed, typed)
        elif found["phrase"] and re.search(r"\w", found["phrase"]):  # of punctuation alone no word can be found
            yield _Part("phrase", found["phrase"].strip(), typed, bool(found["not_phrase"]))
        elif found["not_word"] or found["not_key"]:
            yield _Part("word", typed[1:], typed, is_excluded=True)
        else:
            yield _Part("word", typed, typed)


def _assembled(line: str, parts: Iterable[_Part], now: datetime | None) -> Query:
    parts = list(parts)

    def values(kind: str, *, excluded: bool = False) -> tuple[str, ...]:
        return tuple(part.value for part in parts if part.kind == kind and part.is_excluded == excluded)

    sought = [part for part in parts if part.kind in ("word", "phrase") and not part.is_excluded]
    starts = [_start_ns(part, now) for part in parts if part.kind == "after"]
    ends = [_start_ns(part, now) for part in parts if part.kind == "before"]
    scope = Scope(
        folders=tuple(map(_folder, values("in"))),
        types=tuple(map(_file_type, values("type"))),
        names=values("name"),
        after_ns=max(starts, default=None),
        before_ns=min(ends, default=None),
        not_folders=tuple(map(_folder, values("in", excluded=True))),
        not_types=tuple(map(_file_type, values("type", excluded=True))),
        not_names=values("name", excluded=True),
    )
    return Query(
        line,
        text=" ".join(part.typed for part in sought),
        words=values("word"),
        phrases=values("phrase"),
        literals=values("lit"),
        not_phrases=tuple(part.value for part in parts if part.kind in ("word", "phrase") and part.is_excluded),
        not_literals=values("lit", excluded=True),
        scope=scope,
        restrictions=tuple(part.typed for part in parts if part not in sought),
    )


def _folder(value: str) -> str:
    """A folder as a store compares it: what begins at home or here is a full path, other names are part of one."""
    if value.startswith("~"):
        value = os.path.expanduser(value)
    elif re.match(r"\.{1,2}(?:$|[/\\])", value):
        value = os.path.abspath(value)
    return value.rstrip("/") or "/"


def _file_type(value: str) -> str:
    return value.removeprefix("*").removeprefix(".").lower()


def _start_ns(part: _Part, now: datetime | None) -> int:
    """The first moment of what `after:` or `before:` names, in nanoseconds since 1970."""
    today = (now or datetime.now()).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    try:
        start = _start(part.value.lower(), today)
        nanoseconds = int(start.timestamp()) * 1_000_000_000  # a time without a zone is local time
    except (ValueError, OverflowError, OSError):
        raise QueryError(
            f"{part.typed} names no date; write 2024, 2024-05, 2024-05-17, today, yesterday, 7d, 2w, 3mo or 1y, "
            f'or quote it ("{part.typed.replace(chr(34), "")}") to look for it as text'
        ) from None
    return max(-_MAX_NS, min(nanoseconds, _MAX_NS))


def _start(when: str, today: datetime) -> datetime:
    """Raises: ValueError or OverflowError if it names no date."""
    if when in ("today", "yesterday"):
        return today - timedelta(days=when == "yesterday")
    if date := _DATE.fullmatch(when):
        year, month, day = (int(each or 1) for each in date.groups())
        return datetime(year, month, day)
    ago = _AGO.fullmatch(when)
    if ago is None:
        raise ValueError(when)
    number, unit = int(ago[1]), ago[2]
    if unit in ("d", "w"):
        return today - timedelta(days=number * (7 if unit == "w" else 1))
    months = today.year * 12 + today.month - 1 - number * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    if year < 1:
        raise ValueError(when)
    return today.replace(year=year, month=month + 1, day=min(today.day, monthrange(year, month + 1)[1]))
