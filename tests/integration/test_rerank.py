"""Looking harder: likelihoods are those of the plain formula, nothing else is disturbed, and what was done is said."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from person import Person
from tiny import HIDDEN, make_checkpoint

from converters.hf_to_gguf import convert
from gritdesk.config import EngineConfig
from gritdesk.engine.generator import Generator
from gritdesk.engine.host import EngineHost
from gritdesk.engine.llama import LlamaModel
from gritdesk.errors import ContextOverflow
from gritdesk.grit_format import documents_turn, encode, likelihood_frame, render
from gritdesk.records import Sampling, Turn

PASSAGES = ["The lamp is cleaned every Monday before ten. " * 3, "Tea is at four.", "The boat has a crew of three."]
QUESTION = "When is the lamp cleaned, and who does it?"


@pytest.fixture(scope="module", params=["plain", "causal_blocks", "bidirectional_blocks"])
def gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    grit = {"dimension": HIDDEN, "markers": "special", "passages": request.param}
    folder = make_checkpoint(tmp_path_factory.mktemp("rerank") / "checkpoint", grit=grit)
    convert(folder, folder.parent / "model.gguf", "F32")
    return folder.parent / "model.gguf"


@pytest.fixture
def host(gguf: Path, tmp_path: Path) -> Iterator[EngineHost]:
    with EngineHost(gguf, EngineConfig(n_threads=1, n_ctx=1024), tmp_path) as host:
        yield host


def log_softmax(logits_V: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits_V.astype(np.float64) - logits_V.max()
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return found


def test_question_is_asked_of_a_passage_in_the_words_of_an_answers_prompt() -> None:
    rendered = render(likelihood_frame(PASSAGES[1], QUESTION))
    assert rendered.removeprefix("<s><|user|>\n") in documents_turn([PASSAGES[1]], QUESTION)
    assert rendered.endswith(QUESTION)


def test_likelihood_is_the_product_over_the_questions_tokens(gguf: Path) -> None:
    with LlamaModel(gguf) as model:
        generator = Generator(model, n_ctx=1024, n_threads=1)
        found = [generator.log_likelihood(QUESTION, passage) for passage in PASSAGES]
        for passage, log_probability in zip(PASSAGES, found, strict=True):
            is_blocks = model.grit.passages != "plain"
            frame = encode(likelihood_frame(passage, QUESTION, blocks=is_blocks), model, "special")
            expected = 0.0
            for at in range(frame.num_prefix, len(frame.ids)):
                logits_V = generator.context.prefill(frame.ids[:at], frame.blocks[:at])
                expected += log_softmax(logits_V)[frame.ids[at]]
            assert log_probability == pytest.approx(expected, abs=0.02)


def test_long_passage_is_cut_and_a_question_that_does_not_fit_is_refused(host: EngineHost) -> None:
    (found,) = host.log_likelihoods(QUESTION, ["The lamp is cleaned. " * 2000]) or ()
    assert np.isfinite(found)
    with pytest.raises(ContextOverflow, match="does not fit"):
        host.log_likelihoods("word " * 3000, PASSAGES)


def test_answer_under_way_goes_on_as_if_nothing_was_read(host: EngineHost) -> None:
    turns = [Turn("user", documents_turn(PASSAGES, QUESTION))]
    texts = {seed: [*host.stream(turns, Sampling(40, temperature=1.0, seed=seed))] for seed in range(8)}
    seed, expected = max(texts.items(), key=lambda each: len(each[1]))
    stream = host.stream(turns, Sampling(40, temperature=1.0, seed=seed))
    pieces = [next(stream)]
    first = host.log_likelihoods(QUESTION, PASSAGES)
    pieces += stream
    assert pieces == expected and len(pieces) > 3
    assert host.log_likelihoods(QUESTION, PASSAGES) == first


def test_reading_that_is_stopped_gives_nothing_and_blocks_nobody(host: EngineHost) -> None:
    assert host.log_likelihoods(QUESTION, PASSAGES * 500, is_stopped=lambda: True) is None
    assert host.log_likelihoods(QUESTION, PASSAGES[:1]) is not None


# ---------------------------------------------------------------- the command


@pytest.fixture(params=["windows", "likelihood"])
def person(request: pytest.FixtureRequest, tiny_gguf: Path, tmp_path: Path) -> Person:
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf, f'[search]\nrerank_weight = 0.5\nrerank_by = "{request.param}"\n')
    (tmp_path / "docs").mkdir()
    for number, passage in enumerate(PASSAGES * 2):
        text = f"{passage} In the year {1900 + number} it was so, too. Nobody knows why."
        (tmp_path / "docs" / f"{number}.txt").write_text(text)
    assert person.run("index", tmp_path / "docs").code == 0
    return person


def placed(found: dict[str, Any]) -> list[str]:
    return [Path(hit["path"]).name for hit in found["hits"]]


def test_search_that_looks_harder_finds_the_same_in_another_order(person: Person) -> None:
    before = person.json("search", "lamp cleaned", "-n", "9")
    found = person.json("search", "lamp cleaned", "-n", "9", "--rerank", "--budget", "60s", "--explain")
    assert sorted(placed(found)) == sorted(placed(before)) and placed(found) != placed(before)
    assert "rerank" not in before
    done = found["rerank"]
    assert done.pop("seconds") > 0
    assert done == {"read": 6, "of": 6, "budget_s": 60.0, "complete": True}
    assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
    for hit in found["hits"]:
        why = hit["explanation"]
        assert hit["score"] == pytest.approx(
            sum(why[part] for part in ("words", "meaning", "bonus", "reading")), abs=1e-5
        )
    lines = person.run("search", "lamp cleaned", "--rerank", "--budget", "60s", "--explain").output
    assert "6 of 6 read again in" in lines and " + read again " in lines


def test_commands_of_the_guide_do_what_they_say(person: Person) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "looking-harder.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", guide, flags=re.DOTALL)
    for line in block.splitlines():
        name, *arguments = shlex.split(line, comments=True)
        done = person.run(*arguments)
        assert name == "gritdesk" and (done.code, done.errors) == (0, "") and " of 6 read again in " in done.output
    (shown,) = re.findall(r"`(\{[^`]*\})`", guide)
    assert json.loads(shown).keys() == person.json(*arguments)["rerank"].keys()


def test_budget_ends_the_looking_and_the_rest_stays(person: Person) -> None:
    before = person.json("search", "lamp cleaned", "--mode", "keyword")
    found = person.json("search", "lamp cleaned", "--mode", "keyword", "--rerank", "--budget", "0s")
    assert found["hits"] == before["hits"]
    assert found["rerank"] | {"seconds": 0} == {"read": 0, "of": 2, "seconds": 0, "budget_s": 0.0, "complete": False}
    done = person.run("search", "lamp cleaned", "--mode", "keyword", "--budget", "0s")
    assert "0 of 2 read again in 0.0 s; the others stay as they were found" in done.output
    nothing = person.json("search", "lit:nowhere", "--rerank")
    assert nothing["hits"] == [] and nothing["rerank"]["complete"]
    assert "is no time" in person.run("search", "lamp", "--budget", "soon").failure(2)
