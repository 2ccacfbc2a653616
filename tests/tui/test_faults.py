"""What can go wrong around the app: it stays up, says what happened and what to do, and goes on when it is mended."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from conftest import ready, screen_text, until
from fake_desk import FakeDesk, sample_hits
from textual.events import Resize
from textual.message import Message
from textual.pilot import Pilot

from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.keeping import index_lock
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.app_log import app_log
from gritdesk.tui.collecting import RestCollector
from gritdesk.tui.messages import NoticeGiven
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.widgets.mode_line import ModeLine

SIZE = (120, 40)


class Home:
    """A home of gritdesk's with one folder, and the app on it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.path = folder / "home"
        self.notes = folder / "notes"
        self.model = folder / "model.gguf"
        shutil.copy(model, self.model)
        self.notes.mkdir()
        (self.notes / "lamp.md").write_text("# The lamp\n\nThe lamp is cleaned with vinegar.\n")
        self.path.mkdir()
        engine = f"[engine]\nmodel = '{self.model}'\nn_threads = 1\nn_ctx = 1024\n"
        index = f"[index]\nfolders = ['{self.notes}']\non_battery = 'go on'\n"
        (self.path / "config.toml").write_text(f"{engine}{index}[answer]\nmax_tokens = 24\n")

    def app(self) -> GritDeskApp:
        return GritDeskApp(lambda: Desk.open(load_config(self.path)))


@pytest.fixture
def home(tmp_path: Path, tiny_gguf: Path) -> Home:
    return Home(tmp_path, tiny_gguf)


@pytest.fixture
def surviving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The app as a person has it: with its log, whose path this is."""
    monkeypatch.setattr(GritDeskApp, "ends_on_errors", False)
    path = tmp_path / "logs" / "app.log"
    with app_log(path):
        yield path


async def finds_by_words(pilot: Pilot[None], app: GritDeskApp) -> None:
    await until(pilot, lambda: app.activity.status and app.activity.status.files == 1, "the file")
    app.screen.query_one("#query").value = ""  # type: ignore[attr-defined]
    await pilot.press(*"vinegar")
    await until(pilot, lambda: "lamp.md" in screen_text(app), "the hit")


@pytest.mark.parametrize("fault", ["missing", "cut off", "no GGUF"])
async def test_a_model_that_cannot_be_used_is_said_with_its_name_and_mended_by_ctrl_r(fault: str, home: Home) -> None:
    whole = home.model.read_bytes()
    if fault == "missing":
        home.model.unlink()
    else:
        home.model.write_bytes(whole[: len(whole) // 2] if fault == "cut off" else b"no model at all")
    app = home.app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.model == "failed", "the refusal")
        assert str(home.model) in app.activity.model_problem or home.model.name in app.activity.model_problem
        assert "gritdesk models use NAME" in app.activity.model_problem
        await until(pilot, lambda: "model failed" in screen_text(app))
        await pilot.press("f4")
        library = ("models use NAME", "ctrl+r tries again, F6 chooses another model")
        await until(pilot, lambda: all(each in " ".join(screen_text(app).split()) for each in library), "what to do")
        await pilot.press("f2")
        home.model.write_bytes(whole)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.activity.model == "ready" and not app.activity.index_problem, "the model")
        await finds_by_words(pilot, app)
        await pilot.press("ctrl+q")
    app.close_desk(wait_s=10)


async def test_an_engine_that_dies_is_said_and_started_again(home: Home) -> None:
    import psutil

    app = home.app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await finds_by_words(pilot, app)
        engines = [each for each in psutil.Process().children() if "gritdesk.engine.worker" in each.cmdline()]
        for engine in engines:
            engine.kill()
        await until(pilot, lambda: any("the engine stopped" in each.message for each in app._notifications), "the word")
        await pilot.press("escape", "escape", *"lamp")
        await until(pilot, lambda: "1 result" in screen_text(app) and "meaning follows" not in screen_text(app))
        await pilot.press("ctrl+q")
    app.close_desk(wait_s=10)


async def test_an_index_that_another_process_writes_is_searched_and_then_kept_up(home: Home) -> None:
    with Desk.open(load_config(home.path)) as desk:
        desk.index()
    (home.notes / "oil.md").write_text("The oil is changed in spring.\n")
    app, writer = home.app(), apsw.Connection(str(home.path / "index.sqlite"))
    with index_lock(load_config(home.path), watches=False):
        writer.execute("BEGIN IMMEDIATE")
        async with app.run_test(size=SIZE, notifications=True) as pilot:
            await until(pilot, lambda: any("keeps the index up" in each.message for each in app._notifications))
            await finds_by_words(pilot, app)
            await pilot.press("ctrl+q")
        app.close_desk(wait_s=10)
        writer.execute("ROLLBACK")
    writer.close()
    again = home.app()
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: again.activity.status and again.activity.status.files == 2, "the new file")
    again.close_desk(wait_s=10)


async def test_a_second_app_on_a_home_says_once_that_the_first_keeps_the_index(home: Home) -> None:
    first, second = home.app(), home.app()
    async with first.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await finds_by_words(pilot, first)
        async with second.run_test(size=SIZE, notifications=True) as other:
            await ready(other)
            await until(other, lambda: any("keeps the index up" in each.message for each in second._notifications))
            await finds_by_words(other, second)
            assert sum("keeps the index up" in each.message for each in second._notifications) == 1
            assert second.activity.index_problem == ""
    for app in (first, second):
        app.close_desk(wait_s=10)


async def test_a_damaged_index_is_said_and_the_app_stays(home: Home) -> None:
    with Desk.open(load_config(home.path)) as desk:
        desk.index()
    index = home.path / "index.sqlite"
    index.write_bytes(b"no database" * 1000)
    app = home.app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.desk == "failed", "the refusal")
        assert "index.sqlite" in app.activity.desk_problem
        await until(pilot, lambda: "ctrl+r tries again" in screen_text(app))
        index.unlink()
        await pilot.press("ctrl+r")
        await ready(pilot)
        await finds_by_words(pilot, app)
    app.close_desk(wait_s=10)


async def test_a_folder_that_goes_keeps_its_files_found_and_comes_back(home: Home) -> None:
    app = home.app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await finds_by_words(pilot, app)
        away = home.notes.with_name("away")
        home.notes.rename(away)
        app.look_again()
        await until(pilot, lambda: app.activity.status and app.activity.status.failed, "what is said of it")
        assert app.activity.status is not None
        assert [each.path for each in app.activity.status.failed] == [home.notes]
        await finds_by_words(pilot, app)
        (away / "oil.md").write_text("The oil is changed in spring.\n")
        away.rename(home.notes)
        app.look_again()
        await until(pilot, lambda: app.activity.status and app.activity.status.files == 2, "the new file")
        assert app.activity.status.failed == ()
    app.close_desk(wait_s=10)


async def test_a_home_that_cannot_be_written_is_said(home: Home, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("where a folder should be")
    app = GritDeskApp(lambda: Desk.open(load_config(blocked / "home")))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.activity.desk == "failed", "the refusal")
        assert str(blocked) in app.activity.desk_problem


# ---------------------------------------------------------------- our own mistakes


async def test_a_handler_that_raises_costs_what_it_was_to_do_and_is_logged(
    app: GritDeskApp, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, message: object) -> None:
        raise RuntimeError("[a mistake]")

    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        monkeypatch.setattr(GritDeskApp, "on_notice_given", fail)
        app.post_message(NoticeGiven("x"))
        await until(pilot, lambda: "unexpected RuntimeError: [a mistake]" in screen_text(app))
        assert surviving.name in screen_text(app)
        await pilot.press("f4", "f2", *"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
    assert app.fatal_problem == ""
    assert "Traceback" in surviving.read_text() and "[a mistake]" in surviving.read_text()


async def test_a_screen_that_raises_when_it_is_built_can_be_left(
    app: GritDeskApp, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gritdesk.tui.screens.map import MapScreen

    def fail(self: object) -> None:
        raise RuntimeError("no map")

    monkeypatch.setattr(MapScreen, "on_mount", fail)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: any("no map" in each.message for each in app._notifications))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))


async def test_work_behind_a_screen_that_raises_is_said(
    app: GritDeskApp, desk: FakeDesk, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.hits = lambda query, mode: sample_hits()
    monkeypatch.setattr("gritdesk.tui.app.editor_command", lambda path, line: 1 / 0)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: any("ZeroDivisionError" in each.message for each in app._notifications))
        assert app.is_running


async def test_a_widget_whose_handler_raises_says_so_and_goes_on(
    app: GritDeskApp, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        with monkeypatch.context() as broken:
            broken.setattr(ModeLine, "on_click", lambda self, event: 1 / 0)
            await pilot.click(ModeLine, offset=(12, 0))
            await until(pilot, lambda: any("ZeroDivisionError" in each.message for each in app._notifications))
        await pilot.click(ModeLine, offset=(12, 0))
        await until(pilot, lambda: app.screen.query_one(ModeLine).mode == "semantic")
    assert "ZeroDivisionError" in surviving.read_text()


async def test_a_timer_that_raises_is_said_and_rests_after_the_third_time(app: GritDeskApp, surviving: Path) -> None:
    num_called = 0

    def fail() -> None:
        nonlocal num_called
        num_called += 1
        raise RuntimeError("a timer's fault")

    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        app.screen.set_interval(0.001, fail)
        app.screen.call_after_refresh(fail)
        await until(pilot, lambda: num_called == 4)
        ticked = []
        app.set_timer(0.05, lambda: ticked.append(True))  # the other would have come fifty times by then
        await until(pilot, lambda: ticked)
        assert num_called == 4
        assert any("a timer's fault" in each.message for each in app._notifications)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
    assert "Traceback" in surviving.read_text()


async def test_errors_that_feed_themselves_end_the_app(
    app: GritDeskApp, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Again(Message):
        pass

    def fail(app: GritDeskApp) -> None:
        app.post_message(Again())
        raise RuntimeError("and again")

    monkeypatch.setattr(GritDeskApp, "on_again", fail, raising=False)
    with pytest.raises(RuntimeError, match="and again"):
        async with app.run_test(size=SIZE, notifications=True) as pilot:
            await ready(pilot)
            app.post_message(Again())
            await until(pilot, lambda: not app.is_running)
    assert "and again" in app.fatal_problem


async def test_an_error_in_drawing_a_widget_ends_the_app(
    app: GritDeskApp, surviving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            monkeypatch.setattr(ModeLine, "render", lambda self: 1 / 0)
            app.screen.query_one(ModeLine).refresh()
            await until(pilot, lambda: not app.is_running)


async def test_screens_are_left_as_soon_as_they_are_entered(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        for key in ("f3", "f4", "f7", "f5", "f6", "f2", "f8", "escape") * 3:
            app.simulate_key(key)
        await ready(pilot)
        await pilot.press("f2", *"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 2), (200, 1), (1, 60)])
async def test_every_screen_outlives_a_window_of_nearly_nothing(app: GritDeskApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        for mode in (*app.MODES, "search"):
            await app.switch_mode(mode)
            await pilot.pause()
            await pilot.resize_terminal(*size)
            await pilot.pause()
            screen_text(app)
            await pilot.resize_terminal(*SIZE)
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))


async def test_a_size_that_is_told_again_has_all_drawn_again(app: GritDeskApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "F1 Help" in screen_text(app))
        written: list[str] = []
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", written.append)
        monkeypatch.setattr(type(app._driver), "is_headless", False)  # which writes nothing
        app.post_message(Resize(app.size, app.size))  # of the sizes in between nothing was heard
        await until(pilot, lambda: all(each in "".join(written) for each in ("Search", "Type to search", "Help")))


async def test_ctrl_c_in_a_box_and_in_an_answer_asks_once_and_then_quits(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gritdesk.tui.app._QUIT_AGAIN_S", 1000.0)  # however slowly this goes
    desk.script = [threading.Event()]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f3", "w", "enter")
        await until(pilot, lambda: desk.named("ask"))
        app.action_add_folder()
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        await pilot.press("ctrl+c")
        assert app.is_running
        await until(pilot, lambda: any("ctrl+c again" in each.message for each in app._notifications))
        await pilot.press("ctrl+c")
    assert app.return_code == 0 and desk.closed.wait(5)


def test_what_is_logged_holds_tracebacks_and_where_nothing_can_be_written_nothing_happens(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for path in (tmp_path / "logs" / "app.log", blocked / "logs" / "app.log"):
        with app_log(path):
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
            logging.getLogger("asyncio").error("a task was lost")
    logged = (tmp_path / "logs" / "app.log").read_text()
    assert "ZeroDivisionError" in logged and "a task was lost" in logged


def test_garbage_is_collected_at_rest_and_as_before_once_the_app_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    now = 100.0
    monkeypatch.setattr("gritdesk.tui.collecting.monotonic", lambda: now)
    collector = RestCollector()
    collector.begin()
    now += 1
    collector.pressed()
    now += 1
    assert not collector.look()
    now += 1
    assert collector.look()
    now += 1
    assert not collector.look(), "nothing was done since"
    now += 60
    assert collector.look()
    collector.end()
    assert gc.get_threshold() == before
