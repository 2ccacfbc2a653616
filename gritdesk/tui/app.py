"""Wiring of the terminal app: screens, keys, themes, and the workers that stand behind every screen.

The first screen is drawn before the Desk is opened. Every call to the Desk runs in a thread worker and posts a
message (messages.py); handlers here turn those into one `Activity` that the screens watch.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.app import App, ScreenStackError, SuspendNotSupported, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent, Key, Resize
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.reactive import reactive
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.timer import Timer
from textual.widgets import Input

from gritdesk.config import Config, write_setting
from gritdesk.errors import AppEnded, GritDeskError, StoreBusy
from gritdesk.records import Exchange, Hit, IndexProgress
from gritdesk.tui.app_log import app_log
from gritdesk.tui.collecting import RestCollector
from gritdesk.tui.counting import cost_of_adding
from gritdesk.tui.editor import EditorCommand, editor_command
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import Keymap, bindings_of, shown
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import (
    Activity,
    CallFailed,
    DeskOpened,
    DeskRefused,
    FolderCostTold,
    FoldersListed,
    IndexingEnded,
    IndexProgressed,
    ModelLoaded,
    ModelRefused,
    NoticeGiven,
    QuietChanged,
    StatusRead,
    StatusRefused,
)
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.chats import ChatsScreen
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.doctor import DoctorScreen
from gritdesk.tui.screens.failures import FailuresScreen
from gritdesk.tui.screens.first_run import FirstRunScreen
from gritdesk.tui.screens.jump import JumpScreen
from gritdesk.tui.screens.library import LibraryScreen
from gritdesk.tui.screens.map import MapScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.settings import SettingsScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.text import opens_as_text, plain
from gritdesk.tui.themes import ANSI, THEMES
from gritdesk.tui.whole_writes import write_whole
from gritdesk.tui.widgets.help_panel import HelpPanel

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_MAX_THREADS = 16
"""Search, preview, answer, indexing and status may all wait at once; asyncio's own pool is too small on few cores."""
_SAME_REPORT_S = 5.0
"""A report is not repeated within this time: a broken model fails at every key."""
_MOST_SURVIVED, _SURVIVED_WITHIN_S = 200, 1.0
"""So many errors in so short a time are one that feeds itself; a hand on mouse or key makes some tens."""
_QUIT_AGAIN_S = 2.0
_SWITCH_S = 0.001
"""How long a thread that indexes or searches may hold Python while a key waits for it; Python's own is five times as
long."""
_PROGRESS_EVERY_S = 0.25
"""How often it is drawn; small files come by the hundred a second."""
_CLOSE_TIMEOUT_S = 10.0
_NOT_OPEN = "the index is not open yet; add the folder again when it is"


def run(desk_factory: Callable[[], Desk], config: Config) -> None:
    """Run the app until it is closed; the Desk that `desk_factory` opens is closed with it.

    Raises: AppEnded if an error ended it; the terminal is restored by then, and the log holds the traceback.
    """
    write_whole()
    app = GritDeskApp(desk_factory, config)
    app.obeys_signals = True
    with app_log(config.log_dir / "app.log"):
        try:
            app.run(mouse=config.appearance.mouse)
        finally:
            app.close_desk(wait_s=_CLOSE_TIMEOUT_S)
    if app.fatal_problem:
        raise AppEnded(app.fatal_problem)


class GritDeskApp(Guarded, App[None]):
    TITLE = "gritdesk"
    CSS_PATH = "gritdesk.tcss"
    MODES = {
        "search": SearchScreen,
        "ask": AskScreen,
        "library": LibraryScreen,
        "chats": ChatsScreen,
        "settings": SettingsScreen,
        "map": MapScreen,
    }
    DEFAULT_MODE = "search"
    BINDING_GROUP_TITLE = "Everywhere"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "go('search')", "Search", show=False, id="app.search", tooltip="Find passages as you type"),
        Binding("f3", "go('ask')", "Ask", show=False, id="app.ask", tooltip="Ask a question of your files"),
        Binding("f4", "go('library')", "Library", show=False, id="app.library", tooltip="Folders, files, their states"),
        Binding("f5", "go('chats')", "Chats", show=False, id="app.chats", tooltip="Past conversations: search, go on"),
        Binding(
            "f6", "go('settings')", "Settings", show=False, id="app.settings", tooltip="What can be set, and its price"
        ),
        Binding("f7", "go('map')", "Map", show=False, id="app.map", tooltip="See the library by what it is about"),
        Binding("f8", "examine", "Doctor", show=False, id="app.doctor", tooltip="Check installation, model and index"),
        Binding("ctrl+o", "jump", "Jump", show=False, id="app.jump", tooltip="Go to a pane of the screen by a letter"),
        Binding("ctrl+r", "reopen", "Try again", show=False, id="app.reopen", tooltip="Open index and model again"),
        Binding(
            "ctrl+p,ctrl+l",  # editors' terminals keep the first for themselves
            "command_palette",
            "Commands",
            show=False,
            id="app.palette",
            priority=True,
            tooltip="Find a command by its name",
        ),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True, tooltip="Quit; ctrl+c twice does it too"),
        Binding(
            "escape",
            "close_help",
            "Close help",
            show=False,
            id="app.close_help",
            priority=True,
            tooltip="Take the help away, while it is shown",
        ),
        Binding(
            "f1,ctrl+underscore",  # desktops and some terminals keep the first; ctrl+/ sends the second, too
            "toggle_help",
            "Help",
            id="app.help",
            priority=True,
            tooltip="Keys and help for what has the focus",
        ),
        Binding(
            "question_mark", "toggle_help", "Help", show=False, id="app.help_mark", tooltip="Where no text is typed"
        ),
    ]

    ends_on_errors = False
    """For tests, which are to see what a person is spared."""

    activity: reactive[Activity] = reactive(Activity(), repaint=False)
    """Which those who show it watch; an app's own redraw would be one of the whole screen, four times a second."""
    obeys_signals = False
    """Whether the process is the app's own, to be ended with it."""

    def __init__(self, desk_factory: Callable[[], Desk], config: Config | None = None) -> None:
        """Without a `config` nothing that is changed here is kept."""
        self.is_colourless = "NO_COLOR" in os.environ
        # the terminal's own colours are those that Textual leaves out altogether; of others it makes greys
        super().__init__(ansi_color=True if self.is_colourless else None)
        self._config = config
        self.keymap = Keymap(config.keys if config else None)
        self.set_keymap(self.keymap.for_textual())
        for theme in THEMES:
            self.register_theme(theme)
        self._theme_problem = self.show_theme(config.appearance.theme if config else "")
        if "SSH_CONNECTION" in os.environ and "TEXTUAL_ANIMATIONS" not in os.environ:
            self.animation_level = "none"
        self.desk: Desk | None = None
        self.fatal_problem = ""
        """What ended the app, as a person is told; "" while nothing has."""
        self._desk_factory = desk_factory
        self._desk_lock = threading.Lock()
        self._closing_desk = threading.Event()
        self._closer: threading.Thread | None = None
        self._indexing_lock = threading.Lock()
        self._indexing_stop = threading.Event()
        self._model_lane = Lane(self, "model")
        self._status_lane = Lane(self, "status")
        self._collector = RestCollector()
        self._progress: IndexProgress | None = None
        """The latest that is not shown yet."""
        self._progress_timer: Timer | None = None
        self._progress_shown_at = float("-inf")
        self._last_report = ("", 0.0)
        self._survived_at: deque[float] = deque(maxlen=_MOST_SURVIVED)
        self._quit_asked_at = float("-inf")
        self._settings_lane = Lane(self, "quiet mode", most_waiting=None)
        self._has_offered_folders = False

    # opening and closing

    def on_load(self) -> None:
        if self.obeys_signals:  # from before the terminal is taken
            self._obey_signals(asyncio.get_running_loop())

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="gritdesk"))
        for problem in filter(None, (*self.keymap.problems, self._theme_problem)):
            self.notify(plain(problem), severity="warning", timeout=12, markup=False)
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self._collector.begin()
        sys.setswitchinterval(_SWITCH_S)
        self.set_interval(0.5, self._collector.look)
        self._open_desk()

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent):
            self._collector.pressed()
            # bindings of the app do not reach a box over a screen
            is_quitting = isinstance(event, Key) and event.key == "ctrl+c" and isinstance(self.screen, ModalScreen)
            if is_quitting and not getattr(self.focused, "selected_text", ""):
                self.action_help_quit()
                return
        if isinstance(event, Resize) and event.size == self.size:
            # of sizes that come faster than they are taken the last may be the first again, and the terminal has lost
            # in between what Textual believes to be drawn
            with suppress(ScreenStackError):
                self.screen.refresh()
        await super().on_event(event)

    def _obey_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Quit in order, with the terminal given back, when the system asks us to end."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            with suppress(
                AttributeError, NotImplementedError, RuntimeError, ValueError
            ):  # Windows; not the main thread
                loop.add_signal_handler(getattr(signal, name), self.exit)

    def _open_desk(self, in_place_of: Desk | None = None) -> None:
        work = partial(self._open_desk_in_thread, in_place_of)
        self.run_worker(work, group="open", thread=True, exclusive=True, exit_on_error=False)

    def reopen_desk(self) -> None:
        """Close the index and the model, and open them by the settings as they are written now."""
        with self._desk_lock:
            self._indexing_stop.set()
            outdated, self.desk = self.desk, None
        if outdated is not None:
            self.activity = Activity()
            self._open_desk(outdated)

    def _open_desk_in_thread(self, in_place_of: Desk | None) -> None:
        try:
            if in_place_of is not None:
                in_place_of.close()
            desk = self._desk_factory()
        except Exception as error:  # a worker's edge
            self.post_message(DeskRefused(problem_of(error)))
            return
        with self._desk_lock:
            came_too_late = self._closing_desk.is_set()
            if not came_too_late:
                self.desk = desk
        if came_too_late:
            desk.close()
        else:
            self.post_message(DeskOpened(desk))

    def on_unmount(self) -> None:
        self._collector.end()
        self.close_desk(wait_s=0)

    def close_desk(self, wait_s: float) -> None:
        """Stop what runs and close the Desk under it, so that no worker waits for it any more; idempotent.

        It happens in a thread of its own: the terminal is given back meanwhile. Waits for it at most `wait_s`.
        """
        with self._desk_lock:
            self._closing_desk.set()
            self._indexing_stop.set()
            desk, self.desk = self.desk, None
        if desk is not None:
            self._closer = threading.Thread(target=desk.close, name="closing the desk", daemon=True)
            self._closer.start()
        if self._closer is not None and wait_s:
            self._closer.join(wait_s)

    def on_desk_opened(self, message: DeskOpened) -> None:
        desk = message.desk
        if desk is not self.desk:  # it was closed since, for another one
            return
        desk.subscribe(self._post_notice)
        self.activity = replace(self.activity, desk="open", desk_problem="")
        self._probe_model(desk)
        self._read_status(desk)
        self._keep_index(desk)

    def _post_notice(self, text: str) -> None:
        self.post_message(NoticeGiven(text))

    def on_desk_refused(self, message: DeskRefused) -> None:
        self.activity = replace(self.activity, desk="failed", desk_problem=message.problem)
        self.report(message.problem)

    def action_reopen(self) -> None:
        """Try again what failed: opening the index, loading the model, keeping the index."""
        if self.activity.desk == "failed":
            self.activity = Activity()
            self._open_desk()
        elif self.desk is not None:
            if self.activity.model == "failed":
                self.reopen_desk()  # by the configuration as it is now
            elif self.activity.index_problem:
                self._keep_index(self.desk)

    # how it looks

    def show_theme(self, wanted: str) -> str:
        """Show a theme, without colours the terminal's own whatever is wanted; why it cannot be shown, or nothing."""
        is_known = wanted in self.available_themes
        self._kept_theme = ANSI.name if self.is_colourless else wanted if is_known else THEMES[0].name
        self.theme = self._kept_theme
        if wanted and not is_known:
            return f"[appearance] theme: there is no {wanted!r}; Theme in the palette lists them"
        return ""

    def _keep_theme(self, theme: Theme) -> None:
        if self._config is not None and theme.name != self._kept_theme:
            self._kept_theme = theme.name
            keep = partial(self._keep_theme_in_thread, self._config, theme.name)
            self.run_worker(keep, group="theme", thread=True, exit_on_error=False)

    def _keep_theme_in_thread(self, config: Config, name: str) -> None:
        try:
            write_setting(config, "appearance.theme", name)
        except Exception as error:  # a worker's edge
            self.post_message(CallFailed(problem_of(error)))

    def get_key_display(self, binding: Binding) -> str:
        return shown(binding.key)

    # the model

    def _probe_model(self, desk: Desk) -> None:
        """Ask the model for something small: when it comes, the model is loaded; when it fails, we know why."""
        self.activity = replace(self.activity, model="loading", model_problem="")

        def probe() -> ModelLoaded:
            desk.embed(["ready"])
            return ModelLoaded()

        self._model_lane.submit(self._unless_closed(desk, probe), ModelRefused)

    def _unless_closed(self, desk: Desk, call: Callable[[], Message]) -> Callable[[], Message | None]:
        """A call of a desk that says nothing of its failure once another desk is opened in its place."""

        def guarded() -> Message | None:
            try:
                return call()
            except GritDeskError:
                if desk is not self.desk:
                    return None
                raise

        return guarded

    def on_model_loaded(self) -> None:
        self.activity = replace(self.activity, model="ready", model_problem="")

    def on_model_refused(self, message: ModelRefused) -> None:
        self.activity = replace(self.activity, model="failed", model_problem=message.problem)
        self.report(message.problem)

    # the index

    def _read_status(self, desk: Desk) -> None:
        self._status_lane.submit(self._unless_closed(desk, lambda: StatusRead(desk.status())), StatusRefused)

    def read_status(self) -> None:
        """Have the status read anew."""
        if self.desk is not None:
            self._read_status(self.desk)

    def look_again(self) -> None:
        """Have the folders walked again."""
        if self.desk is not None:
            self.desk.look_again()

    def on_status_read(self, message: StatusRead) -> None:
        self.activity = replace(self.activity, status=message.status)
        is_empty = not message.status.folders and not message.status.files  # a team's index has files without folders
        if is_empty and not self._has_offered_folders:
            self._has_offered_folders = True
            if isinstance(self.screen, SearchScreen):
                self.action_choose_folders()

    def action_choose_folders(self) -> None:
        """Show what is here and which folders may be read, as on the first run."""
        if not isinstance(self.screen, FirstRunScreen):
            self.push_screen(FirstRunScreen())

    def on_status_refused(self, message: StatusRefused) -> None:
        self.activity = replace(self.activity, index_problem=message.problem)
        self.report(message.problem)

    def _keep_index(self, desk: Desk, new_folders: Sequence[Path] = ()) -> None:
        """Keep the index up to date from now on, with `new_folders` among its folders."""
        self._indexing_stop.set()
        stop = self._indexing_stop = threading.Event()
        self._progress = None
        self.activity = replace(self.activity, is_indexing=True, index_problem="", progress=None)
        work = partial(self._keep_index_in_thread, desk, new_folders, stop)
        self.run_worker(work, group="indexing", thread=True, exit_on_error=False)

    def _keep_index_in_thread(self, desk: Desk, new_folders: Sequence[Path], stop: threading.Event) -> None:
        are_listed = False

        def post_progress(progress: IndexProgress) -> None:
            nonlocal are_listed
            if new_folders and not are_listed:
                are_listed = True
                self.post_message(FoldersListed())
            if not stop.is_set():
                self.post_message(IndexProgressed(progress))

        problem = ""
        with self._indexing_lock:  # the worker before this one has been told to stop, and lets go here
            try:
                if new_folders and not stop.is_set():
                    try:
                        desk.index(new_folders, post_progress, stop.is_set)
                    except StoreBusy:  # the process that keeps the index up finds the folders in the configuration
                        for folder in new_folders:
                            desk.add_folder(folder)
                if not stop.is_set() and (status := desk.status()).folders:
                    self.post_message(StatusRead(status))
                    desk.watch(post_progress, stop, stands_by=True)
            except Exception as error:  # a worker's edge
                problem = problem_of(error)
        if not stop.is_set():
            self.post_message(IndexingEnded(problem))

    def on_folders_listed(self) -> None:
        self.read_status()

    def on_index_progressed(self, message: IndexProgressed) -> None:
        progress = message.progress
        if progress.note:
            self.notify(progress.note, markup=False)
        self._progress = progress
        wait_s = self._progress_shown_at + _PROGRESS_EVERY_S - monotonic()
        if progress.is_done or wait_s <= 0:
            self._show_progress()
        elif self._progress_timer is None:
            self._progress_timer = self.set_timer(wait_s, self._show_progress)
        if progress.is_done and self.desk is not None:
            self._read_status(self.desk)

    def _show_progress(self) -> None:
        if self._progress_timer is not None:
            self._progress_timer.stop()
            self._progress_timer = None
        if (progress := self._progress) is not None:
            self._progress, self._progress_shown_at = None, monotonic()
            self.activity = replace(self.activity, progress=progress, is_indexing=not progress.is_done)

    def on_indexing_ended(self, message: IndexingEnded) -> None:
        self._progress = None
        self.activity = replace(self.activity, is_indexing=False, index_problem=message.problem)
        if message.problem:
            self.report(message.problem)
        if self.desk is not None:
            self._read_status(self.desk)

    def action_add_folder(self) -> None:
        self.push_screen(AddFolderScreen(), partial(self._add_folder, self.screen))

    def _add_folder(self, asked_from: Screen[object], folder: Path | None) -> None:
        """Have the cost of a folder told, and add it once a person has read that."""
        if folder is None:
            return
        if (desk := self.desk) is None:
            self.report(_NOT_OPEN)
            return
        self.notify(f"Counting the files of {plain(str(folder))} …", markup=False)
        work = partial(self._tell_cost_in_thread, desk, folder, asked_from)
        self.run_worker(work, group="counting a folder", thread=True, exit_on_error=False)

    def _tell_cost_in_thread(self, desk: Desk, folder: Path, asked_from: Screen[object]) -> None:
        if cost := cost_of_adding(desk, folder, lambda: desk is not self.desk):
            self.post_message(FolderCostTold(folder, cost, asked_from))

    def on_folder_cost_told(self, message: FolderCostTold) -> None:
        is_in_the_way = self.screen is not message.asked_from and len(self.screen_stack) > 1
        if is_in_the_way:  # a box over what a person does now would take the keys that are meant for it
            self.notify(
                f"{plain(message.cost)}\n\nTo add it, give its path again.", title="Not added yet", markup=False
            )
            return
        box = ConfirmScreen("Keep this folder in the index?", message.cost, "Add it")
        self.push_screen(box, partial(self._add_if_wanted, message.folder))

    def _add_if_wanted(self, folder: Path, is_wanted: bool | None) -> None:
        if is_wanted:
            self.read_folders([folder])

    def read_folders(self, folders: Sequence[Path]) -> None:
        """Keep these folders in the index from now on."""
        if self.desk is None:
            self.report(_NOT_OPEN)
            return
        title = "Folder added; it is being read" if len(folders) == 1 else "Folders added; they are being read"
        self.notify("\n".join(map(str, folders)), title=title, markup=False)
        self._keep_index(self.desk, folders)

    # settings

    def action_toggle_quiet(self) -> None:
        """Index slowly behind everything else, or as fast as it goes; whatever process watches sees it at once."""
        if (desk := self.desk) is not None:
            self._settings_lane.submit(lambda: QuietChanged(_toggle_quiet(desk)))

    def on_quiet_changed(self, message: QuietChanged) -> None:
        self.notify(
            "Quiet: indexing rests twice as long as it works" if message.is_quiet else "Indexing goes at full speed",
            markup=False,
        )
        self.read_status()

    def edit_file(self, path: Path, line: int = 1) -> None:
        """Open a file that need not be there yet in the editor; says why if that cannot be done."""
        command = editor_command(path, line)
        problem = self._start_editor(command) if command else f"Set EDITOR to open {path} in your editor."
        if problem:
            self.notify(problem, severity="warning", markup=False)

    # what a person is told

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a notice; names of files and folders in it drive no terminal, whoever says it."""
        super().notify(plain(message), title=plain(title), severity=severity, timeout=timeout, markup=markup)

    def report(self, problem: str) -> None:
        """Show one line about something that went wrong; the same line again within seconds is left out."""
        last, shown_at = self._last_report
        if problem != last or monotonic() - shown_at > _SAME_REPORT_S:
            self._last_report = (problem, monotonic())
            self.notify(plain(problem), severity="error", timeout=8, markup=False)

    def survive(self, error: Exception) -> None:
        """Say what went wrong in a handler, and go on; end where that comes without end."""
        if self.ends_on_errors:
            raise error
        self._survived_at.append(monotonic())
        is_endless = len(self._survived_at) == self._survived_at.maxlen
        if is_endless and self._survived_at[-1] - self._survived_at[0] < _SURVIVED_WITHIN_S:
            self._handle_exception(error)
        else:
            self.report(problem_of(error))

    def _handle_exception(self, error: Exception) -> None:
        self.fatal_problem = self.fatal_problem or problem_of(error)
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        # of Textual's own the terminal gets the traceback with the values of all variables, whatever they hold
        self._close_messages_no_wait()

    def on_call_failed(self, message: CallFailed) -> None:
        self.report(message.problem)

    def on_notice_given(self, message: NoticeGiven) -> None:
        self.notify(plain(message.text), severity="warning", markup=False)

    # going places

    async def action_go(self, mode: str) -> None:
        await self.switch_mode(mode)

    async def search_for(self, query: str) -> None:
        """Go to Search, with `query` typed there."""
        await self.switch_mode("search")
        while len(self.screen_stack) > 1:  # a file or a list of similar ones that was left open there
            await self.pop_screen()
        self.screen_stack[0].query_one("#query", Input).value = query

    def conversation(self) -> list[Exchange]:
        """What the next question follows on; empty before Ask was opened."""
        with suppress(KeyError):
            for screen in self.get_screen_stack("ask"):
                if isinstance(screen, AskScreen):
                    return screen.conversation()
        return []

    async def ask(self, question: str, within: Sequence[Path] = ()) -> None:
        """Go to Ask, and ask `question` there unless it is empty: of these files and folders, or else of all."""
        screen = await self._go_to_ask()
        if within or question:
            screen.set_scope(within)
        if question:
            await screen.ask(question)

    async def continue_chat(self, id_: str) -> None:
        """Go to Ask, and go on with a kept chat there."""
        screen = await self._go_to_ask()
        await screen.continue_chat(id_)

    async def _go_to_ask(self) -> AskScreen:
        await self.switch_mode("ask")
        screen = self.screen_stack[0]
        assert isinstance(screen, AskScreen)
        return screen

    def view(self, hit: Hit, words: Sequence[str] = (), cited: str = "") -> None:
        self.push_screen(ViewerScreen(hit, words, self.current_mode, cited))

    def open_in_editor(self, hit: Hit, cited: str = "", line: int | None = None) -> None:
        """Open the hit's file at its line; what no editor can show is shown here, with what is cited marked.

        Args: line: of the file as it is by now, where the editor goes instead.
        """
        self.run_worker(self._open_in_editor(hit, cited, line), group="editor", exclusive=True, exit_on_error=False)

    async def _open_in_editor(self, hit: Hit, cited: str, line: int | None) -> None:
        command = editor_command(hit.path, hit.chunk.line_start if line is None else line)
        if command is None or not opens_as_text(hit):
            self._view_instead(hit, cited, "" if command else "Set EDITOR to open files in your editor.")
        elif not await asyncio.to_thread(hit.path.is_file):
            self._view_instead(hit, cited, "The file is gone; this is its text as it was indexed.")
        else:
            problem = self._start_editor(command)
            if problem:
                self._view_instead(hit, cited, problem)

    def _view_instead(self, hit: Hit, cited: str, reason: str) -> None:
        if reason:
            self.notify(reason, severity="warning", markup=False)
        if not isinstance(self.screen, ViewerScreen):
            self.view(hit, cited=cited)

    def _start_editor(self, command: EditorCommand) -> str:
        """Run the editor; returns what went wrong, or an empty string."""
        name = command.arguments[0]
        try:
            if command.owns_window:
                quiet = subprocess.DEVNULL
                subprocess.Popen(command.arguments, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
                return ""
            with self.suspend():
                return _run_editor(command)
        except SuspendNotSupported:
            return "This terminal cannot be lent to an editor."
        except OSError as error:
            return f"The editor {name} cannot be started: {error.strerror}; set EDITOR to one that can."

    # help and quitting

    def action_toggle_help(self) -> None:
        if self.screen.query(HelpPanel):
            self.screen.query(HelpPanel).remove()
        elif not self.screen.HELP:  # the palette, or letters to jump by
            raise SkipAction
        else:
            self.screen.mount(HelpPanel())

    def action_close_help(self) -> None:
        self.screen.query(HelpPanel).remove()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The help goes before whatever else its key does, and that key is the screen's own where there is no help."""
        if action != "close_help":
            return True
        return bool(self._screen_stack) and any(isinstance(each, HelpPanel) for each in self.screen.children)

    def action_jump(self) -> None:
        """Show a letter on each pane of the screen, and go to the one whose letter is pressed."""
        self.push_screen(JumpScreen(self.screen), lambda pane: pane.focus() if pane else None)

    def action_help_quit(self) -> None:
        """ctrl+c: the second within two seconds quits."""
        if monotonic() - self._quit_asked_at < _QUIT_AGAIN_S:
            self.exit()
            return
        self._quit_asked_at = monotonic()
        self.notify("Press ctrl+c again to quit.", timeout=_QUIT_AGAIN_S, markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Whatever a key does on the screen or everywhere, with the key named; then what is too rare for a key."""
        yield from self._commands_of(screen)
        yield from self._commands_of(self)
        if not isinstance(screen, (SearchScreen, LibraryScreen)):  # these have a key for it
            yield SystemCommand("Add folder", "Keep one more folder in the index", self.action_add_folder)
        yield SystemCommand(
            "Choose folders", "As on the first run: what is here, and how long it takes", self.action_choose_folders
        )
        if not isinstance(screen, LibraryScreen):  # which has a key for it
            yield SystemCommand("Quiet mode", "Index slowly, or at full speed", self.action_toggle_quiet)
        yield SystemCommand("Unread files", "Files that could not be read, and why", self._show_failures)
        if isinstance(screen, AskScreen):
            yield SystemCommand("Continue the last chat", "Go on where you left off", screen.action_continue_chat)
        ours = ("Quit", "Keys")
        yield from (each for each in super().get_system_commands(screen) if each.title not in ours)

    def _commands_of(self, node: Screen[object] | App[None]) -> Iterator[SystemCommand]:
        acts = set()
        for bound in bindings_of(type(node)):
            act = bound.action.partition("(")[0]
            # of those that differ in an argument the first says what they do, unless they lead to other places
            if (act not in acts or act == "go") and act not in ("command_palette", "close_help"):
                acts.add(act)
                title = f"{bound.description} ({self.keymap.key_of(str(bound.id))})"
                yield SystemCommand(title, bound.tooltip, partial(self.run_action, bound.action, node))

    def action_examine(self) -> None:
        if not isinstance(self.screen, DoctorScreen):
            self.push_screen(DoctorScreen())

    def _show_failures(self) -> None:
        self.push_screen(FailuresScreen())


def _toggle_quiet(desk: Desk) -> bool:
    quiet = next(each for each in desk.settings() if each.key == "index.quiet")
    return bool(desk.change_setting(quiet.key, "off" if quiet.value else "on").value)


def _run_editor(command: EditorCommand) -> str:
    # errors must not leave `suspend`, or the app would stay suspended
    try:
        status = subprocess.run(command.arguments, check=False).returncode
    except OSError as error:
        return f"The editor {command.arguments[0]} cannot be started: {error.strerror}; set EDITOR to one that can."
    return f"The editor {command.arguments[0]} ended with exit code {status}." if status else ""
