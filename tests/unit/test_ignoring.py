"""Files of rules, judged as git itself judges them."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gritdesk.ignoring import Patterns
from gritdesk.walking import Walk

NAMES = ["a", "b", "foo", "bar", "a b", "x.txt", "y.log", "foo.txt", "b[1]", "#c", "!d", "e ", "ab", "build", "-", "^"]
STEPS = [
    *[
        "a",
        "b",
        "foo",
        "bar",
        "build",
        "*",
        "?",
        "**",
        "***",
        "*.txt",
        "*.log",
        "f*",
        "foo.*",
        "b?",
        "*o",
        "*a*",
        "**b",
    ],
    *[
        "[ab]",
        "[!a]",
        "[^f]*",
        "[a-c]*",
        "[[:alpha:]]",
        "[]a]",
        "[a-]",
        "[\\]a]",
        "[!]]",
        "x.t[x]t",
        "[z-a]",
        "[a-\\c]",
    ],
    *["a\\ b", "b\\[1\\]", "\\#c", "\\!d", "e\\ ", "fo\\o", "#c", "e ", "[[:foo:]]", "[[:alpha]", "[--a]", "[\\^!]"],
]
LAST_STEPS = [*STEPS, "[a", "a\\", "f**", "[", "[!", "[a-", "\\"]
"""What ends a pattern only: behind it git's code does other than its manual says."""


def random_pattern(chance: random.Random) -> str:
    steps = [chance.choice(STEPS) for _ in range(chance.choice([0, 0, 0, 1, 1, 2]))]
    is_folder = chance.random() < 0.3
    pattern = "/".join([*steps, chance.choice(STEPS if steps or is_folder else LAST_STEPS)])
    before = chance.choice(["", "", "", "/"]) if pattern not in LAST_STEPS[-6:] else ""
    negation = chance.choice(["", "", "!"])
    return negation + before + pattern + "/" * is_folder + chance.choice([""] * 8 + ["  ", "\t", "\r", "\\ "])


def random_tree(chance: random.Random, top: Path) -> None:
    folders = [top]
    for _ in range(chance.randint(2, 6)):
        folder = chance.choice(folders) / chance.choice(NAMES)
        if not folder.exists():
            folder.mkdir()
            folders.append(folder)
    for _ in range(chance.randint(5, 14)):
        file = chance.choice(folders) / chance.choice(NAMES)
        if not file.exists():
            file.touch()
    for folder in folders:
        if folder == top or chance.random() < 0.3:
            lines = [random_pattern(chance) for _ in range(chance.randint(1, 5))]
            (folder / ".gitignore").write_bytes("\n".join(["# rules", "", *lines]).encode())


def git(repository: Path, *arguments: str, stdin: str = "") -> str:
    command = ["git", "-C", str(repository), "-c", "core.excludesFile=", "-c", "core.ignoreCase=false", *arguments]
    done = subprocess.run(command, input=os.fsencode(stdin), capture_output=True)
    assert done.returncode in (0, 1), done.stderr  # 1: nothing is ignored
    return os.fsdecode(done.stdout)


def judged_by_git(repository: Path, paths: list[Path]) -> dict[Path, tuple[str, int] | None]:
    """The file and line that ignores each path; None if none does."""
    names = "".join(f"{path.relative_to(repository)}\0" for path in paths)
    fields = git(repository, "check-ignore", "--verbose", "--non-matching", "-z", "--stdin", stdin=names).split("\0")
    rows = [fields[start : start + 4] for start in range(0, len(fields) - 1, 4)]
    return {
        repository / name: None if not source or pattern.startswith("!") else (source, int(line))
        for source, line, pattern, name in rows
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--template=")
    return repository


def test_every_path_of_random_trees_is_judged_by_the_line_that_git_names(repository: Path) -> None:
    chance = random.Random(6)
    trees = [repository / f"tree{number}" for number in range(300)]
    for tree in trees:
        tree.mkdir()
        random_tree(chance, tree)
    paths = {tree: [path for path in tree.rglob("*") if not path.name.startswith(".")] for tree in trees}
    expected = judged_by_git(repository, [path for each in paths.values() for path in each])
    for tree in trees:
        walk = Walk(tree)
        for path in paths[tree]:
            skip = walk.rule(path)
            is_ignored = skip is not None and skip.file is not None and skip.line is not None
            found = (skip.file.relative_to(repository).as_posix(), skip.line) if is_ignored else None
            assert found == expected[path], (path, (tree / ".gitignore").read_text())
    assert 500 < sum(each is not None for each in expected.values()) < len(expected) - 500  # both are well tried


def test_folder_inside_a_repository_is_under_the_rules_above_it(repository: Path) -> None:
    chance = random.Random(7)
    for number in range(60):
        (repository / f"tree{number}").mkdir()
        random_tree(chance, repository / f"tree{number}")
    paths = [path for path in repository.rglob("tree*/**/*") if not path.name.startswith(".")]
    expected = judged_by_git(repository, paths)
    folders = [path for path in paths if path.is_dir() and expected[path] is None]
    for folder in folders:
        documents = {
            path for path in folder.rglob("*") if path.is_file() and expected.get(path, "a file of rules") is None
        }
        assert {path for path, _ in Walk(folder).files()} == documents
    assert len(folders) > 50


@pytest.mark.parametrize(
    ("pattern", "inside"),
    [("*a" * 30 + "b", "a" * 250), ("**/a/" * 20 + "b", "a/" * 400), ("*/" * 30 + "b", "a/" * 400 + "c")],
)
def test_pattern_of_many_stars_is_judged_in_no_time(pattern: str, inside: str) -> None:
    assert Patterns(pattern).speaking_of(inside) is None


def test_marks_of_editors_and_bytes_of_other_encodings_change_nothing() -> None:
    assert Patterns("\ufeff*.log\r\n").speaking_of("x.log")
    odd = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    assert Patterns(odd).speaking_of(odd)
    assert Patterns("line\u2028*.txt").speaking_of("a.txt") is None  # a line ends with a newline and nothing else
    assert Patterns("a\nb*").speaking_of("b\n.txt").line == 2


@given(st.text(alphabet="[]!^-\\*?/:ab &|~.#\n\r\t\ud800é", max_size=24), st.text(alphabet="ab/[]\\-\né", min_size=1))
def test_whatever_stands_in_a_file_of_rules_is_judged(text: str, inside: str) -> None:
    pattern = Patterns(text).speaking_of(inside)
    assert pattern is None or text.split("\n")[pattern.line - 1].startswith(pattern.text)
