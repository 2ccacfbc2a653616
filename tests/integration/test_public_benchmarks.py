"""MTEB and lm-eval run on our models, on tasks small enough to hold in a test and without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gritdesk.records import Turn
from training.embedders import load_embedder
from training.evaluate import main
from training.public_benchmarks import instruction_of, lm_eval_model, lm_eval_scores, mteb_scores, mteb_tasks
from training.writers import AnswerWriter, writer_of

ANIMALS = ["otter", "heron", "badger", "lynx"]


@pytest.fixture(scope="module")
def writer(tiny_checkpoint: Path) -> AnswerWriter:
    return writer_of(load_embedder(str(tiny_checkpoint)))


class KnowsAnimals:
    """Embeds a text as the animals in it; keeps the instructions it was given."""

    dimension = len(ANIMALS) + 1

    def __init__(self) -> None:
        self.inputs: list[tuple[str, str]] = []

    def embed(self, inputs: Any) -> Any:
        self.inputs += inputs
        counted = np.array([[0.1, *(text.count(name) for name in ANIMALS)] for _, text in inputs], dtype=np.float32)
        return counted / np.linalg.norm(counted, axis=1, keepdims=True)


# ---------------------------------------------------------------- MTEB


def small_task(kind: str) -> Any:
    """An MTEB task with its data in memory."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    def metadata(**values: Any) -> Any:
        empty: dict[str, Any] = dict.fromkeys(
            ["date", "domains", "task_subtypes", "license", "annotations_creators", "dialect", "sample_creation"]
        )
        common = {"description": "Animals", "dataset": {"path": "none", "revision": "1"}, "modalities": ["text"]}
        common |= {"category": "t2t", "eval_splits": ["test"], "eval_langs": ["eng-Latn"], "reference": None}
        return TaskMetadata(**empty | common | {"bibtex_citation": ""} | values)

    class Retrieval(AbsTaskRetrieval):
        def load_data(self, **_: Any) -> None:
            corpus = [{"id": name, "title": "", "text": f"The {name} lives by the river."} for name in ANIMALS]
            queries = [{"id": f"q{name}", "text": f"Where is the {name}?"} for name in ANIMALS]
            split = {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list(queries),
                "relevant_docs": {f"q{name}": {name: 1} for name in ANIMALS},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    class Pairs(AbsTaskSTS):
        min_score, max_score = 0, 1

        def load_data(self, **_: Any) -> None:
            rows = [
                {"sentence1": first, "sentence2": second, "score": float(first == second)}
                for first in ANIMALS
                for second in ANIMALS
            ]
            self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
            self.data_loaded = True

    if kind == "sts":
        Pairs.metadata = metadata(type="STS", name="AnimalPairs", main_score="cosine_spearman", prompt=None)
        return Pairs()
    prompt = {"query": "Given an animal, find its home"}
    Retrieval.metadata = metadata(type="Retrieval", name="AnimalHomes", main_score="ndcg_at_10", prompt=prompt)
    return Retrieval()


def test_mteb_scores_retrieval_with_an_instruction_before_queries_alone() -> None:
    knows = KnowsAnimals()
    row = mteb_scores(knows, "/a folder/knows animals", small_task("retrieval"))
    assert row == {"set": "AnimalHomes", "kind": "mteb Retrieval", "ndcg_at_10": 1.0}
    given = {text.split()[0]: instruction for instruction, text in knows.inputs}
    assert given == {"The": "", "Where": "Given an animal, find its home"}


def test_mteb_scores_pairs_with_the_papers_instruction_on_both_sides() -> None:
    knows = KnowsAnimals()
    row = mteb_scores(knows, "knows", small_task("sts"))
    assert row == {"set": "AnimalPairs", "kind": "mteb STS", "cosine_spearman": pytest.approx(1.0)}
    assert {instruction for instruction, _ in knows.inputs} == {"Retrieve semantically similar text."}


def test_mteb_takes_a_real_checkpoint(tiny_checkpoint: Path) -> None:
    row = mteb_scores(load_embedder(str(tiny_checkpoint)), str(tiny_checkpoint), small_task("retrieval"))
    assert 0 <= row["ndcg_at_10"] <= 1


def test_every_task_of_the_papers_benchmark_has_its_instruction() -> None:
    import mteb

    names = mteb_tasks(["MTEB(eng, classic)"])
    assert len(names) == 56
    found = {name: instruction_of(mteb.get_task(name).metadata, None) for name in names}
    assert [name for name, instruction in found.items() if not instruction] == []
    assert found["Banking77Classification"] == "Given a online banking query, find the corresponding intents"
    assert found["SummEval"] == "Given a news summary, retrieve other semantically similar summaries"
    assert found["CQADupstackRetrieval"].startswith("Given a question, retrieve detailed question descriptions")
    assert found["NQ"] == "Given a question, retrieve Wikipedia passages that answer the question"
    assert instruction_of(mteb.get_task("NQ").metadata, mteb.types.PromptType.document) == ""


def test_task_that_mteb_does_not_know_or_cannot_fetch_is_one_line() -> None:
    with pytest.raises(ValueError, match="^mteb knows no Nowhere$"):
        mteb_scores(KnowsAnimals(), "knows", "Nowhere")
    task = small_task("sts")

    def without_network(**_: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nafter five tries")

    task.load_data = without_network
    with pytest.raises(ValueError, match="^the data of AnimalPairs could not be fetched; is there a network") as raised:
        mteb_scores(KnowsAnimals(), "knows", task)
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------- lm-eval


@pytest.fixture(scope="module")
def local_tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task with choices and one with written answers, from files of this test."""
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": f"Where is the {name}?", "answer": at % 2, "said": "by the river"}
        for at, name in enumerate(ANIMALS)
    ]
    (folder / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: '{folder / 'animals.jsonl'}'}}}}",
        "test_split: test",
        "tag: animals",
    ]
    choices = [
        "task: animals_choice",
        "output_type: multiple_choice",
        'doc_to_text: "{{question}} Answer:"',
        "doc_to_choice: [river, forest]",
        "doc_to_target: answer",
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]",
    ]
    written = [
        "task: animals_written",
        "output_type: generate_until",
        'doc_to_text: "{{question}}"',
        "doc_to_target: said",
        'generation_kwargs: {until: ["."], max_gen_toks: 4}',
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
    ]
    for lines in (choices, written):
        (folder / f"{lines[0].split()[1]}.yaml").write_text("\n".join([*common, *lines]) + "\n")
    return TaskManager(include_path=str(folder), include_defaults=False)


class Tells:
    """Writes "by the river", and finds a river likelier than a forest."""

    context_length = 100

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count_tokens(self, turns: Any) -> int:
        return 1

    def answer(self, turns: Any, max_tokens: int, stops: Any = ()) -> str:
        self.asked.append(turns[-1].text)
        assert (max_tokens, list(stops)) == (4, ["."])
        return "by the river"

    def answer_nats(self, turns: Any) -> tuple[float, bool]:
        self.asked.append(turns[0].text)
        return (1.0, True) if turns[1].text.strip() == "river" else (2.0, False)

    def text_nats(self, text: str) -> tuple[float, int]:
        return 3.0, 1


def test_lm_eval_scores_choices_and_written_answers(local_tasks: Any) -> None:
    tells = Tells()
    (row,) = lm_eval_scores(tells, "animals_choice", task_manager=local_tasks)
    assert row == {"set": "animals_choice", "kind": "lm-eval", "acc": 0.5}
    assert tells.asked[0] == "Where is the otter? Answer:"
    (row,) = lm_eval_scores(tells, "animals_written", limit=2, task_manager=local_tasks)
    assert row == {"set": "animals_written", "kind": "lm-eval", "exact_match": 1.0}


def test_lm_eval_tag_is_a_row_of_each_task_and_their_mean(local_tasks: Any) -> None:
    rows = lm_eval_scores(Tells(), "animals", task_manager=local_tasks)
    assert [row["set"] for row in rows] == ["animals_choice", "animals_written", "animals"]


def test_lm_eval_takes_a_real_checkpoint(writer: AnswerWriter, local_tasks: Any) -> None:
    (row,) = lm_eval_scores(writer, "animals_choice", task_manager=local_tasks)
    assert 0 <= row["acc"] <= 1
    (row,) = lm_eval_scores(writer, "animals_written", limit=1, task_manager=local_tasks)
    assert row["exact_match"] == 0.0


def test_lm_eval_reads_likelihoods_from_the_frame(writer: AnswerWriter) -> None:
    from lm_eval.api.instance import Instance

    model = lm_eval_model(writer)
    asked = Instance("loglikelihood", {}, ("Where is the otter?", " by the river"), 0)
    nats, is_greedy = writer.answer_nats([Turn("user", "Where is the otter?"), Turn("assistant", "by the river")])
    assert model.loglikelihood([asked]) == [(-nats, is_greedy)]
    whole = Instance("loglikelihood_rolling", {}, ("by the river",), 0)
    assert model.loglikelihood_rolling([whole]) == [-writer.text_nats("by the river")[0]]


def test_programs_of_the_model_run_only_where_they_may() -> None:
    with pytest.raises(ValueError, match="add --allow-code"):
        lm_eval_scores(Tells(), "humaneval")


def test_task_that_lm_eval_does_not_know_is_one_line(local_tasks: Any) -> None:
    with pytest.raises(ValueError, match="^lm-eval knows no mmlu$"):
        lm_eval_scores(Tells(), "mmlu", task_manager=local_tasks)


def test_missing_package_is_named_with_its_extra(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("mteb", "lm_eval"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main([str(tiny_checkpoint), "--mteb", "STS12", "--lm-eval", "gsm8k"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evaluate: ")]
    assert [line.split(": ")[1] for line in lines] == ["STS12", "gsm8k"]
    assert all("pip install gritdesk[evaluate]" in line for line in lines)
