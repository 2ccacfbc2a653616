"""Which files are documents, and which rule says that a path is none."""

from __future__ import annotations

import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from closed_folders import close_folder

from gritdesk import walking
from gritdesk.walking import Walk, distinct, found_within, is_in_the_cloud, look_at

links = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need a privilege there")


class Tree:
    """A folder to walk, and a home of gritdesk's beside it."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "docs"
        self.home = top / "home"
        self.folder.mkdir()
        self.home.mkdir()

    def write(self, *names: str, text: str = "text") -> Path:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return path

    def walk(self) -> Walk:
        return Walk(self.folder, self.home)

    def walked(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path, _ in self.walk().files()}

    def rule(self, name: str) -> str:
        """By which rule a path is skipped; "" if it is a document."""
        skip = self.walk().rule(self.folder / name)
        return skip.rule if skip else ""

    def reason(self, name: str) -> str:
        skip = self.walk().rule(self.folder / name)
        assert skip is not None
        return skip.reason


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


# ---------------------------------------------------------------- without any file of rules


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (".secret.md", "hidden name"),
        (".config/deep/a.md", "hidden name"),
        ("node_modules/x/readme.md", "folder that programs fill"),
        ("src/pkg.egg-info/top.txt", "folder that programs fill"),
        ("mirror.git/description", "folder that programs fill"),
        ("desktop.ini", "file that programs keep"),
        ("js/jquery.min.js", "minified file or source map"),
        ("js/app.js.map", "minified file or source map"),
        ("package-lock.json", "lock file of a package manager"),
        ("~$report.docx", "temporary file"),
        ("notes.txt~", "temporary file"),
        ("film.mkv.part", "temporary file"),
        ("photo.PNG", "no reader for .png"),
        ("backup.tar.gz", "no reader for .gz"),
        ("tool.exe", "no reader for .exe"),
        (".report.pdf.icloud", "in iCloud and not on this disk"),
    ],
)
def test_what_nobody_searches_for_is_left_out_by_a_rule(tree: Tree, name: str, rule: str) -> None:
    tree.write(name)
    assert (tree.walked(), tree.rule(name)) == (set(), rule)


def test_names_that_only_look_like_those_of_programs_are_documents(tree: Tree) -> None:
    names = {"build/plan.md", "dist/a.txt", "target/goals.md", "venv/wine.md", "node_modules.txt", "lisez-moi.pt"}
    names |= {"Makefile", "data.dat", "1pdb.pdb", "a.lock", "min.js", "old.doc", "bin/run.sh", "cache/x.txt"}
    names |= {"counter.vhd", "app.ts", "table.csv", "mail.eml", "book.epub", "sheet.ods", "slides.pptx", "film.srt"}
    tree.write(*names)
    assert tree.walked() == names


def test_folders_that_programs_have_marked_are_left_out(tree: Tree) -> None:
    tree.write("target/CACHEDIR.TAG", text="Signature: 8a477f597d28d172789f06886806bc55\n# of cargo\n")
    tree.write("env/pyvenv.cfg", "env/lib/x.py", "target/debug/x.txt")
    tree.write("tagged/CACHEDIR.TAG", text="a text about tags")
    tree.write("tagged/a.txt")
    assert tree.walked() == {"tagged/a.txt"}
    assert tree.rule("target/debug/x.txt") == "cache by its CACHEDIR.TAG"
    assert tree.rule("env/lib/x.py") == "virtual environment of Python"
    assert tree.walk().rule(tree.folder / "env/lib/x.py").path == tree.folder / "env"


@links
def test_pipes_and_sockets_are_no_documents(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree.folder / "pipe.txt")
    monkeypatch.chdir(tree.folder)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.txt")
        assert tree.walked() == set()
        assert tree.rule("pipe.txt") == tree.rule("socket.txt") == "pipe, socket or device"


def test_what_each_rule_leaves_out_is_counted(tree: Tree) -> None:
    tree.write(".gitignore", text="*.log\n")
    tree.write("a.txt", "b.png", "sub/c.png", "sub/x.log", ".git/a", ".git/b")
    walk = tree.walk()
    assert len(list(walk.files())) == 1
    assert walk.skipped == {
        "no reader for .png": 2,
        "ignored by .gitignore": 1,
        "hidden name": 1,
        "kept by version control": 1,
    }


@links
def test_home_of_gritdesk_is_known_behind_a_link(tree: Tree, tmp_path: Path) -> None:
    tree.write("state/logs/engine.log", "state/notes.md")
    (tmp_path / "link").symlink_to(tree.folder)
    for folder, home in ((tree.folder, tmp_path / "link"), (tmp_path / "link", tree.folder)):
        assert [path.name for path, _ in Walk(folder, home / "state").files()] == ["notes.md"]


def test_own_files_of_gritdesk_are_no_documents_but_notes_beside_them_are(tmp_path: Path) -> None:
    home = tmp_path / "state"
    chats = ("chats/20240309-150000-3f2a.jsonl", "chats.sqlite-wal", "chats.lock")
    others = ("index.sqlite-wal", "config.toml", "logs/engine.log", "models/a.txt", "gritignore", "notes.md")
    for name in (*chats, *others):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("")
    for folder in (tmp_path, home):
        assert {path.name for path, _ in Walk(folder, home).files()} == {"notes.md"}
    assert Walk(tmp_path, home).rule(home / "logs" / "engine.log").path == home / "logs"
    assert list(Walk(home / "config.toml", home).files()) == []


# ---------------------------------------------------------------- files of rules


def test_reason_names_file_line_and_pattern(tree: Tree) -> None:
    tree.write(".gitignore", text="# built\n\nbuild/\n")
    tree.write("build/deep/x.txt")
    skip = tree.walk().rule(tree.folder / "build/deep/x.txt")
    assert skip.reason == f"{tree.folder / '.gitignore'}:3: build/"
    assert (skip.rule, skip.path) == ("ignored by .gitignore", tree.folder / "build")


def test_gritignore_brings_back_what_others_leave_out(tree: Tree) -> None:
    tree.write(".gitignore", text="*.log\nprivate/\n")
    tree.write(".gritignore", text="!*.log\n!.notes\n!*.bin\nsecret*\n!.drafts/\n!.git\n")
    tree.write(".git/config", "sub/.git")  # which nothing brings back
    tree.write(
        "a.log", "private/b.log", ".notes", "x.bin", "secret.md", ".drafts/c.md", ".drafts/.d.md", ".other/.notes"
    )
    assert tree.walked() == {"a.log", ".notes", "x.bin", ".drafts/c.md"}
    assert tree.rule("secret.md") == "ignored by .gritignore"
    assert tree.rule("private/b.log") == "ignored by .gitignore"  # its folder is not entered


def test_nearer_rules_are_stronger_and_those_for_all_folders_weakest_of_ours(tree: Tree) -> None:
    (tree.home / "gritignore").write_text("/drafts/\n*.csv\n*.tmpl\n")
    tree.write(".gritignore", text="!*.csv\n")
    tree.write("data/.gritignore", text="*.csv\n")
    tree.write("data/.gitignore", text="!*.tmpl\n")
    tree.write("a.csv", "data/b.csv", "drafts/x.md", "data/drafts/y.md", "data/z.tmpl")
    assert tree.walked() == {"a.csv", "data/drafts/y.md"}
    assert tree.reason("drafts/x.md") == f"{tree.home / 'gritignore'}:1: /drafts/"
    assert tree.rule("data/z.tmpl") == "ignored by gritignore"


@pytest.fixture
def git(tree: Tree) -> Callable[..., str]:
    def run(*arguments: str, at: Path = tree.folder) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(at), *who, *arguments], check=True, capture_output=True, text=True
        ).stdout

    run("init", "--quiet")
    return run


def test_exclude_of_a_repository_holds_in_all_its_working_trees(
    tree: Tree, git: Callable[..., str], tmp_path: Path
) -> None:
    (tree.folder / ".git/info").mkdir(exist_ok=True)
    (tree.folder / ".git/info/exclude").write_text("/mine.txt\n")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    git("worktree", "add", "--quiet", str(tmp_path / "other"))
    for folder in (tree.folder, tmp_path / "other"):
        (folder / "mine.txt").write_text("")
        skip = Walk(folder).rule(folder / "mine.txt")
        assert (skip.rule, skip.line) == ("ignored by .git/info/exclude", 1)
        assert git("check-ignore", "mine.txt", at=folder) == "mine.txt\n"


def test_repository_within_another_stands_on_its_own(tree: Tree, git: Callable[..., str]) -> None:
    tree.write(".gitignore", text="*.log\n")
    tree.write(".gritignore", text="*.old\n")
    tree.write("inner/a.log", "inner/sub/b.log", "inner/c.old", "plain/d.log")
    git("init", "--quiet", str(tree.folder / "inner"))
    assert tree.walked() == {"inner/a.log", "inner/sub/b.log"}
    assert {path.name for path, _ in Walk(tree.folder / "inner").files()} == {"a.log", "b.log"}


def test_folder_that_its_repository_ignores_is_asked_for_with_all_it_holds(tree: Tree, git: Callable[..., str]) -> None:
    tree.write(".gitignore", text="*\n")  # as those have who keep their home folder's settings in git
    tree.write("notes/a.md", "notes/sub/b.md")
    assert {path.name for path, _ in Walk(tree.folder / "notes").files()} == {"a.md", "b.md"}


def test_gritignore_above_a_folder_holds_in_it_unless_it_leaves_it_out(tree: Tree) -> None:
    tree.write(".gritignore", text="*.csv\n/private\n")
    tree.write(".gitignore", text="*.md\n")  # of no repository
    tree.write("private/.gritignore", text="sub/*.txt\n")
    tree.write("plain/sub/a.csv", "plain/sub/b.md", "private/sub/c.csv", "private/sub/d.txt")
    assert {path.name for path, _ in Walk(tree.folder / "plain/sub", tree.home).files()} == {"b.md"}
    assert {path.name for path, _ in Walk(tree.folder / "private/sub", tree.home).files()} == {"c.csv"}
    assert {path.name for path, _ in Walk(tree.folder / "private").files()} == {"c.csv"}
    (tree.home / "gritignore").write_text("*\n")
    assert list(Walk(tree.folder / "plain/sub", tree.home).files()) == []


@links
def test_rules_above_a_linked_folder_are_those_of_where_it_really_lies(
    tree: Tree, git: Callable[..., str], tmp_path: Path
) -> None:
    tree.write(".gitignore", text="sub/*.log\n")
    tree.write(".gritignore", text="drafts\n")
    tree.write("sub/a.log", "sub/b.txt", "sub/drafts/c.md")
    (tmp_path / "link").symlink_to(tree.folder / "sub")
    assert [path for path, _ in Walk(tmp_path / "link").files()] == [tmp_path / "link" / "b.txt"]


@links
def test_rules_that_are_no_plain_file_say_nothing_and_hold_nobody_up(tree: Tree, tmp_path: Path) -> None:
    os.mkfifo(tree.folder / ".gitignore")
    (tmp_path / "rules").write_text("*\n")
    (tree.folder / ".gritignore").symlink_to(tmp_path / "rules")
    tree.write("sub/.gitignore/x", "sub/.git", "a.txt", "sub/b.txt")
    (tree.folder / "CACHEDIR.TAG").mkdir()
    assert tree.walked() == {"a.txt", "sub/b.txt"}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_of_bytes_and_lines_are_matched(tree: Tree) -> None:
    (tree.folder / ".gitignore").write_bytes(b"caf\xe9*\n?\\ b.txt\n")
    odd = os.fsdecode(b"caf\xe9.txt")
    for name in (odd, "a\nb.txt", "\n b.txt", os.fsdecode(b"\xff.md")):
        tree.write(name)
    assert tree.walked() == {"a\nb.txt", os.fsdecode(b"\xff.md")}
    assert tree.reason(odd).endswith(f"{os.fsdecode(b'caf' + bytes([0xE9]))}*")


# ---------------------------------------------------------------- links


@links
def test_links_are_not_followed_and_the_reason_says_where_they_lead(tree: Tree, tmp_path: Path) -> None:
    tree.write("sub/a.txt")
    (tmp_path / "secret.txt").write_text("secret")
    for name, target in {
        "inside.txt": tree.folder / "sub/a.txt",
        "outside.txt": tmp_path / "secret.txt",
        "up": Path(".."),
        "loop": tree.folder,
        "self": Path("self"),
        "broken.txt": Path("nowhere"),
    }.items():
        (tree.folder / name).symlink_to(target)
    tree.write(".gritignore", text="!outside.txt\n")  # nothing brings back a link
    assert tree.walked() == {"sub/a.txt"}
    assert tree.reason("inside.txt") == f"symbolic link to {tree.folder / 'sub/a.txt'}, which counts by that name"
    assert tree.reason("outside.txt") == f"symbolic link to {tmp_path / 'secret.txt'}, outside of {tree.folder}"
    assert tree.reason("up/anything") == f"symbolic link to {tree.folder / '..'}, outside of {tree.folder}"
    assert tree.reason("loop/loop/sub/a.txt").startswith("symbolic link to ")
    assert tree.reason("self").endswith("which is not there") and tree.reason("broken.txt").endswith("not there")


@links
def test_hard_links_are_files_like_others(tree: Tree) -> None:
    os.link(tree.write("a.txt"), tree.folder / "b.txt")
    assert tree.walked() == {"a.txt", "b.txt"}


def test_junction_of_windows_is_a_link() -> None:
    assert walking._is_link(SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=0xA0000003))
    assert not walking._is_link(SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=0x9000001A))  # of OneDrive


@links
def test_folder_of_several_names_is_walked_by_one(tree: Tree, tmp_path: Path) -> None:
    tree.write("sub/a.txt", ".hidden/b.txt")
    (tmp_path / "link").symlink_to(tree.folder)
    (tmp_path / "sublink").symlink_to(tree.folder / "sub")
    gone, sub, hidden = tree.folder / "gone", tree.folder / "sub", tree.folder / ".hidden"
    listed = [tmp_path / "sublink", hidden, tree.folder, gone, tmp_path / "link", sub, tree.folder]
    assert distinct(listed) == [hidden, tree.folder, gone]
    assert found_within(tmp_path / "sublink", tmp_path / "link") == tmp_path / "link" / "sub"
    assert found_within(tree.folder, sub) is None and found_within(hidden, tree.folder) is None


# ---------------------------------------------------------------- what cannot be looked at, and what goes


def test_closed_folder_is_noted_and_is_not_taken_for_one_that_is_gone(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("a.txt", "sub/b.txt")
    close_folder(monkeypatch, tree.folder / "sub")
    for path in (tree.folder / "sub", tree.folder / "sub/b.txt", tree.folder / "sub/deep/new.txt"):
        walk = tree.walk()
        assert list(walk.files_under(path)) == []
        assert walk.unreadable == {
            tree.folder / "sub": "the folder cannot be read (Permission denied); its files are kept"
        }
    assert look_at(tree.folder / "gone") is look_at(tree.folder / "a.txt" / "below") is look_at(Path("a\0b")) is None
    with pytest.raises(PermissionError):
        look_at(tree.folder / "sub/b.txt")


def test_folder_in_a_closed_one_stays_in_the_list_and_is_noted_by_its_walk(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("sub/docs/b.txt", "open/a.txt")
    close_folder(monkeypatch, tree.folder / "sub")
    behind, other = tree.folder / "sub/docs", tree.folder / "open"
    assert distinct([behind, other, tree.folder]) == [behind, tree.folder]
    for walk in (Walk(behind), Walk(behind)):
        assert list(walk.files()) == [] and list(walk.unreadable) == [behind]
    assert list((walk := Walk(behind)).files_under(behind / "b.txt")) == [] and list(walk.unreadable) == [behind]


def test_file_that_goes_after_it_was_looked_at_is_not_looked_at_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree.write("a.txt")

    def vanishing(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def call(asked: Path, **options: bool) -> os.stat_result:
            found = look(asked, **options)
            if found.st_ino == inode:
                path.unlink()
            return found

        return call

    inode = path.lstat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", vanishing(os.stat))
        assert [(found, known.st_size) for found, known in Walk(path).files()] == [(path, 4)]
        assert list(Walk(path).files()) == []
    inode = tree.write("a.txt").lstat().st_ino
    monkeypatch.setattr(Walk, "skips", lambda walk, asked: False)  # which looks, too
    monkeypatch.setattr(os, "lstat", vanishing(os.lstat))
    assert [found for found, _ in tree.walk().files_under(path)] == [path]
    assert list(tree.walk().files_under(path)) == []


# ---------------------------------------------------------------- clouds


@pytest.mark.parametrize(
    ("marks", "is_away"),
    [
        ({"st_flags": 0x40000000}, True),
        ({"st_flags": 0x8020}, False),
        ({"st_file_attributes": 0x400020}, True),
        ({"st_file_attributes": 0x40020}, True),
        ({"st_file_attributes": 0x1020}, True),
        ({"st_file_attributes": 0x80020}, False),  # kept on this disk
        ({}, False),
    ],
)
def test_files_that_opening_would_download_are_known(marks: dict[str, int], is_away: bool) -> None:
    assert is_in_the_cloud(SimpleNamespace(**marks)) == is_away


def test_folder_in_the_cloud_is_not_listed_and_rules_in_it_not_read(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {tree.write(".gitignore", text="*\n").stat().st_ino}
    tree.write("a.txt", "away/b.txt")
    away.add((tree.folder / "away").stat().st_ino)
    monkeypatch.setattr(walking, "_flags", lambda found: 0x40000000 if found.st_ino in away else 0)
    looked_at: list[str] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: looked_at.append(os.fspath(path)) or lstat(path))
    walk = tree.walk()
    assert [path.name for path, _ in walk.files()] == ["a.txt"]
    assert "kept" in walk.unreadable[tree.folder / "away"]
    assert list(walk.files_under(tree.folder / "away")) == [] and not walk.skips(tree.folder / "away/.b/c.txt")
    assert looked_at and not any(f"away{os.sep}" in path for path in looked_at)


@pytest.mark.parametrize(("door", "mark"), [("_flags", 0x8000), ("_attributes", 0x2)])
def test_what_the_system_hides_is_hidden(tree: Tree, monkeypatch: pytest.MonkeyPatch, door: str, mark: int) -> None:
    hidden = tree.write("Library/a.txt").parent.stat().st_ino
    tree.write("b.txt")
    monkeypatch.setattr(walking, door, lambda found: mark if found.st_ino == hidden else 0)
    assert tree.walked() == {"b.txt"} and tree.rule("Library/a.txt") == "marked as hidden"


# ---------------------------------------------------------------- one path and all paths


@links
def test_every_path_is_judged_alone_as_in_the_walk(tree: Tree) -> None:
    chance = random.Random(1)
    names = ["a.md", "b", ".c", "d.png", "node_modules", "e.log", "build", "f.txt"]
    lines = ["*.md", "!*.png", "!.c", "build/", "/b", "!b/", "b/**/a.md", "!e.log", "*", "!*/", "!f.txt"]
    folders = [tree.folder]
    for _ in range(200):
        path = chance.choice(folders) / chance.choice(names)
        if path.exists():
            continue
        if chance.random() < 0.4:
            path.mkdir()
            folders.append(path)
        elif chance.random() < 0.1:
            path.symlink_to(tree.folder)
        else:
            path.write_text("text")
    for folder in chance.sample(folders, len(folders) // 2):
        rules = [line for line in lines if chance.random() < 0.3]
        (folder / chance.choice([".gitignore", ".gritignore"])).write_text("\n".join(rules))
    walked = {path for path, _ in tree.walk().files()}
    walk = tree.walk()
    paths = [path for folder in folders for path in folder.iterdir()]
    assert {path for path in paths if stat.S_ISREG(path.lstat().st_mode) and not walk.skips(path)} == walked
    for folder in folders:
        assert {path for path, _ in walk.files_under(folder)} == {path for path in walked if folder in path.parents}
    assert 20 < len(walked) < len(paths) - 20


def test_path_that_is_gone_is_judged_by_its_name(tree: Tree) -> None:
    tree.write(".gitignore", text="build/\n*.log\n")
    assert [tree.rule(name) for name in ("gone/x.log", "build/x", "gone/.x", "gone/x.txt", "build")] == [
        "ignored by .gitignore",
        "ignored by .gitignore",
        "hidden name",
        "",
        "",
    ]
    tree.write("a.txt")
    assert tree.rule("a.txt/b") == ""  # the way leads through a file
