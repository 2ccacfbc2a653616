"""Where a file lies, as a scope asks for it: names without case, folders parted by /, on every system."""

from __future__ import annotations

import os
import unicodedata
from typing import Any

from gritdesk.records import Scope


def path_to_sql(path: os.PathLike[str]) -> str | bytes:
    """A path as text, or as its bytes if the name is not valid Unicode (lone surrogates stand for such bytes)."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def folder_of(path: str | bytes) -> str:
    """`/home/me/notes/` of /home/Me/Notes/a.txt."""
    return as_folder(os.path.dirname(os.fsdecode(path)))


def name_of(path: str | bytes) -> str:
    """`a.txt` of /home/Me/Notes/A.txt."""
    return _folded(os.path.basename(os.fsdecode(path)))


def suffix_of(path: str | bytes) -> str:
    """`txt` of /home/Me/Notes/a.TXT; "" if there is none."""
    return os.path.splitext(name_of(path))[1][1:]


def size_class(size_bytes: int) -> int:
    """Files of one class, a factor of 16 wide, are small or large alike; then the time of change decides."""
    return (max(size_bytes, 0).bit_length() + 3) // 4


def condition(scope: Scope) -> tuple[str, list[Any]]:
    """SQL that holds for the rows of `document` within the scope, and its values; ("", []) for all of them."""
    conditions: list[str] = []
    values: list[Any] = []
    for folders, negated in ((scope.folders, ""), (scope.within, ""), (scope.not_folders, "NOT ")):
        if folders:
            within = [f"instr({where}, ?) {found}" for where, found in map(compared, folders)]
            conditions.append(f"{negated}({' OR '.join(within)})")
            values += map(as_folder, folders)
    for types, negated in ((scope.types, ""), (scope.not_types, "NOT ")):
        if types:
            marks = ", ".join("?" * len(types))
            conditions.append(f"{negated}(document.suffix IN ({marks}) OR document.format IN ({marks}))")
            values += [each.lower() for each in types] * 2
    for names, negated in ((scope.names, ""), (scope.not_names, "NOT ")):
        for name in names:
            conditions.append(f"document.name {negated}GLOB ?")
            values.append(f"*{_folded(name).replace('[', '[[]')}*")
    for bound, comparison in ((scope.after_ns, ">="), (scope.before_ns, "<")):
        if bound is not None:
            conditions.append(f"document.mtime_ns {comparison} ?")
            values.append(bound)
    return " AND ".join(conditions), values


def compared(place: str) -> tuple[str, str]:
    """What a place is looked for in, and where there: a full path begins that of a file, or is it; a name is within."""
    return ("document.folder || document.name || '/'", "= 1") if os.path.isabs(place) else ("document.folder", "> 0")


def as_folder(text: str) -> str:
    """`/me/notes/` of /Me/Notes."""
    folded = _folded(text).replace(os.sep, "/").strip("/")
    return f"/{folded}/" if folded else "/"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().encode(errors="replace").decode()
