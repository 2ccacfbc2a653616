"""Why a hit stands where it does, what an empty result leads to, and what a filter may say."""

from __future__ import annotations

import threading
from dataclasses import replace

from conftest import ready, screen_text, until
from fake_desk import NOTES, FakeDesk, sample_hits
from test_search_screen import NARROW, WIDE, found, search_screen, shown

from gritdesk.errors import StoreError
from gritdesk.records import Explanation, Hit, Misses, PathReport
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.screens.why import WhyScreen
from gritdesk.tui.widgets.nothing_found import NothingFound
from gritdesk.tui.widgets.search_input import SearchInput

EXPLANATION = Explanation(0.75, 0.2, 4.0, 6.2, 1.0, 0.3, ("token", "bucket"), ("fixed",), ("type:md",))


def explained_hits() -> list[Hit]:
    first, *others = [replace(hit, explanation=EXPLANATION, score=4.95 - n) for n, hit in enumerate(sample_hits())]
    return [first, *others]


# ---------------------------------------------------------------- why this rank


async def test_x_says_what_made_the_score_and_goes_through_the_hits(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: explained_hits()
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        await pilot.press("down", "down", "x")
        await until(pilot, lambda: isinstance(app.screen, WhyScreen))
        text = " ".join(screen_text(app).split())
        for part in (
            "Result 2 of 3 interface.pdf p. 7",
            "0.75 words rank 2, BM25 6.20, weight 1",
            "0.20 meaning rank 2, cosine 0.80, weight 0.3",
            "4.00 spelled as asked",
            "3.95 in all",
            "has token, bucket",
            "lacks fixed",
            "within type:md",
            "no probabilities",
        ):
            assert part in text
        assert "%" not in text
        await pilot.press("down", "down")
        await until(pilot, lambda: "Result 3 of 3" in screen_text(app))
        await pilot.press("k", "up", "up")
        await until(pilot, lambda: "Result 1 of 3" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))


async def test_what_a_closer_reading_added_is_told_in_the_order_it_made(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: explained_hits()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "r")
        await until(pilot, lambda: "3 read again" in screen_text(app))
        reread = [replace(hit, score=hit.score + 0.5) for hit in reversed(explained_hits())]
        search_screen(app).query_one("#hits").hits = tuple(reread)  # type: ignore[attr-defined]
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, WhyScreen))
        assert "0.50  read again" in screen_text(app) and [hit.chunk_id for hit in app.screen._hits] == [3, 2, 1]  # type: ignore[attr-defined]


async def test_hit_that_is_gone_by_now_is_not_explained(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        desk.hits = lambda query, mode: []
        await pilot.press("down", "x")
        await until(pilot, lambda: any("search again" in each.message for each in app._notifications))
        assert isinstance(app.screen, SearchScreen)


# ---------------------------------------------------------------- nothing found


def finds_nothing(desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: [] if "in:away" in query else sample_hits()
    desk.near_misses = Misses((("in:away", 12), ("-old", 100)), tuple(sample_hits()[:2]))
    desk.not_in_index = [
        PathReport(NOTES / "bucket-scan.pdf", "failed", "its pages are [pictures]"),
        PathReport(NOTES / "bucket.log", "skipped", "/notes/.gitignore:1: *.log"),
    ]


async def test_empty_result_shows_what_hides_hits_the_nearest_and_files_of_that_name(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    finds_nothing(desk)
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app, "bucket -old in:away")
        await until(pilot, lambda: "bucket.log" in screen_text(app) or app.screen.query_one(NothingFound).max_scroll_y)
        text = screen_text(app)
        for part in (
            "Nothing found for “bucket -old in:away”",
            "✕ in:away  hides 12 passages",
            "✕ -old  hides 100 or more passages",
            "The nearest without any filter",
            "rate-limits.md",
        ):
            assert part in text
        await pilot.press("down", "end")
        await until(pilot, lambda: "/notes/.gitignore:1: *.log" in screen_text(app))
        assert "its pages are [pictures]" in screen_text(app)
        assert desk.named("misses") == [("bucket -old in:away", "hybrid")]


async def test_enter_takes_the_filter_out_of_the_line_and_searches_again(app: GritDeskApp, desk: FakeDesk) -> None:
    finds_nothing(desk)
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bucket in:away")
        await until(pilot, lambda: app.screen.query_one(NothingFound).display)
        await pilot.press("enter")
        await until(pilot, lambda: shown(app) == [1, 2, 3])
        query = app.screen.query_one(SearchInput)
        assert query.value == "bucket" and query.has_focus and query.cursor_position == len("bucket")
        assert not app.screen.query_one(NothingFound).display


async def test_enter_takes_out_all_filters_that_are_to_blame_together(app: GritDeskApp, desk: FakeDesk) -> None:
    finds_nothing(desk)
    desk.near_misses = Misses((("in:away after:2090", 3),), ())
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "in:away bucket after:2090")
        await until(pilot, lambda: "✕ in:away after:2090  hides 3 passages" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.query_one(SearchInput).value == "bucket")


async def test_each_filter_can_be_chosen_and_misses_are_opened_viewed_and_copied(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    finds_nothing(desk)
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bucket -old in:away")
        await until(pilot, lambda: "bucket.log" in screen_text(app))
        await pilot.press("down", "down", "down")
        await until(pilot, lambda: "On 4 March" in screen_text(app), "the preview of the nearest")
        await pilot.press("j", "v")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        await pilot.press("escape", "down", "y")
        assert app.clipboard == str(NOTES / "bucket-scan.pdf")
        await pilot.press("v", "s", "space")  # there is no passage to view, and nothing is like it
        assert isinstance(app.screen, SearchScreen) and not search_screen(app).marks
        await pilot.press("k", "k", "k", "enter")
        await until(pilot, lambda: app.screen.query_one(SearchInput).value == "bucket in:away")


async def test_misses_that_come_too_late_are_dropped(app: GritDeskApp, desk: FakeDesk) -> None:
    finds_nothing(desk)
    gate = desk.misses_gate = threading.Event()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "in:away")
        await until(pilot, lambda: desk.named("misses"))
        app.screen.query_one(SearchInput).value = "bucket"
        await until(pilot, lambda: shown(app))
        gate.set()
        await pilot.pause(0.05)
        assert shown(app) == [1, 2, 3] and not app.screen.query_one(NothingFound).display


async def test_misses_that_cannot_be_told_leave_the_hint_to_try_other_words(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: []
    desk.failures["misses"] = StoreError("the index is damaged")
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "xyzzy")
        await until(pilot, lambda: app._notifications)
        assert "Try fewer or other words." in screen_text(app)


# ---------------------------------------------------------------- filters


async def test_filter_is_completed_by_tab_and_the_rest_of_the_offers_stands_below(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app, "bucket")
        await pilot.press("space", *"type:")
        await until(pilot, lambda: "Tab md · pdf · py" in screen_text(app))
        assert "bucket type:md" in screen_text(app)  # behind the cursor
        assert not any(query.endswith("type:") for query, _ in desk.searches())  # nothing is asked yet
        await pilot.press("p")
        await until(pilot, lambda: "Tab pdf · py" in screen_text(app))
        await pilot.press("tab")
        assert app.screen.query_one(SearchInput).value == "bucket type:pdf" and search_screen(app).mode == "hybrid"
        await until(pilot, lambda: "Tab" not in screen_text(app).splitlines()[4])
        await until(pilot, lambda: ("bucket type:pdf", "hybrid") in desk.searches())
        await pilot.press("tab")
        assert search_screen(app).mode == "semantic"
    assert len(desk.named("filter_values")) == 1


async def test_what_was_found_stays_while_a_filter_is_half_typed(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: [] if query.endswith("type:p") else sample_hits()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bucket")
        await pilot.press("space", *"type:p")
        await until(pilot, lambda: "nothing yet; Tab completes" in screen_text(app))
        assert shown(app) == [1, 2, 3] and not desk.named("misses")
        await pilot.press("y")
        await until(pilot, lambda: "3 results" in screen_text(app))


async def test_folders_names_and_dates_are_offered(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        query = app.screen.query_one(SearchInput)
        for line, offered in {
            "in:": "notes · api · src",
            "name:buck": "bucket.py",
            "-in:s": "src",
            "after:": "today",
        }.items():
            query.value = line
            await until(pilot, lambda offered=offered: f"Tab {offered}" in screen_text(app), offered)
        query.value = "walrus"
        await until(pilot, lambda: "Tab today" not in screen_text(app))


async def test_the_query_line_explains_its_language(app: GritDeskApp) -> None:
    async with app.run_test(size=(120, 60)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "modified since" in screen_text(app))


# ---------------------------------------------------------------- past queries


async def test_up_in_the_empty_line_brings_back_queries_that_led_somewhere(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.queries = ["walrus", "seal"]
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bu")
        query = app.screen.query_one(SearchInput)
        await pilot.press("up")
        assert query.value == "bu"  # a line of one's own is not lost by a wrong key
        await pilot.press("ctrl+t", "down", "v")
        await until(pilot, lambda: desk.queries == ["walrus", "seal", "bu"])
        await pilot.press("escape", "escape", "escape")
        assert query.value == ""
        values = []
        for key in ("up", "up", "up", "up", "alt+down", "alt+down", "alt+down"):
            await pilot.press(key)
            values.append(query.value)
        assert values == ["bu", "seal", "walrus", "walrus", "seal", "bu", ""]
        await pilot.press("c", "alt+up")
        await until(pilot, lambda: shown(app))
        assert query.value == "bu"


async def test_query_that_led_nowhere_is_not_kept(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app, "bu")
        await pilot.press("down", "space", "down", "escape")
        assert desk.queries == []
        await pilot.press("enter")
        await until(pilot, lambda: desk.queries == ["bu"])


# ---------------------------------------------------------------- between two queries


async def test_what_was_found_stays_while_words_find_nothing_and_meaning_is_asked(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    gate = desk.search_gates[("bux", "hybrid")] = threading.Event()
    desk.hits = lambda query, mode: [] if (query, mode) == ("bux", "keyword") else sample_hits()
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: ("bux", "hybrid") in desk.searches())
        await pilot.pause(0.05)
        assert shown(app) == [1, 2, 3] and not desk.named("misses")
        desk.hits = lambda query, mode: sample_hits()[1:]
        gate.set()
        await until(pilot, lambda: shown(app) == [2, 3])


async def test_hits_of_another_query_do_not_stand_under_one_that_failed(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        desk.failures["search"] = StoreError("the index is damaged; run `gritdesk doctor`")
        await pilot.press("x")
        await until(pilot, lambda: not shown(app))
        await until(pilot, lambda: "the index is damaged" in screen_text(app))
        del desk.failures["search"]
        await pilot.press("y")
        await until(pilot, lambda: shown(app) == [1, 2, 3])
