"""What is asked: files and folders behind an @, results of a search, the line that says so; and writing a question."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from conftest import ready, screen_text, until
from fake_desk import NOTES, FakeDesk, answer_of, sample_answer, sample_hits
from textual.pilot import Pilot
from textual.widgets import Markdown

from gritdesk.records import Answer, AnswerFinished, Chat, EvidenceFound, Exchange, PieceGenerated
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.text import speed
from gritdesk.tui.widgets.answer_block import AnswerBlock
from gritdesk.tui.widgets.question_input import QuestionInput
from gritdesk.tui.widgets.scope_picker import ScopePicker

WIDE = (120, 40)
LIMITS = NOTES / "api" / "rate-limits.md"


async def opened(pilot: Pilot[None], app: GritDeskApp) -> tuple[AskScreen, QuestionInput]:
    await ready(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.query(QuestionInput))
    assert isinstance(app.screen, AskScreen)
    return app.screen, app.screen.query_one(QuestionInput)


async def sent(pilot: Pilot[None], screen: AskScreen, *keys: str) -> AnswerBlock:
    """Type and send a question, and wait for its answer."""
    num_before = len(screen.blocks)
    screen.query_one(QuestionInput).focus()
    await pilot.press(*keys, "enter")
    await until(pilot, lambda: len(screen.blocks) > num_before and screen.blocks[-1].state == "finished")
    return screen.blocks[-1]


@pytest.mark.parametrize("key", ["tab", "enter"])
async def test_an_at_sign_picks_what_is_asked_and_follow_ups_keep_it(
    app: GritDeskApp, desk: FakeDesk, key: str
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        screen, question = await opened(pilot, app)
        picker = screen.query_one(ScopePicker)
        await pilot.press(*"w @rlm")
        await until(pilot, lambda: picker.letters == "rlm" and picker.display)
        assert "rate-limits.md  notes/api/" in screen_text(app)
        await pilot.press(key)
        await until(pilot, lambda: screen.scope == (LIMITS,) and question.text == "w ")
        assert not picker.display and question.has_focus
        await pilot.press(*"@api")
        await until(pilot, lambda: picker.letters == "api" and picker.display)
        await pilot.press("down", "up", key)
        await until(pilot, lambda: screen.scope == (LIMITS, NOTES / "api"))
        assert "In: rate-limits.md, api" in screen_text(app)
        block = await sent(pilot, screen)
        await sent(pilot, screen, "x", "?")
        assert [each[0] for each in desk.named("ask")] == ["w", "x?"]
        assert desk.asked_within == [(LIMITS, NOTES / "api")] * 2
        assert block.within == (LIMITS, NOTES / "api")


async def test_escape_leaves_an_at_sign_as_it_is_and_so_does_what_fits_nothing(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        screen, question = await opened(pilot, app)
        picker = screen.query_one(ScopePicker)
        await pilot.press(*"@rlm")
        await until(pilot, lambda: picker.display)
        await pilot.press("escape")
        await until(pilot, lambda: not picker.display)
        await pilot.press("x")
        assert question.text == "@rlmx" and not picker.display and question.has_focus
        await pilot.press(" ", *"me@home @zzz")
        await until(pilot, lambda: picker.letters == "zzz")
        assert not picker.display
        await sent(pilot, screen)
        assert desk.named("ask")[0][0] == "@rlmx me@home @zzz" and desk.asked_within == [()]


async def test_what_is_asked_is_cleared_by_keys_and_by_a_command(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        screen, question = await opened(pilot, app)
        screen.set_scope([LIMITS, NOTES])
        await until(pilot, lambda: "In: rate-limits.md, notes" in screen_text(app))
        await pilot.press("backspace")
        await until(pilot, lambda: screen.scope == (LIMITS,))
        await pilot.press(*"/all", "enter")
        await until(pilot, lambda: screen.scope == ())
        assert "In: " not in screen_text(app) and not screen.blocks
        block = await sent(pilot, screen, "w", "?")
        screen.set_scope([LIMITS])
        block.focus()
        await pilot.press("x")
        await until(pilot, lambda: screen.scope == ())
        screen.set_scope([LIMITS])
        question.focus()
        await pilot.press(*"/new", "enter")
        await until(pilot, lambda: not screen.blocks and screen.scope == ())


async def test_results_of_a_search_are_asked_and_a_search_of_all_asks_all(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        paths = [each.path for each in sample_hits()] * 2
        await app.ask("w?", within=paths)
        await until(pilot, lambda: desk.asked_within)
        assert desk.asked_within == [tuple(paths[:3])]
        await until(pilot, lambda: "In: rate-limits.md, interface.pdf, bucket.py" in screen_text(app))
        await app.ask("")
        assert isinstance(app.screen, AskScreen) and app.screen.scope == tuple(paths[:3])
        await app.ask("x?")
        await until(pilot, lambda: len(desk.asked_within) == 2)
        assert desk.asked_within[1] == ()


async def test_chat_that_is_gone_on_with_asks_what_it_asked(app: GritDeskApp, desk: FakeDesk) -> None:
    hits = tuple(sample_hits())
    answer = replace(answer_of("Why?", "Bursts [1].", hits, (1,)), within=(LIMITS,))
    desk.chats.kept = Chat("20240309-150000-3f2a", "Why?", (Exchange(answer, hits, 1709992800.0),))
    async with app.run_test(size=WIDE) as pilot:
        screen, _ = await opened(pilot, app)
        await screen.action_continue_chat()
        await until(pilot, lambda: "In: rate-limits.md" in screen_text(app))
        await sent(pilot, screen, "x", "?")
        assert desk.asked_within == [(LIMITS,)]


async def test_filter_that_left_nothing_is_named_under_the_answer(app: GritDeskApp, desk: FakeDesk) -> None:
    refusal = answer_of("w?", "Nothing in notes/ answers this.", (), (), grounded=False)
    refusal = replace(refusal, evidence="none", removed=(("type:[pdf]", 3), ("in:x", 100)), within=(NOTES,))
    desk.script = [EvidenceFound((), "none"), PieceGenerated(refusal.text), AnswerFinished(refusal)]
    async with app.run_test(size=WIDE) as pilot:
        screen, _ = await opened(pilot, app)
        await sent(pilot, screen, "w", "?")
        for line in (
            "Nothing in notes/ answers this.",
            "type:[pdf] leaves nothing; without it there are 3 passages.",
            "in:x leaves nothing; without it there are 100 or more passages.",
            "g has the model answer from itself, x goes back to all files",
        ):
            await until(pilot, lambda line=line: line in screen_text(app))


async def test_earlier_questions_come_back_in_an_empty_line_and_in_no_other(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        screen, question = await opened(pilot, app)
        for asked in ("one", "two"):
            await sent(pilot, screen, *asked)
        question.focus()
        await pilot.press("up")
        assert question.text == "two"
        await pilot.press("up", "up")
        assert question.text == "one"
        await pilot.press("down", "down")
        assert question.text == ""
        await pilot.press("x", "up")
        assert question.text == "x"


@pytest.mark.parametrize("key", ["ctrl+n", "alt+enter", "shift+enter"])
async def test_keys_that_make_a_new_line(app: GritDeskApp, key: str) -> None:
    async with app.run_test(size=WIDE) as pilot:
        _, question = await opened(pilot, app)
        await pilot.press("a", key, "b")
        assert question.text == "a\nb"


async def test_keys_of_screens_are_not_taken_for_selecting(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, app)
        await pilot.press("a", "f7")
        await until(pilot, lambda: app.current_mode == "map")


async def test_speed_is_shown_while_writing_and_after(app: GritDeskApp, desk: FakeDesk) -> None:
    go_on = threading.Event()
    *events, last = sample_answer()
    assert isinstance(last, AnswerFinished)
    timings = {"total_s": 2.4, "first_piece_s": 0.4, "num_pieces": 77.0}
    desk.script = [*events[:2], go_on, *events[2:], AnswerFinished(replace(last.answer, timings=timings))]
    async with app.run_test(size=(160, 40)) as pilot:
        screen, question = await opened(pilot, app)
        await pilot.press("w", "enter")
        await until(pilot, lambda: "Writing … first piece after" in screen_text(app))
        go_on.set()
        await until(pilot, lambda: "2.4 s, first 0.4 s, 38 tokens/s" in screen_text(app))


def test_speed_is_told_as_far_as_it_was_measured() -> None:
    answer = Answer("w?", "", False)
    assert speed(answer) == ""
    assert speed(replace(answer, timings={"total_s": 2.0})) == "2.0 s"
    assert speed(replace(answer, timings={"total_s": 2.0, "first_piece_s": 0.5, "num_pieces": 1.0})) == (
        "2.0 s, first 0.5 s"
    )


async def test_markdown_of_an_answer_leads_nowhere_and_hides_nothing(app: GritDeskApp, desk: FakeDesk) -> None:
    text = (
        "vector<int> and <b>bold</b> &#8238;turned \x1b]8;;http://evil.example\x07x [here](http://evil.example) "
        "![p](http://evil.example/p.png) http://evil.example\n\n[1]: http://evil.example\n\n<div>block</div>"
    )
    hits = tuple(sample_hits())
    desk.script = [EvidenceFound(hits), PieceGenerated(text), AnswerFinished(answer_of("w?", text, hits, (1,)))]
    async with app.run_test(size=(200, 40)) as pilot:
        screen, _ = await opened(pilot, app)
        block = await sent(pilot, screen, "w", "?")
        await until(pilot, lambda: "<div>block</div>" in screen_text(app))
        shown = " ".join(screen_text(app).split())
        for part in ("vector<int>", "<b>bold</b>", "&#8238;turned", "[here](http://evil.example)", "[1]: http://evil"):
            assert part in shown
        strips = app.screen._compositor.render_strips()
        assert not any(char in shown for char in ("\x1b", "\x07", "\u202e"))
        markdown = [each for strip in strips for each in strip if each.style and each.style.meta.get("@click")]
        assert not markdown and not any(each.style and each.style.link for strip in strips for each in strip)
        assert block.query_one(Markdown).source == block.text
