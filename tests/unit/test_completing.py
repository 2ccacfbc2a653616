"""What is offered for a filter that is being typed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from gritdesk.completing import FilterValues, filter_values, is_filter, offers, settled
from gritdesk.querying import parse
from gritdesk.store.base import FileState

TODAY = date(2026, 11, 26)
NOTES = Path("/home/me/notes")


def state(mtime_ns: int = 0, *, failed: bool = False) -> FileState:
    return FileState(1, mtime_ns, "hash", "failed" if failed else "indexed")


@pytest.fixture
def known() -> FilterValues:
    files = {
        NOTES / "old" / "a.md": state(1),
        NOTES / "old" / "b.MD": state(2),
        NOTES / "my plans" / "report 2024.pdf": state(3),
        NOTES / "Makefile": state(4),
        NOTES / "scan.png": state(5, failed=True),
    }
    return filter_values(files, [NOTES])


def values(line: str, known: FilterValues) -> list[str]:
    return [each.value for each in offers(line, known, TODAY)]


def test_kinds_and_folders_with_many_files_are_offered_first_and_newest_names(known: FilterValues) -> None:
    assert known.types == ("md", "pdf")
    assert known.folders == (NOTES, NOTES / "old", NOTES / "my plans")
    assert known.names == ("Makefile", "report 2024.pdf", "b.MD", "a.md")


def test_filter_goes_on_with_what_the_index_holds(known: FilterValues) -> None:
    assert values("walrus type:", known) == ["md", "pdf"]
    assert values("walrus type:p", known) == values("-type:.P", known) == ["pdf"]
    assert values("in:", known) == ["notes", "old", "my plans"]
    assert values("in:notes/o", known) == ["notes/old"]
    assert values("in:/home/me/notes/m", known) == ["/home/me/notes/my plans"]
    assert values("name:port", known) == ["report 2024.pdf"]
    assert values("after:t", known) == ["today"]
    assert values("before:2026", known) == ["2026", "2026-11", "2026-11-26"]
    assert "7d" in values("after:", known)


def test_folder_at_home_is_offered_as_it_was_begun(known: FilterValues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert values("in:~/notes/o", known) == ["~/notes/old"]


def test_offered_line_means_the_filter_it_shows(known: FilterValues) -> None:
    (offer,) = offers("walrus -draft in:my", known, TODAY)
    assert offer.line == 'walrus -draft in:"my plans"'
    assert parse(offer.line).scope.folders == ("my plans",)
    (again,) = offers('walrus in:"my p', known, TODAY)
    assert again.line == 'walrus in:"my plans"'


@pytest.mark.parametrize("line", ["", "type", "type:md ", "type:md", "std::in", "foo:bar", "after:2024-05-17"])
def test_nothing_is_offered_where_nothing_is_to_be_completed(line: str, known: FilterValues) -> None:
    assert values(line, known) == []


def test_line_is_known_to_end_in_a_filter_before_anything_is_read() -> None:
    assert is_filter("walrus -in:") and not is_filter("walrus in: x")


def test_filter_that_says_nothing_yet_is_no_part_of_a_query() -> None:
    assert settled("walrus in:") == settled('walrus in:"') == settled("walrus ") == "walrus "
    assert settled("walrus type:p") == "walrus type:p" and settled("std::") == "std::"
