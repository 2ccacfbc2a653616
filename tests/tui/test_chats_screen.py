"""The chats screen on real chats in a real folder: listed, searched, read, gone on with, renamed, written, deleted."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from time import time

import pytest
from conftest import ready, screen_text, until
from fake_desk import FakeDesk, answer_of, sample_hits
from textual.pilot import Pilot
from textual.widgets import Input

from gritdesk.chat_keeper import ChatKeeper
from gritdesk.config import AnswerConfig, Config
from gritdesk.engine.host import EngineHost
from gritdesk.errors import ConfigError, ModelError
from gritdesk.records import ChatHit, Exchange
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.ask_line import AskLineScreen
from gritdesk.tui.screens.chats import ChatsScreen, shown_chat
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.widgets.chat_list import ChatList
from gritdesk.tui.widgets.passage_view import PassageView

SIZE = (120, 36)


def no_engine() -> EngineHost:
    raise ModelError("there is no model here")


def keeper(home: Path, *, keep_chats: bool = True) -> ChatKeeper:
    config = Config(home, answer=AnswerConfig(keep_chats=keep_chats))
    return ChatKeeper(config, no_engine, lambda: "f", lambda notice: None)


@pytest.fixture
def chats(desk: FakeDesk, tmp_path: Path) -> ChatKeeper:
    """Three chats, the last one of two questions."""
    found = desk.chats = keeper(tmp_path / "home")  # type: ignore[assignment]
    kept(found, "Why a [bucket]?", "It lets bursts through [1].", hours_ago=50)
    kept(found, "When is tea?", "Tea is at four [1].", hours_ago=3)
    id_ = kept(found, "Who keeps the light?", "Ada does [1].", hours_ago=2)
    kept(found, "And the donkey?", "Clover has a keeper of her own [1].", hours_ago=1.75, id_=id_)
    return found


def kept(chats: ChatKeeper, question: str, text: str, hours_ago: float, id_: str = "") -> str:
    hits = tuple(sample_hits())
    exchange = Exchange(answer_of(question, text, hits, (1,)), hits, time() - 3600 * hours_ago)
    begins, id_ = not id_, id_ or chats.start()
    chats._chats.add(id_, exchange, begins=begins)
    return id_


async def opened(pilot: Pilot[None], app: GritDeskApp) -> ChatsScreen:
    await ready(pilot)
    await pilot.press("f5")
    await until(pilot, lambda: isinstance(app.screen, ChatsScreen))
    assert isinstance(app.screen, ChatsScreen)
    return app.screen


def titles(app: GritDeskApp) -> list[str]:
    return [each.chat.title for each in app.screen_stack[0].query_one(ChatList).rows]


ALL = ["Who keeps the light?", "When is tea?", "Why a [bucket]?"]


@pytest.mark.parametrize("size", [SIZE, (80, 24)])
async def test_chats_are_listed_by_date_with_the_conversation_beside(
    app: GritDeskApp, chats: ChatKeeper, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        assert "2 questions, 2 hours ago" in screen_text(app) and "3 chats" in screen_text(app)
        view = screen.query_one(PassageView)
        await until(pilot, lambda: view.passage.startswith("❯ And the donkey?"))
        await pilot.press("down", "j", "down")
        assert screen.query_one(ChatList).has_focus
        await until(pilot, lambda: "It lets bursts through [1]." in view.passage)
        assert "[1] rate-limits.md L8" in view.passage
        await pilot.press("k")
        await until(pilot, lambda: "Tea is at four" in view.passage)


async def test_help_names_no_key_of_the_query_line_of_search_and_the_palette_adds_folders(
    app: GritDeskApp, chats: ChatKeeper
) -> None:
    async with app.run_test(size=(120, 60)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("f1")
        await until(pilot, lambda: "Go to the chats" in screen_text(app) and "Everywhere" in screen_text(app))
        assert not any(each in screen_text(app) for each in ("In an empty line", "earlier query", "for the filter"))
        assert "Add folder" in [command.title for command in app.get_system_commands(screen)]


async def test_words_of_questions_and_answers_are_found_as_they_are_typed(app: GritDeskApp, chats: ChatKeeper) -> None:
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"light")
        await until(pilot, lambda: titles(app) == ["Who keeps the light?"])
        view = screen.query_one(PassageView)
        await until(pilot, lambda: view.passage.startswith("❯ Who keeps the light?"))
        await pilot.press("escape")
        await until(pilot, lambda: titles(app) == ALL and screen.query_one(Input).value == "")
        await pilot.press(*"quarantine")
        await until(pilot, lambda: "No chat has this" in screen_text(app))
        screen.query_one(Input).value = "tea after:wrong"
        await until(pilot, lambda: "names no date" in screen_text(app))


async def test_meaning_adds_what_words_do_not_find_and_keys_wait_for_neither(
    app: GritDeskApp, desk: FakeDesk, chats: ChatKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    by_words = chats.search

    def search(query: str, n: int = 10, mode: str = "hybrid") -> list[ChatHit]:
        if mode == "hybrid":
            desk._wait(gate)
            return by_words("light tea", n, "keyword")
        return by_words(query, n, "keyword")

    monkeypatch.setattr(chats, "search", search)
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        await pilot.press(*"light")
        await until(pilot, lambda: titles(app) == ["Who keeps the light?"])
        assert "by words, meaning follows" in screen_text(app)
        gate.set()
        await until(pilot, lambda: sorted(titles(app)) == ["When is tea?", "Who keeps the light?"])


@pytest.mark.parametrize("from_line", [True, False])
async def test_enter_goes_on_with_a_chat_in_ask(
    app: GritDeskApp, desk: FakeDesk, chats: ChatKeeper, from_line: bool
) -> None:
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        await pilot.press(*([] if from_line else ["down"]), "enter")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and len(app.screen.blocks) == 2)
        await until(pilot, lambda: "Clover has a keeper of her own" in screen_text(app))
        id_ = screen.query_one(ChatList).rows[0].chat.id
        await app.ask("x?")
        await until(pilot, lambda: desk.named("ask"))
        assert desk.named("ask")[0][2] == id_


async def test_chat_is_renamed_and_pinned(app: GritDeskApp, chats: ChatKeeper) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        await pilot.press("down", "down", "r")
        await until(pilot, lambda: isinstance(app.screen, AskLineScreen))
        assert app.screen.query_one(Input).value == "When is tea?"
        app.screen.query_one(Input).value = "Tea [and] cake"
        await pilot.press("enter")
        await until(pilot, lambda: titles(app) == [ALL[0], "Tea [and] cake", ALL[2]])
        await pilot.press("p")
        await until(pilot, lambda: titles(app) == ["Tea [and] cake", ALL[0], ALL[2]])
        await until(pilot, lambda: "★ Tea [and] cake" in screen_text(app))
        assert app.screen.query_one(ChatList).chosen.chat.title == "Tea [and] cake"
        await pilot.press("p", "r", "escape")
        await until(pilot, lambda: titles(app)[0] == ALL[0] and isinstance(app.screen, ChatsScreen))


async def test_chat_is_written_where_a_person_says_and_never_over_another_file(
    app: GritDeskApp, chats: ChatKeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        for said in ("Written to", "is there already; give another name"):
            screen.query_one(ChatList).focus()
            await pilot.press("w")
            await until(pilot, lambda: isinstance(app.screen, AskLineScreen))
            assert app.screen.query_one(Input).value == str(tmp_path / "who-keeps-the-light.md")
            await pilot.press("enter")
            await until(pilot, lambda said=said: any(said in each.message for each in app._notifications))
        assert (tmp_path / "who-keeps-the-light.md").read_text().startswith("# Who keeps the light?\n\n## Who keeps")
    with pytest.raises(ConfigError, match="cannot write"):
        chats.write(chats.latest(), tmp_path / "nowhere" / "a.md")


@pytest.mark.parametrize("key", ["d", "delete"])
async def test_chat_is_deleted_after_a_question_alone(app: GritDeskApp, chats: ChatKeeper, key: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        await pilot.press("down", key)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "2 questions with all that was answered are gone for good" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChatsScreen))
        assert len(chats.all()) == 3
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: titles(app) == ALL[1:])
        assert [each.title for each in chats.all()] == ALL[1:]


async def test_without_chats_the_screen_says_how_they_begin_or_that_none_are_kept(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.chats = keeper(tmp_path / "home")  # type: ignore[assignment]
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: "No chats yet" in screen_text(app))
        desk.chats = keeper(tmp_path / "home", keep_chats=False)  # type: ignore[assignment]
        await pilot.press("f2", "f5")
        await until(pilot, lambda: "Chats are not kept" in screen_text(app))
        kept(keeper(tmp_path / "home"), "Why?", "Because [1].", hours_ago=1)
        await pilot.press("f2", "f5")
        await until(pilot, lambda: "1 chat · new ones are not kept" in screen_text(app))


async def test_chat_that_cannot_be_changed_or_read_is_said(app: GritDeskApp, chats: ChatKeeper) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: titles(app) == ALL)
        for each in chats.all():
            chats._chats.path(each.id).unlink()
        await pilot.press("down", "down")
        await until(pilot, lambda: any("there is no chat" in each.message for each in app._notifications))
        await pilot.press("p")
        await until(pilot, lambda: any("is not there any more" in each.message for each in app._notifications))
        await until(pilot, lambda: "No chats yet" in screen_text(app))
        assert app.is_running


def test_long_chat_is_cut_around_the_question_that_was_found(chats: ChatKeeper) -> None:
    chat = chats.read(chats.latest())
    long = replace(chat, exchanges=tuple(chat.exchanges[0] for _ in range(2000)))
    found = shown_chat(long, 1000)
    assert found.text[found.start : found.end].startswith("❯ Who keeps the light?")
    assert len(found.text) < 41_000 and found.start == 20_000
    empty = shown_chat(replace(chat, exchanges=()))
    assert (empty.text, empty.start, empty.end) == ("", 0, 0)
