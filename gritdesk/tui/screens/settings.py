"""Every setting with its meaning, changed in place once its price was read; and what is kept on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gritdesk.records import Price
from gritdesk.settings import Setting, shown_value
from gritdesk.stored import Stored
from gritdesk.tui.lane import Lane
from gritdesk.tui.messages import Activity
from gritdesk.tui.screens.base import DeskScreen
from gritdesk.tui.screens.confirm import ConfirmScreen
from gritdesk.tui.screens.edit_setting import EditSettingScreen
from gritdesk.tui.text import model_line, one_line, plain, short_path, size
from gritdesk.tui.widgets.empty_state import EmptyState
from gritdesk.tui.widgets.key_footer import KeyFooter
from gritdesk.tui.widgets.rows import Rows
from gritdesk.tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from gritdesk.desk import Desk

Tab = Literal["settings", "kept"]
_TITLES: dict[Tab, str] = {"settings": "Settings", "kept": "Kept on this machine"}
_NAME_WIDTH, _VALUE_WIDTH = 22, 26
_MODEL = "engine.model"


@dataclass(frozen=True)
class Read:
    settings: tuple[Setting, ...]
    stored: tuple[Stored, ...]
    models: tuple[tuple[str, str], ...]
    """What `engine.model` may say, and what is said of each."""
    default_model: str
    """What it means if it says nothing."""


class SettingsRead(Message):
    def __init__(self, read: Read) -> None:
        super().__init__()
        self.read = read


class SettingsRefused(Message):
    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class PriceTold(Message):
    def __init__(self, setting: Setting, typed: str | None, price: Price) -> None:
        super().__init__()
        self.setting, self.typed, self.price = setting, typed, price


class SettingChanged(Message):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting


class FileEdited(Message):
    def __init__(self, read: Read, opens_anew: bool) -> None:
        super().__init__()
        self.read, self.opens_anew = read, opens_anew


class SettingsScreen(DeskScreen):
    HELP = (
        "**Settings.** `Enter` changes the highlighted one; what embeds anew says its price before. `settings.next` "
        "shows what is kept where. `settings.edit` opens config.toml, where all of it stands."
    )
    BINDING_GROUP_TITLE = "Settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "cycle_tab", "Next list", id="settings.next", tooltip="Settings, or what is kept where"),
        Binding("shift+tab", "cycle_tab", "Previous list", show=False, id="settings.previous", tooltip="Previous list"),
        Binding("d,delete", "reset", "Default", id="settings.reset", tooltip="Set it back to its default"),
        Binding("e", "edit_file", "config.toml", id="settings.edit", tooltip="Open config.toml in your editor"),
        Binding("r", "look_again", "Read again", show=False, id="settings.read", tooltip="Read config.toml again"),
        Binding(
            "y", "copy", "Copy", show=False, id="settings.copy", tooltip="Copy the command that sets or removes it"
        ),
    ]

    tab: reactive[Tab] = reactive("settings", init=False)

    def __init__(self) -> None:
        super().__init__()
        self._read: Read | None = None
        self._rows: list[Setting | Stored | None] = []
        """What each line of the list is of; None of a heading."""
        self._read_lane = Lane(self, "settings")

    def compose(self) -> ComposeResult:
        yield StatusLine("settings")
        yield Static(id="settings-tabs")
        with Horizontal(id="settings-body"):
            yield Rows(id="settings-rows", markup=False)
            with VerticalScroll(id="settings-side", can_focus=False):
                yield Static(id="settings-detail")
        yield EmptyState(id="settings-empty")
        yield KeyFooter()

    def on_mount(self) -> None:
        self._say("Reading the settings …")
        super().on_mount()  # which says why, if the index could not be opened
        self.query_one("#settings-rows").focus()

    def on_screen_resume(self) -> None:
        self.action_look_again()

    def activity_changed(self, before: Activity, now: Activity) -> None:
        if now.desk == "open" and before.desk != "open":
            self.action_look_again()
        elif now.desk == "failed":
            self._say(
                "The index could not be opened",
                now.desk_problem,
                "",
                "`settings.edit` opens config.toml, `app.reopen` tries again.",
            )

    # reading and showing

    def action_look_again(self) -> None:
        if (desk := self.desk) is not None:
            self._read_lane.submit(partial(_read, desk), SettingsRefused)

    def on_settings_read(self, message: SettingsRead) -> None:
        message.stop()
        self._read = message.read
        self._show()

    def on_settings_refused(self, message: SettingsRefused) -> None:
        message.stop()
        self._say(
            "The settings could not be read",
            message.problem,
            "",
            "`settings.edit` opens config.toml, `settings.read` reads it again.",
        )

    def _say(self, *lines: str) -> None:
        self.query_one("#settings-body").display = False
        empty = self.query_one(EmptyState)
        empty.display = True
        empty.say(*lines)

    def watch_tab(self) -> None:
        self.query_one("#settings-rows", OptionList).highlighted = None
        self._show()

    def _show(self) -> None:
        read = self._read
        if read is None:
            return
        self.query_one(EmptyState).display = False
        self.query_one("#settings-body").display = True
        self.query_one("#settings-tabs", Static).update(self._tabs())
        rows = self.query_one("#settings-rows", OptionList)
        kept = rows.highlighted
        options: list[Option] = []
        self._rows = []
        if self.tab == "settings":
            for section, group in groupby(read.settings, key=lambda each: each.section):
                options.append(Option(Content.styled(f"[{section}]", "$text-secondary"), disabled=True))
                settings = list(group)
                options += [Option(_setting_row(each, self._shown(each))) for each in settings]
                self._rows += [None, *settings]
        else:
            options = [Option(_stored_row(each)) for each in read.stored]
            self._rows = [*read.stored]
        with self.prevent(OptionList.OptionHighlighted):
            rows.set_options(options)
        first = next(at for at, row in enumerate(self._rows) if row is not None)
        rows.highlighted = first if kept is None else min(kept, len(self._rows) - 1)
        self._show_detail()

    def _tabs(self) -> Content:
        parts = [
            Content.styled(title, "bold underline" if tab == self.tab else "$text-muted")
            for tab, title in _TITLES.items()
        ]
        path = self.desk.config.path if self.desk is not None else None
        where = Content.styled(short_path(path) if path else "", "$text-muted")
        return Content("   ").join([*parts, where])

    @property
    def _chosen(self) -> Setting | Stored | None:
        index = self.query_one("#settings-rows", OptionList).highlighted
        return self._rows[index] if index is not None and index < len(self._rows) else None

    @on(OptionList.OptionHighlighted, "#settings-rows")
    def _show_detail(self) -> None:
        chosen = self._chosen
        detail = self.query_one("#settings-detail", Static)
        if isinstance(chosen, Setting):
            reset = self.grit_app.keymap.key_of("settings.reset")
            detail.update(_setting_detail(chosen, self._shown(chosen), reset))
        elif isinstance(chosen, Stored):
            detail.update(_stored_detail(chosen))

    def _shown(self, setting: Setting) -> str:
        """Its value on one line; of what says nothing, what that means."""
        if setting.key == _MODEL and not setting.value and self._read is not None:
            return self._read.default_model
        return one_line(shown_value(setting.value)) or "—"

    # keys

    def action_cycle_tab(self) -> None:
        self.tab = "kept" if self.tab == "settings" else "settings"

    @on(OptionList.OptionSelected, "#settings-rows")
    def _selected(self) -> None:
        chosen = self._chosen
        if isinstance(chosen, Stored):
            self.action_copy()
        elif isinstance(chosen, Setting) and chosen.kept_by:
            self.notify(plain(f"{chosen.key}: {chosen.kept_by}"), markup=False)
        elif isinstance(chosen, Setting) and isinstance(chosen.default, bool):
            self._ask_price(chosen, shown_value(not chosen.value))
        elif isinstance(chosen, Setting) and self.desk is not None and self._read is not None:
            models = self._read.models if chosen.key == _MODEL else ()
            self.app.push_screen(EditSettingScreen(self.desk, chosen, models), partial(self._edited, chosen))

    def _edited(self, setting: Setting, typed: str | None) -> None:
        if typed is not None and typed != shown_value(setting.value):
            self._ask_price(setting, typed)

    def action_reset(self) -> None:
        chosen = self._chosen
        if isinstance(chosen, Setting) and not chosen.is_default and not chosen.kept_by:
            self._ask_price(chosen, None)

    def _ask_price(self, setting: Setting, typed: str | None) -> None:
        if self.desk is not None and setting.applies == "on opening":
            self.notify("Finding out what that costs …", timeout=2, markup=False)
        self.do(lambda desk: PriceTold(setting, typed, desk.price(setting.key, typed)))

    def on_price_told(self, message: PriceTold) -> None:
        message.stop()
        setting, typed = message.setting, message.typed
        if setting.applies == "on opening" and self.app.screen is not self:
            # a box there would take keys that are typed for something else, and a reopened index interrupt it
            self.notify(plain(f"{setting.key} is as it was; ask again for its price here"), markup=False)
            return
        change = partial(self._change, setting, typed)
        if not message.price.told:
            change(True)
            return
        value = shown_value(setting.default if typed is None else typed) or "nothing"
        self.app.push_screen(
            ConfirmScreen(plain(f"Set {setting.key} to {value}?"), message.price.told, "Change it"), change
        )

    def _change(self, setting: Setting, typed: str | None, is_wanted: bool | None) -> None:
        if is_wanted:
            self.do(lambda desk: SettingChanged(desk.change_setting(setting.key, typed)))

    def on_setting_changed(self, message: SettingChanged) -> None:
        message.stop()
        setting = message.setting
        value = shown_value(setting.value) or "nothing"
        if setting.applies == "on opening":
            keeper = self.activity.status.keeper if self.activity.status else ""
            is_ours = not keeper or keeper.startswith(f"process {os.getpid()},")
            others = "" if is_ours else f"; the {keeper} goes by it when it is started again"
            self.notify(plain(f"{setting.key} is {value}; the index is opened anew{others}"), markup=False)
            self.grit_app.reopen_desk()
        else:
            if setting.key == "appearance.theme" and (problem := self.grit_app.show_theme(str(setting.value))):
                self.grit_app.report(problem)
            counts = " now" if setting.applies == "at once" else " when gritdesk is started again"
            self.notify(plain(f"{setting.key} is {value}{counts}"), markup=False)
            self.grit_app.read_status()
            self.action_look_again()

    def action_edit_file(self) -> None:
        """Open config.toml; what is written there counts when the editor is closed."""
        if (desk := self.desk) is None:
            self.notify("The index is not open; its place is not known yet.", severity="warning")
            return
        before = self._read.settings if self._read else ()
        self.grit_app.edit_file(desk.config.path)
        self.do(partial(_reread, before=before), SettingsRefused)

    def on_file_edited(self, message: FileEdited) -> None:
        message.stop()
        self._read = message.read
        self._show()
        if message.opens_anew:
            self.notify("config.toml was changed; the index is opened anew")
            self.grit_app.reopen_desk()

    def action_copy(self) -> None:
        chosen = self._chosen
        if isinstance(chosen, Setting):
            self.app.copy_to_clipboard(f"gritdesk settings {chosen.key} {shown_value(chosen.value)}".rstrip())
            self.notify("The command that sets it is copied.")
        elif isinstance(chosen, Stored):
            self.app.copy_to_clipboard(chosen.wipe if chosen.wipe.startswith("gritdesk") else str(chosen.path))
            self.notify("The command that removes it, or its path, is copied.")


def _read(desk: Desk) -> SettingsRead:
    found = desk.models()
    models = tuple(
        ("" if file.is_default else str(file.path), f"{file.name}: {model_line(file, facts)}") for file, facts in found
    )
    default = next((file.name for file, _ in found if file.is_default), "")
    return SettingsRead(Read(desk.settings(), tuple(desk.stored()), models, default))


def _reread(desk: Desk, before: Sequence[Setting]) -> FileEdited:
    """What the editor left."""
    read = _read(desk).read
    changed = [now for was, now in zip(before, read.settings, strict=False) if was.value != now.value]
    return FileEdited(read, any(each.applies == "on opening" for each in changed))


def _setting_row(setting: Setting, shown: str) -> Content:
    value = Content(shown).truncate(_VALUE_WIDTH, ellipsis=True)
    style = "$text-muted" if setting.is_default else "bold $text-accent"
    return Content.assemble("  ", setting.name.ljust(_NAME_WIDTH), value.stylize(style))


_COUNTS = {
    "at once": "A change counts at once.",
    "on opening": "A change opens the index anew.",
    "at start": "A change counts when gritdesk is started again.",
}


def _setting_detail(setting: Setting, shown: str, reset: str) -> Content:
    """Args: reset: the key that does it."""
    default = one_line(shown_value(setting.default)) or "—"
    counts = _COUNTS[setting.applies]
    keys = f"Enter changes it, {reset} takes the default."
    lines = [
        Content.styled(setting.key, "bold"),
        Content(plain(setting.meaning)),
        Content(""),
        Content.assemble(("now      ", "$text-muted"), shown),
        Content.assemble(("default  ", "$text-muted"), default),
        Content.assemble(("takes    ", "$text-muted"), setting.kind),
        Content(""),
        Content.styled(one_line(setting.kept_by) if setting.kept_by else f"{counts} {keys}", "$text-muted"),
    ]
    return Content("\n").join(lines)


def _stored_row(stored: Stored) -> Content:
    return Content.assemble(
        "  ", stored.name.ljust(14), (size(stored.size_bytes).rjust(9), "bold"), "  ", (_place(stored), "$text-muted")
    )


def _stored_detail(stored: Stored) -> Content:
    lines = [
        Content.styled(stored.name, "bold"),
        Content(""),
        Content(_place(stored)),
        Content(size(stored.size_bytes)),
        Content(""),
        Content.assemble(("To be rid of it: ", "$text-muted"), stored.wipe),
        Content.styled("Enter copies that.", "$text-muted"),
    ]
    return Content("\n").join(lines)


def _place(stored: Stored) -> str:
    return plain(stored.path) if isinstance(stored.path, str) else short_path(stored.path)
