"""Keys by their ids: what config.toml changes holds in every screen and text, and what it cannot change is told."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ready, screen_text, until
from fake_desk import FakeDesk
from textual.binding import Binding
from textual.command import CommandList, CommandPalette
from textual.widget import Widget
from textual.widgets import Input

from gritdesk import tui
from gritdesk.cli import main
from gritdesk.config import Config, load_config
from gritdesk.errors import ConfigError
from gritdesk.records import Misses
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.keymap import Keymap, bindings_of, contexts, owners, parsed, shown, swallowed
from gritdesk.tui.screens.add_folder import AddFolderScreen
from gritdesk.tui.screens.ask import AskScreen
from gritdesk.tui.screens.ask_line import AskLineScreen
from gritdesk.tui.screens.jump import JumpScreen
from gritdesk.tui.screens.library import LibraryScreen
from gritdesk.tui.screens.search import SearchScreen
from gritdesk.tui.screens.viewer import ViewerScreen
from gritdesk.tui.widgets.help_panel import HelpPanel
from gritdesk.tui.widgets.key_footer import KeyFooter

SIZE = (120, 40)


def app_with(desk: FakeDesk, keys: dict[str, object]) -> GritDeskApp:
    return GritDeskApp(lambda: desk, Config(Path("/nowhere"), keys=keys))  # type: ignore[arg-type, return-value]


# what stands in the code


def test_every_binding_has_an_id_of_its_own_a_tooltip_and_keys_that_arrive() -> None:
    ids = []
    for owner in owners():
        for binding in owner.BINDINGS:
            assert isinstance(binding, Binding) and binding.id and binding.tooltip, binding
            ids.append(binding.id)
    assert len(ids) == len(set(ids)) and "search.ask" in ids and "hits.open" in ids
    for bound in Keymap().bound.values():
        lost = [key for key in bound.default if swallowed(key)]
        # ctrl+c twice quits where ctrl+q is taken; ctrl+n is a new line where shift+enter is not told from enter
        assert not lost or bound.id in ("app.quit", "question.new_line"), bound


def test_no_two_bindings_that_hold_at_the_same_time_share_a_key() -> None:
    keymap = Keymap()
    for context in contexts():
        # these have their keys only while there is something to complete, or help to take away
        held = [binding for owner in context for binding in bindings_of(owner)]
        ids = [binding.id for binding in held if binding.id not in ("query.complete", "app.close_help")]
        keys = [key for id in ids for key in keymap.bound[str(id)].default]
        assert sorted(keys) == sorted(set(keys)), context


def test_every_screen_with_a_tab_has_a_key_named_like_it() -> None:
    assert {f"app.{mode}" for mode in GritDeskApp.MODES} <= set(Keymap().bound)


def test_every_screen_and_every_widget_that_takes_the_focus_has_help_whose_ids_exist() -> None:
    keymap = Keymap()
    for owner in owners()[1:]:
        assert issubclass(owner, Widget) and owner.HELP, owner
        told = keymap.told(inspect.cleandoc(owner.HELP))
        assert not any(f"`{each.split('.')[0]}." in told for each in keymap.bound), told


def test_what_is_bound_in_one_place_is_listed_under_one_title_of_its_own() -> None:
    titles = [title for title, _ in groupby(Keymap().bound.values(), key=lambda bound: bound.group)]
    assert len(titles) == len(set(titles))


FIXED = {
    ("app.py", "ctrl+c"),
    *(
        (name, "Enter")
        for name in ("add_folder.py", "ask_line.py", "edit_setting.py", "inspect.py", "map.py", "settings.py")
    ),
    *(("question_input.py", key) for key in ("Tab", "Enter", "Esc", "Backspace")),
}
"""Keys that texts name as they are, since [keys] cannot change them: Textual's own, and those of the picker."""


def test_texts_name_no_key_that_config_toml_can_change() -> None:
    keys = {shown(key) for bound in Keymap().bound.values() for key in bound.default}
    words = "|".join(sorted(key for key in keys if key.isalnum() and len(key) > 1))
    letters = r"(?<![\w.+'’`“/~:-])[b-hj-z+](?= [a-z])"  # "q ends that"; `a` and `i` are words too
    named = re.compile(rf"\b(?:ctrl|alt|shift)\+\w+|\b(?:{words})\b|{letters}")
    found = set()
    for path in Path(inspect.getfile(tui)).parent.rglob("*.py"):
        if path.name != "keymap.py":  # whose texts are of keys
            found |= {(path.name, key) for text in shown_texts(path) for key in named.findall(text)}
    assert found == FIXED


def shown_texts(path: Path) -> Iterator[str]:
    """The texts of a module that a person may read: all with a blank but docstrings, and of bindings the tooltips."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            hidden.add(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Binding":
            hidden.update(node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and node not in hidden:
            yield node.value


# what config.toml says


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        ("Ctrl+G", "ctrl+g", "ctrl+g"),
        ("?", "question_mark", "?"),
        ("+", "plus", "+"),
        ("Esc", "escape", "Esc"),
        ("PgUp", "pageup", "PgUp"),
        ("alt+up", "alt+up", "alt+Up"),
        ("F9", "f9", "F9"),
        ("R", "R", "R"),
        ("comma", "comma", ","),
    ],
)
def test_keys_are_read_as_people_write_them_and_shown_so_that_they_can_be_written(
    text: str, key: str, told: str
) -> None:
    assert parsed(text) == key and shown(key) == told
    assert told == "," or parsed(told) == key


@pytest.mark.parametrize("text", ["ctrl+h", "ctrl+j", "ctrl+m", "ctrl+i", "ctrl+[", "ctrl+enter", "shift+a", "ctrl+1"])
def test_keys_that_no_terminal_hands_on_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not arrive"):
        parsed(text)


@pytest.mark.parametrize(
    ("id", "keys", "told"),
    [
        ("search.asks", "x", "[keys] search.asks: no binding has this id; `gritdesk keys` lists them"),
        ("search.ask", "strg+x", "[keys] search.ask: 'strg+x' is no key; keys are written as"),
        ("search.ask", "ctrl+s", "[keys] search.ask: ctrl+s does not arrive: some terminals keep ctrl+s"),
        ("search.ask", 7, "[keys] search.ask: its keys must be text such as"),
        ("search.ask", "r", "[keys] search.ask: r is search.rerank (Search: Look harder) already; it stays a"),
        ("search.ask", "f4", "[keys] search.ask: F4 is app.library (Everywhere: Library) already; it stays a"),
        ("app.jump", "e", "[keys] app.jump: e is ask.evidence (Ask: Evidence) already; it stays ctrl+o"),
        ("hits.open", "v", "[keys] hits.open: v is"),
        ("search.view", "ctrl+e", "[keys] search.view: ctrl+e is Input's own (Go to end) already; it stays v"),
    ],
)
def test_a_line_that_cannot_be_followed_is_told_and_the_rest_holds(id: str, keys: object, told: str) -> None:
    keymap = Keymap({id: keys, "search.copy": "Y"})
    [problem] = keymap.problems
    assert problem.startswith(told)
    assert keymap.changed == {"search.copy": ("Y",)}


def test_two_keys_may_be_exchanged_and_what_one_gives_back_another_loses() -> None:
    assert Keymap({"search.ask": "v", "search.view": "a"}).problems == []
    keymap = Keymap({"search.ask": "v", "search.view": "r"})  # `r` is taken, so `v` stays where it is
    assert [each.split(":")[0] for each in keymap.problems] == ["[keys] search.view", "[keys] search.ask"]
    assert keymap.key_of("search.view") == "v" and keymap.key_of("search.ask") == "a"


def test_ids_in_texts_become_keys_and_other_words_between_backquotes_stay() -> None:
    keymap = Keymap({"app.ask": "f9"})
    assert keymap.told("`app.ask` asks; `config.toml` and `gritdesk keys`") == (
        "`F9` asks; `config.toml` and `gritdesk keys`"
    )


def test_keys_section_is_taken_with_and_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[keys]\n"search.ask" = "x"\nsearch.view = "ctrl+e"\n', encoding="utf-8")
    assert load_config(tmp_path).keys == {"search.ask": "x", "search.view": "ctrl+e"}
    (tmp_path / "config.toml").write_text("keys = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown section"):
        load_config(tmp_path)


def test_help_on_a_line_of_text_names_the_key_that_works_while_typing() -> None:
    text = "`search.mark`, `search.ask` and `search.copy`"
    assert Keymap().told(text, while_typing=True) == "`ctrl+t`, `ctrl+g` and `y`"
    assert Keymap({"search.ask": "z,f9"}).told(text, while_typing=True) == "`ctrl+t`, `F9` and `y`"
    assert Keymap().told(text) == "`Space`, `a` and `y`"


# in the app


async def test_a_changed_key_works_while_typing_too_and_its_old_one_types(desk: FakeDesk) -> None:
    app = app_with(desk, {"search.view": "f12", "search.mode": "f9"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press(*"bv")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        assert app.screen.query_one("#query", Input).value == "bv"
        await pilot.press("f9")
        assert isinstance(app.screen, SearchScreen) and app.screen.mode == "semantic"
        await pilot.press("f12")
        await until(pilot, lambda: isinstance(app.screen, ViewerScreen))


async def test_a_changed_key_of_a_widget_and_of_the_app_works(desk: FakeDesk) -> None:
    app = app_with(desk, {"question.send": "ctrl+t", "app.ask": "f12"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        assert isinstance(app.screen, SearchScreen)
        await pilot.press("f12")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("w", "enter", "x", "ctrl+t")
        await until(pilot, lambda: desk.named("ask"))
        assert desk.named("ask")[0][0] == "w\nx"


async def test_footer_tabs_texts_help_and_palette_name_the_changed_key(desk: FakeDesk) -> None:
    app = app_with(desk, {"app.ask": "f12", "search.mode": "f9", "app.help": "f10"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "F10 Help" in screen_text(app))
        rows = screen_text(app).splitlines()
        assert "F12 Ask" in rows[0] and "F9 Mode" in rows[-1]
        assert "F12 asks a question" in screen_text(app) and "F9 changes the mode.  F10 shows" in screen_text(app)
        await pilot.press("f10")
        await until(pilot, lambda: "F9 changes the mode" in " ".join(screen_text(app).split()))
        await pilot.press("f10", "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        commands = app.screen.query_one(CommandList)
        titles = lambda: [str(each.prompt).splitlines()[0] for each in commands.options]  # noqa: E731
        await until(pilot, lambda: {"Ask (F12)", "Mode (F9)", "Look harder (r)", "Jump (ctrl+o)"} <= set(titles()))
        assert "Unread files" in titles() and "Theme" in titles() and len(titles()) == len(set(titles()))


async def test_notes_on_an_empty_result_name_the_changed_key(desk: FakeDesk) -> None:
    desk.hits = lambda query, mode: []
    desk.near_misses = Misses((("in:away", 12),), ())
    app = app_with(desk, {"search.mode": "f9"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f9", *"bu")
        await until(pilot, lambda: "in:away  hides 12 passages" in screen_text(app))
        assert "F9 goes on to another mode." in screen_text(app)


async def test_hints_of_library_settings_and_of_a_box_name_the_changed_key(desk: FakeDesk) -> None:
    app = app_with(desk, {"library.retry": "f9", "settings.reset": "f11", "ask_line.cancel": "f12"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f4", "tab", "tab", "tab")
        await until(pilot, lambda: "or at once by F9" in " ".join(screen_text(app).split()))
        await pilot.press("f6")
        await until(pilot, lambda: "Enter changes it, F11" in screen_text(app))
        app.push_screen(AskLineScreen("Title", "", "takes it"))
        await until(pilot, lambda: "Enter takes it, F12 leaves." in screen_text(app))


async def test_lines_of_config_that_cannot_be_followed_are_told_at_the_start(desk: FakeDesk) -> None:
    app = app_with(desk, {"search.asks": "x", "app.ask": "f12"})
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "search.asks" in screen_text(app))
        assert "no binding has this id" in " ".join(screen_text(app).split())


@pytest.mark.parametrize("width", [80, 60])
async def test_footers_fit_and_keep_help(app: GritDeskApp, width: int) -> None:
    async with app.run_test(size=(width, 24)) as pilot:
        await ready(pilot)
        for mode in app.MODES:
            await app.switch_mode(mode)
            await until(pilot, lambda: screen_text(app).splitlines()[-1].rstrip().endswith("F1 Help"), mode)


async def test_a_click_in_the_footer_presses_its_key_and_pointing_at_one_explains_it(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "F1 Help" in screen_text(app).splitlines()[-1])
        footer = app.screen.query_one(KeyFooter)
        x = screen_text(app).splitlines()[-1].index("F1 Help")
        await pilot.hover(KeyFooter, offset=(x, 0))
        assert footer.tooltip == "Keys and help for what has the focus"
        await pilot.hover(KeyFooter, offset=(SIZE[0] - 1, 0))
        assert footer.tooltip is None
        await pilot.click(KeyFooter, offset=(x + 4, 0))
        await until(pilot, lambda: "Search. Words are found" in screen_text(app))


# help


async def test_help_and_the_palette_have_a_second_key_where_the_first_does_not_arrive(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("b", "?", "ctrl+underscore")  # a query is being typed
        await until(pilot, lambda: app.screen.query(HelpPanel))
        await pilot.press("ctrl+underscore")
        await until(pilot, lambda: not app.screen.query(HelpPanel))
        assert app.screen.query_one("#query", Input).value == "b?"
        await pilot.press("f4", "?")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen) and app.screen.query(HelpPanel))
        await pilot.press("?", "ctrl+l", *"jump")
        await until(pilot, lambda: app.screen.query(CommandList))
        await pilot.press("escape")


@pytest.mark.parametrize("width", [120, 80, 60])
async def test_the_top_line_names_the_key_of_every_screen(app: GritDeskApp, width: int) -> None:
    async with app.run_test(size=(width, 24)) as pilot:
        await ready(pilot)
        for mode in (*app.MODES, "doctor"):
            await pilot.press(app.keymap.keys_of(f"app.{mode}")[0])
            title = app.keymap.bound[f"app.{mode}"].title
            await until(pilot, lambda title=title: title in screen_text(app).splitlines()[0], mode)
            keys = [word for word in screen_text(app).splitlines()[0].split() if re.fullmatch(r"F\d", word)]
            assert keys == [f"F{number}" for number in range(2, 9)]


async def test_help_follows_the_focus_with_the_keys_of_widget_screen_and_app(app: GritDeskApp) -> None:
    async with app.run_test(size=(120, 60)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "Query." in screen_text(app) and "Search. Words are found" in screen_text(app))
        assert "Go to the results" in screen_text(app) and "Everywhere" in screen_text(app)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        await pilot.press("down")
        await until(pilot, lambda: "Results. Enter opens" in screen_text(app) and "Query." not in screen_text(app))
        app.screen.query_one(HelpPanel).focus()
        await pilot.pause()
        assert "Results. Enter opens" in screen_text(app)
        await pilot.press("f1")
        await until(pilot, lambda: not app.screen.query(HelpPanel))


async def test_help_is_there_in_a_box_too_and_numbered_keys_are_one_line(app: GritDeskApp) -> None:
    async with app.run_test(size=(120, 60)) as pilot:
        await ready(pilot)
        app.action_add_folder()
        await until(pilot, lambda: isinstance(app.screen, AddFolderScreen))
        await pilot.press("f1")
        await until(pilot, lambda: "Take the suggested path" in screen_text(app))
        await pilot.press("f1", "escape", "f3", "f1")
        await until(pilot, lambda: "1 … 9" in screen_text(app) and "Show source [2]" not in screen_text(app))


# jump mode


async def test_jump_mode_goes_to_the_pane_of_the_letter_and_any_other_key_leaves(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press(*"bu")
        await until(pilot, lambda: "rate-limits.md" in screen_text(app))
        for letter, pane in (("s", "hits"), ("d", "preview-text"), ("a", "query")):
            await pilot.press("ctrl+o")
            await until(pilot, lambda: isinstance(app.screen, JumpScreen))
            await pilot.press(letter)
            await until(pilot, lambda pane=pane: app.focused is not None and app.focused.id == pane)
        for key in ("escape", "f1", "z", "down"):
            await pilot.press("ctrl+o")
            await until(pilot, lambda: isinstance(app.screen, JumpScreen))
            assert " S " in screen_text(app)
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, SearchScreen))
            assert app.focused is not None and app.focused.id == "query"
        assert app.screen.query_one("#query", Input).value == "bu"


async def test_jump_mode_is_in_the_palette_and_bears_a_screen_without_panes(app: GritDeskApp) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p", *"jump")
        commands = app.screen.query_one(CommandList)
        await until(pilot, lambda: commands.option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, JumpScreen))
        await pilot.resize_terminal(20, 5)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))


# the command


def test_keys_command_lists_every_key_and_what_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('[keys]\n"search.ask" = "z"\n"app.map" = "ctrl+h"\n', encoding="utf-8")
    told = CliRunner().invoke(main, ["keys"])
    assert told.exit_code == 0
    rows = {line.split()[1]: line for line in told.stdout.splitlines() if line.startswith("  ") and "." in line}
    assert "by default a ctrl+g" in rows["search.ask"] and rows["search.ask"].split()[0] == "z"
    assert "ctrl+h does not arrive" in told.stderr
    found = json.loads(CliRunner().invoke(main, ["keys", "--json"]).stdout)
    by_id = {each["id"]: each for each in found["keys"]}
    assert by_id["search.ask"] | {"what": ""} == {
        "id": "search.ask",
        "screen": "Search",
        "keys": ["z"],
        "default": ["a", "ctrl+g"],
        "changed": True,
        "title": "Ask",
        "what": "",
    }
    assert len(found["problems"]) == 1 and set(by_id) == set(Keymap().bound)
