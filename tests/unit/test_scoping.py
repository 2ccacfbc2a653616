"""Files and folders are picked by a few letters, named for a person, and hold what lies in them."""

from __future__ import annotations

from pathlib import Path

from gritdesk.scoping import Places, lies_within, scope_name

ROOT = Path("/home/me/docs")
FILES = [
    ROOT / each for each in ("api/rate-limits.md", "api/v2/Über limits.md", "limits.txt", "notes/rlm/a.md", "é.md")
]


def found(letters: str, n: int = 20) -> list[str]:
    return [each.shown for each in Places(map(str, FILES), [ROOT]).picked(letters, n)]


def test_files_and_folders_are_found_by_letters_in_their_order_names_before_paths() -> None:
    assert found("lim") == ["docs/limits.txt", "docs/api/rate-limits.md", "docs/api/v2/Über limits.md"]
    assert found("rlm") == [
        "docs/notes/rlm/",
        "docs/api/rate-limits.md",
        "docs/api/v2/Über limits.md",
        "docs/notes/rlm/a.md",
    ]
    assert found("api/v2") == ["docs/api/v2/", "docs/api/v2/Über limits.md"]
    assert found("ÜBERL") == ["docs/api/v2/Über limits.md"]
    assert found("xyz") == []


def test_without_letters_folders_near_the_top_come_first() -> None:
    assert found("", 6) == [
        "docs/",
        "docs/api/",
        "docs/notes/",
        "docs/api/v2/",
        "docs/notes/rlm/",
        "docs/api/rate-limits.md",
    ]
    assert [each.path for each in Places(map(str, FILES), [ROOT]).picked("") if each.is_folder] == [
        ROOT,
        ROOT / "api",
        ROOT / "notes",
        ROOT / "api" / "v2",
        ROOT / "notes" / "rlm",
    ]


def test_file_outside_of_every_folder_is_found_without_those_above_it() -> None:
    shown = [each.shown for each in Places(["/srv/old/a.md", *map(str, FILES)], [ROOT]).picked("")]
    assert "/srv/old/a.md" in shown
    assert [each for each in shown if each.endswith("/")][:1] == ["docs/"]


def test_letters_that_are_typed_on_or_taken_back_find_what_they_would_at_once() -> None:
    every = Places(map(str, FILES), [ROOT])
    for letters in ("l", "li", "lim", "lx", "l", "", "rl", "rlm", "zz"):
        assert [each.shown for each in every.picked(letters)] == found(letters), letters
    every.picked("a", is_stopped=lambda: True)
    assert [each.shown for each in every.picked("api")] == found("api")


def test_short_names_are_shown_of_many_that_begin_alike() -> None:
    files = [f"/docs/a{number}.md" for number in range(1000)]
    assert len(Places(files, [Path("/docs")]).picked("a")) == 20


def test_picking_ends_when_nobody_wants_it_any_more() -> None:
    assert Places(map(str, FILES), [ROOT]).picked("lim", is_stopped=lambda: True) == []


def test_scope_holds_its_files_and_what_lies_in_its_folders() -> None:
    assert lies_within(FILES[0], ()) and lies_within(FILES[0], [FILES[0]]) and lies_within(FILES[0], [ROOT / "api"])
    assert not lies_within(FILES[0], [ROOT / "ap", FILES[1]])


def test_scope_is_named_in_a_few_words() -> None:
    assert scope_name([]) == ""
    assert scope_name([ROOT / "api", FILES[0]], lambda path: path.name == "api") == "api/, rate-limits.md"
    assert scope_name([*FILES], lambda path: False) == "rate-limits.md, Über limits.md, limits.txt and 2 more"
