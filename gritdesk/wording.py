"""What a search did, in words for a person: the same ones on the command line and in the terminal UI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gritdesk.records import MOST_COUNTED, Hit


@dataclass(frozen=True)
class Reason:
    """A part of a hit's score."""

    source: str
    added: float
    because: str = ""
    """Rank, measure and weight; "" where there is no more to say."""


def reasons(hit: Hit) -> Iterator[Reason]:
    """What a hit's score is the sum of; nothing where no explanation was asked for, or where the newest come first."""
    why = hit.explanation
    if why is None:
        return
    is_ranked = hit.keyword_rank is not None or hit.semantic_rank is not None
    if hit.keyword_rank is not None:
        bm25 = f", BM25 {why.bm25:.2f}" if why.bm25 else ""
        yield Reason("words", why.words, f"rank {hit.keyword_rank}{bm25}, weight {why.keyword_weight:g}")
    if hit.semantic_rank is not None and hit.distance is not None:
        cosine = f"cosine {1 - hit.distance:.2f}"
        yield Reason("meaning", why.meaning, f"rank {hit.semantic_rank}, {cosine}, weight {why.semantic_weight:g}")
    if why.bonus and is_ranked:
        yield Reason("spelled as asked", why.bonus)
    if why.reading is not None:
        yield Reason("read again", why.reading)


def held(hit: Hit) -> list[tuple[str, str]]:
    """("has", "token, bucket"), ("lacks", "fixed"), ("within", "type:pdf"): what there is to say."""
    why = hit.explanation
    if why is None:
        return []
    lists = [("has", why.terms_found), ("lacks", why.terms_missing), ("within", why.restrictions)]
    return [(name, ", ".join(each)) for name, each in lists if each]


def explained(hit: Hit) -> str:
    """`1.02 = words 0.77 (rank 1, BM25 6.20, weight 1) + meaning 0.25 (...); has token, bucket; within type:pdf`."""
    parts = [_in_line(each) for each in reasons(hit)]
    return "; ".join([f"{hit.score:.2f} = {' + '.join(parts) or NEWEST_FIRST}", *map(" ".join, held(hit))])


NEWEST_FIRST = "newest first"
"""What decides where a query is of filters alone."""


def _in_line(reason: Reason) -> str:
    if reason.source == "spelled as asked":
        return f"{reason.source} {reason.added:g}"
    return f"{reason.source} {reason.added:.2f}" + (f" ({reason.because})" if reason.because else "")


def counted(num: int) -> str:
    """A number of passages, which are counted so far and no further."""
    return f"{num} or more passages" if num >= MOST_COUNTED else "1 passage" if num == 1 else f"{num} passages"
