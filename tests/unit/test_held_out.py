"""What the evaluation sets ask or show is found however it is quoted, and left out of training."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_data import write_data

import training.examples
from training.config import TrainConfig
from training.data import Batches, tokenizer_sample
from training.examples import read_sources
from training.held_out import (
    GRAM_WORDS,
    HELD_OUT_FILE,
    MIN_KEPT_SHARED,
    SENTENCE_WORDS,
    WINDOW,
    hold_out,
    read_held_out,
    text_hashes,
    write_held_out,
)
from training.overlap import main
from training.tokenizer import FrameTokenizer, train_tokenizer

SILVER = (
    "His left leg was cut off close by the hip, and under the left shoulder he carried a crutch, which he managed with "
    "wonderful dexterity, hopping about upon it like a bird. He was very tall and strong, with a face as big as a ham"
)
"""Treasure Island, chapter 8, which a passage of nq_gold quotes."""
RNG = random.Random(1)
WORDS = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5000)]


def words(num: int) -> list[str]:
    return RNG.choices(WORDS, k=num)


# ---------------------------------------------------------------- hashes


def test_hashes_are_the_same_everywhere_and_know_no_case_and_no_punctuation() -> None:
    plain = text_hashes("one two three four five six seven eight nine ten été")
    assert [f"{each:016x}" for each in plain.grams] == ["73a1ce3161cb7692", "19e3b684532c7d0b"]
    assert [f"{each:016x}" for each in plain.wholes] == ["408eb4ff4b0816a4"]
    for text in (
        "  One, two (three) four_five SIX\tseven — eight; nine ten “Été”!",
        "one two\n\nthree\u2028four five six seven eight nine ten ÉTÉ",
    ):
        assert text_hashes(text).grams.tolist() == plain.grams.tolist()


def test_each_run_of_words_has_one_hash_wherever_it_stands() -> None:
    text = words(300)
    grams = text_hashes(" ".join(text)).grams
    assert len(grams) == 300 - GRAM_WORDS + 1 == len(set(grams.tolist()))
    for at in (0, 7, 290):
        run = " ".join(text[at : at + GRAM_WORDS])
        assert text_hashes(run).grams.tolist() == [grams[at]]
        assert text_hashes("x " * at + run + "!").grams[-1] == grams[at]


@pytest.mark.parametrize("text", ["", " \n ", "...", "a", "a b c d", "\ud800", "日本語のテキスト"])
def test_text_of_few_words_has_no_hash(text: str) -> None:
    found = text_hashes(text)
    assert not len(found.grams) and not len(found.wholes) and not len(found.sentences)


def test_one_changed_letter_even_far_into_a_long_word_is_another_hash() -> None:
    long = "a" * 1000
    text = f"one two three four {long} six"
    assert text_hashes(text).wholes[0] != text_hashes(text.replace(long, long[:-1] + "b")).wholes[0]


# ---------------------------------------------------------------- what is held out


def test_any_quotation_of_29_words_is_held_out() -> None:
    passages = [words(num) for num in (29, 40, 400) for _ in range(3)]
    held_out = hold_out(("set/corpus", " ".join(each)) for each in passages)
    shortest = GRAM_WORDS - 1 + MIN_KEPT_SHARED * WINDOW
    assert shortest == SENTENCE_WORDS.stop == 29
    for passage in passages:
        for at in range(0, len(passage) - shortest + 1, 3):
            quoted = passage[at : at + shortest]
            assert held_out.holds([" ".join([*words(at % 7), *quoted, *words(5)])])
    assert not any(held_out.holds([" ".join(words(300))]) for _ in range(100))


def test_shared_phrase_is_not_held_out() -> None:
    phrase = words(GRAM_WORDS)
    held_out = hold_out([("set/corpus", " ".join([*words(50), *phrase, *words(50)]))])
    assert not held_out.holds([" ".join([*words(20), *phrase, *words(20)])])


@pytest.mark.parametrize(
    ("row", "is_held_out"),
    [
        (["Where does the otter live, then?"], True),
        (["Otter (noun): where does the otter live then; a question. Example: none."], True),
        (["Of otters\nWhere does the Otter live, then\nNobody knows"], True),
        (["It cost 2.5 pounds at the mill."], True),
        (["Where does the otter live, then, asked the heron."], False),
        (["What is this?"], False),
        ([], False),
    ],
)
def test_short_text_is_held_out_as_a_whole_sentence(row: list[str], is_held_out: bool) -> None:
    texts = ["where does the otter live, then?", "What is this?", "It cost 2.5 pounds at the mill."]
    assert hold_out(("set/queries", text) for text in texts).holds(row) == is_held_out


def test_a_row_is_judged_by_all_its_texts_together() -> None:
    passage = words(60)
    held_out = hold_out([("set/corpus", " ".join(passage))])
    halves = [" ".join(passage[:30]), " ".join(passage[30:])]
    assert held_out.holds(["x", halves[1]]) and held_out.holds([halves[0], "y"])


# ---------------------------------------------------------------- the file


def test_written_hashes_are_read_again(tmp_path: Path) -> None:
    held_out = hold_out((f"set/{number % 3}", " ".join(words(number))) for number in range(60))
    write_held_out(tmp_path / "a.npz", held_out)
    again = read_held_out(tmp_path / "a.npz")
    assert again.num_texts == held_out.num_texts == {"set/0": 20, "set/1": 20, "set/2": 20}
    assert np.array_equal(again.grams, held_out.grams) and np.array_equal(again.wholes, held_out.wholes)


@pytest.mark.parametrize("content", [None, b"", b"no"])
def test_file_without_hashes_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz holds no hashes"):
        read_held_out(tmp_path / "a.npz")


def test_committed_file_holds_the_sets_recorded_here() -> None:
    held_out = read_held_out()
    assert held_out.num_texts == {
        "banking77/data": 13083,
        "cranfield/corpus": 1398,
        "cranfield/queries": 225,
        "fairytaleqa_test/corpus": 365,
        "fairytaleqa_test/queries": 920,
        "gnome_help/corpus": 260,
        "gnome_help/queries": 516,
        "grounded_fairytale/data": 1680,
        "grounded_nq/data": 2800,
        "medquad_held/corpus": 3039,
        "medquad_held/queries": 725,
        "nq_gold/corpus": 2587,
        "nq_gold/queries": 2655,
        "sts12/pairs": 4300,
        "sts13/pairs": 2998,
        "sts14/pairs": 7346,
        "sts15/pairs": 5980,
        "stsb_dev/pairs": 3000,
        "stsb_test/pairs": 2758,
    }
    for hashes, num, digest in (
        (held_out.grams, 166_026, "03d0f7dd135e27f3"),
        (held_out.wholes, 35_896, "f23cbf7d08188477"),
    ):
        assert len(hashes) == num and bool((np.diff(hashes.astype(np.int64)) > 0).all())
        assert hashlib.sha256(hashes.astype("<u8").tobytes()).hexdigest()[:16] == digest
    assert HELD_OUT_FILE.stat().st_size < 700_000


# ---------------------------------------------------------------- training


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data_dir=str(write_data(tmp_path / "data")),
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=6,
        generation_tokens=120,
    )


QUOTING: dict[str, dict[str, Any]] = {
    "pairs": {"query": ["Find", "Who is Silver?"], "pos": ["A cook."], "neg": [["", f"Said Jim: {SILVER}."]]},
    "chat": {"text": ["Who is Silver?", f"{SILVER} [1]."]},
    "text": {"text": f"The Spy-glass. {SILVER.upper()}, plain and pale"},
}


@pytest.mark.parametrize("kind", QUOTING)
def test_row_that_quotes_an_evaluation_passage_is_never_drawn(config: TrainConfig, kind: str) -> None:
    path = Path(config.data_dir) / kind / "animals.jsonl"
    path.write_text(path.read_text() + f"{json.dumps(QUOTING[kind])}\n" * 6)
    sources = read_sources(config)
    every: dict[str, list[Any]] = {"pairs": sources.pairs, "chat": sources.chats, "text": sources.texts}
    [source] = every[kind]
    assert len(source.draw(random.Random(1), len(source.rows))) == 12
    assert not any("leg was cut" in str(each).lower() for each in source.draw(random.Random(2), 12))
    assert not any("leg was cut" in text.lower() for text in tokenizer_sample(sources, 1, 1))
    assert sources.dropped()["animals: held out for evaluation"] >= 6
    assert set(sources.dropped()) == {"animals: held out for evaluation"}


def test_holding_out_changes_no_other_batch(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> list[Any]:
        sources = read_sources(config)
        tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
        batches = Batches(sources, tokenizer, config)
        rows = [
            each for step in range(3) for each in (*batches.embedding(step).passages, *batches.generation(step).rows)
        ]
        return [each.ids_BT.tolist() for each in rows]

    held = drawn()
    monkeypatch.setattr(training.examples, "read_held_out", lambda: hold_out([]))
    assert held == drawn()


# ---------------------------------------------------------------- python -m training.overlap


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    sets: dict[str, list[dict[str, Any]]] = {
        "fishing/corpus": [
            {"_id": "1", "title": "Silver", "text": SILVER},
            {"_id": "wd2", "title": "", "text": " ".join(WORDS[:60])},
        ],
        "fishing/queries": [{"_id": "q1", "text": "Where does the stoat sleep now?"}],
        "alike/pairs": [{"sentence1": "The newt is under a stone.", "sentence2": "Short.", "score": 1.0}],
        "cited/data": [{"question": "Who?", "documents": [" ".join(WORDS[100:150])], "answers": ["an otter"]}],
        "ranked/candidates": [{"query": "Which?", "positive": [" ".join(WORDS[200:250])], "negative": []}],
    }
    for name, rows in sets.items():
        path = tmp_path / "eval" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_data(tmp_path / "data"), tmp_path / "eval"


def plant(data: Path, kind: str, row: dict[str, Any]) -> None:
    path = data / kind / "animals.jsonl"
    path.write_text(path.read_text() + json.dumps(row) + "\n")


def test_data_without_overlap_exits_with_0(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    plant(folders[0], "text", {"text": " ".join(WORDS[:60])})  # a distractor
    plant(folders[0], "text", {"text": " "})
    assert main([str(each) for each in folders]) == 0
    assert capsys.readouterr().out.startswith("0 of 37 rows overlap")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (QUOTING["text"], "fishing/corpus"),
        ({"text": f"Once. {' '.join(WORDS[105:145])}"}, "cited/data"),
        ({"text": f"Once. {' '.join(WORDS[200:250])}"}, "ranked/candidates"),
        ({"text": "Asked: where does the stoat sleep now? Nowhere."}, "fishing/queries"),
        ({"text": "The newt is under a stone"}, "alike/pairs"),
    ],
)
def test_planted_overlap_is_found_and_named(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], row: dict[str, Any], name: str
) -> None:
    plant(folders[0], "text", row)
    assert main([str(each) for each in folders]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[0].startswith(f"{folders[0] / 'text' / 'animals.jsonl'}, line 13: ")
    assert f" of {name}" in told[0] and told[1].endswith(f"1 rows overlap with {name}")


@pytest.mark.parametrize("kind", QUOTING)
def test_overlap_that_training_leaves_out_may_be_passed_over(folders: tuple[Path, Path], kind: str) -> None:
    plant(folders[0], kind, QUOTING[kind])
    assert main([str(each) for each in folders]) == 1
    assert main([*(str(each) for each in folders), "--as-trained"]) == 0


def test_sample_is_written_on_request(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert main([str(folders[1]), "--write", str(tmp_path / "a.npz")]) == 0
    held_out = read_held_out(tmp_path / "a.npz")
    assert held_out.holds([SILVER]) and held_out.holds([" ".join(WORDS[100:150])])
    assert not held_out.holds([" ".join(WORDS[:60])])


def damage(data: Path, evaluation: Path) -> None:
    (data / "text" / "animals.jsonl").write_text('{"query": "a"}\n')


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data, evaluation: data.rename(data.with_name("elsewhere")), "holds no training data"),
        (lambda data, evaluation: evaluation.rename(evaluation.with_name("elsewhere")), "holds no evaluation set"),
        (damage, "animals.jsonl, line 1: expected text"),
    ],
)
def test_folder_that_cannot_be_compared_is_named(
    folders: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, Path], None],
    reason: str,
) -> None:
    spoil(*folders)
    assert main([str(each) for each in folders]) == 1
    assert reason in capsys.readouterr().err
