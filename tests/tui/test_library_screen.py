"""The library: folders, files with their states, reasons and rules, and what is done about them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import NOTES, FakeDesk
from textual.pilot import Pilot
from textual.widgets import OptionList

from gritdesk.keeping import Keeper
from gritdesk.records import IndexProgress, Library
from gritdesk.terminal import in_words
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.inspect import InspectScreen
from gritdesk.tui.screens.library import LibraryScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.text import ago, size

SIZE = (120, 40)


async def opened(app: GritDeskApp, pilot: Pilot[None], *keys: str) -> LibraryScreen:
    await ready(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(app.screen, LibraryScreen) and "Folders" in screen_text(app))
    screen = app.screen
    assert isinstance(screen, LibraryScreen)
    await pilot.press(*keys)
    await pilot.pause()
    return screen


def rows(app: GritDeskApp) -> list[str]:
    found = app.screen.query_one("#library-rows", OptionList)
    return [str(found.get_option_at_index(number).prompt) for number in range(found.option_count)]


def footer(app: GritDeskApp) -> str:
    return screen_text(app).splitlines()[-1]


async def test_the_footer_names_what_pause_and_quiet_do_now(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        await until(pilot, lambda: "p Pause" in footer(app) and "q Quiet" in footer(app))
        await pilot.press("p")
        await until(pilot, lambda: "p Resume" in footer(app) and "Pause" not in footer(app))
        await pilot.press("q")
        await until(pilot, lambda: "q Full speed" in footer(app) and "p Resume" in footer(app))
        await pilot.press("p", "q")
        await until(pilot, lambda: "p Pause" in footer(app) and "q Quiet" in footer(app))


async def test_folders_come_first_with_what_they_hold(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        assert rows(app) == [
            "/notes  2 files, 1 passage, 5.0 MB  2 waiting  1 failed",
            "/stick  9 files, 11 passages, 90 B  ✕ away",
        ]
        shown = screen_text(app)
        for part in ("Folders 2", "Files 4", "Waiting 2", "Failed 1", "Skipped 1", "2 files in the index, 1 passage"):
            assert part in shown
        assert "in all: 2 files, 12 passages" in shown
        await pilot.press("down")
        await until(pilot, lambda: "the folder is not there" in screen_text(app))


@pytest.mark.parametrize(
    ("times", "names"),
    [
        (1, ["rate-limits.md", "scan.pdf", "edited.md", "new.md"]),
        (2, ["edited.md", "new.md"]),
        (3, ["scan.pdf"]),
        (4, ["draft.md"]),
    ],
)
async def test_tab_leads_through_the_lists(app: GritDeskApp, times: int, names: list[str]) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, *["tab"] * times)
        assert [name for name in names if any(name in row for row in rows(app))] == names
        assert len(rows(app)) == len(names)
        await pilot.press(*["shift+tab"] * times)
        await until(pilot, lambda: len(rows(app)) == 2)


async def test_a_failed_file_tells_why_and_is_tried_again(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "tab", "tab", "tab")
        await until(pilot, lambda: "its pages are [pictures]" in screen_text(app))
        await pilot.press("r")
        await until(pilot, lambda: desk.named("retry") == [(NOTES / "api" / "scan.pdf",)])
        await until(pilot, lambda: "scan.pdf is read again" in screen_text(app))


async def test_a_skipped_file_names_the_line_of_the_rule(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, *["tab"] * 4)
        await until(pilot, lambda: "/notes/.gritignore:3: draft*" in screen_text(app))


async def test_a_folder_is_removed_once_the_cost_was_read(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "delete")
        await until(pilot, lambda: "no longer" in screen_text(app) and "embedded" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
        assert desk.named("forget_folder") == []
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("down", "enter")
        await until(pilot, lambda: desk.named("forget_folder") == [(NOTES,)])
        await until(pilot, lambda: "3 files of /notes forgotten" in screen_text(app))


async def test_a_single_file_is_not_removed_but_told_how(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "tab", "delete")
        await until(pilot, lambda: ".gritignore" in screen_text(app))
        assert isinstance(app.screen, LibraryScreen) and desk.named("forget_folder") == []


async def test_plus_asks_for_a_folder(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "+")
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))


async def test_indexing_is_paused_and_goes_on(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "p")
        await until(pilot, lambda: "‖ paused since 10:00" in screen_text(app))
        await pilot.press("p")
        await until(pilot, lambda: "‖ paused" not in screen_text(app))
        assert len(desk.named("pause")) == 1 and len(desk.named("resume")) == 2


async def test_what_is_asked_while_a_folder_is_being_forgotten_is_done_after_it(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, forget = threading.Event(), desk.forget_folder

    def forget_folder(folder: Path) -> tuple[int, Keeper | None]:
        desk._wait(gate)
        return forget(folder)

    monkeypatch.setattr(desk, "forget_folder", forget_folder)
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "delete")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
        await pilot.press(*["tab"] * 3, "r", "p")
        gate.set()
        await until(pilot, lambda: "‖ paused since 10:00" in screen_text(app))
        acts = [call[0] for call in desk.calls if call[0] in ("forget_folder", "retry", "pause")]
        assert acts == ["forget_folder", "retry", "pause"]


async def test_what_is_being_done_has_a_time(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.progress = [IndexProgress(9, 9, None, 3, "", 1500, 600.0)]
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        await until(pilot, lambda: "1,500 passages" in screen_text(app) and "10 min left" in screen_text(app))


async def test_files_that_are_read_again_have_a_time_too(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.progress = [IndexProgress(40, 900, NOTES / "plan.md", 3, seconds_left=600.0)]
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        await until(pilot, lambda: "reading 40 of 900 files, 10 min left   plan.md" in screen_text(app))


async def test_enter_inspects_a_file_passage_by_passage(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, InspectScreen) and "1 passage, 2 of them" in screen_text(app))
        assert "lines 8 to 9" in screen_text(app) and "Rate limits > Decision" in screen_text(app)
        await pilot.press("c")
        await until(pilot, lambda: "as the model reads it" in screen_text(app) and "<|embed|>" in screen_text(app))
        await pilot.press("s")
        await until(pilot, lambda: "Nearest by meaning" in screen_text(app) and "interface.pdf" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen) and "interface.pdf" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InspectScreen) and "Nearest by meaning" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard.endswith("interface.pdf"))
        await pilot.press("escape")
        await until(pilot, lambda: "Nearest by meaning" not in screen_text(app) and "<|embed|>" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen) and "rate-limits.md" in screen_text(app))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))


async def test_a_library_that_cannot_be_read_says_why(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["library"] = RuntimeError("[disk] gone")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f4")
        await until(pilot, lambda: "[disk] gone" in screen_text(app))
        desk.failures.clear()
        await pilot.press("r")
        await until(pilot, lambda: rows(app))
        assert desk.named("look_again") == [()]


async def test_an_empty_library_says_how_to_begin(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.shelves = Library((), (), (), {})
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        await until(pilot, lambda: "No folders yet" in screen_text(app))


async def test_the_library_fits_a_small_terminal(app: GritDeskApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "/notes" in screen_text(app) and "2 files in the index" in screen_text(app)


def test_sizes_and_times_are_said_as_people_say_them() -> None:
    assert [size(each) for each in (0, 812, 1_234, 56_789, 5_000_000, 3_200_000_000)] == [
        "0 B",
        "812 B",
        "1.2 kB",
        "57 kB",
        "5.0 MB",
        "3.2 GB",
    ]
    assert [in_words(each) for each in (40, 600, 12_600)] == ["40 s", "10 min", "3.5 h"]
    now_s = 1_700_000_000
    back = [(now_s - each) * 1_000_000_000 for each in (1, 300, 7200, 172_800)]
    assert [ago(each, now_s) for each in back] == ["1 second ago", "5 minutes ago", "2 hours ago", "2 days ago"]
    assert ago((now_s + 86_400 * 400) * 1_000_000_000, now_s).startswith("on 2024-12-1")
    assert ago(10**30) == "at a time no calendar has"
