"""What it costs to change a setting, said before it is changed: what is read again, what is embedded anew, how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gritdesk.records import Chunk, Price
from gritdesk.store.base import Store
from gritdesk.terminal import about

_SAMPLE = 24
"""Files whose passages are embedded to find out how long all of them take."""


def price_of(
    store: Store, fingerprint: str, reading: str, speed: Callable[[Sequence[Chunk]], float], *, sends_to: str = ""
) -> Price:
    """What becomes of an index by settings that name its embeddings and the reading of its files so.

    Args:
        fingerprint: as Desk.fingerprint; reading: as indexer.reading_of.
        speed: tokens per second of passages by the model that would embed; called only if something is to be embedded.
        sends_to: the server that would embed, if it is another than before.
    Raises: as `speed`.
    """
    sends = f"The texts of your files and your questions are sent to {sends_to}, to be embedded there. "
    sends = sends if sends_to else ""
    num_files, num_passages, _ = store.counts()
    space = store.space()
    embeds_anew = space is not None and space.fingerprint != fingerprint
    rereads = sum(state.state == "indexed" and state.reading != reading for state in store.files().values())
    if not num_passages or not (embeds_anew or rereads):
        return Price(told=sends.rstrip())
    share = 1.0 if embeds_anew else rereads / max(num_files, 1)
    concerned = num_passages if embeds_anew else round(num_passages * share)
    seconds = _seconds(store, concerned, speed)
    told = _told(rereads, concerned, seconds, embeds_anew=embeds_anew)
    return Price(rereads, concerned, seconds, sends + told)


def _seconds(store: Store, num_passages: int, speed: Callable[[Sequence[Chunk]], float]) -> float | None:
    """Of embedding so many passages, by those of a few files drawn by chance."""
    draw = random.Random(0)
    files = sorted(path for path, state in store.files().items() if state.state == "indexed")
    chunks = [chunk for path in draw.sample(files, min(_SAMPLE, len(files))) for chunk in store.chunks_of(path)]
    draw.shuffle(chunks)
    num_tokens = sum(chunk.num_tokens for chunk in chunks)
    return num_passages * num_tokens / len(chunks) / speed(chunks) if num_tokens else None


def _told(num_files: int, num_passages: int, seconds: float | None, *, embeds_anew: bool) -> str:
    files = "1 file is" if num_files == 1 else f"{num_files:,} files are"
    passages = "1 passage is" if num_passages == 1 else f"{num_passages:,} passages are"
    takes = f", {about(seconds)} on this machine" if seconds is not None else ""
    if not embeds_anew:
        return (
            f"{files} read and cut anew, and the passages that come out otherwise are embedded again: at most all of "
            f"them{takes}. What is found meanwhile is what was found before."
        )
    reads = f" {files} read and cut anew for it." if num_files else ""
    return (
        f"The index was made by another model or other settings: its {passages} embedded anew{takes}.{reads} "
        "Until then it is searched as it was made."
    )


def price_of_moving(store: Store, to: str, speed: Callable[[Sequence[Chunk]], float], *, from_: str) -> Price:
    """What it costs to keep the index elsewhere."""
    num_files, num_passages, _ = store.counts()
    stays = f"The index is {to} then; the one at {from_} stays as it is, and is not searched any more."
    if not num_passages:
        return Price(told=stays)
    seconds = _seconds(store, num_passages, speed)
    takes = f", {about(seconds)} on this machine" if seconds is not None else ""
    filled = f" What is missing there of your {num_files:,} files is read and embedded: if nothing is there{takes}."
    return Price(num_files, num_passages, seconds, stays + filled)
