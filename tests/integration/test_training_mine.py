"""Hard negatives are the nearest passages that are no answers, and the file is whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray
from tiny import make_checkpoint

from gritdesk.records import EmbeddingInput
from training.examples import read_rows
from training.mine import Rule, Texts, limits, main, mine, nearest_below

ASK = "Find the answer"


class AngleEmbedder:
    """Each text is a direction in the plane: its last word, in degrees. Remembers what it was asked."""

    dimension = 2

    def __init__(self) -> None:
        self.asked: list[EmbeddingInput] = []

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        self.asked += inputs
        angles = np.deg2rad([float(text.split()[-1]) for _, text in inputs])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("mine") / "model")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


def mined(tmp_path: Path, rows: Sequence[dict[str, Any]], rule: Rule, corpus: Sequence[Path] = ()) -> list[list[str]]:
    """Texts of each row's negatives."""
    texts = Texts(write_rows(tmp_path / "pairs.jsonl", rows), corpus)
    mine(AngleEmbedder(), texts, tmp_path / "out.jsonl", rule)
    found = list(read_rows(tmp_path / "out.jsonl", 1000))
    return [[each if isinstance(each, str) else each[1] for each in row["neg"]] for row in found]


# ---------------------------------------------------------------- which


def test_what_reaches_the_share_of_the_positives_score_is_no_negative(tmp_path: Path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", [{"text": f"passage {angle}"} for angle in (5, 19, 30, 31, 33, 60, 90)])
    # the positive's cosine is cos 25 = 0.906, of which 0.95 are 0.861 = cos 30.6
    row = {"query": "question 0", "pos": ["positive 25"]}
    assert mined(tmp_path, [row], Rule(3), [corpus]) == [["passage 31", "passage 33", "passage 60"]]
    assert mined(tmp_path, [row], Rule(2, max_share=1.0), [corpus]) == [["passage 30", "passage 31"]]
    assert mined(tmp_path, [row], Rule(2, skip=1), [corpus]) == [["passage 33", "passage 60"]]
    assert mined(tmp_path, [row], Rule(9), [corpus])[0][-1] == "passage 90"


def test_least_similar_of_several_positives_is_the_measure(tmp_path: Path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", [{"text": f"passage {angle}"} for angle in (30, 50, 62, 70)])
    row = {"query": "question 0", "pos": ["positive 10", "positive 60"]}
    # 0.95 cos 60 = 0.475 = cos 61.6
    assert mined(tmp_path, [row], Rule(4), [corpus]) == [["passage 62", "passage 70"]]


def test_search_by_blocks_is_the_plain_search() -> None:
    rng = np.random.default_rng(3)
    query_QD, passage_ND = (rng.normal(size=(num, 8)).astype(np.float32) for num in (23, 101))
    query_QD /= np.linalg.norm(query_QD, axis=1, keepdims=True)
    passage_ND /= np.linalg.norm(passage_ND, axis=1, keepdims=True)
    positives = [rng.choice(101, size=rng.integers(1, 4), replace=False).tolist() for _ in range(23)]
    excluded = [{*each, int(rng.integers(101))} for each in positives]
    limit_Q = limits(query_QD, passage_ND, positives, 0.95)
    found, num_over = nearest_below(query_QD, passage_ND, limit_Q, excluded, 12, block=(5, 9))
    for row in range(23):
        score_N = passage_ND @ query_QD[row]
        lowest = min(score_N[each] for each in positives[row])
        limit = 0.95 * lowest if lowest > 0 else lowest
        ranked = [int(each) for each in np.argsort(-score_N) if each not in excluded[row]]
        below = [each for each in ranked if score_N[each] < limit]
        assert [each for each in found[row].tolist() if each >= 0] == below[:12]
        assert num_over[row] == len(ranked) - len(below)


def test_no_positive_of_the_query_in_any_spelling_or_row_is_mined(tmp_path: Path) -> None:
    rows = [
        {"query": [ASK, "Where 0"], "pos": [["", "The river  40"]], "neg": [["", "the RIVER 40"], ["", "Noon 80"]]},
        {"query": [ASK, "where  0"], "pos": [["", "The bank 45"]], "neg": [["", "Where 0"]]},
        {"query": [ASK, "Other 200"], "pos": [["", "Other answer 210"]], "neg": [["", "Dawn 85"], ["", "noon\n80"]]},
    ]
    found = mined(tmp_path, rows, Rule(10, max_share=1.0))
    assert found[0] == found[1] == ["Noon 80", "Dawn 85", "Other answer 210"]
    assert sorted(found[2]) == sorted(["The river  40", "The bank 45", "Noon 80", "Dawn 85", "Where 0"])


# ---------------------------------------------------------------- how they are written


def test_order_instructions_and_other_fields_are_kept(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "query": [ASK, "q 0"], "pos": [["Read", "p 20"]], "neg": [["Read", "n 50"]]},
        {"query": "q 90", "pos": ["p 110"]},
        {"query": "", "pos": ["left as it is 0"]},
        {"query": [ASK, "q 180"], "pos": [["", "p 200"], ["", "p 210"]], "neg": []},
    ]
    texts = Texts(write_rows(tmp_path / "pairs.jsonl", rows), [])
    embedder = AngleEmbedder()
    mine(embedder, texts, tmp_path / "out.jsonl", Rule(2))
    assert list(read_rows(tmp_path / "out.jsonl", 10)) == [
        rows[0] | {"neg": [["Read", "n 50"], ["", "p 110"]]},
        rows[1] | {"neg": [["Read", "n 50"], ["Read", "p 20"]]},
        rows[2],
        rows[3] | {"neg": [["", "p 110"], ["Read", "n 50"]]},
    ]
    assert embedder.asked[:3] == [(ASK, "q 0"), ("", "q 90"), (ASK, "q 180")]
    assert ("Read", "p 20") in embedder.asked


def test_negatives_that_are_there_stay_in_front_if_asked(tmp_path: Path) -> None:
    rows = [{"query": "q 0", "pos": ["p 20"], "neg": ["far 120", "near 40"]}, {"query": "q 90", "pos": ["p 100"]}]
    assert mined(tmp_path, rows, Rule(2))[0] == ["near 40", "p 100"]
    assert mined(tmp_path, rows, Rule(2, keep=True))[0] == ["far 120", "near 40", "p 100"]


def test_report_says_what_the_rule_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = [{"text": f"near {angle}"} for angle in (1, 2, 3, 4, 5)]
    rows = [{"query": "q 0", "pos": ["p 10"]}, {"query": "q 180", "pos": ["p 181"]}]
    mined(tmp_path, rows, Rule(1), [write_rows(tmp_path / "c.jsonl", near)])
    report = capsys.readouterr().err
    assert "2 queries, 7 passages" in report
    assert "1 queries with 0 candidates at 0.95" in report and "1 queries with 4 to 10 candidates at 0.95" in report
    assert "0 queries with fewer than 1 hard negatives, 0 with none" in report


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
def test_command_mines_with_a_real_checkpoint(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    rows = [
        {"query": [ASK, f"Where does the {name} live?"], "pos": [["", f"The {name} lives by the {place}."]]}
        for name, place in (("otter", "river"), ("lynx", "rock"), ("wren", "hedge"), ("newt", "pond"))
    ]
    pairs, out = write_rows(tmp_path / "pairs.jsonl.zst", rows), tmp_path / f"out.jsonl{suffix}"
    options = ["--num", "2", "--max-share", "1", "--threads", "1"]
    assert main([str(checkpoint), str(pairs), str(out), *options]) == 0
    found = list(read_rows(out, 10))
    assert [(row["query"], row["pos"]) for row in found] == [(row["query"], row["pos"]) for row in rows]
    passages = [row["pos"][0] for row in rows]
    assert all(each in passages and each not in row["pos"] for row in found for each in row["neg"])
    assert any(row["neg"] for row in found)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([out.name, pairs.name])


@pytest.mark.parametrize(
    ("line", "message"), [('{"query": 3, "pos": []}', "pairs.jsonl, line 2: expected a string"), ("{", "line 2")]
)
def test_bad_line_is_named_before_the_teacher_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"query": "q", "pos": ["p"]}])
    with pairs.open("a") as file:
        file.write(line + "\n")
    assert main(["no_such_teacher", str(pairs), str(tmp_path / "out.jsonl")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("options", [["--num", "0"], ["--max-share", "1.5"], ["--max-share", "0"], ["--skip", "-1"]])
def test_settings_that_say_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["teacher", str(tmp_path / "pairs.jsonl"), str(tmp_path / "out.jsonl"), *options]) == 1
    assert "expected num from 1" in capsys.readouterr().err


def test_folder_that_is_not_there_is_named_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teacher", str(tmp_path / "pairs.jsonl"), str(tmp_path / "nowhere" / "out.jsonl")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_kill_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("what was there\n")
    half_written = (
        "import os, signal, sys; from pathlib import Path; from training.mine import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half a row'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", half_written, str(out)], env=os.environ, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert out.read_text() == "what was there\n"
    assert out.with_name("out.jsonl.new").read_bytes() == b"half a row"


def test_error_half_way_leaves_no_file(tmp_path: Path) -> None:
    class Broken(AngleEmbedder):
        def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
            raise ValueError("the teacher broke")

    texts = Texts(write_rows(tmp_path / "pairs.jsonl", [{"query": "q", "pos": ["p"]}]), [])
    with pytest.raises(ValueError, match="the teacher broke"):
        mine(Broken(), texts, tmp_path / "out.jsonl", Rule())
    assert [each.name for each in tmp_path.iterdir()] == ["pairs.jsonl"]
