"""The ask screen: answers stream in, stop, restart and fail as they should, and citations open."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ready, screen_text, until
from fake_desk import FakeDesk, answer_of, sample_answer, sample_hits
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Markdown

from gritdesk.errors import ModelError
from gritdesk.prompting import NO_EVIDENCE
from gritdesk.records import (
    AnswerFinished,
    AnswerRestarted,
    Chat,
    Citation,
    EvidenceFound,
    Exchange,
    PieceGenerated,
    Place,
    SentenceSupport,
)
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.screens import ask
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.widgets.answer_block import AnswerBlock
from gritdesk.tui.widgets.hit_list import HitList
from gritdesk.tui.widgets.passage_view import PassageView
from gritdesk.tui.widgets.question_input import QuestionInput
from gritdesk.tui.widgets.scope_picker import ScopePicker

WIDE = (120, 40)
NARROW = (80, 24)
MISS = Citation(1, Path("notes.md"), 3, 3, "Tea is at four.")


def blocks(app: GritDeskApp) -> list[AnswerBlock]:
    return list(app.screen.query(AnswerBlock))


def footer(app: GritDeskApp) -> str:
    return screen_text(app).splitlines()[-1]


async def asked(pilot: Pilot[None], app: GritDeskApp, question: str = "w?") -> AnswerBlock:
    """Ask, and give the new block."""
    num_before = len(blocks(app))
    await pilot.press("f3")
    await until(pilot, lambda: app.screen.query(QuestionInput))
    app.screen.query_one(QuestionInput).focus()
    await pilot.press(*question, "enter")
    await until(pilot, lambda: len(blocks(app)) > num_before, "the block")
    return blocks(app)[-1]


async def test_an_answer_streams_in_and_names_its_sources(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        await until(pilot, lambda: "[1] rate-limits.md L8   [3] bucket.py L8   2.4 s" in screen_text(app))
        assert "The token bucket was chosen on 4 March [1]" in screen_text(app)
        assert block.query_one(Markdown).source == block.text
        assert [hit.chunk_id for hit in app.screen.query_one(HitList).hits] == [1, 2, 3]


async def test_escape_stops_at_once_and_keeps_what_came(app: GritDeskApp, desk: FakeDesk) -> None:
    never = threading.Event()
    desk.script = [EvidenceFound(tuple(sample_hits())), PieceGenerated("It was "), never, PieceGenerated("too late")]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.text == "It was ")
        await until(pilot, lambda: "Esc stops" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Stopped; this is what had come" in screen_text(app))
        assert block.state == "stopped" and block.text == "It was "
        await until(pilot, lambda: desk.num_answers_closed == 1, "the end of the generation")
        assert block.text == "It was "
        desk.script = list(sample_answer())
        following = await asked(pilot, app, "x?")
        await until(pilot, lambda: following.state == "finished")
        assert desk.named("ask")[1] == ("x?", (("w?", "It was "),), "chat 1")


async def test_a_new_question_stops_the_answer_before_it(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.script = [PieceGenerated("first "), threading.Event()]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        first = await asked(pilot, app)
        await until(pilot, lambda: first.text)
        desk.script = list(sample_answer())
        second = await asked(pilot, app, "x?")
        await until(pilot, lambda: second.state == "finished")
        assert (first.state, first.text) == ("stopped", "first ")


async def test_a_restarted_engine_voids_the_pieces_and_says_so(app: GritDeskApp, desk: FakeDesk) -> None:
    go_on = threading.Event()
    hits = tuple(sample_hits())
    desk.script = [
        EvidenceFound(hits),
        PieceGenerated("void words"),
        AnswerRestarted("it died of [signal 6]"),
        go_on,
        PieceGenerated("good "),
        PieceGenerated("words"),
        AnswerFinished(answer_of("w?", "good words", hits, (2,))),
    ]
    async with app.run_test(size=(200, 60)) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: "it died of [signal 6]" in screen_text(app))
        assert "void words" not in screen_text(app)
        go_on.set()
        await until(pilot, lambda: block.state == "finished")
        assert block.query_one(Markdown).source == "good words"
        await until(pilot, lambda: "the answer starts anew" in screen_text(app))


async def test_an_answer_without_evidence_is_visibly_marked(app: GritDeskApp, desk: FakeDesk) -> None:
    answer = answer_of("w?", "Perhaps.", (), (), grounded=False)
    desk.script = [EvidenceFound(()), PieceGenerated("Perhaps."), AnswerFinished(answer)]
    async with app.run_test(size=NARROW) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        assert block.has_class("-ungrounded")
        await until(pilot, lambda: "No passage in your files supports this answer" in screen_text(app))


async def test_a_sentence_that_nothing_supports_is_marked_and_counted(app: GritDeskApp, desk: FakeDesk) -> None:
    hits = tuple(sample_hits())
    text = "Chosen in March [1]. The moon agreed. Bursts pass [3].\n\n`take` was not asked."
    answer = answer_of("w?", text, hits, (1, 3))
    said = ("Chosen in March [1].", "The moon agreed.", "Bursts pass [3].", "`take` was not asked.")
    spans = [(text.index(each), text.index(each) + len(each)) for each in said]
    sentences = tuple(
        SentenceSupport(start, end, bool(n), answer.citations[place] if n else None, (n,) if n else ())
        for (start, end), n, place in zip(spans, (1, 0, 3, 0), (0, 0, 1, 0), strict=True)
    )
    answer = replace(answer, sentences=sentences)
    desk.script = [EvidenceFound(hits), PieceGenerated(text), AnswerFinished(answer)]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: "2 of 4 sentences supported by [1][3]" in screen_text(app))
        for marked in ("The moon agreed. [?]", "take was not asked. [?]"):
            assert marked in screen_text(app)
        assert block.text == text and block.exchange().answer.text == text
        strips = app.screen._compositor.render_strips()
        underlined = [each.text for strip in strips for each in strip if each.style and each.style.underline]
        assert "The moon agreed" in "".join(underlined)


async def test_without_evidence_g_has_the_model_answer_and_what_it_says_is_marked(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    none = replace(answer_of("w?", NO_EVIDENCE, (), (), grounded=False), evidence="none", nearest=(MISS,))
    desk.script = [EvidenceFound((), "none"), PieceGenerated(NO_EVIDENCE), AnswerFinished(none)]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        assert "[1] Tea is at four." in screen_text(app)
        own = replace(none, text="At three.", from_model=True)
        desk.script = [EvidenceFound((), "none"), PieceGenerated("At three."), AnswerFinished(own)]
        await pilot.press("g")
        await until(pilot, lambda: len(desk.named("ask")) == 2 and "From the model" in screen_text(app))
        assert desk.named("ask")[1] == ("w?", (), "chat 1", "anyway")
        await pilot.press("g")
        await pilot.pause()
        assert len(desk.named("ask")) == 2


async def test_a_failed_answer_says_why_and_a_surprise_does_not_end_the_app(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.script = [PieceGenerated("so "), ModelError("the engine gave up; try a smaller model")]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "failed")
        await until(pilot, lambda: "the engine gave up; try a smaller model" in screen_text(app))
        desk.script = [KeyError("surprise")]
        block = await asked(pilot, app, "x?")
        await until(pilot, lambda: block.state == "failed")
        await until(pilot, lambda: "unexpected KeyError" in screen_text(app))
        assert app.is_running


async def test_digits_show_citations_at_the_cited_words_and_enter_or_the_digit_opens_them(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished" and block.has_focus)
        hits, pane = app.screen.query_one(HitList), app.screen.query_one("#evidence-text", PassageView)
        for keys, passage in ((("3", "3"), "def take"), (("2", "enter"), "A server"), (("1", "enter"), "On 4 March")):
            await pilot.press(keys[0])
            await until(pilot, lambda passage=passage: pane.passage.strip().startswith(passage))
            assert hits.has_focus and not isinstance(app.screen, ViewerScreen)
            assert pane.cited == ("" if keys[0] == "2" else pane.passage)
            await pilot.press(keys[1])
            await until(pilot, lambda: isinstance(app.screen, ViewerScreen), f"the viewer after {keys}")
            view = app.screen.query_one(PassageView)
            await until(pilot, lambda view=view, passage=passage: view.passage.strip().startswith(passage))
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, ViewerScreen))
            block.focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen), "what is highlighted, from the answer")
        await pilot.press("escape", "9")
        await until(pilot, lambda: any("[1] to [3]" in each.message for each in app._notifications))


async def test_cited_sentence_is_marked_within_its_passage_and_scrolled_to(app: GritDeskApp, desk: FakeDesk) -> None:
    hits = tuple(sample_hits())
    quote = "A bucket holds 60 tokens and gains one a second."
    citation = Citation(1, hits[0].path, 9, 9, quote)
    answer = replace(answer_of("w?", "It holds 60 [1].", hits, (1,)), citations=(citation,))
    desk.script = [EvidenceFound(hits), PieceGenerated(answer.text), AnswerFinished(answer)]
    desk.documents[hits[0].path] = desk.documents[hits[0].path] + "\nmore" * 100
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        pane = app.screen.query_one("#evidence-text", PassageView)
        await until(pilot, lambda: pane.cited == quote)
        assert pane.passage.startswith("On 4 March") and pane.scroll_offset.y > 0
        strips = app.screen._compositor.render_strips()
        background = pane.get_component_rich_style("passage-view--cited").bgcolor
        marked = [each.text for strip in strips for each in strip if each.style and each.style.bgcolor == background]
        assert "".join(marked).replace(" ", "") == quote.replace(" ", "")


async def test_citation_opens_where_its_words_stand_by_now_and_says_what_changed(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, ...]] = []
    monkeypatch.setenv("EDITOR", "vim")
    monkeypatch.setattr(app, "_start_editor", lambda command: opened.append(command.arguments) or "")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    desk.cited_places = {1: Place("moved", 20, 22, "On 4 March"), 3: Place("changed", 30, 30, "def take")}
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        await pilot.press("1", "enter")
        await until(pilot, lambda: len(opened) == 1)
        assert "+20" in opened[0]
        await pilot.press("3", "enter")
        await until(pilot, lambda: len(opened) == 2)
        assert "+30" in opened[1]
        notes = [each.message for each in app._notifications]
        assert notes == [
            "it stood at line 8 and stands at line 20 now",
            "the file has changed: these words are not in it any more; the nearest are at line 30",
        ]


async def test_citation_that_is_shown_here_has_the_lines_of_its_file(app: GritDeskApp, desk: FakeDesk) -> None:
    hits = tuple(sample_hits())
    citation = Citation(1, hits[0].path, 9, 9, "A bucket holds 60 tokens and gains one a second.")
    answer = replace(answer_of("w?", "It holds 60 [1].", hits, (1,)), citations=(citation,))
    desk.script = [EvidenceFound(hits), PieceGenerated(answer.text), AnswerFinished(answer)]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        await pilot.press("1", "enter")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        view = app.screen.query_one(PassageView)
        await until(pilot, lambda: view.cited == citation.quote)
        # the heading, the line that the passage begins in, and the file's last
        shown = screen_text(app).splitlines()
        for number, words in ((1, "# Rate limits"), (8, "On 4 March"), (13, "What a refused client")):
            (row,) = [each for each in shown if words in each]
            assert str(number) in row.split()[:2]  # behind the bar of what is marked


async def test_keys_move_between_answers_evidence_and_question(app: GritDeskApp) -> None:
    async with app.run_test(size=NARROW) as pilot:
        await ready(pilot)
        first = await asked(pilot, app)
        await until(pilot, lambda: first.state == "finished")
        second = await asked(pilot, app, "x?")
        await until(pilot, lambda: second.state == "finished")
        assert second.has_focus
        await pilot.press("alt+up")
        assert first.has_focus
        await pilot.press("alt+down", "pageup", "up", "down", "k", "j", "pagedown")
        assert second.has_focus
        assert not app.screen.query_one("#evidence").display
        await pilot.press("e")
        assert app.screen.query_one("#evidence").display
        await pilot.press("y", "v")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))
        assert app.clipboard == str(Path("/notes/api/rate-limits.md"))
        await pilot.press("q", "escape")
        await until(pilot, lambda: app.screen.query(QuestionInput))
        await until(pilot, lambda: app.screen.query_one(QuestionInput).has_focus)


async def test_a_question_has_several_lines_and_a_new_conversation_forgets(app: GritDeskApp, desk: FakeDesk) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "Ask your files" in screen_text(app))
        await pilot.press("enter", "a", "ctrl+n", "b", "enter")
        await until(pilot, lambda: blocks(app) and blocks(app)[0].state == "finished")
        assert desk.named("ask") == [("a\nb", (), "chat 1")]
        await pilot.press("n", "n")
        await until(pilot, lambda: not blocks(app))
        assert app.screen.query_one(QuestionInput).has_focus
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        assert desk.named("ask")[1] == ("w?", (), "chat 2")


async def test_a_new_conversation_begins_a_chat_of_its_own_however_soon_it_comes(
    app: GritDeskApp, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, start = threading.Event(), desk.chats.start

    def start_late() -> str:
        desk._wait(gate)
        return start()

    monkeypatch.setattr(desk.chats, "start", start_late)
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await asked(pilot, app)
        await asked(pilot, app, "x?")
        await pilot.press("n", "n")
        await until(pilot, lambda: not blocks(app))
        gate.set()
        await until(pilot, lambda: len(desk.named("ask")) == 2)
        block = await asked(pilot, app, "z?")
        await until(pilot, lambda: block.state == "finished")
        assert [chat for _, _, chat in desk.named("ask")] == ["chat 1", "chat 1", "chat 2"]


async def test_questions_are_answered_when_chats_are_kept_no_more_and_go_on_when_they_are_again(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        for are_kept in (True, False, True):
            desk.chats.are_kept = are_kept
            block = await asked(pilot, app)
            await until(pilot, lambda block=block: block.state == "finished")  # type: ignore[misc]
        assert [chat for _, _, chat in desk.named("ask")] == ["chat 1", "", "chat 1"]


@pytest.mark.parametrize("pane", ["the answer", "the evidence"])
async def test_letters_typed_outside_the_question_line_go_there_with_the_focus(app: GritDeskApp, pane: str) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished" and block.has_focus)
        if pane == "the evidence":
            await pilot.press("1")
        question = app.screen.query_one(QuestionInput)
        # as a terminal hands them on that was typed into faster than the screen could follow; e, n and y are commands
        for character in "When, why?":
            app.post_message(events.Key(_character_to_key(character), character))
        await until(pilot, lambda: question.has_focus and question.text == "When, why?")
        await pilot.press("enter")
        await until(pilot, lambda: len(blocks(app)) == 2)
        assert blocks(app)[1].question == "When, why?"


async def test_at_sign_typed_at_an_answer_opens_the_picker(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished" and block.has_focus)
        await pilot.press(*"@rlm")
        picker = app.screen.query_one(ScopePicker)
        await until(pilot, lambda: picker.letters == "rlm" and picker.display)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.scope == (Path("/notes/api/rate-limits.md"),))  # type: ignore[attr-defined]


async def test_key_that_begins_anew_asks_first_and_commands_do_not(
    desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.config = replace(desk.config, keys={"ask.new": "b"})
    app = GritDeskApp(lambda: desk, desk.config)  # type: ignore[arg-type, return-value]
    now = 100.0
    monkeypatch.setattr(ask, "monotonic", lambda: now)
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished" and block.has_focus)
        said = "Press b again to begin anew; the chat is kept."
        await pilot.press("b")
        assert [each.message for each in app._notifications] == [said]
        now += 2.5
        await pilot.press("b")
        assert blocks(app) == [block] and block.has_focus
        await pilot.press("b")
        await until(pilot, lambda: not blocks(app))
        for begin in ("/new", "palette"):
            block = await asked(pilot, app)
            await until(pilot, lambda block=block: block.state == "finished" and block.has_focus)
            if begin == "/new":
                app.screen.query_one(QuestionInput).focus()
                await pilot.press(*"/new", "enter")
            else:
                commands = {each.title: each.callback for each in app.get_system_commands(app.screen)}
                await commands["New (b)"]()
            await until(pilot, lambda: not blocks(app))


async def test_a_question_waits_for_the_model_and_says_so(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    desk.script.insert(0, desk.model_gate)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.activity.desk == "open")
        block = await asked(pilot, app)
        await until(pilot, lambda: "Waiting for the model" in screen_text(app))
        desk.model_gate.set()
        await until(pilot, lambda: block.state == "finished")


async def test_what_was_searched_for_is_shown_where_the_question_leaves_it_out(
    app: GritDeskApp, desk: FakeDesk
) -> None:
    *events, last = sample_answer()
    assert isinstance(last, AnswerFinished)
    desk.script = [*events, AnswerFinished(replace(last.answer, searched_for="w? token bucket"))]
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished")
        assert "Searched for: w? token bucket" in screen_text(app)


async def test_the_last_chat_is_shown_again_and_gone_on_with(app: GritDeskApp, desk: FakeDesk) -> None:
    hits = tuple(sample_hits())
    kept = Exchange(answer_of("Why a bucket?", "It lets bursts through [1].", hits, (1,)), hits, 1709992800.0)
    desk.chats.kept = Chat("20240309-150000-3f2a", "Why a bucket?", (kept,))
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        screen = app.screen
        assert isinstance(screen, AskScreen)
        await screen.action_continue_chat()
        await until(pilot, lambda: "It lets bursts through [1]" in screen_text(app))
        assert [hit.chunk_id for hit in screen.query_one(HitList).hits] == [1, 2, 3]
        following = await asked(pilot, app, "x?")
        await until(pilot, lambda: following.state == "finished")
        past = (("Why a bucket?", "It lets bursts through [1]."),)
        assert desk.named("ask") == [("x?", past, "20240309-150000-3f2a")]


async def test_without_a_chat_to_go_on_with_that_is_said(app: GritDeskApp) -> None:
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        screen = app.screen
        assert isinstance(screen, AskScreen)
        await screen.action_continue_chat()
        await until(pilot, lambda: "there is no chat to go on with" in screen_text(app))


async def test_the_footer_says_stop_only_while_there_is_something_to_stop(app: GritDeskApp, desk: FakeDesk) -> None:
    desk.model_gate.clear()
    desk.script.insert(0, desk.model_gate)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.activity.desk == "open")
        await pilot.press("f3")
        await until(pilot, lambda: app.screen.query(QuestionInput) and "F1 Help" in footer(app))
        assert "Stop" not in footer(app)
        block = await asked(pilot, app)
        await until(pilot, lambda: "Esc Stop" in footer(app))
        await pilot.press("escape")
        await until(pilot, lambda: block.state == "stopped" and "Esc Question" in footer(app))
        assert "Stop" not in footer(app)
        desk.model_gate.set()
        desk.script.pop(0)
        block = await asked(pilot, app)
        await until(pilot, lambda: block.state == "finished" and "Stop" not in footer(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, QuestionInput) and "Esc" not in footer(app))


async def test_the_nearest_of_a_markdown_file_is_shown_without_its_marks(app: GritDeskApp, desk: FakeDesk) -> None:
    quote = "## Call signs\n\n- Channel **16** is for `distress`\n  calls, see [1] and vector<int>\n\n3. Wait\n"
    quote += "\n| a | b |\n|---|---|\n| 1 | 2 |"
    misses = (
        replace(MISS, quote=quote, path=Path("/notes/radio.md")),
        replace(MISS, n=2, quote="x = **y**", path=Path("/n/x.py")),
    )
    none = replace(answer_of("w?", NO_EVIDENCE, (), (), grounded=False), evidence="none", nearest=misses)
    desk.script = [AnswerFinished(none)]
    async with app.run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await asked(pilot, app)
        shown = "Call signs Channel 16 is for distress calls, see [1] and vector<int> 3. Wait a b 1 2"
        await until(pilot, lambda: shown in screen_text(app) and "x = **y**" in screen_text(app))
