"""Each sentence of an answer is held against the passages by its words and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine
from numpy.typing import NDArray

from gritdesk import supporting
from gritdesk.errors import ModelError
from gritdesk.records import Chunk, Hit, SentenceSupport

Floats = NDArray[np.float32]


def hit(text: str, path: str = "notes.md", line: int = 1, heading: str = "Notes") -> Hit:
    return Hit(1, Path(path), Chunk(text, 0, len(text), line, line + text.count("\n"), heading), score=1.0)


CHAIR = hit("The chair of the trust is Ida Thorne.\nShe took over from Nathaniel Cole in 2019.", line=7)
BOAT = hit(
    "The boat is called Marigold.\nIt has a crew of three.\nIts engine was not replaced.", "boat.md", heading="Boat log"
)
LAMP = hit("The lamp is cleaned every Monday.\nThe fog horn is tested on Fridays.\nTea is at four.", "lamp.md")
HITS = (CHAIR, BOAT, LAMP)
WHO = "Who is the chair of the trust?"


def by_words(texts: Sequence[str]) -> Floats:
    """Embeddings that are near where words are shared."""
    return FakeEngine().embed([("", text) for text in texts])


def checked(answer: str, question: str = WHO, hits: Sequence[Hit] = HITS) -> list[SentenceSupport]:
    return list(supporting.check(answer, question, hits, by_words))


@pytest.mark.parametrize("embed", [None, by_words])
@pytest.mark.parametrize(
    ("answer", "is_supported"),
    [
        ("Ida Thorne [1].", True),
        ("The chair of the trust is Ida Thorne. [1]", True),
        ("The chair is Ida Thorne, who took it over from Cole. [1]", True),
        ("The chair of the trust is Napoleon Bonaparte. [1]", False),
        ("The chair of the trust is not Ida Thorne. [1]", False),
        ("Ida Thorne has been the chair since 2018 [1].", False),
        ("Napoleon [1].", False),
        ("It is the [1].", False),
        ("The chair of the trust [1].", False),
    ],
)
def test_sentence_is_supported_only_if_a_passage_holds_what_it_adds(
    answer: str, is_supported: bool, embed: supporting.Embed | None
) -> None:
    (sentence,) = supporting.check(answer, WHO, HITS, embed)
    assert sentence.is_supported is is_supported
    assert bool(sentence.doubt) is not is_supported


def test_each_sentence_has_its_own_span_passage_and_line() -> None:
    answer = "The chair is Ida Thorne [1]. She lives on the moon. The boat is called Marigold [2]. Tea is at four."
    first, second, third, fourth = checked(answer)
    assert [answer[each.start : each.end] for each in (first, second)] == [
        "The chair is Ida Thorne [1].",
        "She lives on the moon.",
    ]
    assert [each.is_supported for each in (first, second, third, fourth)] == [True, False, True, True]
    assert third.citation is not None and (third.citation.n, third.citation.line_start) == (2, 1)
    assert third.citation.quote == "The boat is called Marigold." and third.cited == (2,) and third.suggested is None
    assert fourth.citation is not None and (fourth.citation.n, fourth.citation.line_start) == (3, 3)


def test_sentence_that_another_passage_supports_gets_that_one_suggested() -> None:
    answer = "The boat is called Marigold [1]."
    (sentence,) = checked(answer, "What is the boat called?")
    assert (sentence.is_supported, sentence.cited, sentence.suggested) == (True, (1,), 2)
    assert [each.n for each in supporting.citations(answer, [sentence], HITS)] == [1, 2]


def test_sentence_may_rest_on_several_passages_each_holding_a_part() -> None:
    (together,) = checked("The chair is Ida Thorne [1], and the boat is called Marigold [2].")
    assert together.is_supported and together.cited == (1, 2) and together.suggested is None
    (alone,) = checked("The chair is Ida Thorne, and the boat is called Marigold [2].")
    assert not alone.is_supported
    (made_up,) = checked("Ida Thorne [1] and Marigold [2] met Napoleon.")
    assert not made_up.is_supported


def test_answer_without_citations_gets_those_that_support_it() -> None:
    answer = "The chair is Ida Thorne. The boat has a crew of three."
    cited = supporting.citations(answer, checked(answer), HITS)
    assert [(each.n, each.line_start, each.quote) for each in cited] == [
        (1, 7, "The chair of the trust is Ida Thorne."),
        (2, 2, "It has a crew of three."),
    ]


def test_heading_of_a_passage_counts_as_its_words() -> None:
    (sentence,) = checked("It is the Boat log that says so: Marigold [2].", "What is the boat called, and says what?")
    assert sentence.citation is not None and sentence.citation.n == 2


def test_a_heading_is_no_answer() -> None:
    rules = hit("## Rules for spending money\nThe treasurer approves expenses.", "rules.md")
    (sentence,) = checked("[1] ## Rules", "Who approves expenses?", [rules])
    assert not sentence.is_supported and "heading" in sentence.doubt


@pytest.mark.parametrize(
    ("question", "answer", "doubt"),
    [
        ("How long are storm biscuits baked?", "500", "the question asks how long"),
        ("How long are storm biscuits baked?", "12 minutes", ""),
        ("How long is the coast?", "158 km.", ""),
        ("How long may they stay?", "Indefinitely", ""),
        ("When does Clover retire?", "A donkey", "the question asks when"),
        ("When does Clover retire?", "1 June 2024", ""),
        ("When is the generator tested?", "30", "the question asks when"),
        ("When is the generator tested?", "10:00", ""),
        ("When was the light built?", "1852", ""),
        ("When does Clover retire?", "Following the harvest", ""),
        ("When Clover retires, who takes over?", "A mule", ""),
        ("In what year was it built?", "Scotland", "the question asks when"),
        ("How many bees are there?", "Honey", "the question asks for a number"),
        ("How many bees are there?", "several thousand", ""),
        ("How old is the keeper?", "seventy-one", ""),
        ("Who designed Fennock Light?", "Fennock Light", "nothing that the question does not say"),
        ("Who designed Fennock Light?", "Josiah Penrose", ""),
        ("Which came first, the lamp or the horn?", "The horn", ""),
        ("Is the lamp cleaned on Monday?", "Yes, on Monday", ""),
    ],
)
def test_answer_of_another_kind_than_the_question_asks_for_is_doubted(question: str, answer: str, doubt: str) -> None:
    found = supporting.doubt_of_kind(question, answer)
    assert doubt in found and bool(found) is bool(doubt)


def test_scale_of_a_models_cosines_does_not_matter() -> None:
    def squeezed(texts: Sequence[str]) -> Floats:
        """Another model, all of whose embeddings are near one another: every cosine is above 0.9."""
        embedded = np.hstack([by_words(texts) * 0.3, np.ones((len(texts), 1), np.float32)])
        return (embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).astype(np.float32)

    answer = "The chair is Ida Thorne [1]. She lives on the moon [1]. Tea is at four [3]."
    expected = supporting.check(answer, WHO, HITS, by_words)
    found = supporting.check(answer, WHO, HITS, squeezed)
    assert [each.is_supported for each in found] == [each.is_supported for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=0.02)


def test_words_do_without_a_model_that_fails_or_takes_too_long() -> None:
    def fails(texts: Sequence[str]) -> Floats:
        raise ModelError("the engine did not answer within 3 s")

    assert supporting.check("Ida Thorne [1].", WHO, HITS, fails) == supporting.check("Ida Thorne [1].", WHO, HITS)
    (sentence,) = supporting.check("Ida Thorne [1].", WHO, HITS, fails)
    assert sentence.is_supported and sentence.score is None


def test_one_request_embeds_all_and_no_more_than_is_bounded() -> None:
    requests: list[int] = []

    def counted(texts: Sequence[str]) -> Floats:
        requests.append(len(texts))
        return by_words(texts)

    book = hit("\n".join(f"Line {number} tells of the sea." for number in range(1000)) + "\nThe chair is Ida Thorne.")
    (sentence,) = supporting.check("Ida Thorne [1].", WHO, (book,), counted)
    assert requests == [129] and sentence.is_supported
    assert sentence.citation is not None and sentence.citation.line_start == 1001
