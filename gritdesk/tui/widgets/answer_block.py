"""One question and its answer, from the search for passages to the sources under the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static
from textual.widgets.markdown import MarkdownStream

from gritdesk.records import MOST_COUNTED, UNSUPPORTED, Answer, Citation, Evidence, Exchange, Hit
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.text import cited_place, plain, speed
from gritdesk.tui.widgets.answer_markdown import AnswerMarkdown, text_of
from gritdesk.tui.widgets.status_line import count

_MARKDOWN = re.compile(r"[*_`~|#\n<]|^\s*(?:[-+>]|\d+[.)])\s")
_SPEED_EVERY_S = 0.5
"""A figure that changes with every piece cannot be read."""
State = Literal["searching", "writing", "finished", "stopped", "failed"]


class AnswerBlock(Guarded, Vertical, can_focus=True):
    """Takes the events of one answer, in order; what it shows follows from its state."""

    HELP = (
        "**Answer.** `ask.open_1` to `ask.open_9` show the numbered sources at the lines that are cited; `answer.open` "
        "or the same key again opens one in your editor. What is underlined and marked [?] no passage supports.\n\n"
        "`ask.stop` stops an answer at once and keeps what came; then it goes back to the question line. `ask.next` "
        "and `ask.previous` go from answer to answer, `ask.all` asks all files again, `ask.new` twice begins "
        "a new conversation. A letter that does nothing here, and `@`, goes to the question line."
    )
    BINDING_GROUP_TITLE = "Answer"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "screen.open_source", "Open", show=False, id="answer.open", tooltip="Open the highlighted source"
        ),
        Binding("up,k", "scroll_conversation(-1)", "Up", show=False, id="answer.up", tooltip="Scroll up"),
        Binding("down,j", "scroll_conversation(1)", "Down", show=False, id="answer.down", tooltip="Scroll down"),
    ]

    def __init__(self, number: int, question: str, within: tuple[Path, ...] = ()) -> None:
        super().__init__()
        self.number = number
        self.question = question
        self.within = within
        """The files and folders that are asked; none: all."""
        self.hits: tuple[Hit, ...] = ()
        """Evidence [1], [2], ... of the answer."""
        self.state: State = "searching"
        self.answer: Answer | None = None
        self._is_from_model = False
        self.text = ""
        """What has come so far."""
        self._stream: MarkdownStream | None = None
        self._began = monotonic()
        self._first_after_s = 0.0
        self._num_pieces = 0
        self._told_at = 0.0

    def compose(self) -> ComposeResult:
        yield Static(Content(plain(self.question)), classes="question")
        yield Static(classes="restart-note")
        yield AnswerMarkdown(classes="answer")
        yield Static(Content("Looking for passages …"), classes="ground")

    @property
    def is_running(self) -> bool:
        return self.state in ("searching", "writing")

    @property
    def cited(self) -> frozenset[int] | None:
        """Numbers that the answer cites; None until it is finished."""
        return frozenset(each.n for each in self.answer.citations) if self.answer else None

    def citation(self, n: int) -> Citation | None:
        """What [n] leads to: what the answer cites, or the place that came nearest to one."""
        if self.answer is None:
            return None
        nearest = (*self.answer.nearest, *([self.answer.closest] if self.answer.closest else []))
        return next((each for each in (*self.answer.citations, *nearest) if each.n == n), None)

    def exchange(self) -> Exchange | None:
        """What a later question should know of this one; None if nothing came."""
        if not self.text or self.state == "failed":
            return None
        if self.answer is not None:
            return Exchange(self.answer, self.hits)
        evidence: Evidence = "none" if self._is_from_model else "found"
        stopped = Answer(self.question, self.text, False, stopped=True, evidence=evidence, within=self.within)
        return Exchange(replace(stopped, from_model=self._is_from_model), self.hits)

    async def show_exchange(self, exchange: Exchange) -> None:
        """Show a question and answer that are kept."""
        self.hits, self.within = exchange.hits, exchange.answer.within
        await self.finish(exchange.answer)

    def show_waiting_for_model(self) -> None:
        self._say("Waiting for the model; it is being loaded …")

    def show_evidence(self, hits: tuple[Hit, ...], evidence: Evidence = "found") -> None:
        self.hits = hits
        self._is_from_model = evidence == "none" and not hits
        stop = keymap_of(self).key_of("ask.stop")
        self._say(
            f"Reading {count(len(hits), 'passage')} …  {stop} stops" if hits else f"No passage found; {stop} stops"
        )

    async def write(self, pieces: Sequence[str]) -> None:
        self.state = "writing"
        text = plain("".join(pieces))
        self.text += text
        if self._stream is None:
            self._stream = AnswerMarkdown.get_stream(self._markdown)
        await self._stream.write(text)
        is_first = not self._num_pieces
        self._num_pieces += len(pieces)
        self._tell_speed(is_first)

    def _tell_speed(self, is_first: bool) -> None:
        now = monotonic()
        if is_first:
            self._first_after_s = now - self._began
        elif now - self._told_at < _SPEED_EVERY_S:
            return
        self._told_at = now
        writing_s = now - self._began - self._first_after_s
        pace = "" if is_first else f", {(self._num_pieces - 1) / writing_s:.0f} pieces/s"
        stop = keymap_of(self).key_of("ask.stop")
        self._say(f"Writing … first piece after {self._first_after_s:.1f} s{pace}.  {stop} stops")

    async def restart(self, reason: str) -> None:
        """Void what came: the engine died and the answer comes anew."""
        await self._end_stream()
        self.text, self._num_pieces = "", 0
        await self._markdown.update("")
        self.state = "searching"
        note = self.query_one(".restart-note", Static)
        note.update(Content(f"The engine was restarted ({plain(reason)}); the answer starts anew."))
        note.add_class("-shown")

    async def finish(self, answer: Answer) -> None:
        self.answer = answer
        self.state = "stopped" if answer.stopped else "finished"
        await self._settle(plain(answer.text), marked(answer))
        self.set_class(not answer.grounded and not answer.stopped, "-ungrounded")
        self._show_ground(answer)
        self._searched_for(answer)

    async def stop(self) -> None:
        """Keep what came and take no more."""
        self.state = "stopped"
        self._say_stopped()  # at once; the text is all but settled
        await self._settle(self.text)

    async def fail(self, problem: str) -> None:
        self.state = "failed"
        await self._settle(self.text)
        self.add_class("-failed")
        self._say(f"✕ {plain(problem)}", "$text-error")

    def action_scroll_conversation(self, lines: int) -> None:
        if self.parent is not None:
            self.parent.scroll_relative(y=lines, animate=False)  # type: ignore[attr-defined]

    @property
    def _markdown(self) -> AnswerMarkdown:
        return self.query_one(AnswerMarkdown)

    async def _settle(self, text: str, shown: str = "") -> None:
        """End the stream and make sure that exactly `text` stands there, or as it is `shown` with marks in it."""
        await self._end_stream()
        self.text = text
        if self._markdown.source != (shown or text):
            await self._markdown.update(shown or text)

    async def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.stop()

    def _show_ground(self, answer: Answer) -> None:
        if answer.from_model:
            self.query_one(".ground", Static).update(self._nearest(answer))
        elif answer.stopped:
            self._say_stopped()
        elif answer.evidence == "none":
            self.query_one(".ground", Static).update(self._nearest(answer))
        elif not answer.grounded:
            self.query_one(".ground", Static).update(self._closest(answer))
        else:
            self.query_one(".ground", Static).update(self._sources(answer))

    def _nearest(self, answer: Answer) -> Content:
        """Where there is no evidence: that the words are the model's own, or what came nearest and how to go on."""
        if answer.from_model:
            return Content.styled("⚠ From the model, not from your files.", "bold $text-warning")
        quotes = [
            Content.assemble((f"[{each.n}] ", "bold $text-accent"), text_of(each.quote, each.path))
            for each in answer.nearest
        ]
        lines = [Content(_found_without(*each)) for each in answer.removed]
        lines += [Content("The nearest:"), *quotes] if quotes else [Content("No passage was found.")]
        keys = keymap_of(self)
        told = f"{keys.key_of('ask.anyway')} has the model answer from itself"
        if answer.within:
            told += f", {keys.key_of('ask.all')} goes back to all files"
        return Content("\n").join([*lines, Content.styled(told, "$text-muted")])

    def _closest(self, answer: Answer) -> Content:
        warning = ("⚠ No passage in your files supports this answer.", "bold $text-warning")
        if answer.closest is None:
            return Content.assemble(warning)
        quote = text_of(answer.closest.quote, answer.closest.path)
        return Content.assemble(warning, "\nThe closest: ", (f"[{answer.closest.n}] ", "bold $text-accent"), quote)

    def _searched_for(self, answer: Answer) -> None:
        """What was searched for, where the question left out what was said before."""
        if answer.searched_for:
            note = self.query_one(".restart-note", Static)
            note.update(Content.styled(f"Searched for: {plain(answer.searched_for)}", "$text-muted"))
            note.add_class("-shown")

    def _sources(self, answer: Answer) -> Content:
        cited = [each for each in answer.citations if 0 < each.n <= len(self.hits)]
        is_whole = all(each.is_supported for each in answer.sentences)
        parts = [Content.styled(answer.support, "" if is_whole else "$text-warning")] if answer.support else []
        if answer.evidence == "thin":
            parts.append(Content.styled("⚠ Your files hold little on this.", "$text-warning"))
        for citation in cited:
            hit = self.hits[citation.n - 1]
            label = (f"[{citation.n}] ", "bold $text-accent")
            parts.append(Content.assemble(label, f"{plain(hit.path.name)} ", (cited_place(citation), "$text-primary")))
        if took := speed(answer):
            parts.append(Content.styled(took, "$text-muted"))
        return Content("   ").join(parts)

    def _say_stopped(self) -> None:
        self._say("■ Stopped; this is what had come." if self.text else "■ Stopped before a word had come.")

    def _say(self, line: str, style: str = "$text-muted") -> None:
        self.query_one(".ground", Static).update(Content.styled(line, style))


def _found_without(restriction: str, num: int) -> str:
    many = f"{num} or more passages" if num >= MOST_COUNTED else count(num, "passage")
    return f"{plain(restriction)} leaves nothing; without it there {'is' if num == 1 else 'are'} {many}."


def marked(answer: Answer) -> str:
    """The answer in Markdown, with every sentence that nothing supports struck through, which is drawn as underlined.

    One that holds Markdown of its own, or goes over lines, gets the mark behind it alone.
    """
    text = answer.text
    for sentence in reversed(answer.sentences if answer.grounded else ()):
        if not sentence.is_supported:
            said = text[sentence.start : sentence.end]
            body = said if _MARKDOWN.search(said) else f"~~{said}~~"
            text = f"{text[: sentence.start]}{body} {UNSUPPORTED}{text[sentence.end :]}"
    return plain(text)
