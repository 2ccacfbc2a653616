"""Questions and their answers as blocks, with the passages they rest on beside them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import OptionList, Static

from gritdesk.checking import told
from gritdesk.errors import GritDeskError
from gritdesk.records import (
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    Citation,
    EvidenceFound,
    Exchange,
    Hit,
    PieceGenerated,
)
from gritdesk.scoping import scope_name
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import (
    Activity,
    AnswerEnded,
    AnswerGrew,
    AnswerProgressed,
    CitationChecked,
    PlacesPicked,
    ScopeNamed,
    SurroundingsRead,
)
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import one_line, opens_as_text, plain, query_words, surroundings
from gritdesk.tui.widgets.answer_block import AnswerBlock
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.question_input import QuestionInput
from gritdesk.tui.widgets.scope_picker import ScopePicker
from gritdesk.tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.records import Chat
    from gritdesk.scoping import Place, Places


EVIDENCE_CHARS = 4_000
"""Shown on either side of a passage."""
_NEW_AGAIN_S = 2.0
"""Within this a second press begins anew."""


class EvidenceList(HitList):
    HELP = (
        "**Evidence.** The passages that the answer was written from; what it cites is numbered in colour, and marked "
        "in the text below. `ask.open_1` to `ask.open_9` show one, `hits.open` opens it in your editor at the cited "
        "line, `ask.view` shows it here in its file, `ask.copy` copies its path."
    )
    BINDING_GROUP_TITLE = "Evidence"


class _ChatOfConversation:
    """Where a conversation is kept: one chat, however many of its questions begin at a time and whatever follows."""

    def __init__(self, id_: str = "") -> None:
        """Args: id_: "" of a conversation whose chat is begun by its first question."""
        self._id = id_
        self._lock = threading.Lock()

    def id_in(self, desk: Desk) -> str:
        """The id to ask with; "" while no chats are to be kept. To be called in a thread."""
        with self._lock:
            if not desk.chats.are_kept:
                return ""
            self._id = self._id or desk.chats.start()
            return self._id


class AskScreen(DeskScreen):
    HELP = (
        "**Ask.** Answers rest on passages of your files, and `[?]` marks what none of them supports. Where the files "
        "hold no answer, that is said, and `ask.anyway` takes one of the model itself."
    )
    BINDING_GROUP_TITLE = "Ask"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape", "stop", "Stop", id="ask.stop", tooltip="Stop the answer and keep what came; else go to the input"
        ),
        *(
            Binding(str(n), f"cite({n})", f"[{n}]", show=False, id=f"ask.open_{n}", tooltip=f"Show source [{n}]")
            for n in range(1, 10)
        ),
        Binding("v", "view", "View", id="ask.view", tooltip="Show the highlighted source here, in its file"),
        Binding(
            "e", "toggle_evidence", "Evidence", id="ask.evidence", tooltip="Show or hide the passages of the answer"
        ),
        Binding(
            "g",
            "answer_anyway",
            "Anyway",
            show=False,
            id="ask.anyway",
            tooltip="Where the files hold no answer, take one of the model itself",
        ),
        Binding("n", "new_conversation", "New", id="ask.new", tooltip="Start a new conversation"),
        Binding("x", "ask_all", "All files", show=False, id="ask.all", tooltip="Ask all files again"),
        Binding("y", "copy_path", "Copy path", show=False, id="ask.copy", tooltip="Copy the source's path"),
        Binding("alt+up", "go_block(-1)", "Previous", show=False, id="ask.previous", tooltip="Previous answer"),
        Binding("alt+down", "go_block(1)", "Next", show=False, id="ask.next", tooltip="Next answer"),
        Binding("pageup", "scroll_page(-1)", "Page up", show=False, id="ask.page_up", tooltip="Scroll a page up"),
        Binding(
            "pagedown", "scroll_page(1)", "Page down", show=False, id="ask.page_down", tooltip="Scroll a page down"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._num_asked = 0
        self._stop = threading.Event()
        """Of the latest answer; a new question gets a new one."""
        self._current: AnswerBlock | None = None
        """The block whose evidence is shown."""
        self._waiting_question = ""
        """Asked before the desk was open."""
        self._chat = _ChatOfConversation()
        self.scope: tuple[Path, ...] = ()
        """The files and folders that the next question is asked of; none: all."""
        self._places: Callable[[], Places] | None = None
        """Gives what an @ picks from, which is read once while a question is written."""
        self._picking = threading.Event()
        """Of the latest pick; set, nobody waits for it any more."""
        self._new_asked_at = float("-inf")
        self._picking_lane = Lane(self, "picking")
        self._naming_lane = Lane(self, "naming")
        self._evidence_lane = Lane(self, "evidence")

    def compose(self) -> ComposeResult:
        yield StatusLine("ask")
        with Horizontal(id="ask-body"):
            with Vertical(id="talk"):
                yield VerticalScroll(id="conversation", can_focus=False)
                yield EmptyState(id="ask-empty")
                yield ScopePicker(id="places")
                yield Static(id="scope")
                yield QuestionInput(id="question")
            with Vertical(id="evidence"):
                yield Static("Evidence", id="evidence-title")
                yield EvidenceList(id="evidence-hits")
                yield PassageView(id="evidence-text")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(QuestionInput).focus()
        self._show_evidence()

    def on_unmount(self) -> None:
        self.stop_answer()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        self._show_empty()
        if now.desk == "open" and self._waiting_question:
            question, self._waiting_question = self._waiting_question, ""
            self.call_later(self.ask, question)

    # asking

    @on(QuestionInput.Sent)
    async def _question_sent(self, message: QuestionInput.Sent) -> None:
        self.query_one(QuestionInput).clear()
        self._places = None
        match message.question:
            case "/all":
                self.action_ask_all()
            case "/new":
                await self.action_new_conversation()
            case question:
                await self.ask(question)

    async def action_answer_anyway(self) -> None:
        answer = self._current.answer if self._current else None
        if self._current and answer and answer.evidence == "none" and not answer.from_model:
            await self.ask(self._current.question, anyway=True)
        else:
            self.notify("The model answers from itself only where the files hold no answer.", markup=False)

    async def ask(self, question: str, *, anyway: bool = False) -> None:
        """Start an answer in a new block; one that is still being written is stopped."""
        if self.desk is None:
            self._waiting_question = question
            self.notify("It will be asked as soon as the index is open.", markup=False)
            return
        await self._stop_running()
        # what is asked again anyway does not follow on its own refusal
        past = self.conversation()
        if anyway:
            past = [each for each in past if each.question != question or each.answer.evidence != "none"]
        self._num_asked += 1
        self._stop = threading.Event()
        block = AnswerBlock(self._num_asked, question, self.scope)
        self.query_one(QuestionInput).remember(question)
        conversation = self.query_one("#conversation", VerticalScroll)
        await conversation.mount(block)
        self._show_empty()
        if self.activity.model == "loading":
            block.show_waiting_for_model()
        self._make_current(block)
        block.focus()
        self.show_titles()
        conversation.anchor()
        how = self._stop, anyway, self.scope, self._chat
        work = partial(self._answer, self.desk, block.number, question, past, *how)
        self.run_worker(work, group="answer", thread=True, exit_on_error=False)

    def conversation(self) -> list[Exchange]:
        """The conversation so far, as the next question follows on it."""
        return [exchange for block in self.blocks if (exchange := block.exchange())]

    def _answer(
        self,
        desk: Desk,
        number: int,
        question: str,
        past: Sequence[Exchange],
        stop: threading.Event,
        anyway: bool,
        scope: tuple[Path, ...],
        kept_in: _ChatOfConversation,
    ) -> None:
        """Runs in a thread; ends soon after `stop` is set."""
        problem = ""
        try:
            chat = kept_in.id_in(desk)
            answer_events = desk.ask(question, past, stop.is_set, within=scope, chat=chat, anyway=anyway)
            pieces: deque[str] = deque()
            for event in _until(answer_events, stop):
                if not isinstance(event, PieceGenerated):
                    pieces = deque()  # what comes behind this event must not be taken before it
                    self.post_message(AnswerProgressed(number, event))
                    continue
                pieces.append(event.text)
                if len(pieces) == 1:
                    self.post_message(AnswerGrew(number, pieces))
        except Exception as error:  # a worker's edge
            problem = problem_of(error)
        self.post_message(AnswerEnded(number, problem))

    async def on_answer_progressed(self, message: AnswerProgressed) -> None:
        message.stop()
        block = self._block(message.number)
        if block is None or not block.is_running:
            return
        event = message.event
        if isinstance(event, EvidenceFound):
            block.show_evidence(event.hits, event.evidence)
        elif isinstance(event, AnswerRestarted):
            await block.restart(event.reason)
        elif isinstance(event, AnswerFinished):
            await block.finish(event.answer)
            self.show_titles()
        if block is self._current:
            self._show_evidence()

    async def on_answer_grew(self, message: AnswerGrew) -> None:
        message.stop()
        pieces = [message.pieces.popleft() for _ in range(len(message.pieces))]
        block = self._block(message.number)
        if pieces and block is not None and block.is_running:
            await block.write(pieces)

    async def on_answer_ended(self, message: AnswerEnded) -> None:
        message.stop()
        block = self._block(message.number)
        if block is None or not block.is_running:
            return
        if message.problem:
            await block.fail(message.problem)
            self.grit_app.report(message.problem)
        else:
            await block.stop()
        self.show_titles()

    def stop_answer(self) -> None:
        """Tell the worker to end; the screen is told by `_stop_running`."""
        self._stop.set()

    async def _stop_running(self) -> None:
        self.stop_answer()
        for block in self.blocks:
            if block.is_running:
                await block.stop()
        self.show_titles()

    # what is asked

    def set_scope(self, within: Sequence[Path]) -> None:
        """Ask the next questions of these files and folders alone; none: of all."""
        self.scope = tuple(dict.fromkeys(within))
        self._show_scope("")
        if self.scope:
            self._naming_lane.submit(partial(_named, self.scope))

    def on_scope_named(self, message: ScopeNamed) -> None:
        message.stop()
        if message.scope == self.scope:
            self._show_scope(message.name)

    def _show_scope(self, name: str) -> None:
        line = self.query_one("#scope", Static)
        line.display = bool(self.scope)
        if self.scope:
            name = one_line(name or scope_name(self.scope, lambda path: False))
            line.update(Content.assemble(("In: ", "$text-muted"), (name, "bold"), ("   /all asks all", "$text-muted")))

    def action_ask_all(self) -> None:
        self.set_scope(())

    @on(QuestionInput.PlaceDropped)
    def _place_dropped(self) -> None:
        self.set_scope(self.scope[:-1])

    @on(QuestionInput.Mentioned)
    def _mentioned(self, message: QuestionInput.Mentioned) -> None:
        self._picking.set()
        if message.letters is None or self.desk is None:
            self.query_one(ScopePicker).leave()
            self.query_one(QuestionInput).is_picking = False
            return
        self._picking = threading.Event()
        places = self._places = self._places or cache(self.desk.places)
        self._picking_lane.submit(partial(_picked, places, message.letters, self._picking))

    def on_places_picked(self, message: PlacesPicked) -> None:
        message.stop()
        question = self.query_one(QuestionInput)
        if message.letters == question.letters:
            self.query_one(ScopePicker).show(message.letters, message.places)
            question.is_picking = bool(message.places)

    @on(QuestionInput.Picking)
    def _picking_key(self, message: QuestionInput.Picking) -> None:
        picker, question = self.query_one(ScopePicker), self.query_one(QuestionInput)
        if message.step:
            picker.move(message.step)
        elif picker.chosen is not None and picker.letters == question.letters:
            self._take(picker.chosen)

    @on(OptionList.OptionSelected, "#places")
    def _place_clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if (place := self.query_one(ScopePicker).chosen) is not None:
            self._take(place)

    def _take(self, place: Place) -> None:
        self.set_scope((*self.scope, place.path))
        self.query_one(QuestionInput).take_mention_out()

    # blocks and evidence

    @property
    def blocks(self) -> list[AnswerBlock]:
        return list(self.query(AnswerBlock))

    def _block(self, number: int) -> AnswerBlock | None:
        return next((block for block in self.blocks if block.number == number), None)

    @on(events.DescendantFocus)
    def _focus_moved(self, event: events.DescendantFocus) -> None:
        if isinstance(event.widget, AnswerBlock):
            self._make_current(event.widget)

    def _make_current(self, block: AnswerBlock | None) -> None:
        if block is not self._current:
            self._current = block
            self._show_evidence()

    def _show_evidence(self) -> None:
        block = self._current
        hits = block.hits if block else ()
        words = query_words(block.question) if block else ()
        cited = block.cited if block else None
        hit_list = self.query_one("#evidence-hits", HitList)
        hit_list.show(hits, words, numbered=True, cited=cited)
        if cited and hits:
            hit_list.highlighted = min(cited) - 1
        self.query_one("#evidence-title", Static).update(Content("Evidence" if hits else "No evidence yet"))
        self.set_class(bool(hits), "-has-evidence")
        self._show_passage()

    @on(OptionList.OptionHighlighted, "#evidence-hits")
    def _evidence_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._show_passage()

    def _show_passage(self) -> None:
        """The highlighted passage in its file, at the lines that are cited of it."""
        hit, desk = self._chosen_hit(), self.desk
        if hit is None or desk is None:
            self.query_one("#evidence-text", PassageView).clear()
        else:
            self._evidence_lane.submit(partial(_read_surroundings, desk, hit))

    def on_surroundings_read(self, message: SurroundingsRead) -> None:
        message.stop()
        block, hit = self._current, message.hit
        if block is not None and hit == self._chosen_hit():
            citation = block.citation(block.hits.index(hit) + 1) if hit in block.hits else None
            self.query_one("#evidence-text", PassageView).show(
                message.surroundings,
                query_words(block.question),
                numbered=opens_as_text(hit),
                cited=citation.quote if citation else "",
            )

    def _show_empty(self) -> None:
        try:
            empty = self.query_one(EmptyState)
        except NoMatches:
            return
        has_blocks = bool(self.blocks)
        empty.display = not has_blocks
        self.query_one("#conversation").display = has_blocks
        if not has_blocks:
            empty.say(*self._empty_lines())

    def _empty_lines(self) -> tuple[str, ...]:
        activity = self.activity
        if activity.desk == "failed":
            return ("The index could not be opened", activity.desk_problem, "", "`app.reopen` tries again.")
        if activity.has_folders is False:
            return (
                "No folders yet",
                "Add one with `app.palette` Add folder, or run `gritdesk index FOLDER` in a shell.",
            )
        lines = ["Answers come from your files only, each with the passages it rests on."]
        if activity.model == "loading":
            lines.append("The model is being loaded; a question asked now waits for it.")
        elif activity.model == "failed":
            lines.append(activity.model_problem)
        lines.append("`question.send` sends.  `ask.stop` stops.  `ask.open_1` to `ask.open_9` show the sources.")
        lines.append("`@` picks a file or folder to ask.  `app.chats` has the chats that are kept.")
        return ("Ask your files", *lines)

    # keys

    @property
    def titles(self) -> Mapping[str, str]:
        if any(block.is_running for block in self.blocks):
            return {}
        return {"stop": "" if isinstance(self.focused, QuestionInput) else "Question"}

    def on_key(self, event: events.Key) -> None:
        """Before the bindings: what means nothing here is typed, and the key that begins anew is to be pressed twice.

        Who goes on writing after a question was sent has the answer under the keys, and not the question line.
        """
        question = self.query_one(QuestionInput)
        # a letter may yet come from the pane that had the focus when it was pressed
        if event.is_printable and (self.focused is question or event.key not in self.active_bindings):
            event.stop()
            self.set_focus(question)
            question.type_in(event.character or "")
        elif event.key in keymap_of(self).keys_of("ask.new") and not self._is_new_meant():
            event.stop()

    def _is_new_meant(self) -> bool:
        """Whether a press of the key is to begin anew; if not, it is said what is."""
        if self.desk is None or not self.blocks or monotonic() - self._new_asked_at < _NEW_AGAIN_S:
            return True
        self._new_asked_at = monotonic()
        kept = "the chat is kept" if self.desk.chats.are_kept else "the chat is not kept"
        key = keymap_of(self).key_of("ask.new")
        self.notify(f"Press {key} again to begin anew; {kept}.", timeout=_NEW_AGAIN_S, markup=False)
        return False

    async def action_stop(self) -> None:
        if any(block.is_running for block in self.blocks):
            await self._stop_running()
        else:
            self.query_one(QuestionInput).focus()

    def action_cite(self, n: int) -> None:
        """Show source [n] at what is cited of it; again, open it."""
        hits = self._current.hits if self._current else ()
        hit_list = self.query_one("#evidence-hits", HitList)
        if n > len(hits):
            if hits:
                self.notify(f"This answer has sources [1] to [{len(hits)}].", markup=False)
        elif hit_list.has_focus and hit_list.highlighted == n - 1:
            self.action_open_source()
        else:
            self._show_evidence_pane()
            hit_list.highlighted = n - 1
            hit_list.focus()

    def _show_evidence_pane(self) -> None:
        self.remove_class("-evidence-off")
        self.add_class("-evidence-narrow")

    def action_open_source(self) -> None:
        """Open the highlighted source, where what is cited of it stands by now."""
        hit = self._chosen_hit()
        if hit is not None and self._current is not None and hit in self._current.hits:
            self._open(hit, self._current.hits.index(hit) + 1)

    def _open(self, hit: Hit, n: int) -> None:
        """Open a passage where what the answer cites of it stands by now."""
        citation = self._current.citation(n) if self._current else None
        if citation is None or self.desk is None:
            self.open_hit(hit)
        else:
            work = partial(self._check, self.desk, hit, citation)
            self.run_worker(work, group="citation", exclusive=True, thread=True, exit_on_error=False)

    def _check(self, desk: Desk, hit: Hit, citation: Citation) -> None:
        """Runs in a thread."""
        place = None
        with suppress(GritDeskError):  # the desk is closing, or no reader can be started: it opens as it was indexed
            place = desk.check_citation(citation)
        self.post_message(CitationChecked(hit, citation, place))

    def on_citation_checked(self, message: CitationChecked) -> None:
        message.stop()
        place = message.place or message.citation
        if message.place and (note := told(message.citation, message.place)):
            has_moved = message.place.state == "moved"
            self.notify(plain(note), severity="information" if has_moved else "warning", markup=False)
        # the viewer shows the text as it was indexed, whose lines are counted from the passage's own first line
        self.open_hit(message.hit, message.citation.quote, place.line_start)

    @on(OptionList.OptionSelected, "#evidence-hits")
    def _open_evidence(self) -> None:
        self.action_open_source()

    def action_view(self) -> None:
        hit, block = self._chosen_hit(), self._current
        if hit is not None and block is not None:
            citation = block.citation(block.hits.index(hit) + 1) if hit in block.hits else None
            self.grit_app.view(hit, query_words(block.question), citation.quote if citation else "")

    def action_copy_path(self) -> None:
        self.copy_path(self._chosen_hit())

    def action_toggle_evidence(self) -> None:
        self.toggle_class("-evidence-narrow" if self.has_class("-narrow") else "-evidence-off")

    async def action_new_conversation(self) -> None:
        await self._stop_running()
        self._new_asked_at = float("-inf")
        self._chat = _ChatOfConversation()
        self.set_scope(())
        self._make_current(None)
        await self.query_one("#conversation").remove_children()
        self._show_empty()
        self.query_one(QuestionInput).focus()

    async def action_continue_chat(self) -> None:
        """Go on with the chat last asked in, in place of the conversation that is shown."""
        await self.continue_chat("")

    async def continue_chat(self, id_: str) -> None:
        """The same with a chat of one's choice; "": the last one."""
        desk = self.desk
        if desk is None:
            return
        try:
            chat = await asyncio.to_thread(lambda: desk.chats.read(id_ or desk.chats.latest()))
        except Exception as error:  # a worker's edge
            self.grit_app.report(problem_of(error))
            return
        await self.show_chat(chat)

    async def show_chat(self, chat: Chat) -> None:
        """Show a kept conversation; the next question goes on with it."""
        await self.action_new_conversation()
        self._chat = _ChatOfConversation(chat.id)
        conversation = self.query_one("#conversation", VerticalScroll)
        for exchange in chat.exchanges:
            self._num_asked += 1
            block = AnswerBlock(self._num_asked, exchange.question)
            await conversation.mount(block)
            await block.show_exchange(exchange)
            self.query_one(QuestionInput).remember(exchange.question)
        self.set_scope(chat.exchanges[-1].answer.within if chat.exchanges else ())
        self._show_empty()
        if self.blocks:
            self._make_current(self.blocks[-1])
            self.blocks[-1].focus()
            conversation.scroll_end(animate=False)

    def action_go_block(self, step: int) -> None:
        blocks = self.blocks
        if blocks:
            index = blocks.index(self._current) if self._current in blocks else len(blocks)
            blocks[min(max(0, index + step), len(blocks) - 1)].focus()

    def action_scroll_page(self, direction: int) -> None:
        conversation = self.query_one("#conversation", VerticalScroll)
        conversation.scroll_relative(y=direction * max(1, conversation.size.height - 2), animate=False)

    def _chosen_hit(self) -> Hit | None:
        return self.query_one("#evidence-hits", HitList).highlighted_hit


def _named(scope: tuple[Path, ...]) -> ScopeNamed:
    return ScopeNamed(scope, scope_name(scope))


def _picked(places: Callable[[], Places], letters: str, stop: threading.Event) -> PlacesPicked:
    return PlacesPicked(letters, places().picked(letters, is_stopped=stop.is_set))


def _read_surroundings(desk: Desk, hit: Hit) -> SurroundingsRead:
    return SurroundingsRead(hit, surroundings(desk.document_text(hit.path), hit.chunk, EVIDENCE_CHARS))


def _until(answer_events: Iterator[AnswerEvent], stop: threading.Event) -> Iterator[AnswerEvent]:
    """The events until `stop` is set; a generator is closed in any case, which ends the generation."""
    try:
        for event in answer_events:
            yield event
            if stop.is_set():
                return
    finally:
        if isinstance(answer_events, Generator):
            answer_events.close()
