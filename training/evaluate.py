"""`python -m training.evaluate CHECKPOINT --eval DIR`: what a checkpoint can do, on data it never saw.

Retrieval nDCG@10 and recall@100 on BEIR-form sets, STS Spearman on sentence pairs, grounded answers on
question sets with passages. `DIR` holds one folder per set, as `corpus/queries/qrels`, `pairs` or `data`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import string
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gritdesk.grit_format import QUERY_INSTRUCTION, REFUSAL, chat_frame, documents_turn, encode
from gritdesk.records import Turn
from training.embedders import DecoderEmbedder
from training.examples import read_rows
from training.model import GritModel, load_model
from training.tokenizer import FrameTokenizer

STS_INSTRUCTION = "Retrieve text with the same meaning"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--eval", type=Path, required=True, help="folder of evaluation sets")
    parser.add_argument("--sets", nargs="*", help="names of the sets; all of them if not given")
    parser.add_argument("--max-queries", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if not (given.checkpoint / "config.json").exists():
        print(f"evaluate: {given.checkpoint} is no checkpoint folder: it has no config.json", file=sys.stderr)
        return 1
    model = GritModel(load_model(given.checkpoint)).eval()
    tokenizer = FrameTokenizer.from_folder(given.checkpoint)
    for folder in sorted(each for each in given.eval.iterdir() if each.is_dir()):
        if given.sets and folder.name not in given.sets:
            continue
        scores = evaluate_set(model, tokenizer, folder, given.max_queries)
        if scores:
            print(
                json.dumps({"set": folder.name} | {key: round(value, 4) for key, value in scores.items()}), flush=True
            )
    return 0


@torch.no_grad()
def evaluate_set(model: GritModel, tokenizer: FrameTokenizer, folder: Path, max_queries: int) -> dict[str, float]:
    """Scores of one set, by the files it holds; empty for a kind this command does not know."""
    if (folder / "qrels.tsv").exists():
        return retrieval_scores(model, tokenizer, folder, max_queries)
    if (folder / "pairs.jsonl.zst").exists():
        return {"spearman": sts_spearman(model, tokenizer, folder)}
    if (folder / "data.jsonl.zst").exists() and "question" in next(read_rows(folder / "data.jsonl.zst", 1)):
        return grounded_scores(model, tokenizer, folder, max_queries)
    return {}


# ---------------------------------------------------------------- embedding


def retrieval_scores(model: GritModel, tokenizer: FrameTokenizer, folder: Path, max_queries: int) -> dict[str, float]:
    """nDCG@10 and recall@100 by cosine over the whole corpus."""
    corpus = list(read_rows(folder / "corpus.jsonl.zst", 10**9))
    relevant = read_qrels(folder / "qrels.tsv")
    queries = [row for row in read_rows(folder / "queries.jsonl.zst", 10**9) if row["_id"] in relevant][:max_queries]
    passages = DecoderEmbedder(model, tokenizer).embed(
        [("", f"{row.get('title', '')} {row['text']}".strip() or "-") for row in corpus]
    )
    questions = DecoderEmbedder(model, tokenizer).embed([(QUERY_INSTRUCTION, row["text"]) for row in queries])
    ids = [row["_id"] for row in corpus]
    ndcg, recall = [], []
    for query, similarity in zip(queries, questions @ passages.T, strict=True):
        ranked = [ids[index] for index in np.argsort(-similarity, kind="stable")[:100]]
        ndcg.append(ndcg_at(ranked, relevant[query["_id"]], 10))
        recall.append(len(set(ranked) & set(relevant[query["_id"]])) / len(relevant[query["_id"]]))
    return {"ndcg@10": float(np.mean(ndcg)), "recall@100": float(np.mean(recall)), "queries": len(queries)}


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """query id -> passage id -> relevance, positive ones only; a header line is passed over."""
    relevant: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines, delimiter="\t"):
            if row[-1].isdigit() and int(row[-1]) > 0:
                relevant.setdefault(row[0], {})[row[-2]] = int(row[-1])
    return relevant


def ndcg_at(ranked: Sequence[str], relevant: dict[str, int], k: int) -> float:
    """Normalised discounted cumulative gain of the first k, linear gain (as trec_eval and BEIR)."""
    gained = sum(relevant.get(each, 0) / math.log2(rank + 2) for rank, each in enumerate(ranked[:k]))
    best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(sorted(relevant.values(), reverse=True)[:k]))
    return gained / best if best else 0.0


def sts_spearman(model: GritModel, tokenizer: FrameTokenizer, folder: Path) -> float:
    """Rank correlation of cosine and human scores."""
    rows = list(read_rows(folder / "pairs.jsonl.zst", 10**9))
    first = DecoderEmbedder(model, tokenizer).embed([(STS_INSTRUCTION, row["sentence1"]) for row in rows])
    second = DecoderEmbedder(model, tokenizer).embed([(STS_INSTRUCTION, row["sentence2"]) for row in rows])
    return spearman((first * second).sum(axis=1), np.array([float(row["score"]) for row in rows]))


def spearman(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Pearson's correlation of the ranks, ties sharing their mean rank."""

    def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
        _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(sizes)
        mean_rank: NDArray[np.float64] = (last - (sizes - 1) / 2)[group]
        return mean_rank

    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


# ---------------------------------------------------------------- grounded answers


def grounded_scores(model: GritModel, tokenizer: FrameTokenizer, folder: Path, max_questions: int) -> dict[str, float]:
    """F1 of answers on answerable questions, F1 of refusing, and how often the gold passage is the cited one."""
    rows = list(read_rows(folder / "data.jsonl.zst", max_questions))
    answers = [answer_grounded(model, tokenizer, row["question"], row["documents"]) for row in rows]
    pairs = list(zip(rows, answers, strict=True))
    f1 = [max(token_f1(answer, gold) for gold in row["answers"]) for row, answer in pairs if row["answerable"]]
    cited = [f"[{row['gold']}]" in answer for row, answer in pairs if row["answerable"]]
    refused = [answer.startswith(REFUSAL.rstrip(".")) for answer in answers]
    right = sum(no and not row["answerable"] for row, no in zip(rows, refused, strict=True))
    wanted = sum(not row["answerable"] for row in rows)
    return {
        "f1": float(np.mean(f1)),
        "cited_gold": float(np.mean(cited)),
        "refusal_f1": 2 * right / max(sum(refused) + wanted, 1),
        "questions": len(rows),
    }


def answer_grounded(
    model: GritModel, tokenizer: FrameTokenizer, question: str, documents: Sequence[Any], max_tokens: int = 48
) -> str:
    """Greedy answer from numbered documents, in the layout the app uses."""
    texts = [each if isinstance(each, str) else f"{each.get('title', '')} {each['text']}".strip() for each in documents]
    turn = documents_turn(texts, question)
    ids = encode(chat_frame([Turn("user", turn)]), tokenizer, tokenizer.markers).ids[-1500:]
    output = model.decoder.generate(
        torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False, eos_token_id=tokenizer.eos_id
    )
    return str(tokenizer.tokenizer.decode(output[0, len(ids) :].tolist(), skip_special_tokens=True)).strip()


def token_f1(answer: str, gold: str) -> float:
    """F1 over words, as SQuAD normalises them; citations do not count."""
    left, right = list(_words(answer)), list(_words(gold))
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def _words(text: str) -> Iterator[str]:
    text = re.sub(r"\[\d+\]", " ", text.lower())
    text = "".join(character for character in text if character not in string.punctuation)
    return (word for word in text.split() if word not in {"a", "an", "the"})


if __name__ == "__main__":
    sys.exit(main())
