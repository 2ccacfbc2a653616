"""One step of GRIT in numbers: gradients that do not depend on memory, attention that does not depend on the family."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tiny_families import FAMILIES, family_decoder
from training_data import write_data

from gritdesk.records import EmbeddingInput
from training.attention import bidirectional_mask, causal_instruction_mask, packed_mask, passage_mask
from training.config import ModelShape, TrainConfig
from training.data import Batches, TokenRows, tokenizer_sample
from training.examples import read_sources
from training.losses import false_negatives, same_passage, similarity_distillation_loss
from training.model import GritModel, grit_model, hidden_states, new_model
from training.steps import embed_rows, grit_step
from training.tokenizer import FrameTokenizer, train_tokenizer


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


# ---------------------------------------------------------------- heads, a teacher, experts


def taught(inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
    """A teacher that knows how many of each letter a text has."""
    counts = np.array([[text.lower().count(letter) for letter in "abcdefghij"] for _, text in inputs], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.mark.parametrize("backward", ["whole", "split", "cached"])
def test_teacher_and_head_give_the_same_gradients_however_much_is_held(batches: Batches, backward: Any) -> None:
    config = dataclasses.replace(
        batches.config,
        mode="embedding",
        projection_dimension=24,
        matryoshka_dimensions=(8,),
        teacher="letters",
        distillation_weight=2.0,
        similarity_distillation_weight=0.5,
        false_negative_margin=-0.1,
        contrastive_backward=backward,
    )
    model = grit_model(small_model(config).decoder, config, teacher_dimension=10)
    torch.nn.init.orthogonal_(model.projection.weight)
    torch.nn.init.orthogonal_(model.to_teacher.weight)
    model.eval()
    batch = Batches(batches.sources, batches.tokenizer, config, teacher=taught).embedding(0)
    losses = grit_step(model, batch, None, config, 0.05)
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert {"projection.weight", "to_teacher.weight"} <= set(found) and model.heads().keys() == {
        "projection",
        "to_teacher",
    }
    model.zero_grad()

    # the plain formulas, of one forward pass
    query, passage = embed_rows(model, batch.queries), embed_rows(model, batch.passages)
    assert query.shape[1] == 24 + 10
    guide = batch.taught_query_BK @ batch.taught_passage_NK.T
    ignored = false_negatives(guide, -0.1) | same_passage(batch.keys_N, batch.num_queries)
    assert bool(ignored.any())
    expected = 0.0
    for dim in (24, 8):
        left, right = (torch.nn.functional.normalize(each[:, :dim], dim=-1) for each in (query, passage))
        logits = (left @ right.T / 0.05).masked_fill(ignored, float("-inf"))
        expected = expected - torch.log_softmax(logits, dim=1).diagonal().mean() / 2
    student = torch.cat([query, passage])[:, 24:]
    teacher = torch.cat([batch.taught_query_BK, batch.taught_passage_NK])
    expected = expected + 2.0 * (1 - torch.nn.functional.cosine_similarity(student, teacher)).mean()
    embeddings = torch.cat([query, passage])[:, :24]
    expected = expected + 0.5 * similarity_distillation_loss(embeddings, teacher, 0.05)
    expected.backward()
    assert losses.loss_emb == pytest.approx(expected.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        if name in found:
            assert (found[name] - weight.grad).norm() <= 1e-5 * weight.grad.norm() + 1e-8, name


def test_router_loss_is_that_of_the_tokens_that_are_no_padding(batches: Batches) -> None:
    config = dataclasses.replace(
        batches.config, mode="generation", router_loss_weight=0.5, micro_batch_tokens=10_000, generation_tokens=300
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
    decoder = transformers.MixtralForCausalLM(transformers.MixtralConfig(vocab_size=400, **shape, **experts))
    batch = Batches(batches.sources, batches.tokenizer, config).generation(0)
    plain = grit_step(grit_model(decoder, dataclasses.replace(config, router_loss_weight=0.0)), None, batch, config, 1)
    decoder.zero_grad()
    balanced = grit_step(grit_model(decoder, config), None, batch, config, 1)
    (rows,) = batch.rows
    with torch.no_grad():
        logits = decoder.model(rows.ids_BT, attention_mask=rows.mask_BT, output_router_logits=True).router_logits
    is_token = rows.mask_BT.flatten().bool().repeat(len(logits))
    chances = torch.softmax(torch.cat(list(logits)), dim=-1)[is_token]
    chosen = torch.nn.functional.one_hot(chances.topk(2).indices, 4).sum(dim=1).float()
    expected = 4 * (chosen.mean(dim=0) * chances.mean(dim=0)).sum().item()
    assert plain.loss_gen is not None and balanced.loss_gen is not None
    assert balanced.loss_gen - plain.loss_gen == pytest.approx(0.5 * expected, rel=1e-3)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_next_token_loss_of_transformers(family: str) -> None:
    decoder = family_decoder(family, attention="eager")
    with torch.no_grad():
        for weight in decoder.parameters():  # large enough logits for a cap to be felt
            if weight.ndim > 1:
                weight.normal_()
    ids = torch.arange(1, 13)[None]
    is_target = torch.tensor([[0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1]])
    labels = ids.masked_fill(is_target == 0, -100)
    rows = TokenRows(ids, torch.ones_like(ids), is_target, (0,))
    with torch.no_grad():
        expected = decoder(input_ids=ids, labels=labels).loss.item()
        found = GritModel(decoder, precision="fp32")(rows, is_target / is_target.sum()).item()
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_embeds_both_ways_over_its_whole_text_and_writes_causally(family: str, attention: str) -> None:
    if (family, attention) == ("Gemma2", "sdpa"):
        attention = "eager"  # the only one transformers has for it
    decoder = family_decoder(family, attention=attention)
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
