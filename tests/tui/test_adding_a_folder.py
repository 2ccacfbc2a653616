"""Adding one folder: its cost is said before, and nothing is added unless a person says yes."""

from __future__ import annotations

import threading
from pathlib import Path

from conftest import ready, screen_text, until
from fake_desk import FakeDesk
from textual.pilot import Pilot
from textual.widgets import Input

from gritdesk.errors import ConfigError, ModelError
from gritdesk.records import FolderCount
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.failures import FailuresScreen
from gritdesk.tui.screens.library import LibraryScreen

SIZE = (120, 40)


async def given(app: GritDeskApp, pilot: Pilot[None], folder: Path) -> None:
    """Give the path of a folder in the Library."""
    await ready(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
    await pilot.press("+")
    await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
    app.screen.query_one("#folder", Input).value = str(folder)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(app.screen, AddFolderScreen))


async def asked(app: GritDeskApp, pilot: Pilot[None]) -> str:
    """What the box says, on one line."""
    await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the box")
    return " ".join(screen_text(app).replace("│", " ").split())


async def test_the_cost_of_a_folder_is_said_before_it_is_added(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.usual[tmp_path] = FolderCount(tmp_path, 1204, 13_000_000, skipped={"hidden name": 83}, is_over=True)
    desk.count_gate = threading.Event()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await given(app, pilot, tmp_path)
        await until(pilot, lambda: "Counting the files of" in screen_text(app))
        assert isinstance(app.screen, LibraryScreen)
        desk.count_gate.set()
        told = await asked(app, pilot)
        for part in ("1,204 files, 13 MB, 83 skipped", "found by words after about", "by meaning after about"):
            assert part in told
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
        assert desk.named("index") == []
        await given(app, pilot, tmp_path)
        await asked(app, pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: desk.named("index") == [(tmp_path,)])


async def test_a_folder_that_cannot_be_counted_can_be_added_all_the_same(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.failures["count_files"] = ConfigError("the disk [of it] is away")
    async with app.run_test(size=SIZE) as pilot:
        await given(app, pilot, tmp_path)
        assert "cannot be counted: the disk [of it] is away" in await asked(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: desk.named("index") == [(tmp_path,)])


async def test_without_a_model_the_files_are_told_and_the_time_is_not(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.failures["estimate"] = ModelError("m.gguf is no [GGUF]")
    async with app.run_test(size=SIZE) as pilot:
        await given(app, pilot, tmp_path)
        told = await asked(app, pilot)
        assert "3 files, 3.0 kB" in told and "cannot be told: m.gguf is no [GGUF]" in told


async def test_files_that_are_in_the_index_cost_nothing(app: GritDeskApp, desk: FakeDesk, tmp_path: Path) -> None:
    desk.usual[tmp_path] = FolderCount(tmp_path, 9, 900, num_known=9, is_over=True)
    async with app.run_test(size=SIZE) as pilot:
        await given(app, pilot, tmp_path)
        assert "9 files, 900 B: all of them are in the index" in await asked(app, pilot)
        assert desk.named("estimate") == []


async def test_a_main_screen_is_asked_on_and_another_screen_is_left_alone(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.count_gate = threading.Event()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await given(app, pilot, tmp_path)
        await app.push_screen(FailuresScreen())
        desk.count_gate.set()
        await until(pilot, lambda: "Not added yet" in screen_text(app) and "3 files, 3.0 kB" in screen_text(app))
        assert isinstance(app.screen, FailuresScreen) and desk.named("index") == []
        await pilot.press("escape")
        desk.count_gate.clear()
        await given(app, pilot, tmp_path)
        await pilot.press("f3")
        desk.count_gate.set()
        await asked(app, pilot)
        assert app.current_mode == "ask"


async def test_the_app_is_closed_while_files_are_counted(app: GritDeskApp, desk: FakeDesk, tmp_path: Path) -> None:
    desk.count_gate = threading.Event()
    async with app.run_test(size=SIZE) as pilot:
        await given(app, pilot, tmp_path)
        await until(pilot, lambda: desk.named("count_files"))
        await pilot.press("ctrl+q")
    assert app.return_code == 0 and desk.closed.wait(5) and desk.named("estimate") == []
