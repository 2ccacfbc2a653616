"""Hits -> the passages that a prompt holds: each text once, neighbours as one, a short file as a whole.

A passage is a hit still, whose chunk may be longer than any chunk of the index; its lines, page and heading hold for
all of its text, so that [n] leads to the right place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from gritdesk.records import Chunk, Hit


class Files(Protocol):
    """What is known of the files that hits lie in; a Store has it."""

    def document_text(self, path: Path) -> str | None: ...

    def chunks_of(self, path: Path) -> list[Chunk]: ...


def gather(hits: Sequence[Hit], num: int, files: Files | None, max_tokens: int) -> list[Hit]:
    """Passages of the first `num` different texts, best first; without `files` each is a hit as it came.

    Args:
        max_tokens: no passage is made longer than this, in the model's tokens.
    """
    passages = _different(hits)[:num]
    if files is None:
        return passages
    joined: list[Hit] = []
    for hit in passages:
        whole = whole_file(hit, files, max_tokens)
        if whole is None:
            joined = _with(joined, hit, files, max_tokens)
        elif all(each.path != hit.path for each in joined):
            joined.append(whole)
    return joined


def whole_file(hit: Hit, files: Files, max_tokens: int) -> Hit | None:
    """The file of a hit as one passage; None if it has more tokens, or pages, or text that is no slice of it."""
    chunks, text = files.chunks_of(hit.path), files.document_text(hit.path)
    if not chunks or text is None or sum(each.num_tokens for each in chunks) > max_tokens:
        return None
    if len({each.page for each in chunks}) > 1 or not _is_at_its_place(hit.chunk, text):
        return None
    return _over(hit, chunks[0], chunks[-1], text, sum(each.num_tokens for each in chunks))


def readings(path: Path, files: Files, max_tokens: int) -> list[str]:
    """The texts of a file as prompts hold them: the whole of a short one, else its chunks one by one."""
    chunks = files.chunks_of(path)
    whole = whole_file(Hit(0, path, chunks[0], 0.0), files, max_tokens) if chunks else None
    return [whole.chunk.text] if whole else [chunk.text for chunk in chunks]


def _different(hits: Sequence[Hit]) -> list[Hit]:
    """Hits without copies, and without what a better one holds."""
    kept: dict[str, Hit] = {}
    for hit in hits:
        text = " ".join(hit.chunk.text.casefold().split())
        if not any(text in other for other in kept):
            kept[text] = hit
    return list(kept.values())


def _with(passages: list[Hit], hit: Hit, files: Files, max_tokens: int) -> list[Hit]:
    """The passages and one more, which becomes one with those it stands beside, at the place of the best of them."""
    for place, other in enumerate(passages):
        if (one := _joined(other, hit, files, max_tokens)) is not None:
            wider: list[Hit] = []
            for each in (*passages[:place], one, *passages[place + 1 :]):  # two that it stands between may be one now
                wider = _with(wider, each, files, max_tokens)
            return wider
    return [*passages, hit]


def _joined(better: Hit, hit: Hit, files: Files, max_tokens: int) -> Hit | None:
    """Two hits as one; None unless nothing but white space is between them."""
    first, last = sorted((better.chunk, hit.chunk), key=lambda chunk: chunk.char_start)
    num_tokens = first.num_tokens + last.num_tokens
    if better.path != hit.path or first.page != last.page or num_tokens > max_tokens:
        return None
    text = files.document_text(better.path)
    if text is None or not (_is_at_its_place(first, text) and _is_at_its_place(last, text)):
        return None
    if first.char_end > last.char_start or text[first.char_end : last.char_start].strip():
        return None
    return _over(better, first, last, text, num_tokens)


def _over(hit: Hit, first: Chunk, last: Chunk, text: str, num_tokens: int) -> Hit:
    """The hit with all text from one chunk to another, under the headings that both are under."""
    pairs = zip(first.heading.split(" > "), last.heading.split(" > "), strict=False)
    chunk = Chunk(
        text[first.char_start : last.char_end],
        first.char_start,
        last.char_end,
        first.line_start,
        last.line_end,
        " > ".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)),
        first.page,
        num_tokens,
    )
    return replace(hit, chunk=chunk)


def _is_at_its_place(chunk: Chunk, text: str) -> bool:
    """Whether the index still has the text that was found."""
    return text[chunk.char_start : chunk.char_end] == chunk.text
