"""The home screen: results as you type, words first and meaning a little later, and a preview beside them.

Where nothing is found, what a filter hides and what comes near stands in their place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer
from textual.widgets import Input

from gritdesk.completing import FilterValues, Offer, is_filter, offers, settled
from gritdesk.errors import GritDeskError, QueryError
from gritdesk.querying import parse, without
from gritdesk.records import Exchange, Hit, Misses, PathReport, Reranking, SearchMode, Status
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import Activity, HitsFound, HitsReread, SearchFailed
from gritdesk.tui.screens.base import beginning_of
from gritdesk.tui.screens.results import ResultsScreen
from gritdesk.tui.screens.why import WhyScreen
from gritdesk.tui.text import plain, query_words
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.hit_list import HitList, SearchHits
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.mode_line import MODES, ModeLine
from gritdesk.tui.widgets.nothing_found import NothingFound
from gritdesk.tui.widgets.preview import Preview
from gritdesk.tui.widgets.search_input import SearchInput
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

NUM_HITS = 30
_NO_MISSES = Misses((), ())


class MissesFound(Message):
    def __init__(self, number: int, misses: Misses) -> None:
        super().__init__()
        self.number = number
        """Which query it answers, as of all these messages."""
        self.misses = misses


class UnreadFound(Message):
    """Which files that are not in the index are named as the query says."""

    def __init__(self, number: int, reports: Sequence[PathReport]) -> None:
        super().__init__()
        self.number = number
        self.reports = reports


class HitsExplained(Message):
    def __init__(self, number: int, hits: Sequence[Hit]) -> None:
        super().__init__()
        self.number = number
        self.hits = hits


class OffersMade(Message):
    """What a filter that is being typed may say."""

    def __init__(self, line: str, made: Sequence[Offer]) -> None:
        super().__init__()
        self.line = line
        self.made = made


class PastQueriesRead(Message):
    def __init__(self, queries: Sequence[str]) -> None:
        super().__init__()
        self.queries = queries


class SearchScreen(ResultsScreen):
    HELP = (
        "**Search.** Words are found at once, meaning a moment after the last key. `search.rerank` has the model read "
        "the results again, `search.view` shows one in its file, `search.ask` asks the query as a question."
    )
    BINDING_GROUP_TITLE = "Search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "why", "Why", id="search.why", tooltip="Say why the highlighted result stands where it does"),
        Binding("tab", "cycle_mode", "Mode", id="search.mode", tooltip="Next mode: hybrid, semantic, keyword"),
        Binding(
            "r", "rerank", "Look harder", show=False, id="search.rerank", tooltip="Have the model read all results"
        ),
        Binding("escape", "back", "Back", show=False, id="search.back", tooltip="Back to the query; there, clear it"),
        Binding("+", "add_folder", "Add folder", show=False, id="search.add_folder", tooltip="Keep one more folder"),
    ]

    keyword_pause_s = 0.02
    """Time without a key before a search by words."""
    meaning_pause_s = 0.25
    """The same before a search by meaning, which costs the model a run."""
    reading_pause_s = 0.7
    """Time that results stand still before the model reads them for a question that may follow."""

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
        self._misses = _NO_MISSES
        self._unread: Sequence[PathReport] = ()
        """Both of the query on the screen, if it found nothing."""
        self._filter_values: tuple[Status | None, FilterValues] | None = None
        """What filters can name, and the state of the index that it was read of."""
        self._prefill_lane = Lane(self, "prefill")
        self._misses_lane = Lane(self, "misses")
        self._unread_lane = Lane(self, "files not in the index")
        self._why_lane = Lane(self, "why this rank")
        self._offers_lane = Lane(self, "offers")
        self._past_lane = Lane(self, "past queries")
        self._pauses: list[Timer] = []

    def compose(self) -> ComposeResult:
        yield StatusLine("search")
        yield SearchInput(placeholder="Search your files …", id="query")
        yield ModeLine()
        with Horizontal(id="results"):
            yield SearchHits(id="hits")
            yield NothingFound(id="nothing-found")
            yield Preview(id="preview")
        yield EmptyState(id="empty")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(SearchInput).focus()

    def on_unmount(self) -> None:
        self._rereading.set()

    @property
    def words(self) -> Sequence[str]:
        return query_words(self.query_text)

    @property
    def question(self) -> str:
        return self.query_text

    @property
    def chosen_hit(self) -> Hit | None:
        """Of the hits, or of the nearest misses where there are none."""
        chosen = self._chosen
        return chosen if isinstance(chosen, Hit) else None

    @property
    def chosen_file(self) -> Hit | None:
        chosen = self._chosen
        return beginning_of(chosen.path) if isinstance(chosen, PathReport) else self.chosen_hit

    @property
    def _chosen(self) -> str | Hit | PathReport | None:
        nothing_found = self.query_one(NothingFound)
        return nothing_found.chosen if nothing_found.display else self.query_one(HitList).highlighted_hit

    # what changes a search

    @on(Input.Changed, "#query")
    def _query_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._offer(event.value)
        if (query := settled(event.value).strip()) != self.query_text:
            self.query_text = query
            self.search()

    def watch_mode(self, mode: SearchMode) -> None:
        self.query_one(ModeLine).mode = mode
        self.search()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        super().activity_changed(before, now)
        self.query_one(SearchInput).adds_folders = now.has_folders is False
        became_open = before.desk != "open" and now.desk == "open"
        if became_open:
            self._read_past_queries()
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
        self._misses, self._unread = _NO_MISSES, ()
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
        if not message.hits and self.activity.model == "ready" and not self._is_last_phase(message.mode):
            return  # what was found before stays until meaning has been asked
        self._query_problem = ""
        if not message.hits and self.query_one(SearchInput).offers:  # `type:p` on its way to `type:pdf`
            self._query_problem = f"nothing yet; {self.grit_app.keymap.key_of('query.complete')} completes the filter"
            self._show_state()
            return
        self._shown = (message.number, message.mode)
        self._rereading.set()
        self._rereading, self._reread = _ended(), None
        self._seconds = message.seconds
        self.query_one(HitList).show(message.hits, self.words, marks=self.marks)
        self._show_state()
        if message.hits and message.mode != "keyword":
            self._pauses.append(self.set_timer(self.reading_pause_s, self._prefill))
        elif not message.hits and self._is_last_phase(message.mode):
            self._look_for_misses(message.mode)

    def _is_last_phase(self, mode: SearchMode) -> bool:
        return mode == self.mode or self.activity.model == "failed"

    def _look_for_misses(self, mode: SearchMode) -> None:
        desk, query, number = self.desk, self.query_text, self._number
        assert desk is not None

        def failed(problem: str) -> Message:
            return SearchFailed(number, problem)

        self._misses_lane.submit(lambda: MissesFound(number, desk.misses(query, mode)), failed)
        # which walks the folders: not at every key
        walk = partial(self._unread_lane.submit, lambda: UnreadFound(number, desk.unread(query)), failed)
        self._pauses.append(self.set_timer(self.reading_pause_s, walk))

    def on_misses_found(self, message: MissesFound) -> None:
        message.stop()
        if message.number == self._number:
            self._misses = message.misses
            self._show_state()

    def on_unread_found(self, message: UnreadFound) -> None:
        message.stop()
        if message.number == self._number:
            self._unread = message.reports
            self._show_state()

    @on(NothingFound.RestrictionDropped)
    def _restriction_dropped(self, message: NothingFound.RestrictionDropped) -> None:
        """Search for more; the cursor stands behind what is left, to be gone on with."""
        message.stop()
        query = self.query_one(SearchInput)
        query.value = without(self.query_text, message.restriction)
        query.cursor_position = len(query.value)
        query.focus()

    def _prefill(self) -> None:
        """Have the model read what a question would have it read, since `a` may ask the query as one."""
        if self.desk is not None:
            past, within = self.grit_app.conversation(), tuple(self.marks)
            self._prefill_lane.submit(partial(_prefill, self.desk, self.query_text, past, within))

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
            self.query_one(HitList).show(message.so_far.hits, self.words, marks=self.marks)
            self._show_state()

    def on_search_failed(self, message: SearchFailed) -> None:
        message.stop()
        if message.number != self._number:
            return
        self.grit_app.report(message.problem)
        if self._shown[0] != self._number:  # the hits on the screen are of another query
            self.query_one(HitList).show(())
            self._query_problem = message.problem
            self._show_state()

    # what is on the screen

    def _show_state(self) -> None:
        hit_list = self.query_one(HitList)
        if not self.query_text and hit_list.hits:
            hit_list.show(())
            self._shown = (0, None)
        has_hits = bool(hit_list.hits)
        has_misses = not has_hits and bool(self._misses.nearest or self._misses.removed or self._unread)
        hit_list.display = has_hits
        nothing_found = self.query_one(NothingFound)
        nothing_found.display = has_misses
        self.query_one("#results").display = has_hits or has_misses
        empty = self.query_one(EmptyState)
        empty.display = not has_hits and not has_misses
        if has_misses:
            title, *notes = self._nothing_found_lines()
            nothing_found.show(title, notes, self._misses, self._unread, self.words)
        elif not has_hits:
            empty.say(*self._empty_lines())
        self.query_one(ModeLine).summary = self._summary()

    def marks_changed(self) -> None:
        super().marks_changed()
        self.query_one(ModeLine).summary = self._summary()

    def _summary(self) -> str:
        """The marks first: where there is little room, the rest goes without."""
        if self._query_problem:
            return self._query_problem
        return " · ".join(part for part in (self.told_marks(), self._told_search()) if part)

    def _told_search(self) -> str:
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
            return ("The index could not be opened", activity.desk_problem, "", "`app.reopen` tries again.")
        if activity.has_folders is False:
            return (
                "No folders yet",
                "Press `search.add_folder` to add one, or run `gritdesk index FOLDER` in a shell.",
                "It is searched by words at once, and by meaning as soon as it is read.",
            )
        if not self.query_text:
            return self._welcome_lines()
        if self._query_problem:
            return ("Nothing to show yet", self._query_problem)
        if self._shown[0] != self._number:
            return self._pending_lines()
        return self._nothing_found_lines()

    def _welcome_lines(self) -> tuple[str, ...]:
        status = self.activity.status
        title = f"{count(status.files, 'file')} in {count(len(status.folders), 'folder')}" if status else "Ready"
        return (
            title,
            "Type to search.  `app.ask` asks a question.",
            "`search.mode` changes the mode.  `app.help` shows every key.",
        )

    def _pending_lines(self) -> tuple[str, ...]:
        if self.mode == "semantic" and self.activity.model == "loading":
            return ("The model is being loaded", "`search.mode` to keyword searches by words meanwhile.")
        if self.mode == "semantic" and self.activity.model == "failed":
            return (
                "The model cannot be used",
                self.activity.model_problem,
                "`search.mode` to keyword searches by words.",
            )
        return ("Searching …",)

    def _nothing_found_lines(self) -> tuple[str, ...]:
        lines = [f"Nothing found for “{plain(self.query_text)}”"]
        if not self._misses.removed:
            lines.append("Try fewer or other words.")
        if self.mode != "hybrid":
            lines.append("`search.mode` goes on to another mode.")
        if self.activity.is_indexing:
            lines.append("Indexing is under way; what is read later will be found later.")
        return tuple(lines)

    # filters

    def _offer(self, line: str) -> None:
        """Have what the filter at the end of the line may say looked up."""
        desk = self.desk
        if desk is None or not is_filter(line):
            self.query_one(SearchInput).show_offers(())
            return
        self._offers_lane.submit(partial(self._made_offers, desk, line, self.activity.status))

    def _made_offers(self, desk: Desk, line: str, status: Status | None) -> OffersMade:
        """Runs in the lane, which has but one thread at a time."""
        if self._filter_values is None or self._filter_values[0] is not status:
            self._filter_values = status, desk.filter_values()
        return OffersMade(line, offers(line, self._filter_values[1], date.today()))

    def on_offers_made(self, message: OffersMade) -> None:
        message.stop()
        query = self.query_one(SearchInput)
        if query.value == message.line:
            query.show_offers(message.made)

    # past queries

    def _read_past_queries(self) -> None:
        if (desk := self.desk) is not None:
            self._past_lane.submit(lambda: PastQueriesRead(desk.past_queries()))

    def on_past_queries_read(self, message: PastQueriesRead) -> None:
        message.stop()
        self.query_one(SearchInput).past_queries = message.queries

    def led_somewhere(self) -> None:
        """Have the query kept, to be asked again."""
        if self.query_text and self.desk is not None:
            self.do(partial(_remember, query=self.query_text))

    # why this rank

    def action_why(self) -> None:
        desk, (number, mode) = self.desk, self._shown
        if desk is None or mode is None or number != self._number or not self.query_one(HitList).hits:
            return
        call = partial(_explain, desk, self.query_text, mode, number)
        self._why_lane.submit(call, lambda problem: SearchFailed(number, problem))

    def on_hits_explained(self, message: HitsExplained) -> None:
        message.stop()
        if message.number != self._number or self.app.screen is not self:
            return
        explained = {hit.chunk_id: hit for hit in message.hits}
        shown = self.query_one(HitList).hits
        hits = [_with_reading(hit, explained[hit.chunk_id]) for hit in shown if hit.chunk_id in explained]
        chosen = self.chosen_hit
        index = next((n for n, hit in enumerate(hits) if chosen and hit.chunk_id == chosen.chunk_id), None)
        if index is None:
            self.notify("The index has changed since; search again.", severity="warning", markup=False)
        else:
            self.app.push_screen(WhyScreen(hits, index))

    # keys

    @on(SearchInput.LeftDown)
    def _go_to_results(self) -> None:
        """Into the list; keys come faster than the focus moves, and a second one goes down in it."""
        results = self.query_one(HitList) if self.query_one(HitList).hits else self.query_one(NothingFound)
        if self.focused is results:
            results.action_cursor_down()
        elif results.display:
            self.set_focus(results)

    @on(SearchInput.FolderWanted)
    def _folder_wanted(self) -> None:
        self.action_add_folder()

    @on(Input.Submitted, "#query")
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        nothing_found = self.query_one(NothingFound)
        if not nothing_found.display or not nothing_found.drop_chosen():
            self.open_chosen()

    @on(ModeLine.ModePicked)
    def _mode_picked(self, message: ModeLine.ModePicked) -> None:
        self.mode = message.mode

    def action_cycle_mode(self) -> None:
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]

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


def _prefill(desk: Desk, query: str, past: Sequence[Exchange], within: Sequence[Path]) -> None:
    with suppress(GritDeskError):  # nobody has asked for it; asking says what is wrong
        desk.prefill(query, past, within=within)


def _remember(desk: Desk, query: str) -> PastQueriesRead:
    desk.remember_query(query)
    return PastQueriesRead(desk.past_queries())


def _problem_of(query: str) -> str:
    try:
        parse(query)
    except QueryError as error:
        return str(error)
    return ""


def _explain(desk: Desk, query: str, mode: SearchMode, number: int) -> HitsExplained:
    return HitsExplained(number, desk.search(query, NUM_HITS, mode, explain=True))


def _with_reading(shown: Hit, explained: Hit) -> Hit:
    """An explained hit with what a closer reading has added to the shown one's score since it was found."""
    why, added = explained.explanation, shown.score - explained.score
    if why is None or abs(added) < 1e-9:
        return explained
    return replace(explained, score=shown.score, explanation=replace(why, reading=added))
