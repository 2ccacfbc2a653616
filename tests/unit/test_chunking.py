from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gritdesk.chunking import split
from gritdesk.records import Chunk, Document, Section


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def count_bytes(texts: Sequence[str]) -> list[int]:
    return [len(text.encode()) for text in texts]


def words(num: int, word: str = "word") -> str:
    return " ".join(f"{word}{n}" for n in range(num))


def chunks_of(text: str, max_tokens: int = 40, format_: str = "text", sections: Sequence[Section] = ()) -> list[Chunk]:
    document = Document(Path("/a.txt"), text, format_, tuple(sections) or (Section(0, 1),))
    return split(document, count_words, max_tokens)


def visible(text: str) -> str:
    return "".join(text.split())


@st.composite
def documents(draw: st.DrawFn) -> Document:
    pieces = st.sampled_from(
        [
            "word",
            "Long",
            ".",
            "!",
            " ",
            "  ",
            "\n",
            "\n\n",
            "\t",
            "é",
            "e\u0301",
            "日本語。",
            "👩‍👧",
            "👍🏽",
            "```\n",
            "::\n",
            "#+begin_src\n",
            "#+end_src\n",
            "- ",
            "x" * 50,
            " " * 70,
        ]
    )
    text = "".join(draw(st.lists(pieces, max_size=80)))
    starts = [0, *sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=4)))] if text else [0]
    headings = st.sampled_from([(), ("A",), ("A", "B"), ("A", "C"), ("D",)])
    pages = st.sampled_from([None, 1, 2])
    sections = [Section(start, 1 + text.count("\n", 0, start), draw(headings), draw(pages)) for start in starts]
    return Document(
        Path("/d"), text, draw(st.sampled_from(["text", "markdown", "rst", "org", "csv", "code"])), tuple(sections)
    )


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(4, 60))
@example(Document(Path("/d"), "a" * 5000, "text"), 7)
@example(Document(Path("/d"), "one.\n\n    indented. " + " " * 300 + "two", "text"), 20)
def test_chunks_hold_the_whole_text_in_order_and_within_the_limit(document: Document, max_tokens: int) -> None:
    chunks = split(document, count_bytes, max_tokens)
    assert visible("".join(chunk.text for chunk in chunks)) == visible(document.text)
    end = 0
    for chunk in chunks:
        assert chunk.char_start >= end
        end = chunk.char_end
        assert chunk.text == document.text[chunk.char_start : chunk.char_end]
        assert chunk.text.strip()
        assert len(chunk.text.rstrip().encode()) <= chunk.num_tokens <= max_tokens
        assert chunk.line_start == 1 + document.text.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + document.text.count("\n", 0, chunk.char_end - 1)


@settings(max_examples=60, deadline=None)
@given(documents())
def test_no_chunk_spans_two_pages(document: Document) -> None:
    for chunk in split(document, count_words, 20):
        ends = [*(each.start for each in document.sections[1:]), len(document.text)]
        for section, end in zip(document.sections, ends, strict=True):
            shared = document.text[max(section.start, chunk.char_start) : min(end, chunk.char_end)]
            assert section.page == chunk.page or not shared.strip()


def test_short_text_is_one_chunk() -> None:
    (chunk,) = chunks_of("One sentence.\n\nAnother paragraph.\n")
    assert chunk == Chunk("One sentence.\n\nAnother paragraph.", 0, 33, 1, 3, num_tokens=4)


def test_text_of_white_space_has_no_chunks_and_asks_nothing() -> None:
    def never(_: Sequence[str]) -> list[int]:
        raise AssertionError

    assert split(Document(Path("/a"), " \n\n\t", "text"), never) == []


def test_counter_is_called_once() -> None:
    calls: list[int] = []

    def counting(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return count_words(texts)

    split(Document(Path("/a"), words(5000) + "\n\n" + words(900, "x"), "text"), counting, 40)
    assert len(calls) == 1


def test_paragraphs_stay_whole_while_they_fit() -> None:
    paragraphs = [words(18, f"p{n}x") + "." for n in range(5)]
    assert [chunk.text for chunk in chunks_of("\n\n".join(paragraphs))] == [
        "\n\n".join(paragraphs[:2]),
        "\n\n".join(paragraphs[2:4]),
        paragraphs[4],
    ]


def test_indented_paragraphs_are_paragraphs() -> None:
    paragraphs = ["    " + words(30, f"p{n}x") + "." for n in range(3)]
    assert [chunk.text for chunk in chunks_of("\n\n".join(paragraphs))] == paragraphs


def test_long_paragraph_breaks_between_sentences_into_even_parts() -> None:
    sentences = [f"Sentence {n} has exactly seven words here." for n in range(6)]
    found = [chunk.text for chunk in chunks_of(" ".join(sentences))]
    assert found == [" ".join(sentences[:3]), " ".join(sentences[3:])]


def test_abbreviation_does_not_end_a_sentence() -> None:
    text = " ".join([words(30) + " see e.g. this one.", words(10)])
    assert any("e.g. this one." in chunk.text for chunk in chunks_of(text, 35))


def test_long_sentence_breaks_between_words() -> None:
    found = chunks_of(words(100))
    assert all(len(chunk.text.split()) <= 40 for chunk in found)
    assert " ".join(chunk.text for chunk in found) == words(100)


def test_emoji_of_several_characters_is_not_cut() -> None:
    family = "👩‍👩‍👧‍👦"
    document = Document(Path("/a"), family * 40, "text")
    for chunk in split(document, count_bytes, 60):
        assert chunk.text.replace(family, "") == ""


def test_chunk_does_not_cross_a_heading() -> None:
    first, second = "# A\n\n" + words(20) + "\n\n", "# B\n\n" + words(20)
    sections = [Section(0, 1, ("A",)), Section(len(first), 5, ("B",))]
    found = chunks_of(first + second, 60, "markdown", sections)
    assert [(chunk.heading, chunk.line_start, chunk.line_end) for chunk in found] == [("A", 1, 3), ("B", 5, 7)]


def test_small_sections_of_one_parent_become_one_chunk_with_the_parents_heading() -> None:
    parts = ["# Guide\n\n", "## One\n\nshort\n\n", "## Two\n\nshort too\n"]
    starts = [0, len(parts[0]), len(parts[0] + parts[1])]
    headings = [("Guide",), ("Guide", "One"), ("Guide", "Two")]
    sections = [Section(start, 1, heading) for start, heading in zip(starts, headings, strict=True)]
    (chunk,) = chunks_of("".join(parts), 60, "markdown", sections)
    assert chunk.heading == "Guide"


def test_heading_without_text_joins_the_section_below_it() -> None:
    text = "# Guide\n\n## Install\n\n" + words(30)
    sections = [Section(0, 1, ("Guide",)), Section(9, 3, ("Guide", "Install"))]
    (chunk,) = chunks_of(text, 40, "markdown", sections)
    assert chunk.heading == "Guide > Install"
    assert chunk.text.startswith("# Guide")


def test_fenced_code_stays_whole_while_it_fits() -> None:
    code = "```python\n" + "\n\n".join(f"x{n} = {n}" for n in range(6)) + "\n```"
    found = chunks_of(words(25) + "\n\n" + code + "\n\n" + words(25), 40, "markdown")
    assert code in [chunk.text for chunk in found]


@pytest.mark.parametrize(
    ("format_", "before", "after"),
    [
        ("org", "#+BEGIN_SRC python\n", "\n#+END_SRC"),
        ("rst", "As follows::\n\n", ""),
        ("rst", ".. code-block:: python\n   :linenos:\n\n", ""),
        ("notebook", "```\n", "\n```"),
    ],
)
def test_code_in_a_text_stays_whole_while_it_fits(format_: str, before: str, after: str) -> None:
    code = before + "\n\n".join(f"    x{n} = {n}" for n in range(6)) + after
    found = chunks_of(words(25) + "\n\n" + code + "\n\n" + words(25), 40, format_)
    assert code in [chunk.text for chunk in found]


def test_row_of_a_table_is_not_cut_at_an_abbreviation() -> None:
    rows = [f"Name: Dr. No {n} | Place: St. Ives. Old pier" for n in range(12)]
    found = chunks_of("\n".join(rows), 40, "csv")
    assert [row for chunk in found for row in chunk.text.split("\n")] == rows


def test_small_methods_are_packed_below_their_class_and_long_ones_stand_alone() -> None:
    methods = [f"    def m{n}(self):\n        return {words(6)}\n\n" for n in range(7)]
    methods.insert(4, f"    def long(self):\n        {words(60)}\n\n")
    text = "class Desk:\n" + "".join(methods)
    sections = [Section(0, 1, ("Desk",))]
    for method in methods:
        name = method.split()[1].split("(")[0]
        sections.append(Section(text.index(method), 1 + text[: text.index(method)].count("\n"), ("Desk", name)))
    found = chunks_of(text, 80, "code", sections)
    assert [(chunk.heading, chunk.line_start, chunk.line_end) for chunk in found] == [
        ("Desk", 1, 12),
        ("Desk > long", 14, 15),
        ("Desk", 17, 24),
    ]


def test_code_keeps_the_indentation_of_a_chunks_first_line() -> None:
    body = "\n\n".join("    " + words(12, f"s{n}x") for n in range(4))
    found = chunks_of("class A:\n" + body, 20, "code")
    assert all(chunk.text.startswith("    ") for chunk in found[1:])


def test_lines_come_from_the_sections() -> None:
    """As in HTML, where the text has other line breaks than the source."""
    text = "first\n\nsecond\nthird"
    (chunk,) = chunks_of(text, sections=[Section(0, 10), Section(7, 40)])
    assert (chunk.line_start, chunk.line_end) == (10, 41)


@pytest.mark.parametrize("text", ["```sh\nls\n```\n\nA sentence. Another.\n\n" * 5000, "```\n" * 50_000])
def test_document_of_many_fences_is_cut_in_time(text: str) -> None:
    # once a minute and more: the positions were gone through anew for each fence
    chunks = chunks_of(text, 256, "markdown")
    assert visible(text) == visible("".join(chunk.text for chunk in chunks))
