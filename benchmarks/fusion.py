"""`python benchmarks/fusion.py EVAL_DIR [SET...] [--model MODEL]`: which weight meaning deserves beside words.

Ranks the queries of each retrieval set of EVAL_DIR by words, by meaning, and by both at several weights, through the
index and the fusion the app uses, and prints nDCG@10. MODEL is any that training.evaluate takes; the default one is the
app's. The first five hundred queries count, as in training.evaluate, whose --hybrid is the row of the default weight.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from gritdesk.config import SearchConfig
from gritdesk.models import default_model
from training.embedders import TextEmbedder, load_embedder
from training.evaluation_sets import app_ndcg_at_10, embed_retrieval_set, read_retrieval_set
from training.search import AppIndex

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval_dir", type=Path, metavar="EVAL_DIR")
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    folders = [each for each in sorted(given.eval_dir.iterdir()) if (each / "qrels.tsv").exists()]
    folders = [each for each in folders if not given.sets or each.name in given.sets]
    embedder = load_embedder(given.model, num_threads=given.threads)
    table: dict[str, list[float]] = {}
    for folder in folders:
        for column, score in evaluate(folder, embedder).items():
            table.setdefault(column, []).append(score)
    print("| ranking | " + " | ".join(each.name for each in folders) + " | mean |")
    print("|---" * (len(folders) + 2) + "|")
    for column, scores in table.items():
        print(f"| {column} | " + " | ".join(f"{100 * each:.1f}" for each in [*scores, float(np.mean(scores))]) + " |")


def evaluate(folder: Path, embedder: TextEmbedder) -> dict[str, float]:
    """nDCG@10 of each way to rank, on one set."""
    data = read_retrieval_set(folder)
    passages_ND, queries_QD = embed_retrieval_set(embedder, data)
    with AppIndex(data.texts, passages_ND) as index:
        found = {
            "words (FTS5)": app_ndcg_at_10(index, data, "keyword"),
            "meaning": app_ndcg_at_10(index, data, "semantic", queries_QD),
        }
        for weight in WEIGHTS:
            config = dataclasses.replace(SearchConfig(), keyword_weight=1.0, semantic_weight=weight)
            found[f"words + {weight} x meaning"] = app_ndcg_at_10(index, data, "hybrid", queries_QD, config)
    return found


if __name__ == "__main__":
    main()
