"""What an index may keep of embeddings -> who is nearest then: all of each number, a byte, a bit, or fewer numbers.

Pure functions of arrays. Bytes and bits are those of sqlite-vec, so that a loss measured here is the loss of an index.
Letters: N passages, Q queries, D dimensions, K passages found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Ranking = Iterator[tuple[NDArray[np.intp], Floats]]
"""Of each query in turn the numbers of the nearest passages, best first, and their cosines."""
Ranker = Callable[[Floats, Floats, int], Ranking]
"""passages_ND, queries_QD, how many to find -> those."""

NUM_RESCORED = 80
"""Passages that bits put forward to be looked at closely: eight times the ten that are shown. Of hundreds of thousands
of passages more are needed, by number and not by share."""


def by_cosine(passages_ND: Floats, queries_QD: Floats, limit: int) -> Ranking:
    """The nearest of all passages; of equally near ones the first.

    Args:
        passages_ND: rows of length 1, as the queries'.
    """
    for query_D in queries_QD:
        cosines_N = passages_ND @ query_D
        nearest_K = np.argsort(-cosines_N, kind="stable")[:limit]
        yield nearest_K, cosines_N[nearest_K]


def by_int8(passages_ND: Floats, queries_QD: Floats, limit: int) -> Ranking:
    """The nearest when both sides are kept in bytes, as vec0 compares them in a column of int8."""
    return by_cosine(_unit(int8_stretched(passages_ND)), _unit(int8_stretched(queries_QD)), limit)


def by_bits(passages_ND: Floats, queries_QD: Floats, limit: int, num_rescored: int = NUM_RESCORED) -> Ranking:
    """The nearest by signs alone put into order by what bytes tell: the query whole, the passages in bytes.

    Args:
        num_rescored: how many passages with the most signs like the query's are looked at; no more are found.
    """
    bits_NB, rough_ND = sign_bits(passages_ND), _unit(int8_stretched(passages_ND))
    for query_D, bits_B in zip(queries_QD, sign_bits(queries_QD), strict=True):
        differing_N = np.bitwise_count(bits_NB ^ bits_B).sum(axis=1, dtype=np.int32)
        shortlist = np.argsort(differing_N, kind="stable")[:num_rescored]
        ((order_K, cosines_K),) = by_cosine(rough_ND[shortlist], query_D[None], limit)
        yield shortlist[order_K], cosines_K


def by_leading(dimension: int) -> Ranker:
    """The way to rank by the first so many dimensions, each row made length 1 again (Matryoshka)."""

    def rank(passages_ND: Floats, queries_QD: Floats, limit: int) -> Ranking:
        return by_cosine(_unit(passages_ND[:, :dimension]), _unit(queries_QD[:, :dimension]), limit)

    return rank


def int8_stretched(embeddings_ND: Floats) -> NDArray[np.int8]:
    """Bytes of each row stretched until its largest number is 1 or -1, which no cosine notices.

    As they are, the numbers of a row of length 1 would share few of the 256 steps: at 128 dimensions that alone cost
    0.6 points of nDCG@10 on cranfield.
    """
    largest_N1 = np.abs(embeddings_ND).max(axis=1, keepdims=True)
    stretched_ND: Floats = (embeddings_ND / np.where(largest_N1 > 0, largest_N1, 1.0)).astype(np.float32)
    return int8_unit(stretched_ND)


def int8_unit(embeddings_ND: Floats) -> NDArray[np.int8]:
    """Each number, from -1 to 1, as one of 256 steps, rounded towards 0.

    Source: sqlite-vec 0.1.9, `vec_quantize_int8(vector, 'unit')`.
    """
    step = np.float32(2.0 / 255)
    steps_ND: Floats = (embeddings_ND + np.float32(1.0)) / step - np.float32(128.0)
    return steps_ND.astype(np.int8)


def sign_bits(embeddings_ND: Floats) -> NDArray[np.uint8]:
    """A bit a number, set where it is above 0, eight to a byte, the first one lowest.

    Returns: uint8[N, D / 8], the last byte filled up with zeros.
    Source: sqlite-vec 0.1.9, `vec_quantize_binary(vector)`, which takes whole bytes alone.
    """
    return np.packbits(embeddings_ND > 0, axis=1, bitorder="little")


def _unit(rows_ND: Floats | NDArray[np.int8]) -> Floats:
    """Rows of length 1; one without any length stays so and is near to nothing."""
    floats_ND = rows_ND.astype(np.float32)
    lengths_N1 = np.linalg.norm(floats_ND, axis=1, keepdims=True)
    return (floats_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0)).astype(np.float32)
