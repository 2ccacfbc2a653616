"""Rows that teach to answer from passages: what they ask can be answered where they say, and nowhere else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from gritdesk.grit_format import REFUSAL
from training.reading import Item, cut_passages, made_questions, main, plain_answer, read_grounded, rows_of

LIGHTHOUSE = (
    "The Sandvik Lighthouse was built in 1871 by the engineer Olga Brandt on a rock near the town of Harg. "
    "It was the first tower of the coast that used electric light. The keeper rowed to the shore because the bridge "
    "had been lost in a winter storm, and 340 people came to see the new lamp in March 1902."
)


@pytest.mark.parametrize("seed", range(20))
def test_a_made_question_has_its_answer_in_the_passage_and_not_in_itself(seed: int) -> None:
    questions = made_questions(LIGHTHOUSE, "Sandvik Lighthouse", random.Random(seed), 5)
    assert questions
    for question, answer in questions:
        assert answer in LIGHTHOUSE
        assert answer not in question
        assert question.split()[0].lower() in {"who", "what", "which", "where", "when", "how", "why", "in"}


def test_places_dates_and_people_are_asked_for_with_their_words() -> None:
    asked: dict[str, set[str]] = {}
    for seed in range(80):
        for question, answer in made_questions(LIGHTHOUSE, "", random.Random(seed), 9):
            asked.setdefault(answer, set()).add(question.lower().split()[0])
    assert asked["1871"] <= {"when", "what", "in"}
    assert asked["340 people"] <= {"how", "what"}
    assert "lost in a winter storm" not in asked


def test_a_sentence_that_begins_with_a_pronoun_is_asked_about_by_its_title() -> None:
    questions = [
        question
        for seed in range(60)
        for question, _ in made_questions(LIGHTHOUSE, "Sandvik Lighthouse", random.Random(seed), 9)
    ]
    assert any("sandvik lighthouse" in each.lower() and "electric light" in each.lower() for each in questions)


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("Olga Brandt was the engineer of Harg", "Who was Olga Brandt?", "the engineer of Harg"),
        ("The capital of Harg: Sandvik.", "What is the capital of Harg?", "Sandvik"),
        ("On a rock near the town of harg.", "Where was it built?", "on a rock near the town of Harg"),
        ("Nobody knows, they say.", "Why?", "Nobody knows, they say"),
    ],
)
def test_an_answer_is_spelled_as_the_passage_spells_it(answer: str, question: str, expected: str) -> None:
    assert plain_answer(answer, question, LIGHTHOUSE) == expected


def test_questions_of_one_passage_come_together_whatever_the_layout(tmp_path: Path) -> None:
    layouts = [
        f"Documents:\n[1] {LIGHTHOUSE}\n\nQuestion: Who built it?\nAnswer from the documents and cite them.",
        f"Question: Who built it?\n\nSources:\n[1] An otter.\n\n[2] {LIGHTHOUSE}\n\nAnswer with a citation.",
        f"[1] {LIGHTHOUSE}\n\nUsing the documents above, answer: Who built it?",
        f"Here are some notes:\n\n[1] {LIGHTHOUSE}\n\nWho built it?",
    ]
    rows = [[layout, f"Olga Brandt [{2 if 'otter' in layout else 1}]."] for layout in layouts]
    rows.append([layouts[0], REFUSAL])
    path = tmp_path / "grounded.jsonl"
    path.write_text("".join(json.dumps({"messages": chat(*each)}) + "\n" for each in rows))
    [item] = read_grounded(path)
    assert item.passage == LIGHTHOUSE
    assert item.questions == [("Who built it?", "Olga Brandt")] * len(layouts)


def chat(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def test_rows_cite_the_passage_that_holds_the_answer_and_refuse_what_none_holds() -> None:
    items = [Item(f"In the year {1500 + n} the {n}th mill burned.", [(f"When? {n}", f"{1500 + n}")]) for n in range(90)]
    num_refused = 0
    for row in rows_of(items, random.Random(1)):
        passages = row["passages"]
        for question, answer in row["questions"]:
            if answer == REFUSAL:
                num_refused += 1
                assert not any(f"the {question.split()[1]}th mill" in passage for passage in passages)
            else:
                number, _, words = answer.partition("] ")
                assert words in passages[int(number[1:]) - 1]
    assert 10 < num_refused < 60


def test_passages_are_whole_sentences_and_some_carry_their_title() -> None:
    text = "The Mill\n\n" + " ".join(
        f"Sentence {n} tells how the mill by the river was built and lost." for n in range(40)
    )
    found = [each for seed in range(5) for each in cut_passages(text, random.Random(seed))]
    assert {title for title, _ in found} == {"The Mill"}
    assert {passage.startswith("The Mill. ") for _, passage in found} == {True, False}
    assert all(passage.endswith("lost.") and 35 <= len(passage.split()) <= 115 for _, passage in found)


def test_a_folder_without_the_data_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "no file grounded_fairytaleqa.jsonl" in capsys.readouterr().err
