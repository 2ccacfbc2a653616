"""RAG with GRIT: what each way of caching costs and gives, beside plain RAG and beside no passages at all.

    python benchmarks/rag_caching.py answers EVAL_DIR [--questions 150] [--model GGUF] [--kv-type f16]
    python benchmarks/rag_caching.py times FOLDER [--shape 100m|gritlm-7b] [--layers N] [--lengths 250 1000 4000]
    python benchmarks/rag_caching.py times FOLDER --model GGUF --passages 3 --lengths 250 1000 1700

answers: match (a reference stands in the answer, as SQuAD normalises it) and F1 over the answerable questions of
EVAL_DIR/grounded_nq and EVAL_DIR/grounded_fairytale, each with its three documents, by the default model unless another
is named. times: one question about documents of so many tokens in all, until the first token and for sixteen, when
what is cached is on disk, and the bytes that takes. Without --model, of a model of random weights, which is built in
FOLDER once: what is measured does not depend on the weights. GritLM-7B's shape is built from two of its layers, of
which the other thirty are copies; --layers gives it fewer.

All methods take turns within one run, in this process, on one thread unless --threads says otherwise. Seconds of the
processor are what a busy machine does not change much; those of the wall stand beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from convert import SHAPES, Shape, make_checkpoint

from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import LlamaModel
from gritdesk.engine.states import StateStore, state_use
from gritdesk.grit_format import Caching, documents_turn
from gritdesk.models import default_model
from gritdesk.records import Sampling, Turn

SETS = ("grounded_nq", "grounded_fairytale")
MAX_ANSWER_TOKENS, NEW_TOKENS = 48, 16
ROUNDS = 3
QUESTION = "Who keeps the spare key of the tower, and where?"
WORDS = "the harbour lies where a river meets the sea and its lights are seen from far away at night".split()
SMALL = Shape(12, 768, 2048, 12, 4, 32_000, 1_000_000_000)
QUANTIZATION = {"100m": "Q8_0", "gritlm-7b": "Q4_K_M"}
LARGE_LAYERS_MADE = 2


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    caching: Caching = "none"
    has_documents: bool = True
    question_first: bool = False

    def turns(self, documents: Sequence[str], question: str) -> list[Turn]:
        if not self.has_documents:
            return [Turn("user", question)]
        return [Turn("user", documents_turn(documents, question, question_first=self.question_first))]


METHODS = (
    Method("no RAG", has_documents=False),
    Method("RAG, query first", question_first=True),
    Method("Query Caching", "query"),
    Method("Query-Doc Caching", "query-doc"),
    Method("RAG, doc first"),
    Method("Doc Caching", "doc"),
    Method("Doc-Query Caching", "doc-query"),
)


@dataclass(frozen=True)
class Timing:
    """Seconds, of the wall and of the processor."""

    first_s: float
    first_cpu_s: float
    total_cpu_s: float


class Bench:
    """One model, answering by any method, with its states in a folder."""

    def __init__(self, model: LlamaModel, folder: Path, **settings: Any) -> None:
        self.generator = Generator(model, **settings)
        self.folder = folder
        self._store = StateStore(folder, 10**12, self.generator.context.state_format)

    def answer(self, method: Method, turns: Sequence[Turn], max_tokens: int) -> tuple[str, Timing]:
        """An answer, as to a question that comes anew: what is cached is on disk, and the KV cache is empty."""
        self._keep_all(method, turns)
        self.generator.context.reuse_prefix([])
        sampling = Sampling(max_tokens=max_tokens, temperature=0)
        started, cpu_started = time.perf_counter(), time.process_time()
        first = None
        text = ""
        # a step without text reads the prompt; the first token is there when the step after those is done
        steps = self.generator.steps(turns, sampling, lambda: False, method.caching)
        num_prompt = self._num_steps(turns, method)
        for number, piece in enumerate(steps):
            text += piece
            if number == num_prompt:
                first = time.perf_counter() - started, time.process_time() - cpu_started
        first = first or (time.perf_counter() - started, time.process_time() - cpu_started)
        return text, Timing(first[0], first[1], time.process_time() - cpu_started)

    def _keep_all(self, method: Method, turns: Sequence[Turn]) -> None:
        self.generator.keep_states_in(self._store)
        for ids in self._moved(method, turns):
            if ids not in self._store:
                self._store.keep(ids, self.generator.context.state(ids))

    def stored_bytes(self, method: Method, turns: Sequence[Turn]) -> int:
        """What the states of one question take."""
        states = [self._store.find(ids) for ids in self._moved(method, turns)]
        return sum(len(each) for each in states if each is not None)

    def _moved(self, method: Method, turns: Sequence[Turn]) -> Iterator[list[int]]:
        frame = self.generator.encode(turns, method.caching)
        for block in self.generator.moved_blocks(frame, method.caching):
            yield [each for each, at in zip(frame.ids, frame.blocks, strict=True) if at == block]

    def _num_steps(self, turns: Sequence[Turn], method: Method) -> int:
        frame = self.generator.encode(turns, method.caching)
        moved = self.generator.moved_blocks(frame, method.caching)
        return len(self.generator.context._parts_of(frame.ids, frame.blocks, moved))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    answers = tasks.add_parser("answers")
    answers.add_argument("eval_dir", type=Path, metavar="EVAL_DIR")
    answers.add_argument("--questions", type=int, default=150, help="of each set")
    times = tasks.add_parser("times")
    times.add_argument("folder", type=Path, metavar="FOLDER")
    times.add_argument("--shape", choices=QUANTIZATION, default="100m")
    times.add_argument("--layers", type=int, help="of GritLM-7B's shape; default: all 32")
    times.add_argument("--lengths", type=int, nargs="+", default=[250, 1000, 4000], help="tokens of all passages")
    times.add_argument("--passages", type=int, default=1, help="among how many they are divided")
    times.add_argument("--rounds", type=int, default=ROUNDS)
    for each in (answers, times):
        each.add_argument("--model", type=Path)
        each.add_argument("--threads", type=int, default=1)
        each.add_argument("--kv-type", default="f16")
        each.add_argument("--methods", nargs="+", help="names of rows, such as 'Doc Caching'; default: all")
    given = parser.parse_args()
    methods = [each for each in METHODS if not given.methods or each.name in given.methods]
    with tempfile.TemporaryDirectory(prefix="states-") as folder:
        settings = {"n_threads": given.threads, "kv_type": given.kv_type}
        if given.task == "answers":
            with LlamaModel(given.model or default_model()) as model:
                measure_answers(Bench(model, Path(folder), **settings), methods, given.eval_dir, given.questions)
            return
        path = given.model or build(given.folder, given.shape, given.layers)
        with LlamaModel(path) as model:
            longest = max(given.lengths)
            settings |= {"n_ctx": longest + 300, "block_tokens": longest // given.passages + 96}
            print(f"{model.description}, {path.stat().st_size / 1e6:,.0f} MB, KV cache {given.kv_type}\n")
            bench = Bench(model, Path(folder), **settings)
            measure_times(bench, methods, given.lengths, given.passages, given.rounds)


# ---------------------------------------------------------------- answers


def measure_answers(bench: Bench, methods: Sequence[Method], eval_dir: Path, num_questions: int) -> None:
    from training.examples import read_rows
    from training.metrics import token_f1

    rows = {
        name: [row for row in read_rows(eval_dir / name / "data.jsonl.zst", 10**9) if row["answerable"]][:num_questions]
        for name in SETS
    }
    columns = [f"{name} {score}" for name in SETS for score in ("match", "F1")]
    print(
        "| method | " + " | ".join(columns) + " | first token, ms CPU | whole answer, ms CPU | stored, kB a question |"
    )
    print("|---" * (len(columns) + 4) + "|")
    for method in methods:
        scores, timings, stored = [], [], []
        for name in SETS:
            matches, f1s = [], []
            for row in rows[name]:
                turns = method.turns([document_text(each) for each in row["documents"]], row["question"])
                text, timing = bench.answer(method, turns, MAX_ANSWER_TOKENS)
                matches.append(any(has_match(text, each) for each in row["answers"]))
                f1s.append(max(token_f1(text, each) for each in row["answers"]))
                timings.append(timing)
                stored.append(bench.stored_bytes(method, turns))
            scores += [statistics.fmean(matches), statistics.fmean(f1s)]
        first, total = (
            1000 * statistics.median(getattr(each, key) for each in timings) for key in ("first_cpu_s", "total_cpu_s")
        )
        cells = [f"{100 * each:.1f}" for each in scores]
        print(f"| {method.name} | {' | '.join(cells)} | {first:.1f} | {total:.0f} | ", end="")
        print(f"{statistics.fmean(stored) / 1e3:,.0f} |", flush=True)


def document_text(document: str | Mapping[str, str]) -> str:
    return document if isinstance(document, str) else f"{document.get('title') or ''} {document['text']}".strip()


def has_match(answer: str, gold: str) -> bool:
    """Whether the reference's words stand in the answer, one after the other."""
    from training.metrics import _words

    words, wanted = _words(answer), _words(gold)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in range(len(words)))


# ---------------------------------------------------------------- times


def measure_times(
    bench: Bench, methods: Sequence[Method], lengths: Sequence[int], num_passages: int, rounds: int
) -> None:
    found: dict[tuple[str, int], list[Timing]] = {}
    stored: dict[tuple[str, int], int] = {}
    for round_number in range(rounds):
        for length in lengths:
            documents = [passage_of(bench, length // num_passages, number) for number in range(num_passages)]
            for method in methods:
                turns = method.turns(documents, QUESTION)
                _, timing = bench.answer(method, turns, NEW_TOKENS)
                found.setdefault((method.name, length), []).append(timing)
                told = f"round {round_number + 1}: {method.name}, {length:,} tokens: {timing.first_cpu_s:.3f} s CPU"
                print(told, file=sys.stderr, flush=True)
                if not round_number:
                    stored[method.name, length] = bench.stored_bytes(method, turns)
    print("| method | tokens of passages | first token, s CPU (wall) | 16 tokens, s CPU | stored, MB |")
    print("|---|---|---|---|---|")
    firsts = {}
    for (name, length), timings in found.items():
        first, wall, total = (
            min(getattr(each, key) for each in timings) for key in ("first_cpu_s", "first_s", "total_cpu_s")
        )
        firsts[name, length] = first
        size = stored[name, length] / 1e6
        print(f"| {name} | {length:,} | {first:.3f} ({wall:.3f}) | {total:.2f} | {size:.1f} |")
    print()
    for length in lengths:
        if (plain := firsts.get(("RAG, doc first", length))) and (cached := firsts.get(("Doc Caching", length))):
            print(f"Doc Caching takes {cached / plain:.3f} of plain RAG's time to the first token at {length:,} tokens")
    if cached := [firsts[key] for key in firsts if key[0] == "Doc Caching"]:
        print(f"Doc Caching, longest to shortest passages: {max(cached) / min(cached):.2f}")
    print(f"{state_use(bench.folder).num_states} states")


def passage_of(bench: Bench, num_tokens: int, number: int) -> str:
    """A text of so many tokens with its frame, or one less than another word would give."""
    random = np.random.default_rng(number)
    words = [WORDS[each] for each in random.integers(len(WORDS), size=num_tokens)]
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(bench.generator.encode([Turn("user", " ".join(words[:middle]))], "none").ids) <= num_tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words[:low])


# ---------------------------------------------------------------- models of random weights


def build(folder: Path, shape: str, num_layers: int | None) -> Path:
    """A GGUF of a shape, made once: a checkpoint of random weights, converted, its layers repeated."""
    from dataclasses import replace

    from converters.hf_to_gguf import convert

    full = SMALL if shape == "100m" else SHAPES["gritlm-7b"]
    wanted = num_layers or full.num_layers
    out = folder / f"{shape}-{wanted}.gguf"
    if out.exists():
        return out
    made = min(wanted, LARGE_LAYERS_MADE) if shape == "gritlm-7b" else wanted
    checkpoint = folder / f"{shape}-{made}-checkpoint"
    if not (checkpoint / "config.json").exists():
        make_checkpoint(checkpoint, replace(full, num_layers=made))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"grit": {"dimension": full.hidden, "markers": "text"}, "sliding_window": None}  # else its context
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    few = folder / f"{shape}-{made}.gguf"
    if not few.exists():
        convert(checkpoint, few, QUANTIZATION[shape])
    if few != out:
        repeat_layers(few, out, wanted)
    return out


def repeat_layers(source: Path, out: Path, num_layers: int) -> None:
    """The same model with more layers, copies of those of `source` in turn, written a tensor at a time.

    The last layer of a file of mixed types has the finer ones, as Q4_K_M gives them to a half of all layers.
    """
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    count_key = f"{architecture}.block_count"
    num_here = int(reader.fields[count_key].contents())
    writer = gguf.GGUFWriter(out.with_suffix(".part"), architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = num_layers if key.endswith(".block_count") else field.contents()
        kind = field.types[0]
        writer.add_key_value(key, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    tensors = {}
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[0] != "blk":
            tensors[tensor.name] = tensor
            continue
        for layer in range(int(parts[1]), num_layers, num_here):
            tensors[".".join(["blk", str(layer), *parts[2:]])] = tensor
    for name, tensor in tensors.items():
        writer.add_tensor_info(name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():
        writer.write_tensor_data(tensor.data)
    writer.close()
    out.with_suffix(".part").replace(out)


if __name__ == "__main__":
    main()
