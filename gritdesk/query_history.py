"""Queries that led somewhere, in one small file at home, to be asked again.

They are kept where chats are: `answer.keep_chats` is about whatever a person asks.
"""

from __future__ import annotations

import json
from pathlib import Path

MOST_QUERIES = 200


def past_queries(home: Path) -> list[str]:
    """The latest last, each once; none where the file is not there or is not ours any more."""
    try:
        kept = json.loads(_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in kept if isinstance(each, str)] if isinstance(kept, list) else []


def remember_query(home: Path, query: str) -> None:
    """Put a query last. What another process adds at the same moment may be lost, the file is whole all the same.

    Raises: OSError if the file cannot be written.
    """
    kept = [each for each in past_queries(home) if each != query]
    file = _file(home)
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps([*kept, query][-MOST_QUERIES:], ensure_ascii=False), encoding="utf-8")
    beside.replace(file)


def _file(home: Path) -> Path:
    return home / "queries.json"
