"""Passages as blocks: what indexing computed for a passage is what the answer would compute again."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_families import family_decoder
from training_data import write_grounded
from transformers.cache_utils import DynamicCache

from gritdesk.grit_format import EncodedFrame, Passages, chat_frame, embedding_frame, encode
from gritdesk.records import Turn
from training.attention import bidirectional_mask, packed_mask
from training.config import TrainConfig
from training.data import Batches, pad_rows, tokenizer_sample
from training.examples import read_sources
from training.model import GritModel, hidden_states
from training.steps import grit_step
from training.tokenizer import FrameTokenizer, train_tokenizer
from training.writers import GritWriter

FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Gemma")
PASSAGES = ["The otter sleeps by the river at noon.", "A heron met the badger."]
TURNS = [
    Turn("user", f"Documents:\n[1] {PASSAGES[0]}\n\n[2] {PASSAGES[1]}\n\nQuestion: Who sleeps?"),
    Turn("assistant", "The otter [1]."),
]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    config = TrainConfig(
        data_dir=str(write_grounded(tmp_path_factory.mktemp("passages") / "data")),
        chat={"grounded": 1.0},
        mode="generation",
        generation_tokens=300,
        micro_batch_tokens=400,
        precision="fp32",
    )
    sources = read_sources(config)
    return Batches(sources, FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400)), config)


def model_of(family: str, passages: Passages) -> GritModel:
    decoder = family_decoder(family, vocab_size=400, num_layers=2, window=8, attention="sdpa")
    return GritModel(decoder, passages=passages, precision="fp32")


def states(model: GritModel, frame: EncodedFrame) -> torch.Tensor:
    """Last hidden states as the next-token loss sees them, [T, D]."""
    rows = pad_rows([frame], [[0]], 0)
    return hidden_states(model.decoder, rows.ids_BT, model._generation_mask(rows))[0]


@torch.no_grad()
@pytest.mark.parametrize("passages", ["causal_blocks", "bidirectional_blocks"])
@pytest.mark.parametrize("family", FAMILIES)
def test_block_is_computed_as_the_passage_alone(family: str, passages: Passages, batches: Batches) -> None:
    tokenizer, model = batches.tokenizer, model_of(family, passages)
    frame = encode(chat_frame(TURNS, blocks=True), tokenizer, "special")
    found = states(model, frame)
    for number, passage in enumerate(PASSAGES, start=1):
        rows = pad_rows([encode(embedding_frame("", passage), tokenizer, "special")], [[0]], 0)
        # the causal attention of some families has a window, which a block has not
        mask_of = bidirectional_mask if passages == "bidirectional_blocks" else packed_mask
        alone = hidden_states(model.decoder, rows.ids_BT, mask_of(rows.mask_BT, torch.float32))[0]
        at = [position for position, block in enumerate(frame.blocks) if block == number]
        assert (found[at] - alone).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_from_indexing_answer_as_the_whole_prompt_does(family: str, batches: Batches) -> None:
    """Each passage is read on its own from position 0, its keys are turned to its place, and the rest is read after."""
    tokenizer, model = batches.tokenizer, model_of(family, "bidirectional_blocks")
    frame = encode(chat_frame(TURNS, blocks=True), tokenizer, "special")
    expected = states(model, frame)

    cache = DynamicCache()
    at = 0
    while at < len(frame.ids):
        block = frame.blocks[at]
        end = next((n for n in range(at, len(frame.ids)) if frame.blocks[n] != block), len(frame.ids))
        if block:
            append_passage(model, cache, frame.ids[at:end], at)
        else:
            seen = torch.ones(end - at, end, dtype=torch.bool).tril(at)
            mask = torch.zeros(1, 1, end - at, end).masked_fill(~seen, torch.finfo(torch.float32).min)
            output = model.decoder.model(
                input_ids=torch.tensor([frame.ids[at:end]]),
                attention_mask=mask,
                position_ids=torch.arange(at, end)[None],
                past_key_values=cache,
                use_cache=True,
            )
            assert (output.last_hidden_state[0] - expected[at:end]).abs().max() < 1e-4
        at = end
    assert cache.get_seq_length() == len(frame.ids)


def append_passage(model: GritModel, cache: DynamicCache, ids: list[int], place: int) -> None:
    """Put an embedding pass's keys and values behind what the cache holds, the keys turned by `place` positions."""
    own = DynamicCache()
    length = len(ids)
    model.decoder.model(
        input_ids=torch.tensor([ids]), attention_mask=torch.zeros(1, 1, length, length), past_key_values=own
    )
    turn = torch.full((1, length), place)
    cos, sin = model.decoder.model.rotary_emb(torch.zeros(1), turn)
    for number, layer in enumerate(own.layers):
        keys, half = layer.keys, layer.keys.shape[-1] // 2
        turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
        cache.update(keys * cos[:, None] + turned * sin[:, None], layer.values, number)


@pytest.mark.parametrize("packed", [False, True])
def test_step_with_blocks_trains_the_answers_alone(batches: Batches, packed: bool) -> None:
    config = dataclasses.replace(
        batches.config,
        passages="bidirectional_blocks",
        pack_generation=packed,
        sequence_tokens=128,
        generation_tokens=600,
        micro_batch_tokens=1024,
    )
    batch = Batches(batches.sources, batches.tokenizer, config).generation(0)
    assert all(rows.block_BT is not None for rows in batch.rows)
    for rows in batch.rows:
        for ids, counts in zip(rows.ids_BT.tolist(), rows.counts_BT.tolist(), strict=True):
            text = batches.tokenizer.tokenizer.decode([i for i, c in zip(ids, counts, strict=True) if c])
            assert set(text.replace(".", " ").split()) <= {"otter", "heron", "badger", "lynx", "[1]", "[2]"}
    model = model_of("Llama", "bidirectional_blocks")
    alone = dataclasses.replace(config, pack_generation=False, micro_batch_tokens=1)
    expected = grit_step(
        model, None, Batches(batches.sources, batches.tokenizer, alone).generation(0), alone, 0.05
    ).loss_gen
    assert grit_step(model, None, batch, config, 0.05).loss_gen == pytest.approx(expected, rel=1e-5)


def test_some_chats_may_keep_their_passages_as_plain_text(batches: Batches) -> None:
    config = dataclasses.replace(batches.config, passages="causal_blocks", plain_passages_share=0.5)
    rows = Batches(batches.sources, batches.tokenizer, dataclasses.replace(config, micro_batch_tokens=1)).generation(0)
    with_blocks = [each.block_BT is not None for each in rows.rows]
    assert 0 < sum(with_blocks) < len(with_blocks)


@torch.no_grad()
def test_answer_is_written_as_its_passages_were_learned(batches: Batches) -> None:
    """Greedy tokens, each the likeliest after the whole prompt read anew with the training's own mask."""
    for passages in ("plain", "causal_blocks", "bidirectional_blocks"):
        model = model_of("Llama", passages)  # type: ignore[arg-type]
        writer = GritWriter(model.decoder, batches.tokenizer, passages)  # type: ignore[arg-type]
        frame = encode(chat_frame(TURNS[:1], blocks=passages != "plain"), batches.tokenizer, "special")
        ids, blocks = list(frame.ids), list(frame.blocks)
        assert writer.count_tokens(TURNS[:1]) == len(ids)
        for _ in range(6):
            hidden_TD = states(model, EncodedFrame(ids, [False] * len(ids), blocks))
            ids.append(int((hidden_TD[-1] @ model.decoder.get_output_embeddings().weight.T).argmax()))
            blocks += [0] * bool(blocks)
        expected = batches.tokenizer.tokenizer.decode(ids[len(frame.ids) :])
        assert writer.answer(TURNS[:1], 6) == expected.strip()
