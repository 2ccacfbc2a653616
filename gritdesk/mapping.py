"""The index -> a map: every document a point, near what it is near in meaning, in clusters named by their words.

A document stands for the mean of its embeddings. Points are laid out as UMAP does it (McInnes, Healy, Melville,
arXiv 1802.03426): documents pull their nearest neighbours and push others away, which keeps neighbourhoods and lets
far distances mean little. The same index gives the same map.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.records import Map, MapCluster, MapPoint
from gritdesk.store.base import Store
from gritdesk.store.words import is_stop_word

MAX_PLACED = 3_000
"""Documents that are laid out with each other; further ones are put between those of them they are nearest to."""
_NUM_NEIGHBOURS = 10
_NUM_EPOCHS = 150
_NUM_PUSHED = 3
"""Random others that an edge's end is pushed away from, in each epoch."""
_NAMING_CHARS = 20_000
"""Of a document are read for the names of its cluster."""
_NUM_WORDS = 3
_WORD = re.compile(r"[^\W\d_]{3,}")

Progress = Callable[[int, int], None]
"""Told how many documents are read, of how many."""


def make_map(
    store: Store,
    paths: Sequence[Path] | None = None,
    num_clusters: int | None = None,
    on_progress: Progress = lambda done, total: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Map:
    """Lay out documents, all that have embeddings or those of `paths`; what was stopped gives an empty map.

    Args:
        num_clusters: by the number of documents if None; fewer where there are fewer groups.
    """
    if paths is None:
        paths = sorted(path for path, state in store.files().items() if state.state == "indexed")
    placed, means, words = [], [], []
    for number, path in enumerate(paths):
        if is_stopped():
            return Map((), ())
        on_progress(number, len(paths))
        embeddings_ND = store.embeddings_of(path)
        if len(embeddings_ND):
            placed.append(path)
            means.append(embeddings_ND.mean(axis=0))
            words.append(_words(store.document_text(path) or ""))
    on_progress(len(paths), len(paths))
    if not placed:
        return Map((), ())
    means_ND = np.stack(means).astype(np.float32)
    means_ND /= np.maximum(np.linalg.norm(means_ND, axis=1, keepdims=True), 1e-12)
    positions_N2 = lay_out(means_ND)
    cluster_N = cluster(positions_N2, num_clusters or _usual_number(len(placed)))
    points = tuple(
        MapPoint(path, float(x), float(y), int(number))
        for path, (x, y), number in zip(placed, positions_N2, cluster_N, strict=True)
    )
    names = _names(words, cluster_N)
    return Map(points, tuple(_summary(number, name, positions_N2, cluster_N) for number, name in enumerate(names)))


# ---------------------------------------------------------------- where points lie


def lay_out(means_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Positions float64[num, 2] between 0 and 1, near for what is near by cosine.

    Args:
        means_ND: rows of length 1.
    """
    num = len(means_ND)
    if num <= MAX_PLACED:
        return _fitted(_pulled_apart(means_ND))
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(num, MAX_PLACED, replace=False))
    laid_M2 = _pulled_apart(means_ND[chosen])
    positions_N2 = np.empty((num, 2))
    for first in range(0, num, 1024):
        cosines = means_ND[first : first + 1024] @ means_ND[chosen].T
        near = np.argpartition(-cosines, 4, axis=1)[:, :5]
        weights = np.exp(20 * (np.take_along_axis(cosines, near, 1) - cosines.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        positions_N2[first : first + 1024] = (laid_M2[near] * weights[:, :, None]).sum(axis=1)
    positions_N2[chosen] = laid_M2
    return _fitted(positions_N2)


def _pulled_apart(means_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Principal components to begin with, then neighbours pull and others push."""
    positions_N2 = _principal(means_ND).astype(np.float32)
    num = len(means_ND)
    if num < 4:
        return positions_N2.astype(np.float64)
    heads, tails, weights = _edges(means_ND, min(_NUM_NEIGHBOURS, num - 1))
    rng = np.random.default_rng(0)
    for epoch in range(_NUM_EPOCHS):
        rate = 1 - epoch / _NUM_EPOCHS
        used = rng.random(len(weights)) < weights  # strong edges pull in most epochs, weak ones in few
        h, t = heads[used], tails[used]
        pull = _pull(positions_N2[h] - positions_N2[t])
        moves = _gathered(h, pull, num) - _gathered(t, pull, num)
        h = np.repeat(h, _NUM_PUSHED)
        others = rng.integers(0, num, len(h))
        moves += _gathered(h, _push(positions_N2[h] - positions_N2[others]), num)
        positions_N2 += np.float32(rate) * np.clip(moves, -4, 4)
    return positions_N2.astype(np.float64)


def _principal(means_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first two principal components, float64[num, 2], some ten wide."""
    centred = means_ND.astype(np.float64) - means_ND.mean(axis=0)
    if len(centred) < 2:
        return np.zeros((len(centred), 2))
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # a direction's sign is chance
    positions = np.zeros((len(centred), 2))
    positions[:, : axes.shape[1]] = centred @ axes
    # copies would lie upon each other, and nothing could part them
    positions += np.random.default_rng(0).normal(0, 1e-4, positions.shape)
    return positions * (10 / max(float(np.abs(positions).max()), 1e-12))


def _edges(
    means_ND: NDArray[np.float32], num_neighbours: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Each document's neighbours as edges (from, to, weight in 0 to 1), the nearest of each with weight 1."""
    num = len(means_ND)
    heads = np.repeat(np.arange(num), num_neighbours)
    tails = np.empty((num, num_neighbours), dtype=np.intp)
    weights = np.empty((num, num_neighbours))
    for first in range(0, num, 1024):
        rows = slice(first, min(first + 1024, num))
        cosines = means_ND[rows] @ means_ND.T
        cosines[np.arange(cosines.shape[0]), np.arange(rows.start, rows.stop)] = -2
        near = np.argpartition(-cosines, num_neighbours - 1, axis=1)[:, :num_neighbours]
        distances = 1 - np.take_along_axis(cosines, near, 1)
        beyond = distances - distances.min(axis=1, keepdims=True)
        tails[rows] = near
        weights[rows] = np.exp(-beyond / np.maximum(beyond.mean(axis=1, keepdims=True), 1e-9))
    return heads, tails.ravel(), weights.ravel()


def _pull(apart: NDArray[np.float32]) -> NDArray[np.float32]:
    """Along the gradient of ln 1 / (1 + d^2): UMAP's curve with a = b = 1, which needs no powers."""
    return -2 * apart / (1 + _square(apart))


def _push(apart: NDArray[np.float32]) -> NDArray[np.float32]:
    """Along the gradient of ln (1 - 1 / (1 + d^2))."""
    square = _square(apart)
    return np.clip(2 * apart / ((0.001 + square) * (1 + square)), -4, 4)


def _square(apart: NDArray[np.float32]) -> NDArray[np.float32]:
    return (apart[:, 0] * apart[:, 0] + apart[:, 1] * apart[:, 1])[:, None]


def _gathered(rows: NDArray[np.intp], moves: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """The sum of each row's moves, float32[num, 2]."""
    return np.stack([np.bincount(rows, moves[:, axis], num) for axis in (0, 1)], axis=1).astype(np.float32)


def _fitted(positions_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Into the unit square; a straggler far from all others does not press the rest together."""
    low, high = np.percentile(positions_N2, [1, 99], axis=0) if len(positions_N2) > 50 else _bounds(positions_N2)
    room = 0.1 * np.maximum(high - low, 1e-9)
    inside = np.clip(positions_N2, low - room, high + room)
    low, high = _bounds(inside)
    return np.where(high - low > 1e-9, (inside - low) / np.maximum(high - low, 1e-9), 0.5)


def _bounds(positions_N2: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return positions_N2.min(axis=0), positions_N2.max(axis=0)


# ---------------------------------------------------------------- clusters and their names


def _usual_number(num: int) -> int:
    """A dozen for a thousand documents: as many as a person takes in at a glance."""
    return max(1, min(24, round(math.sqrt(num) / 2.5)))


def cluster(positions_N2: NDArray[np.float64], num_clusters: int) -> NDArray[np.intp]:
    """The number of each point's cluster, from 0, larger ones first; by k-means from spread-out starts (k-means++)."""
    rng = np.random.default_rng(0)
    num_clusters = min(num_clusters, len(np.unique(positions_N2, axis=0)))
    centres = positions_N2[[rng.integers(len(positions_N2))]]
    while len(centres) < num_clusters:
        nearest = _squares(positions_N2, centres).min(axis=1)
        centres = np.vstack([centres, positions_N2[rng.choice(len(positions_N2), p=nearest / nearest.sum())]])
    number_N = np.zeros(len(positions_N2), dtype=np.intp)
    for _ in range(50):
        before = number_N
        number_N = _squares(positions_N2, centres).argmin(axis=1)
        if (number_N == before).all() and before.any():
            break
        for each in range(num_clusters):
            if (members := number_N == each).any():
                centres[each] = positions_N2[members].mean(axis=0)
    by_size = np.argsort(-np.bincount(number_N, minlength=num_clusters), kind="stable")
    rank = np.empty(num_clusters, dtype=np.intp)
    rank[by_size] = np.arange(num_clusters)
    return rank[number_N]


def _squares(positions_N2: NDArray[np.float64], centres_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances, float64[num, num_centres]."""
    squares: NDArray[np.float64] = ((positions_N2[:, None, :] - centres_K2[None, :, :]) ** 2).sum(axis=2)
    return squares


def _words(text: str) -> Counter[str]:
    """The words of a text's beginning that may name what it is about, in their commonest spelling, each once."""
    found = {word.casefold() for word in _WORD.findall(text[:_NAMING_CHARS])}
    return Counter(word for word in found if not is_stop_word(word))


def _names(words: Sequence[Counter[str]], cluster_N: NDArray[np.intp]) -> list[tuple[str, ...]]:
    """The words that most of a cluster's documents have and most others have not, best first."""
    everywhere: Counter[str] = Counter()
    inside = [Counter[str]() for _ in range(int(cluster_N.max()) + 1)]
    for counter, number in zip(words, cluster_N, strict=True):
        everywhere += counter
        inside[number] += counter
    sizes = np.bincount(cluster_N)
    return [_telling(inside[each], everywhere, int(sizes[each]), len(words)) for each in range(len(inside))]


def _telling(inside: Counter[str], everywhere: Counter[str], size: int, total: int) -> tuple[str, ...]:
    def weight(word: str) -> float:
        share = inside[word] / size
        elsewhere = (everywhere[word] - inside[word] + 0.5) / (total - size + 1)
        return share * math.log(share / elsewhere) if share > elsewhere else 0.0

    # a word of one document says nothing of a cluster of many
    able = [word for word, count in inside.items() if count >= min(2, size)]
    best = sorted(able, key=lambda word: (-weight(word), -len(word), word))
    chosen: list[str] = []
    for word in best:
        if not any(word.startswith(each[:5]) for each in chosen):  # "lamp" and "lamps" are one
            chosen.append(word)
        if len(chosen) == _NUM_WORDS:
            break
    return tuple(chosen)


def _summary(
    number: int, words: tuple[str, ...], positions_N2: NDArray[np.float64], cluster_N: NDArray[np.intp]
) -> MapCluster:
    members = positions_N2[cluster_N == number]
    x, y = np.median(members, axis=0)
    return MapCluster(words, float(x), float(y), len(members))
