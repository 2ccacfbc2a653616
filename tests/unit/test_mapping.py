import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_engine import DIMENSION, FakeEngine

from gritdesk.map_page import page
from gritdesk.mapping import MAX_PLACED, cluster, lay_out, make_map
from gritdesk.records import Chunk, Document, Map
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore

SEA = "walrus penguin seal otter herring"
OVEN = "flour butter oven sugar yeast"
LAMP = "lantern wick paraffin burner lens"


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        yield store


def add(store: SqliteStore, name: str, text: str, *, embedded: bool = True) -> None:
    store.enter_space(Space("fake", DIMENSION))
    state = FileState(len(text), 0, content_hash=name)
    chunk = Chunk(text, 0, len(text), 1, 1)
    store.replace_document(Document(Path("/library") / name, text, "text"), state, [chunk], [name.encode()])
    if embedded:
        store.add_embeddings({name.encode(): FakeEngine().embed([("", text)])[0]})


def fill(store: SqliteStore, num_each: int = 12) -> None:
    for theme, words in (("sea", SEA), ("oven", OVEN), ("lamp", LAMP)):
        for number in range(num_each):
            add(store, f"{theme}{number}.txt", f"{words} note{chr(97 + number)} about a kept thing")


def groups(num: int, num_groups: int, dimension: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1 around some directions, and which direction each is of."""
    rng = np.random.default_rng(3)
    of = rng.integers(0, num_groups, num)
    rows = rng.normal(size=(num_groups, dimension))[of] + 0.4 * rng.normal(size=(num, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), of


def nearest_of_same_group(positions: np.ndarray, of: np.ndarray) -> float:
    squares = ((positions[:, None] - positions[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    return float((of[squares.argsort(axis=1)[:, :5]] == of[:, None]).mean())


def test_documents_near_in_meaning_lie_near_each_other() -> None:
    rows, of = groups(600, 8)
    positions = lay_out(rows)
    assert positions.shape == (600, 2)
    assert positions.min() >= 0 and positions.max() <= 1
    assert nearest_of_same_group(positions, of) > 0.95


def test_documents_beyond_those_laid_out_lie_with_their_own() -> None:
    rows, of = groups(MAX_PLACED + 500, 6, dimension=32)
    positions = lay_out(rows)
    some = np.random.default_rng(0).choice(len(rows), 800, replace=False)
    assert nearest_of_same_group(positions[some], of[some]) > 0.9


def test_the_same_index_gives_the_same_map(store: SqliteStore) -> None:
    fill(store)
    assert make_map(store) == make_map(store)


def test_clusters_are_named_by_what_their_documents_share(store: SqliteStore) -> None:
    fill(store)
    found = make_map(store, num_clusters=3)
    assert [each.num_documents for each in found.clusters] == [12, 12, 12]
    for theme, words in (("sea", SEA), ("oven", OVEN), ("lamp", LAMP)):
        numbers = {point.cluster for point in found.points if point.path.name.startswith(theme)}
        assert len(numbers) == 1
        named = found.clusters[numbers.pop()].words
        assert len(named) == 3 and set(named) <= set(words.split())


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_a_few_documents_have_a_map_too(store: SqliteStore, num: int) -> None:
    for number in range(num):
        add(store, f"{number}.txt", SEA if number % 2 else OVEN)
    found = make_map(store)
    assert len(found.points) == num
    assert sum(each.num_documents for each in found.clusters) == num
    assert all(0 <= each <= 1 for point in found.points for each in (point.x, point.y))


def test_copies_all_have_a_place(store: SqliteStore) -> None:
    for number in range(40):
        add(store, f"{number}.txt", SEA)
    assert len(make_map(store, num_clusters=5).points) == 40


def test_a_document_without_meaning_yet_is_left_out(store: SqliteStore) -> None:
    fill(store, 3)
    add(store, "waiting.txt", SEA, embedded=False)
    assert "waiting.txt" not in {point.path.name for point in make_map(store).points}


def test_an_empty_index_has_an_empty_map(store: SqliteStore) -> None:
    assert make_map(store) == Map((), ())


def test_a_map_of_some_documents_holds_these_alone(store: SqliteStore) -> None:
    fill(store)
    chosen = [Path("/library/sea1.txt"), Path("/library/oven1.txt")]
    assert [point.path for point in make_map(store, chosen).points] == chosen


def test_a_map_that_was_stopped_is_empty(store: SqliteStore) -> None:
    fill(store)
    assert make_map(store, is_stopped=lambda: True) == Map((), ())


def test_progress_ends_with_all_documents_read(store: SqliteStore) -> None:
    fill(store, 2)
    told: list[tuple[int, int]] = []
    make_map(store, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)


def test_larger_clusters_come_first() -> None:
    positions = np.concatenate([np.full((3, 2), 0.1), np.full((9, 2), 0.9)]) + np.arange(24).reshape(12, 2) * 1e-4
    assert cluster(positions, 2).tolist() == [1, 1, 1, *[0] * 9]


def test_page_holds_every_document_and_nothing_to_fetch(store: SqliteStore) -> None:
    fill(store)
    add(store, "</script><b>&amp; own name.txt", SEA)
    found = make_map(store)
    text = page(found)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert data is not None
    held = json.loads(data[1])
    assert [each["path"] for each in held["points"]] == [str(point.path) for point in found.points]
    assert [each["documents"] for each in held["clusters"]] == [each.num_documents for each in found.clusters]
    assert text.count("</script>") == 2
    assert not re.search(r"""(?:src|href)\s*=\s*["']|https?:|url\(""", text)
