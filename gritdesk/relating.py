"""One file -> the files that are like it: by the mean of its embeddings, or by its rarest words where it has none.

Files are near whose embeddings have a near mean. A store looks up chunks and not files, so the chunks near to the
file's own mean are looked up, and the means of their files compared: as good as comparing all files, and better than
pairs of chunks (benchmarks/similar.py).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.errors import QueryError
from gritdesk.records import Hit, SimilarFiles
from gritdesk.store.base import Store
from gritdesk.store.words import unspaced_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_DEPTH, _MAX_DEPTH = 50, 3200
"""Chunks looked up, at least and at most."""
_MOST_WEIGHED, _MOST_WORDS = 60, 12
"""Words of a file whose rarity is looked up, and those of them that look for similar files."""


def similar_files(store: Store, path: Path, n: int = 10) -> SimilarFiles:
    """The `n` files nearest to an indexed one, without it and its exact copies; copies of another one are one hit.

    Raises: QueryError if the file is not in the index.
    """
    files = store.files()
    path = path if path in files else path.resolve()  # by a link
    state = files.get(path)
    if state is None or state.state == "failed":
        reason = f"could not be indexed: {state.reason}" if state else "is not in the index"
        raise QueryError(f"{path} {reason}; `gritdesk status` says what is")
    content = state.content_hash
    copies = {each for each in files if content and each != path and files[each].content_hash == content}
    contents = {each: state.content_hash for each, state in files.items()}
    hits = _near(store, path, {path, *copies}, contents, n)
    return SimilarFiles(tuple(hits[:n]), tuple(sorted(copies)))


def _near(store: Store, path: Path, but: set[Path], contents: Mapping[Path, str], n: int) -> list[Hit]:
    mean_D = _mean_of(store, path)
    if mean_D is None:
        words = " ".join(_rarest_words(store, path))
        if not words:
            return []
        return _other_files(lambda limit: store.keyword(words, limit, all_first=False), but, contents, n)
    hits = []
    for hit in _other_files(lambda limit: store.nearest(mean_D, limit), but, contents, n):
        other_D = _mean_of(store, hit.path)
        hits.append(hit if other_D is None else dataclasses.replace(hit, score=float(mean_D @ other_D)))
    return sorted(hits, key=lambda hit: -hit.score)


def _other_files(fetch: Callable[[int], list[Hit]], but: set[Path], contents: Mapping[Path, str], n: int) -> list[Hit]:
    """The best chunk of each file that is none of `but`, from as deep as it takes to find a few more than `n`.

    Args:
        contents: hashes of the files' contents; files of one content are one.
    """
    depth = max(_MIN_DEPTH, 5 * n)
    while True:
        found = fetch(depth)
        best: dict[str | Path, Hit] = {}
        for hit in found:
            if hit.path not in but:
                best.setdefault(contents.get(hit.path) or hit.path, hit)
        if len(best) >= 2 * n or len(found) < depth or depth >= _MAX_DEPTH:
            return list(best.values())
        depth = min(8 * depth, _MAX_DEPTH)


def _mean_of(store: Store, path: Path) -> NDArray[np.float32] | None:
    """The direction of a file's embeddings, float32[dimension] of length 1; None if it has none."""
    embeddings_ND = store.embeddings_of(path)
    if not len(embeddings_ND):
        return None
    mean_D = embeddings_ND.mean(axis=0)
    length = float(mean_D @ mean_D) ** 0.5
    return (mean_D / length).astype("float32") if length > 0 else None


def _rarest_words(store: Store, path: Path) -> list[str]:
    """Words that a file shares with the fewest others and has most of."""
    text = (store.document_text(path) or "").lower()
    words = Counter(re.findall(r"[^\W\d_]{3,}", text))
    words.update(unspaced_pairs(text))
    weights: dict[str, float] = {}
    for word, count in words.most_common(_MOST_WEIGHED):
        others = {hit.path for hit in store.keyword(f'"{word}"', _MIN_DEPTH)} - {path}
        if others:
            weights[word] = count * math.log((_MIN_DEPTH + 1) / len(others))
    return sorted(weights, key=lambda word: -weights[word])[:_MOST_WORDS]
