"""The app on a FakeDesk, with no pause between a key and its search."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from fake_desk import FakeDesk
from textual.pilot import Pilot
from textual.widgets import Input

from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.results import ResultsScreen
from gritdesk.tui.screens.search import SearchScreen

TIMEOUT_S = 30.0


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No editor, no pauses, no animation: what a test sees depends on the test alone."""
    for name in ("VISUAL", "EDITOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setattr(
        Input, "_toggle_cursor", lambda self: None
    )  # a cursor that blinks is off in half of all pictures
    monkeypatch.setattr(SearchScreen, "keyword_pause_s", 0.001)
    monkeypatch.setattr(SearchScreen, "meaning_pause_s", 0.001)
    monkeypatch.setattr(SearchScreen, "reading_pause_s", 0.001)
    monkeypatch.setattr(ResultsScreen, "preview_pause_s", 0.001)
    monkeypatch.setattr(ResultsScreen, "typing_pause_s", 0.001)
    monkeypatch.setattr(ResultsScreen, "related_pause_s", 0.001)
    monkeypatch.setattr(GritDeskApp, "ends_on_errors", True)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def app(desk: FakeDesk) -> GritDeskApp:
    return GritDeskApp(lambda: desk)  # type: ignore[arg-type, return-value]


async def until(pilot: Pilot[None], condition: Callable[[], object], what: str = "") -> None:
    """Let the app work until the condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what or 'a condition'}"
        await pilot.pause(0.005)
    await pilot.pause()


async def ready(pilot: Pilot[None]) -> None:
    """Wait for an open desk, a loaded model, a read status."""
    app = pilot.app
    assert isinstance(app, GritDeskApp)
    await until(
        pilot, lambda: app.activity.desk == "open" and app.activity.model == "ready" and app.activity.status, "start"
    )


def screen_text(app: GritDeskApp) -> str:
    """What stands on the screen, one line a row."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)
