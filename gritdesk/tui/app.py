"""Wiring of the terminal app: screens, keys, themes, and the workers that stand behind every screen.

The first screen is drawn before the Desk is opened. Every call to the Desk runs in a thread worker and posts a
message (messages.py); handlers here turn those into one `Activity` that the screens watch.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SuspendNotSupported, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent, Key
from textual.reactive import reactive
from textual.screen import ModalScreen, Screen
from textual.timer import Timer
from textual.widgets import Input

from gritdesk.errors import AppEnded, StoreBusy
from gritdesk.records import Exchange, Hit, IndexProgress
from gritdesk.tui.app_log import app_log
from gritdesk.tui.collecting import RestCollector
from gritdesk.tui.editor import EditorCommand, editor_command
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.lane import Lane, problem_of
from gritdesk.tui.messages import (
    Activity,
    CallFailed,
    DeskOpened,
    DeskRefused,
    IndexingEnded,
    IndexProgressed,
    ModelLoaded,
    ModelRefused,
    NoticeGiven,
    StatusRead,
    StatusRefused,
)
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.doctor import DoctorScreen
from gritdesk.tui.screens.failures import FailuresScreen
from gritdesk.tui.screens.library import LibraryScreen
from gritdesk.tui.screens.map import MapScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.text import opens_as_text, plain
from gritdesk.tui.themes import THEMES

if TYPE_CHECKING:
    from gritdesk.desk import Desk

_MAX_THREADS = 16
"""Search, preview, answer, indexing and status may all wait at once; asyncio's own pool is too small on few cores."""
_SAME_REPORT_S = 5.0
"""A report is not repeated within this time: a broken model fails at every key."""
_QUIT_AGAIN_S = 2.0
_SWITCH_S = 0.001
"""How long a thread that indexes or searches may hold Python while a key waits for it; Python's own is five times as
long."""
_PROGRESS_EVERY_S = 0.25
"""How often it is drawn; small files come by the hundred a second."""
_CLOSE_TIMEOUT_S = 10.0


def run(desk_factory: Callable[[], Desk], log_dir: Path) -> None:
    """Run the app until it is closed; the Desk that `desk_factory` opens is closed with it.

    Raises: AppEnded if an error ended it; the terminal is restored by then, and the log holds the traceback.
    """
    app = GritDeskApp(desk_factory)
    with app_log(log_dir / "app.log"):
        try:
            app.run()
        finally:
            app.close_desk(wait_s=_CLOSE_TIMEOUT_S)
    if app.fatal_problem:
        raise AppEnded(app.fatal_problem)


class GritDeskApp(Guarded, App[None]):
    TITLE = "gritdesk"
    CSS_PATH = "gritdesk.tcss"
    MODES = {"search": SearchScreen, "ask": AskScreen, "library": LibraryScreen, "map": MapScreen}
    DEFAULT_MODE = "search"
    BINDING_GROUP_TITLE = "Everywhere"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "toggle_help", "Help", id="app.help", tooltip="Keys and help for what has the focus"),
        Binding("f2", "go('search')", "Search", show=False, id="app.search", tooltip="Go to Search"),
        Binding("f3", "go('ask')", "Ask", show=False, id="app.ask", tooltip="Go to Ask"),
        Binding("f4", "go('library')", "Library", show=False, id="app.library", tooltip="Go to the Library"),
        Binding("f7", "go('map')", "Map", show=False, id="app.map", tooltip="Go to the Map"),
        Binding("f8", "examine", "Doctor", show=False, id="app.doctor", tooltip="Check installation, model and index"),
        Binding("ctrl+r", "reopen", "Try again", show=False, id="app.reopen", tooltip="Open the index again"),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True, tooltip="Quit; ctrl+c twice does it too"),
    ]

    ends_on_errors = False
    """For tests, which are to see what a person is spared."""

    activity: reactive[Activity] = reactive(Activity())

    def __init__(self, desk_factory: Callable[[], Desk]) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
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
        self._quit_asked_at = float("-inf")

    # opening and closing

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="gritdesk"))
        self._obey_signals(loop)
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
        await super().on_event(event)

    def _obey_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Quit in order, with the terminal given back, when the system asks us to end."""
        if self.is_headless:
            return
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            with suppress(
                AttributeError, NotImplementedError, RuntimeError, ValueError
            ):  # Windows; not the main thread
                loop.add_signal_handler(getattr(signal, name), self.exit)

    def _open_desk(self) -> None:
        self.run_worker(self._open_desk_in_thread, group="open", thread=True, exclusive=True, exit_on_error=False)

    def _open_desk_in_thread(self) -> None:
        try:
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
                self._probe_model(self.desk)
            if self.activity.index_problem:
                self._keep_index(self.desk)

    # the model

    def _probe_model(self, desk: Desk) -> None:
        """Ask the model for something small: when it comes, the model is loaded; when it fails, we know why."""
        self.activity = replace(self.activity, model="loading", model_problem="")

        def probe() -> ModelLoaded:
            desk.embed(["ready"])
            return ModelLoaded()

        self._model_lane.submit(probe, ModelRefused)

    def on_model_loaded(self) -> None:
        self.activity = replace(self.activity, model="ready", model_problem="")

    def on_model_refused(self, message: ModelRefused) -> None:
        self.activity = replace(self.activity, model="failed", model_problem=message.problem)
        self.report(message.problem)

    # the index

    def _read_status(self, desk: Desk) -> None:
        self._status_lane.submit(lambda: StatusRead(desk.status()), StatusRefused)

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

    def on_status_refused(self, message: StatusRefused) -> None:
        self.activity = replace(self.activity, index_problem=message.problem)
        self.report(message.problem)

    def _keep_index(self, desk: Desk, new_folder: Path | None = None) -> None:
        """Keep the index up to date from now on, with `new_folder` among its folders if one is given."""
        self._indexing_stop.set()
        stop = self._indexing_stop = threading.Event()
        self._progress = None
        self.activity = replace(self.activity, is_indexing=True, index_problem="", progress=None)
        work = partial(self._keep_index_in_thread, desk, new_folder, stop)
        self.run_worker(work, group="indexing", thread=True, exit_on_error=False)

    def _keep_index_in_thread(self, desk: Desk, new_folder: Path | None, stop: threading.Event) -> None:
        def post_progress(progress: IndexProgress) -> None:
            if not stop.is_set():
                self.post_message(IndexProgressed(progress))

        problem = ""
        with self._indexing_lock:  # the worker before this one has been told to stop, and lets go here
            try:
                if new_folder is not None and not stop.is_set():
                    try:
                        desk.index([new_folder], post_progress, stop.is_set)
                    except StoreBusy:  # the process that keeps the index up finds the folder in the configuration
                        desk.add_folder(new_folder)
                if not stop.is_set() and (status := desk.status()).folders:
                    self.post_message(StatusRead(status))
                    desk.watch(post_progress, stop, stands_by=True)
            except Exception as error:  # a worker's edge
                problem = problem_of(error)
        if not stop.is_set():
            self.post_message(IndexingEnded(problem))

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
        self.push_screen(AddFolderScreen(), self._add_folder)

    def _add_folder(self, folder: Path | None) -> None:
        if folder is None:
            return
        if self.desk is None:
            self.report("the index is not open yet; add the folder again when it is")
            return
        self.notify(str(folder), title="Folder added; it is being read", markup=False)
        self._keep_index(self.desk, folder)

    # what a person is told

    def report(self, problem: str) -> None:
        """Show one line about something that went wrong; the same line again within seconds is left out."""
        last, shown_at = self._last_report
        if problem != last or monotonic() - shown_at > _SAME_REPORT_S:
            self._last_report = (problem, monotonic())
            self.notify(plain(problem), severity="error", timeout=8, markup=False)

    def survive(self, error: Exception) -> None:
        """Say what went wrong in a handler, and go on."""
        if self.ends_on_errors:
            raise error
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
        self.screen_stack[0].query_one("#query", Input).value = query

    def conversation(self) -> list[Exchange]:
        """What the next question follows on; empty before Ask was opened."""
        with suppress(KeyError):
            for screen in self.get_screen_stack("ask"):
                if isinstance(screen, AskScreen):
                    return screen.conversation()
        return []

    async def ask(self, question: str) -> None:
        """Go to Ask, and ask `question` there unless it is empty."""
        await self.switch_mode("ask")
        screen = self.screen_stack[0]
        assert isinstance(screen, AskScreen)
        if question:
            await screen.ask(question)

    def view(self, hit: Hit, words: Sequence[str] = ()) -> None:
        self.push_screen(ViewerScreen(hit, words, self.current_mode))

    def open_in_editor(self, hit: Hit) -> None:
        """Open the hit's file at its line; what no editor can show is shown here."""
        self.run_worker(self._open_in_editor(hit), group="editor", exclusive=True, exit_on_error=False)

    async def _open_in_editor(self, hit: Hit) -> None:
        command = editor_command(hit.path, hit.chunk.line_start)
        if command is None or not opens_as_text(hit):
            self._view_instead(hit, "" if command else "Set EDITOR to open files in your editor.")
        elif not await asyncio.to_thread(hit.path.is_file):
            self._view_instead(hit, "The file is gone; this is its text as it was indexed.")
        else:
            problem = self._start_editor(command)
            if problem:
                self._view_instead(hit, problem)

    def _view_instead(self, hit: Hit, reason: str) -> None:
        if reason:
            self.notify(reason, severity="warning", markup=False)
        if not isinstance(self.screen, ViewerScreen):
            self.view(hit)

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
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_help_quit(self) -> None:
        """ctrl+c: the second within two seconds quits."""
        if monotonic() - self._quit_asked_at < _QUIT_AGAIN_S:
            self.exit()
            return
        self._quit_asked_at = monotonic()
        self.notify("Press ctrl+c again to quit.", timeout=_QUIT_AGAIN_S, markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("Search (F2)", "Find passages by words and by meaning", partial(self.action_go, "search"))
        yield SystemCommand("Ask (F3)", "Ask a question of your files", partial(self.action_go, "ask"))
        yield SystemCommand("Library (F4)", "Folders, files and their states", partial(self.action_go, "library"))
        yield SystemCommand("Map (F7)", "See the library by what it is about", partial(self.action_go, "map"))
        yield SystemCommand("Doctor (F8)", "Check the installation, the model and the index", self.action_examine)
        yield SystemCommand("Add a folder (+)", "Keep one more folder in the index", self.action_add_folder)
        yield SystemCommand("Unread files", "Files that could not be read, and why", self._show_failures)
        yield SystemCommand("Try again (ctrl+r)", "Open the index or load the model again", self.action_reopen)
        if isinstance(screen, AskScreen):
            yield SystemCommand(
                "New conversation (n)", "Begin anew; the chat so far is kept", screen.action_new_conversation
            )
            yield SystemCommand("Continue the last chat", "Go on where you left off", screen.action_continue_chat)
            yield SystemCommand(
                "Evidence (e)", "Show or hide the passages of the answer", screen.action_toggle_evidence
            )
        yield from super().get_system_commands(screen)

    def action_examine(self) -> None:
        if not isinstance(self.screen, DoctorScreen):
            self.push_screen(DoctorScreen())

    def _show_failures(self) -> None:
        self.push_screen(FailuresScreen())


def _run_editor(command: EditorCommand) -> str:
    # errors must not leave `suspend`, or the app would stay suspended
    try:
        status = subprocess.run(command.arguments, check=False).returncode
    except OSError as error:
        return f"The editor {command.arguments[0]} cannot be started: {error.strerror}; set EDITOR to one that can."
    return f"The editor {command.arguments[0]} ended with exit code {status}." if status else ""
