"""What gritdesk keeps, where, how large it is, and how a person is rid of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gritdesk.config import Config


@dataclass(frozen=True)
class Stored:
    name: str
    path: Path | str
    """A folder, a file, or the URL of a database."""
    size_bytes: int
    wipe: str
    """What removes it, as a person types or does it."""


def stored(config: Config, index_place: str, index_bytes: int) -> Iterator[Stored]:
    """All of it, what is largest as a rule first.

    Args:
        index_place, index_bytes: as store.place and store.size_bytes tell them.
    """
    shared = bool(config.index.store)
    dropped = "drop its schema in the database" if shared else "delete the file while no gritdesk runs"
    yield Stored("index", index_place, index_bytes, f"gritdesk forget FOLDER; or {dropped}")
    chats = [config.chats_dir, *config.home.glob("chats.sqlite*")]
    yield Stored("chats", config.chats_dir, _size_of(chats), "gritdesk chats delete ID")
    queries = config.home / "queries.json"
    yield Stored("queries", queries, _size_of([queries]), "delete the file")
    yield Stored("states", config.states_dir, _size_of([config.states_dir]), "gritdesk states --clear")
    yield Stored("models", config.models_dir, _size_of([config.models_dir]), "gritdesk models remove NAME")
    checkpoints = config.home / "checkpoints"
    if checkpoints.exists():
        yield Stored("checkpoints", checkpoints, _size_of([checkpoints]), "delete the folder")
    yield Stored("logs", config.log_dir, _size_of([config.log_dir]), "delete the folder")
    yield Stored("settings", config.path, _size_of([config.path]), "delete the file; all is as it was at first then")


def _size_of(places: Iterable[Path]) -> int:
    total = 0
    for place in places:
        for path in [place, *(place.rglob("*") if place.is_dir() else ())]:
            with suppress(OSError):  # gone since, or closed
                total += path.lstat().st_size if path.is_file() else 0
    return total
