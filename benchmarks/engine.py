"""How fast the engine is: embedding one text at a time and packed, and generation.

Beside it llama-cpp-python's own `create_embedding` on the same file and texts, in turn: with its defaults but for the
threads, pooling by mean and batches of as many tokens as ours, and once more with flash attention.

    python benchmarks/engine.py [GGUF]

Runs in this process, without the pipes, on the default model unless another is named. Numbers are wall-clock
medians of a few runs; close other programs first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from gritdesk.engine.embedder import Embedder
from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import PREFILL_TOKENS, LlamaModel, num_cores
from gritdesk.engine.self_test import self_test
from gritdesk.models import default_model
from gritdesk.records import Sampling, Turn

SENTENCE = "The harbour lies where the river meets the sea, and its lights are seen from far away. "
RUNS = 3
RUNS_BESIDE = 5
BATCH_TOKENS = 512


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="a GGUF with grit.* metadata; default: grit-nano")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all cores")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with LlamaModel(arguments.model or default_model()) as model:
        embedder = Embedder(model, n_threads=arguments.threads)
        generator = Generator(model, n_threads=arguments.threads)
        loaded = time.perf_counter()
        measured = self_test(model, embedder.context, generator.context)
        tested = time.perf_counter()
        print(f"{model.description}, {arguments.threads or num_cores()} threads")
        print(f"load {loaded - started:.2f} s, self-test {tested - loaded:.2f} s: {measured}\n")
        print("| what | tokens/s |\n|---|---|")
        for length in (16, 64, 256):
            texts = _texts(model, length)
            num_tokens = sum(embedder.count_tokens(texts))
            alone = _seconds(lambda texts=texts: [embedder.embed([("", text)]) for text in texts])  # type: ignore[misc]
            packed = _seconds(lambda texts=texts: embedder.embed([("", text) for text in texts]))  # type: ignore[misc]
            print(f"| embed, {length} tokens each, alone | {num_tokens / alone:.0f} |")
            print(f"| embed, {length} tokens each, packed | {num_tokens / packed:.0f} |")
        for has_flash in (False, True):
            for length in (16, 64, 256):
                _beside_create_embedding(embedder, model.path, _texts(model, length), arguments.threads, has_flash)
        prompt = model.tokenize(SENTENCE * 200)[: generator.n_ctx * 3 // 4]
        print(f"| read a prompt of {len(prompt)}, {PREFILL_TOKENS} at a time | {_prefill(generator, prompt):.0f} |")
        print(f"| generate | {_generate(generator):.0f} |")


def _beside_create_embedding(
    embedder: Embedder, path: Path, texts: list[str], num_threads: int, has_flash: bool
) -> None:
    peer = llama_cpp.Llama(
        str(path),
        embedding=True,
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN,
        flash_attn=has_flash,
        n_ctx=BATCH_TOKENS,
        n_batch=BATCH_TOKENS,
        n_ubatch=BATCH_TOKENS,
        n_threads=num_threads or num_cores(),
        n_threads_batch=num_threads or num_cores(),
        verbose=False,
    )
    num_tokens, rates = sum(embedder.count_tokens(texts)), []
    for _ in range(RUNS_BESIDE):
        ours = _seconds(lambda: embedder.embed([("", text) for text in texts]), runs=1)
        theirs = _seconds(lambda: peer.create_embedding(texts), runs=1)
        rates.append((num_tokens / ours, num_tokens / theirs))
    ratio = statistics.median(ours / theirs for ours, theirs in rates)
    theirs = statistics.median(each for _, each in rates)
    name = "create_embedding, flash attention" if has_flash else "create_embedding"
    print(f"| {name}, {num_tokens // len(texts)} tokens each | {theirs:.0f}; ours {ratio:.2f} times that |")


def _texts(model: LlamaModel, length: int) -> list[str]:
    """Texts of about this many tokens, 4096 tokens in all."""
    words = SENTENCE * (length // 8 + 1)
    text = b"".join(model.piece(each) for each in model.tokenize(words)[:length]).decode("utf-8", "replace")
    return [text] * (4096 // length)


def _prefill(generator: Generator, prompt: list[int]) -> float:
    def read() -> None:
        generator.context.reuse_prefix([])
        generator.context.prefill(prompt)

    return len(prompt) / _seconds(read)


def _generate(generator: Generator) -> float:
    """Tokens per second after the prompt; a seed that ends early counts for as far as it went."""
    turns = [Turn("user", SENTENCE)]
    num_tokens, seconds = 0, 0.0
    for seed in range(RUNS):
        steps = generator.steps(turns, Sampling(max_tokens=128, temperature=1.0, seed=seed), lambda: False)
        next(steps, None)
        started = time.perf_counter()
        num_tokens += sum(1 for _ in steps)
        seconds += time.perf_counter() - started
    return num_tokens / seconds


def _seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    durations = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


if __name__ == "__main__":
    main()
