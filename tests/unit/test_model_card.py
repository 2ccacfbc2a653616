"""benchmarks/model_card.py: files of scores -> the table, with what is met, missed and not measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "model_card.py"


def report(path: Path, rows: list[dict[str, Any]], failed: tuple[str, ...] = ()) -> str:
    path.write_text(json.dumps({"sets": rows, "failed": failed}))
    return str(path)


def retrieval(name: str, queries: int = 5, **scores: float) -> dict[str, Any]:
    return {"set": name, "kind": "retrieval", "queries": queries, **{f"{key}@10": each for key, each in scores.items()}}


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def cells(output: str) -> dict[str, list[str]]:
    return {each[0]: each[1:] for each in ([*map(str.strip, line[1:-1].split("|"))] for line in output.splitlines())}


@pytest.fixture
def ours(tmp_path: Path) -> str:
    rows = [
        retrieval("a", ndcg=0.5, hybrid_ndcg=0.62, int8_ndcg=0.497, binary_ndcg=0.48),
        retrieval("b", ndcg=0.6, hybrid_ndcg=0.7, int8_ndcg=0.597, binary_ndcg=0.595),
        {"set": "s", "kind": "sts", "pairs": 9, "spearman": 0.5},
        {"set": "g", "kind": "grounded", "questions": 3, "f1": 0.26, "cited_gold": 0.6999, "refusal_f1": 0.5},
        {"set": "t", "kind": "text", "texts": 3, "bits_per_byte": 1.7},
    ]
    return report(tmp_path / "ours.json", rows)


def test_table_holds_means_losses_and_what_is_met(ours: str, tmp_path: Path) -> None:
    bm25 = [retrieval("a", ndcg=0.6, any_word_ndcg=0.65), retrieval("b", ndcg=0.64, any_word_ndcg=0.69)]
    minilm = [
        retrieval("a", ndcg=0.68, hybrid_ndcg=0.7),
        retrieval("b", ndcg=0.7),
        {"set": "s", "kind": "sts", "pairs": 9, "spearman": 0.6},
    ]
    exact = [retrieval("a", ndcg=0.503), retrieval("b", ndcg=0.604)]
    twin = [retrieval("a", ndcg=0.4), retrieval("b", ndcg=0.5)]
    (tmp_path / "speed.json").write_text(
        json.dumps({"comparisons": [{"texts": "passages together", "tokens_ratio": 2.5, "texts_ratio": 1.75}]})
    )
    done = made(
        *(ours, "--bm25", report(tmp_path / "bm25.json", bm25), "--minilm", report(tmp_path / "m.json", minilm)),
        *("--f32", report(tmp_path / "f32.json", exact), "--speed", str(tmp_path / "speed.json")),
        *("--twin", "embedding alone", report(tmp_path / "twin.json", twin)),
    )
    assert done.stderr == ""
    found = cells(done.stdout)
    assert found.pop("measured") == ["grit-nano", "asked", "met", "BM25", "all-MiniLM-L6-v2", "embedding alone"]
    wanted = {
        "retrieval by the embedding alone, nDCG@10": ["55.0", "0.80 of MiniLM's: 55.2", "no", "–", "69.0", "45.0"],
        "retrieval by words alone, as the app searches": ["–", "", "", "62.0", "–", "–"],
        "retrieval by plain BM25, any word": ["–", "", "", "67.0", "–", "–"],
        # above the app's words, not above plain BM25; a mean of one set of two is none
        "retrieval by both, as the app searches": ["66.0", "above each alone: 67.0", "no", "–", "–", "–"],
        "STS, Spearman": ["50.0", "0.85 of MiniLM's: 51.0", "no", "–", "60.0", "–"],
        "answers from passages, F1": ["26.0", "25", "yes", "–", "–", "–"],
        "answers that cite the gold passage, %": ["70.0", "70", "no", "–", "–", "–"],
        "refusing what the passages do not hold, F1": ["50.0", "50", "yes", "–", "–", "–"],
        "bits per byte of held-out text": ["1.700", "at most 1.6", "no", "–", "–", "–"],
        "lost by quantization, beside F32, points": ["0.35", "at most 0.5", "yes", "–", "–", "–"],
        "lost by embeddings kept in bytes, points": ["0.30", "at most 0.3", "yes", "–", "–", "–"],
        "lost by embeddings kept in bits, 80 rescored, points": ["1.25", "at most 1.0", "no", "–", "–", "–"],
        "passages embedded, tokens/s beside MiniLM's": ["2.50", "2 times", "yes", "–", "–", "–"],
        "the same in texts/s": ["1.75", "", "", "–", "–", "–"],
    }
    assert {name: found[name] for name in wanted} == wanted


def test_what_was_not_measured_is_a_dash_and_neither_met_nor_missed(ours: str) -> None:
    done = made(ours)
    assert done.returncode == 0
    line = cells(done.stdout)["retrieval by the embedding alone, nDCG@10"]
    assert line == ["55.0", "0.80 of MiniLM's: –", "", "–", "–"]


def test_files_of_other_sets_or_with_failures_are_refused(ours: str, tmp_path: Path) -> None:
    fewer = report(tmp_path / "fewer.json", [retrieval("a", ndcg=0.6), retrieval("b", queries=4, ndcg=0.6)])
    broken = report(tmp_path / "broken.json", [retrieval("a", ndcg=0.6)], failed=("b",))
    (tmp_path / "none.json").write_text("[]")
    for arguments, message in (
        ([ours, "--bm25", fewer], "model_card: grit-nano and BM25 differ in their retrieval sets: {'a': 5, 'b': 5}"),
        ([broken], f"model_card: {broken}: b failed"),
        ([str(tmp_path / "none.json")], f"model_card: {tmp_path}/none.json: expected an object with sets"),
        ([str(tmp_path / "absent.json")], f"model_card: cannot read {tmp_path}/absent.json"),
    ):
        done = made(*arguments)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
