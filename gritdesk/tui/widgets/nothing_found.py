"""What stands in place of hits where there are none: filters to take out, near misses, files not in the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gritdesk.records import Hit, Misses, PathReport
from gritdesk.tui.keymap import keymap_of
from gritdesk.tui.text import one_line, plain, short_folder
from gritdesk.tui.widgets.empty_state import with_keys
from gritdesk.tui.widgets.hit_visual import HitVisual
from gritdesk.tui.widgets.rows import Rows
from gritdesk.wording import counted


class NothingFound(Rows):
    HELP = (
        "**Nothing found.** `nothing_found.take` on a filter takes it out of the query, on a passage opens it; "
        "`search.view` shows it here. Of files that are not in the index the second line says why; "
        "`nothing_found.take` opens them, `search.copy` copies the path."
    )
    BINDING_GROUP_TITLE = "Nothing found"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Take", id="nothing_found.take", tooltip="Take the filter out, or open what it is"),
        Binding("down,j", "cursor_down", "Down", show=False, id="nothing_found.down", tooltip="Next row"),
        Binding("up,k", "cursor_up", "Up", show=False, id="nothing_found.up", tooltip="Previous row"),
    ]

    class RestrictionDropped(Message):
        """The person wants to search without it."""

        def __init__(self, restriction: str) -> None:
            super().__init__()
            self.restriction = restriction

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._rows: list[str | Hit | PathReport | None] = []
        """What each option is of; None where it only says something."""
        self._shown: tuple[object, ...] = ()

    @property
    def chosen(self) -> str | Hit | PathReport | None:
        """A restriction, a passage or a file that is not in the index."""
        return self._rows[self.highlighted] if self.highlighted is not None else None

    def show(
        self,
        title: str,
        notes: Sequence[str],
        misses: Misses,
        unread: Sequence[PathReport],
        words: Sequence[str] = (),
    ) -> None:
        """Replace the rows.

        Args:
            title: what was looked for in vain.
            notes: lines under it, which may name bindings by their ids between backquotes.
            words: the query's words, marked in the passages.
        """
        shown = (title, tuple(notes), misses, tuple(unread), tuple(words))
        if shown == self._shown:
            return
        self._shown = shown
        kept = self.chosen if self.has_focus else None
        self._rows = []
        options: list[Option] = []

        def add(row: str | Hit | PathReport | None, shown: Content | HitVisual) -> None:
            self._rows.append(row)
            options.append(Option(shown, disabled=row is None))

        said = [
            Content.styled(title, "bold $foreground"),
            *(with_keys(self, each).stylize_before("$text-muted") for each in notes),
        ]
        add(None, Content("\n").join([*said, Content("")]))
        for restriction, num in misses.removed:
            add(restriction, _restriction_row(restriction, num, keymap_of(self).key_of("nothing_found.take")))
        if misses.nearest:
            heading = "The nearest without any filter" if misses.removed else "The nearest"
            add(None, _heading(heading))
        for hit in misses.nearest:
            add(hit, HitVisual(hit, words, is_marked=None))
        if unread:
            add(None, _heading("Files of such a name that are not in the index"))
        for report in unread:
            add(report, _report_row(report))
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(options)
        rows = [index for index, row in enumerate(self._rows) if row is not None]
        self.highlighted = next((index for index in rows if self._rows[index] == kept), next(iter(rows), None))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if isinstance(self.chosen, str):
            event.stop()
            self.drop_chosen()

    def drop_chosen(self) -> bool:
        """Take the highlighted restriction out; False if it is none."""
        if not isinstance(self.chosen, str):
            return False
        self.post_message(self.RestrictionDropped(self.chosen))
        return True


def _heading(text: str) -> Content:
    return Content.styled(f"\n{text}", "$text-muted")


def _restriction_row(restriction: str, num: int, take: str) -> Content:
    """Args: take: the key that takes it out."""
    return Content.assemble(
        ("✕ ", "bold $text-warning"),
        (plain(restriction), "bold"),
        (f"  hides {counted(num)}; {take} takes it out", "$text-muted"),
    )


def _report_row(report: PathReport) -> Content:
    return Content.assemble(
        (plain(report.path.name), "bold"),
        "  ",
        (short_folder(report.path), "$text-muted"),
        "  ",
        (report.state, "$text-warning"),
        f"\n{one_line(report.reason)}",
    )
