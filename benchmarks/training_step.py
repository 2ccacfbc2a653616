"""How fast a GRIT step is beside the plain one, and what a large contrastive batch costs in memory.

    python benchmarks/training_step.py DATA [--rounds 7] [--optimizer muon] [--threads 2]

The plain step is the paper's formulas written with transformers alone: queries and passages each padded to their
longest and passed in one go, a bidirectional 4D mask, mean pooling and InfoNCE; chats and texts padded to the longest,
the model's own loss on `labels`. Both sides step in turn, in one process, on the same batches of DATA (the default
model's files and shape, its tokenizer trained on the spot), with the same optimizer. First both sides' losses and
gradients are compared, so that the work is equal. Where other programs run, believe the processor's seconds of one
thread (--threads 1): waiting is not in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from training.config import TrainConfig, read_recipe
from training.data import Batches, EmbeddingBatch, GenerationBatch, TokenRows
from training.examples import read_sources
from training.losses import same_passage
from training.model import GritModel, grit_model, load_model
from training.steps import grit_step
from training.tokenizer import FrameTokenizer
from training.train import make_optimizers, prepare

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "grit-nano.toml"
TEMPERATURE = 0.05
MEMORY_BATCHES = (32, 2048)
MEMORY_FILE = "wikipedia_qa"
IGNORED = -100
"""The label that transformers leaves out of its loss."""

Step = Callable[[EmbeddingBatch, GenerationBatch], tuple[float, float]]
"""Both batches -> loss_emb and loss_gen, gradients left in the parameters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with pairs/, chat/ and text/")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side")
    parser.add_argument("--optimizer", default="muon", choices=("muon", "adamw"))
    parser.add_argument("--micro-batch-tokens", type=int, default=TrainConfig.micro_batch_tokens)
    parser.add_argument("--threads", type=int, default=TrainConfig.num_threads)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=("bf16", "fp32"))
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = benchmark_config(given.data, given.optimizer, given.micro_batch_tokens, given.threads)
    torch.set_num_threads(config.num_threads)
    if given.memory_of:
        print_memory(given.folder, memory_config(config, given.memory_of))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        prepare(folder, read_sources(config), config)
        if given.only != "memory":
            compare_speed(folder, config, given.rounds, given.precisions)
        if given.only != "speed":
            compare_memory(folder, sys.argv[1:])


def benchmark_config(data: Path, optimizer: str, micro_batch_tokens: int, num_threads: int) -> TrainConfig:
    """The default model's files and shape, all of it pooled; every other setting as TrainConfig has it."""
    recipe = read_recipe(RECIPE)
    shape = dataclasses.replace(recipe.model, embedding_dimension=0)
    return TrainConfig(
        data_dir=str(data),
        model=shape,
        pairs=recipe.pairs,
        chat=recipe.chat,
        text=recipe.text,
        tokenizer_sample_mb=10,
        optimizer=optimizer,  # type: ignore[arg-type]
        micro_batch_tokens=micro_batch_tokens,
        num_threads=num_threads,
    )


def fresh_model(folder: Path) -> PreTrainedModel:
    """Weights by which every part has a gradient: a new model's blocks start as the identity and would hide theirs."""
    torch.manual_seed(0)
    model = load_model(folder).train()
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.05)
    return model


# ---------------------------------------------------------------- the plain step


def plain_step(model: PreTrainedModel, precision: str) -> Step:
    """GRIT's step as one would write it from the paper's formulas, with transformers alone."""

    def step(embedding: EmbeddingBatch, generation: GenerationBatch) -> tuple[float, float]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            query_BD = plain_embed(model, embedding.queries)
            passage_ND = plain_embed(model, embedding.passages)
        logits_BN = query_BD @ passage_ND.T / TEMPERATURE
        logits_BN = logits_BN.masked_fill(same_passage(embedding.keys_N, len(query_BD)), float("-inf"))
        loss_emb = F.cross_entropy(logits_BN, torch.arange(len(query_BD)))
        loss_emb.backward()
        ids_BT, mask_BT, counts_BT = joined(generation.rows)
        labels_BT = ids_BT.masked_fill(counts_BT == 0, IGNORED)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss_gen = model(input_ids=ids_BT, attention_mask=mask_BT, labels=labels_BT, use_cache=False).loss
        loss_gen.backward()
        return loss_emb.item(), loss_gen.item()

    return step


def plain_embed(model: PreTrainedModel, groups: Sequence[TokenRows]) -> Tensor:
    """Mean over the text of a forward pass in which every token sees every other, float32[B, D]."""
    ids_BT, mask_BT, counts_BT = joined(groups)
    num, length = ids_BT.shape
    seen_B1TT = mask_BT.bool()[:, None, None, :].expand(num, 1, length, length)
    hidden_BTD = model.model(input_ids=ids_BT, attention_mask=seen_B1TT, use_cache=False).last_hidden_state.float()
    summed_BD = (hidden_BTD * counts_BT[:, :, None]).sum(dim=1)
    return F.normalize(summed_BD / counts_BT.sum(dim=1, keepdim=True), dim=-1)


def joined(groups: Sequence[TokenRows]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and counts of all rows in the batch's own order, padded to the longest of all."""
    longest = max(rows.ids_BT.shape[1] for rows in groups)
    order = torch.argsort(torch.tensor([number for rows in groups for number in rows.order]))

    def padded(name: str) -> Tensor:
        parts = [getattr(rows, name) for rows in groups]
        return torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in parts])[order]

    return padded("ids_BT"), padded("mask_BT"), padded("counts_BT")


# ---------------------------------------------------------------- speed


def compare_speed(folder: Path, config: TrainConfig, num_rounds: int, precisions: Sequence[str]) -> None:
    """Print how far apart the two sides' numbers are, and a table of their speeds."""
    batches = Batches(read_sources(config), FrameTokenizer.from_folder(folder), config)
    drawn = [(batches.embedding(step), batches.generation(step)) for step in range(num_rounds)]
    for precision in precisions:
        print(f"{precision}: {difference(folder, config, precision, drawn[0])}", flush=True)
    print(f"\n{config.num_threads} threads, {config.optimizer}, {padding(drawn)}\n")
    print("| precision | contrastive_backward | seconds of | tokens/s | plain step | median of the ratios | ratios |")
    print("|---|---|---|---|---|---|---|")
    for precision, backward in itertools.product(precisions, ("whole", "cached")):
        changed = dataclasses.replace(config, precision=precision, contrastive_backward=backward)  # type: ignore[arg-type]
        rounds = list(race(folder, changed, drawn))
        for at, clock in enumerate(("the wall", "the processor")):
            speeds = [(num_tokens / ours[at], num_tokens / plain[at]) for num_tokens, ours, plain in rounds]
            ratios = [ours / plain for ours, plain in speeds]
            ours, plain = (statistics.median(each) for each in zip(*speeds, strict=True))
            print(
                f"| {precision} | {backward} | {clock} | {ours:.0f} | {plain:.0f} | {statistics.median(ratios):.2f} "
                f"| {' '.join(f'{each:.2f}' for each in ratios)} |",
                flush=True,
            )


def our_step(grit: GritModel, config: TrainConfig) -> Step:
    def step(embedding: EmbeddingBatch, generation: GenerationBatch) -> tuple[float, float]:
        losses = grit_step(grit, embedding, generation, config, TEMPERATURE)
        assert losses.loss_emb is not None and losses.loss_gen is not None
        return losses.loss_emb, losses.loss_gen

    return step


def difference(folder: Path, config: TrainConfig, precision: str, batch: tuple[EmbeddingBatch, GenerationBatch]) -> str:
    """Losses of both sides on one batch, and how far apart their gradients are."""
    found = []
    for plain in (False, True):
        model = fresh_model(folder)
        changed = dataclasses.replace(config, precision=precision)  # type: ignore[arg-type]
        step = plain_step(model, precision) if plain else our_step(grit_model(model, changed).train(), changed)
        losses = step(*batch)
        found.append((losses, torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])))
    (ours, our_gradient), (theirs, their_gradient) = found
    apart = float((our_gradient - their_gradient).norm() / their_gradient.norm())
    return (
        f"loss_emb {ours[0]:.6f} and {theirs[0]:.6f}, loss_gen {ours[1]:.6f} and {theirs[1]:.6f}, "
        f"gradients apart by {apart:.1e} of their length"
    )


def padding(drawn: Sequence[tuple[EmbeddingBatch, GenerationBatch]]) -> str:
    parts = [(embedding.queries, embedding.passages, generation.rows) for embedding, generation in drawn]
    used = sum(rows.num_tokens for each in parts for groups in each for rows in groups)
    ours = sum(rows.ids_BT.numel() for each in parts for groups in each for rows in groups)
    plain = sum(joined(groups)[0].numel() for each in parts for groups in each)
    return (
        f"{used / len(drawn):.0f} tokens a step, {ours / used - 1:.0%} padding beside them and {plain / used - 1:.0%}"
    )


def race(
    folder: Path, config: TrainConfig, drawn: Sequence[tuple[EmbeddingBatch, GenerationBatch]]
) -> Iterator[tuple[int, tuple[float, float], tuple[float, float]]]:
    """Tokens of each batch, and `seconds_of` our step and the plain one; who begins changes with the round."""
    runners = []
    for plain in (False, True):
        model = fresh_model(folder)
        grit = grit_model(model, config).train()
        step = plain_step(model, config.precision) if plain else our_step(grit, config)
        runners.append((step, make_optimizers(grit, config)))
    for step, optimizers in runners:
        seconds_of(step, optimizers, drawn[0])  # first calls compile kernels and make the optimizers' state
    for number, batch in enumerate(drawn):
        rows = [*batch[0].queries, *batch[0].passages, *batch[1].rows]
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {at: seconds_of(*runners[at], batch) for at in order}
        yield sum(each.num_tokens for each in rows), seconds[0], seconds[1]


def seconds_of(
    step: Step, optimizers: Sequence[torch.optim.Optimizer], batch: tuple[EmbeddingBatch, GenerationBatch]
) -> tuple[float, float]:
    """Of the wall clock, and of the processor in all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    step(*batch)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - wall, time.process_time() - processor


# ---------------------------------------------------------------- memory


def compare_memory(folder: Path, arguments: list[str]) -> None:
    """Print the peak of resident memory at each batch size, each in a process of its own."""
    print("\n| embedding_batch_size | MB before the step | peak MB | peak beyond |\n|---|---|---|---|")
    peaks = []
    for size in MEMORY_BATCHES:
        command = [sys.executable, __file__, *arguments, "--memory-of", str(size), "--folder", str(folder)]
        before, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        peaks.append((before, peak))
        print(f"| {size} | {before:.0f} | {peak:.0f} | {peak - before:.0f} |", flush=True)
    (before, small), (large_before, large) = peaks
    print(f"\npeak {large / small:.2f} times, beyond the start {(large - large_before) / (small - before):.2f} times")


def memory_config(config: TrainConfig, batch_size: int) -> TrainConfig:
    return dataclasses.replace(
        config,
        mode="embedding",
        embedding_batch_size=batch_size,
        contrastive_backward="cached",
        passage_tokens=(48,),  # a micro-batch holds the same number of tokens whatever they are cut to
        pairs={MEMORY_FILE: 1.0},
        chat={},
        text={},
    )


def print_memory(folder: Path, config: TrainConfig) -> None:
    """Resident megabytes before a step, and at its peak."""
    batches = Batches(read_sources(config), FrameTokenizer.from_folder(folder), config)
    grit = grit_model(fresh_model(folder), config).train()
    optimizers = make_optimizers(grit, config)
    before = resident_mb("VmRSS")
    grit_step(grit, batches.embedding(0), None, config, TEMPERATURE)
    for optimizer in optimizers:
        optimizer.step()
    print(before, resident_mb("VmHWM"))


def resident_mb(field: str) -> float:
    """VmRSS, now, or VmHWM, the most so far; getrusage's peak would count the parent's before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
