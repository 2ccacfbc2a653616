"""The home screen: results as you type, words first and meaning a little later, and a preview beside them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.timer import Timer
from textual.widgets import Footer, Input, OptionList, Static

from gritdesk.errors import GritDeskError, QueryError
from gritdesk.querying import parse
from gritdesk.records import Exchange, Hit, Reranking, SearchMode
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import Activity, HitsFound, HitsReread, SearchFailed, SurroundingsRead
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import heading_path, one_line, opens_as_text, place, plain, query_words, surroundings
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.mode_line import MODES, ModeLine
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.search_input import SearchInput
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

NUM_HITS = 30
PREVIEW_CHARS = 8_000
"""Shown on either side of the passage."""


class SearchScreen(DeskScreen):
    BINDING_GROUP_TITLE = "Search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a,ctrl+g", "ask", "Ask", id="search.ask", tooltip="Ask the query as a question (ctrl+g while typing)"),
        Binding("v", "view", "View", id="search.view", tooltip="Show the highlighted result here, in its file"),
        Binding("tab", "cycle_mode", "Mode", id="search.mode", tooltip="Next mode: hybrid, semantic, keyword"),
        Binding(
            "r", "rerank", "Look harder", show=False, id="search.rerank", tooltip="Have the model read all results"
        ),
        Binding("y", "copy_path", "Copy path", show=False, id="search.copy", tooltip="Copy the result's path"),
        Binding("escape", "back", "Back", show=False, id="search.back", tooltip="Back to the query; there, clear it"),
        Binding("+", "add_folder", "Add folder", show=False, id="search.add_folder", tooltip="Keep one more folder"),
    ]

    keyword_pause_s = 0.04
    """Time without a key before a search by words."""
    meaning_pause_s = 0.25
    """The same before a search by meaning, which costs the model a run."""
    reading_pause_s = 0.7
    """Time that results stand still before the model reads them for a question that may follow."""

    preview_pause_s = 0.06
    """Time that the highlight stands still before its passage is drawn: a key that is held down goes past it."""

    mode: reactive[SearchMode] = reactive("hybrid", init=False)

    def __init__(self) -> None:
        super().__init__()
        self.query_text = ""
        self._number = 0
        """Counts the queries; hits of an older number are stale."""
        self._shown: tuple[int, SearchMode | None] = (0, None)
        """Number and mode of the hits on the screen."""
        self._query_problem = ""
        """What is wrong with the query; a date that is being typed is none yet, and no reason for a notice."""
        self._rereading = _ended()
        """Of the latest reading of the results on the screen; set, it is over or about to be."""
        self._reread: Reranking | None = None
        """How far the results on the screen have been read again; None: not at all."""
        self._seconds = 0.0
        """How long the search for those took."""
        self._keyword_lane = Lane(self, "search by words")
        self._meaning_lane = Lane(self, "search by meaning")
        self._preview_lane = Lane(self, "preview")
        self._prefill_lane = Lane(self, "prefill")
        self._pauses: list[Timer] = []
        self._preview_pause: Timer | None = None

    def compose(self) -> ComposeResult:
        yield StatusLine("search")
        yield SearchInput(placeholder="Search your files …", id="query")
        yield ModeLine()
        with Horizontal(id="results"):
            yield HitList(id="hits")
            with Vertical(id="preview"):
                yield Static(id="preview-title")
                yield PassageView(id="preview-text")
        yield EmptyState(id="empty")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(SearchInput).focus()

    def on_unmount(self) -> None:
        self._rereading.set()

    # what changes a search

    @on(Input.Changed, "#query")
    def _query_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value.strip() != self.query_text:
            self.query_text = event.value.strip()
            self.search()

    def watch_mode(self, mode: SearchMode) -> None:
        self.query_one(ModeLine).mode = mode
        self.search()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        self.query_one(SearchInput).adds_folders = now.has_folders is False
        became_open = before.desk != "open" and now.desk == "open"
        if became_open or before.model != now.model:
            self.search()
        else:
            self._show_state()

    # searching

    def search(self) -> None:
        """Search anew for what the query line holds, in the phases that the mode and the model allow."""
        self._number += 1
        self._rereading.set()
        for timer in self._pauses:
            timer.stop()
        self._pauses.clear()
        self._query_problem = _problem_of(self.query_text)
        if self.query_text and self.desk is not None and not self._query_problem:
            if self.mode != "semantic":
                self._after(self.keyword_pause_s, "keyword", self._keyword_lane)
            if self.mode != "keyword" and self.activity.model == "ready":
                self._after(self.meaning_pause_s, self.mode, self._meaning_lane)
        self._show_state()

    def _after(self, pause_s: float, mode: SearchMode, lane: Lane) -> None:
        desk, query, number = self.desk, self.query_text, self._number
        assert desk is not None
        call = partial(_search, desk, query, mode, number)
        submit = partial(lane.submit, call, lambda problem: SearchFailed(number, problem))
        self._pauses.append(self.set_timer(pause_s, submit))

    def on_hits_found(self, message: HitsFound) -> None:
        message.stop()
        number, shown_mode = self._shown
        is_late = message.mode == "keyword" and number == message.number and shown_mode not in (None, "keyword")
        if message.number != self._number or is_late:
            return
        self._shown = (message.number, message.mode)
        self._rereading.set()
        self._rereading, self._reread = _ended(), None
        self._seconds = message.seconds
        self.query_one(HitList).show(message.hits, query_words(self.query_text))
        self._show_state()
        if message.hits and message.mode != "keyword":
            self._pauses.append(self.set_timer(self.reading_pause_s, self._prefill))

    def _prefill(self) -> None:
        """Have the model read what a question would have it read, since `a` may ask the query as one."""
        if self.desk is not None:
            self._prefill_lane.submit(partial(_prefill, self.desk, self.query_text, self.grit_app.conversation()))

    def action_rerank(self) -> None:
        """Look harder at the results on the screen; Escape ends it."""
        hits = self.query_one(HitList).hits
        are_shown = bool(hits) and self._shown[0] == self._number
        if self.desk is None or not are_shown or self._reread is not None or not self._rereading.is_set():
            return
        if self.activity.model != "ready":
            self.notify("The model reads them; it is not loaded yet.", markup=False)
            return
        self._rereading = threading.Event()
        work = partial(self._rerank, self.desk, self.query_text, hits, self._number, self._rereading)
        self.run_worker(work, group="rerank", thread=True, exit_on_error=False)

    def _rerank(self, desk: Desk, query: str, hits: Sequence[Hit], number: int, stop: threading.Event) -> None:
        """Runs in a thread; ends soon after `stop` is set."""
        try:
            for so_far in desk.rerank(query, hits, is_stopped=stop.is_set):
                self.post_message(HitsReread(stop, so_far))
        except Exception as error:  # a worker's edge
            self.post_message(SearchFailed(number, problem_of(error)))
        stop.set()

    def on_hits_reread(self, message: HitsReread) -> None:
        message.stop()
        if message.reading is self._rereading:
            self._reread = message.so_far
            self.query_one(HitList).show(message.so_far.hits, query_words(self.query_text))
            self._show_state()

    def on_search_failed(self, message: SearchFailed) -> None:
        message.stop()
        if message.number == self._number:
            self.grit_app.report(message.problem)

    # what is on the screen

    def _show_state(self) -> None:
        hit_list = self.query_one(HitList)
        if not self.query_text and hit_list.hits:
            hit_list.show(())
            self._shown = (0, None)
        has_hits = bool(hit_list.hits)
        self.query_one("#results").display = has_hits
        empty = self.query_one(EmptyState)
        empty.display = not has_hits
        if not has_hits:
            empty.say(*self._empty_lines())
        self.query_one(ModeLine).summary = self._summary()

    def _summary(self) -> str:
        if self._query_problem:
            return self._query_problem
        number, mode = self._shown
        if not self.query_text or mode is None:
            return self._waiting_for_model() if self.query_text else ""
        num_hits = len(self.query_one(HitList).hits)
        parts = [count(num_hits, "result"), f"{self._seconds * 1000:.0f} ms"]
        if mode == "keyword" and self.mode == "hybrid":
            parts.append(self._waiting_for_model() or "by words, meaning follows")
        if self._reread is not None:
            parts.append(
                f"{self._reread.num_read} read again in {self._reread.seconds:.1f} of {self._reread.budget_s:g} s"
            )
        return " · ".join(parts)

    def _waiting_for_model(self) -> str:
        if self.mode == "keyword" or self.activity.model == "ready":
            return ""
        return "by words; the model is loading" if self.activity.model == "loading" else "by words; no model"

    def _empty_lines(self) -> tuple[str, ...]:
        activity = self.activity
        if activity.desk == "opening":
            return ("Opening the index …", "You can type already.")
        if activity.desk == "failed":
            return ("The index could not be opened", activity.desk_problem, "", "`ctrl+r` tries again.")
        if activity.has_folders is False:
            return (
                "No folders yet",
                "Press `+` to add one, or run `gritdesk index FOLDER` in a shell.",
                "It is searched by words at once, and by meaning as soon as it is read.",
            )
        if not self.query_text:
            return self._welcome_lines()
        if self._query_problem:
            return ("Not a date yet", self._query_problem)
        if self._shown[0] != self._number:
            return self._pending_lines()
        return self._nothing_found_lines()

    def _welcome_lines(self) -> tuple[str, ...]:
        status = self.activity.status
        title = f"{count(status.files, 'file')} in {count(len(status.folders), 'folder')}" if status else "Ready"
        return (
            title,
            "Type to search.  `F3` asks a question.",
            "`Tab` changes the mode.  `F1` shows every key.",
        )

    def _pending_lines(self) -> tuple[str, ...]:
        if self.mode == "semantic" and self.activity.model == "loading":
            return ("The model is being loaded", "`Tab` to keyword searches by words meanwhile.")
        if self.mode == "semantic" and self.activity.model == "failed":
            return ("The model cannot be used", self.activity.model_problem, "`Tab` to keyword searches by words.")
        return ("Searching …",)

    def _nothing_found_lines(self) -> tuple[str, ...]:
        lines = [f"Nothing found for “{plain(self.query_text).replace('`', chr(39))}”", "Try fewer or other words."]
        if self.mode != "hybrid":
            lines.append("`Tab` goes on to another mode.")
        if self.activity.is_indexing:
            lines.append("Indexing is under way; what is read later will be found later.")
        return tuple(lines)

    # preview

    @on(OptionList.OptionHighlighted, "#hits")
    def _hit_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._preview(self.query_one(HitList).highlighted_hit)

    def _preview(self, hit: Hit | None) -> None:
        desk = self.desk
        if self._preview_pause is not None:
            self._preview_pause.stop()
        if hit is not None and desk is not None and self.has_class("-wide"):
            submit = partial(self._preview_lane.submit, partial(_read_surroundings, desk, hit))
            self._preview_pause = self.set_timer(self.preview_pause_s, submit)

    def on_surroundings_read(self, message: SurroundingsRead) -> None:
        message.stop()
        hit = message.hit
        if hit != self.query_one(HitList).highlighted_hit:
            return
        title = "  ".join(part for part in (one_line(hit.path.name), place(hit), heading_path(hit)) if part)
        self.query_one("#preview-title", Static).update(Content(title), layout=False)
        view = self.query_one("#preview-text", PassageView)
        view.show(message.surroundings, query_words(self.query_text), numbered=opens_as_text(hit))

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self._preview(self.query_one(HitList).highlighted_hit))

    # keys

    @on(SearchInput.LeftDown)
    def _go_to_results(self) -> None:
        if self.query_one(HitList).hits:
            self.query_one(HitList).focus()

    @on(SearchInput.FolderWanted)
    def _folder_wanted(self) -> None:
        self.action_add_folder()

    @on(Input.Submitted, "#query")
    @on(OptionList.OptionSelected, "#hits")
    def _open_highlighted(self) -> None:
        self.open_hit(self.query_one(HitList).highlighted_hit)

    @on(ModeLine.ModePicked)
    def _mode_picked(self, message: ModeLine.ModePicked) -> None:
        self.mode = message.mode

    def action_cycle_mode(self) -> None:
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]

    async def action_ask(self) -> None:
        await self.grit_app.ask(self.query_text)

    def action_view(self) -> None:
        hit = self.query_one(HitList).highlighted_hit
        if hit is not None:
            self.grit_app.view(hit, query_words(self.query_text))

    def action_copy_path(self) -> None:
        self.copy_path(self.query_one(HitList).highlighted_hit)

    def action_back(self) -> None:
        if self._reread is not None and not self._rereading.is_set():
            self._rereading.set()
            return
        query = self.query_one(SearchInput)
        if query.has_focus:
            query.value = ""
        query.focus()

    def action_add_folder(self) -> None:
        self.grit_app.action_add_folder()


def _ended() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _search(desk: Desk, query: str, mode: SearchMode, number: int) -> HitsFound:
    started = perf_counter()
    hits = desk.search(query, NUM_HITS, mode)
    return HitsFound(number, mode, hits, perf_counter() - started)


def _prefill(desk: Desk, query: str, past: Sequence[Exchange]) -> None:
    with suppress(GritDeskError):  # nobody has asked for it; asking says what is wrong
        desk.prefill(query, past)


def _problem_of(query: str) -> str:
    try:
        parse(query)
    except QueryError as error:
        return str(error)
    return ""


def _read_surroundings(desk: Desk, hit: Hit) -> SurroundingsRead:
    return SurroundingsRead(hit, surroundings(desk.document_text(hit.path), hit.chunk, PREVIEW_CHARS))
