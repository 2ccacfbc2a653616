"""The settings: every one with its meaning, changed once its price was read; and what is kept on the machine."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import FakeDesk
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from gritdesk.config import load_config, write_setting
from gritdesk.desk import Desk
from gritdesk.errors import ConfigError
from gritdesk.records import Price
from gritdesk.settings import Setting
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.edit_setting import EditSettingScreen
from gritdesk.tui.screens.library import LibraryScreen
from gritdesk.tui.screens.settings import SettingsScreen

SIZE = (120, 44)


async def opened(app: GritDeskApp, pilot: Pilot[None], key: str = "") -> SettingsScreen:
    """The screen, with the setting of that key highlighted."""
    await ready(pilot)
    await pilot.press("f6")
    await until(pilot, lambda: isinstance(app.screen, SettingsScreen) and "[answer]" in screen_text(app))
    screen = app.screen
    assert isinstance(screen, SettingsScreen)
    if key:
        at = [isinstance(row, Setting) and row.key == key for row in screen._rows].index(True)
        app.screen.query_one("#settings-rows", OptionList).highlighted = at
        await until(pilot, lambda: key in screen_text(app))
    return screen


def row(app: GritDeskApp, name: str) -> str:
    rows = app.screen.query_one("#settings-rows", OptionList)
    lines = [str(rows.get_option_at_index(at).prompt) for at in range(rows.option_count)]
    return next(" ".join(line.split()) for line in lines if line.strip().startswith(name))


async def test_every_setting_stands_in_its_section_with_its_meaning(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "index.on_battery")
        shown = screen_text(app)
        for part in (
            "[engine]",
            "[index]",
            "[search]",
            "/home/gritdesk/config.toml",
            "What watching does without mains",
        ):
            assert part in shown
        assert "one of go on, words only, pause" in shown and "A change counts at once." in shown
        assert row(app, "model") == "model grit-nano" and row(app, "max_tokens") == "max_tokens 160"
        await pilot.press("up")
        await until(pilot, lambda: "What watches rests twice as long as it works" in screen_text(app))


async def test_a_switch_is_turned_by_enter_and_d_turns_it_back(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "answer.keep_chats")
        await pilot.press("enter")
        await until(pilot, lambda: row(app, "keep_chats") == "keep_chats false")
        await pilot.press("d")
        await until(pilot, lambda: row(app, "keep_chats") == "keep_chats true")
        await pilot.press("d")
        assert desk.named("change_setting") == [("answer.keep_chats", "false"), ("answer.keep_chats", None)]


async def test_a_choice_is_chosen_from_a_list(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "answer.rewrite")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
        assert not app.screen.query(Input)
        await pilot.press("down", "enter")
        await until(pilot, lambda: desk.config.answer.rewrite == "model")
        await until(pilot, lambda: row(app, "rewrite") == "rewrite model")


async def test_a_wrong_value_is_said_at_once_and_may_be_mended(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "answer.max_tokens")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
        value = app.screen.query_one("#value", Input)
        assert value.value == "160"
        for typed, said in (("many", "must be a whole number, 1 or more, found 'many'"), ("0", "must be 1 or more")):
            value.value = typed
            await pilot.press("enter")
            await until(pilot, lambda said=said: said in screen_text(app))  # type: ignore[misc]
        value.value = "99"
        await pilot.press("enter")
        await until(pilot, lambda: row(app, "max_tokens") == "max_tokens 99")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
        await pilot.press("7", "escape")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert desk.config.answer.max_tokens == 99


async def test_a_change_that_embeds_anew_shows_its_price_and_waits_for_a_yes(desk: FakeDesk) -> None:
    desk.prices["index.chunk_tokens"] = Price(1204, 8310, 900.0, "1,204 files are read [anew], about 11 to 21 min")
    opened_desks: list[FakeDesk] = []

    def open_desk() -> FakeDesk:
        opened_desks.append(desk)
        return desk

    app = GritDeskApp(open_desk)  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "index.chunk_tokens")
        assert "A change opens the index anew." in screen_text(app)
        for answer, changed in (("n", 256), ("y", 128)):
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
            app.screen.query_one("#value", Input).value = "128"
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            await until(pilot, lambda: "1,204 files are read [anew], about 11 to 21 min" in screen_text(app))
            assert "Set index.chunk_tokens to 128?" in screen_text(app)
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
            await until(pilot, lambda changed=changed: desk.config.index.chunk_tokens == changed)  # type: ignore[misc]
        await until(pilot, lambda: len(opened_desks) == 2 and app.activity.desk == "open", "the index opened anew")
        assert desk.closed.is_set()
        await until(pilot, lambda: row(app, "chunk_tokens") == "chunk_tokens 128")


async def test_changes_made_faster_than_they_are_written_are_all_made_in_their_order(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told = threading.Event(), desk.price

    def price(key: str, typed: str | None) -> Price:
        desk._wait(gate)
        return told(key, typed)

    monkeypatch.setattr(desk, "price", price)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        now = [row if isinstance(row, Setting) and row.applies == "at once" else None for row in screen._rows]
        switches = [at for at, row in enumerate(now) if row and isinstance(row.default, bool) and not row.kept_by]
        asked = (*switches, switches[0])
        for at in asked:
            screen.query_one("#settings-rows", OptionList).highlighted = at
            await pilot.press("enter")
        gate.set()
        await until(pilot, lambda: len(desk.named("change_setting")) == len(asked), "every change")
        changed = [key for key, _ in desk.named("change_setting")]
        assert len(switches) == 2 and changed == [screen._rows[at].key for at in asked]  # type: ignore[union-attr]


async def test_a_price_that_comes_when_a_person_is_elsewhere_takes_no_keys_and_changes_nothing(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def price(key: str, typed: str | None) -> Price:
        desk._wait(gate)
        return Price(told="all is read anew")

    monkeypatch.setattr(desk, "price", price)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "index.chunk_tokens")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
        app.screen.query_one("#value", Input).value = "128"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        await pilot.press("f2")
        gate.set()
        said = "index.chunk_tokens is as it was"
        await until(pilot, lambda: any(said in each.message for each in app._notifications))
        await pilot.press(*"my")
        await until(pilot, lambda: app.screen.query_one("#query", Input).value == "my")
        assert desk.named("change_setting") == []


async def test_settings_and_library_of_an_index_that_cannot_be_opened_say_so_when_they_are_entered() -> None:
    def refuse() -> Desk:
        raise ConfigError("[index] is gone")

    app = GritDeskApp(refuse)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.activity.desk == "failed")
        for key, screen in (("f6", SettingsScreen), ("f4", LibraryScreen)):
            await pilot.press(key)
            await until(pilot, lambda screen=screen: isinstance(app.screen, screen))  # type: ignore[misc]
            await until(pilot, lambda: "The index could not be opened" in screen_text(app))
            assert "[index] is gone" in screen_text(app)


async def test_models_that_are_here_may_be_chosen_and_another_be_typed(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "engine.model")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditSettingScreen))
        await until(pilot, lambda: "grit-nano: 9.7 MB, CC BY-SA 4.0" in screen_text(app))
        assert "large: 4.1 GB, not to be read" in screen_text(app) and app.screen.query(Input)
        await pilot.press("tab", *"/my.gguf", "enter")
        await until(pilot, lambda: desk.named("price") == [("engine.model", "/my.gguf")])


async def test_folders_are_changed_where_it_is_more_than_a_line(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "index.folders")
        assert "here the Library does" in " ".join(screen_text(app).split())
        await pilot.press("enter", "d")
        assert isinstance(app.screen, SettingsScreen) and desk.named("price") == []


async def test_what_is_kept_is_told_with_its_size_and_how_to_be_rid_of_it(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot, "answer.rewrite")
        await pilot.press("y", "tab")
        await until(pilot, lambda: "700 MB" in screen_text(app) and "/home/gritdesk/states" in screen_text(app))
        await pilot.press("down")
        await until(pilot, lambda: "gritdesk states --clear" in screen_text(app))
        await pilot.press("enter")
        assert copied == ["gritdesk settings answer.rewrite rules", "gritdesk states --clear"]
        await pilot.press("shift+tab")
        await until(pilot, lambda: "[answer]" in screen_text(app))


async def test_a_price_that_cannot_be_told_changes_nothing(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["price"] = ConfigError("there is no model [x]")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot, "index.quiet")
        await pilot.press("enter")
        await until(pilot, lambda: "there is no model [x]" in screen_text(app))
        assert desk.named("change_setting") == []


async def test_a_config_toml_that_cannot_be_read_says_so_until_it_can(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["settings"] = ConfigError("config.toml: unknown key [engine.modle]")
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f6")
        await until(pilot, lambda: "unknown key [engine.modle]" in screen_text(app))
        desk.failures.clear()
        await pilot.press("r")
        await until(pilot, lambda: "[answer]" in screen_text(app))


async def test_config_toml_is_edited_and_what_was_written_there_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("EDITOR", "vi")
    app = GritDeskApp(lambda: Desk.open(load_config()))
    edits = [("search.num_passages", 5), ("index.chunk_tokens", 128)]

    @contextlib.contextmanager
    def suspend() -> Iterator[None]:
        yield

    def edit(command: tuple[str, ...], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert command == ("vi", "+1", str(tmp_path / "config.toml"))
        write_setting(load_config(), *edits.pop(0))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(app, "suspend", suspend)
    monkeypatch.setattr(subprocess, "run", edit)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.activity.status is not None)
        await pilot.press("escape", "f6")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen) and "[answer]" in screen_text(app))
        first = app.desk
        await pilot.press("e")
        await until(pilot, lambda: row(app, "num_passages") == "num_passages 5")
        assert app.desk is first and first is not None and first.config.search.num_passages == 5
        await pilot.press("e")
        await until(pilot, lambda: app.desk not in (first, None) and app.activity.desk == "open")
        assert app.desk is not None and app.desk.config.index.chunk_tokens == 128


async def test_without_an_editor_the_path_is_told(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(app, pilot)
        await pilot.press("e")
        await until(pilot, lambda: "Set EDITOR" in screen_text(app))


async def test_settings_fit_a_small_terminal(app: GritDeskApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("f6")
        await until(pilot, lambda: "[engine]" in screen_text(app) and "Path of a GGUF" in screen_text(app))
        assert "Enter changes it" in screen_text(app)


# ---------------------------------------------------------------- quiet mode


async def test_q_in_the_library_makes_indexing_quiet_and_loud_again(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
        await pilot.press("q")
        await until(pilot, lambda: "1,204 files indexed, quiet" in screen_text(app).splitlines()[0])
        assert desk.config.index.quiet and "quiet: works a third of the time" in screen_text(app)
        await pilot.press("q")
        await until(pilot, lambda: "quiet" not in screen_text(app).splitlines()[0])
        assert not desk.config.index.quiet


async def test_quiet_mode_is_in_the_palette(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        app.action_command_palette()
        await pilot.pause()
        await pilot.press(*"quiet mode")
        await until(pilot, lambda: "at full speed" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: desk.config.index.quiet)
