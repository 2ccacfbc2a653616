"""A folder of test data and a model -> its scores. What a folder holds tells what is asked of the model:

    files in the folder (.jsonl, also .zst or .gz)          kind        scores
    corpus {_id, title?, text}, queries {_id, text},
        qrels.tsv (query, passage, relevance): BEIR's form  retrieval   nDCG@10, recall@100; reranking by generation,
                                                                        the app's search, smaller embeddings
    candidates {query, positive: [], negative: []}          reranking   MAP, MRR, as MTEB
    pairs {sentence1, sentence2, score}                     sts         Spearman
    data {text, label, split: train | test}                 labels      classification and clustering, as MTEB
    data {question, documents, answers, gold, answerable}   grounded    EM, F1, cited gold, refusing
    data {text}, or a file that is no folder's              text        bits per byte

Every score is the same for the same seed. A set that cannot be read is a ValueError naming the file and the reason.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zstandard
from numpy.typing import NDArray

from gritdesk.config import SearchConfig
from gritdesk.grit_format import QUERY_INSTRUCTION, documents_turn, query_input
from gritdesk.records import SearchMode, Turn
from training.embedders import TextEmbedder
from training.examples import read_rows
from training.metrics import (
    bits_per_byte,
    classification_metrics,
    draws_per_label,
    grounded_metrics,
    ndcg_at_10,
    ranked_run,
    reranking_metrics,
    retrieval_metrics,
    spearman,
    v_measure,
)
from training.search import AppIndex
from training.storage import Ranker, Ranking, by_bits, by_cosine, by_int8, by_leading
from training.writers import AnswerWriter, writer_of

SetKind = Literal["retrieval", "reranking", "sts", "labels", "grounded", "text"]
Scores = dict[str, float]

STS_INSTRUCTION = "Retrieve text with the same meaning"

INSTRUCTIONS: dict[SetKind, str] = {
    "retrieval": QUERY_INSTRUCTION,
    "reranking": QUERY_INSTRUCTION,
    "sts": STS_INSTRUCTION,
    "labels": STS_INSTRUCTION,
}
"""What stands before a query, and before both texts of a pair and every text with a label; the trainer's data has
these. Passages have none."""

DEFAULT_QUERIES = 500
SAMPLES_PER_LABEL = 8
NUM_EXPERIMENTS = 10
"""Both as in MTEB."""
MAX_ANSWER_TOKENS = 64
_NUM_RETRIEVED = 100
_LEADING = (64, 128)
"""Dimensions an embedding is cut to."""
_SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz")


@dataclass(frozen=True)
class Settings:
    max_queries: int = DEFAULT_QUERIES
    """Queries, questions, test texts or plain texts of a set that are used: the first ones, or, where texts have
    labels and may stand in their order, drawn ones."""
    seed: int = 1
    rerank: bool = False
    """Order each query's ten nearest passages anew by asking the model whether they answer it, if it writes."""
    hybrid: bool = False
    """Also rank by words and meaning together, as the app's search does by default."""
    storage: bool = False
    """Also rank by what smaller indexes would keep of the embeddings."""
    ranked: bool = False
    """Put the documents of a question in the order in which the app's search, by words and meaning, finds them."""


@dataclass
class Model:
    """A loaded model as the sets see it; it writes with the weights it embeds with."""

    loaded: TextEmbedder | None
    """None: no model, but a search by words alone, to compare with."""

    @property
    def embedder(self) -> TextEmbedder:
        """Raises: CannotEmbed if it searches by words alone."""
        if self.loaded is None:
            raise CannotEmbed("a search by words has no embeddings and writes nothing")
        return self.loaded

    @cached_property
    def writer(self) -> AnswerWriter:
        """Raises: CannotWrite if it embeds only."""
        try:
            return writer_of(self.embedder)
        except ValueError as error:
            raise CannotWrite(str(error)) from error

    @property
    def writes(self) -> bool:
        """Whether it has a writer."""
        try:
            return bool(self.writer)
        except CannotWrite:
            return False


class NotForThisModel(ValueError):
    """A set asks for what the model does not do; no fault of either."""


class CannotEmbed(NotForThisModel):
    """A set asks for embeddings, and there is only a search by words."""


class CannotWrite(NotForThisModel):
    """A set asks for writing, and the model embeds only."""


# ---------------------------------------------------------------- which sets there are


def find_sets(data: Path) -> list[Path]:
    """The set that a path names, or all that lie in a folder. Raises: ValueError if there is none."""
    if data.is_file() or (data.is_dir() and _set_files(data)):
        return [data]
    if not data.is_dir():
        raise ValueError(f"no evaluation set at {data}: expected a set's folder, a folder of sets or a .jsonl file")
    found = sorted(each for each in data.iterdir() if each.is_dir() or each.name.endswith(_SUFFIXES))
    if not found:
        raise ValueError(f"{data} holds no evaluation set: expected folders with {_EXPECTED}")
    return found


def set_name(path: Path) -> str:
    """The folder's name, or the file's without its endings."""
    return path.name.split(".jsonl")[0] if path.is_file() else path.name


_EXPECTED = "qrels.tsv, candidates.jsonl, pairs.jsonl or data.jsonl (also .zst or .gz)"


def kind_of_set(path: Path) -> SetKind:
    """Raises: ValueError if it holds none of the known files, or rows of none of the known forms."""
    if path.is_file():
        return _kind_of_rows(path)
    found = _set_files(path)
    if not found:
        names = ", ".join(sorted(each.name for each in path.iterdir())[:5]) or "nothing"
        raise ValueError(f"{path}: expected {_EXPECTED}, found {names}")
    if found[0].name == "qrels.tsv":
        return "retrieval"
    kinds: dict[str, SetKind] = {"candidates": "reranking", "pairs": "sts"}
    return kinds.get(found[0].name.split(".")[0]) or _kind_of_rows(found[0])


def _kind_of_rows(path: Path) -> SetKind:
    row = next(iter(_rows(path, (), 1)))
    fields: dict[SetKind, tuple[str, ...]] = {
        "grounded": ("question", "documents"),
        "labels": ("text", "label"),
        "text": ("text",),
    }
    for kind, names in fields.items():
        if all(name in row for name in names):
            return kind
    raise ValueError(f"{path}: expected rows with question, label or text, found {', '.join(row) or 'nothing'}")


def _set_files(folder: Path) -> list[Path]:
    """Files that tell a set's kind, the telling one first."""
    stems = ("candidates", "pairs", "data")
    named = [folder / "qrels.tsv", *(folder / f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES)]
    return [path for path in named if path.is_file()]


# ---------------------------------------------------------------- reading


def _file(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise ValueError(f"{folder}: expected {stem}.jsonl, {stem}.jsonl.zst or {stem}.jsonl.gz, found none")


def _data_file(path: Path) -> Path:
    return path if path.is_file() else _file(path, "data")


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("text", "query", "question", "sentence1", "sentence2"), str),
    **dict.fromkeys(("positive", "negative", "documents", "answers"), list),
    "score": (int, float),
    "answerable": bool,
}


def _rows(path: Path, fields: Sequence[str], limit: int | None = None) -> list[dict[str, Any]]:
    """Rows that have these fields. Raises: ValueError naming the file and the line, or that there is none."""
    found: list[dict[str, Any]] = []
    try:
        for number, row in enumerate(read_rows(path, 10**9 if limit is None else limit), start=1):
            missing = [name for name in fields if row.get(name) is None]
            if missing:
                present = ", ".join(row) or "nothing"
                raise ValueError(f"{path}, line {number}: expected {', '.join(missing)}, found {present}")
            for name in fields:
                if not isinstance(row[name], _TYPES.get(name, object)):
                    raise ValueError(f"{path}, line {number}: {name} is {row[name]!r:.60}, of the wrong type")
            found.append(row)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise ValueError(f"{path}: expected rows, found none")
    return found


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """query id -> passage id -> relevance, positive ones only; a header line is passed over.

    Raises: ValueError naming the line that is not query, passage and number (TREC's four columns are read as well).
    """
    relevant: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), start=1):
            if len(row) < 3 or not re.fullmatch(r"-?\d+", row[-1]):
                if number == 1 or not row:
                    continue
                raise ValueError(f"{path}, line {number}: expected query, passage and a number, found {row}")
            if int(row[-1]) > 0:
                relevant.setdefault(row[0], {})[row[-2]] = int(row[-1])
    return relevant


# ---------------------------------------------------------------- one set -> its scores


def evaluate_set(model: Model, path: Path, settings: Settings) -> Scores:
    """Scores of one set. Raises: ValueError naming file and reason; NotForThisModel."""
    measure: dict[SetKind, Callable[[Model, Path, Settings], Scores]] = {
        "retrieval": _retrieval,
        "reranking": _reranking,
        "sts": _sts,
        "labels": _labels,
        "grounded": _grounded,
        "text": _text,
    }
    return measure[kind_of_set(path)](model, path, settings)


@dataclass(frozen=True)
class RetrievalSet:
    """A corpus, and the queries that are asked of it."""

    texts: dict[str, str]
    """By passage id: title and text."""
    queries: dict[str, str]
    """By query id, those that have a relevant passage."""
    relevant: dict[str, dict[str, int]]
    """query id -> passage id -> relevance, of these queries."""


def read_retrieval_set(folder: Path, max_queries: int = DEFAULT_QUERIES) -> RetrievalSet:
    """A folder in BEIR's form, the first queries of it. Raises: ValueError naming file and reason."""
    corpus = {str(row["_id"]): row for row in _rows(_file(folder, "corpus"), ("_id", "text"))}
    relevant = read_qrels(folder / "qrels.tsv")
    queries = {str(row["_id"]): str(row["text"]) for row in _rows(_file(folder, "queries"), ("_id", "text"))}
    chosen = list(itertools.islice((each for each in queries if each in relevant), max_queries))
    if not chosen:
        raise ValueError(f"{folder / 'qrels.tsv'}: expected passages for the ids in queries, found none")
    return RetrievalSet(
        {passage_id: f"{row.get('title') or ''} {row['text']}".strip() for passage_id, row in corpus.items()},
        {query_id: queries[query_id] for query_id in chosen},
        {query_id: relevant[query_id] for query_id in chosen},
    )


def _retrieval(model: Model, folder: Path, settings: Settings) -> Scores:
    """By cosine over the whole corpus, which is embedded once whatever is asked of it."""
    found = read_retrieval_set(folder, settings.max_queries)
    if model.loaded is None:
        return _by_words(found) | {"queries": len(found.queries)}
    passages_ND, queries_QD = embed_retrieval_set(model.embedder, found)
    run = _run(found, by_cosine(passages_ND, queries_QD, _NUM_RETRIEVED))
    scores = retrieval_metrics(found.relevant, run)
    if settings.rerank and model.writes:
        orders = {
            query_id: _reranked(model.writer, query, run[query_id], found.texts)
            for query_id, query in found.queries.items()
        }
        scores["rerank_ndcg@10"] = float(np.mean([ndcg_at_10(orders[each], found.relevant[each]) for each in orders]))
    if settings.hybrid:
        with AppIndex(found.texts, passages_ND) as index:
            scores["hybrid_ndcg@10"] = app_ndcg_at_10(index, found, "hybrid", queries_QD)
    if settings.storage:
        scores |= _storage(found, passages_ND, queries_QD)
    return scores | {"queries": len(found.queries)}


def embed_retrieval_set(embedder: TextEmbedder, found: RetrievalSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of all passages and of all queries, in their order."""
    passages_ND = embedder.embed([("", text) for text in found.texts.values()])
    return passages_ND, embedder.embed([(INSTRUCTIONS["retrieval"], query) for query in found.queries.values()])


def _run(found: RetrievalSet, ranking: Ranking) -> dict[str, dict[str, float]]:
    """Of each query the nearest passages' ids and cosines, best first."""
    ids = list(found.texts)
    return {
        query_id: {ids[number]: float(cosine) for number, cosine in zip(numbers, cosines, strict=True)}
        for query_id, (numbers, cosines) in zip(found.queries, ranking, strict=True)
    }


def app_ndcg_at_10(
    index: AppIndex,
    found: RetrievalSet,
    mode: SearchMode,
    queries_QD: NDArray[np.float32] | None = None,
    config: SearchConfig | None = None,
) -> float:
    """nDCG@10 of the ten hits the app shows, the mean over the queries.

    Args:
        queries_QD: the queries' embeddings; None where mode is keyword.
        config: how words and meaning are weighed; None: as the app does by default.
    """
    gains = []
    for number, (query_id, query) in enumerate(found.queries.items()):
        query_D = None if queries_QD is None else queries_QD[number]
        gains.append(ndcg_at_10(index.search(query, 10, mode, query_D, config), found.relevant[query_id]))
    return float(np.mean(gains))


def _by_words(found: RetrievalSet) -> Scores:
    """As the app searches by words, which is fusion with nothing to fuse; beside it plain BM25 over any word."""
    with AppIndex(found.texts) as index:
        by_app = {each: index.search(query, _NUM_RETRIEVED, "keyword") for each, query in found.queries.items()}
        plain = {each: index.any_word(query, _NUM_RETRIEVED) for each, query in found.queries.items()}
    scores, plain_scores = (
        retrieval_metrics(found.relevant, {each: ranked_run(ranked) for each, ranked in run.items()})
        for run in (by_app, plain)
    )
    return scores | {"any_word_ndcg@10": plain_scores["ndcg@10"]}


def _storage(found: RetrievalSet, passages_ND: NDArray[np.float32], queries_QD: NDArray[np.float32]) -> Scores:
    """nDCG@10 by bytes, by bits and by leading dimensions, as far as the model has so many."""
    ways: dict[str, Ranker] = {"int8": by_int8, "binary": by_bits}
    ways |= {f"dim{each}": by_leading(each) for each in _LEADING if each <= passages_ND.shape[1]}
    scores = {}
    for name, rank in ways.items():
        run = _run(found, rank(passages_ND, queries_QD, 10))
        scores[f"{name}_ndcg@10"] = retrieval_metrics(found.relevant, run)["ndcg@10"]
    return scores


def _reranked(writer: AnswerWriter, query: str, found: Mapping[str, float], texts: Mapping[str, str]) -> list[str]:
    """The ten nearest passages, those first that the model says yes to most surely; then the others."""
    nearest = list(found)
    doubts = {each: _doubt(writer, query, texts[each]) for each in nearest[:10]}
    return [*sorted(doubts, key=doubts.__getitem__), *nearest[10:]]


def _doubt(writer: AnswerWriter, query: str, text: str) -> float:
    """How much dearer Yes is than No, in nats."""
    words = " ".join(text.split()[:300])
    asked = Turn("user", f"Document: {words}\n\nQuestion: {query}\nDoes the document answer the question? Yes or No?")
    yes, no = (writer.answer_nats([asked, Turn("assistant", word)])[0] for word in ("Yes", "No"))
    return yes - no


def _reranking(model: Model, folder: Path, settings: Settings) -> Scores:
    """By cosine among each query's candidates; a query without both kinds tells nothing and is passed over."""
    rows = _rows(_file(folder, "candidates"), ("query", "positive", "negative"))
    rows = [row for row in rows if row["positive"] and row["negative"]][: settings.max_queries]
    if not rows:
        raise ValueError(f"{_file(folder, 'candidates')}: expected a query with positive and negative, found none")
    candidates = sorted({text for row in rows for text in (*row["positive"], *row["negative"])})
    embedded = dict(zip(candidates, model.embedder.embed([("", text) for text in candidates]), strict=True))
    queries_QD = model.embedder.embed([(INSTRUCTIONS["reranking"], row["query"]) for row in rows])
    relevant: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number, (row, query_D) in enumerate(zip(rows, queries_QD, strict=True)):
        named = {f"p{at}": text for at, text in enumerate(row["positive"])}
        relevant[str(number)] = dict.fromkeys(named, 1)
        named |= {f"n{at}": text for at, text in enumerate(row["negative"])}
        run[str(number)] = {name: float(embedded[text] @ query_D) for name, text in named.items()}
    return reranking_metrics(relevant, run) | {"queries": len(rows)}


def _sts(model: Model, folder: Path, settings: Settings) -> Scores:
    """All pairs: rank correlation of cosine and human scores."""
    rows = _rows(_file(folder, "pairs"), ("sentence1", "sentence2", "score"))
    first_ND, second_ND = (
        model.embedder.embed([(INSTRUCTIONS["sts"], row[name]) for row in rows]) for name in ("sentence1", "sentence2")
    )
    human_N = np.array([float(row["score"]) for row in rows])
    return {"spearman": spearman((first_ND * second_ND).sum(axis=1), human_N), "pairs": len(rows)}


def _labels(model: Model, path: Path, settings: Settings) -> Scores:
    """Classification learned from a few training texts of each label, and clustering, both of the same test texts."""
    rows = _rows(_data_file(path), ("text", "label", "split"))
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    if len({row["label"] for row in train}) < 2 or len({row["label"] for row in test}) < 2:
        raise ValueError(f"{_data_file(path)}: expected two labels or more in split train and in split test")
    test = _drawn(test, settings)
    draws = draws_per_label([row["label"] for row in train], SAMPLES_PER_LABEL, NUM_EXPERIMENTS, settings.seed)
    train, draws = _used(train, draws)

    def embed(some: Iterable[Mapping[str, Any]]) -> NDArray[np.float32]:
        return model.embedder.embed([(INSTRUCTIONS["labels"], row["text"]) for row in some])

    train_ND, test_MD = embed(train), embed(test)
    labels = [str(row["label"]) for row in test]
    scores = classification_metrics(
        train_ND, [str(row["label"]) for row in train], test_MD, labels, draws, settings.seed
    )
    return scores | {"v_measure": v_measure(test_MD, labels, settings.seed), "texts": len(test)}


def _drawn(rows: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    order = np.random.default_rng(settings.seed).permutation(len(rows))[: settings.max_queries]
    return [rows[number] for number in sorted(order)]


def _used(rows: list[dict[str, Any]], draws: list[list[int]]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The rows that are drawn at all, and the draws in their numbers: only these need be embedded."""
    used = sorted({number for draw in draws for number in draw})
    place = {number: at for at, number in enumerate(used)}
    return [rows[number] for number in used], [[place[number] for number in draw] for draw in draws]


def _grounded(model: Model, path: Path, settings: Settings) -> Scores:
    """Answers from numbered documents, in the layout the app uses."""
    rows = _rows(_data_file(path), ("question", "documents", "answers", "answerable"), settings.max_queries)
    if settings.ranked:
        rows = _ranked(model.embedder, rows)
    answers = []
    for row in rows:
        turn = _fitting_turn(model.writer, [_document_text(each) for each in row["documents"]], row["question"])
        answers.append(model.writer.answer([turn], MAX_ANSWER_TOKENS))
    return grounded_metrics(rows, answers) | {"questions": len(rows)}


def _ranked(embedder: TextEmbedder, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their documents as the app's search orders them, and `gold` as the gold one's place among them.

    All rows' documents lie in one index: how rare a word is tells nothing among three.
    """
    documents = dict.fromkeys(_document_text(each) for row in rows for each in row["documents"])
    texts = {str(number): text for number, text in enumerate(documents)}
    number_of = {text: number for number, text in texts.items()}
    passages_ND = embedder.embed([("", text) for text in texts.values()])
    queries_QD = embedder.embed([query_input(row["question"]) for row in rows])
    with AppIndex(texts, passages_ND) as index:
        found = [
            index.search(row["question"], _NUM_RETRIEVED, "hybrid", query_D)
            for row, query_D in zip(rows, queries_QD, strict=True)
        ]
    ranked = []
    for row, hits in zip(rows, found, strict=True):
        place = {number: at for at, number in enumerate(hits)}
        numbers = [number_of[_document_text(each)] for each in row["documents"]]
        order = sorted(range(len(numbers)), key=lambda each: place.get(numbers[each], len(hits)))
        gold = {"gold": order.index(row["gold"] - 1) + 1} if row.get("gold") else {}
        ranked.append(row | {"documents": [row["documents"][each] for each in order]} | gold)
    return ranked


def _document_text(document: str | Mapping[str, str]) -> str:
    return document if isinstance(document, str) else f"{document.get('title') or ''} {document['text']}".strip()


def _fitting_turn(writer: AnswerWriter, documents: Sequence[str], question: str) -> Turn:
    """All documents, each without its end where they do not fit: the app, which ranks them, drops the last ones."""
    turn = Turn("user", documents_turn(documents, question))
    while writer.count_tokens([turn]) > writer.context_length - MAX_ANSWER_TOKENS and any(documents):
        documents = [text[: len(text) * 4 // 5] for text in documents]
        turn = Turn("user", documents_turn(documents, question))
    return turn


def _text(model: Model, path: Path, settings: Settings) -> Scores:
    """All texts together, so that a long one weighs more."""
    texts = [str(row["text"]) for row in _rows(_data_file(path), ("text",), settings.max_queries)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"{_data_file(path)}: expected texts, found only empty ones")
    nats, num_tokens = np.sum([model.writer.text_nats(text) for text in texts], axis=0)
    num_bytes = sum(len(text.encode()) for text in texts)
    return {"bits_per_byte": bits_per_byte(float(nats), num_bytes), "texts": len(texts), "tokens": int(num_tokens)}
