"""What is written into the words index for a text, and what is asked of it for a query.

The index cuts texts into words of letters and digits, whatever their case (FTS5's unicode61). Two things are added:
- scripts without spaces (Chinese, Japanese; Korean, whose words carry endings) become pairs of neighbouring letters,
  so that a phrase of pairs finds any part of a run;
- identifiers are also found by their parts: `getUserName` by user and username, `get_user_name` by username.

What is written must not change without a migration: words of one kind are only found by words of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MAX_ANY_WORDS = 12
"""Words that are OR-ed at most: ranking every row that holds any word is what a search by words costs."""
_MAX_PARTS = 8
"""Of longer names, as of a hash written with underscores, nobody knows the parts."""

_STOP_WORDS = frozenset(
    """a about an and are as at be been but by can could did do does for from had has have how i if in into is it its
    me my of on or our should so than that the their them then there these they this to was we were what when where
    which who whom whose why will with would you your""".split()
)


def is_stop_word(word: str) -> bool:
    """Whether an English word in lower case says nothing of what a text is about."""
    return word in _STOP_WORDS


_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_LONGER_RUN = re.compile(f"[{_UNSPACED}]{{3,}}")
"""Of more than a word or so: nothing says where its words begin."""
_ENDS_IN_ONE = re.compile(f"(?:^|[^{_UNSPACED}])[{_UNSPACED}]$")
_BORDER_OF_PARTS = re.compile(r"[a-z0-9][A-Z]|[A-Z]{2}[a-z]{2}|[A-Za-z0-9]_[A-Za-z0-9]")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z]{2})|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


# ---------------------------------------------------------------- what is written


def spaced(text: str) -> str:
    """The text as the words index takes it: runs of letters without spaces as pairs, and the last letter of each."""
    if text.isascii():
        return text
    return _UNSPACED_RUN.sub(lambda run: f" {_pairs(run[0])} {run[0][-1]} ", text)


def parts(text: str) -> str:
    """The parts of all identifiers in a text and their neighbours joined; "" for prose."""
    if not _BORDER_OF_PARTS.search(text):
        return ""
    return " ".join(dict.fromkeys(part for name in _NAME.findall(text) for part in _parts_of(name)))


def _parts_of(name: str) -> Iterator[str]:
    """`getUserName`: get user name, getuser username. `get_user_name`: getuser username getusername."""
    if not _BORDER_OF_PARTS.search(name):
        return
    found = _PART.findall(name)
    if not 1 < len(found) <= _MAX_PARTS:
        return
    is_joined = "_" not in name
    if is_joined or any(_BORDER_OF_PARTS.search(piece) for piece in name.split("_")):
        yield " ".join(found).lower()
    if len(found) > 2 or not is_joined:
        yield " ".join(first + second for first, second in zip(found, found[1:], strict=False)).lower()
    if len(found) > 2 and not is_joined:
        yield "".join(found).lower()


def _pairs(run: str) -> str:
    return " ".join(run[n : n + 2] for n in range(len(run) - 1))


# ---------------------------------------------------------------- what is asked


def quoted(words: str) -> str:
    """Text as one FTS5 string: whatever it holds, it is words to be found side by side."""
    text = words.replace("\0", " ").replace('"', '""')
    if text.isascii():
        return f'"{text}"'
    beginning = "*" if _ENDS_IN_ONE.search(text.rstrip()) else ""  # one letter is the beginning of a pair
    asked = _UNSPACED_RUN.sub(lambda run: f" {_asked_pairs(run[0], run.end() == len(text.rstrip()))} ", text)
    return f'"{asked}"{beginning}'


def _asked_pairs(run: str, is_last: bool) -> str:
    if len(run) == 1:
        return run
    return _pairs(run) if is_last else f"{_pairs(run)} {run[-1]}"


def all_of(terms: Sequence[str]) -> str:
    return " AND ".join(map(quoted, terms))


def widening(phrases: Sequence[str], words: Sequence[str], all_first: bool) -> Iterator[tuple[str, list[str], bool]]:
    """FTS5 expressions, each wider than those before; its terms if it is any of them; is its BM25 to be compared?

    The last word may be half typed. What begins with it comes behind what holds it, and has no score of its own: beside
    the whole word its beginning would count it twice. With one letter a tenth of all text begins, and to look through
    it takes several times as long as all else; whoever types a word is soon past that.
    """
    is_begun = bool(words) and not (len(words[-1]) == 1 and words[-1].isascii())
    bound, started = all_of(phrases), f"{quoted(words[-1]).rstrip('*')}*" if words else ""
    are_several = len(phrases) + len(words) > 1
    if all_first:
        yield all_of([*phrases, *words]), [], True
    if all_first and are_several and is_begun:
        yield " AND ".join([*map(quoted, [*phrases, *words[:-1]]), started]), [], True
    longest = sorted(words[:-1], key=len, reverse=True)[:MAX_ANY_WORDS]  # long words are the rare ones
    some = list(map(quoted, [*phrases[:1], *longest, *words[-1:]]))
    if are_several or not all_first:  # of one term all is any
        yield (f"{bound} AND ({' OR '.join(some)})", [], True) if phrases else (" OR ".join(some), some, True)
    if is_begun:
        yield f"{bound} AND {started}" if phrases else started, [], False


def any_of(query: str) -> str:
    """An FTS5 expression for any word of the query; stop words only where there is nothing else."""
    words = re.findall(r"\w+", query)
    telling = [word for word in words if word.lower() not in _STOP_WORDS] or words
    return " OR ".join(map(quoted, dict.fromkeys(telling)))


def unspaced_pairs(text: str) -> Iterator[str]:
    """Neighbouring letters of each longer run of a script without spaces, in place of its words."""
    return (run[n : n + 2] for run in _LONGER_RUN.findall(text) for n in range(len(run) - 1))


def search_terms(query: str) -> tuple[list[str], list[str]]:
    """Quoted parts, and single words without stop words (all words if there is nothing else)."""
    pieces = query.split('"')
    if len(pieces) % 2 == 0:  # a quotation mark that is never closed is none
        pieces[-2:] = [" ".join(pieces[-2:])]
    phrases = [piece.strip() for piece in pieces[1::2] if re.search(r"\w", piece)]
    words = [word for piece in pieces[0::2] for word in piece.split() if re.search(r"\w", word)]
    telling = [word for word in words if re.sub(r"\W", "", word).lower() not in _STOP_WORDS]
    return phrases, list(dict.fromkeys(telling or ([] if phrases else words)))
