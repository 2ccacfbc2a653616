"""The first screen of an index without folders: what is here, the model, and which folders are to be read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.records import Estimate, FolderCount
from gritdesk.tui.counting import told_count, told_estimate
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.text import model_line, one_line, plain, short_path, size
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import StatusLine, count

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.machine import Machine
    from gritdesk.model_facts import ModelFacts
    from gritdesk.models import ModelFile

_CHOSEN_AT_FIRST = frozenset({"documents", "notes", "obsidian", "zettelkasten"})
"""Folders whose files are mostly what a person wants to find; what is large and of other people is left to choose."""


_BELOW_THE_LIST = 6
"""Lines of the time that all takes, and of the box around it."""


class MachineRead(Message):
    def __init__(self, machine: Machine, model: tuple[ModelFile, ModelFacts | None] | None) -> None:
        super().__init__()
        self.machine, self.model = machine, model


class GpuRead(Message):
    """The model is loaded, and where it works is known."""

    def __init__(self, on_gpu: bool) -> None:
        super().__init__()
        self.on_gpu = on_gpu


class FoldersFound(Message):
    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self.folders = folders


class FolderCounted(Message):
    """Comes in bursts while a folder is counted: of those that wait only the last is handled."""

    def __init__(self, count: FolderCount) -> None:
        super().__init__()
        self.count = count

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, FolderCounted) and message.count.folder == self.count.folder


class EstimateMade(Message):
    def __init__(self, folders: frozenset[Path], estimate: Estimate) -> None:
        super().__init__()
        self.folders, self.estimate = folders, estimate


class EstimateRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class FirstRunScreen(DeskScreen):
    HELP = (
        "**Begin.** What this machine and its model are, and which folders to read. `first_run.choose` chooses one, or "
        "not; the time stands below. `first_run.start` reads them, and words are found from the first file on."
    )
    BINDING_GROUP_TITLE = "Begin"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Read them", id="first_run.start", priority=True, tooltip="Index the chosen folders"),
        Binding("space", "choose", "Choose", id="first_run.choose", tooltip="Choose the folder, or not"),
        Binding("+,a", "add_path", "Another folder", id="first_run.add", tooltip="Add a folder to choose from"),
        Binding("escape", "leave", "Later", id="first_run.leave", tooltip="To Search, without a folder"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[Path, FolderCount] = {}
        """In the order of the list."""
        self._chosen: set[Path] = set()
        self._estimate: Estimate | None = None
        self._estimated: frozenset[Path] = frozenset()
        self._problem = ""
        self._machine: MachineRead | None = None
        self._on_gpu: bool | None = None
        self._is_over = threading.Event()
        self._is_looking = self._has_looked = False
        """For the folders that may be meant, which needs an open index."""
        self._machine_lane = Lane(self, "machine")
        self._gpu_lane = Lane(self, "gpu")
        self._estimate_lane = Lane(self, "estimate")

    def compose(self) -> ComposeResult:
        yield StatusLine("")
        yield Static(Content.from_markup("[bold]Which folders shall gritdesk read?[/]"), id="first-run-title")
        with Horizontal(id="first-run-facts"):
            yield Static(id="first-run-machine", classes="fact")
            yield Static(id="first-run-model", classes="fact")
        with Vertical(id="first-run-rest"), Vertical(id="first-run-folders"):
            yield Rows(id="first-run-list", markup=False)
            yield Static(id="first-run-estimate")
        yield KeyFooter()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#first-run-machine").border_title = "This machine"
        self.query_one("#first-run-model").border_title = "The model"
        self.query_one("#first-run-folders").border_title = "Folders"
        keys = self.grit_app.keymap
        leaves = f"{keys.key_of('first_run.leave')} leaves it for later"
        back = f"{keys.key_of('app.palette')} Choose folders comes back"
        self.query_one("#first-run-folders").border_subtitle = Content(f"{leaves}; {back}")
        self.query_one("#first-run-list").focus()
        self._show()

    def on_unmount(self) -> None:
        self._is_over.set()

    def on_resize(self) -> None:
        self.call_after_refresh(self._leave_room)

    def _leave_room(self) -> None:
        """Let a long list scroll, so that the time below it is always to be seen."""
        room = self.query_one("#first-run-rest").size.height - _BELOW_THE_LIST
        self.query_one("#first-run-list").styles.max_height = max(room, 2)

    def activity_changed(self, before: Activity, now: Activity) -> None:
        if now.desk == "open" and not self._is_looking and (desk := self.desk) is not None:
            self._is_looking = True
            self._machine_lane.submit(partial(_read_machine, desk))
            self._count(desk, None)
        if now.model == "ready" and self._on_gpu is None and (desk := self.desk) is not None:
            self._gpu_lane.submit(lambda: GpuRead(desk.engine_info().on_gpu))
        if self._machine is not None:
            self._show_facts()

    # what is here

    def on_machine_read(self, message: MachineRead) -> None:
        message.stop()
        self._machine = message
        self._show_facts()

    def on_gpu_read(self, message: GpuRead) -> None:
        message.stop()
        self._on_gpu = message.on_gpu
        self._show_facts()

    def _show_facts(self) -> None:
        if self._machine is None:
            return
        machine = self._machine.machine
        gpu = {None: "looking for a GPU …", True: "a GPU in use", False: "no GPU in use"}
        cores = count(machine.num_cores, "core")
        memory = f"{size(machine.memory_bytes)} of memory, {size(machine.memory_free_bytes)} free"
        lines = [f"{cores}, {gpu[self._on_gpu]}", memory, f"{size(machine.disk_free_bytes)} of disk free"]
        self.query_one("#first-run-machine", Static).update(Content("\n").join(map(Content, lines)))
        self.query_one("#first-run-model", Static).update(_model_lines(self._machine.model, self.activity))
        self.call_after_refresh(self._leave_room)

    # the folders

    def _count(self, desk: Desk, folder: Path | None) -> None:
        """Count one folder, or find those that may be meant and count them, in a thread."""
        work = partial(self._count_in_thread, desk, folder)
        self.run_worker(work, group="counting folders", thread=True, exit_on_error=False)

    def _count_in_thread(self, desk: Desk, folder: Path | None) -> None:
        try:
            folders = desk.usual_folders() if folder is None else [folder]
            self.post_message(FoldersFound(folders))
        except Exception as error:  # a worker's edge
            self.post_message(EstimateRefused(problem_of(error)))
            return
        for each in folders:
            try:
                for counted in desk.count_files(each, self._is_over.is_set):
                    self.post_message(FolderCounted(counted))
            except Exception as error:  # a worker's edge
                self.post_message(FolderCounted(FolderCount(each, problem=problem_of(error), is_over=True)))

    def on_folders_found(self, message: FoldersFound) -> None:
        message.stop()
        self._has_looked = True
        for folder in message.folders:
            self._counts.setdefault(folder, FolderCount(folder))
            if len(message.folders) == 1 or folder.name.lower() in _CHOSEN_AT_FIRST:
                self._chosen.add(folder)
        if message.folders and not self._chosen:
            self._chosen.add(message.folders[0])
        self._show()

    def on_folder_counted(self, message: FolderCounted) -> None:
        message.stop()
        self._counts[message.count.folder] = message.count
        self._show_row(message.count.folder)
        if message.count.is_over:
            self._ask_for_estimate()

    def _ask_for_estimate(self) -> None:
        """Have the time told for what is chosen, once all of it is counted."""
        counts = [self._counts[folder] for folder in self._counts if folder in self._chosen]
        if counts and all(each.is_over for each in counts) and (desk := self.desk) is not None:
            call = partial(_estimate, desk, counts)
            self._estimate_lane.submit(call, EstimateRefused)
        self._show_estimate()

    def on_estimate_made(self, message: EstimateMade) -> None:
        message.stop()
        self._estimate, self._estimated, self._problem = message.estimate, message.folders, ""
        self._show_estimate()

    def on_estimate_refused(self, message: EstimateRefused) -> None:
        message.stop()
        self._problem = message.problem
        self._show_estimate()

    # what is on the screen

    def _show(self) -> None:
        rows = self.query_one("#first-run-list", OptionList)
        kept = rows.highlighted
        rows.set_options(Option(self._row(each)) for each in self._counts.values())
        if self._counts:
            rows.highlighted = min(kept or 0, len(self._counts) - 1)
        rows.display = bool(self._counts)
        self._show_estimate()

    def _show_row(self, folder: Path) -> None:
        rows = self.query_one("#first-run-list", OptionList)
        index = list(self._counts).index(folder)
        if index < rows.option_count:
            rows.replace_option_prompt_at_index(index, self._row(self._counts[folder]))

    def _row(self, counted: FolderCount) -> Content:
        mark = ("[x] ", "bold $text-success") if counted.folder in self._chosen else ("[ ] ", "$text-muted")
        return Content.assemble(mark, (short_path(counted.folder), "bold"), "  ", (told_count(counted), "$text-muted"))

    def _show_estimate(self) -> None:
        self.query_one("#first-run-estimate", Static).update(self._estimate_lines())

    def _estimate_lines(self) -> Content:
        if not self._counts and not self._has_looked:
            return Content.styled("Looking for folders of documents …", "$text-muted")
        choose, add = (self.grit_app.keymap.key_of(f"first_run.{each}") for each in ("choose", "add"))
        if not self._counts:
            return Content(f"No folder of documents was found where they usually are. Press {add} to give one.")
        if not self._chosen:
            return Content.styled(f"{choose} chooses a folder, {add} adds another one.", "$text-muted")
        if self._problem:
            return Content.styled(one_line(self._problem), "$text-warning")
        chosen = [self._counts[folder] for folder in self._chosen]
        if not all(each.is_over for each in chosen):
            return Content.styled("The files are being counted …", "$text-muted")
        if self._estimate is None or self._estimated != frozenset(self._chosen):
            return Content.styled("A few of them are read and embedded, to tell how long all take …", "$text-muted")
        return told_estimate(self._estimate)

    # keys

    @property
    def _highlighted(self) -> Path | None:
        index = self.query_one("#first-run-list", OptionList).highlighted
        return None if index is None else list(self._counts)[index]

    @on(OptionList.OptionSelected, "#first-run-list")
    def action_choose(self) -> None:
        if (folder := self._highlighted) is not None:
            self._chosen ^= {folder}
            self._show_row(folder)
            self._ask_for_estimate()

    def action_add_path(self) -> None:
        self.app.push_screen(AddFolderScreen(), self._add_path)

    def _add_path(self, folder: Path | None) -> None:
        if folder is not None and self.desk is not None:
            self._count(self.desk, folder)

    def action_start(self) -> None:
        if not self._chosen:
            key = self.grit_app.keymap.key_of
            told = f"{key('first_run.choose')} chooses a folder; {key('first_run.leave')} leaves it for later."
            self.notify(told, markup=False)
            return
        self.grit_app.read_folders([folder for folder in self._counts if folder in self._chosen])
        self.dismiss()
        self.app.call_later(self.grit_app.action_go, "search")

    def action_leave(self) -> None:
        self.dismiss()


def _read_machine(desk: Desk) -> MachineRead:
    return MachineRead(desk.machine(), next(iter(desk.models()), None))


def _estimate(desk: Desk, counts: Sequence[FolderCount]) -> EstimateMade:
    return EstimateMade(frozenset(each.folder for each in counts), desk.estimate(counts))


def _model_lines(found: tuple[ModelFile, ModelFacts | None] | None, activity: Activity) -> Content:
    if found is None or activity.model == "failed":
        problem = one_line(activity.model_problem) or "no model is here"
        return Content.assemble((problem, "$text-error"), ("\nSettings choose another one.", "$text-muted"))
    file, facts = found
    name, told = (plain(file.name), "bold"), f", {model_line(file, facts)}\n"
    return Content.assemble(name, told, ("Words are found before it has read them.", "$text-muted"))
