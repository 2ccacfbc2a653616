"""What the screens with hits have in common: a preview beside them, marks on files, and what is done with a hit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, OptionList

from gritdesk.errors import GritDeskError
from gritdesk.records import Hit
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity, SurroundingsRead
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import surroundings
from gritdesk.tui.widgets.hit_list import HitList, SearchHits
from gritdesk.tui.widgets.preview import Preview
from gritdesk.tui.widgets.status_line import count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

PREVIEW_CHARS = 8_000
"""Shown on either side of the passage."""
_NUM_RELATED = 4


class RelatedFound(Message):
    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        super().__init__()
        self.path = path
        self.names = names


class ResultsScreen(DeskScreen):
    """Has a HitList and a Preview; a wide screen shows the highlighted hit in its file."""

    HELP = "**Results.** `search.view` shows one in its file, `search.similar` lists files like it."
    BINDING_GROUP_TITLE = "Search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "a,ctrl+g", "ask", "Ask", id="search.ask", tooltip="Ask the query; of the marked files, if there are any"
        ),
        Binding("v", "view", "View", id="search.view", tooltip="Show the highlighted result here, in its file"),
        Binding("s", "similar", "Similar", id="search.similar", tooltip="List the files that are like this one"),
        Binding("space,ctrl+t", "mark", "Mark", id="search.mark", tooltip="Mark the file, or not"),
        Binding("c", "clear_marks", "Clear marks", show=False, id="search.clear_marks", tooltip="Take all marks off"),
        Binding(
            "y", "copy_path", "Copy path", show=False, id="search.copy", tooltip="Copy the path, or those of all marks"
        ),
        Binding(
            "shift+down,J",
            "scroll_preview(1)",
            "Scroll down",
            show=False,
            id="search.preview_down",
            tooltip="Scroll the text beside",
        ),
        Binding(
            "shift+up,K",
            "scroll_preview(-1)",
            "Scroll up",
            show=False,
            id="search.preview_up",
            tooltip="Scroll it back",
        ),
    ]

    preview_pause_s = 0.06
    """Time that the highlight stands still before its passage is drawn: a key that is held down goes past it."""
    typing_pause_s = 0.2
    """The same while the query is being typed, where the next key brings other hits."""
    related_pause_s = 0.6
    """Time that the highlight stands still before files like its own are looked up."""

    def __init__(self, marks: dict[Path, None] | None = None) -> None:
        super().__init__()
        self.marks: dict[Path, None] = {} if marks is None else marks
        """The marked files, in the order of their marks."""
        self._preview_lane = Lane(self, "preview")
        self._related_lane = Lane(self, "related files")
        self._related: dict[Path, tuple[str, ...]] = {}
        """Of the files that were highlighted since the index changed."""
        self._pauses_of_preview: list[Timer] = []

    @property
    def words(self) -> Sequence[str]:
        """What is marked in the texts; for screens to override."""
        return ()

    @property
    def question(self) -> str:
        """What `a` asks; for screens to override."""
        return ""

    @property
    def chosen_hit(self) -> Hit | None:
        return self.query_one("#hits", HitList).highlighted_hit

    @property
    def chosen_file(self) -> Hit | None:
        """What Enter opens and `y` copies the path of: the chosen hit, or a file without a passage."""
        return self.chosen_hit

    def activity_changed(self, before: Activity, now: Activity) -> None:
        if before.status is not now.status:
            self._related.clear()

    # preview

    @on(OptionList.OptionHighlighted)
    def _hit_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self.preview()

    def on_resize(self) -> None:
        self.call_after_refresh(self.preview)

    def preview(self) -> None:
        """Show the chosen hit in its file, and soon the files like that, where there is room."""
        hit, desk = self.chosen_hit, self.desk
        for pause in self._pauses_of_preview:
            pause.stop()
        self._pauses_of_preview.clear()
        if desk is None or not self.has_class("-wide"):
            return
        if hit is None:
            self.query_one(Preview).clear()
            return
        read = partial(self._preview_lane.submit, partial(_read_surroundings, desk, hit))
        pause_s = self.typing_pause_s if isinstance(self.focused, Input) else self.preview_pause_s
        self._pauses_of_preview.append(self.set_timer(pause_s, read))
        related = self._related.get(hit.path)
        self.query_one(Preview).show_related(related or ())
        if related is None:
            look_up = partial(self._related_lane.submit, partial(_find_related, desk, hit.path))
            self._pauses_of_preview.append(self.set_timer(self.related_pause_s, look_up))

    def on_surroundings_read(self, message: SurroundingsRead) -> None:
        message.stop()
        if message.hit == self.chosen_hit:
            self.query_one(Preview).show(message.hit, message.surroundings, self.words)

    def on_related_found(self, message: RelatedFound) -> None:
        message.stop()
        self._related[message.path] = message.names
        hit = self.chosen_hit
        if hit is not None and hit.path == message.path:
            self.query_one(Preview).show_related(message.names)

    def action_scroll_preview(self, steps: int) -> None:
        self.query_one(Preview).scroll_text(steps)

    # marks

    @on(SearchHits.MarkClicked)
    def _mark_clicked(self, message: SearchHits.MarkClicked) -> None:
        message.stop()
        self._mark(message.hit.path)

    def action_mark(self) -> None:
        if (hit := self.chosen_hit) is not None:
            self._mark(hit.path)

    def _mark(self, path: Path) -> None:
        if path in self.marks:
            del self.marks[path]
        else:
            self.marks[path] = None
        self.marks_changed()

    def action_clear_marks(self) -> None:
        self.marks.clear()
        self.marks_changed()

    def on_screen_resume(self) -> None:
        self.marks_changed()  # by a screen that stood before this one

    def marks_changed(self) -> None:
        """Show the marks as they are; for screens to add to."""
        for each in self.query(SearchHits):
            each.show_marks(self.marks)

    def told_marks(self) -> str:
        """ "2 marked, c clears"; "" if none is."""
        clears = self.grit_app.keymap.key_of("search.clear_marks")
        return f"{len(self.marks)} marked, {clears} clears" if self.marks else ""

    # what is done with a hit

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.open_chosen()

    def led_somewhere(self) -> None:
        """Something is done with a hit; for screens to override."""

    def open_chosen(self) -> None:
        if self.chosen_file is not None:
            self.led_somewhere()
            self.open_hit(self.chosen_file)

    async def action_ask(self) -> None:
        self.led_somewhere()
        await self.grit_app.ask(self.question, within=tuple(self.marks))

    def action_view(self) -> None:
        if (hit := self.chosen_hit) is not None:
            self.led_somewhere()
            self.grit_app.view(hit, self.words)

    def action_similar(self) -> None:
        from gritdesk.tui.screens.similar import SimilarScreen  # which is one of these itself

        if (hit := self.chosen_hit) is not None:
            self.led_somewhere()
            self.app.push_screen(SimilarScreen(hit.path, self.question, self.marks))

    def action_copy_path(self) -> None:
        self.led_somewhere()
        if not self.marks:
            self.copy_path(self.chosen_file)
            return
        self.app.copy_to_clipboard("\n".join(map(str, self.marks)))
        self.notify(f"{count(len(self.marks), 'path')} copied, one a line", markup=False)


def _read_surroundings(desk: Desk, hit: Hit) -> SurroundingsRead:
    return SurroundingsRead(hit, surroundings(desk.document_text(hit.path), hit.chunk, PREVIEW_CHARS))


def _find_related(desk: Desk, path: Path) -> RelatedFound:
    names: tuple[str, ...] = ()
    with suppress(GritDeskError):  # a line under a preview; to ask for similar files says what is wrong
        names = tuple(hit.path.name for hit in desk.similar(path, _NUM_RELATED).hits)
    return RelatedFound(path, names)
