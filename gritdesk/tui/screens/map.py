"""The library as a picture: what lies together is about the same; a theme opens into a map of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.records import Map, MapPoint
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.base import DeskScreen, beginning_of
from gritdesk.tui.text import one_line, plain, short_folder
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.map_view import MapView
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_FEW = 24
"""So many documents are listed rather than grouped."""


class MapMade(Message):
    def __init__(self, number: int, found: Map) -> None:
        super().__init__()
        self.number = number
        """Which request it answers; an older one is stale."""
        self.found = found


class MapProgressed(Message):
    """Comes in bursts: of those that wait only the last is handled."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__()
        self.done, self.total = done, total

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, MapProgressed)


class MapFailed(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


@dataclass(frozen=True)
class _Level:
    """A map that was opened, to come back to."""

    found: Map
    title: str
    chosen: int


class MapScreen(DeskScreen):
    HELP = (
        "**Map.** Documents near in meaning lie near each other. `Enter` opens a theme, then a document; `map.back` "
        "goes back, `map.search` searches for the words of the theme."
    )
    BINDING_GROUP_TITLE = "Map"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "back", "Back", id="map.back", tooltip="Back to the map this one was opened from"),
        Binding("r", "redraw", "Draw anew", id="map.redraw", tooltip="Draw the map anew from the index as it is now"),
        Binding("s", "search", "Search", show=False, id="map.search", tooltip="Search for the words of the theme"),
        Binding("y", "copy_path", "Copy path", show=False, id="map.copy", tooltip="Copy the document's path"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lane = Lane(self, "map")
        self._number = 0
        """Of the latest request."""
        self._levels: list[_Level] = []
        self._opened: _Level | None = None
        """The level that the map under way is opened from."""
        self._title = ""
        self._is_drawn = False
        self._is_stopped = False

    def compose(self) -> ComposeResult:
        yield StatusLine("map")
        yield EmptyState(id="map-empty")
        with Horizontal(id="map-body"):
            yield MapView(id="map-view")
            with Vertical(id="map-side"):
                yield Static(id="map-title")
                yield Rows(id="map-list", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#map-body").display = False
        self.query_one(OptionList).focus()

    def on_unmount(self) -> None:
        self._is_stopped = True

    def activity_changed(self, before: Activity, now: Activity) -> None:
        if now.desk == "opening":
            self._is_drawn = False
        if now.desk == "open" and not self._is_drawn:
            self.action_redraw()
        elif now.desk == "failed":
            self.query_one(EmptyState).say("The index could not be opened", now.desk_problem)

    # making maps

    def action_redraw(self) -> None:
        self._levels.clear()
        self._title = ""
        self._make(None)

    def _make(self, paths: list[Path] | None) -> None:
        if self.desk is None:
            return
        self._is_drawn = True
        self._number += 1
        self._say("The map is being drawn", "It takes some seconds for some thousand documents.")
        self._lane.submit(partial(self._made, self.desk, self._number, paths), MapFailed)

    def _made(self, desk: Desk, number: int, paths: list[Path] | None) -> MapMade:
        """Runs in a thread."""

        def is_stale() -> bool:
            return self._is_stopped or number != self._number

        few = 1 if paths is not None and len(paths) <= _FEW else None
        return MapMade(number, desk.map(few, self._progressed, paths=paths, is_stopped=is_stale))

    def _progressed(self, done: int, total: int) -> None:
        if done % max(1, total // 100) == 0:  # each is drawn
            self.post_message(MapProgressed(done, total))

    def on_map_progressed(self, message: MapProgressed) -> None:
        message.stop()
        if not self.query_one("#map-body").display:
            told = f"{message.done:,} of {count(message.total, 'document')} read"
            self.query_one(EmptyState).say("The map is being drawn", told)

    def on_map_failed(self, message: MapFailed) -> None:
        message.stop()
        self._say("The map could not be drawn", message.problem, "", "`map.redraw` tries again.")
        self.grit_app.report(message.problem)

    def on_map_made(self, message: MapMade) -> None:
        message.stop()
        if message.number != self._number:
            return
        if not message.found.points:
            self._say(
                "Nothing to draw yet", "No document has its meaning yet. `app.search` searches by words meanwhile."
            )
            return
        self._show(message.found)

    def _say(self, *lines: str) -> None:
        self.query_one("#map-body").display = False
        empty = self.query_one(EmptyState)
        empty.display = True
        empty.say(*lines)

    # showing one

    @property
    def _view(self) -> MapView:
        return self.query_one(MapView)

    @property
    def _lists_documents(self) -> bool:
        return len(self._view.found.clusters) == 1

    def _show(self, found: Map, highlighted: int = 0) -> None:
        view = self._view
        view.found, view.chosen, view.marked = found, None, None
        self.query_one(EmptyState).display = False
        self.query_one("#map-body").display = True
        title = (one_line(self._title or "Your library"), "bold")
        told = (count(len(found.points), "document"), "$text-muted")
        self.query_one("#map-title", Static).update(Content.assemble(title, "\n", told))
        rows = self.query_one("#map-list", OptionList)
        if self._lists_documents:
            rows.set_options(Option(_document_row(point)) for point in found.points)
        else:
            rows.set_options(Option(self._theme_row(number)) for number in range(len(found.clusters)))
        rows.highlighted = highlighted
        rows.focus()

    def _theme_row(self, number: int) -> Content:
        cluster = self._view.found.clusters[number]
        colour = self._view.colour_of(number).css
        words = one_line(", ".join(cluster.words)) or "without words"
        mark = f"{self._view.mark_of(number)} "
        return Content.assemble((mark, colour), (words, "bold"), (f"  {cluster.num_documents:,}", "$text-muted"))

    @on(OptionList.OptionHighlighted, "#map-list")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if self._lists_documents:
            self._view.marked = self._view.found.points[event.option_index]
        else:
            self._view.chosen = event.option_index

    @on(OptionList.OptionSelected, "#map-list")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        found = self._view.found
        if self._lists_documents:
            self.open_hit(beginning_of(found.points[event.option_index].path))
            return
        number = event.option_index
        self._levels.append(_Level(found, self._title, number))
        self._title = ", ".join(found.clusters[number].words) or "without words"
        self._make([point.path for point in found.points if point.cluster == number])

    def action_back(self) -> None:
        if not self._levels:
            return
        level = self._levels.pop()
        self._number += 1  # what is being made is no longer wanted
        self._title = level.title
        self._show(level.found, level.chosen)

    async def action_search(self) -> None:
        number = self.query_one("#map-list", OptionList).highlighted
        clusters = self._view.found.clusters
        words = clusters[min(number or 0, len(clusters) - 1)].words if clusters else ()
        await self.grit_app.search_for(" ".join(words))

    def action_copy_path(self) -> None:
        number = self.query_one("#map-list", OptionList).highlighted
        if self._lists_documents and number is not None:
            self.copy_path(beginning_of(self._view.found.points[number].path))


def _document_row(point: MapPoint) -> Content:
    return Content.assemble((plain(point.path.name), "bold"), "  ", (short_folder(point.path), "$text-muted"))
