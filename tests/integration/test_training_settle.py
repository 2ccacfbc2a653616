"""What steps of language moved is put back: how much tokens count, and that the first passage is the likeliest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from gritdesk.grit_format import EncodedFrame, embedding_frame, encode
from training.checkpoint import save
from training.config import ModelShape, TrainConfig
from training.examples import Chat, parse_chat
from training.model import load_model, new_model
from training.settle import _token_weights, keep_token_weights, main, raise_first_label
from training.tokenizer import FrameTokenizer, save_tokenizer, train_tokenizer

POOLED = 32
ANIMALS = ["otter", "heron", "badger", "lynx", "stoat", "crane"]
ROWS = [
    {
        "passages": [f"The {name} sleeps by the river.", f"The {other} lives in {1900 + number} burrows."],
        "questions": [
            [f"Where does the {name} sleep?", "[1] by the river"],
            ["Who sings?", "The documents do not say."],
        ],
    }
    for number, (name, other) in enumerate(zip(ANIMALS, ANIMALS[1:] + ANIMALS[:1], strict=True))
]


@pytest.fixture
def tokenizer() -> FrameTokenizer:
    return FrameTokenizer(train_tokenizer([json.dumps(row) for row in ROWS], 330))


@pytest.fixture
def model(tokenizer: FrameTokenizer) -> PreTrainedModel:
    torch.manual_seed(3)
    shape = ModelShape(330, 64, 64, 2, 4, 2, 256, tied_head=True, embedding_dimension=POOLED)
    made = new_model(shape, 1, tokenizer.eos_id, tokenizer.pad_id)
    with torch.no_grad():
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight[POOLED:].normal_(std=0.2)
            layer.mlp.down_proj.weight[POOLED:].normal_(std=0.2)
    return made.eval()


@pytest.fixture
def chats() -> list[Chat]:
    return [parse_chat({**row, "questions": row["questions"][:1]}) for row in ROWS]


def frames_of(tokenizer: FrameTokenizer) -> list[EncodedFrame]:
    texts = [text for row in ROWS for text in row["passages"]] * 8
    return [encode(embedding_frame("", str(text)), tokenizer, tokenizer.markers) for text in texts]


def test_tokens_count_as_in_the_base_and_only_pooled_parts_are_scaled(
    model: PreTrainedModel, tokenizer: FrameTokenizer
) -> None:
    base, frames = copy.deepcopy(model), frames_of(tokenizer)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[POOLED:].normal_(std=0.6)
    before_VD = model.get_input_embeddings().weight.detach().clone()
    (ids_K, own_K), (_, base_K) = (_token_weights(each, frames) for each in (model, base))
    keep_token_weights(model, base, frames)
    after_VD = model.get_input_embeddings().weight.detach()
    assert torch.equal(before_VD[:, POOLED:], after_VD[:, POOLED:])
    scale_K = (after_VD[:, :POOLED].norm(dim=1) / before_VD[:, :POOLED].norm(dim=1))[ids_K]

    def spread(ratio_K: torch.Tensor) -> float:
        return float(torch.stack([ratio_K[ids_K == each].log().mean() for each in ids_K.unique()]).std())

    assert spread(own_K * scale_K / base_K) < 0.5 * spread(own_K / base_K)


def test_label_of_the_first_passage_is_likelier_where_one_is_named(
    model: PreTrainedModel, tokenizer: FrameTokenizer, chats: list[Chat]
) -> None:
    before_VD = model.get_input_embeddings().weight.detach().clone()
    there, elsewhere = raise_first_label(model, tokenizer, chats, 2.0)
    assert there == pytest.approx(2.0, abs=1e-3) and elsewhere < 1.0
    (changed,) = {int(row) for row in torch.nonzero(before_VD != model.get_input_embeddings().weight)[:, 0]}
    assert changed == tokenizer.tokenize("[1] a")[1]


def test_command_leaves_a_checkpoint_and_names_what_is_missing(
    model: PreTrainedModel, tokenizer: FrameTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tokenizer(tokenizer.tokenizer, tmp_path / "start", 256)
    save(tmp_path / "model", model, [], 0, TrainConfig(), tokenizer=tmp_path / "start")
    readings = tmp_path / "rows.jsonl"
    readings.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = [str(tmp_path / "model"), str(tmp_path / "model"), str(readings), "--output", str(tmp_path / "settled")]
    assert main(command) == 0
    assert "raised by 2.00" in capsys.readouterr().err
    assert FrameTokenizer.from_folder(tmp_path / "settled").markers == "special"
    assert load_model(tmp_path / "settled").config.grit["dimension"] == POOLED
    assert main(command) == 1
    assert "is there already" in capsys.readouterr().err
    readings.write_text(json.dumps({"messages": []}) + "\n")
    assert main([*command[:-1], str(tmp_path / "other")]) == 1
    assert "training.reading" in capsys.readouterr().err
