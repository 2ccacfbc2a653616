"""Files and folders that fit the letters behind an @, above the question line; the question keeps the focus."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets.option_list import Option

from gritdesk.scoping import Place
from gritdesk.tui.text import one_line
from gritdesk.tui.widgets.rows import Rows


class ScopePicker(Rows, can_focus=False):
    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.places: tuple[Place, ...] = ()
        self.letters: str | None = None
        """Those that the rows fit; None while nothing is picked."""
        self.display = False

    def show(self, letters: str, places: Sequence[Place]) -> None:
        self.letters, self.places = letters, tuple(places)
        self.set_options(Option(_row(each)) for each in places)
        self.highlighted = 0 if places else None
        self.display = bool(places)

    def leave(self) -> None:
        self.letters, self.places = None, ()
        self.display = False

    def move(self, step: int) -> None:
        if self.highlighted is not None:
            self.highlighted = (self.highlighted + step) % len(self.places)

    @property
    def chosen(self) -> Place | None:
        return self.places[self.highlighted] if self.highlighted is not None and self.places else None


def _row(place: Place) -> Content:
    """The name, which was looked for, before the way to it."""
    head, slash, name = place.shown.rstrip("/").rpartition("/")
    name = one_line(name) + "/" * place.is_folder
    return Content.assemble((name, "bold"), "  ", (one_line(head + slash), "$text-muted"))
