"""What the workers tell the screens: past-tense facts, and the app's own state made from them.

Workers run in threads and never touch a widget. They post these messages; handlers change state.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual.message import Message

from gritdesk import scoping
from gritdesk.records import AnswerEvent, Citation, Hit, IndexProgress, Place, Reranking, SearchMode, Status
from gritdesk.tui.text import Surroundings

if TYPE_CHECKING:
    from textual.screen import Screen

    from gritdesk.desk import Desk

OnFailure = Callable[[str], Message]
"""Makes the message that tells a screen why its call failed."""


@dataclass(frozen=True)
class Activity:
    """What goes on behind the screens; the status line shows it, empty screens explain it."""

    desk: Literal["opening", "open", "failed"] = "opening"
    desk_problem: str = ""
    model: Literal["loading", "ready", "failed"] = "loading"
    model_problem: str = ""
    progress: IndexProgress | None = None
    """The latest of the current sweep; None before the first."""
    is_indexing: bool = False
    index_problem: str = ""
    status: Status | None = None
    """Read when the desk opens and after each sweep; None before."""

    @property
    def has_folders(self) -> bool | None:
        """None while it is not known yet."""
        return bool(self.status.folders) if self.status else None


class DeskOpened(Message):
    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk


class DeskRefused(Message):
    """The Desk could not be opened."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class ModelLoaded(Message):
    """The model answered, so meaning can be searched and questions answered."""


class ModelRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class StatusRead(Message):
    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status


class StatusRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class IndexProgressed(Message):
    """Comes in bursts: of those that wait only the last is handled."""

    def __init__(self, progress: IndexProgress) -> None:
        super().__init__()
        self.progress = progress

    def can_replace(self, message: Message) -> bool:
        # a note is for a person, so a message that carries one is never dropped
        return isinstance(message, IndexProgressed) and not message.progress.note


class IndexingEnded(Message):
    """The indexing worker is through: it was stopped, or `problem` says what ended it."""

    def __init__(self, problem: str = "") -> None:
        super().__init__()
        self.problem = problem


class FolderCostTold(Message):
    """The files of a folder that is to be added are counted."""

    def __init__(self, folder: Path, cost: str, asked_from: Screen[object]) -> None:
        super().__init__()
        self.folder, self.cost = folder, cost
        self.asked_from = asked_from
        """Where a person was when the folder was given."""


class FoldersListed(Message):
    """Folders that were added are among those of the index now; it begins to read them."""


class QuietChanged(Message):
    def __init__(self, is_quiet: bool) -> None:
        super().__init__()
        self.is_quiet = is_quiet


class NoticeGiven(Message):
    """The Desk has something to say that no call asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class CallFailed(Message):
    """A call to the Desk failed; `problem` is one line for a person."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class HitsFound(Message):
    def __init__(self, number: int, mode: SearchMode, hits: list[Hit], seconds: float) -> None:
        super().__init__()
        self.number = number
        """Which query it answers; an older one than the screen's is stale."""
        self.mode = mode
        self.hits = hits
        self.seconds = seconds


class HitsReread(Message):
    """Comes after each hit that is read again: of those that wait only the last is handled."""

    def __init__(self, reading: threading.Event, so_far: Reranking) -> None:
        super().__init__()
        self.reading = reading
        """Which reading it is of: the event that ends it."""
        self.so_far = so_far

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, HitsReread) and message.reading is self.reading


class SearchFailed(Message):
    def __init__(self, number: int, problem: str) -> None:
        super().__init__()
        self.number = number
        self.problem = problem


class SurroundingsRead(Message):
    def __init__(self, hit: Hit, surroundings: Surroundings) -> None:
        super().__init__()
        self.hit = hit
        self.surroundings = surroundings


class AnswerProgressed(Message):
    def __init__(self, number: int, event: AnswerEvent) -> None:
        super().__init__()
        self.number = number
        """Which question it answers, counted from 1."""
        self.event = event


class AnswerGrew(Message):
    """Pieces of text came, and more may join them before this is handled: a key waits behind one message, not all."""

    def __init__(self, number: int, pieces: deque[str]) -> None:
        super().__init__()
        self.number = number
        self.pieces = pieces
        """To be taken out from the left; none if the message before has taken them."""


class CitationChecked(Message):
    """It is known where the words of a citation stand in the file now; `place` is None where that cannot be told."""

    def __init__(self, hit: Hit, citation: Citation, place: Place | None) -> None:
        super().__init__()
        self.hit = hit
        self.citation = citation
        self.place = place


class PlacesPicked(Message):
    """Which files and folders fit the letters behind an @."""

    def __init__(self, letters: str, places: list[scoping.Place]) -> None:
        super().__init__()
        self.letters = letters
        self.places = places


class ScopeNamed(Message):
    """What a person calls the files and folders that are asked."""

    def __init__(self, scope: tuple[Path, ...], name: str) -> None:
        super().__init__()
        self.scope = scope
        self.name = name


class AnswerEnded(Message):
    """Nothing more comes for this question; `problem` is empty unless it failed."""

    def __init__(self, number: int, problem: str = "") -> None:
        super().__init__()
        self.number = number
        self.problem = problem
