"""Embeddings as they are stored, and the search for the nearest among them.

What is searched first are codes, a few hundred bits each, held in memory, in four steps that each take fewer and
look closer: the bits in which half of a code differs from the query's, those of all of it, the query's own numbers
added up by the signs of a code, the stored embedding.

A code is the signs of the embedding's numbers. An embedding of few numbers has too few signs to tell neighbours
apart, and one of very many more than it takes: then they are the signs of _PROJECTED_BITS random projections. The
projections are drawn from a fixed seed, so that every process makes the same codes.

A stored embedding is one scale and whole numbers, x / scale. Where a code has the signs, the numbers are uint8 without
them, and half as far apart as int8 would have them: their rounding would otherwise change the order of neighbours.
Where it has not they are int16 if they are few, for the same reason, and int8 if they are very many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROJECTED_BITS = 768
_FEWEST_SIGNS = 384
_MOST_SIGNS = 1024
_SEED = 20_240_209  # never to be changed: stored codes were made by it
_BLOCK = 1 << 14
"""Codes compared at a time; what is between stays in the processor's cache."""
_MOST_IN_BYTE = 3
"""Words whose differing bits a byte can count."""
_BY_HALF = 10
"""How many codes are looked at whole for each that is then looked at closer."""
_DEAR = 4
"""To compare one code of its own costs about as much as so many that follow each other."""
_SAMPLE = 4096
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)


# ---------------------------------------------------------------- stored embeddings


def stored(embeddings_ND: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows of bytes, uint8[N, num_bytes]: the scale as float32, then the numbers of the L2-normalised embedding."""
    number_type = _number_type(embeddings_ND.shape[1])
    lengths_N1 = np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    unit_ND = embeddings_ND / np.maximum(lengths_N1, np.finfo(np.float32).tiny)
    if number_type.kind == "u":
        unit_ND = np.abs(unit_ND)
    scales_N1 = (np.abs(unit_ND).max(axis=1, keepdims=True) / np.iinfo(number_type).max).astype("<f4")
    numbers_ND = np.rint(unit_ND / np.maximum(scales_N1, np.finfo(np.float32).tiny)).astype(number_type)
    return np.hstack([scales_N1.view(np.uint8), numbers_ND.view(np.uint8)])


def restored(rows: Iterable[bytes], codes_NB: NDArray[np.uint8], dimension: int) -> NDArray[np.float32]:
    """Embeddings, float32[N, D], from their stored rows and their codes."""
    scales_N1, numbers_ND = _parts(rows, codes_NB, dimension)
    return numbers_ND * scales_N1


def cosines(rows: Iterable[bytes], codes_NB: NDArray[np.uint8], query_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of the query and each stored embedding, float32[N]."""
    scales_N1, numbers_ND = _parts(rows, codes_NB, len(query_D))
    unit_D = query_D / max(float(np.linalg.norm(query_D)), float(np.finfo(np.float32).tiny))
    # in this thread: BLAS's others make so small a product wait where processors are busy
    products: NDArray[np.float32] = np.einsum("nd,d->n", numbers_ND, unit_D) * scales_N1[:, 0]
    return products


def _parts(
    rows: Iterable[bytes], codes_NB: NDArray[np.uint8], dimension: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scales, float32[N, 1], and the numbers with their signs, float32[N, D]."""
    number_type = _number_type(dimension)
    bytes_NB = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, num_bytes(dimension))
    numbers_ND = bytes_NB[:, 4:].view(number_type).astype(np.float32)
    if number_type.kind == "u":
        signs_ND = np.unpackbits(codes_NB.reshape(len(bytes_NB), -1), axis=1, count=dimension).view(np.int8)
        numbers_ND *= 2 * signs_ND - 1
    return bytes_NB[:, :4].view("<f4"), numbers_ND


def _number_type(dimension: int) -> np.dtype[np.integer[Any]]:
    if _has_signs(dimension):
        return np.dtype("u1")
    return np.dtype("<i2" if dimension < _FEWEST_SIGNS else "i1")


def num_bytes(dimension: int) -> int:
    """Length of a stored embedding."""
    return 4 + dimension * _number_type(dimension).itemsize


# ---------------------------------------------------------------- codes


def num_bits(dimension: int) -> int:
    """Length of a code; a multiple of 64."""
    return -(-dimension // 64) * 64 if _has_signs(dimension) else _PROJECTED_BITS


def _has_signs(dimension: int) -> bool:
    """Whether a code has the signs of the embedding's own numbers."""
    return _FEWEST_SIGNS <= dimension <= _MOST_SIGNS


def codes(embeddings_ND: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Packed bits, uint8[N, num_bits / 8]."""
    dimension = embeddings_ND.shape[1]
    if _has_signs(dimension):
        signs = embeddings_ND > 0
        if more := num_bits(dimension) - dimension:
            signs = np.pad(signs, ((0, 0), (0, more)))
        return np.packbits(signs, axis=1)
    return np.packbits(embeddings_ND @ _projection(dimension) > 0, axis=1)


def _projected(embedding_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a code has the signs of."""
    return embedding_D if _has_signs(len(embedding_D)) else embedding_D @ _projection(len(embedding_D))


@lru_cache(maxsize=2)
def _projection(dimension: int) -> NDArray[np.float32]:
    drawn = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((dimension, _PROJECTED_BITS), np.float32)
    return drawn


def num_exact(limit: int) -> int:
    """How many embeddings to compare exactly for so many hits."""
    return 250 + 3 * limit


def _num_by_bits(num_exact: int, num: int) -> int:
    """How many of `num` codes to look at closer. Enough for recall@10 of .99 at every dimension (see the tests)."""
    return int(7 * num_exact * max(1.0, num / 100_000) ** 0.3)


# ---------------------------------------------------------------- codes in memory


@dataclass(frozen=True)
class CodeState:
    """What decides whether codes in memory are those of the index."""

    space_id: int
    num_added: int
    num_removed: int


CodeBlock = tuple[int, bytes, bytes, bytes]
"""Number, bits that tell which of its rows are used, int64 ids, codes: as a vec0 table keeps them."""


class Codes:
    """The codes of the searched space in memory; shared by all threads of a process, safe to use by each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: CodeState | None = None
        self._last_block = 0
        self._num_in_last = 0
        self._num = 0
        self._words_WN = np.empty((0, 0), np.uint64)  # the codes' 64-bit words, one row for all first words
        self._ids_N = np.empty(0, np.int64)

    def bring_up(self, state: CodeState, num_bits: int, read: Callable[[int], Iterable[CodeBlock]]) -> CodesNow:
        """The codes of this state; what is not in memory yet is read, from a block number on."""
        with self._lock:
            if state != self._state:
                known = self._state
                is_growth = (
                    known is not None
                    and (known.space_id, known.num_removed) == (state.space_id, state.num_removed)
                    and known.num_added < state.num_added
                )
                self._state = None  # until all is read
                if not is_growth:
                    self._last_block = self._num_in_last = self._num = 0
                    self._words_WN = np.empty((num_bits // 64, 0), np.uint64)
                    self._ids_N = np.empty(0, np.int64)
                for block in read(self._last_block):
                    self._append(block)
                self._state = state
            return CodesNow(self._words_WN[:, : self._num], self._ids_N[: self._num])

    def _append(self, block: CodeBlock) -> None:
        number, validity, ids, packed = block
        num_known = self._num_in_last if number == self._last_block else 0
        used = np.flatnonzero(np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little"))[num_known:]
        end = self._num + len(used)
        if end > len(self._ids_N):  # others may still search the old arrays: these are left as they are
            capacity = max(end, self._num * 5 // 4, 1024)
            words_WN = np.empty((len(self._words_WN), capacity), np.uint64)
            words_WN[:, : self._num] = self._words_WN[:, : self._num]
            ids_N = np.empty(capacity, np.int64)
            ids_N[: self._num] = self._ids_N[: self._num]
            self._words_WN, self._ids_N = words_WN, ids_N
        codes_NW = np.frombuffer(packed, np.uint64).reshape(-1, len(self._words_WN))
        self._words_WN[:, self._num : end] = codes_NW[used].T
        self._ids_N[self._num : end] = np.frombuffer(ids, np.int64)[used]
        self._last_block, self._num_in_last, self._num = number, num_known + len(used), end


@dataclass(frozen=True)
class CodesNow:
    """Codes as they were at one moment."""

    words_WN: NDArray[np.uint64]
    ids_N: NDArray[np.int64]

    def allowed(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which codes are those of the given ids, bool[N]."""
        is_allowed = np.zeros(1 + int(max(self.ids_N.max(initial=0), ids.max(initial=0))), bool)
        is_allowed[ids] = True
        return is_allowed[self.ids_N]

    def nearest(
        self, query_D: NDArray[np.float32], num: int, allowed_N: NDArray[np.bool_] | None = None
    ) -> NDArray[np.intp]:
        """Where the `num` codes are that seem nearest to the query, in no order; all if there are no more.

        Args:
            allowed_N: which codes to look at, from the start.
        """
        places = None if allowed_N is None else np.flatnonzero(allowed_N)
        total = len(self.ids_N) if places is None else len(places)
        if total <= num:
            return np.arange(total) if places is None else places
        query_W, half = codes(query_D[None]).view(np.uint64)[0], len(self.words_WN) // 2
        num_by_bits = min(total, _num_by_bits(num, total))
        distances = self._distances(query_W, 0, half, places)
        near = np.flatnonzero(distances <= _bound(distances, min(total, _BY_HALF * num_by_bits)))
        places = near if places is None else places[near]
        distances = distances[near] + self._distances(query_W, half, len(query_W), places)
        places = places[distances <= _bound(distances, num_by_bits)]
        if num >= len(places):
            return places
        sums_C = _sums(self.packed(places), _projected(query_D))
        return places[np.argpartition(-sums_C, num)[:num]]

    def packed(self, places: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The codes at these places, uint8[len(places), num_bits / 8]."""
        return np.stack([each.take(places) for each in self.words_WN], axis=1).view(np.uint8)

    def _distances(
        self, query_W: NDArray[np.uint64], start: int, stop: int, places: NDArray[np.intp] | None
    ) -> NDArray[np.uint16]:
        """Number of bits in which these words of the codes at these places differ from the query's, uint16."""
        words = list(self.words_WN[start:stop])
        if places is not None and len(places) < len(self.ids_N) // _DEAR:
            return _differences([each.take(places) for each in words], query_W[start:stop])
        distances_N = _differences(words, query_W[start:stop])
        return distances_N if places is None else distances_N[places]


def _differences(words: Sequence[NDArray[np.uint64]], query_W: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Number of bits in which codes differ from the query, uint16[N]; of each word of the query all codes' words."""
    distances_N = np.empty(len(words[0]), np.uint16)
    differing, counted, some = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.uint8)
    for start in range(0, len(distances_N), _BLOCK):
        found_N = distances_N[start : start + _BLOCK]
        found_N[:] = 0
        num = len(found_N)
        for first in range(0, len(query_W), _MOST_IN_BYTE):
            some[:num] = 0
            for words_N, word in zip(words[first:][:_MOST_IN_BYTE], query_W[first:][:_MOST_IN_BYTE], strict=True):
                bits = np.bitwise_xor(words_N[start : start + num], word, out=differing[:num])
                some[:num] += np.bitwise_count(bits, out=counted[:num])
            found_N += some[:num]
    return distances_N


def _sums(codes_CB: NDArray[np.uint8], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each code the sum of the numbers whose bits are set, float32[C]; ranks as the sum by signs does.

    A table has the sum for each value of each byte.
    """
    num_bytes = codes_CB.shape[1]
    numbers_B8 = np.zeros((num_bytes, 8), np.float32)
    numbers_B8.ravel()[: len(numbers)] = numbers
    table_BV = np.einsum("bi,vi->bv", numbers_B8, _BITS_OF_BYTE)
    sums: NDArray[np.float32] = table_BV.ravel()[codes_CB + 256 * np.arange(num_bytes)].sum(axis=1)
    return sums


def _bound(distances_N: NDArray[np.uint16], num: int) -> int:
    """The smallest distance that at least `num` do not exceed; a sample says where to look."""
    sample = distances_N[:: max(1, len(distances_N) // _SAMPLE)]
    nth = min(num * len(sample) // len(distances_N), len(sample) - 1)
    bound = int(np.partition(sample, nth)[nth])
    while np.count_nonzero(distances_N <= bound) < num:
        bound += 1
    while bound and np.count_nonzero(distances_N <= bound - 1) >= num:
        bound -= 1
    return bound
