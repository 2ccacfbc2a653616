"""Folders and files as they stand in the index: what is read, what waits, what failed and what is skipped, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.records import FileRow, FolderRow, IndexProgress, Library, PathReport, Skip
from gritdesk.terminal import in_words
from gritdesk.tui.keymap import Keymap, keymap_of
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.base import DeskScreen, beginning_of
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.inspect import InspectScreen
from gritdesk.tui.text import ago, one_line, plain, short_folder, size
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk

Tab = Literal["folders", "files", "waiting", "failed", "skipped"]
TABS: tuple[Tab, ...] = ("folders", "files", "waiting", "failed", "skipped")
_MOST_ROWS = 5_000
"""A list of more is a search to be made elsewhere."""


class LibraryRead(Message):
    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library


class LibraryRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class PathExplained(Message):
    def __init__(self, report: PathReport) -> None:
        super().__init__()
        self.report = report


class LibraryChanged(Message):
    """Something was asked of the library and is done; `told` says what."""

    def __init__(self, told: str) -> None:
        super().__init__()
        self.told = told


class LibraryScreen(DeskScreen):
    HELP = (
        "**Library.** `library.next` leads through folders, files, what waits, what failed and what is skipped; beside "
        "each stands why. `library.inspect` shows what the index holds of a file."
    )
    BINDING_GROUP_TITLE = "Library"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "tab", "cycle_tab(1)", "Next list", id="library.next", tooltip="Folders, files, waiting, failed, skipped"
        ),
        Binding(
            "shift+tab", "cycle_tab(-1)", "Previous list", show=False, id="library.previous", tooltip="Previous list"
        ),
        Binding("+,a", "add_folder", "Add", id="library.add", tooltip="Keep one more folder in the index"),
        Binding("delete,d", "remove", "Remove", id="library.remove", tooltip="Take the folder out of the index"),
        Binding("p", "toggle_pause", "Pause", id="library.pause", tooltip="Pause indexing everywhere, or go on"),
        Binding(
            "q", "toggle_quiet", "Quiet", id="library.quiet", tooltip="Index slowly behind everything else, or not"
        ),
        Binding(
            "r", "retry", "Retry", id="library.retry", tooltip="Read the failed file again, or look at all folders"
        ),
        Binding("i", "inspect", "Inspect", id="library.inspect", tooltip="Show what the index holds of the file"),
        Binding("o", "open", "Open", show=False, id="library.open", tooltip="Open the file"),
        Binding("y", "copy_path", "Copy path", show=False, id="library.copy", tooltip="Copy the path"),
    ]

    tab: reactive[Tab] = reactive("folders", init=False)

    def __init__(self) -> None:
        super().__init__()
        self._library: Library | None = None
        self._rows: Sequence[FolderRow | FileRow | Skip] = ()
        self._read_lane = Lane(self, "library")
        self._why_lane = Lane(self, "why")

    def compose(self) -> ComposeResult:
        yield StatusLine("library")
        yield Static(id="library-work")
        yield Static(id="library-tabs")
        with Horizontal(id="library-body"):
            yield Rows(id="library-rows", markup=False)
            with Vertical(id="library-side"):
                yield Static(id="library-detail")
        yield EmptyState(id="library-empty")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self._show()
        self.query_one("#library-rows").focus()

    def on_screen_resume(self) -> None:
        self._read()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        work = self.query_one("#library-work", Static)
        work.set_class(bool(now.index_problem) and not (now.status and now.status.paused), "-problem")
        work.update(_work(now, keymap_of(self)))
        self.show_titles()
        if now.desk == "open" and (before.desk != "open" or before.status is not now.status):
            self._read()
        elif now.desk == "failed":
            self._say("The index could not be opened", now.desk_problem, "", "`app.reopen` tries again.")

    @property
    def titles(self) -> Mapping[str, str]:
        status = self.activity.status
        paused = {"toggle_pause": "Resume"} if status is not None and status.paused else {}
        return paused | ({"toggle_quiet": "Full speed"} if status is not None and status.quiet else {})

    # reading and showing

    def _read(self) -> None:
        if self.desk is not None:
            desk = self.desk
            self._read_lane.submit(lambda: LibraryRead(desk.library()), LibraryRefused)

    def on_library_read(self, message: LibraryRead) -> None:
        message.stop()
        self._library = message.library
        self._show()

    def on_library_refused(self, message: LibraryRefused) -> None:
        message.stop()
        self._say("The library could not be read", message.problem, "", "`library.retry` looks again.")

    def watch_tab(self) -> None:
        self._show()

    def _show(self) -> None:
        library = self._library
        if library is None:
            if self.activity.desk != "failed":  # which is said already
                self._say("Looking at the folders …")
            return
        self._rows = _rows_of(library, self.tab)
        self.query_one("#library-tabs", Static).update(_tabs(library, self.tab))
        empty = self.query_one(EmptyState)
        body = self.query_one("#library-body")
        empty.display, body.display = not self._rows, bool(self._rows)
        if not self._rows:
            empty.say(*_EMPTY[self.tab])
            return
        rows = self.query_one("#library-rows", OptionList)
        kept = rows.highlighted
        with self.prevent(OptionList.OptionHighlighted):
            rows.set_options(Option(_row_content(row)) for row in self._rows[:_MOST_ROWS])
        rows.highlighted = min(kept or 0, len(self._rows) - 1)
        self._show_detail()

    def _say(self, *lines: str) -> None:
        self.query_one("#library-body").display = False
        empty = self.query_one(EmptyState)
        empty.display = True
        empty.say(*lines)

    @property
    def _chosen(self) -> FolderRow | FileRow | Skip | None:
        index = self.query_one("#library-rows", OptionList).highlighted
        return self._rows[index] if index is not None and index < len(self._rows) else None

    @on(OptionList.OptionHighlighted, "#library-rows")
    def _show_detail(self) -> None:
        chosen = self._chosen
        detail = self.query_one("#library-detail", Static)
        if isinstance(chosen, FolderRow):
            assert self._library is not None
            detail.update(_folder_detail(chosen, self._library))
        elif isinstance(chosen, Skip):
            detail.update(_skip_detail(chosen))
        elif isinstance(chosen, FileRow) and self.desk is not None:
            detail.update(self._file_detail(chosen, None))
            desk, path = self.desk, chosen.path
            self._why_lane.submit(lambda: PathExplained(desk.why(path)))

    def on_path_explained(self, message: PathExplained) -> None:
        message.stop()
        chosen = self._chosen
        if isinstance(chosen, FileRow) and chosen.path == message.report.path:
            self.query_one("#library-detail", Static).update(self._file_detail(chosen, message.report))

    def _file_detail(self, row: FileRow, report: PathReport | None) -> Content:
        return _file_detail(row, report, keymap_of(self).key_of("library.retry"))

    # keys

    def action_cycle_tab(self, step: int) -> None:
        self.query_one("#library-rows", OptionList).highlighted = 0
        self.tab = TABS[(TABS.index(self.tab) + step) % len(TABS)]

    def action_add_folder(self) -> None:
        self.grit_app.action_add_folder()

    def action_remove(self) -> None:
        chosen = self._chosen
        if not isinstance(chosen, FolderRow):
            key = keymap_of(self).key_of("library.next")
            self.notify(f"Only whole folders are removed: {key} leads to them. A .gritignore leaves out single files.")
            return
        self.app.push_screen(
            ConfirmScreen("Take this folder out of the index?", _cost_of_removing(chosen), "Remove it"),
            partial(self._remove, chosen.path),
        )

    def _remove(self, folder: Path, is_wanted: bool | None) -> None:
        if is_wanted:
            self.do(partial(_forget, folder=folder))

    def action_toggle_pause(self) -> None:
        self.do(_toggle_pause)

    def action_toggle_quiet(self) -> None:
        self.grit_app.action_toggle_quiet()

    def action_retry(self) -> None:
        chosen = self._chosen
        if isinstance(chosen, FileRow) and chosen.state == "failed":
            self.do(partial(_retry, path=chosen.path))
        else:
            self._read()
            self.grit_app.look_again()

    def on_library_changed(self, message: LibraryChanged) -> None:
        message.stop()
        self.notify(message.told, markup=False)
        self._read()
        self.grit_app.read_status()

    def action_inspect(self) -> None:
        chosen = self._chosen
        if isinstance(chosen, FileRow) and chosen.state in ("indexed", "changed", "missing"):
            self.app.push_screen(InspectScreen(chosen.path))
        elif isinstance(chosen, FolderRow):
            self.tab = "files"
        else:
            self.notify("The index holds nothing of it yet.")

    @on(OptionList.OptionSelected, "#library-rows")
    def _selected(self) -> None:
        self.action_inspect()

    def action_open(self) -> None:
        if isinstance(self._chosen, FileRow):
            self.open_hit(beginning_of(self._chosen.path))

    def action_copy_path(self) -> None:
        if self._chosen is not None:
            self.copy_path(beginning_of(self._chosen.path))


_EMPTY: dict[Tab, tuple[str, ...]] = {
    "folders": ("No folders yet", "`library.add` adds one. It is found by words at once, by meaning soon after."),
    "files": (
        "No files",
        "The folders hold no file that gritdesk reads. `library.next` goes on to what is skipped, and why.",
    ),
    "waiting": ("Nothing waits", "Every file is in the index as it lies on the disk."),
    "failed": ("Every file could be read", "Files that cannot be read are listed here, each with its reason."),
    "skipped": ("Nothing is skipped", "What `.gitignore`, `.gritignore` and the usual rules leave out is listed here."),
}


def _rows_of(library: Library, tab: Tab) -> Sequence[FolderRow | FileRow | Skip]:
    match tab:
        case "folders":
            return library.folders
        case "files":
            return library.files
        case "waiting":
            return [row for row in library.files if row.state in ("waiting", "changed")]
        case "failed":
            return [row for row in library.files if row.state == "failed"]
        case "skipped":
            return library.skips


def _tabs(library: Library, active: Tab) -> Content:
    numbers = {tab: len(_rows_of(library, tab)) for tab in TABS} | {"skipped": sum(library.num_skipped.values())}
    parts = []
    for tab in TABS:
        style = "bold underline" if tab == active else "$text-muted"
        parts.append(Content.assemble((tab.capitalize(), style), (f" {numbers[tab]:,}", "$text-muted")))
    return Content("   ").join(parts)


def _work(activity: Activity, keymap: Keymap) -> Content:
    """What is being done now, and how long it will take; what ended it, and what to do."""
    status, progress = activity.status, activity.progress
    if status is not None and status.paused:
        return Content.styled(f"‖ {status.paused}", "$text-warning")
    if activity.index_problem:
        chooses = ", `app.settings` chooses another model" if activity.model == "failed" else ""
        remedy = keymap.told(f"What was read is found, and nothing new is read. `app.reopen` tries again{chooses}.")
        problem = (f"✕ {one_line(activity.index_problem)}", "$text-error")
        # first, for a long path may take all the rows there are
        return Content.assemble((remedy.replace("`", ""), "$text-muted"), "\n", problem)
    loud = keymap.key_of("library.quiet")
    quiet = (f"   quiet: works a third of the time, {loud} ends that", "$text-muted")
    quietly = quiet if status is not None and status.quiet else ""
    if not activity.is_indexing or progress is None or progress.is_done:
        return Content.assemble(("Everything is read. Changes are followed.", "$text-muted"), quietly)
    return Content.assemble(("▸ ", "$primary"), _doing(progress), quietly)


def _doing(progress: IndexProgress) -> str:
    left = f", {in_words(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    if progress.chunks_awaiting:
        return f"{progress.chunks_awaiting:,} passages are found by words and await their meaning{left}"
    current = f"   {plain(progress.current.name)}" if progress.current else ""
    return f"reading {progress.files_done:,} of {progress.files_total:,} files{left}{current}"


_MARKS = {
    "indexed": ("●", "$text-success"),
    "changed": ("◐", "$text-warning"),
    "waiting": ("○", "$text-muted"),
    "failed": ("✕", "$text-error"),
    "missing": ("◌", "$text-muted"),
}


def _row_content(row: FolderRow | FileRow | Skip) -> Content:
    if isinstance(row, FolderRow):
        sums = f"{count(row.num_indexed, 'file')}, {count(row.num_chunks, 'passage')}, {size(row.size_bytes)}"
        extra = "".join(
            f"  {number:,} {what}"
            for number, what in ((row.num_waiting, "waiting"), (row.num_failed, "failed"))
            if number
        )
        problem = ("  ✕ away", "$text-error") if row.problem else ""
        return Content.assemble((plain(str(row.path)), "bold"), "  ", (sums + extra, "$text-muted"), problem)
    if isinstance(row, Skip):
        return Content.assemble((plain(row.path.name), "bold"), "  ", (one_line(row.reason), "$text-muted"))
    mark, style = _MARKS[row.state]
    told = one_line(row.reason) if row.reason else f"{short_folder(row.path)}  {size(row.size_bytes)}"
    return Content.assemble((f"{mark} ", style), (plain(row.path.name), "bold"), "  ", (told, "$text-muted"))


def _folder_detail(row: FolderRow, library: Library) -> Content:
    lines = [
        Content.styled(plain(str(row.path)), "bold"),
        Content.styled(one_line(row.problem), "$text-error"),
        Content(f"{count(row.num_indexed, 'file')} in the index, {count(row.num_chunks, 'passage')}"),
        Content(f"{size(row.size_bytes)} on the disk"),
        Content(f"{row.num_waiting:,} wait to be read, {row.num_failed:,} could not be read"),
    ]
    if len(library.folders) > 1:
        num_files = sum(each.state in ("indexed", "changed", "missing") for each in library.files)
        total = f"in all: {count(num_files, 'file')}, {count(library.num_chunks, 'passage')}"
        lines.append(Content.styled(total, "$text-muted"))
    return Content("\n").join(lines)


_STATES = {
    "indexed": "in the index as it lies on the disk",
    "changed": "in the index with an older content; it is read again soon",
    "waiting": "not read yet",
    "failed": "could not be read; it is tried again when it changes",
    "missing": "in the index, but not on the disk now",
}


def _file_detail(row: FileRow, report: PathReport | None, retry: str) -> Content:
    """Args: retry: the key that does it."""
    again = f", or at once by {retry}" if row.state == "failed" else ""
    lines = [
        Content.styled(plain(row.path.name), "bold"),
        Content.styled(short_folder(row.path), "$text-muted"),
        Content(""),
        Content(f"{_STATES[row.state]}{again}"),
        Content(f"{size(row.size_bytes)}, written {ago(row.modified_ns)}"),
    ]
    if row.reason:
        lines += [Content(""), Content.styled(one_line(row.reason), "$text-error")]
    if report is not None and report.state == "indexed":
        embedded = "" if report.num_embedded == report.num_chunks else f", {report.num_embedded:,} with their meaning"
        lines += [Content(f"read as {report.format}: {count(report.num_chunks, 'passage')}{embedded}")]
        if report.skip is not None:
            lines += [Content.styled(f"left out from now on: {one_line(report.skip.reason)}", "$text-warning")]
    return Content("\n").join(lines)


def _skip_detail(skip: Skip) -> Content:
    lines = [Content.styled(plain(str(skip.path)), "bold"), Content(""), Content(f"left out: {one_line(skip.reason)}")]
    if skip.file is not None:
        lines.append(Content.styled("Change that file, and it is read within seconds.", "$text-muted"))
    return Content("\n").join(lines)


def _cost_of_removing(row: FolderRow) -> str:
    return (
        f"{row.path}\n\nIts {count(row.num_indexed, 'file')} ({size(row.size_bytes)}) are no longer found. "
        "The files themselves stay as they are. To have them back, they are read and embedded anew."
    )


def _forget(desk: Desk, folder: Path) -> LibraryChanged:
    num_files, keeper = desk.forget_folder(folder)
    if keeper is not None:
        return LibraryChanged(f"{folder} is listed no more; its files are being forgotten")
    return LibraryChanged(f"{count(num_files, 'file')} of {folder} forgotten")


def _toggle_pause(desk: Desk) -> LibraryChanged:
    if desk.resume():
        return LibraryChanged("Indexing goes on")
    return LibraryChanged(f"Indexing is {desk.pause()}")


def _retry(desk: Desk, path: Path) -> LibraryChanged:
    desk.retry(path)
    return LibraryChanged(f"{path.name} is read again")
