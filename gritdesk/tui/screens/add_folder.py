"""A small box that asks for a folder to keep in the index."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Static

from gritdesk.tui.guarding import Guarded
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.text import plain


class AddFolderScreen(Guarded, ModalScreen[Path | None]):
    """Dismissed with a folder that exists, or None."""

    HELP = "**Add a folder.** Its files are counted, and nothing is read for the index before you have seen the cost."
    BINDING_GROUP_TITLE = "Add a folder"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="add_folder.cancel", tooltip="Add nothing"),
        Binding("tab", "complete", "Complete", id="add_folder.complete", tooltip="Take the suggested path"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="add-folder"):
            yield Static("Add a folder", classes="title")
            yield Input(placeholder="~/Documents", suggester=FolderSuggester(), id="folder")
            complete, leave = (keymap_of(self).key_of(f"add_folder.{each}") for each in ("complete", "cancel"))
            yield Static(
                Content(f"Enter counts its files, {complete} completes the path, {leave} leaves."), id="folder-note"
            )

    @on(Input.Submitted, "#folder")
    def _folder_given(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.run_worker(self._check(event.value.strip()), exclusive=True, exit_on_error=False)

    async def _check(self, value: str) -> None:
        folder = _expanded(value)
        if await asyncio.to_thread(folder.is_dir):
            self.dismiss(folder)
            return
        note = self.query_one("#folder-note", Static)
        note.update(Content.styled(f"No folder is there: {plain(str(folder))}; check the path.", "$text-error"))

    def action_complete(self) -> None:
        self.query_one(Input).action_cursor_right()

    def action_cancel(self) -> None:
        self.dismiss(None)


class FolderSuggester(Suggester):
    """Completes a path by the first folder that begins like it; the disk is read in a thread."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(_completed, value)


def _completed(value: str) -> str | None:
    head, separator, start = value.rpartition("/")
    if not separator:
        return "~/" if value == "~" else None
    try:
        names = sorted(each.name for each in _expanded(head + separator).iterdir() if each.is_dir())
    except OSError:
        return None
    found = next((name for name in names if name.startswith(start) and (start or not name.startswith("."))), None)
    return None if found is None else f"{head}{separator}{found}/"


def _expanded(value: str) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # ~somebody whom the system does not know
        return Path(value).absolute()
