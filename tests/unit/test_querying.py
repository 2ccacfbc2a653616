import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gritdesk.errors import QueryError
from gritdesk.querying import keyword_text, parse, unrestricted, widened, widest, without
from gritdesk.records import Query, Scope
from gritdesk.store.words import unspaced_pairs

NOW = datetime(2024, 5, 31, 15, 30)

SNIPPETS = st.sampled_from(
    [
        '"',
        "'",
        "-",
        ":",
        " ",
        "in:",
        "type:",
        "name:",
        "lit:",
        "after:",
        "before:",
        "2024",
        "7d",
        "word",
        "東京",
        "🦉",
        "\\",
    ]
)


def ns(*date: int) -> int:
    return int(datetime(*date).timestamp()) * 10**9  # type: ignore[arg-type]


# ---------------------------------------------------------------- words, phrases, what is left out


@given(st.text() | st.lists(SNIPPETS).map("".join))
def test_any_line_means_something_and_only_a_date_can_be_wrong(line: str) -> None:
    try:
        query = parse(line, NOW)
    except QueryError as error:
        assert ("after:" in line or "before:" in line) and "\n" not in str(error).strip()
        return
    assert query.line == line
    assert parse(query.text, NOW).text == query.text
    assert keyword_text(query).count('"') == 2 * len(query.phrases)
    for restriction, wider in widened(query, NOW):
        assert restriction and len(wider.restrictions) + len(wider.phrases) < len(query.restrictions) + len(
            query.phrases
        )
    assert not unrestricted(query).restrictions and unrestricted(query).scope == Scope()


@given(st.text(st.characters(exclude_characters='":-')))
def test_line_without_our_syntax_means_itself(line: str) -> None:
    words = line.split()
    assert parse(line) == Query(line, text=" ".join(words), words=tuple(words))


@pytest.mark.parametrize(
    "line",
    [
        "C++ std::vector<int> foo->bar a::b::c",
        "https://example.org/a?b=c&after=1 mailto:a@b.c",
        r"C:\notes\2024 D:\x",
        "meet at 12:30, not 12:45:10",
        "foo:bar ratio 3:4 Name:Smith",
        "in: type: after: the war",
        "🦉 :-) ¿qué? – — … 😀:😀",
        'a 5" pipe and a 3" one',
        'say"cheese and"crackers',
        'the "walrus',
        "-v --force -5 - a-b -- -> -? +1",
        "don't 'single quoted words'",
    ],
)
def test_what_only_looks_like_syntax_is_text(line: str) -> None:
    assert parse(line) == Query(line, text=line, words=tuple(line.split()))


def test_parts_of_a_line_are_told_apart() -> None:
    query = parse('decided "token bucket" -draft -"old plan" why "rate limit"?')
    assert query.text == 'decided "token bucket" why "rate limit" ?'
    assert query.phrases == ("token bucket", "rate limit")
    assert query.words == ("decided", "why", "?")
    assert query.not_phrases == ("draft", "old plan")
    assert query.restrictions == ("-draft", '-"old plan"')
    assert keyword_text(query) == 'decided why ? "token bucket" "rate limit"'


def test_quotation_marks_touch_scripts_without_spaces() -> None:
    query = parse('明日の"天気"です -雨 -\'x')
    assert (query.words, query.phrases, query.not_phrases) == (("明日の", "です", "-'x"), ("天気",), ("雨",))


def test_punctuation_in_quotation_marks_is_no_phrase() -> None:
    assert parse('"" "!!" -"::"').phrases == () == parse('-"::"').not_phrases
    assert parse('"!!"').text == '"!!"'


def test_quotation_mark_that_is_never_closed_binds_nothing() -> None:
    query = parse('"token bucket" "walrus pond')
    assert (query.phrases, query.words) == (("token bucket",), ('"walrus', "pond"))
    assert keyword_text(query) == ' walrus pond "token bucket"'


def test_literal_parts_are_taken_as_they_are() -> None:
    query = parse('lit:std::vector<int> lit:"two  words " lit:\'say "now"\' -lit:"C++" lit:x="1" rest')
    assert query.literals == ("std::vector<int>", "two  words ", 'say "now"', 'x="1"')
    assert (query.not_literals, query.text) == (("C++",), "rest")
    assert parse('lit: lit:"" lit:" "').literals == ()


def test_what_is_left_out_may_look_like_anything() -> None:
    query = parse("ship -foo:bar -after:2024 -don't -x.y")
    assert (query.text, query.not_phrases) == ("ship", ("foo:bar", "after:2024", "don't", "x.y"))


# ---------------------------------------------------------------- filters


def test_filters_say_where_to_look() -> None:
    query = parse(
        "rate in:notes/2024 in:\"my notes\" in:'old ones' type:PDF type:.md type:*.py name:report name:*.v2.*"
    )
    assert query.text == "rate"
    assert query.scope == Scope(
        folders=("notes/2024", "my notes", "old ones"), types=("pdf", "md", "py"), names=("report", "*.v2.*")
    )
    assert parse("-in:old -type:md -name:draft").scope == Scope(
        not_folders=("old",), not_types=("md",), not_names=("draft",)
    )


def test_folder_here_or_at_home_is_a_full_path() -> None:
    here, home = os.getcwd(), str(Path.home())
    assert parse("in:. in:./a in:../b in:~ in:~/c in:d/ in:/ in:/e/").scope.folders == (
        here,
        os.path.join(here, "a"),
        os.path.join(os.path.dirname(here), "b"),
        home,
        os.path.join(home, "c"),
        "d",
        "/",
        "/e",
    )


def test_filter_that_is_being_typed_takes_one_word() -> None:
    query = parse('in:"my notes')
    assert (query.scope.folders, query.text) == (("my",), "notes")


def test_filter_in_quotation_marks_is_text() -> None:
    query = parse('"type:pdf" "after:never"')
    assert (query.phrases, query.scope) == (("type:pdf", "after:never"), Scope())


@pytest.mark.parametrize(
    ("when", "start"),
    [
        ("2024", (2024, 1, 1)),
        ("2024-05", (2024, 5, 1)),
        ("2024-5-7", (2024, 5, 7)),
        ("2024-02-29", (2024, 2, 29)),
        ("today", (2024, 5, 31)),
        ("Yesterday", (2024, 5, 30)),
        ("0d", (2024, 5, 31)),
        ("7d", (2024, 5, 24)),
        ("2w", (2024, 5, 17)),
        ("3mo", (2024, 2, 29)),
        ("5mo", (2023, 12, 31)),
        ("1y", (2023, 5, 31)),
        ('"2024"', (2024, 1, 1)),
    ],
)
def test_date_is_its_first_moment_in_local_time(when: str, start: tuple[int, ...]) -> None:
    assert parse(f"after:{when}", NOW).scope.after_ns == ns(*start)
    assert parse(f"before:{when}", NOW).scope.before_ns == ns(*start)


def test_of_several_dates_the_narrowest_count() -> None:
    scope = parse("after:2023 after:2024-02 before:2025 before:2024-06").scope
    assert (scope.after_ns, scope.before_ns) == (ns(2024, 2, 1), ns(2024, 6, 1))


def test_date_beyond_what_a_store_can_compare_is_its_last_moment() -> None:
    assert parse("before:9999").scope.before_ns == 2**63 - 1


@pytest.mark.parametrize("when", ["soon", "2024-13", "2023-02-29", "20245", "7", "7x", "999999y", "3m", "0000", "202"])
@pytest.mark.parametrize("key", ["after", "before"])
def test_filter_with_what_is_no_date_says_what_one_is(key: str, when: str) -> None:
    with pytest.raises(QueryError, match=rf'^{key}:{when} names no date; write .*2024-05-17.*\("{key}:{when}"\)'):
        parse(f"walrus {key}:{when}")


# ---------------------------------------------------------------- without a restriction


def test_each_restriction_can_be_left_out() -> None:
    query = parse('walrus "token bucket" type:pdf type:md in:a -in:b name:x name:y -draft lit:C++ after:2024')
    wider = {restriction: each for restriction, each in widened(query)}
    assert list(wider) == [
        'the quotation marks of "token bucket"',
        "type:pdf type:md",
        "in:a",
        "-in:b",
        "name:x",
        "name:y",
        "-draft",
        "lit:C++",
        "after:2024",
    ]
    assert wider["type:pdf type:md"].scope.types == () and wider["type:pdf type:md"].scope.folders == ("a",)
    assert wider["name:x"].scope.names == ("y",)
    assert wider["-draft"].not_phrases == ()
    assert wider["lit:C++"].text == 'walrus "token bucket" C++' and wider["lit:C++"].literals == ()
    loose = wider['the quotation marks of "token bucket"']
    assert (loose.text, loose.phrases, loose.scope) == ("walrus token bucket", (), query.scope)
    assert unrestricted(query).text == "walrus token bucket C++"


def test_pairs_are_made_of_whatever_the_words_index_cuts_into_pairs() -> None:
    assert list(unspaced_pairs("東京都 ｶﾀｶﾅ ab")) == ["東京", "京都", "ｶﾀ", "ﾀｶ", "ｶﾅ"]


def test_restriction_is_taken_out_of_the_line_and_the_rest_stays_as_typed() -> None:
    line = 'walrus "token bucket" type:pdf in:a  type:md -draft'
    assert without(line, "type:pdf type:md") == 'walrus "token bucket" in:a -draft'
    assert without(line, 'the quotation marks of "token bucket"') == "walrus token bucket type:pdf in:a type:md -draft"
    assert without("walrus lit:C++", "lit:C++") == "walrus C++"
    assert without("in:a", "in:a") == ""
    together, _ = widest(parse(line)) or ("", None)
    assert together == 'type:pdf type:md in:a -draft and the quotation marks of "token bucket"'
    assert without(line, together) == "walrus token bucket"
    assert widest(parse("walrus type:pdf type:md")) is None
    for restriction, wider in widened(parse(line)):
        again = parse(without(line, restriction))
        assert (again.text, again.scope, again.not_phrases) == (wider.text, wider.scope, wider.not_phrases)
