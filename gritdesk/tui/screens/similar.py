"""The files that are like one file, as a list of their own; Escape goes back to where it was asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from gritdesk.records import SimilarFiles
from gritdesk.tui.lane import Lane
from gritdesk.tui.screens.results import ResultsScreen
from gritdesk.tui.text import one_line, query_words, short_folder
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.hit_list import HitList, SearchHits
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.preview import Preview
from gritdesk.tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from gritdesk.desk import Desk

NUM_FILES = 30


class SimilarFound(Message):
    def __init__(self, found: SimilarFiles) -> None:
        super().__init__()
        self.found = found


class SimilarRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class SimilarScreen(ResultsScreen):
    BINDING_GROUP_TITLE = "Similar files"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="similar.close", tooltip="Back to where you came from"),
    ]

    def __init__(self, path: Path, query: str, marks: dict[Path, None]) -> None:
        """Args: query: what was searched for, to be asked or marked in texts; marks: shared, and changed here."""
        super().__init__(marks)
        self._path = path
        self._query = query
        self._copies: tuple[Path, ...] = ()
        self._lane = Lane(self, "similar files")

    @property
    def words(self) -> tuple[str, ...]:
        return query_words(self._query)

    @property
    def question(self) -> str:
        return self._query

    def compose(self) -> ComposeResult:
        yield StatusLine("search")
        yield Static(id="similar-title")
        with Horizontal(id="results"):
            yield SearchHits(id="hits")
            yield Preview(id="preview")
        yield EmptyState(id="empty")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#results").display = False
        self.query_one(EmptyState).say("Looking for files like this one …")
        self._show_title()
        if self.desk is not None:
            self._lane.submit(partial(_find_similar, self.desk, self._path), SimilarRefused)

    def on_similar_found(self, message: SimilarFound) -> None:
        message.stop()
        hits, self._copies = message.found.hits, message.found.copies
        self.query_one("#results").display = bool(hits)
        self.query_one(EmptyState).display = not hits
        if hits:
            self.query_one(HitList).show(hits, self.words, marks=self.marks)
            self.query_one(HitList).focus()
        else:
            self.query_one(EmptyState).say("No other file is like it", "The more is indexed, the more there is.")
        self._show_title()

    def on_similar_refused(self, message: SimilarRefused) -> None:
        message.stop()
        self.query_one(EmptyState).say("Similar files cannot be told", message.problem)

    def marks_changed(self) -> None:
        super().marks_changed()
        self._show_title()

    def _show_title(self) -> None:
        parts = [Content.assemble("Files like ", (one_line(self._path.name), "bold"))]
        if told := self.told_marks():
            parts.append(Content.styled(told, "$text-accent"))
        parts.append(Content.styled(short_folder(self._path), "$text-muted"))
        if self._copies:
            names = ", ".join(one_line(str(each)) for each in self._copies)
            parts.append(Content.styled(f"the same: {names}", "$text-secondary"))
        self.query_one("#similar-title", Static).update(Content("   ").join(parts))

    def action_close(self) -> None:
        self.dismiss()


def _find_similar(desk: Desk, path: Path) -> SimilarFound:
    return SimilarFound(desk.similar(path, NUM_FILES))
