"""`python benchmarks/fusion.py EVAL_DIR [SET...]`: which weight meaning deserves beside words.

Indexes each BEIR-form set of EVAL_DIR with the default model, ranks its queries by words, by meaning, and by both
at several weights, through the store and the fusion the app uses, and prints nDCG@10. Any file with
`corpus.jsonl.zst`, `queries.jsonl.zst` and `qrels.tsv` will do.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gritdesk.config import EngineConfig, SearchConfig
from gritdesk.engine.host import EngineHost
from gritdesk.grit_format import query_input
from gritdesk.models import default_model
from gritdesk.records import Chunk, Document
from gritdesk.retriever import Retriever
from gritdesk.store import FileState, Store
from training.evaluation_sets import read_qrels
from training.examples import read_rows
from training.metrics import ndcg_at_10

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5)
MAX_QUERIES = 300


def main(eval_dir: Path, names: list[str]) -> None:
    folders = [each for each in sorted(eval_dir.iterdir()) if (each / "qrels.tsv").exists()]
    folders = [each for each in folders if not names or each.name in names]
    table: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as logs, EngineHost(default_model(), EngineConfig(), Path(logs)) as engine:
        for folder in folders:
            for column, score in evaluate(folder, engine).items():
                table.setdefault(column, []).append(score)
    print("| ranking | " + " | ".join(each.name for each in folders) + " | mean |")
    print("|---" * (len(folders) + 2) + "|")
    for column, scores in table.items():
        print(f"| {column} | " + " | ".join(f"{100 * each:.1f}" for each in [*scores, float(np.mean(scores))]) + " |")


def evaluate(folder: Path, engine: EngineHost) -> dict[str, float]:
    """nDCG@10 of each way to rank, on one set."""
    corpus = list(read_rows(folder / "corpus.jsonl.zst", 10**9))
    relevant = read_qrels(folder / "qrels.tsv")
    queries = [row for row in read_rows(folder / "queries.jsonl.zst", 10**9) if row["_id"] in relevant][:MAX_QUERIES]
    with Store(":memory:") as store:
        fill(store, corpus, engine)
        asked = dict(zip([row["text"] for row in queries], embed_queries(queries, engine), strict=True))

        def score(mode: Any, config: SearchConfig = SearchConfig()) -> float:  # noqa: B008 - frozen
            retriever = Retriever(store, asked.__getitem__, config)
            gains = []
            for row in queries:
                ranked = [hit.path.name for hit in retriever.search(row["text"], 10, mode)]
                gains.append(ndcg_at_10(ranked, relevant[row["_id"]]))
            return float(np.mean(gains))

        found = {"words (FTS5)": score("keyword"), "meaning": score("semantic")}
        for weight in WEIGHTS:
            config = dataclasses.replace(SearchConfig(), keyword_weight=1.0, semantic_weight=weight)
            found[f"words + {weight} x meaning"] = score("hybrid", config)
    return found


def fill(store: Store, corpus: list[dict[str, Any]], engine: EngineHost) -> None:
    texts = [f"{row.get('title') or ''} {row['text']}".strip() or "-" for row in corpus]
    for at in range(0, len(texts), 64):
        embeddings = engine.embed([("", text) for text in texts[at : at + 64]])
        store.set_fingerprint("benchmark", embeddings.shape[1])
        for row, text, embedding in zip(corpus[at : at + 64], texts[at : at + 64], embeddings, strict=True):
            key = str(row["_id"]).encode()
            document = Document(Path("/corpus") / str(row["_id"]), text, "text")
            chunk = Chunk(text, 0, len(text), 1, 1 + text.count("\n"))
            store.replace_document(document, FileState(len(text), 0, row["_id"]), [chunk], [key], {key: embedding})


def embed_queries(queries: list[dict[str, Any]], engine: EngineHost) -> np.ndarray[Any, Any]:
    return engine.embed([query_input(row["text"]) for row in queries])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
