"""A proof after a conversion: the GGUF, through the engine people run, gives what its checkpoint gives.

Token ids must be the same; weights, embeddings, next tokens and the cost of texts must be as near as the quantization
type allows. The comparison runs in a child process (converters.comparison), for it loads llama.cpp, which can abort,
and torch, which the app must not; what comes back is a Report.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters import native
from converters.adapter import is_adapter, open_checkpoint
from converters.battery import TEXTS


@dataclass(frozen=True)
class Limits:
    """How far a file of one quantization type may be from its source."""

    worst_cosine: float
    """Least cosine between the embeddings of a text."""
    median_cosine: float
    agreement: float
    """Least share of places with the same likeliest next token."""
    divergence: float
    """Largest mean KL divergence of the next token, in nats."""
    perplexity: float
    """Largest relative change of the perplexity."""


LIMITS = {
    "F32": Limits(0.99999, 0.999999, 0.998, 1e-5, 1e-4),
    "F16": Limits(0.9999, 0.99999, 0.99, 1e-4, 1e-3),
    "BF16": Limits(0.999, 0.9998, 0.95, 1e-3, 0.005),
    "Q8_0": Limits(0.998, 0.999, 0.9, 0.005, 0.01),
    "Q6_K": Limits(0.985, 0.995, 0.8, 0.02, 0.03),
    "Q5": Limits(0.94, 0.97, 0.6, 0.06, 0.08),
    "Q4": Limits(0.85, 0.91, 0.35, 0.2, 0.2),
    "Q3": Limits(0.7, 0.85, 0.25, 0.6, 0.7),
    "Q2": Limits(0.3, 0.55, 0.05, 1.5, 3.0),
}
"""By type, or by the first letters of its family's.

Measured on the battery with a random Llama of two layers, against its F32 checkpoint, and with grit-nano, made again of
its Q8_0 file and held against that:

    random  worst, median cosine      same next token  KL in nats  change of perplexity
    F32     1 - 2e-13   1 - 7e-14     1                5e-13       1e-8
    F16     1 - 6e-7    1 - 3e-7      1.000            5e-7        6e-5
    BF16    0.99996     0.99998       0.984            3e-5        9e-5
    Q8_0    0.9997      0.9998        0.952            3e-4        1e-4
    Q6_K    0.996       0.9985        0.885            0.0025      8e-5
    Q5_0    0.975       0.991         0.744            0.012       0.0024
    Q4_0    0.92        0.962         0.513            0.049       0.0083
    Q3_K_M  0.89        0.943         0.444            0.085       0.011
    Q2_K    0.57        0.78          0.149            0.28        0.0059
    grit-nano
    Q6_K    0.9988      0.9997        0.928            0.006       0.006
    Q5_0    0.992       0.998         0.853            0.023       0.036
    Q4_0    0.974       0.993         0.770            0.076       0.074
    Q3_K_S  0.930       0.973         0.567            0.28        0.33
    Q2_K    0.871       0.940         0.377            0.78        1.4

Random weights are the worst case for cosines and choices, for nothing in them is redundant and hardly a next token
stands out; for KL and perplexity a trained model's sharp choices are. The limits leave room beside both, for deeper
models. A slight mistake of the conversion passes among coarse types, so a new family is proved as F32 or F16 first;
damaged weights show at any type, see converters.weights.
"""


def limits_of(*quantization_types: str) -> Limits:
    """Of a comparison of files of these types: the widest of theirs. An unknown type has those of the coarsest."""
    found = [LIMITS.get(each) or LIMITS.get(each.removeprefix("I")[:2], LIMITS["Q2"]) for each in quantization_types]
    return Limits(
        min(each.worst_cosine for each in found),
        min(each.median_cosine for each in found),
        min(each.agreement for each in found),
        max(each.divergence for each in found),
        max(each.perplexity for each in found),
    )


@dataclass(frozen=True)
class Row:
    """One thing measured, and whether it is near enough."""

    name: str
    value: float
    limit: float
    rule: str
    """`at least` or `at most`: on which side of the limit the value must be."""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """A value that is no number is never."""
        return self.value >= self.limit if self.rule == "at least" else self.value <= self.limit


@dataclass(frozen=True)
class Report:
    """A comparison of two files."""

    model: str
    quantization_type: str
    against: str
    against_type: str
    num_texts: int
    num_tokens: int
    """Of all texts together; a model that generates read each in both attention modes."""
    rows: list[Row]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it: with the verdicts, and None for a value that is no number."""
        rows = [asdict(row) | {"ok": row.ok} for row in self.rows]
        for row in rows:
            row["value"] = row["value"] if math.isfinite(row["value"]) else None
        return asdict(self) | {"rows": rows, "ok": self.ok}


def verify(model: Path, against: Path, texts: Sequence[str] = (), *, base: Path | None = None) -> Report:
    """Compare a GGUF with the checkpoint folder, or the other GGUF, that it should be the same as.

    Args:
        texts: compared on these beside the battery.
        base: of an adapter, as hf_to_gguf.convert has it.
    Raises: ValueError in one line if one of the two cannot be used, torch is missing for a folder, they are not
        the same model's, or a text has other token ids: nothing else is measured then.
    """
    check_reference(against, base)
    paths = [str(each) for each in (model, against, *([base] if base else []))]
    found = native.run_child("converters.comparison", "compare", *paths, stdin=[*dict.fromkeys((*TEXTS, *texts))])
    if "refused" in found:
        raise ValueError(found["refused"])
    return report_from_json(found)


def check_reference(against: Path, base: Path | None = None) -> None:
    """Look at what is to be compared with before time is spent.

    Raises: ValueError if nothing is there, or it is a folder without a checkpoint, or what reads one is not installed.
    """
    if against.is_file():
        return
    if not against.is_dir():
        raise ValueError(f"nothing to compare with at {against}; give a checkpoint folder or another GGUF")
    open_checkpoint(against, base)
    check_installed()
    if is_adapter(against) and importlib.util.find_spec("peft") is None:
        raise ValueError('comparing with an adapter needs peft: pip install "gritdesk[lora]"')


def check_installed() -> None:
    """Raises: ValueError if torch or transformers, which read a checkpoint, are not installed."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f'comparing with a checkpoint needs {" and ".join(missing)}: pip install "gritdesk[train]"; '
            "or compare with a GGUF of type F32 made of it"
        )


def report_from_json(values: dict[str, Any]) -> Report:
    """What `dataclasses.asdict` made of a Report."""
    return Report(**values | {"rows": [Row(**row) for row in values["rows"]]})
