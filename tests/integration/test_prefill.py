"""Prompts read ahead: an answer that begins like one starts there, and every answer is as it is without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import HIDDEN, make_checkpoint

from converters.hf_to_gguf import convert
from gritdesk import keeping
from gritdesk.config import Config, EngineConfig, IndexConfig
from gritdesk.desk import Desk
from gritdesk.engine import wire
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.generator import Generator
from gritdesk.engine.host import EngineHost, Priority
from gritdesk.engine.llama import LlamaModel
from gritdesk.engine.worker import Schedule, Worker
from gritdesk.grit_format import documents_turn
from gritdesk.keeping import pause, resume
from gritdesk.records import AnswerFinished, EmbeddingInput, Sampling, Turn

PASSAGES = [
    "The lamp is cleaned every Monday before ten, and the fog horn is tested on Fridays. " * 3,
    "The boat is called Marigold, has a crew of three and lies in the harbour all winter. " * 2,
]
SAMPLING = Sampling(max_tokens=24, temperature=1.0, seed=3)


def question(text: str, passages: Sequence[str] = PASSAGES) -> list[Turn]:
    return [Turn("user", documents_turn(passages, text))]


TEA, LAMP = question("When is tea?"), question("When is the lamp cleaned?")
OTHER = question("When is tea?", PASSAGES[::-1])


@pytest.fixture(scope="module", params=["plain", "bidirectional_blocks"])
def gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads passages as any text, and one that reads them as blocks."""
    grit = {"dimension": HIDDEN, "markers": "special", "passages": request.param}
    folder = make_checkpoint(tmp_path_factory.mktemp("prefill") / "checkpoint", grit=grit)
    convert(folder, folder.parent / "model.gguf", "F32")
    return folder.parent / "model.gguf"


# ---------------------------------------------------------------- in the engine


class Served:
    """A worker whose steps a test makes, one by one; what it sends lies in `sent`."""

    def __init__(self, model: LlamaModel) -> None:
        self.schedule = Schedule()
        self.sent: list[object] = []
        self.generator = Generator(model, n_ctx=1024, n_threads=1)
        self._worker = Worker(self.schedule, Embedder(model, n_threads=1), self.generator, self.sent.append)
        self._num_requests = 0

    def ask(self, task: wire.Task, priority: Priority) -> int:
        self._num_requests += 1
        self.schedule.add(wire.Request(self._num_requests, priority, task))
        return self._num_requests

    def makes_step(self) -> int:
        """Make one step. Returns: the number of the request that made it, 0 for one that was given up."""
        job = self.schedule.take()
        is_served = not job.is_cancelled
        if is_served and self._worker._makes_step(job):
            self.schedule.put_back(job)
        else:
            self.schedule.forget(job)
        return job.number if is_served else 0

    def answer(self, turns: Sequence[Turn]) -> tuple[str, int]:
        """The text of an answer, and the steps until its first piece."""
        number = self.ask(wire.Stream(turns, SAMPLING), Priority.ANSWER)
        num_steps = first = 0
        while not any(isinstance(each, wire.Done) and each.number == number for each in self.sent):
            self.makes_step()
            num_steps += 1
            pieces = [each.text for each in self.sent if isinstance(each, wire.Piece) and each.number == number]
            first = first or (num_steps if pieces else 0)
        return "".join(pieces), first


@pytest.fixture
def served(gguf: Path) -> Iterator[Served]:
    with LlamaModel(gguf) as model:
        yield Served(model)


@pytest.fixture(scope="module")
def undisturbed(gguf: Path) -> Callable[[Sequence[Turn]], str]:
    def answer(turns: Sequence[Turn]) -> str:
        with LlamaModel(gguf) as model:
            return Served(model).answer(turns)[0]

    return answer


def test_answer_to_another_question_about_the_same_passages_starts_behind_them(
    served: Served, undisturbed: Callable[[Sequence[Turn]], str]
) -> None:
    _, cold = Served(served.generator._model).answer(LAMP)
    reading = served.ask(wire.Prefill(TEA), Priority.IDLE)
    while wire.Done(reading, None) not in served.sent:
        served.makes_step()
    text, warm = served.answer(LAMP)
    assert text == undisturbed(LAMP) != ""
    assert warm < cold - 1


@pytest.mark.parametrize("turns", [TEA, LAMP, OTHER, [Turn("user", "Who is there?")]])
def test_half_read_prompt_is_given_up_for_an_answer_that_is_the_same_as_without(
    served: Served, undisturbed: Callable[[Sequence[Turn]], str], turns: list[Turn]
) -> None:
    reading = served.ask(wire.Prefill(TEA), Priority.IDLE)
    for _ in range(2):
        assert served.makes_step() == reading
    assert served.answer(turns)[0] == undisturbed(turns) != ""
    assert served.makes_step() == 0, "what is left of the reading is dropped"
    assert wire.Done(reading, None) not in served.sent
    assert served.answer(TEA)[0] == undisturbed(TEA)


def test_query_that_comes_while_a_prompt_is_read_makes_the_next_step(served: Served) -> None:
    reading = served.ask(wire.Prefill(TEA), Priority.IDLE)
    served.makes_step()
    query = served.ask(wire.Embed([("", "a ship")]), Priority.QUERY)
    indexing = served.ask(wire.Embed([("", "a harbour")]), Priority.INDEXING)
    assert [served.makes_step() for _ in range(5)] == [query, query, indexing, indexing, reading]


# ---------------------------------------------------------------- through the app


def test_host_reads_ahead_without_being_waited_for(gguf: Path, tmp_path: Path) -> None:
    def text(host: EngineHost, turns: list[Turn]) -> str:
        return "".join(map(str, host.stream(turns, SAMPLING)))

    with EngineHost(gguf, EngineConfig(n_threads=1, n_ctx=1024), tmp_path) as host:
        expected = [text(host, turns) for turns in (TEA, LAMP, OTHER)]
        for turns in (TEA, OTHER, LAMP, TEA):
            host.prefill(turns)
            assert [text(host, each) for each in (TEA, LAMP, OTHER)] == expected
        host.prefill(question("word " * 4000))  # too long: asking it says so, reading it ahead says nothing
        assert host.embed([("", "a ship")], priority=Priority.QUERY).dtype == np.float32
        assert text(host, TEA) == expected[0]
        host.prefill(TEA)


@pytest.fixture
def desk(gguf: Path, tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "docs").mkdir()
    for number, passage in enumerate(PASSAGES):
        (tmp_path / "docs" / f"{number}.txt").write_text(passage)
    engine = EngineConfig(model=str(gguf), n_threads=1, n_ctx=1024)
    with Desk.open(Config(tmp_path / "home", engine=engine, index=IndexConfig(on_battery="go on"))) as desk:
        desk.index([tmp_path / "docs"])
        yield desk


def test_desk_answers_alike_whether_it_has_read_ahead_or_not(desk: Desk) -> None:
    def text(asked: str) -> str:
        *_, last = desk.ask(asked)
        assert isinstance(last, AnswerFinished)
        return last.answer.text

    expected = [text("When is the lamp cleaned?"), text("What is the boat called?")]
    assert desk.prefill("lamp")
    assert [text("When is the lamp cleaned?"), text("What is the boat called?")] == expected


def test_nothing_is_read_ahead_in_a_pause_on_battery_or_without_passages(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.prefill("lamp")
    assert not desk.prefill("lamp name:nowhere")
    pause(desk.config)
    assert not desk.prefill("lamp")
    resume(desk.config)
    monkeypatch.setattr(keeping, "on_battery", lambda: True)
    assert desk.prefill("lamp"), "the settings say to go on"
    desk.config = replace(desk.config, index=IndexConfig())
    assert not desk.prefill("lamp")


def test_question_that_was_searched_for_is_not_embedded_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = desk.engine()
    embedded: list[EmbeddingInput] = []

    def embed(inputs: Sequence[EmbeddingInput], **options: object) -> object:
        embedded.extend(inputs)
        return EngineHost.embed(engine, inputs, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "embed", embed)
    desk.search("lamp")
    assert desk.prefill("lamp") and list(desk.ask("lamp"))
    questions = [text for instruction, text in embedded if instruction]  # the rest are the answer's sentences
    assert questions == ["lamp"]
    desk.search("boat")
    assert embedded[-1][1] == "boat"
