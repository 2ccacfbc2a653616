"""Tokenizer files become tokens, types and special ids; what llama.cpp would read differently is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tiny import MODERN_WORDS, TOKENIZERS, VOCAB_SIZE, copy_tokenizer

from converters.byte_level import pre_tokenizer_name
from converters.piece_table import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from converters.sentencepiece_model import read_sentencepiece
from converters.vocab import Vocab, read_vocab
from gritdesk.grit_format import CHAT_TEMPLATE


@pytest.fixture
def bpe(tmp_path: Path) -> Path:
    copy_tokenizer(tmp_path, "bpe")
    return tmp_path


@pytest.fixture
def spm(tmp_path: Path) -> Path:
    copy_tokenizer(tmp_path, "sentencepiece")
    return tmp_path


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(folder: Path, size: int = VOCAB_SIZE, **config: Any) -> Vocab:
    return read_vocab(folder, config, size)


def test_special_tokens_become_control_tokens(bpe: Path) -> None:
    vocab = read(bpe)
    assert vocab.tokens[:6] == ["<s>", "</s>", "<|user|>", "<|embed|>", "<|assistant|>", "<|pad|>"]
    assert vocab.types == [CONTROL] * 6 + [NORMAL] * (VOCAB_SIZE - 6)
    assert vocab.special_ids == {"bos": 0, "eos": 1, "pad": 5}
    assert vocab.markers == "special"


def test_markers_are_never_user_defined_since_a_text_could_spell_those(bpe: Path) -> None:
    def as_ordinary_added_tokens(spec: dict[str, Any]) -> None:
        for token in spec["added_tokens"]:
            token["special"] = token["content"] in ("<s>", "</s>")

    change_json(bpe / "tokenizer.json", as_ordinary_added_tokens)
    assert read(bpe).types[:6] == [CONTROL] * 5 + [USER_DEFINED]


def test_vocabulary_is_filled_up_to_the_embedding_matrix(bpe: Path) -> None:
    vocab = read(bpe, VOCAB_SIZE + 8)
    assert vocab.types[-8:] == [UNUSED] * 8
    assert len(set(vocab.tokens)) == VOCAB_SIZE + 8


def test_tokenizer_larger_than_the_embedding_matrix_is_refused(bpe: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer has 600 tokens, config.json vocab_size is 599"):
        read(bpe, VOCAB_SIZE - 1)


def test_merges_are_read_as_pairs_and_as_strings(bpe: Path) -> None:
    as_pairs = read(bpe).table.merges

    def join(spec: dict[str, Any]) -> None:
        spec["model"]["merges"] = [" ".join(merge) for merge in spec["model"]["merges"]]

    change_json(bpe / "tokenizer.json", join)
    assert read(bpe).table.merges == as_pairs and len(as_pairs) > 300


def test_sentencepiece_file_is_read_as_the_library_reads_it() -> None:
    path = TOKENIZERS / "sentencepiece" / "tokenizer.model"
    library, found = sentencepiece.SentencePieceProcessor(model_file=str(path)), read_sentencepiece(path)
    ids = range(len(library))
    assert found.pieces == [library.id_to_piece(each) for each in ids]
    assert found.scores == [library.get_score(each) for each in ids]
    assert [kind == BYTE for kind in found.types] == [library.is_byte(each) for each in ids]
    assert [kind == CONTROL for kind in found.types] == [library.is_control(each) for each in ids]
    assert (found.bos_id, found.eos_id, found.add_space_prefix) == (library.bos_id(), library.eos_id(), True)
    assert not (found.remove_extra_whitespaces or found.normalizes)


def test_scores_from_a_tokenizer_json_order_pieces_as_the_model_does(spm: Path) -> None:
    from_model = read(spm)
    (spm / "tokenizer.model").unlink()
    from_json = read(spm)
    assert from_json.tokens == from_model.tokens and from_json.types == from_model.types
    assert from_json.special_ids == from_model.special_ids == {"bos": 1, "eos": 2, "unk": 0}
    assert from_json.table.add_space_prefix and from_model.markers == "text"
    scores = [vocab.table.scores or {} for vocab in (from_json, from_model)]
    merged = [each for each, piece in enumerate(from_json.tokens) if from_json.types[each] == NORMAL and len(piece) > 1]
    by_score = [sorted(merged, key=lambda each: -score[each]) for score in scores]  # noqa: B023  used at once
    assert by_score[0] == by_score[1]


def test_model_without_any_json_is_enough(spm: Path) -> None:
    for path in spm.glob("*.json"):
        path.unlink()
    assert read(spm).special_ids == {"bos": 1, "eos": 2}
    assert read(spm).types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]


@pytest.mark.parametrize(
    ("words", "normalizer", "name"),
    [
        (None, None, "gpt-2"),
        (MODERN_WORDS, None, "llama-bpe"),
        (MODERN_WORDS.replace("{1,3}", ""), None, "qwen2"),
        (MODERN_WORDS.replace("{1,3}", ""), {"type": "NFC"}, "qwen2"),
    ],
)
def test_pre_tokenizer_is_named_by_its_regular_expression(words: Any, normalizer: Any, name: str) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": words is None}
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, byte_level]} if words else byte_level
    assert pre_tokenizer_name(Path(), {"pre_tokenizer": steps, "normalizer": normalizer}) == name


def test_digits_taken_one_by_one_have_a_name(bpe: Path) -> None:
    copy_tokenizer(bpe, "bpe", "smollm")
    assert read(bpe).table.pre == "smollm"


@pytest.mark.parametrize(
    ("step", "normalizer"),
    [
        ({"type": "ByteLevel", "add_prefix_space": True}, None),
        ({"type": "ByteLevel", "add_prefix_space": False}, {"type": "Lowercase"}),
        ({"type": "ByteLevel", "add_prefix_space": False}, {"type": "NFC"}),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}, None),
    ],
)
def test_unknown_pre_tokenizer_is_refused_by_name(bpe: Path, step: Any, normalizer: Any) -> None:
    change_json(bpe / "tokenizer.json", lambda spec: spec.update(pre_tokenizer=step, normalizer=normalizer))
    with pytest.raises(ValueError, match=r"pre-tokenizer .*ByteLevel is unknown; known: gpt-2, llama-bpe, qwen2"):
        read(bpe)


def test_unknown_words_are_shown(bpe: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated"}
    steps = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "use_regex": False}]}
    change_json(bpe / "tokenizer.json", lambda spec: spec.update(pre_tokenizer=steps))
    with pytest.raises(ValueError, match=r"Split\(\\w\+\) \+ ByteLevel is unknown"):
        read(bpe)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_other_kinds_of_tokenizer_are_refused(bpe: Path, kind: str) -> None:
    change_json(bpe / "tokenizer.json", lambda spec: spec["model"].update(type=kind))
    with pytest.raises(ValueError, match=f"a {kind} tokenizer cannot be converted"):
        read(bpe)


def train_other(folder: Path, **settings: Any) -> None:
    """Put another SentencePiece model into the folder, alone."""
    for path in folder.iterdir():
        path.unlink()
    prefix = str(folder / "tokenizer")
    kept = {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False}
    kept |= {"normalization_rule_name": "identity", "vocab_size": 400, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        input=str(TOKENIZERS / "corpus.txt"), model_prefix=prefix, **(kept | settings)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "unigram"}, "only SentencePiece BPE"),
        ({"normalization_rule_name": "nmt_nfkc"}, "changes characters or spaces"),
        ({"remove_extra_whitespaces": True}, "changes characters or spaces"),
        ({"byte_fallback": False, "vocab_size": 200}, "no piece <0x00>"),
    ],
)
def test_sentencepiece_models_that_llama_cpp_reads_differently_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    train_other(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_user_defined_pieces_are_searched_for_as_a_text_spells_them(tmp_path: Path) -> None:
    train_other(tmp_path, user_defined_symbols=["▁▁", "\n\n"], add_dummy_prefix=False)
    vocab = read(tmp_path)
    assert not vocab.table.add_space_prefix
    assert {piece: vocab.types[vocab.tokens.index(piece)] for piece in ("  ", "\n\n")} == {"  ": 4, "\n\n": 4}


def test_tokenizer_json_is_preferred_where_sentencepiece_cuts_out_pieces_first(tmp_path: Path) -> None:
    train_other(tmp_path, user_defined_symbols=["▁▁"], add_dummy_prefix=False)
    model = (tmp_path / "tokenizer.model").read_bytes()
    copy_tokenizer(tmp_path, "sentencepiece", "gemma")
    (tmp_path / "tokenizer.model").write_bytes(model)
    spec = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert set(spec["model"]["vocab"]) <= set(read(tmp_path).tokens)


def test_added_token_that_the_model_has_no_row_for_is_left_out(tmp_path: Path) -> None:
    copy_tokenizer(tmp_path, "sentencepiece", "gemma")
    assert "<image>" not in read(tmp_path).tokens
    assert "<image>" in read(tmp_path, VOCAB_SIZE + 1).tokens


def test_special_ids_come_from_config_where_the_tokenizer_names_none(bpe: Path) -> None:
    (bpe / "tokenizer_config.json").unlink()
    assert read(bpe, bos_token_id=0, eos_token_id=[1, 2], pad_token_id=-1).special_ids == {"bos": 0, "eos": 1}
    with pytest.raises(ValueError, match="names no bos_token"):
        read(bpe, eos_token_id=1)
    with pytest.raises(ValueError, match="eos_token_id is 7000"):
        read(bpe, bos_token_id=0, eos_token_id=7000)


def test_special_token_the_tokenizer_does_not_hold_is_refused(bpe: Path) -> None:
    change_json(bpe / "tokenizer_config.json", lambda settings: settings.update(eos_token={"content": "<eot>"}))
    with pytest.raises(ValueError, match="eos_token is '<eot>', which the tokenizer does not hold"):
        read(bpe)


def test_chat_template_is_the_checkpoints_own_or_grits(bpe: Path) -> None:
    assert read(bpe).chat_template == CHAT_TEMPLATE
    change_json(bpe / "tokenizer_config.json", lambda settings: settings.update(chat_template="one"))
    assert read(bpe).chat_template == "one"
    several = [{"name": "tools", "template": "two"}, {"name": "default", "template": "three"}]
    change_json(bpe / "tokenizer_config.json", lambda settings: settings.update(chat_template=several))
    assert read(bpe).chat_template == "three"
    (bpe / "chat_template.jinja").write_text("four", encoding="utf-8")
    assert read(bpe).chat_template == "four"


def test_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither tokenizer.json nor tokenizer.model"):
        read(tmp_path)


@pytest.mark.parametrize("spec", ["{}", '{"model": {"vocab": {}}}', '{"model": 3}', "[]", "{"])
def test_damaged_tokenizer_json_is_refused(bpe: Path, spec: str) -> None:
    (bpe / "tokenizer.json").write_text(spec, encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer"):
        read(bpe)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 5000])
def test_damaged_tokenizer_model_is_refused(spm: Path, cut: int) -> None:
    (spm / "tokenizer.json").unlink()
    data = (TOKENIZERS / "sentencepiece" / "tokenizer.model").read_bytes()
    (spm / "tokenizer.model").write_bytes(data[:cut])
    with pytest.raises(ValueError, match=r"tokenizer\.model"):
        read(spm)


def test_tiktoken_file_beside_a_byte_level_tokenizer_is_not_taken_for_sentencepiece(bpe: Path) -> None:
    shutil.copy(TOKENIZERS / "corpus.txt", bpe / "tokenizer.model")
    assert read(bpe).table.model == "gpt2"
