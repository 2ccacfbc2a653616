"""One file as the index has it: its passages with their borders and lengths, and what the model reads of each."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.errors import ModelError
from gritdesk.records import Chunk, Hit, PathReport, SimilarFiles
from gritdesk.tui.lane import Lane
from gritdesk.tui.screens.base import DeskScreen, beginning_of
from gritdesk.tui.text import one_line, plain, short_folder
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_ROW_CHARS = 100
"""Of a passage in its row, which ends where the list does."""


class FileInspected(Message):
    def __init__(self, report: PathReport, chunks: list[Chunk], model_texts: list[str]) -> None:
        super().__init__()
        self.report, self.chunks = report, chunks
        self.model_texts = model_texts
        """What the model reads of each passage; none where there is no model."""


class NeighboursFound(Message):
    def __init__(self, found: SimilarFiles) -> None:
        super().__init__()
        self.found = found


class InspectScreen(DeskScreen):
    HELP = (
        "**Inspect.** One file as the index has it, passage by passage. `inspect.model` shows what the model reads of "
        "a passage, `inspect.similar` the files nearest by meaning, of which `inspect.open` opens one."
    )
    BINDING_GROUP_TITLE = "Inspect"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="inspect.close", tooltip="Back to where you came from"),
        Binding(
            "c", "toggle_model", "What the model sees", id="inspect.model", tooltip="Text, or what is embedded of it"
        ),
        Binding(
            "s", "neighbours", "Similar files", id="inspect.similar", tooltip="Files nearest to this one by meaning"
        ),
        Binding(
            "o,enter", "open", "Open", id="inspect.open", tooltip="Open the file at the passage, or the similar file"
        ),
        Binding(
            "y",
            "copy_path",
            "Copy path",
            show=False,
            id="inspect.copy",
            tooltip="Copy the path of the file, or of the similar one",
        ),
    ]

    shows_model: reactive[bool] = reactive(False, init=False)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._chunks: list[Chunk] = []
        self._model_texts: list[str] = []
        self._report: PathReport | None = None
        self._neighbours: list[Path] = []
        """In the order of their list."""
        self._lane = Lane(self, "inspect")
        self._neighbour_lane = Lane(self, "neighbours")

    def compose(self) -> ComposeResult:
        yield StatusLine("")
        yield Static(Content.styled(plain(str(self._path)), "bold"), id="inspect-title")
        with Horizontal(id="inspect-body"):
            yield Rows(id="inspect-chunks", markup=False)
            with Vertical(id="inspect-side"):
                yield Static(id="inspect-facts")
                with VerticalScroll(id="inspect-scroll"):
                    yield Static(id="inspect-text")
                yield Rows(id="inspect-neighbours", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self._neighbour_rows.display = False
        self.query_one(OptionList).focus()
        if self.desk is not None:
            desk, path = self.desk, self._path
            self._lane.submit(partial(_inspect, desk, path))

    def on_file_inspected(self, message: FileInspected) -> None:
        message.stop()
        self._chunks, self._report = message.chunks, message.report
        self._model_texts = message.model_texts
        report = message.report
        embedded = f"{report.num_embedded:,} of them with their meaning"
        tokens = f"{sum(chunk.num_tokens for chunk in self._chunks):,} tokens"
        told = f"{report.format}   {count(len(self._chunks), 'passage')}, {embedded}   {tokens}"
        title = (plain(self._path.name), "bold")
        folder = (short_folder(self._path), "$text-muted")
        self.query_one("#inspect-title", Static).update(Content.assemble(title, "  ", folder, "   ", told))
        rows = self.query_one("#inspect-chunks", OptionList)
        rows.set_options(Option(_row(number, chunk)) for number, chunk in enumerate(self._chunks, 1))
        if self._chunks:
            rows.highlighted = 0
        else:
            self.query_one("#inspect-text", Static).update(Content(one_line(report.reason)))

    @on(OptionList.OptionHighlighted, "#inspect-chunks")
    def _show_chunk(self) -> None:
        chunk = self._chosen
        if chunk is None:
            return
        self._hide_neighbours()
        lines = f"lines {chunk.line_start} to {chunk.line_end}, characters {chunk.char_start:,} to {chunk.char_end:,}"
        page = f", page {chunk.page}" if chunk.page else ""
        heading = f"\n{one_line(chunk.heading)}" if chunk.heading else ""
        model_text = self._model_texts[self._chunks.index(chunk)] if self._model_texts else ""
        view = "" if not self.shows_model else "as the model reads it: " if model_text else "no model can be asked: "
        facts = Content.assemble(
            (view, "bold"),
            (f"{chunk.num_tokens:,} tokens, {lines}{page}", "$text-muted"),
            (heading, "$text-secondary"),
        )
        self.query_one("#inspect-facts", Static).update(facts)
        text = model_text if self.shows_model and model_text else chunk.text
        self.query_one("#inspect-text", Static).update(Content(plain(text)))
        self.query_one("#inspect-scroll", VerticalScroll).scroll_home(animate=False)

    @property
    def _chosen(self) -> Chunk | None:
        index = self.query_one("#inspect-chunks", OptionList).highlighted
        return self._chunks[index] if index is not None and index < len(self._chunks) else None

    def watch_shows_model(self) -> None:
        self._show_chunk()

    def action_toggle_model(self) -> None:
        self.shows_model = not self.shows_model

    def action_neighbours(self) -> None:
        if self.desk is not None:
            desk, path = self.desk, self._path
            self._neighbour_lane.submit(lambda: NeighboursFound(desk.similar(path)))

    def on_neighbours_found(self, message: NeighboursFound) -> None:
        message.stop()
        found = [(hit.path, f"{hit.score:.2f}") for hit in message.found.hits]
        found += [(path, "the same") for path in message.found.copies]
        self._neighbours = [path for path, _ in found]
        told = "Nearest by meaning; Enter opens one" if found else "No other file is near in meaning"
        self.query_one("#inspect-facts", Static).update(Content.styled(told, "bold"))
        rows = self._neighbour_rows
        rows.set_options(Option(_neighbour(path, how_near)) for path, how_near in found)
        rows.display, self.query_one("#inspect-scroll").display = True, False
        if found:
            rows.highlighted = 0
            rows.focus()

    @property
    def _neighbour_rows(self) -> Rows:
        return self.query_one("#inspect-neighbours", Rows)

    @property
    def _chosen_neighbour(self) -> Path | None:
        rows = self._neighbour_rows
        return self._neighbours[rows.highlighted] if rows.has_focus and rows.highlighted is not None else None

    def _hide_neighbours(self) -> None:
        rows = self._neighbour_rows
        if rows.has_focus:
            self.query_one("#inspect-chunks").focus()
        rows.display, self.query_one("#inspect-scroll").display = False, True

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        if (neighbour := self._chosen_neighbour) is not None:
            self.open_hit(beginning_of(neighbour))
        elif (chunk := self._chosen) is not None:
            self.open_hit(Hit(0, self._path, chunk, 0.0))

    def action_copy_path(self) -> None:
        self.copy_path(beginning_of(self._chosen_neighbour or self._path))

    def action_close(self) -> None:
        if self._neighbour_rows.display:
            self._hide_neighbours()
            self.query_one("#inspect-facts", Static).update("")  # of a file without passages there is nothing to say
            self._show_chunk()
        else:
            self.dismiss()


def _inspect(desk: Desk, path: Path) -> FileInspected:
    chunks = desk.chunks_of(path)
    model_texts: list[str] = []
    with suppress(ModelError):  # the file can be looked at without one
        model_texts = desk.model_texts(chunks)
    return FileInspected(desk.why(path), chunks, model_texts)


def _row(number: int, chunk: Chunk) -> Content:
    place = f"p. {chunk.page}" if chunk.page else f"L{chunk.line_start}"
    return Content.assemble(
        (f"{number:>3} ", "$text-muted"), (f"{place:<7}", "$text-primary"), one_line(chunk.text)[:_ROW_CHARS]
    )


def _neighbour(path: Path, how_near: str) -> Content:
    return Content.assemble(
        (f"{how_near:>8}  ", "$text-primary"), (plain(path.name), "bold"), "  ", (short_folder(path), "$text-muted")
    )
