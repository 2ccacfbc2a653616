"""The map: themes, a theme opened, documents opened from it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import NOTES, FakeDesk, sample_map
from textual.pilot import Pilot
from textual.widgets import OptionList

from gritdesk.records import Map, MapPoint
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.map import MapScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.widgets.map_view import MapView

SIZE = (120, 40)


async def drawn(app: GritDeskApp, pilot: Pilot[None]) -> MapView:
    await ready(pilot)
    await pilot.press("f7")
    await until(pilot, lambda: isinstance(app.screen, MapScreen) and app.screen.query_one(MapView).found.points)
    return app.screen.query_one(MapView)


def rows(app: GritDeskApp) -> list[str]:
    found = app.screen.query_one("#map-list", OptionList)
    return [str(found.get_option_at_index(number).prompt) for number in range(found.option_count)]


async def test_themes_are_listed_and_written_on_the_map(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        assert [row.split("  ")[0] for row in rows(app)] == [
            "● token, bucket, limit",
            "● server, header, retry",
            "● key, route, client",
        ]
        assert view.chosen == 0
        picture = screen_text(app)
        assert "token bucket limit" in picture and "12 documents" in picture
        on_map = "".join(view.render_line(y).text for y in range(view.size.height))
        assert on_map.count("•") == len(view.found.points)


async def test_without_colour_each_theme_has_a_letter_in_the_list_and_on_the_map(
    desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = GritDeskApp(lambda: desk)  # type: ignore[arg-type, return-value]
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        assert [row[:7] for row in rows(app)] == ["A token", "B serve", "C key, "]
        view.found = replace(view.found, clusters=())  # without the words upon them
        on_map = "".join(view.render_line(y).text for y in range(view.size.height))
        clusters = Counter(point.cluster for point in view.found.points)
        assert [on_map.count(letter) for letter in "ABC"] == [clusters[number] for number in range(3)]
        assert "•" not in on_map


async def test_many_documents_share_cells_in_braille(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.library_map = sample_map([Path(f"/notes/{number}.md") for number in range(18)], 3)
    spread = [
        replace(point, x=number / 2000, y=number % 97 / 97) for number, point in _repeated(desk.library_map, 2000)
    ]
    desk.library_map = Map(tuple(spread), desk.library_map.clusters)
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        on_map = "".join(view.render_line(y).text for y in range(view.size.height))
        assert sum((ord(letter) - 0x2800).bit_count() for letter in on_map if 0x2800 < ord(letter) < 0x2900) > 1000


def _repeated(found: Map, num: int) -> list[tuple[int, MapPoint]]:
    return list(enumerate(islice(cycle(found.points), num)))


async def test_all_themes_are_named_and_the_highlighted_one_stands_out(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        await pilot.press("down")
        await until(pilot, lambda: view.chosen == 1)
        segments = [each for y in range(view.size.height) for each in view.render_line(y)]
        bold = {each.text.strip(): each.style is not None and each.style.bold for each in segments}
        assert bold["server header retry"] and not bold["token bucket limit"]


async def test_a_theme_opens_into_its_documents_and_escape_comes_back(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        await pilot.press("down", "enter")
        members = tuple(NOTES / f"{name}.md" for name in "behk")
        await until(pilot, lambda: len(view.found.points) == len(members))
        assert desk.named("map")[-1] == (1, members)
        assert [row.split()[0] for row in rows(app)] == [path.name for path in members]
        assert "server, header, retry" in screen_text(app) and "◉" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: len(view.found.points) == 12)
        assert view.chosen == 1


async def test_a_document_opens_from_the_map(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        view = await drawn(app, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: len(view.found.clusters) == 1)
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        assert "d.md" in screen_text(app)


async def test_a_theme_is_searched_for_by_its_words(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await drawn(app, pilot)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await until(pilot, lambda: ("token bucket limit", "hybrid") in desk.searches())


async def test_a_failure_is_explained_and_tried_again(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["map"] = RuntimeError("[disk] gone")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "could not be drawn" in screen_text(app))
        assert "[disk] gone" in screen_text(app)
        desk.failures.clear()
        await pilot.press("r")
        await until(pilot, lambda: app.screen.query_one(MapView).found.points)


async def test_an_index_without_meaning_says_what_to_do(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.library_map = Map((), ())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "searches by words" in screen_text(app))


async def test_leaving_does_not_wait_for_a_map_under_way(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.map_gate = threading.Event()
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "being drawn" in screen_text(app))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        desk.map_gate.set()


async def test_the_map_fits_a_small_terminal_and_a_wide_one(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.library_map = sample_map([Path(f"/notes/{number}.md") for number in range(18)], 3)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await drawn(app, pilot)
        for size in ((80, 24), (200, 60), (20, 5), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert all(len(view.render_line(y).text) == view.size.width for y in range(view.size.height))
        assert "token bucket limit" in screen_text(app)
