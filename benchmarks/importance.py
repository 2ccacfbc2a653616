"""`python benchmarks/importance.py EVAL_DIR [GGUF] [--types Q2_K ...]`: what an importance matrix saves of a model.

The weights of GGUF, grit-nano's without one, are quantized anew, with no matrix and with matrices measured in either
attention mode and in both; each file is held against GGUF on passages that no matrix was measured by. The passages are
those of EVAL_DIR's retrieval sets, of each as many, which in a person's place are one's own documents.

Prints 1 - cosine of the passages' embeddings (mean and worst), the mean KL divergence of next tokens in nats, and how
often the likeliest is the same.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from converters.architectures.base import Architecture, FieldValue, TensorSpec
from converters.comparison import NextTokens
from converters.gguf_reader import GgufReader
from converters.importance import MODES, Calibration, Matrix, measure, read_matrix, weigh
from converters.plan import Plan
from converters.quantize import ModelShape, Quantization
from converters.writing import write_ggufs
from gritdesk.grit_format import BOS, encode
from gritdesk.models import default_model
from training.evaluation_sets import read_retrieval_set

TYPES = ("Q2_K", "Q3_K_M", "Q4_K_M")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval_dir", type=Path, metavar="EVAL_DIR")
    parser.add_argument("gguf", type=Path, nargs="?", default=default_model(), metavar="GGUF")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--texts", type=int, default=256, help="passages to measure by")
    parser.add_argument("--held", type=int, default=60, help="passages to compare on")
    given = parser.parse_args()
    texts = drawn_passages(given.eval_dir, given.texts + given.held)
    plan, reference = plan_of(given.gguf), Remembering(given.gguf)
    print("| type | matrix | 1 - cosine, mean | worst | KL | same next token | MB |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        matrices: dict[str, Matrix | None] = {"none": None}
        for mode in reversed(MODES):
            measure(given.gguf, Calibration(texts[given.held :], "passages", mode), Path(folder, f"{mode}.gguf"))
            matrices[mode] = read_matrix(Path(folder, f"{mode}.gguf"))
        for name in given.types:
            for mode, matrix in matrices.items():
                out, quantization = Path(folder, "out.gguf"), Quantization(name)
                weighed = weigh(quantization, matrix, plan.specs) if matrix else quantization
                write_ggufs({out: weighed}, plan, lambda line: None)
                print(f"| {name} | {mode} | {compared(out, reference, texts[: given.held])}", flush=True)


class Remembering(GgufReader):
    """A reader that computes each text once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._known: dict[tuple[str, tuple[int, ...]], NDArray[np.float32]] = {}

    def hidden_states(self, ids: Sequence[int]) -> NDArray[np.float32]:
        if (key := ("hidden", tuple(ids))) not in self._known:
            self._known[key] = super().hidden_states(ids)
        return self._known[key]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        if (key := ("logits", tuple(ids))) not in self._known:
            self._known[key] = super().logits(ids)
        return self._known[key]


def compared(path: Path, reference: GgufReader, texts: Sequence[str]) -> str:
    """The rest of a row: how far a file is from the one it was made from."""
    reader, next_tokens, distances = GgufReader(path), NextTokens(), []
    for text in texts:
        frame = encode(reader.grit.frame("", text), reader, reader.grit.markers)
        ids, counts = frame.ids[: reader.max_embedded_tokens], np.array(frame.counts[: reader.max_embedded_tokens])
        one, other = (
            each.hidden_states(ids)[counts, : each.grit.dimension].mean(axis=0) for each in (reader, reference)
        )
        distances.append(1 - float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
        next_tokens.add(reader, reference, [reader.control_id(BOS), *reader.tokenize(text)][: reader.max_tokens])
    numbers = f"{np.mean(distances):.4f} | {np.max(distances):.4f} | {next_tokens.divergence:.4f}"
    return f"{numbers} | {next_tokens.agreement:.3f} | {path.stat().st_size / 1e6:.1f} |"


def drawn_passages(eval_dir: Path, num_passages: int) -> list[str]:
    """Passages of all retrieval sets, mixed; the same ones each time."""
    folders = [each for each in sorted(eval_dir.iterdir()) if (each / "qrels.tsv").exists()]
    draw, passages = random.Random(0), []
    for folder in folders:
        found = [text for text in read_retrieval_set(folder).texts.values() if text.strip()]
        passages += draw.sample(found, min(len(found), -(-num_passages // len(folders))))
    draw.shuffle(passages)
    return passages[:num_passages]


def plan_of(path: Path) -> Plan:
    """A plan that makes a GGUF's weights again."""
    reader = gguf.GGUFReader(path)
    fields = {
        key: cast(FieldValue, field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
        and key not in ("general.architecture", "general.file_type", "general.quantization_version")
    }
    name = str(reader.fields["general.architecture"].contents())
    specs = [
        TensorSpec(each.name, "", values.shape, values=values)
        for each in reader.tensors
        for values in [dequantize(each.data, each.tensor_type)]
    ]
    heads, kv_heads = (int(str(fields[f"{name}.attention.{key}"])) for key in ("head_count", "head_count_kv"))
    shape = ModelShape(
        num_layers=int(str(fields[f"{name}.block_count"])),
        heads_per_kv_head=heads // kv_heads,
        num_experts=0,
        tied=all(spec.target != "output.weight" for spec in specs),
    )
    architecture = Architecture()
    architecture.gguf_name = name
    nothing: Any = None  # neither a checkpoint nor a vocabulary is read
    return Plan(nothing, architecture, nothing, nothing, fields, specs, shape)


if __name__ == "__main__":
    main()
