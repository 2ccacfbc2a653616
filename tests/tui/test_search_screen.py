"""The search screen: what keys do, what is shown, and that nothing stale or foreign gets onto it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import DOCUMENTS, FakeDesk, hit_in, sample_hits
from textual.pilot import Pilot
from textual.widgets import Input

from gritdesk.errors import StoreError
from gritdesk.records import Hit, SearchMode
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.first_run import FirstRunScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.search_input import SearchInput

WIDE = (120, 40)
NARROW = (80, 24)


def search_screen(app: GritDeskApp) -> SearchScreen:
    screen = app.screen
    assert isinstance(screen, SearchScreen)
    return screen


def shown(app: GritDeskApp) -> list[int]:
    return [hit.chunk_id for hit in app.screen.query_one(HitList).hits]


async def found(pilot: Pilot[None], app: GritDeskApp, query: str = "bu") -> None:
    """Type a query and wait for the hits of the last phase."""
    await ready(pilot)
    await pilot.press(*query)
    screen = search_screen(app)
    await until(pilot, lambda: screen._shown == (screen._number, screen.mode), "the hits")


async def test_filter_is_typed_without_a_word_of_failure(app: GritDeskApp, desk: FakeDesk) -> None:
    asked: list[str] = []

    def hits(query: str, mode: SearchMode) -> list[Hit]:
        asked.append(query)
        return sample_hits()

    desk.hits = hits
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bucket")
        await pilot.press("space", *"after:202")
        await until(pilot, lambda: "after:202 names no date" in screen_text(app))
        assert shown(app) == [1, 2, 3]  # what was found before stays
        await pilot.press("4")
        await until(pilot, lambda: "bucket after:2024" in asked)
        await until(pilot, lambda: "names no date" not in screen_text(app))
        assert not any("after:202" == query[-9:] for query in asked) and not app._notifications


async def test_results_come_by_words_first_and_then_by_meaning(app: GritDeskApp, desk: FakeDesk) -> None:
    by_meaning = desk.search_gates[("b", "hybrid")] = threading.Event()
    first, second, third = sample_hits()
    desk.hits = lambda query, mode: [first] if mode == "keyword" else [third, first]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: shown(app) == [1])
        await until(pilot, lambda: "meaning follows" in screen_text(app))
        by_meaning.set()
        await until(pilot, lambda: shown(app) == [3, 1])
        await until(pilot, lambda: "meaning follows" not in screen_text(app))


async def test_rows_show_name_place_heading_and_text(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        text = screen_text(app)
    for part in (
        "rate-limits.md",
        "L8",
        "Rate limits › Decision",
        "token bucket",
        "interface.pdf",
        "p. 7",
        "3 results",
    ):
        assert part in text


async def test_hits_of_an_older_query_are_dropped(app: GritDeskApp, desk: FakeDesk) -> None:
    slow = desk.search_gates[("b", "hybrid")] = threading.Event()
    old, new, _ = sample_hits()
    desk.hits = lambda query, mode: [old] if query == "b" else [new]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: ("b", "hybrid") in desk.searches())
        await pilot.press("u")
        await until(pilot, lambda: shown(app) == [2])
        slow.set()
        await until(pilot, lambda: ("bu", "hybrid") in desk.searches())
        await until(pilot, lambda: search_screen(app)._shown[1] == "hybrid")
        assert shown(app) == [2]


async def test_typing_on_holds_one_thread_and_searches_only_the_last_query(app: GritDeskApp, desk: FakeDesk) -> None:
    gate = desk.search_gates[("t", "hybrid")] = threading.Event()
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("t")
        await until(pilot, lambda: ("t", "hybrid") in desk.searches())
        for key in "oken":
            await pilot.press(key)
            await pilot.pause()
        gate.set()
        await until(pilot, lambda: ("token", "hybrid") in desk.searches())
    by_meaning = [query for query, mode in desk.searches() if mode == "hybrid"]
    assert by_meaning == ["t", "token"]
    assert desk.most_at_once["hybrid"] == 1


async def test_without_the_model_words_alone_are_searched_until_it_is_loaded(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.activity.desk == "open")
        await pilot.press(*"bu")
        await until(pilot, lambda: shown(app))
        await until(pilot, lambda: "the model is loading" in screen_text(app))
        assert {mode for _, mode in desk.searches()} == {"keyword"}
        desk.model_gate.set()
        await until(pilot, lambda: ("bu", "hybrid") in desk.searches(), "the search by meaning")


async def test_tab_cycles_the_modes_and_searches_anew(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        modes: list[SearchMode] = []
        for _ in range(3):
            await pilot.press("tab")
            modes.append(search_screen(app).mode)
            await until(pilot, lambda: search_screen(app)._shown[1] == search_screen(app).mode)
        assert modes == ["semantic", "keyword", "hybrid"]
        assert ("bu", "semantic") in desk.searches()


async def test_a_click_on_a_mode_chooses_it(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.click("ModeLine", offset=(len("hybrid  semantic  k"), 0))
        assert search_screen(app).mode == "keyword"


async def test_semantic_mode_without_a_model_says_what_to_do(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.activity.desk == "open")
        await pilot.press("tab", *"bu")
        await until(pilot, lambda: "The model is being loaded" in screen_text(app))


async def test_down_enters_the_list_and_up_and_down_move_in_it(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        hits = app.screen.query_one(HitList)
        await pilot.press("down")
        assert hits.has_focus and hits.highlighted == 0
        await pilot.press("down", "j")
        assert hits.highlighted == 2
        await pilot.press("k", "up")
        assert hits.highlighted == 0


async def test_down_that_comes_before_the_focus_has_moved_goes_down_in_the_list(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        query, hits = app.screen.query_one(SearchInput), app.screen.query_one(HitList)
        for _ in range(3):
            query.action_leave_down()
        await until(pilot, lambda: hits.has_focus and hits.highlighted == 2)


async def test_the_end_of_a_long_query_is_in_sight_and_so_is_its_beginning(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await ready(pilot)
        await pilot.press(*"beginning", *"x" * 90, *"ending")
        assert "xending" in screen_text(app) and "beginning" not in screen_text(app).splitlines()[3]
        await pilot.press("home")
        assert "beginningx" in screen_text(app).splitlines()[3]
        app.screen.query_one(SearchInput).value = "short"
        await until(pilot, lambda: "│ short" in screen_text(app))


async def test_the_preview_marks_the_passage_in_its_surroundings(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"))
        await until(pilot, lambda: "## Open" in screen_text(app))
        assert "▌8" in screen_text(app).replace(" ", "")
        await pilot.press("down", "down", "down")
        await until(pilot, lambda: "def take" in view.passage)


async def test_a_hit_whose_document_has_changed_is_previewed_by_its_chunk(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.documents = {}
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"))


async def test_the_highlight_stays_on_its_hit_when_better_hits_come(app: GritDeskApp, desk: FakeDesk) -> None:
    gate = desk.search_gates[("b", "hybrid")] = threading.Event()
    first, second, third = sample_hits()
    desk.hits = lambda query, mode: [first, second] if mode == "keyword" else [third, second, first]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: shown(app) == [1, 2])
        await pilot.press("down", "down")
        gate.set()
        await until(pilot, lambda: shown(app) == [3, 2, 1])
        assert app.screen.query_one(HitList).highlighted_hit == second


async def test_narrow_screens_hide_the_preview_and_wide_ones_show_it(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        assert not app.screen.query_one("#preview").display
        assert app.screen.query_one(HitList).size.width == 80
        await pilot.resize_terminal(200, 60)
        await until(pilot, lambda: app.screen.query_one("#preview").display)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"), "the preview")


async def test_markup_and_control_codes_in_files_are_shown_as_text(app: GritDeskApp, desk: FakeDesk) -> None:
    text = "bucket [bold red]not markup[/] [@click=app.quit]x[/] \x1b[31mred\x07 [/nothing] \u202eflip"
    path = Path("/notes/[b]name.md")
    hostile = hit_in(path, text, text, 1, heading="[u]heading[/u]")
    desk.hits = lambda query, mode: [hostile]
    desk.documents = {path: text}
    async with app.run_test(size=(200, 60)) as pilot:
        await found(pilot, app)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage)
        shown_text = screen_text(app)
        for part in ("[bold red]not markup[/]", "[@click=app.quit]x[/]", "[b]name.md", "[u]heading[/u]"):
            assert part in shown_text
        assert not {"\x1b", "\x07", "\u202e"} & set(shown_text)
        await pilot.press("down", "y")
        await until(pilot, lambda: app.clipboard == str(path))


async def test_enter_without_an_editor_says_so_and_shows_the_passage_here(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        view = app.screen.query_one(PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"))
        assert any("EDITOR" in each.message for each in app._notifications)


async def test_v_views_and_escape_comes_back_to_the_same_results(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "down", "v")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        await until(pilot, lambda: "Retry-After" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        assert app.screen.query_one(HitList).highlighted == 1


async def test_escape_goes_back_to_the_query_and_then_clears_it(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        query = app.screen.query_one(SearchInput)
        await pilot.press("down", "escape")
        assert query.has_focus and query.value == "bu"
        await pilot.press("escape")
        await until(pilot, lambda: not shown(app))
        assert query.value == ""
        await until(pilot, lambda: "Type to search" in screen_text(app))


async def test_a_in_the_results_and_ctrl_g_while_typing_ask_the_query(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: desk.named("ask"))
        assert isinstance(app.screen, AskScreen)
        await pilot.press("f2", "down", "a")
        await until(pilot, lambda: len(desk.named("ask")) == 2)
        assert desk.named("ask")[0][0] == "bu"


async def test_nothing_found_says_what_to_try(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: []
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app, "xyzzy")
        await until(pilot, lambda: "Nothing found for “xyzzy”" in screen_text(app))


async def test_a_failed_search_is_a_notification_and_the_app_goes_on(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["search"] = StoreError("the index is [damaged]; run `gritdesk doctor`")
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: app._notifications)
        assert [each.message for each in app._notifications] == ["the index is [damaged]; run `gritdesk doctor`"]
        del desk.failures["search"]
        await pilot.press("u")
        await until(pilot, lambda: shown(app))


async def test_an_unexpected_exception_in_a_worker_leaves_the_app_alive(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["search"] = RuntimeError("boom")
    desk.failures["document_text"] = ZeroDivisionError("hm")
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: any("RuntimeError: boom" in each.message for each in app._notifications))
        del desk.failures["search"]
        await pilot.press("u")
        await until(pilot, lambda: any("ZeroDivisionError" in each.message for each in app._notifications))
        assert app.is_running


async def test_without_folders_plus_adds_one_and_it_is_indexed(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.folders = ()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: "No folders yet" in screen_text(app))
        await until(pilot, lambda: "gritdesk index FOLDER" in screen_text(app))
        await pilot.press("+")
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        app.screen.query_one("#folder", Input).value = "./n"
        await pilot.press("end", "o")
        await until(pilot, lambda: "./notes/" in screen_text(app), "the suggestion")
        await pilot.press("enter")
        await until(pilot, lambda: "No folder is there" in screen_text(app))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "3 files, 3.0 kB" in screen_text(app), "the cost")
        assert desk.named("index") == []
        await pilot.press("y")
        await until(pilot, lambda: desk.named("index"))
        assert desk.named("index") == [(tmp_path / "notes",)]
        await until(pilot, desk.watching.is_set, "watching after indexing")
        await until(pilot, lambda: "Type to search" in screen_text(app))


async def test_plus_is_a_character_where_there_are_folders(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("+")
        assert app.screen.query_one(SearchInput).value == "+"


async def test_a_query_typed_before_the_desk_is_open_is_searched_when_it_is(desk: FakeDesk) -> None:
    may_open = threading.Event()

    def open_slowly() -> FakeDesk:
        may_open.wait(10)
        return desk

    app = GritDeskApp(open_slowly)  # type: ignore[arg-type]
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "opening the index" in screen_text(app))
        await pilot.press(*"bu")
        may_open.set()
        await until(pilot, lambda: shown(app))


def test_sample_chunks_stand_where_they_say() -> None:
    hits: list[Hit] = sample_hits()
    for hit in hits:
        text = DOCUMENTS[hit.path]
        assert text[hit.chunk.char_start : hit.chunk.char_end] == hit.chunk.text


async def test_results_that_stand_still_are_read_ahead_and_typing_on_puts_that_off(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SearchScreen, "reading_pause_s", 1000)
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "b")
        monkeypatch.setattr(SearchScreen, "reading_pause_s", 0.001)
        await pilot.press("u")
        await until(pilot, lambda: desk.named("prefill"))
        assert desk.named("prefill") == [("bu", (), ())]
        await pilot.press("ctrl+g")  # asks, so that the next question follows on a conversation
        await until(pilot, lambda: desk.num_answers_closed == 1)
        await pilot.press("f2")
        await pilot.press("c")
        await until(pilot, lambda: len(desk.named("prefill")) == 2)
        query, past, _ = desk.named("prefill")[1]
        assert query == "buc" and len(past) == 1
        await pilot.press("ctrl+t", "k")
        await until(pilot, lambda: len(desk.named("prefill")) == 3)
        assert desk.named("prefill")[2][2] == tuple(search_screen(app).marks) != ()


async def test_reading_ahead_that_fails_is_no_matter_and_words_alone_are_not_read(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    desk.failures["prefill"] = StoreError("the disk is gone")
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "b")
        await until(pilot, lambda: desk.named("prefill"))
        await pilot.pause()
        assert not app._notifications
        desk.calls.clear()
        search_screen(app).mode = "keyword"
        await found(pilot, app, "u")
        await pilot.pause(0.05)
        assert not desk.named("prefill")


async def test_r_reads_the_results_again_and_shows_how_far_it_has_come(app: GritDeskApp, desk: FakeDesk) -> None:
    gate = desk.rerank_gate = threading.Event()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "r")
        await until(pilot, lambda: "1 read again in 0.1 of 2 s" in screen_text(app))
        assert shown(app) == [3, 1, 2]
        gate.set()
        await until(pilot, lambda: "3 read again in 1.5 of 2 s" in screen_text(app))
        assert shown(app) == [3, 2, 1] and len(desk.named("rerank")) == 1
        await pilot.press("escape", "n")
        await until(pilot, lambda: search_screen(app)._shown == (search_screen(app)._number, "hybrid"))
        assert "read again" not in screen_text(app)


async def test_escape_ends_the_reading_and_keeps_its_order(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.rerank_gate = threading.Event()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "r")
        await until(pilot, lambda: "1 read again" in screen_text(app))
        await pilot.press("escape")
        await pilot.pause()
        assert shown(app) == [3, 1, 2] and app.screen.query_one(HitList).has_focus
        await pilot.press("escape")
        assert app.screen.query_one(SearchInput).has_focus


async def test_model_that_cannot_read_again_says_so(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["rerank"] = StoreError("bge.gguf only embeds")
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "r")
        await until(pilot, lambda: any("bge.gguf only embeds" in each.message for each in app._notifications))
        assert shown(app) == [1, 2, 3]
