"""The frame of the terminal app, held against its promises: `python benchmarks/frame.py [--library FOLDER]`.

A home with an index of N chunks (100,000, the texts and embeddings of search_scale.py, but of files that are on the
disk, so that the app's own sweep finds them) and one more folder of real text, which the app indexes meanwhile: words
and embeddings are written while keys are pressed.

    drawn         key press -> frame with the new character in it
    found         the same key -> frame with the results by words of that query or a later one
    moved         Down in the results -> frame with the next one highlighted
    previewed     the last of these keys, which repeat as if held down -> frame with that one's passage in the preview
    went          F3, F4 and so on -> frame of that screen
    start         process start -> first frame; -> first keys drawn; quit -> process end; warm and cold
    memory        of the app's processes after all that, idle

Where the edges are. Keys come from a thread, as the terminal driver's do, at a typist's uneven pace that waits for
nobody, and a key counts from when it was due: the time that this thread itself waits for Python is in it. A frame
counts from when the app hands it to its driver (`Driver.write`), and only one that shows the thing asked for: the typed
text in what is written, or a list that has taken the results and has nothing left to draw. The driver writes nowhere;
what a terminal and its pipe add is in the rows through a pty, where the installed program gets bytes and its output is
read as a terminal would read it. The floor is a Textual app of one Input and nothing else, measured in the same ways in
the same run.

Phases: `words` while files are read, `meaning` while passages are embedded, `idle` when there is nothing to index.

`--library FOLDER` keeps files and index for another run; each run works on a copy of the index.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bare_app
import psutil
from search_scale import CHUNKS_PER_FILE, Texts, _chunks, clustered
from textual import events
from textual.drivers.headless_driver import HeadlessDriver

from gritdesk import desk as desk_module
from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.models import default_model
from gritdesk.records import Document
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

SIZE = (120, 36)
KEYS_A_QUERY = 14
PAUSE_S = (0.08, 0.22)
"""Between two keys: from fast typing to slow."""
NUM_MOVES = 15
REPEAT_S = 0.05
"""Between two keys of one that is held down, as terminals repeat it or slower."""
GOING_S = 1.5
BORDER = "│"
"""Of the line that is typed into."""
_STYLING = re.compile(r"\x1b\[[0-9;?:<>=]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][A-B0]?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--library", type=Path, help="keep files and index here for another run")
    parser.add_argument("--texts", type=Path, help="the folder that is indexed meanwhile; else Python's own library")
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--only", choices=("keys", "start", "memory"))
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder), given.library or Path(folder) / "library", given.texts, given.model, given.queries, given.seed
        )
        bench.make_library(given.chunks)
        print(f"load average {os.getloadavg()[0]:.1f} before; {given.chunks:,} chunks, {SIZE[0]}x{SIZE[1]}\n")
        if given.only in (None, "keys"):
            bench.measure_keys()
        if given.only in (None, "start"):
            bench.measure_start()
        if given.only in (None, "memory"):
            bench.measure_memory()
        print(f"\nload average {os.getloadavg()[0]:.1f} after")


@dataclass
class Bench:
    folder: Path
    library: Path
    texts: Path | None
    model: Path
    num_queries: int
    seed: int
    num_homes: int = 0

    def make_library(self, num_chunks: int) -> None:
        """Files and an index of them, unless they are there."""
        index = self.library / "index.sqlite"
        if index.exists():
            return
        files = self.library / "files"
        files.mkdir(parents=True)
        with Desk.open(load_config(self._configured(self.folder / "maker", [files]))) as desk:
            dimension = desk.engine_info().dimension
            with desk._indexer() as indexer:
                reading = indexer._reading  # files of another would be read again, all of them
            space = Space(desk.fingerprint, dimension, str(self.model))
        vectors_ND, _ = clustered(num_chunks, dimension, 1)
        texts = Texts()
        made = index.with_suffix(".new")
        with SqliteStore(made) as store:
            store.enter_space(space)
            for first in range(0, num_chunks, CHUNKS_PER_FILE):
                number = first // CHUNKS_PER_FILE
                rows = vectors_ND[first : first + CHUNKS_PER_FILE]
                pieces = [texts.chunk() for _ in rows]
                path = files / str(number % 100) / f"{number}.{('txt', 'rst', 'md')[number % 3]}"
                path.parent.mkdir(exist_ok=True)
                document = Document(path, "\n\n".join(pieces), "text")
                path.write_text(document.text, encoding="utf-8")
                seen = path.stat()
                state = FileState(seen.st_size, seen.st_mtime_ns, "", reading=reading)
                hashes = [hashlib.blake2b(each.encode(), digest_size=16).digest() for each in pieces]
                store.replace_document(document, state, list(_chunks(pieces)), hashes)
                store.add_embeddings(dict(zip(hashes, rows, strict=True)))
        made.replace(index)

    def make_home(self, *, is_indexing: bool) -> Path:
        """A home with the library's index; with a new folder beside it that awaits indexing, if asked for."""
        self.num_homes += 1
        folders = [self.library / "files"]
        if is_indexing:
            new = self.folder / f"new-{self.num_homes}"
            copy_texts(self.texts, new)
            folders.append(new)
        home = self._configured(self.folder / f"home-{self.num_homes}", folders)
        shutil.copy(self.library / "index.sqlite", home / "index.sqlite")
        return home

    def _configured(self, home: Path, folders: Sequence[Path]) -> Path:
        home.mkdir()
        engine = f"[engine]\nmodel = {json.dumps(str(self.model))}\n"
        listed = json.dumps([str(each) for each in folders])
        (home / "config.toml").write_text(f"{engine}[index]\nfolders = {listed}\non_battery = 'go on'\n")
        return home

    # ------------------------------------------------------------ keys

    def measure_keys(self) -> None:
        words = Texts()
        queries = [" ".join(words.words(6))[:KEYS_A_QUERY] for _ in range(self.num_queries)]
        print("| key | phase | keys | ms, p50 / p95 / worst | asked, p95 |\n|---|---|---:|---|---|")
        floor = asyncio.run(type_into_a_bare_app(queries, self.seed))
        print_row("drawn, bare app of one Input", "", floor, "")
        taken = [
            each
            for is_indexing in (False, True)
            for each in asyncio.run(type_into_the_app(self.make_home(is_indexing=is_indexing), queries, self.seed))
        ]
        for name, asked in (("drawn", "50"), ("found", "150"), ("moved", "50"), ("previewed", ""), ("went", "")):
            for phase in ("words", "meaning", "idle"):
                print_row(
                    name, phase, [each.seconds for each in taken if (each.name, each.phase) == (name, phase)], asked
                )
        print(f"\nof `drawn`, p95 / p95 of the bare app: {_ratio(taken, floor)}")
        for name in sorted({each.detail for each in taken if each.name == "went"}):
            seconds = [1000 * each.seconds for each in taken if each.detail == name]
            print(f"{name}: {', '.join(f'{each:.0f}' for each in seconds)} ms")
        print("\n| through a pty | keys | ms, p50 / p95 / worst |\n|---|---:|---|")
        for name, command, home in (
            ("bare app", [sys.executable, str(Path(bare_app.__file__))], self.folder),
            ("gritdesk while it indexes", [sys.executable, "-m", "gritdesk.cli"], self.make_home(is_indexing=True)),
        ):
            with Terminal(command, home) as terminal:
                terminal.wait_for(bare_app.MARK if "bare" in name else "▸")
                seconds = terminal.type(queries[:8], bare_app.BORDER if "bare" in name else BORDER, self.seed)
            print(f"| {name} | {len(seconds)} | {_milliseconds(seconds)} |")

    # ------------------------------------------------------------ start and memory

    def measure_start(self) -> None:
        compileall.compile_dir(Path(desk_module.__file__).parent, quiet=2)  # as every installation is
        print("\n| start, s, median of 5 (worst) | warm | its files not in memory |\n|---|---|---|")
        taken: dict[str, list[list[float]]] = {}
        for is_cold in (False, True):
            for name, command, home in self._commands(is_indexing=False):
                for _ in range(5):
                    if is_cold:
                        drop_from_memory([*files_of_a_start(), self.model, *home.glob("*")])
                    for step, seconds in started(command, home, bare_app.MARK if "bare" in name else "F2"):
                        columns = taken.setdefault(f"{name}: {step}", [[], []])
                        columns[is_cold].append(seconds)
        for name, (warm, cold) in taken.items():
            shown = [f"{statistics.median(each):.2f} ({max(each):.2f})" for each in (warm, cold)]
            print(f"| {name} | {' | '.join(shown)} |")

    def measure_memory(self) -> None:
        print("\n| memory when idle, MB | resident | its own | of the model's file |\n|---|---:|---:|---:|")
        for name, command, home in self._commands(is_indexing=False):
            with Terminal(command, home) as terminal:
                terminal.wait_for(bare_app.MARK if "bare" in name else "● ")
                terminal.type([" ".join(Texts().words(6))], bare_app.BORDER if "bare" in name else BORDER, self.seed)
                time.sleep(8)
                for process in [terminal.process, *terminal.process.children(recursive=True)]:
                    self._print_memory(name, process)

    def _print_memory(self, name: str, process: psutil.Process) -> None:
        line = process.cmdline()
        role = next((each for each in ("engine.worker", "extract.worker") if f"gritdesk.{each}" in line), "app")
        memory = process.memory_full_info()
        of_model = sum(each.rss for each in process.memory_maps() if each.path == str(self.model.resolve()))
        shown = [f"{number / 1e6:.0f}" for number in (memory.rss, memory.uss, of_model)]
        print(f"| {name}: {role} | {' | '.join(shown)} |")

    def _commands(self, *, is_indexing: bool) -> Iterator[tuple[str, list[str], Path]]:
        """(name, command, home) of the floor and of gritdesk."""
        home = self.make_home(is_indexing=is_indexing)
        yield "bare app", [sys.executable, str(Path(bare_app.__file__))], home
        yield "gritdesk", [sys.executable, "-m", "gritdesk.cli"], home


# ---------------------------------------------------------------- keys, from within


@dataclass
class Taken:
    name: str
    """Of what was awaited: drawn, found, ..."""
    phase: str
    """Of the indexing, when the key was due."""
    seconds: float
    detail: str = ""
    due: float = 0.0


@dataclass
class Awaited:
    name: str
    due_at: float
    is_there: Callable[[str], bool]
    """Asked with every frame, the text that is written."""
    phase: str = ""
    detail: str = ""


@dataclass
class Press:
    """A key at its time, and what is to be seen after it."""

    key: str
    after_s: float
    """Since the key before."""
    awaits: list[Awaited] = field(default_factory=list)


class Probe:
    """Sees every frame at the driver, and holds it against what is awaited."""

    def __init__(self, phase: Callable[[], str]) -> None:
        self.taken: list[Taken] = []
        self.awaited: list[Awaited] = []
        self._phase = phase

    def press(self, driver: Any, presses: Sequence[Press]) -> None:
        """Runs in a thread, which is what the driver of a terminal reads keys in."""
        due_at = time.perf_counter()
        for press in presses:
            due_at += press.after_s
            while (left_s := due_at - time.perf_counter()) > 0:
                time.sleep(left_s)
            phase = self._phase()
            for each in press.awaits:
                each.due_at, each.phase = due_at, phase
                self.awaited.append(each)
            character = press.key if len(press.key) == 1 else None
            driver.process_message(events.Key("space" if press.key == " " else press.key, character))

    def frame(self, data: str) -> None:
        now = time.perf_counter()
        text = _STYLING.sub("", data)
        for each in [each for each in self.awaited if each.is_there(text)]:
            self.awaited.remove(each)
            self.taken.append(Taken(each.name, each.phase, now - each.due_at, each.detail, each.due_at))


def seen_by(probe: Probe) -> type[HeadlessDriver]:
    class SeenDriver(HeadlessDriver):
        """Draws, as one on a terminal does, into the probe."""

        @property
        def is_headless(self) -> bool:
            return False

        def write(self, data: str) -> None:
            probe.frame(data)

    return SeenDriver


def is_clean(widget: Any) -> bool:
    """Whether a widget has been drawn as it is now."""
    return not (widget._repaint_required or widget._layout_required or widget._repaint_regions)


def awaits_text(typed: str, border: str) -> Awaited:
    return Awaited("drawn", 0.0, lambda written: f"{border} {typed}" in written, detail=typed)


async def type_into_a_bare_app(queries: Sequence[str], seed: int) -> list[float]:
    app = bare_app.BareApp()
    probe = Probe(lambda: "")
    app.driver_class = seen_by(probe)
    rng = random.Random(seed)
    presses = []
    for query in queries:
        for end in range(1, len(query) + 1):
            drawn = awaits_text(query[:end], bare_app.BORDER)
            presses.append(Press(query[end - 1], rng.uniform(*PAUSE_S), [drawn]))
        presses.append(Press("escape", 0.3))

    async def press_all(pilot: Any) -> None:
        await asyncio.to_thread(probe.press, app._driver, presses)
        await pilot.pause(0.5)
        app.exit()

    await app.run_async(size=SIZE, auto_pilot=press_all)
    return [each.seconds for each in probe.taken]


async def type_into_the_app(home: Path, queries: Sequence[str], seed: int) -> list[Taken]:
    from gritdesk.tui.app import GritDeskApp
    from gritdesk.tui.screens.search import SearchScreen
    from gritdesk.tui.text import plain
    from gritdesk.tui.widgets.hit_list import HitList
    from gritdesk.tui.widgets.passage_view import PassageView

    found: dict[int, tuple[str, list[Any]]] = {}

    class SeenDesk(Desk):
        def search(self, query: str, *arguments: Any, **options: Any) -> list[Any]:
            hits = super().search(query, *arguments, **options)
            found[id(hits)] = query, hits  # held, so that the number stays its own
            return hits

    app = GritDeskApp(lambda: SeenDesk.open(load_config(home)))
    probe = Probe(lambda: phase_of(app.activity))
    app.driver_class = seen_by(probe)
    shown: list[str] = []
    on_hits_found = SearchScreen.on_hits_found

    def note_shown(screen: SearchScreen, message: Any) -> None:
        on_hits_found(screen, message)
        if screen.query_one(HitList).hits == tuple(message.hits):  # else it came too late
            shown.append(found[id(message.hits)][0])

    def search_screen() -> SearchScreen:
        (screen,) = [each for each in app.get_screen_stack("search") if isinstance(each, SearchScreen)]
        return screen

    def hit_list() -> HitList:
        return search_screen().query_one(HitList)

    def awaits_results(order: list[str], typed: str) -> Awaited:
        wanted = set(order[order.index(typed) :])

        def is_there(written: str) -> bool:
            results = hit_list()
            return bool(shown) and shown[-1] in wanted and (is_clean(results) or not results.is_on_screen)

        return Awaited("found", 0.0, is_there)

    num_moves = 0
    action_cursor_down = HitList.action_cursor_down

    def note_move(widget: HitList) -> None:
        nonlocal num_moves
        num_moves += 1
        action_cursor_down(widget)

    def awaits_move(number: int) -> Awaited:
        return Awaited("moved", 0.0, lambda _: num_moves >= number and is_clean(hit_list()))

    def awaits_preview(row: int) -> Awaited:
        def is_there(written: str) -> bool:
            view = search_screen().query_one(PassageView)
            return is_clean(view) and view.passage in {
                plain(each.chunk.text).rstrip() for each in hit_list().hits[row:]
            }

        return Awaited("previewed", 0.0, is_there)

    def awaits_screen(mode: str) -> Awaited:
        return Awaited("went", 0.0, lambda written: app.current_mode == mode and "F2" in written, detail=mode)

    keys = {each.action: each.key for each in app.BINDINGS}  # type: ignore[union-attr]
    rng = random.Random(seed)
    presses = []
    for number, query in enumerate(queries):
        order = list(dict.fromkeys(query[:end].strip() for end in range(1, len(query) + 1)))
        for end in range(1, len(query) + 1):
            typed = query[:end]
            awaits = [awaits_text(typed, BORDER)]
            if typed == typed.strip():
                awaits.append(awaits_results(order, typed))
            presses.append(Press(typed[-1], rng.uniform(*PAUSE_S), awaits))
        if number % 4 == 1:
            presses.append(Press("down", 2.0))
            num_made = (NUM_MOVES - 1) * (number // 4)
            presses += [
                Press(
                    "down",
                    REPEAT_S if row > 1 else 0.3,
                    [awaits_move(num_made + row), *([awaits_preview(row)] if row == NUM_MOVES - 1 else [])],
                )
                for row in range(1, NUM_MOVES)
            ]
            presses.append(Press("escape", 0.5))
        presses.append(Press("escape", 0.5))
    # last, for the map is made then
    for mode in 2 * [mode for mode in app.MODES if mode != "search"] + ["search"]:
        presses.append(Press(keys[f"go({mode!r})"], GOING_S, [awaits_screen(mode)]))

    async def press_all(pilot: Any) -> None:
        while app.activity.desk != "open" or app.activity.progress is None:
            await pilot.pause(0.01)
        await asyncio.to_thread(probe.press, app._driver, presses)
        await pilot.pause(1.0)
        app.exit()

    with (
        patch.object(SearchScreen, "on_hits_found", note_shown),
        patch.object(HitList, "action_cursor_down", note_move),
    ):
        await app.run_async(size=SIZE, auto_pilot=press_all)
    app.close_desk(wait_s=10)
    lost = [each.name for each in probe.awaited]
    if lost:
        print(f"never seen: {', '.join(f'{lost.count(each)} {each}' for each in sorted(set(lost)))}", file=sys.stderr)
    return probe.taken


def phase_of(activity: Any) -> str:
    progress = activity.progress
    if not activity.is_indexing:
        return "idle"
    if progress is None:
        return "sweep"
    if progress.files_done < progress.files_total:
        return "words"
    return "meaning" if progress.chunks_awaiting else "idle"


# ---------------------------------------------------------------- from without


class Terminal:
    """A program in a terminal of its own, as bytes in and bytes out. Not on Windows."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.began_at = time.perf_counter()
        pid, self._end = pty.fork()
        if pid == 0:
            os.environ.update(GRITDESK_HOME=str(home), TERM="xterm-256color", TEXTUAL_ANIMATIONS="none")
            os.execv(command[0], list(command))
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.process = psutil.Process(pid)
        self._raw = b""

    @property
    def written(self) -> str:
        return _STYLING.sub("", self._raw.decode(errors="replace"))

    def write(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def read(self, seconds: float) -> bool:
        """Take what comes within this time; False at the end of the program."""
        import select

        if not select.select([self._end], [], [], max(0.0, seconds))[0]:
            return True
        try:
            self._raw += os.read(self._end, 1 << 16)
        except OSError:
            return False
        return True

    def wait_for(self, text: str, patience_s: float = 60.0) -> None:
        give_up_at = time.monotonic() + patience_s
        while text not in self.written:
            assert self.read(0.05) and time.monotonic() < give_up_at, self.written[-2000:]

    def wait_for_end(self) -> None:
        while self.read(1.0):
            pass
        os.waitpid(self.process.pid, 0)

    def type(self, queries: Sequence[str], border: str, seed: int) -> list[float]:
        """From each key to the text in what is written."""
        rng = random.Random(seed)
        seconds = []
        for query in queries:
            for end in range(1, len(query) + 1):
                due_at = time.perf_counter() + rng.uniform(*PAUSE_S)
                while (left_s := due_at - time.perf_counter()) > 0:
                    self.read(left_s)
                self._raw = b""
                self.write(query[end - 1])
                self.wait_for(f"{border} {query[:end].rstrip()}", 10)
                seconds.append(time.perf_counter() - due_at)
            self.write("\x1b")
            cleared_at = time.perf_counter() + 0.5  # else the next key would be one with Alt
            while (left_s := cleared_at - time.perf_counter()) > 0:
                self.read(left_s)
        return seconds

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.write("\x11")
        self.wait_for_end()
        os.close(self._end)


def started(command: Sequence[str], home: Path, mark: str) -> Iterator[tuple[str, float]]:
    """(step, seconds) of one start and its end."""
    with Terminal(command, home) as terminal:
        terminal.wait_for(mark)
        yield "first frame", time.perf_counter() - terminal.began_at
        terminal.write("zqx")
        terminal.wait_for("zqx")
        yield "first keys drawn", time.perf_counter() - terminal.began_at
        quit_at = time.perf_counter()
    yield "quit", time.perf_counter() - quit_at


def files_of_a_start() -> list[Path]:
    """What a start of the app reads: modules as they are compiled, and libraries."""
    code = (
        "import sys, gritdesk.cli, gritdesk.tui.app, gritdesk.desk, gritdesk.store.sqlite, gritdesk.chat_keeper\n"
        "for each in sys.modules.values():\n"
        "    print(getattr(each, '__cached__', None) or ''), print(getattr(each, '__file__', None) or '')\n"
    )
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return [Path(each) for each in set(listed.splitlines()) if each] + [Path(sys.executable).resolve()]


def drop_from_memory(paths: Sequence[Path]) -> None:
    """Have the system forget its copies of these files; those that another process has mapped stay. Linux."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_texts(texts: Path | None, folder: Path, max_bytes: int = 5_000_000) -> None:
    """Real text to be indexed, so much that it lasts; each copy has another first line, so that nothing is known."""
    source = texts or Path(sysconfig.get_paths()["stdlib"])
    num_bytes = 0
    for path in sorted(source.rglob("*")):
        if path.suffix not in (".py", ".txt", ".md", ".rst", ".html") or "site-packages" in path.parts:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        there = folder / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(f"# {folder.name}\n{text}", encoding="utf-8")
        num_bytes += len(text)
        if num_bytes > max_bytes:
            return


# ---------------------------------------------------------------- telling


def print_row(name: str, phase: str, seconds: Sequence[float], asked: str) -> None:
    if len(seconds) > 2:
        print(f"| {name} | {phase} | {len(seconds)} | {_milliseconds(seconds)} | {asked} |")


def _milliseconds(seconds: Sequence[float]) -> str:
    quantiles = statistics.median(seconds), _p95(seconds), max(seconds)
    return " / ".join(f"{1000 * each:.0f}" for each in quantiles)


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def _ratio(taken: Sequence[Taken], floor: Sequence[float]) -> str:
    return f"{_p95([each.seconds for each in taken if each.name == 'drawn']) / _p95(floor):.1f}"


if __name__ == "__main__":
    main()
