"""The conversations that are kept: by date, searched as you type, read, gone on with, renamed, handed out, deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static

from gritdesk.chats import local_time
from gritdesk.records import Chat, ChatHit, ChatSummary, Exchange, SearchMode
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.ask_line import AskLineScreen
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.text import Surroundings, cited_place, one_line, query_words
from gritdesk.tui.widgets.chat_list import ChatList, ChatRow
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.search_input import QueryLine
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_NUM_HITS = 30
_PREVIEW_CHARS = 20_000
"""Shown on either side of the question that is looked at."""
_MAX_NAME_CHARS = 60


class ChatsListed(Message):
    def __init__(self, chats: list[ChatSummary], are_kept: bool) -> None:
        super().__init__()
        self.chats = chats
        self.are_kept = are_kept


class ChatsFound(Message):
    def __init__(self, number: int, mode: SearchMode, hits: list[ChatHit]) -> None:
        super().__init__()
        self.number = number
        """Which query it answers; an older one than the screen's is stale."""
        self.mode = mode
        self.hits = hits


class ChatsSearchFailed(Message):
    def __init__(self, number: int, problem: str) -> None:
        super().__init__()
        self.number = number
        self.problem = problem


class ChatRead(Message):
    def __init__(self, row: ChatRow, surroundings: Surroundings) -> None:
        super().__init__()
        self.row = row
        self.surroundings = surroundings


class ChatsChanged(Message):
    """What was asked for is done, and `note` says what; or it is not, and the chats are others than they seemed."""

    def __init__(self, note: str, problem: str = "") -> None:
        super().__init__()
        self.note = note
        self.problem = problem


class ChatSearchInput(QueryLine):
    HELP = (
        "**Search in chats.** What was asked and answered is found as you type, by words and then by meaning. "
        "`chats.list` goes to the chats, `chats.submit` goes on with the highlighted one, `chats.back` clears the line."
    )
    BINDING_GROUP_TITLE = "Search in chats"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Go on", id="chats.submit", tooltip="Go on with the highlighted chat in Ask"),
        Binding("down", "leave_down", "Chats", id="chats.list", tooltip="Go to the chats"),
    ]


class ChatsScreen(DeskScreen):
    HELP = "**Chats.** What was asked before, the newest first, with the conversation beside it."
    BINDING_GROUP_TITLE = "Chats"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "rename", "Rename", id="chats.rename", tooltip="Give the chat another title"),
        Binding("p", "pin", "Pin", id="chats.pin", tooltip="Keep the chat on top, or no more"),
        Binding("w", "export", "Write", id="chats.export", tooltip="Write the chat to a file, as Markdown"),
        Binding("d,delete", "delete", "Delete", id="chats.delete", tooltip="Delete the chat, after a question"),
        Binding("escape", "back", "Back", show=False, id="chats.back", tooltip="To the search line; there, clear it"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._query = ""
        self._number = 0
        """Counts the queries."""
        self._chats: tuple[ChatSummary, ...] | None = None
        """None before they are read."""
        self._are_kept = True
        self._found: tuple[ChatHit, ...] | None = None
        """Of the query; None while nothing was found yet."""
        self._found_by: tuple[int, SearchMode] = (0, "keyword")
        self._problem = ""
        self._pauses: list[Timer] = []
        self._list_lane = Lane(self, "chats")
        self._keyword_lane = Lane(self, "chats by words")
        self._meaning_lane = Lane(self, "chats by meaning")
        self._preview_lane = Lane(self, "chat")

    def compose(self) -> ComposeResult:
        yield StatusLine("chats")
        yield ChatSearchInput(placeholder="Search in chats …", id="chats-query")
        yield Static(id="chats-summary")
        with Horizontal(id="chats-body"):
            yield ChatList(id="chats-list")
            with Vertical(id="chat-side"):
                yield Static(id="chat-title")
                yield PassageView(id="chat-text")
        yield EmptyState(id="chats-empty")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(ChatSearchInput).focus()
        self._show()

    def on_screen_resume(self) -> None:
        self._list()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        if before.desk != "open" and now.desk == "open":
            self._list()
            self._search()
        elif before.model != now.model:
            self._search()

    # what is there

    def _list(self) -> None:
        if self.desk is not None:
            self._list_lane.submit(partial(_listed, self.desk))

    def on_chats_listed(self, message: ChatsListed) -> None:
        message.stop()
        self._chats, self._are_kept = tuple(message.chats), message.are_kept
        self._show()

    @on(Input.Changed, "#chats-query")
    def _query_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value.strip() != self._query:
            self._query = event.value.strip()
            self._search()

    def _search(self) -> None:
        """By words at once, by meaning after a pause; each only if nothing newer is asked by then."""
        self._number += 1
        self._problem = ""
        for timer in self._pauses:
            timer.stop()
        self._pauses.clear()
        if not self._query:
            self._found = None
        elif self.desk is not None:
            self._after(SearchScreen.keyword_pause_s, "keyword", self._keyword_lane)
            if self.activity.model == "ready":
                self._after(SearchScreen.meaning_pause_s, "hybrid", self._meaning_lane)
        self._show()

    def _after(self, pause_s: float, mode: SearchMode, lane: Lane) -> None:
        desk, query, number = self.desk, self._query, self._number
        assert desk is not None
        call = partial(_found, desk, query, mode, number)
        submit = partial(lane.submit, call, lambda problem: ChatsSearchFailed(number, problem))
        self._pauses.append(self.set_timer(pause_s, submit))

    def on_chats_found(self, message: ChatsFound) -> None:
        message.stop()
        is_late = message.mode == "keyword" and self._found_by == (message.number, "hybrid")
        if message.number == self._number and not is_late:
            self._found, self._found_by = tuple(message.hits), (message.number, message.mode)
            self._show()

    def on_chats_search_failed(self, message: ChatsSearchFailed) -> None:
        message.stop()
        if message.number == self._number:
            self._problem = message.problem
            self._show()

    def _rows(self) -> list[ChatRow]:
        """All chats, or those in which something was found, each once."""
        known = {each.id: each for each in self._chats or ()}
        if self._found is None:
            return [ChatRow(each) for each in known.values()]
        best: dict[str, ChatHit] = {}
        for hit in self._found:
            best.setdefault(hit.chat_id, hit)
        return [ChatRow(known[id_], hit) for id_, hit in best.items() if id_ in known]

    def _show(self) -> None:
        rows = self._rows()
        self.query_one(ChatList).show(rows, query_words(self._query))
        self.query_one("#chats-body").display = bool(rows)
        empty = self.query_one(EmptyState)
        empty.display = not rows
        if not rows:
            empty.say(*self._empty_lines())
        self.query_one("#chats-summary", Static).update(Content(one_line(self._summary(len(rows)))))

    def _summary(self, num_rows: int) -> str:
        if self._problem:
            return self._problem
        if self._chats is None:
            return ""
        parts = [count(num_rows, "chat")]
        if self._query and self._found is not None and self._found_by[1] == "keyword":
            parts.append("by words, meaning follows" if self.activity.model == "ready" else "by words")
        if not self._are_kept:
            parts.append("new ones are not kept: keep_chats is off under [answer]")
        return " · ".join(parts)

    def _empty_lines(self) -> tuple[str, ...]:
        activity = self.activity
        if activity.desk == "failed":
            return ("The index could not be opened", activity.desk_problem, "", "`app.reopen` tries again.")
        if self._chats is None:
            return ("Reading the chats …",)
        if self._chats:
            return ("No chat has this", "Try fewer or other words.  `chats.back` clears the line.")
        if not self._are_kept:
            return ("Chats are not kept", "With keep_chats = true under [answer] in config.toml they are.")
        return (
            "No chats yet",
            "Every question asked in Ask (`app.ask`) begins one or goes on with one.",
            "They are kept on this machine, and found here by words and by meaning.",
        )

    # the conversation beside it

    @on(OptionList.OptionHighlighted, "#chats-list")
    def _chat_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        row = self.query_one(ChatList).chosen
        if row is not None and self.desk is not None:
            self._preview_lane.submit(partial(_read, self.desk, row))

    def on_chat_read(self, message: ChatRead) -> None:
        message.stop()
        if message.row != self.query_one(ChatList).chosen:
            return
        chat = message.row.chat
        title = Content.assemble((one_line(chat.title), "bold"), (f"   {local_time(chat.started_at)}", "$text-muted"))
        self.query_one("#chat-title", Static).update(title)
        self.query_one("#chat-text", PassageView).show(message.surroundings, query_words(self._query), numbered=False)

    # keys

    @on(ChatSearchInput.LeftDown)
    def _go_to_list(self) -> None:
        if self.query_one(ChatList).rows:
            self.query_one(ChatList).focus()

    @on(Input.Submitted, "#chats-query")
    @on(OptionList.OptionSelected, "#chats-list")
    async def _go_on(self) -> None:
        row = self.query_one(ChatList).chosen
        if row is not None:
            await self.grit_app.continue_chat(row.chat.id)

    def action_back(self) -> None:
        line = self.query_one(ChatSearchInput)
        if line.has_focus:
            line.value = ""
        else:
            line.focus()

    def action_rename(self) -> None:
        if (row := self.query_one(ChatList).chosen) is not None:
            box = AskLineScreen("Another title for this chat", row.chat.title, "takes it")
            self.app.push_screen(box, partial(self._rename, row.chat))

    def _rename(self, chat: ChatSummary, title: str | None) -> None:
        if title is not None:
            self._do(partial(_renamed, chat=chat, title=title))

    def action_pin(self) -> None:
        if (row := self.query_one(ChatList).chosen) is not None:
            self._do(partial(_pinned, chat=row.chat))

    def action_export(self) -> None:
        if (row := self.query_one(ChatList).chosen) is not None:
            act = "writes the chat there as Markdown"
            box = AskLineScreen("Write this chat to a file", str(_file_for(row.chat)), act)
            self.app.push_screen(box, partial(self._export, row.chat))

    def _export(self, chat: ChatSummary, file: str | None) -> None:
        if file is not None:
            self._do(partial(_exported, chat=chat, file=file))

    def action_delete(self) -> None:
        if (row := self.query_one(ChatList).chosen) is not None:
            num = count(row.chat.num_exchanges, "question")
            cost = f"{one_line(row.chat.title)}\n\n{num} with all that was answered are gone for good."
            box = ConfirmScreen("Delete this chat?", cost, "Delete it")
            self.app.push_screen(box, partial(self._delete, row.chat))

    def _delete(self, chat: ChatSummary, is_wanted: bool | None) -> None:
        if is_wanted:
            self._do(partial(_deleted, chat=chat))

    def _do(self, change: Callable[[Desk], ChatsChanged]) -> None:
        self.do(change, lambda problem: ChatsChanged("", problem))

    def on_chats_changed(self, message: ChatsChanged) -> None:
        message.stop()
        if message.problem:
            self.grit_app.report(message.problem)
        elif message.note:
            self.notify(one_line(message.note), markup=False)
        self._list()


# ---------------------------------------------------------------- in a thread


def _listed(desk: Desk) -> ChatsListed:
    return ChatsListed(desk.chats.all(), desk.chats.are_kept)


def _found(desk: Desk, query: str, mode: SearchMode, number: int) -> ChatsFound:
    return ChatsFound(number, mode, desk.chats.search(query, _NUM_HITS, mode))


def _read(desk: Desk, row: ChatRow) -> ChatRead:
    return ChatRead(row, shown_chat(desk.chats.read(row.chat.id), row.hit.number if row.hit else 0))


def _renamed(desk: Desk, chat: ChatSummary, title: str) -> ChatsChanged:
    desk.chats.rename(chat.id, title)
    return ChatsChanged(f"The chat is called {title} now")


def _pinned(desk: Desk, chat: ChatSummary) -> ChatsChanged:
    desk.chats.pin(chat.id, not chat.is_pinned)
    return ChatsChanged("The chat is pinned no more" if chat.is_pinned else "The chat is pinned")


def _exported(desk: Desk, chat: ChatSummary, file: str) -> ChatsChanged:
    path = Path(file).expanduser().absolute()
    desk.chats.write(chat.id, path, replaces=False)
    return ChatsChanged(f"Written to {path}")


def _deleted(desk: Desk, chat: ChatSummary) -> ChatsChanged:
    desk.chats.delete(chat.id)
    return ChatsChanged(f"Deleted: {chat.title}")


def _file_for(chat: ChatSummary) -> Path:
    """A file of the chat's title, in the folder that gritdesk was started in."""
    name = re.sub(r"[^\w.-]+", "-", chat.title.casefold()).strip("-.")[:_MAX_NAME_CHARS] or chat.id
    return Path.cwd() / f"{name}.md"


def shown_chat(chat: Chat, number: int = 0) -> Surroundings:
    """A conversation as text, with question `number`, counted from 1, as the passage; 0: the last one."""
    parts = [_shown_exchange(each) for each in chat.exchanges]
    index = (number or len(parts)) - 1
    before, passage, after = "".join(parts[: max(index, 0)]), "".join(parts[index : index + 1]), parts[index + 1 :]
    return Surroundings(
        before[-_PREVIEW_CHARS:] + passage + "".join(after)[:_PREVIEW_CHARS],
        len(before[-_PREVIEW_CHARS:]),
        len(before[-_PREVIEW_CHARS:]) + len(passage.rstrip()),
    )


def _shown_exchange(exchange: Exchange) -> str:
    answer = exchange.answer
    cited: Sequence[str] = [f"[{each.n}] {each.path.name} {cited_place(each)}" for each in answer.citations]
    scope = f"In: {', '.join(each.name for each in answer.within)}" if answer.within else ""
    below = "   ".join(filter(None, (*cited, scope)))
    return f"❯ {exchange.question.strip()}\n\n{answer.text.strip()}\n\n" + (f"{below}\n\n" if below else "")
