"""The pictures of the README are those that the committed command draws, of every screen, and show no machine."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from gritdesk.config import load_config
from gritdesk.tui.app import GritDeskApp
from gritdesk.tui.keymap import Keymap

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## The terminal UI")[1].split("\n## ")[0]


@pytest.fixture
def screenshots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("screenshots", ROOT / "assets" / "screenshots.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "screenshots", module)
    spec.loader.exec_module(module)
    return module


def test_every_picture_of_the_readme_is_there_and_every_picture_is_in_the_readme(screenshots: ModuleType) -> None:
    shown = re.findall(r"\]\(assets/screenshots/([\w-]+)\.svg\)", SECTION)
    assert len(shown) == len(set(shown))
    assert set(shown) == {each.name for each in screenshots.PICTURES}
    assert set(shown) == {each.stem for each in screenshots.FOLDER.iterdir()}


def test_every_screen_with_a_tab_has_a_picture_of_its_name(screenshots: ModuleType) -> None:
    assert set(GritDeskApp.MODES) <= {each.name for each in screenshots.PICTURES}


def test_pictures_are_small_and_show_neither_this_machine_nor_a_font_from_the_network(screenshots: ModuleType) -> None:
    pictures = [each.read_text(encoding="utf-8") for each in screenshots.FOLDER.iterdir()]
    assert sum(map(len, pictures)) < 1_500_000
    for picture in pictures:
        assert "/tmp" not in picture and str(ROOT) not in picture and "@font-face" not in picture
        assert "gritdesk" in picture


def test_picture_with_a_path_of_this_machine_is_refused(screenshots: ModuleType) -> None:
    made = screenshots._made_neutral("<text>/tmp/tmpabcdefgh/Documents</text>", "x", "/tmp/tmpabcdefgh")
    assert made == "<text>/home/lighthouse/Documents</text>"
    with pytest.raises(ValueError, match="shows a path"):
        screenshots._made_neutral("<text>…/tmpabcdefgh/Documents</text>", "x", "/tmp/tmpabcdefgh")


def test_keys_and_settings_shown_in_the_readme_are_taken(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", SECTION, flags=re.DOTALL)
    (tmp_path / "config.toml").write_text(example, encoding="utf-8")
    config = load_config(tmp_path)
    assert Keymap(config.keys).problems == [] and config.appearance.theme == "gritdesk-light"
