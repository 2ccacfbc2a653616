"""[n] leads to the sentence it was taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gritdesk import citing
from gritdesk.records import Chunk, Hit


def hit(text: str, path: str = "notes.md", line: int = 1, page: int | None = None) -> Hit:
    lines = line + text.count("\n")
    return Hit(1, Path(path), Chunk(text, 0, len(text), line, lines, "Notes", page), score=1.0)


LAMP = hit("The lamp is cleaned every Monday.\nThe fog horn is tested on Fridays.\nTea is at four.", line=10)
BOAT = hit("The boat is called Marigold and has a crew of three.", path="boat.pdf", page=2)


def test_citation_leads_to_the_line_of_the_cited_sentence() -> None:
    answer = "Tea is at four [1]. The boat is called Marigold [2]."
    first, second = citing.resolve_citations(answer, [LAMP, BOAT])
    assert (first.n, first.line_start, first.line_end, first.quote) == (1, 12, 12, "Tea is at four.")
    assert (second.path, second.page) == (Path("boat.pdf"), 2)


def test_citation_that_opens_an_answer_leads_to_what_follows_it() -> None:
    first, second = citing.resolve_citations("[1] tea at four. [2] called Marigold", [LAMP, BOAT])
    assert (first.n, first.line_start, first.quote) == (1, 12, "Tea is at four.")
    assert second.path == Path("boat.pdf")
    assert "Marigold" in second.quote


def test_number_that_names_no_passage_is_no_citation() -> None:
    assert citing.resolve_citations("As shown in [3] and [0].", [LAMP, BOAT]) == ()


def test_sentence_with_several_numbers_leads_each_to_what_stands_before_it() -> None:
    cited = citing.resolve_citations(
        "The lamp is cleaned every Monday [1], the boat is called Marigold [2].", [LAMP, BOAT]
    )
    assert [each.quote for each in cited] == ["The lamp is cleaned every Monday.", BOAT.chunk.text]
    for marks in ("[1][2]", "[1] [2]", "[1, 2]", "[1,2]"):
        cited = citing.resolve_citations(f"Tea is at four, and the crew are three {marks}.", [LAMP, BOAT])
        assert [(each.n, each.line_start) for each in cited] == [(1, 12), (2, 1)], marks


def test_citation_behind_a_full_stop_belongs_to_the_sentence_before_it() -> None:
    answer = "Tea is at four. [1] The boat is called Marigold. [2]"
    assert [answer[start:end] for start, end in citing.answer_sentences(answer)] == [
        "Tea is at four. [1]",
        "The boat is called Marigold. [2]",
    ]
    first, second = citing.resolve_citations(answer, [LAMP, BOAT])
    assert (first.quote, second.n) == ("Tea is at four.", 2)


def test_citation_of_a_passage_that_several_were_merged_into_leads_to_the_right_line() -> None:
    merged = hit("One.\nTwo.\n\nThree comes later.\n\nTea is at four.\nBed is at ten.", line=40)
    (citation,) = citing.resolve_citations("Bed is at ten [1].", [merged])
    assert (citation.line_start, citation.line_end, citation.quote) == (46, 46, "Bed is at ten.")


@pytest.mark.parametrize(
    ("written", "shown", "dropped"),
    [
        ("Tea is at four [1].", "Tea is at four [1].", ()),
        ("Tea is at four [7].", "Tea is at four.", (7,)),
        ("[7] Tea is at four [1][1] [2].", "Tea is at four [1][2].", (7,)),
        ("Tea [1, 9] and bed [2, 1].", "Tea [1] and bed [2, 1].", (9,)),
        ("It is `rows[0]` [1].", "It is `rows[0]` [1].", ()),
        ("In [2019] there was none.", "In [2019] there was none.", ()),
    ],
)
def test_number_that_names_no_passage_is_not_shown_and_said(written: str, shown: str, dropped: tuple[int, ...]) -> None:
    assert citing.settle(written, 2) == (shown, dropped)


def test_passage_cited_twice_is_listed_once() -> None:
    assert len(citing.resolve_citations("Monday [1]. Friday [1].", [LAMP])) == 1


def test_abbreviations_inside_a_word_do_not_end_a_sentence() -> None:
    text = "Version 1.2.3 was released in May. It is stable."
    start, end = citing.best_sentence("released in May", text)
    assert text[start:end] == "Version 1.2.3 was released in May."


def test_quote_is_a_whole_sentence_of_hard_wrapped_text() -> None:
    text = "# Lamp\nThe lamp is cleaned every Monday\nmorning before ten by Dr. Smith.\n- Tea is at four\n- Bed"
    start, end = citing.best_sentence("Who cleans the lamp on Monday morning?", text)
    assert text[start:end] == "The lamp is cleaned every Monday\nmorning before ten by Dr. Smith."
    start, end = citing.best_sentence("When is tea?", text)
    assert text[start:end] == "- Tea is at four"


def test_lines_are_the_whole_chunks_where_text_and_source_run_apart() -> None:
    page = Hit(1, Path("page.html"), Chunk("One thing.\nAnother thing.", 0, 25, 4, 18), score=1.0)
    (citation,) = citing.resolve_citations("Another thing [1].", [page])
    assert (citation.line_start, citation.line_end) == (4, 18)
