"""`python -m training.evaluate`: every kind of set, every kind of model, and what it says when something is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import DIMENSION as FAKE_DIMENSION
from fake_engine import FakeEngine, read_plain
from training_data import write_data

from gritdesk.config import IndexConfig, SearchConfig
from gritdesk.grit_format import REFUSAL
from gritdesk.indexer import Indexer
from gritdesk.retriever import Retriever
from gritdesk.store.sqlite import SqliteStore
from training.embedders import visible
from training.evaluate import main, means, table
from training.evaluation_sets import Model, Settings, evaluate_set, kind_of_set, read_qrels
from training.metrics import bits_per_byte, ndcg_at_10
from training.search import AppIndex
from training.writers import GritWriter

ANIMALS = ["otter", "heron", "badger", "lynx", "stoat", "crane"]
SCORES_OF_KIND = {
    "retrieval": {"ndcg@10", "recall@100", "rerank_ndcg@10", "queries"},
    "reranking": {"map", "mrr", "queries"},
    "sts": {"spearman", "pairs"},
    "labels": {"accuracy", "f1", "v_measure", "texts"},
    "grounded": {"em", "f1", "cited_gold", "refusal_precision", "refusal_recall", "refusal_f1", "questions"},
    "text": {"bits_per_byte", "texts", "tokens"},
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of every kind, each in a folder of its kind's name."""
    folder = tmp_path_factory.mktemp("sets")
    corpus = [{"_id": name, "title": "", "text": f"The {name} lives by the river."} for name in ANIMALS]
    write_rows(folder / "retrieval" / "corpus.jsonl", corpus)
    queries = [{"_id": f"q{name}", "text": f"Where does the {name} live?"} for name in ANIMALS]
    write_rows(folder / "retrieval" / "queries.jsonl.gz", queries)
    qrels = "".join(f"q{name}\t{name}\t1\n" for name in ANIMALS[:4])
    (folder / "retrieval" / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    write_rows(
        folder / "reranking" / "candidates.jsonl",
        [
            {"query": f"Say {name}", "positive": [name], "negative": [each for each in ANIMALS if each != name]}
            for name in ANIMALS
        ],
    )
    write_rows(
        folder / "sts" / "pairs.jsonl",
        [
            {"sentence1": f"A {name}", "sentence2": f"A {ANIMALS[at // 2]}", "score": at % 3}
            for at, name in enumerate(ANIMALS)
        ],
    )
    labelled = [
        {"text": f"{verb} the {name}", "label": name, "split": split}
        for name in ANIMALS[:3]
        for split, verbs in (("train", ("Feed", "Find")), ("test", ("See", "Hear")))
        for verb in verbs
    ]
    write_rows(folder / "labels" / "data.jsonl", labelled)
    write_rows(
        folder / "grounded" / "data.jsonl",
        [
            {
                "question": f"Where does the {name} live?",
                "documents": [f"The {name} lives by the river.", {"title": "Noon", "text": "It sleeps. " * 300}],
                "answers": ["by the river"] if at else [],
                "gold": 1 if at else None,
                "answerable": bool(at),
            }
            for at, name in enumerate(ANIMALS[:2])
        ],
    )
    write_rows(folder / "text" / "data.jsonl", [{"text": f"Once a {name} met another."} for name in ANIMALS])
    return folder


def rows_of(output: str) -> dict[str, dict[str, Any]]:
    return {row["set"]: row for row in map(json.loads, output.splitlines())}


def test_every_kind_of_set_scores_alike_for_a_checkpoint_and_its_gguf(
    sets: Path, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for model in (tiny_checkpoint, tiny_gguf):
        options = ["--rerank", "--threads", "1", "--output", str(tmp_path / "scores.json")]
        assert main([str(model), str(sets), *options]) == 0
        written = capsys.readouterr()
        found.append(rows_of(written.out))
        assert "bits_per_byte" in written.err
        report = json.loads((tmp_path / "scores.json").read_text())
        assert report["model"] == str(model) and {row["set"]: row for row in report["sets"]} == found[-1]
    checkpoint, gguf = found
    assert set(checkpoint) == set(SCORES_OF_KIND)
    for kind, scores in SCORES_OF_KIND.items():
        assert set(checkpoint[kind]) == {"set", "kind", "seconds", *scores}
        assert checkpoint[kind]["kind"] == kind
        assert {key: gguf[kind][key] for key in scores} == pytest.approx(
            {key: checkpoint[kind][key] for key in scores}, abs=2e-3
        )


class Knows:
    """Stands for a model: embeds a text as the animals in it, and answers what it was told to."""

    dimension = len(ANIMALS) + 1
    context_length = 1000

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self.answers = answers or {}
        self.inputs: list[tuple[str, str]] = []

    def embed(self, inputs: Any) -> Any:
        import numpy as np

        self.inputs += inputs
        counted = np.array([[0.1, *(text.count(name) for name in ANIMALS)] for _, text in inputs], dtype=np.float32)
        return counted / np.linalg.norm(counted, axis=1, keepdims=True)

    def writer(self) -> Knows:
        return self

    def count_tokens(self, turns: Any) -> int:
        return sum(len(turn.text) // 4 for turn in turns)

    def answer(self, turns: Any, max_tokens: int, stops: Any = ()) -> str:
        return next(answer for word, answer in self.answers.items() if f"Where does the {word}" in turns[-1].text)

    def answer_nats(self, turns: Any) -> tuple[float, bool]:
        """Yes where the question's animal is in the document."""
        document, _, question = turns[0].text.partition("Question:")
        is_there = any(name in document and name in question for name in ANIMALS)
        return float((turns[1].text == "Yes") != is_there), False

    def text_nats(self, text: str) -> tuple[float, int]:
        return float(len(text)), len(text)


def test_model_that_knows_its_animals_finds_orders_and_clusters_them(sets: Path) -> None:
    model = Model(Knows())
    settings = Settings(rerank=True)
    assert evaluate_set(model, sets / "retrieval", settings) == {
        "ndcg@10": 1.0,
        "recall@100": 1.0,
        "rerank_ndcg@10": 1.0,
        "queries": 4,
    }
    assert evaluate_set(model, sets / "reranking", settings) == {"map": 1.0, "mrr": 1.0, "queries": 6}
    labels = evaluate_set(model, sets / "labels", settings)
    assert labels == {"accuracy": 1.0, "f1": 1.0, "v_measure": pytest.approx(1.0), "texts": 6}
    assert evaluate_set(model, sets / "text", settings)["bits_per_byte"] == pytest.approx(bits_per_byte(1.0, 1))


def test_queries_and_symmetric_texts_have_their_instruction_and_passages_none(sets: Path) -> None:
    knows = Knows()
    evaluate_set(Model(knows), sets / "retrieval", Settings(max_queries=2))
    assert [each[0] for each in knows.inputs[:6]] == [""] * 6
    assert {each[0] for each in knows.inputs[6:]} == {"Given a question, retrieve passages that answer the question"}
    assert [each[1] for each in knows.inputs[6:]] == ["Where does the otter live?", "Where does the heron live?"]
    knows.inputs.clear()
    evaluate_set(Model(knows), sets / "sts", Settings())
    assert {each[0] for each in knows.inputs} == {"Retrieve text with the same meaning"}


def test_grounded_answers_are_scored_and_long_documents_lose_their_ends(sets: Path) -> None:
    model = Model(Knows({"otter": REFUSAL, "heron": "By the river [1]."}))
    scores = evaluate_set(model, sets / "grounded", Settings())
    assert scores.pop("questions") == 2 and set(scores.values()) == {1.0}


def test_documents_stand_as_the_app_asks_and_the_gold_one_is_known_by_its_new_place(tmp_path: Path) -> None:
    documents = [f"The {name} lives by the river." for name in ANIMALS[:3]]
    row = {"question": "Where does the badger live?", "documents": documents, "answers": ["by the river"], "gold": 3}
    write_rows(tmp_path / "grounded" / "data.jsonl", [row | {"answerable": True}])
    model = Model(Knows({"badger": "[1] by the river"}))
    assert evaluate_set(model, tmp_path / "grounded", Settings())["cited_gold"] == 0.0
    assert evaluate_set(model, tmp_path / "grounded", Settings(ranked=True))["cited_gold"] == 1.0


def test_reranking_asks_the_model_and_not_the_embeddings(sets: Path) -> None:
    class KnowsNoMeaning(Knows):
        def embed(self, inputs: Any) -> Any:
            import numpy as np

            return np.tile(np.float32([1.0, 0.0]), (len(inputs), 1))

    scores = evaluate_set(Model(KnowsNoMeaning()), sets / "retrieval", Settings(rerank=True))
    assert scores["ndcg@10"] < scores["rerank_ndcg@10"] == 1.0


class Meadow:
    """A small corpus in which words and meaning disagree, with ids that are no names of files."""

    texts = {
        "a/1": "otter otter heron",
        "a/2": "The otter sleeps while the heron fishes by the river.",
        "": "Nobody lives here but a heron.",
        "q.4": "badger badger lynx",
        "q.5": "otter otter heron",
        "q.6": "",
    }
    queries = {"one": "otter herons", "two": "Where do badgers and a lynx live?", "three": "a stoat by the river"}
    relevant = {"one": {"a/2": 2, "q.5": 1}, "two": {"q.4": 1, "": 1}, "three": {"q.6": 1, "a/2": 1}}

    @classmethod
    def write(cls, folder: Path) -> Path:
        write_rows(folder / "corpus.jsonl", [{"_id": each, "text": text} for each, text in cls.texts.items()])
        write_rows(folder / "queries.jsonl", [{"_id": each, "text": text} for each, text in cls.queries.items()])
        lines = [f"{query}\t{each}\t{value}" for query, some in cls.relevant.items() for each, value in some.items()]
        (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")
        return folder


def test_hybrid_score_is_that_of_the_apps_own_index_and_search(tmp_path: Path) -> None:
    class Embeds(FakeEngine):
        dimension = FAKE_DIMENSION
        num_calls = 0

        def embed(self, inputs: Any) -> Any:
            self.num_calls += 1
            return super().embed([(instruction, visible(text)) for instruction, text in inputs])

    engine = Embeds()
    scores = evaluate_set(Model(engine), Meadow.write(tmp_path / "meadow"), Settings(hybrid=True, storage=True))
    assert engine.num_calls == 2  # the corpus once, the queries once
    # the same texts as files, through the app's own indexer
    names = {}
    for number, (passage_id, text) in enumerate(Meadow.texts.items()):
        path = tmp_path / "files" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text or "-")
        names[path.name] = passage_id
    embeddings = {text or "-": engine.embed([("", text or "-")])[0] for text in Meadow.texts.values()}
    with SqliteStore(":memory:") as store:
        # titles are the app's affair and no part of a set
        indexer = Indexer(
            store,
            lambda inputs: np.stack([embeddings[text.split("\n")[-1]] for _, text in inputs]),
            engine.count_tokens,
            read_plain,
            "fake",
            IndexConfig(),
        )
        for name in names:  # in their order: of equal scores the first that was written comes first
            indexer.update([tmp_path / "files" / name])
        assert store.counts()[1] == len(Meadow.texts)
        retriever = Retriever(store, engine.embed_query, SearchConfig())
        gains = [
            ndcg_at_10([names[hit.path.name] for hit in retriever.search(query, 10)], Meadow.relevant[query_id])
            for query_id, query in Meadow.queries.items()
        ]
    assert scores["hybrid_ndcg@10"] == pytest.approx(np.mean(gains))
    assert scores["hybrid_ndcg@10"] != pytest.approx(scores["ndcg@10"])
    assert {"int8_ndcg@10", "binary_ndcg@10"} < set(scores) and "dim64_ndcg@10" not in scores


def test_index_of_a_set_is_searched_by_words_by_meaning_and_by_both() -> None:
    ids, texts = list(Meadow.texts), Meadow.texts
    passages_ND = np.eye(len(ids), dtype=np.float32)
    query_D = passages_ND[3]
    with AppIndex(texts, passages_ND) as index:
        assert sorted(index.any_word("herons otters", 9)) == ["", "a/1", "a/2", "q.5"]
        assert sorted(index.search("herons otters", 9, "keyword")) == ["", "a/1", "a/2"]  # copies are one hit
        assert index.search("herons otters", 1, "semantic", query_D) == ["q.4"]
        first = {
            weight: index.search("herons otters", 1, "hybrid", query_D, SearchConfig(semantic_weight=weight))
            for weight in (0.1, 500.0)
        }
        assert first == {0.1: ["a/1"], 500.0: ["q.4"]}
        by_default = index.search("herons otters", 9, "hybrid", query_D)
        assert by_default == index.search("herons otters", 9, "hybrid", query_D, SearchConfig())


def test_bm25_is_the_search_by_words_and_passes_over_the_rest(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Meadow.write(tmp_path / "all" / "meadow")
    assert main(["bm25", str(tmp_path / "all"), str(sets), "--hybrid", "--storage", "--rerank"]) == 0
    written = capsys.readouterr()
    rows = rows_of(written.out)
    assert set(rows) == {"meadow", "retrieval"}
    assert set(rows["meadow"]) == {*("set", "kind", "seconds", "queries", "ndcg@10", "recall@100", "any_word_ndcg@10")}
    for name in ("reranking", "sts", "labels", "grounded", "text"):
        line = f"evaluate: {name}: passed over: a search by words has no embeddings and writes nothing"
        assert line in written.err.splitlines()
    with AppIndex(Meadow.texts) as index:
        for key, ranked in (
            ("ndcg@10", [index.search(query, 100, "keyword") for query in Meadow.queries.values()]),
            ("any_word_ndcg@10", [index.any_word(query, 100) for query in Meadow.queries.values()]),
        ):
            gains = [ndcg_at_10(each, wanted) for each, wanted in zip(ranked, Meadow.relevant.values(), strict=True)]
            assert rows["meadow"][key] == round(float(np.mean(gains)), 4)
    assert rows["meadow"]["ndcg@10"] != rows["meadow"]["any_word_ndcg@10"]


def test_same_seed_scores_the_same_and_fewer_queries_are_fewer(sets: Path) -> None:
    model = Model(Knows())
    few = Settings(max_queries=3, seed=2)
    assert evaluate_set(model, sets / "labels", few) == evaluate_set(model, sets / "labels", few)
    assert evaluate_set(model, sets / "labels", few)["texts"] == 3
    assert evaluate_set(model, sets / "retrieval", few)["queries"] == 3


def test_file_of_texts_is_a_set(tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_data(tmp_path / "data") / "text"
    assert kind_of_set(folder / "animals.jsonl") == "text"
    assert main([str(tiny_checkpoint), str(folder / "animals.jsonl"), "--max-queries", "5"]) == 0
    row = rows_of(capsys.readouterr().out)["animals"]
    # a random model of 600 tokens: about log2(600) bits a token, some bytes a token
    assert row["texts"] == 5 and 1 < row["bits_per_byte"] < 20


def test_broken_set_is_one_line_and_the_others_run(
    sets: Path, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    write_rows(folder / "no_score" / "pairs.jsonl", [{"sentence1": "a", "sentence2": "b"}])
    write_rows(
        folder / "good" / "pairs.jsonl",
        [{"sentence1": each, "sentence2": "noon", "score": len(each)} for each in ANIMALS],
    )
    (folder / "foreign").mkdir()
    (folder / "foreign" / "notes.md").write_text("notes")
    write_rows(folder / "no_text" / "data.jsonl", [{"text": "a"}, {"text": 5}])
    (folder / "packed.jsonl.zst").write_bytes(b"not packed")
    write_rows(folder / "no_corpus" / "queries.jsonl", [{"_id": "q", "text": "a"}])
    (folder / "no_corpus" / "qrels.tsv").write_text("q\ta\t1\n")
    assert main([str(tiny_checkpoint), str(folder)]) == 1
    written = capsys.readouterr()
    assert set(rows_of(written.out)) == {"good"}
    for line in (
        f"evaluate: no_score: {folder}/no_score/pairs.jsonl, line 1: expected score, found sentence1, sentence2",
        f"evaluate: foreign: {folder}/foreign: expected qrels.tsv, candidates.jsonl, pairs.jsonl or data.jsonl",
        f"evaluate: no_text: {folder}/no_text/data.jsonl, line 2: text is 5, of the wrong type",
        f"evaluate: packed: {folder}/packed.jsonl.zst: cannot be read",
        f"evaluate: no_corpus: {folder}/no_corpus: expected corpus.jsonl",
    ):
        assert sum(each.startswith(line) for each in written.err.splitlines()) == 1, line


def test_qrels_are_read_in_both_forms_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\tb\t0\n")
    assert read_qrels(path) == {"q1": {"a": 2}}
    path.write_text("q1\t0\ta\t1\nq1\t0\tb\t-1\n")
    assert read_qrels(path) == {"q1": {"a": 1}}
    path.write_text("q1\ta\t1\nq1 a 1\n")
    with pytest.raises(ValueError, match=r"qrels\.tsv, line 2: expected query, passage and a number"):
        read_qrels(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{sets}/absent.gguf", "{sets}"], "evaluate: no model at {sets}/absent.gguf: expected a .gguf file"),
        (["{model}", "{sets}/absent"], "evaluate: no evaluation set at {sets}/absent: expected a set's folder"),
        (["{model}", "{sets}", "--sets", "nq"], "evaluate: no set named nq; there are grounded, labels"),
        (["{model}"], "evaluate: nothing to evaluate on: give DATA, --mteb or --lm-eval"),
        (["{model}", "{sets}", "--output", "{sets}/none/a.json"], "evaluate: cannot write {sets}/none/a.json"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, sets: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"sets": sets, "model": tiny_checkpoint}
    assert main([each.format(**names) for each in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message.format(**names))


def test_model_that_only_embeds_passes_over_sets_that_ask_for_writing(
    sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Embeds:
        dimension = Knows.dimension
        embed = staticmethod(Knows().embed)

    monkeypatch.setattr("training.evaluate.load_embedder", lambda *_, **__: Embeds())
    assert main(["model", str(sets), "--rerank", "--sets", "sts", "grounded", "retrieval"]) == 0
    written = capsys.readouterr()
    rows = rows_of(written.out)
    assert set(rows) == {"sts", "retrieval"} and "rerank_ndcg@10" not in rows["retrieval"]
    assert "evaluate: grounded: passed over: this model embeds and does not write" in written.err


def test_bits_per_byte_are_those_of_the_models_own_loss(tiny_checkpoint: Path, sets: Path) -> None:
    import torch

    from training.embedders import load_embedder

    model = Model(load_embedder(str(tiny_checkpoint)))
    assert isinstance(model.writer, GritWriter)
    text = "Once a otter met another."
    ids = torch.tensor([[model.writer.encode_text(text)[0], *model.writer.encode_text(text)[1]]])
    with torch.no_grad():
        loss = float(model.writer.decoder(ids, labels=ids).loss) * (ids.shape[1] - 1)
    found = evaluate_set(model, sets / "text", Settings(max_queries=1))
    assert found["bits_per_byte"] == pytest.approx(bits_per_byte(loss, len(text)), rel=1e-4)


def test_sets_of_a_kind_have_their_mean_beneath_the_table() -> None:
    rows = [
        {"set": "a", "kind": "retrieval", "ndcg@10": 0.5, "rerank_ndcg@10": 0.5, "queries": 9, "seconds": 1.0},
        {"set": "b", "kind": "retrieval", "ndcg@10": 0.75, "queries": 1, "seconds": 2.0},
        {"set": "c", "kind": "sts", "spearman": 0.6, "pairs": 5, "seconds": 1.0},
    ]
    assert means(rows) == [{"set": "mean of 2", "kind": "retrieval", "ndcg@10": 0.625}]
    lines = table([*rows, *means(rows)]).splitlines()
    assert lines[-1] == "mean of 2  retrieval  ndcg@10 0.625"
    assert len({line.index("  ", 10) for line in lines[:2]}) == 1
