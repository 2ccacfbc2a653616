"""Where answers are copied from, and heads that learn to look there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_families import family_decoder
from training_data import write_grounded

from gritdesk.grit_format import REFUSAL, chat_frame, documents_turn, encode
from gritdesk.records import Turn
from training.config import TrainConfig
from training.data import (
    Batches,
    BranchedFrame,
    GenerationBatch,
    TokenRows,
    join_endings,
    pad_packed,
    pad_rows,
    tokenizer_sample,
    with_sources,
)
from training.examples import read_sources
from training.model import GritModel
from training.pointing import NOWHERE, cited_blocks, watched_heads
from training.steps import grit_step
from training.tokenizer import FrameTokenizer, train_tokenizer

PASSAGES = ["A river is wide. The otter sleeps by the river at noon.", "A heron met the badger."]
ANSWERS = [["Where?", "[1] by the river"], ["Whom did the heron meet?", "[2] the badger"], ["Who sings?", REFUSAL]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FrameTokenizer:
    data = write_grounded(tmp_path_factory.mktemp("pointing") / "data")
    sources = read_sources(TrainConfig(data_dir=str(data), chat={"grounded": 1.0}, mode="generation"))
    return FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))


def frame_of(answers: Sequence[Sequence[str]], tokenizer: FrameTokenizer) -> BranchedFrame:
    chats = [[Turn("user", documents_turn(PASSAGES, q)), Turn("assistant", a)] for q, a in answers]
    return with_sources(join_endings([encode(chat_frame(turns, blocks=True), tokenizer, "special") for turns in chats]))


def test_an_answer_is_copied_from_its_passage_and_its_label(tokenizer: FrameTokenizer) -> None:
    frame = frame_of(ANSWERS, tokenizer)
    text = [tokenizer.tokenizer.decode([token]) for token in frame.ids]
    for number, (_, answer) in enumerate(ANSWERS, start=1):
        targets = [at for at, counts in enumerate(frame.counts) if counts and frame.branches[at] == number]
        sources = [frame.sources[at] for at in targets]
        if answer == REFUSAL:
            assert sources == [0] + [NOWHERE] * (len(sources) - 1)
            continue
        bracket, digit, _, *words, end = sources
        label = answer[1]
        assert text[digit] == label and text[digit - 1] == "[" and bracket == words[0]
        assert frame.blocks[digit] == 0 and frame.blocks[digit - 3] == int(label), "the label behind the passage"
        assert end == NOWHERE
        assert words == list(range(words[0], words[0] + len(words))), (
            "one stretch, though its words stand elsewhere too"
        )
        assert "".join(text[at] for at in words) == answer[3:]
        assert {frame.blocks[at] for at in words} == {int(label)}


def test_an_answer_of_words_from_elsewhere_copies_those_it_shares(tokenizer: FrameTokenizer) -> None:
    frame = frame_of([["Who?", "[1] Quite surely the otter"]], tokenizer)
    sources = [frame.sources[at] for at, counts in enumerate(frame.counts) if counts]
    *before, last, end = sources
    passage = tokenizer.tokenizer.decode([frame.ids[at] for at in range(last + 1)])
    assert end == NOWHERE and passage.endswith("The otter")
    assert NOWHERE in before, "what no passage says is the model's own"


def test_a_chat_without_passages_points_nowhere(tokenizer: FrameTokenizer) -> None:
    turns = [Turn("user", "Good morning"), Turn("assistant", "Good morning!")]
    frame = with_sources(encode(chat_frame(turns, blocks=True), tokenizer, "special"))
    assert set(frame.sources) == {NOWHERE}
    assert cited_blocks(frame.ids, frame.counts, frame.blocks, frame.branches) == []


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_what_is_asked_of_a_head_is_its_attention(family: str, tokenizer: FrameTokenizer) -> None:
    frames = [frame_of(ANSWERS[:1], tokenizer), frame_of(ANSWERS, tokenizer)]
    rows = pad_packed(frames, [[0, 1]], tokenizer.pad_id)
    decoder = family_decoder(family, vocab_size=400, num_layers=3, window=8, attention="eager").eval()
    model = GritModel(decoder, passages="bidirectional_blocks", precision="fp32")
    weight_BT = rows.counts_BT * torch.rand(rows.ids_BT.shape)
    mask = model._generation_mask(rows)
    assert rows.source_BT is not None
    with torch.no_grad(), watched_heads(decoder, 2, rows.source_BT, weight_BT, mask) as missed:
        output = decoder.model(
            input_ids=rows.ids_BT, attention_mask=mask, position_ids=rows.positions_BT, output_attentions=True
        )
    assert len(missed) == 2
    for loss, attention_BHTT in zip(missed, output.attentions[-2:], strict=True):
        expected = sum(
            -weight_BT[0, at] * attention_BHTT[0, -1, at - 1, rows.source_BT[0, at]].log()
            for at in range(rows.ids_BT.shape[1])
            if rows.source_BT[0, at] != NOWHERE and rows.counts_BT[0, at]
        )
        assert float(expected) > 1.0
        assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_heads_learn_to_look_where_the_answer_stands(tokenizer: FrameTokenizer) -> None:
    frame = frame_of(ANSWERS, tokenizer)
    batch = GenerationBatch([pad_rows([frame], [[0]], 0)], (sum(frame.counts),))
    decoder = family_decoder("Llama", vocab_size=400, num_layers=2, window=8, attention="sdpa")
    config = TrainConfig(chat={"x": 1.0}, mode="generation", precision="fp32")

    def missed() -> float:
        losses = []
        for weight in (0.0, 1.0):
            model = GritModel(
                decoder, passages="bidirectional_blocks", precision="fp32", pointing_weight=weight, pointing_layers=2
            )
            model.zero_grad()
            losses.append(grit_step(model, None, batch, config, 1.0).loss_gen or 0.0)
        return losses[1] - losses[0]

    before = missed()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.003)
    for _ in range(40):
        optimizer.step()
        missed()
    assert missed() < before / 2


def test_repeated_texts_point_to_their_first_half(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = write_grounded(tmp_path_factory.mktemp("repeated") / "data")
    story = "A river is wide and slow, and otters sleep beside it when the sun is high. " * 3
    (data / "text").mkdir()
    (data / "text" / "stories.jsonl").write_text(json.dumps({"text": story}) + "\n")
    config = TrainConfig(
        data_dir=str(data),
        chat={"grounded": 1.0},
        text={"stories": 1.0},
        mode="generation",
        repeated_text_share=1.0,
        chat_share_start=0.0,
        chat_share_end=0.0,
        pointing_weight=1.0,
    )
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    for packed in (False, True):
        pointing: list[TokenRows] = [
            rows
            for rows in Batches(sources, tokenizer, replace(config, pack_generation=packed)).generation(0).rows
            if rows.source_BT is not None
        ]
        assert pointing
        for rows in pointing:
            assert rows.source_BT is not None
            row_N, at_N = torch.nonzero(rows.source_BT != NOWHERE, as_tuple=True)
            source_N = rows.source_BT[row_N, at_N]
            assert len(row_N) > 15
            assert bool((rows.ids_BT[row_N, at_N] == rows.ids_BT[row_N, source_N]).all())
            if rows.sequence_BT is not None:
                assert bool((rows.sequence_BT[row_N, at_N] == rows.sequence_BT[row_N, source_N]).all())


def test_most_choices_of_later_passages_are_left_out_and_what_is_copied_stays(
    tmp_path: Path, tokenizer: FrameTokenizer
) -> None:
    row = {"passages": PASSAGES, "questions": ANSWERS}
    (tmp_path / "readings.jsonl").write_text(json.dumps(row) + "\n")
    config = TrainConfig(
        data_dir=str(tmp_path),
        chat={"readings": 1.0},
        mode="generation",
        passages="bidirectional_blocks",
        generation_tokens=300,
        pointing_weight=1.0,
        later_choices=0.0,
    )
    sources = read_sources(config)
    (kept,) = Batches(sources, tokenizer, config).generation(0).rows
    (every,) = Batches(sources, tokenizer, replace(config, later_choices=1.0)).generation(0).rows
    assert torch.equal(kept.ids_BT, every.ids_BT)
    row_N, at_N = torch.nonzero(kept.counts_BT != every.counts_BT, as_tuple=True)
    assert {tokenizer.tokenizer.decode([token]) for token in kept.ids_BT[row_N, at_N].tolist()} == {"2"}
    assert kept.source_BT is not None and every.source_BT is not None
    changed = kept.source_BT != every.source_BT
    assert int(changed.sum()) == 2 * len(row_N) and bool((kept.source_BT[changed] == NOWHERE).all())
