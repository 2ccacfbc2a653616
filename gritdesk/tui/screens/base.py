"""What the screens over the Desk have in common: the status line, and how they learn that things changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual.binding import ActiveBinding
from textual.message import Message
from textual.screen import Screen

from gritdesk.records import Chunk, Hit
from gritdesk.tui.guarding import Guarded
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity, CallFailed, OnFailure

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.tui.app import GritDeskApp


class DeskScreen(Guarded, Screen[None]):
    """A screen that shows what the Desk gives; it has a `desk` once that is open."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]

    def __init__(self) -> None:
        super().__init__()
        self._acts = Lane(self, "acts", most_waiting=None)
        self._shown_titles: Mapping[str, str] = {}

    def on_mount(self) -> None:
        # Textual leaves out what a line of text takes for typing before it looks at the keymap: a letter that was
        # given another key would be lost there
        self._bindings.apply_keymap(self.grit_app.keymap.for_textual())
        self.watch(self.app, "activity", self.activity_changed)

    def activity_changed(self, before: Activity, now: Activity) -> None:
        """Called at once and on every change; for screens to override."""

    @property
    def titles(self) -> Mapping[str, str]:
        """What actions are called at this moment, if not as their bindings say; one that would do nothing: "".

        For screens to override; they call `show_titles` when it changes.
        """
        return {}

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The bindings that hold now, by the names that they have now: what the footer shows."""
        found, titles = super().active_bindings, self.titles
        for key, each in found.items():
            if each.node is self and (title := titles.get(each.binding.action)) is not None:
                found[key] = each._replace(binding=replace(each.binding, description=title, show=bool(title)))
        return found

    def show_titles(self) -> None:
        """Have the footer drawn anew, if a binding it shows has another name by now."""
        if (titles := self.titles) != self._shown_titles:
            self._shown_titles = titles
            self.refresh_bindings()

    @property
    def grit_app(self) -> GritDeskApp:
        return cast("GritDeskApp", self.app)

    @property
    def desk(self) -> Desk | None:
        return self.grit_app.desk

    @property
    def activity(self) -> Activity:
        return self.grit_app.activity

    def do(self, act: Callable[[Desk], Message | None], on_failure: OnFailure = CallFailed) -> None:
        """Change something by a call of the Desk, in a thread, after the acts before it; none is left out.

        Args: on_failure: as Lane.submit takes it.
        """
        if self.desk is None:
            self.notify("The index is not open; do that again when it is.", severity="warning", markup=False)
        else:
            self._acts.submit(partial(act, self.desk), on_failure)

    def open_hit(self, hit: Hit | None, cited: str = "", line: int | None = None) -> None:
        """Open a hit in the editor, or else show it here.

        Args:
            cited: words of the hit that are marked where it is shown here.
            line: where the editor goes, if not to the first line of the hit.
        """
        if hit is not None:
            self.grit_app.open_in_editor(hit, cited, line)

    def copy_path(self, hit: Hit | None) -> None:
        if hit is not None:
            self.app.copy_to_clipboard(str(hit.path))
            self.notify(str(hit.path), title="Path copied", markup=False)


def beginning_of(path: Path) -> Hit:
    """A file as something to open, or to copy the path of: at its first line."""
    return Hit(0, path, Chunk("", 0, 0, 1, 1), 0.0)
