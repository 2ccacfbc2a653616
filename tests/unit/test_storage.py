"""Smaller embeddings: bytes and bits are sqlite-vec's, and the nearest passage stays the nearest."""

from __future__ import annotations

import apsw
import numpy as np
import pytest
import sqlite_vec
from numpy.typing import NDArray

from training.storage import (
    Floats,
    Ranking,
    by_bits,
    by_cosine,
    by_int8,
    by_leading,
    int8_stretched,
    int8_unit,
    sign_bits,
)

DIMENSION = 64


def random_rows(num: int, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(num, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def numbers(ranking: Ranking) -> list[list[int]]:
    return [found.tolist() for found, _ in ranking]


@pytest.fixture(scope="module")
def vec() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def test_bytes_and_bits_are_those_of_sqlite_vec(vec: apsw.Connection) -> None:
    edges = np.zeros((3, DIMENSION), dtype=np.float32)
    edges[0, 0], edges[1, 5] = 1.0, -1.0
    for row in [*random_rows(50), *edges]:
        of_vec = vec.execute(
            "SELECT vec_quantize_int8(?1, 'unit'), vec_quantize_binary(?1)", (row.tobytes(),)
        ).fetchall()
        assert of_vec == [(int8_unit(row[None]).tobytes(), sign_bits(row[None]).tobytes())]


def test_bytes_rank_as_a_column_of_bytes_does(vec: apsw.Connection) -> None:
    passages_ND, queries_QD = random_rows(40), random_rows(5, seed=1)
    vec.execute(f"CREATE VIRTUAL TABLE byte USING vec0(embedding int8[{DIMENSION}] distance_metric=cosine)")
    for number, row in enumerate(int8_stretched(passages_ND)):
        vec.execute("INSERT INTO byte(rowid, embedding) VALUES (?, vec_int8(?))", (number, row.tobytes()))
    for (found, cosines), query in zip(by_int8(passages_ND, queries_QD, 10), int8_stretched(queries_QD), strict=True):
        rows = vec.execute(
            "SELECT rowid, distance FROM byte WHERE embedding MATCH vec_int8(?) AND k = 10 ORDER BY distance",
            (query.tobytes(),),
        ).fetchall()
        assert found.tolist() == [number for number, _ in rows]
        assert 1 - cosines == pytest.approx([distance for _, distance in rows], abs=1e-6)


def test_stretching_uses_all_bytes_and_halves_what_they_lose() -> None:
    passages_ND, queries_QD = random_rows(300), random_rows(20, seed=1)
    assert (np.abs(int8_stretched(passages_ND).astype(int)).max(axis=1) >= 126).all()
    exact_QN = queries_QD @ passages_ND.T

    def furthest_off(bytes_ND: NDArray[np.int8]) -> float:
        rows = bytes_ND.astype(np.float32)
        return float(np.abs(queries_QD @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T - exact_QN).max())

    assert furthest_off(int8_stretched(passages_ND)) < 0.5 * furthest_off(int8_unit(passages_ND)) < 0.02


def test_bits_with_rescoring_find_the_nearest_that_bits_alone_miss() -> None:
    query = np.full(8, 0.1, dtype=np.float32)
    query[0] = 1.0
    nearest = query.copy()
    nearest[1:4] = -0.01  # three signs off, and near all the same
    same_signs = np.full(8, 1.0, dtype=np.float32)
    opposite = -query
    passages_ND = np.stack([each / np.linalg.norm(each) for each in (same_signs, opposite, nearest)])
    query_1D = (query / np.linalg.norm(query))[None]
    assert numbers(by_bits(passages_ND, query_1D, 1, num_rescored=2)) == [[2]]
    assert numbers(by_bits(passages_ND, query_1D, 3, num_rescored=1)) == [[0]]
    assert numbers(by_bits(passages_ND, query_1D, 3)) == numbers(by_cosine(passages_ND, query_1D, 3)) == [[2, 0, 1]]


def test_shortlist_is_as_wide_as_asked_and_by_signs() -> None:
    passages_ND, queries_QD = random_rows(200), random_rows(10, seed=1)
    for found, query in zip(numbers(by_bits(passages_ND, queries_QD, 80, 80)), queries_QD, strict=True):
        differing = ((passages_ND > 0) != (query > 0)).sum(axis=1)
        assert len(set(found)) == 80
        assert max(differing[found]) <= min(np.delete(differing, found))


def test_leading_dimensions_rank_by_their_own_cosine() -> None:
    passages_ND = np.array([[0.1, 0.0, 0.99], [0.6, 0.8, 0.0]], dtype=np.float32)
    query_1D = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    assert numbers(by_cosine(passages_ND, query_1D, 2)) == [[1, 0]]
    ((found, cosines),) = by_leading(2)(passages_ND, query_1D, 2)
    assert found.tolist() == [0, 1] and cosines == pytest.approx([1.0, 0.6])


def test_row_of_zeros_is_near_to_nothing() -> None:
    passages_ND = np.stack([np.zeros(DIMENSION, dtype=np.float32), *random_rows(1)])
    for rank in (by_int8, by_bits, by_leading(8)):
        ((found, cosines),) = rank(passages_ND, passages_ND[1:], 2)
        assert found.tolist() == [1, 0] and cosines.tolist() == pytest.approx([1.0, 0.0], abs=0.02)
