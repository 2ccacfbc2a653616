"""Draw every screen of the terminal UI into assets/screenshots: `make screenshots`, or `python assets/screenshots.py`.

The real app is driven by its keys, on the sample documents and the pages of docs/, with the default model, in a home of
its own that is deleted afterwards. Dates are set, and paths of the machine it runs on are shown as those of a made-up
person. What differs from one time to the next are the seconds that things took, the versions of what is installed, and
the map, where the last digits of embeddings decide which way a document is pushed.
A name or two after the command draw those pictures alone.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from gritdesk.tui.app import GritDeskApp

ASSETS = Path(__file__).parent
FOLDER = ASSETS / "screenshots"
SIZE = (120, 32)
PATIENCE_S = 60.0
WRITTEN = 1_741_000_000
"""When all documents were changed last: 3 March 2025."""


@dataclass(frozen=True)
class Picture:
    name: str
    steps: tuple[str, ...]
    """Keys to press, `type TEXT`, and `see TEXT` for what is waited for."""
    is_first_run: bool = False
    """With nothing indexed yet."""

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.svg"


PICTURES = (
    Picture("first-run", ("see Documents", "see found by words after"), is_first_run=True),
    Picture("search", ("type how is the lamp kept clean", "see ms", "down", "see The lamp is cleaned")),
    Picture("ask", ("f3", "type Where is the spare tower key kept?", "enter", "see supported by")),
    Picture("library", ("f4", "see /Documents", "tab", "see boat-log.md", "down", "down", "down", "see read as")),
    Picture("inspect", ("f4", "see /Documents", "tab", "see keepers-", *["down"] * 4, "i", "see tokens", "down")),
    Picture("chats", ("f5", "see spare tower key")),
    Picture("settings", ("f6", "see model")),
    Picture("map", ("f7", "see Your library")),
    Picture("doctor", ("f8", "see Everything is as it should be")),
)


def main() -> None:
    wanted = [each for each in PICTURES if not sys.argv[1:] or each.name in sys.argv[1:]]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        person = Path(made).resolve()
        folders = [person / "Documents", person / "Manuals"]
        for folder, source in zip(folders, (ASSETS / "sample", ASSETS.parent / "docs"), strict=True):
            shutil.copytree(source, folder)
            for each in [*folder.iterdir(), folder]:
                os.utime(each, (WRITTEN, WRITTEN))
        os.environ |= {"HOME": str(person), "TEXTUAL_ANIMATIONS": "none", "COLORTERM": "truecolor"}
        for name in ("NO_COLOR", "EDITOR", "VISUAL", "SSH_CONNECTION"):
            os.environ.pop(name, None)
        platform.platform = lambda *_, **__: platform.system()  # the kernel's version says nothing to a reader
        for picture in wanted:
            home = person / (".gritdesk-new" if picture.is_first_run else ".gritdesk")
            os.environ["GRITDESK_HOME"] = str(home)
            drawn = asyncio.run(_drawn(picture, folders))
            picture.path.write_text(_made_neutral(drawn, picture.name, str(person)), encoding="utf-8")
            print(f"{picture.path.relative_to(ASSETS.parent)}  {picture.path.stat().st_size // 1000} kB")


async def _drawn(picture: Picture, folders: list[Path]) -> str:
    """The screen as SVG after all steps."""
    from textual.widgets import Input, TextArea

    from gritdesk.config import load_config
    from gritdesk.desk import Desk
    from gritdesk.tui.app import GritDeskApp

    config = load_config()
    if not picture.is_first_run:
        with Desk.open(config) as desk:
            desk.index(folders)
    config = load_config()
    app = GritDeskApp(lambda: Desk.open(config), config)
    async with app.run_test(size=SIZE) as pilot:
        await _until(pilot, lambda: app.activity.model == "ready" and app.activity.status is not None, "the model")
        for step in picture.steps:
            await _take(pilot, app, step)
        for text in app.screen.query("Input, TextArea").results():
            if isinstance(text, Input | TextArea):
                text.cursor_blink = False
        await pilot.pause(0.5)
        return app.export_screenshot(simplify=True)


async def _take(pilot: Pilot[Any], app: GritDeskApp, step: str) -> None:
    word, _, text = step.partition(" ")
    if word == "see":
        await _until(pilot, lambda: text in _text_of(app), text)
    elif word == "type":
        await pilot.press(*("space" if each == " " else each for each in text))
    else:
        await pilot.press(step)


async def _until(pilot: Pilot[Any], holds: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never came: {what}\n{_text_of(pilot.app)}")
        await pilot.pause(0.05)


def _text_of(app: Any) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def _made_neutral(svg: str, name: str, person: str) -> str:
    """Without a font from the network, with names that are the same each time, and without paths of this machine."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "'Fira Code', Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    svg = re.sub(r"terminal-\d+", f"gritdesk-{name}", svg)
    # a stretch of text has its width written beside it, so what stands for the path is as long as it
    svg = svg.replace(person, ("/home/" + "lighthouse" * 20)[: len(person)])
    if left := [each for each in (person, Path(person).name, str(ASSETS.parent)) if each in svg]:
        raise ValueError(f"the picture {name} shows a path of this machine: {left}")
    return svg


if __name__ == "__main__":
    main()
