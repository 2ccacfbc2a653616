"""One step of GRIT in numbers: gradients that do not depend on memory, attention that does not depend on the family."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from training_data import write_data

from training.attention import bidirectional_mask, causal_instruction_mask, packed_mask, passage_mask
from training.config import ModelShape, TrainConfig
from training.data import Batches, tokenizer_sample
from training.examples import read_sources
from training.model import GritModel, grit_model, hidden_states, new_model
from training.steps import grit_step
from training.tokenizer import FrameTokenizer, train_tokenizer

FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 4},
    "Mixtral": {"sliding_window": 4, "num_local_experts": 4},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "Qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "Gemma": {},
    "Gemma2": {"sliding_window": 4},
    "Gemma3": {"sliding_window": 4},
}


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    config = TrainConfig(
        data_dir=str(write_data(tmp_path_factory.mktemp("steps") / "data")),
        pairs={"animals": 1.0},
        chat={"animals": 1.0},
        text={"animals": 1.0},
        embedding_batch_size=8,
        generation_tokens=200,
        micro_batch_tokens=60,
        precision="fp32",
    )
    sources = read_sources(config)
    return Batches(sources, FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400)), config)


def small_model(config: TrainConfig, **settings: Any) -> GritModel:
    torch.manual_seed(0)
    decoder = new_model(
        ModelShape(vocab_size=400, hidden_size=64, intermediate_size=64, num_layers=2, **settings), 1, 2, 0
    )
    for weight in decoder.parameters():  # what starts at zero would hide what flows through it
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.1)
    for layer in decoder.model.layers:
        layer.self_attn.attention_dropout = 0.2
    return grit_model(decoder, config).train()


def gradients(model: GritModel, batches: Batches, config: TrainConfig) -> tuple[torch.Tensor, Any]:
    torch.manual_seed(7)
    losses = grit_step(model, batches.embedding(0), batches.generation(0), config, 0.05)
    found = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    model.zero_grad()
    return found, losses


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("backward", ["split", "cached"])
def test_gradients_do_not_depend_on_how_much_is_held(batches: Batches, backward: Any) -> None:
    config = dataclasses.replace(
        batches.config,
        mode="embedding",
        matryoshka_dimensions=(32,),
        spread_out_weight=0.5,
        hard_negative_strength=2.0,
        false_negative_margin=0.1,
    )
    model = small_model(config)

    def of(method: Any) -> tuple[torch.Tensor, float]:
        torch.manual_seed(7)
        changed = dataclasses.replace(config, contrastive_backward=method)
        losses = grit_step(model, batches.embedding(0), None, changed, 0.05)
        found = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        model.zero_grad()
        assert losses.loss_emb is not None and losses.loss_gen is None
        return found, losses.loss_emb

    assert len(batches.embedding(0).passages) > 2
    expected, expected_loss = of("whole")
    found, loss = of(backward)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_gradients_do_not_depend_on_the_size_of_micro_batches(batches: Batches) -> None:
    config = batches.config
    model = small_model(config)
    for layer in model.decoder.model.layers:
        layer.self_attn.attention_dropout = 0.0
    (expected, losses), (found, other_losses) = (
        gradients(
            model,
            Batches(batches.sources, batches.tokenizer, dataclasses.replace(config, micro_batch_tokens=size)),
            config,
        )
        for size in (10_000, 40)
    )
    assert dataclasses.astuple(losses) == pytest.approx(dataclasses.astuple(other_losses), rel=1e-5)
    assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("averaging", ["token", "sample", "mixed"])
def test_sequences_that_share_a_row_do_not_see_each_other(batches: Batches, averaging: Any) -> None:
    config = dataclasses.replace(batches.config, mode="generation", generation_averaging=averaging, mixed_group_size=3)
    model = small_model(config)
    for layer in model.decoder.model.layers:
        layer.self_attn.attention_dropout = 0.0

    def of(packed: bool) -> tuple[torch.Tensor, float]:
        changed = dataclasses.replace(config, pack_generation=packed, sequence_tokens=64, micro_batch_tokens=256)
        batch = Batches(batches.sources, batches.tokenizer, changed).generation(0)
        assert (
            any(rows.sequence_BT is not None and int(rows.sequence_BT[0].unique().numel()) > 2 for rows in batch.rows)
            is packed
        )
        losses = grit_step(model, None, batch, config, 0.05)
        found = torch.cat([each.grad.flatten().clone() for each in model.parameters() if each.grad is not None])
        model.zero_grad()
        assert losses.loss_gen is not None
        return found, losses.loss_gen

    (expected, expected_loss), (found, loss) = of(False), of(True)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (found - expected).norm() / expected.norm() < 1e-5


# ---------------------------------------------------------------- modes


def test_each_mode_has_its_loss_alone_and_the_unified_step_their_weighted_sum(batches: Batches) -> None:
    config = dataclasses.replace(batches.config, loss_emb_weight=0.3, loss_gen_weight=2.0)
    model = small_model(config)
    for layer in model.decoder.model.layers:
        layer.self_attn.attention_dropout = 0.0

    def of(embedding: bool, generation: bool, config: TrainConfig) -> torch.Tensor:
        losses = grit_step(
            model,
            batches.embedding(0) if embedding else None,
            batches.generation(0) if generation else None,
            config,
            0.05,
        )
        assert ((losses.loss_emb is not None), (losses.loss_gen is not None)) == (embedding, generation)
        every = [each.grad if each.grad is not None else torch.zeros_like(each) for each in model.parameters()]
        found = torch.cat([each.flatten().clone() for each in every])
        model.zero_grad()
        return found

    plain = dataclasses.replace(config, loss_emb_weight=1.0, loss_gen_weight=1.0)
    unified = of(True, True, config)
    expected = 0.3 * of(True, False, plain) + 2.0 * of(False, True, plain)
    assert (unified - expected).norm() / expected.norm() < 1e-5


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_embeds_both_ways_over_its_whole_text_and_writes_causally(family: str, attention: str) -> None:
    if (family, attention) == ("Gemma2", "sdpa"):
        attention = "eager"  # the only one transformers has for it
    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    config = config_class(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,  # of more, a window of one would let through what that of another keeps out
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        pad_token_id=0,
        **FAMILIES[family],
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    decoder = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    ids = torch.arange(1, 13)[None]
    mask = torch.ones_like(ids)

    def change(changed: int, looked_at: int, used_mask: torch.Tensor) -> bool:
        other = ids.clone()
        other[0, changed] = 40
        with torch.no_grad():
            before, after = (hidden_states(decoder, each, used_mask)[0, looked_at] for each in (ids, other))
        return bool((before - after).abs().max() > 1e-5)

    both_ways = bidirectional_mask(mask, decoder.dtype)
    assert change(-1, 0, both_ways) and change(0, -1, both_ways)
    assert not change(-1, 0, mask) and change(-2, -1, mask)


def test_padding_changes_no_embedding(batches: Batches) -> None:
    model = small_model(batches.config).eval()
    batch = batches.embedding(0)
    rows = batch.passages[-1]
    with torch.no_grad():
        found = model(rows)
        for number in range(len(rows.ids_BT)):
            length = int(rows.mask_BT[number].sum())
            alone = dataclasses.replace(
                rows,
                ids_BT=rows.ids_BT[number : number + 1, :length],
                mask_BT=rows.mask_BT[number : number + 1, :length],
                counts_BT=rows.counts_BT[number : number + 1, :length],
            )
            assert (model(alone)[0] @ found[number]).item() > 1 - 1e-5


def seen(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if each == 0 else "." for each in row) for row in mask[0, 0].tolist()]


def test_masks_say_who_sees_whom() -> None:
    tokens = torch.tensor([[1, 1, 1, 1, 0]])
    assert seen(bidirectional_mask(tokens, torch.float32)) == ["xxxx."] * 4 + ["xxxxx"]
    is_text = torch.tensor([[0, 0, 1, 1, 0]])
    assert seen(causal_instruction_mask(tokens, is_text, torch.float32))[:4] == ["x....", "xx...", "xxxx.", "xxxx."]
    sequences = torch.tensor([[1, 1, 2, 2, 0]])
    assert seen(packed_mask(sequences, torch.float32)) == ["x....", "xx...", "..x..", "..xx.", "....x"]
    one, blocks = torch.tensor([[1, 1, 1, 1, 1, 1]]), torch.tensor([[0, 1, 1, 2, 2, 0]])
    causal = ["x.....", ".x....", ".xx...", "...x..", "...xx.", "xxxxxx"]
    assert seen(passage_mask(one, blocks, torch.float32, bidirectional=False)) == causal
    both_ways = ["x.....", ".xx...", ".xx...", "...xx.", "...xx.", "xxxxxx"]
    assert seen(passage_mask(one, blocks, torch.float32, bidirectional=True)) == both_ways
    two = torch.tensor([[1, 1, 1, 2, 2, 2]])
    apart = torch.tensor([[0, 1, 0, 1, 1, 0]])
    found = seen(passage_mask(two, apart, torch.float32, bidirectional=True))
    assert found == ["x.....", ".x....", "xxx...", "...xx.", "...xx.", "...xxx"]
