"""An answer streams its evidence, its pieces and its end; without evidence no model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine
from numpy.typing import NDArray

from gritdesk import prompting
from gritdesk.answerer import Answerer
from gritdesk.config import AnswerConfig
from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import REFUSAL
from gritdesk.records import (
    Answer,
    AnswerEvent,
    AnswerFinished,
    AnswerRestarted,
    Chunk,
    Citation,
    EmbeddingInput,
    Evidence,
    EvidenceFound,
    Exchange,
    Hit,
    Misses,
    PieceGenerated,
    Sampling,
    Turn,
)

TEA = Hit(7, Path("notes.md"), Chunk("Tea is at four.", 0, 15, 3, 3), score=1.0)


@dataclass
class Restarted:
    reason: str


class ScriptedEngine:
    """Plays pieces; stands for the engine's door."""

    def __init__(self, *pieces: str | Restarted) -> None:
        self.pieces = pieces
        self.prompts: list[Sequence[Turn]] = []

    def count_prompt_tokens(self, turns: Sequence[Turn]) -> int:
        return sum(len(turn.text.split()) for turn in turns)

    def embed(self, inputs: Sequence[EmbeddingInput], **_: object) -> NDArray[np.float32]:
        return FakeEngine().embed(inputs)

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, is_stopped: Callable[[], bool] | None = None
    ) -> Iterator[object]:
        self.prompts.append(turns)
        for piece in self.pieces:
            if is_stopped is not None and is_stopped():
                return
            yield piece


def events_of(engine: ScriptedEngine, hits: Sequence[Hit] = (TEA,), stop_after: int = 99) -> list[AnswerEvent]:
    events: list[AnswerEvent] = []
    answerer = Answerer(lambda line, n: hits, engine, 512, AnswerConfig())
    for event in answerer.answer("When is tea?", is_stopped=lambda: len(events) > stop_after):
        events.append(event)
    return events


def answer_of(events: list[AnswerEvent]) -> Answer:
    assert isinstance(events[-1], AnswerFinished)
    return events[-1].answer


def test_answer_streams_evidence_then_pieces_then_the_cited_end() -> None:
    events = events_of(ScriptedEngine("Tea is ", "at four [1]."))
    assert events[:3] == [EvidenceFound((TEA,)), PieceGenerated("Tea is "), PieceGenerated("at four [1].")]
    answer = answer_of(events)
    assert answer.text == "Tea is at four [1]." and answer.grounded and not answer.stopped
    assert [(each.n, each.path, each.line_start) for each in answer.citations] == [(1, Path("notes.md"), 3)]


def test_no_evidence_is_said_without_asking_the_model() -> None:
    engine = ScriptedEngine("made up")
    answer = answer_of(events_of(engine, hits=()))
    assert answer.text == prompting.NO_EVIDENCE and not answer.grounded and engine.prompts == []


def asked(
    engine: ScriptedEngine, evidence: Evidence, question: str = "When is tea?", anyway: bool = False
) -> list[AnswerEvent]:
    answerer = Answerer(lambda line, n: [TEA], engine, 512, AnswerConfig(), weigh=lambda question, hits: evidence)
    return list(answerer.answer(question, anyway=anyway))


def test_hits_that_hold_no_answer_are_shown_as_the_nearest_and_no_model_is_asked() -> None:
    engine = ScriptedEngine("made up")
    events = asked(engine, "none")
    answer = answer_of(events)
    assert events[0] == EvidenceFound((TEA,), "none") and engine.prompts == []
    assert (answer.text, answer.evidence, answer.citations) == (prompting.NO_EVIDENCE, "none", ())
    assert [(each.n, each.path, each.line_start, each.quote) for each in answer.nearest] == [
        (1, Path("notes.md"), 3, "Tea is at four.")
    ]


def test_answer_anyway_is_the_models_own_and_says_so() -> None:
    engine = ScriptedEngine("Tea is at four [1].")
    events = asked(engine, "none", anyway=True)
    answer = answer_of(events)
    assert engine.prompts == [(Turn("user", "When is tea?"),)] and events[0] == EvidenceFound((), "none")
    assert answer.from_model and answer.evidence == "none" and answer.nearest
    assert (answer.text, answer.grounded, answer.citations) == ("Tea is at four [1].", False, ())


@pytest.mark.parametrize("evidence", ["found", "thin"])
def test_answer_says_what_evidence_there_was_and_anyway_changes_nothing_of_it(evidence: Evidence) -> None:
    events = asked(ScriptedEngine("Tea is at four [1]."), evidence, anyway=True)
    answer = answer_of(events)
    assert events[0] == EvidenceFound((TEA,), evidence)
    assert (answer.evidence, answer.grounded, answer.from_model, answer.nearest) == (evidence, True, False, ())


def test_question_longer_than_the_context_is_said_before_any_search() -> None:
    engine = ScriptedEngine("made up")
    with pytest.raises(ContextOverflow, match="shorten it"):
        asked(engine, "none", "why " * 600)
    assert engine.prompts == []


@pytest.mark.parametrize(
    "text", ["The documents do not say.", "Paris is a large city.", "Paris is a large city [1].", "See [4]."]
)
def test_answer_that_no_passage_supports_is_not_grounded_but_says_where_to_look(text: str) -> None:
    answer = answer_of(events_of(ScriptedEngine(text)))
    assert not answer.grounded
    assert answer.citations == ()
    assert answer.closest is not None and answer.closest.quote == "Tea is at four."


def test_restart_of_the_engine_voids_the_pieces_before_it() -> None:
    events = events_of(ScriptedEngine("Tea is at ni", Restarted("it was killed"), "Tea is at four [1]."))
    assert AnswerRestarted("it was killed") in events
    assert answer_of(events).text == "Tea is at four [1]."


def test_stopped_answer_keeps_what_came() -> None:
    answer = answer_of(events_of(ScriptedEngine("Tea ", "is ", "at ", "four."), stop_after=2))
    assert answer.stopped and answer.text == "Tea is"


@pytest.mark.parametrize("pieces", [(), ("\n",) * 200])
def test_model_with_nothing_to_say_is_a_refusal_and_is_not_waited_for(pieces: tuple[str, ...]) -> None:
    events = events_of(ScriptedEngine(*pieces))
    assert len(events) == 3 and answer_of(events).text == REFUSAL


def test_white_space_before_an_answer_is_not_shown() -> None:
    events = events_of(ScriptedEngine("\n", "\n Tea is", " at four [1]."))
    assert events[1] == PieceGenerated("Tea is")


def test_follow_up_is_searched_for_and_read_with_what_it_leaves_out() -> None:
    lines: list[str] = []

    def search(line: str, n: int) -> Sequence[Hit]:
        lines.append(line)
        return (TEA,)

    cited = Citation(1, TEA.path, 3, 3, TEA.chunk.text)
    past = Exchange(Answer("When is tea in the kitchen?", "At four [1].", True, (cited,)), (TEA,))
    engine = ScriptedEngine("In the kitchen [1].")
    events = list(Answerer(search, engine, 512, AnswerConfig()).answer("Where is it?", [past]))
    assert lines == ["Where is it?", "Where is it? tea kitchen"]
    assert answer_of(events).searched_for == "Where is it? tea kitchen" and answer_of(events).question == "Where is it?"
    *earlier, last = engine.prompts[0]
    assert [turn.text for turn in earlier] == ["When is tea in the kitchen?", "At four."]
    assert "Question: Where is it? (tea kitchen)\n" in last.text and last.text.count("Tea is at four.") == 1


def test_follow_up_keeps_what_the_last_answer_cited_among_its_passages() -> None:
    other = Hit(8, Path("other.md"), Chunk("Something else.", 0, 15, 1, 1), score=1.0)
    past = Exchange(Answer("When is tea?", "At four [1].", True, (Citation(1, TEA.path, 3, 3, ""),)), (TEA,))
    answerer = Answerer(lambda line, n: (other,), ScriptedEngine("At four [2]."), 512, AnswerConfig())
    evidence = next(iter(answerer.answer("Is it really?", [past])))
    assert isinstance(evidence, EvidenceFound) and [hit.chunk_id for hit in evidence.hits] == [8, 7]


def test_follow_up_carries_nothing_over_that_is_not_asked_any_more() -> None:
    other = Hit(8, Path("/docs/other.md"), Chunk("Something else.", 0, 15, 1, 1), score=1.0)
    past = Exchange(Answer("When is tea?", "At four [1].", True, (Citation(1, TEA.path, 3, 3, ""),)), (TEA,))
    engine = ScriptedEngine("Else [1].")
    answerer = Answerer(lambda line, n: (other,), engine, 512, AnswerConfig(), within=(Path("/docs"),))
    evidence, *_, last = answerer.answer("Is it really?", [past])
    assert isinstance(evidence, EvidenceFound) and evidence.hits == (other,)
    assert isinstance(last, AnswerFinished) and last.answer.within == (Path("/docs"),)


def test_question_whose_filters_leave_nothing_is_told_which_and_what_they_left_out() -> None:
    misses = Misses((("type:pdf", 3),), (TEA,))
    answerer = Answerer(
        lambda line, n: [], ScriptedEngine(), 512, AnswerConfig(), misses=lambda line: misses, within=(Path("/d/a.md"),)
    )
    evidence, *_, last = answerer.answer("When is tea?")
    assert evidence == EvidenceFound((TEA,), "none") and isinstance(last, AnswerFinished)
    assert last.answer.text == "Nothing in a.md answers this." and last.answer.removed == (("type:pdf", 3),)
    assert [each.quote for each in last.answer.nearest] == ["Tea is at four."]


def test_rewriting_is_switched_off_by_the_configuration() -> None:
    past = Exchange(Answer("When is tea?", "At four.", True))
    answerer = Answerer(lambda line, n: (TEA,), ScriptedEngine("At four [1]."), 512, AnswerConfig(rewrite="off"))
    assert answer_of(list(answerer.answer("Why?", [past]))).searched_for == ""


def test_model_writes_a_follow_up_out_where_the_configuration_lets_it() -> None:
    past = Exchange(Answer("When is tea in the kitchen?", "At four.", True))
    engine = ScriptedEngine("Where is tea in the kitchen?")
    answerer = Answerer(lambda line, n: (TEA,), engine, 512, AnswerConfig(rewrite="model"))
    assert answer_of(list(answerer.answer("Where is it?", [past]))).searched_for == "Where is tea in the kitchen?"
    assert len(engine.prompts) == 2


def test_follow_up_is_not_answered_by_the_words_that_it_leaves_out() -> None:
    boat = Hit(8, Path("boat.md"), Chunk("The Marigold lies in the harbour.", 0, 33, 1, 1), score=1.0)
    past = [Exchange(Answer("When was the Marigold built?", "The Marigold was built in 1998 [1].", True))]
    answerer = Answerer(lambda line, n: [boat], ScriptedEngine("[1] Marigold"), 512, AnswerConfig())
    answer = answer_of(list(answerer.answer("Where does it lie?", past)))
    assert "Marigold" in answer.searched_for and not answer.grounded
    assert answer.closest is not None and answer.closest.quote == "The Marigold lies in the harbour."


@pytest.mark.parametrize("said", [REFUSAL, f"[1] {REFUSAL}", f"{REFUSAL} [1]"])
def test_model_that_read_the_passages_and_found_nothing_is_told_apart(said: str) -> None:
    answer = answer_of(events_of(ScriptedEngine(said)))
    assert answer.refused and not answer.grounded and answer.evidence == "found"
    assert not answer_of(events_of(ScriptedEngine("Tea is at four [1]."))).refused
