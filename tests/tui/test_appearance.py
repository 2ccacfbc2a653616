"""How the app looks: themes that are kept, terminals without colour, and screens of every size."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ready, screen_text, until
from fake_desk import FakeDesk, sample_answer
from rich.segment import Segment
from textual.widgets import OptionList

from gritdesk.cli import main
from gritdesk.config import AppearanceConfig, Config, load_config, write_setting
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.themes import THEMES

SIZE = (120, 40)


def app_at(home: Path, desk: FakeDesk) -> GritDeskApp:
    return GritDeskApp(lambda: desk, load_config(home))  # type: ignore[arg-type, return-value]


def segments(app: GritDeskApp) -> list[Segment]:
    """What is sent to the terminal, row by row."""
    filters = [each for each in app.get_line_filters() if each.enabled]
    strips = app.screen._compositor.render_strips()
    return [segment for strip in strips for segment in strip.apply_filter(filters[-1], app.screen.styles.background)]


async def test_a_theme_that_is_chosen_is_kept_with_all_else_that_stands_in_the_config(
    desk: FakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('# mine\n[keys]\n"app.ask" = "f12"\n', encoding="utf-8")
    app = app_at(tmp_path, desk)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert app.theme == THEMES[0].name
        app.theme = "gritdesk-light"
        await until(pilot, lambda: load_config(tmp_path).appearance.theme == "gritdesk-light")
    text = (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert text.startswith("# mine") and tomllib.loads(text)["keys"] == {"app.ask": "f12"}
    assert app_at(tmp_path, desk).theme == "gritdesk-light"


async def test_a_theme_that_does_not_exist_is_told_and_the_default_is_shown(desk: FakeDesk, tmp_path: Path) -> None:
    write_setting(Config(tmp_path), "appearance.theme", "neon")
    app = app_at(tmp_path, desk)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "there is no 'neon'" in " ".join(screen_text(app).split()))
        assert app.theme == THEMES[0].name
    assert load_config(tmp_path).appearance.theme == "neon"


async def test_a_theme_that_cannot_be_kept_is_told(desk: FakeDesk, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("no folder", encoding="utf-8")
    app = GritDeskApp(lambda: desk, Config(home))  # type: ignore[arg-type, return-value]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot)
        app.theme = "gritdesk-light"
        await until(pilot, lambda: "cannot write" in " ".join(screen_text(app).split()))


@pytest.mark.parametrize("theme", [each.name for each in THEMES])
async def test_every_screen_is_drawn_in_every_theme(app: GritDeskApp, theme: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        app.theme = theme
        await ready(pilot)
        for mode in app.MODES:
            await app.switch_mode(mode)
            await until(pilot, lambda: "F1 Help" in screen_text(app), mode)
        await pilot.press("f1", "f8")
        await until(pilot, lambda: "Check again" in screen_text(app))


async def test_without_colour_no_colour_is_sent_and_highlight_words_and_focus_are_seen(
    desk: FakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    write_setting(Config(tmp_path), "appearance.theme", "gritdesk-dark")
    app = app_at(tmp_path, desk)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press(*"bucket")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        await until(pilot, lambda: "A bucket holds 60" in screen_text(app))
        shown = segments(app)
        for each in shown:
            assert each.style is None or all(
                colour is None or colour.is_default for colour in (each.style.color, each.style.bgcolor)
            ), each
        assert "┏" in screen_text(app)  # the line that has the focus has a heavy frame
        row = next(each for each in shown if "rate-limits.md" in each.text)
        assert row.style and row.style.underline
        word = [each for each in shown if each.text == "bucket" and each.style]
        assert any(each.style and each.style.bold and each.style.underline for each in word)
        await pilot.press("down")
        await until(pilot, lambda: isinstance(app.focused, OptionList))
        row = next(each for each in segments(app) if "rate-limits.md" in each.text)
        assert row.style and row.style.reverse
        assert "┏" not in screen_text(app)
    assert load_config(tmp_path).appearance.theme == "gritdesk-dark"


@pytest.mark.parametrize("size", [(200, 60), (80, 24), (60, 20), (40, 10), (20, 5), (2, 1)])
async def test_every_screen_bears_every_size(app: GritDeskApp, desk: FakeDesk, size: tuple[int, int]) -> None:
    desk.script = list(sample_answer())
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        await until(pilot, lambda: app.screen.query_one("#hits", OptionList).option_count)
        await app.ask("Why a token bucket?")
        await until(pilot, lambda: [each.state for each in app.screen.query("AnswerBlock")] == ["finished"])
        for mode in app.MODES:
            await app.switch_mode(mode)
            await pilot.press("f1", "ctrl+o", "escape", "f1")
        await pilot.press("f8", "escape")
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: "F1 Help" in screen_text(app))
        assert not app.screen.query("HelpPanel")


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_what_matters_is_seen_on_small_screens(app: GritDeskApp, desk: FakeDesk, size: tuple[int, int]) -> None:
    desk.script = list(sample_answer())
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app) and "3 results" in screen_text(app))
        await app.ask("Why a token bucket?")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and "holds the mean rate" in screen_text(app))
        assert "Ask your files" in screen_text(app)
        await app.switch_mode("library")
        await until(pilot, lambda: "Folders" in screen_text(app) and "/notes" in screen_text(app))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "token bucket" in screen_text(app))


def test_animation_is_left_out_over_ssh(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTUAL_ANIMATIONS")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    assert GritDeskApp(lambda: desk).animation_level == "none"  # type: ignore[arg-type, return-value]


def test_a_terminal_that_cannot_place_text_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    told = CliRunner().invoke(main, [])
    assert told.exit_code == 1 and told.stderr.count("\n") == 1 and "TERM=dumb" in told.stderr


def test_mouse_is_taken_unless_the_config_leaves_it_to_the_terminal(tmp_path: Path) -> None:
    assert AppearanceConfig().mouse
    (tmp_path / "config.toml").write_text("[appearance]\nmouse = false\n", encoding="utf-8")
    assert not load_config(tmp_path).appearance.mouse
