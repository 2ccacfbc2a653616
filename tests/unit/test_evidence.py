"""Evidence is judged by what the hits of a real index hold of a question, before a model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import DIMENSION, FakeEngine

from gritdesk import evidence
from gritdesk.config import SearchConfig
from gritdesk.evidence import Rarity, Signals, chance, signals, telling_words
from gritdesk.records import Chunk, Document, Evidence, Hit
from gritdesk.retriever import Retriever
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

TEXTS = (
    "The spare key of the tower hangs in the tea tin on the kitchen shelf.",
    "The lamp is switched on fifteen minutes before sunset by the keeper on duty.",
    "Clover the donkey retires on 1 June 2024 and stays on the island.",
    "Every Wednesday at ten the generator is tested by two people.",
    "The boat Marigold has a new starter battery that cost 310 euros.",
    "Guests bring their own towels, and leave the kitchen as they found it.",
    "The island is reached over the sandbar at low tide.",
    "The island trust has a chair, a treasurer and a skipper.",
    "On the island dogs are kept on a lead between March and July.",
    "The island has no shop; bring food for two days.",
)


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    embeddings = FakeEngine().embed([("", text) for text in TEXTS])
    with SqliteStore(":memory:") as store:
        store.enter_space(Space("fake", DIMENSION))
        for number, text in enumerate(TEXTS):
            document, key = Document(Path(f"{number}.txt"), text, "text"), str(number).encode()
            store.replace_document(document, FileState(len(text), 0, ""), [Chunk(text, 0, len(text), 1, 1)], [key])
            store.add_embeddings({key: embeddings[number]})
        yield store


def found(store: SqliteStore, question: str) -> Sequence[Hit]:
    return Retriever(store, FakeEngine().embed_query, SearchConfig()).search(question, evidence.NUM_BESIDE)


def rarity(store: SqliteStore, question: str) -> Rarity:
    return Rarity(*store.frequencies(telling_words(question)))


def weigh(store: SqliteStore, question: str) -> Evidence:
    """By words: the fake engine's embeddings say nothing of meaning."""
    hits = [replace(hit, distance=None) for hit in found(store, question)]
    return evidence.weigh(question, hits, rarity(store, question))


@pytest.mark.parametrize(
    "question",
    [
        "Where is the spare key of the tower?",
        "When does Clover the donkey retire?",
        "How much did the starter battery of the Marigold cost?",
        "How many minutes before sunset is the lamp switched on?",
    ],
)
def test_question_whose_words_stand_together_in_one_passage_has_evidence(store: SqliteStore, question: str) -> None:
    assert weigh(store, question) != "none"


@pytest.mark.parametrize(
    "question",
    [
        "Who composed the opera about the glacier?",
        "What is the password of the wireless network?",
        "Which volcano on the island erupted last?",
    ],
)
def test_question_whose_telling_words_stand_nowhere_has_none(store: SqliteStore, question: str) -> None:
    assert weigh(store, question) == "none"


def test_nothing_found_is_no_evidence_and_a_question_without_words_is_not_judged(store: SqliteStore) -> None:
    assert evidence.weigh("When is tea?", [], Rarity(0, {})) == "none"
    assert evidence.weigh("?", found(store, "island"), Rarity(10, {})) == "thin"


def test_passage_that_stands_out_by_meaning_is_told_by_its_distance_from_the_others(store: SqliteStore) -> None:
    hits = found(store, "island")

    def apart(*cosines: float | None) -> float:
        asked = [
            replace(hit, distance=each if each is None else 1 - each) for hit, each in zip(hits, cosines, strict=False)
        ]
        return signals("island", asked, rarity(store, "island")).apart

    assert apart(0.6, 0.2, 0.2, 0.2) == pytest.approx(0.5)
    assert apart(0.9, 0.8, 0.8, 0.8) == pytest.approx(0.5)  # models differ in how far apart they put texts
    assert apart(0.2, 0.2, 0.2, 0.6) < 0 == apart(None, None, None)


def test_rare_words_count_more_than_frequent_ones_in_whatever_form(store: SqliteStore) -> None:
    def paired(question: str) -> float:
        return signals(question, found(store, question), rarity(store, question)).paired

    assert paired("spare key zebra") > paired("island trust zebra") > paired("zebra trust orchestra") == 0
    assert paired("spares keys") == paired("spare key") == 1


def test_all_words_in_a_sentence_are_never_called_none(store: SqliteStore) -> None:
    hits = found(store, "island")
    assert signals("island", hits, rarity(store, "island")).whole
    assert evidence.weigh("island", hits, rarity(store, "island")) != "none"


def test_more_of_any_signal_never_lowers_the_chance() -> None:
    nothing = Signals(0.0, 0.0, 0.0, False)
    more = (Signals(1.0, 0.0, 0.0, False), Signals(0.0, 1.0, 0.0, False), Signals(0.0, 0.0, 1.0, False))
    assert chance(nothing) < evidence.NONE_BELOW <= evidence.THIN_BELOW < chance(Signals(1.0, 1.0, 1.0, True))
    assert all(chance(nothing) < chance(each) for each in (*more, Signals(0.0, 0.0, 0.0, True)))
