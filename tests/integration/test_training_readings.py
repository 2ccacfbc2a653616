"""Several questions about passages that are read once: each is learned as if it stood alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_families import family_decoder
from training_data import write_grounded

from gritdesk.grit_format import Passages, chat_frame, documents_turn, encode
from gritdesk.records import Turn
from training.config import ModelShape, TrainConfig
from training.data import (
    BranchedFrame,
    GenerationBatch,
    every_target,
    join_endings,
    pad_packed,
    pad_rows,
    tokenizer_sample,
)
from training.examples import parse_chat, read_sources
from training.model import GritModel, new_model
from training.steps import grit_step
from training.tokenizer import FrameTokenizer, train_tokenizer

PASSAGES = ["The otter sleeps by the river at noon.", "A heron met the badger."]
QUESTIONS = [["Who sleeps?", "[1] the otter"], ["Whom did the heron meet?", "[2] the badger"], ["When?", "[1] at noon"]]
ROW = {"passages": PASSAGES, "questions": QUESTIONS}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FrameTokenizer:
    data = write_grounded(tmp_path_factory.mktemp("readings") / "data")
    sources = read_sources(TrainConfig(data_dir=str(data), chat={"grounded": 1.0}, mode="generation"))
    return FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))


def gradients(model: GritModel, batch: GenerationBatch) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    config = TrainConfig(chat={"x": 1.0}, mode="generation", precision="fp32")
    loss = grit_step(model, None, batch, config, 1.0).loss_gen
    assert loss is not None
    return loss, [each.grad.clone() for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("passages", ["plain", "causal_blocks", "bidirectional_blocks"])
def test_each_question_is_learned_as_if_it_stood_alone(
    passages: Passages, packed: bool, tokenizer: FrameTokenizer
) -> None:
    chats = [[Turn("user", documents_turn(PASSAGES, q)), Turn("assistant", a)] for q, a in QUESTIONS]
    frames = [encode(chat_frame(turns, blocks=passages != "plain"), tokenizer, "special") for turns in chats]
    joined = join_endings(frames)
    assert isinstance(joined, BranchedFrame)
    assert len(joined.ids) < sum(len(frame.ids) for frame in frames) * 0.75

    decoder = family_decoder("Llama", vocab_size=400, num_layers=2, window=8, attention="sdpa")
    model = GritModel(decoder, passages=passages, precision="fp32")
    pad = pad_packed if packed else pad_rows
    alone = GenerationBatch(
        [pad_rows([frame], [[0]], 0) for frame in frames], tuple(sum(frame.counts) for frame in frames)
    )
    alone = replace(alone, rows=[replace(rows, order=(n,)) for n, rows in enumerate(alone.rows)])
    together = GenerationBatch([pad([joined], [[0]], 0)], (sum(joined.counts),))
    expected, found = gradients(model, alone), gradients(model, together)
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    for left, right in zip(found[1], expected[1], strict=True):
        assert (left - right).abs().max() < 1e-5


def test_what_begins_an_ending_is_not_learned_from_the_end_of_another(tokenizer: FrameTokenizer) -> None:
    chats = [[Turn("user", documents_turn(PASSAGES, q)), Turn("assistant", a)] for q, a in QUESTIONS]
    joined = join_endings([encode(chat_frame(turns, blocks=True), tokenizer, "special") for turns in chats])
    assert isinstance(joined, BranchedFrame)
    starts = [joined.branches.index(number) for number in (1, 2, 3)]
    targets = every_target(joined)
    # the first ending stands right behind what all share
    assert [targets[at] for at in starts] == [True, False, False]
    assert not any(target for target, block in zip(targets, joined.blocks, strict=True) if block)
    assert sum(targets) == joined.blocks.count(0) - 3


def test_a_row_of_questions_is_one_chat_with_several_endings() -> None:
    chat = parse_chat(ROW)
    assert [turn.text for turn in chat.turns] == [documents_turn(PASSAGES, "Who sleeps?"), "[1] the otter"]
    assert [answer.text for _, answer in chat.others] == ["[2] the badger", "[1] at noon"]


@pytest.mark.parametrize(
    "row",
    [
        {"passages": PASSAGES, "questions": "Who?"},
        {"passages": PASSAGES, "questions": [["Who?"]]},
        {"questions": QUESTIONS},
    ],
)
def test_a_row_of_questions_that_is_none_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"question|passages"):
        parse_chat(row)


def test_a_tied_head_predicts_by_what_is_not_pooled_and_language_leaves_the_rest_alone() -> None:
    shape = ModelShape(300, 64, 64, 1, 2, 1, 256, tied_head=True, embedding_dimension=32)
    torch.manual_seed(1)
    model = GritModel(new_model(shape, 0, 1, 2), precision="fp32")
    assert model.decoder.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight
    before = model.decoder.get_input_embeddings().weight.detach().clone()
    rows = pad_rows([encoded()], [[0]], 0)
    config = TrainConfig(text={"x": 1.0}, mode="generation", precision="fp32")
    grit_step(model, None, GenerationBatch([rows], (7,)), config, 1.0)
    gradient = model.decoder.get_input_embeddings().weight.grad
    assert gradient is not None
    assert gradient[:, :32].abs().max() == 0.0
    assert gradient[:, 32:].abs().max() > 0.0
    assert model.decoder.model.norm.weight[:32].max() < model.decoder.model.norm.weight[32:].min()
    assert torch.equal(before, model.decoder.get_input_embeddings().weight)


def encoded() -> BranchedFrame:
    return BranchedFrame(list(range(10, 18)), [False] + [True] * 7, [], [0] * 8)


def test_matching_heads_begin_by_looking_for_their_own_token() -> None:
    shape = ModelShape(300, 256, 64, 2, 4, 2, 1024, tied_head=True, embedding_dimension=128)
    torch.manual_seed(1)
    model = new_model(shape, 0, 1, 2)
    model.set_attn_implementation("eager")
    ids = torch.randperm(250)[:200] + 20
    ids[150] = ids[10]
    with torch.no_grad():
        attended = model(input_ids=ids[None], output_attentions=True).attentions
    for layer_BHTT in attended:
        looking_T = layer_BHTT[0, 1, 150, :150]
        assert int(looking_T.argmax()) == 10
        assert float(looking_T[10]) > 10 * float(looking_T.median())


def test_near_heads_begin_by_looking_around_and_pointing_heads_for_what_follows() -> None:
    shape = ModelShape(300, 512, 64, 4, 8, 2, 1024, rope_theta=50000.0, tied_head=True, embedding_dimension=256)
    torch.manual_seed(1)
    model = new_model(shape, 0, 1, 2)
    model.set_attn_implementation("eager")
    ids = torch.randperm(250)[:200] + 20
    ids[150] = ids[40]
    with torch.no_grad():
        attended = model(input_ids=ids[None], output_attentions=True).attentions
    at_64, at_16, _, before = (attended[0][0, head, 150] for head in range(4, 8))
    assert float(before[149]) > 0.9
    assert 0.5 < float(at_16[150 - 16 :].sum()) and float(at_16[150 - 4 :].max()) < 0.3
    assert 0.5 < float(at_64[150 - 64 :].sum()) and float(at_64[150 - 16 :].sum()) < 0.7
    for layer_BHTT in attended[-2:]:
        assert int(layer_BHTT[0, 7, 150, :148].argmax()) == 41, "behind the place where the token stood before"
