"""The search screen on a real index: a whole way from nothing found to what is like it."""

from __future__ import annotations

from pathlib import Path

from conftest import screen_text, until
from test_search_screen import search_screen

from gritdesk.config import Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.similar import SimilarScreen
from gritdesk.tui.screens.why import WhyScreen
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.nothing_found import NothingFound
from gritdesk.tui.widgets.search_input import SearchInput


async def test_from_nothing_found_to_a_hit_its_reasons_and_its_like(tmp_path: Path, tiny_gguf: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "lamp.md").write_text("# Lamp\n\nThe lamp is cleaned on Sundays.\n")
    (docs / "lens.md").write_text("# Lens\n\nThe lens is cleaned on Mondays.\n")
    (docs / "lamp-plan.pdf").write_bytes(b"%PDF-1.4 and then nothing of the kind")
    config = Config(
        tmp_path / "home",
        EngineConfig(model=str(tiny_gguf), n_threads=1),
        IndexConfig(folders=(str(docs),), on_battery="go on"),
    )
    with Desk.open(config) as desk:
        desk.index()
    app = GritDeskApp(lambda: Desk.open(config))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.activity.model == "ready" and app.activity.status, "start")
        await pilot.press(*"lamp cleaned type:")
        await until(pilot, lambda: "Tab md" in screen_text(app), "the offers")
        await pilot.press(*"txt")
        await until(pilot, lambda: app.screen.query_one(NothingFound).display, "the misses")
        await until(pilot, lambda: "lamp-plan.pdf" in screen_text(app), "the file that could not be read")
        assert "✕ type:txt" in screen_text(app) and "it is a damaged PDF" in screen_text(app)
        await pilot.press("enter")
        screen = search_screen(app)
        await until(pilot, lambda: screen._shown == (screen._number, "hybrid") and screen.query_one(HitList).hits)
        assert screen.query_one(SearchInput).value == "lamp cleaned"
        await pilot.press("down", "x")
        await until(pilot, lambda: isinstance(app.screen, WhyScreen), "why")
        assert "has  lamp, cleaned" in screen_text(app) and "BM25" in screen_text(app)
        await pilot.press("escape", "s")
        await until(pilot, lambda: isinstance(app.screen, SimilarScreen) and app.screen.query_one(HitList).hits)
        assert "lens.md" in screen_text(app)
