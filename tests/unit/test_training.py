"""Losses are their plain formulas, batches depend on the step alone, and bad lines are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import write_data

from gritdesk.grit_format import EOS, MARKERS
from training.config import ModelShape, TrainConfig, read_recipe
from training.data import Batches, read_chats, read_pairs, read_sources, tokenizer_sample
from training.evaluate import ndcg_at, spearman, token_f1
from training.losses import contrastive_loss, next_token_loss, same_passage
from training.model import hidden_states, mean_pool, new_model, place_token_embeddings
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


def test_contrastive_loss_refuses_a_batch_with_nothing_to_tell_apart() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        contrastive_loss(torch.ones(1, 4), torch.ones(1, 4), 0.02)


def test_ones_own_passage_drawn_again_is_no_negative() -> None:
    query = torch.eye(3)
    passage = torch.cat([torch.eye(3)[[0, 0, 2]], torch.eye(3)[[1]]])
    ignored = same_passage(["a", "a", "c"], 4)
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
        hidden = hidden_states(model, ids, torch.ones_like(ids), causal=False)
    pooled = mean_pool(hidden[..., :96], torch.ones_like(ids))
    assert (pooled * bag(vectors, [ids[0].numpy()])).sum().item() > 0.999


def test_next_token_loss_counts_the_counted_tokens_alone() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 4, 8), torch.randn(11, 8)
    ids = torch.randint(0, 11, (2, 4))
    counts = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]])
    expected = 0.0
    for row, position in ((0, 2), (0, 3), (1, 1)):
        expected -= torch.log_softmax(hidden[row, position - 1] @ head.T, dim=-1)[ids[row, position]].item()
    loss, num_targets = next_token_loss(hidden, head, ids, counts)
    assert loss.item() == pytest.approx(expected, rel=1e-5) and num_targets == 3


def test_mean_pool_leaves_out_what_does_not_count() -> None:
    hidden = torch.tensor([[[9.0, 9.0], [3.0, 0.0], [0.0, 4.0]]])
    pooled = mean_pool(hidden, torch.tensor([[0, 1, 1]]))
    assert pooled.tolist() == [pytest.approx([0.6, 0.8])]
    with pytest.raises(ValueError, match="no token to pool"):
        mean_pool(hidden, torch.zeros(1, 3))


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


@pytest.mark.parametrize(
    ("reader", "line", "said"),
    [(read_pairs, '{"query": 3}', "line 1: expected query"), (read_chats, "[1]", "line 1: expected a JSON object")],
)
def test_bad_line_names_file_and_line(tmp_path: Path, reader: object, line: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=said) as caught:
        reader(path, 10)  # type: ignore[operator]
    assert "bad.jsonl" in str(caught.value)


def test_missing_data_file_is_named(config: TrainConfig) -> None:
    import dataclasses

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


def test_temperature_falls_to_its_end() -> None:
    config = TrainConfig(contrastive_temperature_start=0.08, contrastive_temperature=0.02, temperature_steps=100)
    assert [temperature_at(step, config) for step in (0, 50, 100, 500)] == pytest.approx([0.08, 0.04, 0.02, 0.02])


def test_ndcg_is_that_of_the_textbook() -> None:
    assert ndcg_at(["a", "b", "c"], {"a": 1}, 10) == 1.0
    assert ndcg_at(["b", "a", "c"], {"a": 1}, 10) == pytest.approx(1 / np.log2(3))
    assert ndcg_at(["b", "c"], {"a": 1}, 10) == 0.0


def test_spearman_shares_ranks_among_ties() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.9486833)


def test_token_f1_overlooks_articles_case_and_citations() -> None:
    assert token_f1("The Marigold [1].", "marigold") == 1.0
    assert token_f1("at four", "at five") == 0.5
