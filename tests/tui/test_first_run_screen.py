"""The first run: what is here, which folders may be read and how long that takes, and on to the first search."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import FakeDesk
from textual.command import CommandList
from textual.pilot import Pilot
from textual.widgets import Input

from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.errors import ModelError
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.first_run import FirstRunScreen
from gritdesk.tui.screens.search import SearchScreen

SIZE = (120, 36)
DOCUMENTS, PROJECTS = Path("/me/Documents"), Path("/me/Projects")


@pytest.fixture
def desk() -> FakeDesk:
    desk = FakeDesk()
    desk.folders = ()
    return desk


async def begun(app: GritDeskApp, pilot: Pilot[None]) -> None:
    """Wait for the screen, with all that is to be counted counted."""
    await ready(pilot)
    await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and "no permission" in screen_text(app))


async def test_machine_model_and_folders_are_told_before_anything_is_read(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await begun(app, pilot)
        await until(pilot, lambda: "found by words after" in screen_text(app) and "a GPU in use" in screen_text(app))
        shown = screen_text(app)
        for part in ("8 cores", "32 GB of memory", "98 GB of disk free", "grit-nano", "9.7 MB", "CC BY-SA 4.0", "Q6_K"):
            assert part in shown
        assert "Words are found before" in shown
        assert "[x] /me/Documents  1,204 files, 13 MB, 83 skipped" in shown
        assert "[ ] /me/Projects  more than 200,000 files, 900 MB" in shown
        assert "[ ] /me/Closed  no permission to list it" in shown
        assert "1,204 files, 12,040 passages" in shown and "about 9 to 18 s" in shown
        assert desk.named("index") == []


async def test_enter_reads_the_chosen_folders_and_lands_on_search(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await begun(app, pilot)
        await pilot.press("down", "space")
        await until(pilot, lambda: "[x] /me/Projects" in screen_text(app))
        await until(pilot, lambda: desk.named("estimate")[-1] == (DOCUMENTS, PROJECTS))
        await until(pilot, lambda: "More than 201,204 files" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: desk.named("index") == [(DOCUMENTS, PROJECTS)])
        await until(pilot, lambda: isinstance(app.screen, SearchScreen) and "Type to search" in screen_text(app))
        assert "they are being read" in screen_text(app)
        await pilot.press(*"bucket")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))


async def test_without_a_choice_enter_says_how_to_choose(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await begun(app, pilot)
        await pilot.press("space")
        await until(pilot, lambda: "Space chooses a folder, + adds another one." in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Esc leaves it for later" in screen_text(app))
        assert isinstance(app.screen, FirstRunScreen) and desk.named("index") == []


async def test_escape_leaves_for_later_and_the_palette_leads_back(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await begun(app, pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "No folders yet" in screen_text(app))
        await pilot.press("f4", "f2")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        app.action_command_palette()
        await pilot.pause()
        await pilot.press(*"choose fold")
        await until(pilot, lambda: "As on the first run" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen))


async def test_folders_chosen_from_the_library_lead_to_search(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.folders = (Path("/notes"),)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f4")
        app.action_choose_folders()
        await begun(app, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen) and desk.named("index") == [(DOCUMENTS,)])


async def test_another_folder_is_added_counted_and_chosen(app: GritDeskApp, desk: FakeDesk, tmp_path: Path) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await begun(app, pilot)
        await pilot.press("+")
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        app.screen.query_one("#folder", Input).value = str(tmp_path)
        await pilot.press("enter")
        await until(pilot, lambda: desk.named("estimate")[-1:] == [(DOCUMENTS, tmp_path)])
        await until(pilot, lambda: "1,207 files" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: desk.named("index") == [(DOCUMENTS, tmp_path)])


async def test_files_are_counted_before_the_eyes_and_nothing_waits_for_it(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.count_gate = threading.Event()
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "[x] /me/Documents  7 files, 700 B …" in screen_text(app))
        assert "being counted" in screen_text(app) and desk.named("estimate") == []
        await pilot.press("down", "space")
        await until(pilot, lambda: "[x] /me/Projects" in screen_text(app))
        desk.count_gate.set()
        await until(pilot, lambda: "[x] /me/Documents  1,204 files" in screen_text(app))


async def test_no_usual_folder_leaves_the_path_to_be_given(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.usual = {}
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "Press + to give one" in screen_text(app))


async def test_a_model_that_fails_hinders_no_reading(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["embed"] = desk.failures["estimate"] = ModelError("m.gguf is no [GGUF]; choose another")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.model == "failed" and isinstance(app.screen, FirstRunScreen))
        await until(pilot, lambda: screen_text(app).count("m.gguf is no [GGUF]") >= 2)
        await pilot.press("enter")
        await until(pilot, lambda: desk.named("index") == [(DOCUMENTS,)])


@pytest.mark.parametrize("folders", [(Path("/notes"),), ()])
async def test_an_index_that_holds_something_begins_with_search(
    app: GritDeskApp, desk: FakeDesk, folders: tuple[Path, ...]
) -> None:
    desk.folders, desk.is_shared = folders, True
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert isinstance(app.screen, SearchScreen) and desk.named("usual_folders") == []


async def test_the_first_run_fits_a_small_terminal_with_ten_folders(app: GritDeskApp, desk: FakeDesk) -> None:
    documents = desk.usual[DOCUMENTS]
    desk.usual |= {Path(f"/me/{n}"): type(documents)(Path(f"/me/{n}"), n, n, is_over=True) for n in range(7)}
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(app, pilot)
        await until(pilot, lambda: "You can search meanwhile" in screen_text(app))
        shown = screen_text(app)
        for part in ("98 GB of disk free", "Words are found before", "[x] /me/Documents", "Read them", "Later"):
            assert part in shown


async def test_a_real_first_run_ends_with_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path / "gritdesk"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Documents").mkdir()
    (tmp_path / "Documents" / "walrus.md").write_text("# Walrus\n\nThe walrus sleeps on the ice of the northern bay.\n")
    app = GritDeskApp(lambda: Desk.open(load_config()))
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and "1 passage" in screen_text(app))
        assert load_config().index.folders == ()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen) and app.activity.has_folders)
        await pilot.press(*"walrus")
        await until(pilot, lambda: "walrus.md" in screen_text(app))
        assert load_config().index.folders == (str(tmp_path / "Documents"),)


def test_snapshot_of_a_first_run(snap_compare, desk: FakeDesk) -> None:  # type: ignore[no-untyped-def]
    async def wait(pilot) -> None:  # type: ignore[no-untyped-def]
        await begun(pilot.app, pilot)
        await until(pilot, lambda: "You can search meanwhile" in screen_text(pilot.app))
        await until(pilot, lambda: "a GPU in use" in screen_text(pilot.app))

    assert snap_compare(GritDeskApp(lambda: desk), terminal_size=(80, 24), run_before=wait)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("size", [SIZE, (80, 24)])
async def test_how_to_leave_and_to_come_back_is_said_and_true(app: GritDeskApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        await begun(app, pilot)
        assert "Esc leaves it for later; ctrl+p Choose folders comes back" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press("ctrl+p", *"choose")
        await until(
            pilot, lambda: app.screen.query(CommandList) and app.screen.query_one(CommandList).option_count == 1
        )
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen))
