"""Marks on files, files like one file, and the text beside the list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import DOCUMENTS, FakeDesk, hit_in, sample_hits
from test_search_screen import NARROW, WIDE, found, search_screen, shown

from gritdesk.errors import QueryError
from gritdesk.records import SimilarFiles
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.results import ResultsScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.similar import SimilarScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.search_input import SearchInput

MARKDOWN, PDF, CODE = DOCUMENTS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Path, ...]]]:
    """What the app is asked to ask."""
    asked: list[tuple[str, tuple[Path, ...]]] = []

    async def ask(self: GritDeskApp, question: str, within: Sequence[Path] = ()) -> None:
        asked.append((question, tuple(within)))

    monkeypatch.setattr(GritDeskApp, "ask", ask)
    return asked


def marked_rows(app: GritDeskApp) -> list[str]:
    return [line.split()[1] for line in screen_text(app).splitlines() if line.lstrip().startswith("✓")]


async def test_space_marks_and_takes_the_mark_off_again(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        await pilot.press("down", "down", "space")
        assert marked_rows(app) == ["interface.pdf"] and "1 marked" in screen_text(app)
        assert app.screen.query_one(HitList).highlighted == 1
        await pilot.press("up", "space")
        assert marked_rows(app) == ["rate-limits.md", "interface.pdf"]
        await pilot.press("space")
        assert marked_rows(app) == ["interface.pdf"]


async def test_ctrl_t_marks_while_typing_and_a_click_at_the_left_does_it_too(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        await pilot.press("ctrl+t")
        assert marked_rows(app) == ["rate-limits.md"] and app.screen.query_one(SearchInput).value == "bu"
        await pilot.click(HitList, offset=(1, 6))
        assert marked_rows(app) == ["rate-limits.md", "bucket.py"]
        assert app.screen.query_one(HitList).highlighted == 2 and isinstance(app.screen, SearchScreen)
        await pilot.click(HitList, offset=(12, 3))
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen), "the click that opens")


async def test_every_passage_of_a_marked_file_is_marked_and_c_takes_all_off(app: GritDeskApp, desk: FakeDesk) -> None:
    text = DOCUMENTS[MARKDOWN]
    desk.hits = lambda query, mode: [*sample_hits(), hit_in(MARKDOWN, text, "# Rate limits", 4)]
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        await pilot.press("down", "space")
        assert marked_rows(app) == ["rate-limits.md", "rate-limits.md"]
        await pilot.press("c")
        assert marked_rows(app) == [] and "marked" not in screen_text(app)


async def test_marks_outlast_a_new_query_and_the_marked_files_are_asked(
    app: GritDeskApp, desk: FakeDesk, asked: list[tuple[str, tuple[Path, ...]]]
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "a", "down", "down", "space", "escape")
        desk.hits = lambda query, mode: sample_hits()[:2]
        await pilot.press("end", "x")
        await until(pilot, lambda: shown(app) == [1, 2])
        assert marked_rows(app) == [] and "1 marked" in screen_text(app)
        await pilot.press("down", "space", "a")
        await until(pilot, lambda: len(asked) == 2)
        await pilot.press("escape", "ctrl+g")
        await until(pilot, lambda: len(asked) == 3)
    assert asked == [("bu", ()), ("bux", (CODE, MARKDOWN)), ("bux", (CODE, MARKDOWN))]


async def test_y_copies_the_paths_of_all_marks(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "y")
        assert app.clipboard == str(MARKDOWN)
        await pilot.press("space", "down", "space", "y")
        assert app.clipboard == f"{MARKDOWN}\n{PDF}"


async def test_s_lists_similar_files_and_escape_comes_back(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "down", "s")
        await until(pilot, lambda: isinstance(app.screen, SimilarScreen) and shown(app))
        assert shown(app) == [1, 3] and "Files like interface.pdf" in screen_text(app)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"), "the preview")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        assert app.screen.query_one(HitList).highlighted == 1 and app.screen.query_one(HitList).has_focus


async def test_marks_viewing_and_asking_work_in_similar_files(
    app: GritDeskApp, desk: FakeDesk, asked: list[tuple[str, tuple[Path, ...]]]
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "space", "s")
        await until(pilot, lambda: isinstance(app.screen, SimilarScreen) and shown(app))
        await pilot.press("space", "y", "a")
        assert app.clipboard == f"{MARKDOWN}\n{PDF}" and marked_rows(app) == ["interface.pdf"]
        await until(pilot, lambda: asked)
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        await pilot.press("escape", "s")
        await until(pilot, lambda: "Files like interface.pdf" in screen_text(app))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await until(pilot, lambda: marked_rows(app) == ["rate-limits.md", "interface.pdf"])
    assert asked == [("bu", (MARKDOWN, PDF))]


async def test_searching_for_a_theme_of_the_map_leaves_the_similar_files(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await pilot.press("down", "s")
        await until(pilot, lambda: isinstance(app.screen, SimilarScreen) and shown(app))
        await pilot.press("space", "f4")
        await app.search_for("token")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen) and ("token", "hybrid") in desk.searches())
        await until(pilot, lambda: marked_rows(app) == ["interface.pdf"])


async def test_similar_files_say_which_are_the_same_and_when_there_are_none(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [SimilarFiles((), (Path("/notes/copy.md"),)), QueryError("the file is not in the [index]")]

    def similar(path: Path, n: int = 10) -> SimilarFiles:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ResultsScreen, "related_pause_s", 1000)
    monkeypatch.setattr(desk, "similar", similar)
    async with app.run_test(size=NARROW) as pilot:
        await found(pilot, app)
        await pilot.press("down", "s")
        await until(pilot, lambda: "No other file is like it" in screen_text(app))
        assert "the same: /notes/copy.md" in screen_text(app)
        await pilot.press("escape", "s")
        await until(pilot, lambda: "the file is not in the [index]" in screen_text(app))


async def test_files_like_the_highlighted_one_are_named_under_its_text(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await until(pilot, lambda: "related  interface.pdf · bucket.py" in screen_text(app))
        await pilot.press("down", "down")
        await until(pilot, lambda: "related  rate-limits.md · bucket.py" in screen_text(app))
        await pilot.press("up")
        await until(pilot, lambda: "related  interface.pdf · bucket.py" in screen_text(app))
    assert desk.named("similar") == [(MARKDOWN,), (PDF,)]  # what was looked up once is known


async def test_no_related_file_is_a_matter_of_silence(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.failures["similar"] = QueryError("it is not in the index")
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        await until(pilot, lambda: desk.named("similar"))
        await pilot.pause()
        assert "related" not in screen_text(app) and not app._notifications


async def test_the_text_beside_the_list_is_scrolled_from_the_list_and_while_typing(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    desk.documents[MARKDOWN] = DOCUMENTS[MARKDOWN] + "\n".join(f"line {number}" for number in range(200))
    async with app.run_test(size=WIDE) as pilot:
        await found(pilot, app)
        view = app.screen.query_one("#preview-text", PassageView)
        await until(pilot, lambda: view.passage.startswith("On 4 March"))
        start = view.scroll_offset.y
        await pilot.press("shift+down", "shift+down")
        assert view.scroll_offset.y == start + 6
        await pilot.press("down", "J", "K", "shift+up")
        assert view.scroll_offset.y == start + 3 and search_screen(app).query_one(HitList).highlighted == 0


async def test_the_palette_names_what_can_be_done_with_results(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
    for title in ("Similar (s)", "Why (x)", "Mark (Space)", "Clear marks (c)", "Look harder (r)"):
        assert title in titles
