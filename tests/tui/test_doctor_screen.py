"""The doctor's screen, over a real desk and the default model."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import screen_text, until

from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.doctor import DoctorScreen
from gritdesk.tui.screens.first_run import FirstRunScreen
from gritdesk.tui.screens.search import SearchScreen


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # whose folders are offered where none is indexed
    return tmp_path


async def test_checks_are_shown_and_made_again_when_something_was_mended(home: Path) -> None:
    config = load_config()
    app = GritDeskApp(lambda: Desk.open(config))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.activity.desk == "open")
        (home / "config.toml").write_text("[engine]\nnothing = 1\n")
        await pilot.press("f8")
        await until(pilot, lambda: isinstance(app.screen, DoctorScreen) and "1 check failed" in screen_text(app))
        assert "unknown key" in screen_text(app) and "engine.nothing" in screen_text(app)
        (home / "config.toml").unlink()
        await pilot.press("r")
        await until(pilot, lambda: "Everything is as it should be" in screen_text(app))
        for part in ("python", "sqlite-vec", "none yet; add one", "self-test"):
            assert part in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
