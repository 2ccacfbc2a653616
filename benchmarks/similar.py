"""`python benchmarks/similar.py TEXT_DIR [NAME...]`: does `gritdesk similar` find what belongs together?

Documents of TEXT_DIR/NAME.jsonl.zst are cut into two halves, each a file of its own in an index of the app. Asked is
where the other half stands among the files similar to each: as the app finds them, with embeddings and without, and by
what else was tried on the same embeddings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gritdesk.models import default_model
from gritdesk.records import Chunk, Document
from gritdesk.relating import similar_files
from gritdesk.store.base import FileState, Space
from gritdesk.store.sqlite import SqliteStore
from training.embedders import load_embedder
from training.examples import read_rows

NAMES = ("peps", "fairytales", "18f_blog", "privacyguides")
CHUNK_WORDS = 150
MIN_WORDS, MAX_WORDS = 800, 1200
NUM_LISTED = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text_dir", type=Path, metavar="TEXT_DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES)
    parser.add_argument("--documents", type=int, default=30, help="Of each NAME at most.")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    files = [half for name in given.names for half in halves(given.text_dir / f"{name}.jsonl.zst", given.documents)]
    texts = [text for chunks in files for text in chunks]
    embeddings_ND = load_embedder(str(default_model()), num_threads=given.threads).embed([("", each) for each in texts])
    ends = np.cumsum([len(chunks) for chunks in files])
    files_FND = np.split(embeddings_ND / np.linalg.norm(embeddings_ND, axis=1, keepdims=True), ends[:-1])
    print(f"{len(files)} halves of {len(files) // 2} documents, {len(texts)} chunks\n")
    print("| similar by | mean reciprocal rank | other half first |\n|---|---|---|")
    with SqliteStore(":memory:") as store:
        write(store, files)
        row("rarest words, as the app does without embeddings", by_app(store, len(files)))
        store.enter_space(Space("benchmark", embeddings_ND.shape[1]))
        store.add_embeddings({text.encode(): row_D for text, row_D in zip(texts, embeddings_ND, strict=True)})
        row("means of the embeddings of files with near chunks, as the app does", by_app(store, len(files)))
    means_FD = np.stack([each.mean(0) / np.linalg.norm(each.mean(0)) for each in files_FND])
    row("mean to mean of all files", ranks(lambda f: means_FD @ means_FD[f], len(files)))
    pairs = [[(one @ other.T).max(1).mean() for other in files_FND] for one in files_FND]
    row("best pairs of chunks, of all files", ranks(lambda f: np.asarray(pairs[f]), len(files)))


def halves(path: Path, num_documents: int) -> Iterator[list[str]]:
    """The texts of the chunks of each half of each document that is long enough."""
    long = (words for row in read_rows(path, 10_000) if len(words := row["text"].split()) >= MIN_WORDS)
    for words, _ in zip(long, range(num_documents), strict=False):
        words = words[:MAX_WORDS]
        for half in (words[: len(words) // 2], words[len(words) // 2 :]):
            yield [" ".join(half[at : at + CHUNK_WORDS]) for at in range(0, len(half), CHUNK_WORDS)]


def write(store: SqliteStore, files: list[list[str]]) -> None:
    """One file for each list of chunks, named by its number."""
    for number, texts in enumerate(files):
        starts = np.cumsum([0, *(len(each) + 1 for each in texts)])
        chunks = [Chunk(text, int(at), int(at) + len(text), 1, 1) for text, at in zip(texts, starts, strict=False)]
        document = Document(Path(str(number)), "\n".join(texts), "text")
        store.replace_document(document, FileState(0, 0, str(number)), chunks, [each.encode() for each in texts])


def by_app(store: SqliteStore, num_files: int) -> list[int]:
    """Where similar_files lists the other half of each file; NUM_LISTED + 1 where it does not."""
    found = []
    for number in range(num_files):
        listed = [int(hit.path.name) for hit in similar_files(store, Path(str(number)), NUM_LISTED).hits]
        found.append(1 + (listed.index(number ^ 1) if number ^ 1 in listed else NUM_LISTED))
    return found


def ranks(scores: Callable[[int], NDArray[np.float32]], num_files: int) -> list[int]:
    found = []
    for number in range(num_files):
        others_F = np.array(scores(number))
        others_F[number] = -np.inf
        found.append(1 + int((others_F > others_F[number ^ 1]).sum()))
    return found


def row(label: str, found: list[int]) -> None:
    ranks_F = np.asarray(found)
    print(f"| {label} | {100 * (1 / ranks_F).mean():.1f} | {100 * (ranks_F == 1).mean():.1f} % |", flush=True)


if __name__ == "__main__":
    main()
