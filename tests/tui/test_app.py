"""The frame around the screens: opening, the status line, notices, editors, global keys, closing."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import NOTES, FakeDesk, sample_answer, sample_hits
from textual.command import CommandList, CommandPalette
from textual.widgets import Input

from gritdesk.desk import Desk
from gritdesk.errors import ModelError, StoreBusy, StoreError
from gritdesk.records import FailedFile, IndexProgress
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.editor import editor_command
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.base import beginning_of
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.failures import FailuresScreen
from gritdesk.tui.screens.first_run import FirstRunScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.text import opens_as_text, plain, surroundings
from gritdesk.tui.widgets.passage_view import wrapped_rows
from gritdesk.tui.widgets.status_line import status_lines

SIZE = (120, 40)


def test_the_fake_desk_has_the_calls_of_the_real_one() -> None:
    names = [name for name, each in vars(FakeDesk).items() if callable(each) and hasattr(Desk, name) and name[0] != "_"]
    assert len(names) > 15
    for name in names:
        real, fake = (list(inspect.signature(getattr(each, name)).parameters) for each in (Desk, FakeDesk))
        assert real == fake, name


async def test_an_index_that_cannot_be_opened_is_explained_and_tried_again(desk: FakeDesk) -> None:
    is_damaged = True

    def open_desk() -> FakeDesk:
        if is_damaged:
            raise StoreError("/home/index.sqlite is [damaged]; move it away")
        return desk

    app = GritDeskApp(open_desk)  # type: ignore[arg-type]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.desk == "failed")
        await until(pilot, lambda: "is [damaged]; move it away" in screen_text(app))
        is_damaged = False
        await pilot.press("ctrl+r")
        await ready(pilot)


async def test_the_status_line_shows_progress_model_and_failures(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    desk.failed = (FailedFile(NOTES / "x.pdf", "[damaged]"), FailedFile(NOTES / "y.pdf", "a picture"))
    desk.progress = [IndexProgress(n, 8310, NOTES / f"file-{n}.md") for n in range(1205)]
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.activity.status and app.activity.progress == desk.progress[-1])
        first_line = screen_text(app).splitlines()[0]
        for part in ("1,204 of 8,310 files", "file-1204.md", "model loading", "2 unread"):
            assert part in first_line
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: len(screen_text(app).splitlines()[0]) <= 80)
        first_line = screen_text(app).splitlines()[0]
        assert "1,204 of 8,310 files" in first_line and "2 unread" in first_line
        app.action_command_palette()
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"unread")
        commands = app.screen.query_one(CommandList)
        await until(pilot, lambda: [str(each.prompt).splitlines()[0] for each in commands.options] == ["Unread files"])
        await pilot.press("enter", "enter")
        await until(pilot, lambda: isinstance(app.screen, FailuresScreen))
        await until(pilot, lambda: "[damaged]" in screen_text(app) and "a picture" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))


async def test_the_status_line_names_the_model_where_there_is_room(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failed = tuple(FailedFile(NOTES / f"{number}.pdf", "a picture") for number in range(1000))
    async with app.run_test(size=(140, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "● grit-nano" in screen_text(app).splitlines()[0])
        await pilot.resize_terminal(68, 24)
        await until(pilot, lambda: "grit-nano" not in screen_text(app).splitlines()[0])
        assert "1,204 files indexed" in screen_text(app).splitlines()[0]


async def test_passages_that_await_their_meaning_are_counted(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.progress = [IndexProgress(8, 8, NOTES / "last.md", 40, chunks_awaiting=1830, seconds_left=9.0)]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: "1,830 passages await meaning" in screen_text(app))


async def test_index_that_another_process_keeps_up_is_searched_and_given_new_folders(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path
) -> None:
    desk.failures["index"] = StoreBusy("another gritdesk is indexing")
    desk.progress = [IndexProgress(0, 0, note="another gritdesk keeps the index up: process 7, watching since 14:02")]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "process 7" in screen_text(app))
        await until(pilot, lambda: "1,204 files indexed" in screen_text(app))
        app.action_add_folder()
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        app.screen.query_one("#folder", Input).value = str(tmp_path)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: desk.named("add_folder"))
        assert desk.named("add_folder") == [(tmp_path,)] and "indexing stopped" not in screen_text(app)


async def test_a_model_that_fails_is_said_and_words_still_work(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["embed"] = ModelError("m.gguf is no GGUF; choose another")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.model == "failed")
        await until(pilot, lambda: "m.gguf is no GGUF; choose another" in screen_text(app))
        await pilot.press(*"bu")
        await until(pilot, lambda: "by words; no model" in screen_text(app))
        del desk.failures["embed"]
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.activity.model == "ready")


async def test_indexing_that_cannot_start_is_a_state_and_not_the_end(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["watch"] = StoreBusy("another gritdesk is indexing; wait for it")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "indexing stopped" in screen_text(app))
        await until(pilot, lambda: "another gritdesk is indexing; wait for it" in screen_text(app))
        del desk.failures["watch"]
        await pilot.press("ctrl+r")
        await until(pilot, desk.watching.is_set)
        await until(pilot, lambda: "1,204 files indexed" in screen_text(app))


async def test_notices_are_toasts(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        threading.Thread(target=desk.notify, args=("the engine was restarted: [signal 6]",)).start()
        await until(pilot, lambda: "the engine was restarted: [signal 6]" in screen_text(app))


async def test_f_keys_help_palette_and_quitting(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press("f1")
        await until(pilot, lambda: app.screen.query("HelpPanel"))
        await pilot.press("f1")
        await until(pilot, lambda: not app.screen.query("HelpPanel"))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press("ctrl+c")
        assert app.is_running and any("ctrl+c again" in each.message for each in app._notifications)
        await pilot.press("ctrl+c")
    assert app.return_code == 0
    assert desk.closed.wait(5)


async def test_closing_stops_indexing_answering_and_loading_at_once(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    desk.script = [threading.Event()]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, desk.watching.is_set)
        await pilot.press("f3", "w", "enter")
        await until(pilot, lambda: desk.named("ask"))
        await pilot.press("ctrl+q")
    app.close_desk(wait_s=5)
    assert desk.closed.is_set()
    assert desk.finished.wait(5), "a call is still running"


async def test_a_desk_that_opens_after_the_app_was_closed_is_closed_too(desk: FakeDesk) -> None:
    may_open = threading.Event()

    def open_slowly() -> FakeDesk:
        may_open.wait(10)
        return desk

    app = GritDeskApp(open_slowly)  # type: ignore[arg-type]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("ctrl+q")
    may_open.set()
    assert desk.closed.wait(5)


async def test_enter_runs_the_editor_at_the_line_with_the_terminal_lent(
    app: GritDeskApp, desk: FakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "rate-limits.md"
    here.write_text("x", encoding="utf-8")
    hit = sample_hits()[0]
    hit = type(hit)(hit.chunk_id, here, hit.chunk, hit.score)
    desk.hits = lambda query, mode: [hit]
    lent: list[bool] = []
    commands: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def suspend() -> Iterator[None]:
        lent.append(True)
        yield

    def run_command(command: tuple[str, ...], check: bool) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(app, "suspend", suspend)
    monkeypatch.setattr(subprocess, "run", run_command)
    monkeypatch.setenv("EDITOR", "nvim -f")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: commands)
        assert commands == [("nvim", "-f", "+8", str(here))]
        assert lent == [True]
        here.unlink()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        assert any("The file is gone" in each.message for each in app._notifications)


@pytest.mark.parametrize(
    ("editor", "arguments"),
    [
        ("vim", ("vim", "+7", "/a b.md")),
        ("/usr/bin/emacs -nw", ("/usr/bin/emacs", "-nw", "+7", "/a b.md")),
        ("code --wait", ("code", "--wait", "-g", "/a b.md:7")),
        ("hx", ("hx", "/a b.md:7")),
        ("kak", ("kak", "+7", "/a b.md")),
        ("micro", ("micro", "+7", "/a b.md")),
        ("ed", ("ed", "/a b.md")),
    ],
)
def test_each_editor_is_told_the_line_in_its_own_way(editor: str, arguments: tuple[str, ...]) -> None:
    command = editor_command(Path("/a b.md"), 7, {"EDITOR": editor})
    assert command is not None
    assert command.arguments == arguments
    assert command.owns_window == editor.startswith("code")


def test_visual_goes_before_editor_and_neither_is_none() -> None:
    command = editor_command(Path("/a"), 1, {"VISUAL": "nano", "EDITOR": "vi"})
    assert command is not None and command.arguments[0] == "nano"
    assert editor_command(Path("/a"), 1, {"EDITOR": " "}) is None


def test_a_page_is_shown_here_and_a_line_in_the_editor() -> None:
    markdown, pdf, code = sample_hits()
    assert opens_as_text(markdown) and opens_as_text(code) and not opens_as_text(pdf)


@pytest.mark.parametrize("margin", [0, 5, 10_000])
def test_surroundings_hold_the_passage_on_whole_lines_with_their_number(margin: int) -> None:
    text = "".join(f"line {n}\n" for n in range(1, 40))
    hit = sample_hits()[0]
    start = text.index("line 20")
    chunk = type(hit.chunk)("line 20\nline 21", start, start + 15, 20, 21)
    around = surroundings(text, chunk, margin)
    assert around.text[around.start : around.end] == "line 20\nline 21"
    assert around.text.splitlines()[0] == f"line {around.first_line}"
    assert around.is_whole == (around.text == text)


def test_rows_are_the_text_and_never_wider_than_the_view() -> None:
    text = "a long line of words that has to be wrapped\n\n漢字漢字漢字漢字漢字漢字\n" + "x" * 95
    rows = list(wrapped_rows(text, 7, 20))
    assert "".join(text[start:end] for _, start, end in rows) == text.replace("\n", "")
    assert [number for number, _, _ in rows if number] == [7, 8, 9, 10]
    from rich.cells import cell_len

    assert max(cell_len(text[start:end].rstrip()) for _, start, end in rows) <= 20


def test_control_codes_are_never_handed_to_the_terminal() -> None:
    assert plain("a\x1b[2Jb\tc\r\nd\x9b") == "a�[2Jb    c\nd�"


async def test_names_with_control_codes_are_harmless_in_notices_and_in_the_box_for_a_folder(
    app: GritDeskApp,
) -> None:
    folder = Path("/nowhere/\x1b[2Jtrap\u202e")
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        app.read_folders([folder])
        app.edit_file(folder / "config.toml")
        app.screen.copy_path(beginning_of(folder))  # type: ignore[attr-defined]
        await until(pilot, lambda: len(app._notifications) == 3)
        assert all("/nowhere/�[2Jtrap�" in each.message for each in app._notifications)
        app.action_add_folder()
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        await app.screen._check(str(folder))  # type: ignore[attr-defined]
        await until(pilot, lambda: "No folder is there: /nowhere/�[2Jtrap�" in screen_text(app))


def test_snapshot_of_an_empty_search(snap_compare, desk: FakeDesk) -> None:  # type: ignore[no-untyped-def]
    desk.folders = ()

    async def leave_first_run(pilot) -> None:  # type: ignore[no-untyped-def]
        await ready(pilot)
        await until(pilot, lambda: isinstance(pilot.app.screen, FirstRunScreen))
        await pilot.press("escape")

    assert snap_compare(GritDeskApp(lambda: desk), terminal_size=(80, 24), run_before=leave_first_run)  # type: ignore[arg-type, return-value]


def test_snapshot_of_a_failed_index(snap_compare) -> None:  # type: ignore[no-untyped-def]
    def refuse() -> Desk:
        raise StoreError("index.sqlite is damaged; move it away and index again")

    async def wait(pilot) -> None:  # type: ignore[no-untyped-def]
        await until(pilot, lambda: pilot.app.activity.desk == "failed" and pilot.app.screen.query("Toast"))
        pilot.app.clear_notifications()
        await until(pilot, lambda: not pilot.app.screen.query("Toast"))

    assert snap_compare(GritDeskApp(refuse), terminal_size=(80, 24), run_before=wait)


def test_snapshot_of_an_answer(snap_compare, desk: FakeDesk) -> None:  # type: ignore[no-untyped-def]
    desk.script = list(sample_answer())

    async def ask(pilot) -> None:  # type: ignore[no-untyped-def]
        await ready(pilot)
        await pilot.app.ask("Why a token bucket?")
        await until(pilot, lambda: [each.state for each in pilot.app.screen.query("AnswerBlock")] == ["finished"])

    assert snap_compare(GritDeskApp(lambda: desk), terminal_size=(120, 30), run_before=ask)  # type: ignore[arg-type, return-value]


def test_a_model_that_failed_is_said_with_where_to_look_as_far_as_there_is_room() -> None:
    longest, shorter, *_ = status_lines(Activity(desk="open", model="failed"))
    assert longest.plain.endswith("✕ model failed, see Doctor") and shorter.plain.endswith("✕ model failed")
