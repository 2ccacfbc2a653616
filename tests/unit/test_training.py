"""Losses are their plain formulas, batches depend on the step alone, and bad lines are named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from training_data import write_data

from gritdesk.grit_format import EOS, MARKERS
from training.config import Averaging, ModelShape, Pooling, QuantizationType, TrainConfig, read_recipe
from training.data import Batches, TokenRows, tokenizer_sample
from training.examples import read_sources
from training.losses import (
    STRIP_QUERIES,
    contrastive_loss,
    distillation_loss,
    false_negatives,
    matryoshka_loss,
    next_token_loss,
    same_passage,
    similarity_distillation_loss,
    spread_out_loss,
    token_weights,
)
from training.model import GritModel, new_model, place_token_embeddings, pool
from training.quantization import dequantized, quantized_weights
from training.static_embeddings import bag, fit_static_embeddings, tokenize_source
from training.tokenizer import FrameTokenizer, train_tokenizer
from training.train import learning_rate_factor, temperature_at

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))


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


@pytest.fixture
def batches(config: TrainConfig) -> Batches:
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    return Batches(sources, tokenizer, config)


def test_contrastive_loss_is_the_formula() -> None:
    torch.manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(3, 8), dim=-1)
    passage = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    expected = 0.0
    for row in range(3):
        scores = np.exp([float(query[row] @ passage[n]) / 0.05 for n in range(5)])
        expected -= np.log(scores[row] / scores.sum()) / 3
    assert contrastive_loss(query, passage, 0.05).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_of_many_queries_is_that_of_the_whole_matrix() -> None:
    torch.manual_seed(0)
    num_queries = 2 * STRIP_QUERIES + 10
    query = torch.nn.functional.normalize(torch.randn(num_queries, 8), dim=-1).requires_grad_()
    passage = torch.nn.functional.normalize(torch.randn(num_queries + 5, 8), dim=-1).requires_grad_()
    ignored = torch.rand(num_queries, num_queries + 5) < 0.1
    ignored.fill_diagonal_(False)
    loss = contrastive_loss(query, passage, 0.1, ignored, hard_negative_strength=2.0)
    found = torch.autograd.grad(loss, (query, passage))

    similarity = query @ passage.T
    boost = 2.0 * similarity.detach()
    boost[:, :num_queries] = 0.0
    logits = (similarity / 0.1 + boost).masked_fill(ignored, float("-inf"))
    expected_loss = torch.nn.functional.cross_entropy(logits, torch.arange(num_queries))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    for ours, expected in zip(found, torch.autograd.grad(expected_loss, (query, passage)), strict=True):
        torch.testing.assert_close(ours, expected)


def test_contrastive_loss_refuses_a_batch_with_nothing_to_tell_apart() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        contrastive_loss(torch.ones(1, 4), torch.ones(1, 4), 0.02)


def test_ones_own_passage_drawn_again_is_no_negative() -> None:
    query = torch.eye(3)
    passage = torch.cat([torch.eye(3)[[0, 0, 2]], torch.eye(3)[[1]]])
    ignored = same_passage(torch.tensor([7, 7, 8, 9]), 3)
    assert ignored.tolist() == [[False, True, False, False], [True, False, False, False], [False] * 4]
    # row 0 is left with the passages 0, 2 and 3, of which 0 is its own
    expected = np.log(1 + 2 * np.exp(-1 / 0.5))
    rows = [contrastive_loss(query[[0, 1, 2]], passage, 0.5, ignored).item() for _ in range(2)]
    assert rows[0] == rows[1]
    by_row = -torch.log_softmax((query @ passage.T / 0.5).masked_fill(ignored, float("-inf")), dim=1).diagonal()
    assert rows[0] == pytest.approx(by_row.mean().item()) and by_row[0].item() == pytest.approx(expected)


def test_bag_is_the_normalised_sum_of_a_texts_vectors() -> None:
    vectors = torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    found = bag(vectors, [np.array([0, 1]), np.array([2, 2, 2])])
    assert found.tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.5**0.5, 0.5**0.5])]


def test_static_embeddings_learn_which_passage_belongs_to_a_query(batches: Batches, config: TrainConfig) -> None:
    shape = ModelShape(vocab_size=400, embedding_dimension=16)
    config = dataclasses.replace(config, model=shape, static_steps=60, static_batch_size=8, static_lr=0.03)

    def accuracy(steps: int) -> float:
        changed = dataclasses.replace(config, static_steps=steps)
        vectors = fit_static_embeddings(None, batches.sources.pairs, batches.tokenizer, changed)
        assert vectors.shape == (batches.tokenizer.tokenizer.get_vocab_size(), 16)
        (source,) = (tokenize_source(each, batches.tokenizer, config) for each in batches.sources.pairs)
        scores = bag(vectors, source.queries) @ bag(vectors, source.positives).T
        return (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()

    assert accuracy(60) > max(accuracy(0), 0.9)


def test_placed_vectors_pool_to_their_sum_lengths_included() -> None:
    torch.manual_seed(0)
    model = new_model(ModelShape(vocab_size=400, num_layers=1, embedding_dimension=96), 1, 2, 0)
    vectors = torch.randn(400, 96) * torch.rand(400, 1)
    place_token_embeddings(model, vectors)
    ids = torch.tensor([[5, 17, 100, 230, 17]])
    with torch.no_grad():
        pooled = GritModel(model)(TokenRows(ids, torch.ones_like(ids), torch.ones_like(ids), (0,)))
    assert (pooled * bag(vectors, [ids[0].numpy()])).sum().item() > 0.999


def test_next_token_loss_counts_the_counted_tokens_alone() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 4, 8), torch.randn(11, 8)
    ids = torch.randint(0, 11, (2, 4))
    counts = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]])
    expected = 0.0
    for row, position, weight in ((0, 2, 0.5), (0, 3, 0.5), (1, 1, 2.0)):
        expected -= weight * torch.log_softmax(hidden[row, position - 1] @ head.T, dim=-1)[ids[row, position]].item()
    loss = next_token_loss(hidden, head, ids, counts * torch.tensor([[0.5], [2.0]]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("frozen_head", [False, True])
def test_next_token_loss_of_many_targets_is_that_of_all_at_once(
    frozen_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(3, 9, 8, requires_grad=True)
    head = torch.randn(11, 8, requires_grad=not frozen_head)
    ids, weight = torch.randint(0, 11, (3, 9)), torch.rand(3, 9) * (torch.rand(3, 9) > 0.3)
    needed = [hidden] if frozen_head else [hidden, head]
    expected = next_token_loss(hidden, head, ids, weight, softcap=2.0)
    expected_gradients = torch.autograd.grad(expected, needed)
    monkeypatch.setattr("training.losses.STRIP_LOGITS", 4 * 11)
    found = next_token_loss(hidden, head, ids, weight, softcap=2.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found, needed), expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("averaging", "expected"),
    [
        ("token", [1 / 9] * 4),
        ("sample", [1 / 6, 1 / 12, 0, 1 / 3 / 3]),
        ("mixed", [1 / 12, 1 / 12, 0, 1 / 6]),  # two groups: the first two samples, 6 tokens; the last two, 3
    ],
)
def test_next_token_loss_is_averaged_over_tokens_samples_or_groups(averaging: Averaging, expected: list[float]) -> None:
    num_targets = [2, 4, 0, 3]
    weights = token_weights(num_targets, averaging, group_size=2)
    assert [w for w, n in zip(weights, num_targets, strict=True) if n] == pytest.approx(
        [e for e, n in zip(expected, num_targets, strict=True) if n]
    )
    assert sum(weight * num for weight, num in zip(weights, num_targets, strict=True)) == pytest.approx(1.0)


def test_hard_negatives_weigh_more_the_nearer_they_are() -> None:
    torch.manual_seed(0)
    query, passage = (torch.nn.functional.normalize(torch.randn(n, 8), dim=-1) for n in (2, 3))
    expected = 0.0
    for row in range(2):
        cosines = [float(query[row] @ passage[n]) for n in range(3)]
        scores = [np.exp(cosines[n] / 0.1) * (np.exp(5 * cosines[n]) if n == 2 else 1) for n in range(3)]
        expected -= np.log(scores[row] / sum(scores)) / 2
    assert contrastive_loss(query, passage, 0.1, hard_negative_strength=5.0).item() == pytest.approx(expected, rel=1e-5)


def test_passage_nearer_than_the_positive_by_the_margin_is_no_negative() -> None:
    similarity = torch.tensor([[0.5, 0.62, 0.59], [0.2, 0.9, 0.95]])
    assert false_negatives(similarity, 0.1).tolist() == [[False, True, False], [False, False, False]]
    assert false_negatives(similarity, -0.5).tolist() == [[False, True, True], [False, False, True]]


def test_matryoshka_loss_is_the_mean_over_cut_and_normalised_embeddings() -> None:
    torch.manual_seed(0)
    query, passage = (torch.nn.functional.normalize(torch.randn(n, 8), dim=-1) for n in (3, 4))

    def loss_at(dim: int) -> float:
        cut = [torch.nn.functional.normalize(each[:, :dim], dim=-1) for each in (query, passage)]
        return contrastive_loss(*cut, 0.1).item()

    found = matryoshka_loss(lambda q, p: contrastive_loss(q, p, 0.1), query, passage, (8, 4, 2))
    assert found.item() == pytest.approx((loss_at(8) + loss_at(4) + loss_at(2)) / 3)


def test_spread_out_loss_is_the_mean_squared_cosine_of_pairs() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert spread_out_loss(embeddings).item() == pytest.approx((0.6**2 + 0.8**2 + 0.0) / 3)
    assert spread_out_loss(embeddings[:1]).item() == 0.0


def test_distillation_loss_is_the_mean_cosine_distance() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    assert distillation_loss(student, teacher).item() == pytest.approx((1.0 + 0.0) / 2)


def test_similarity_distillation_compares_cosines_and_nothing_else() -> None:
    student = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    turned = student @ torch.linalg.qr(torch.randn(4, 4))[0]
    assert similarity_distillation_loss(student, turned, 0.05).item() == pytest.approx(0.0, abs=1e-6)

    teacher = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    squared = divergence = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        mine, theirs = (each[others] @ each[i] for each in (student, teacher))
        squared += (mine - theirs).square().sum().item()
        wanted, found = ((each / 0.05).softmax(dim=-1) for each in (theirs, mine))
        divergence += (wanted * (wanted / found).log()).sum().item()
    expected = squared / 25 / 0.01 + divergence / 5
    assert similarity_distillation_loss(student, teacher, 0.05).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("quantization_type", ["Q4_0", "Q8_0"])
def test_quantized_weights_are_those_a_gguf_gives_back(quantization_type: QuantizationType) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    weight[3, :32] = 0.0
    weight[4, :3] = torch.tensor([3.0, -3.0, 3.0])  # the first of the largest gives the sign
    known = getattr(gguf.GGMLQuantizationType, quantization_type)
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), known), known)
    assert np.array_equal(dequantized(weight, quantization_type).numpy(), expected)


def test_weights_are_exact_again_after_a_quantized_step() -> None:
    matrix, norm = torch.nn.Parameter(torch.randn(4, 64)), torch.nn.Parameter(torch.randn(64))
    before = matrix.detach().clone()
    with pytest.raises(ValueError, match="in between"), quantized_weights([matrix, norm], "Q4_0"):
        assert not torch.equal(matrix, before) and torch.equal(matrix, dequantized(before, "Q4_0"))
        raise ValueError("in between")
    assert torch.equal(matrix, before)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [3.0, 4.0]),
        ("weighted_mean", [3.0, 8.0]),
        ("last_token", [0.0, 1.0]),
        ("first_token", [1.0, 0.0]),
    ],
)
def test_pooling_leaves_out_what_does_not_count(pooling: Pooling, expected: list[float]) -> None:
    hidden = torch.tensor([[[9.0, 9.0], [3.0, 0.0], [0.0, 4.0], [7.0, 7.0]]])
    pooled = pool(hidden, torch.tensor([[0, 1, 1, 0]]), pooling)
    assert pooled[0].tolist() == pytest.approx((np.array(expected) / np.linalg.norm(expected)).tolist())
    with pytest.raises(ValueError, match="no token to pool"):
        pool(hidden, torch.zeros(1, 4), pooling)


def test_targets_of_a_chat_are_each_answer_and_its_end(batches: Batches) -> None:
    tokenizer = batches.tokenizer
    for rows in batches.generation(0).rows:
        for ids, counts, mask in zip(rows.ids_BT.tolist(), rows.counts_BT.tolist(), rows.mask_BT.tolist(), strict=True):
            text = tokenizer.tokenizer.decode(
                [i for i, m in zip(ids, mask, strict=True) if m], skip_special_tokens=False
            )
            if MARKERS[0] not in text:
                continue
            name = text.split("Say ")[1].split("\n")[0]
            targets = [i for i, counted in zip(ids, counts, strict=True) if counted]
            assert tokenizer.tokenizer.decode(targets, skip_special_tokens=False) == f"{name} {name}{EOS}{name}{EOS}"


def test_repeated_text_stands_in_its_row_twice(batches: Batches, config: TrainConfig) -> None:
    changed = dataclasses.replace(config, repeated_text_share=1.0, chat_share_start=0.0, chat_share_end=0.0)
    for rows in Batches(batches.sources, batches.tokenizer, changed).generation(0).rows:
        for ids, mask in zip(rows.ids_BT.tolist(), rows.mask_BT.tolist(), strict=True):
            _, *text = [i for i, m in zip(ids, mask, strict=True) if m]
            assert text[: len(text) // 2] == text[len(text) // 2 :]


def test_refusals_may_be_left_out(tmp_path: Path, config: TrainConfig) -> None:
    chats = [{"text": ["Who?", answer]} for answer in ("The documents do not say.", "The otter [1].")]
    path = Path(config.data_dir) / "chat" / "refusals.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    config = dataclasses.replace(
        config, chat={"refusals": 1.0}, kept_refusals=0.0, chat_share_start=1.0, chat_share_end=1.0
    )
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    for rows in Batches(sources, tokenizer, config).generation(0).rows:
        for ids in rows.ids_BT.tolist():
            assert "otter" in tokenizer.tokenizer.decode(ids)


def test_batch_depends_on_seed_and_step_alone(config: TrainConfig, batches: Batches) -> None:
    again = Batches(batches.sources, batches.tokenizer, config)
    batches.embedding(0)
    for left, right in zip(batches.embedding(7).passages, again.embedding(7).passages, strict=True):
        assert torch.equal(left.ids_BT, right.ids_BT)
    for left, right in zip(batches.generation(7).rows, again.generation(7).rows, strict=True):
        assert torch.equal(left.ids_BT, right.ids_BT)


def test_positives_come_first_and_in_the_order_of_the_queries(batches: Batches) -> None:
    batch = batches.embedding(3)
    decode = batches.tokenizer.tokenizer.decode

    def texts(groups: list, num: int) -> list[str]:
        found = {at: decode(ids) for rows in groups for at, ids in zip(rows.order, rows.ids_BT.tolist(), strict=True)}
        return [found[at] for at in range(num)]

    queries, passages = texts(batch.queries, batch.num_queries), texts(batch.passages, batch.num_passages)
    for query, passage in zip(queries, passages, strict=False):
        assert query.split("the ")[-1].split()[0] == passage.split("The ")[1].split()[0]
    assert all("sleeps at noon" in negative for negative in passages[batch.num_queries :])


def test_pair_whose_instruction_leaves_no_room_is_dropped_and_counted(config: TrainConfig) -> None:
    rows = [{"query": ["word " * 200 if n % 3 == 0 else "Find", f"q{n}"], "pos": [f"answer {n}"]} for n in range(9)]
    (Path(config.data_dir) / "pairs" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = dataclasses.replace(config, pairs={"long": 1.0}, embedding_batch_size=9)
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    batch = Batches(sources, tokenizer, config).embedding(0)
    assert batch.num_queries == batch.num_passages == 6
    assert max(rows.ids_BT.shape[1] for rows in batch.queries) < config.query_tokens
    assert sources.dropped() == {"long: instruction fills the length limit": 3}


def test_batch_that_lost_its_pairs_is_named(config: TrainConfig) -> None:
    rows = [{"query": ["word " * 200, f"q{n}"], "pos": [f"answer {n}"]} for n in range(4)]
    (Path(config.data_dir) / "pairs" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = dataclasses.replace(config, pairs={"long": 1.0})
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    with pytest.raises(ValueError, match=r"long: 0 of 4 pairs are left at step 7.*instruction fills"):
        Batches(sources, tokenizer, config).embedding(7)


def test_long_chat_is_cut_and_one_without_room_for_an_answer_is_dropped(config: TrainConfig) -> None:
    chats = [{"text": ["Say it", "word " * 300]}, {"text": ["word " * 300, "never"]}]
    (Path(config.data_dir) / "chat" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    config = dataclasses.replace(
        config, chat={"long": 1.0}, chat_share_start=1.0, chat_share_end=1.0, sequence_tokens=64, generation_tokens=1000
    )
    sources = read_sources(config)
    tokenizer = FrameTokenizer(train_tokenizer(tokenizer_sample(sources, 1, 1), 400))
    for rows in Batches(sources, tokenizer, config).generation(0).rows:
        assert rows.ids_BT.shape[1] == 64 and bool(rows.counts_BT.any(dim=1).all())
    assert sources.dropped()["long: no answer within sequence_tokens"] > 0


def test_tokenizer_whose_file_truncates_and_pads_does_neither() -> None:
    tokenizer = train_tokenizer(["a word and another"] * 20, 300)
    expected = FrameTokenizer(tokenizer).tokenize("a word " * 30)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    again = FrameTokenizer(tokenizer)
    assert again.tokenize("a word " * 30) == expected and len(again.tokenize("a")) == 1


def test_missing_data_file_is_named(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="no file elsewhere.jsonl"):
        read_sources(dataclasses.replace(config, text={"elsewhere": 1.0}))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_read(path: Path) -> None:
    assert read_recipe(path).max_steps > 0


def test_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("steps = 3\n")
    with pytest.raises(ValueError, match="unknown key steps"):
        read_recipe(tmp_path / "wrong.toml")


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(max_steps=100, warmup_steps=10, decay_fraction=0.4)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9:61] == [1.0] * 52
    assert factors[99] == pytest.approx(1 / 40)
    linear = TrainConfig(max_steps=100, warmup_steps=10, decay_fraction=1.0)
    assert [learning_rate_factor(step, linear) for step in (4, 9, 10, 55)] == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_learning_rate_is_at_zero_by_whichever_end_comes_first() -> None:
    config = TrainConfig(max_steps=100, max_seconds=60, warmup_steps=10, decay_fraction=0.5)
    assert learning_rate_factor(20, config, 0.5) == 1.0
    assert [learning_rate_factor(20, config, left) for left in (0.25, 0.0)] == pytest.approx([0.5, 0.0])
    assert learning_rate_factor(90, config, 0.9) == pytest.approx(0.2)


def test_temperature_falls_to_its_end() -> None:
    config = TrainConfig(contrastive_temperature_start=0.08, contrastive_temperature=0.02, temperature_steps=100)
    assert [temperature_at(step, config) for step in (0, 50, 100, 500)] == pytest.approx([0.08, 0.04, 0.02, 0.02])
