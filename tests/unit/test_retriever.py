from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine, read_plain

from gritdesk.config import IndexConfig, SearchConfig
from gritdesk.indexer import Indexer
from gritdesk.retriever import Retriever
from gritdesk.store.sqlite import SqliteStore


class Library:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(":memory:")
        self.engine = FakeEngine()

    def add(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        engine, config = self.engine, IndexConfig(chunk_tokens=50)
        Indexer(self.store, engine.embed, engine.count_tokens, read_plain, "fake", config).run([self.folder])

    def retriever(self, **weights: float) -> Retriever:
        return Retriever(self.store, self.engine.embed_query, SearchConfig(**weights))  # type: ignore[arg-type]

    def found(self, query: str, mode: str = "hybrid", **weights: float) -> list[str]:
        hits = self.retriever(**weights).search(query, mode=mode)  # type: ignore[arg-type]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        return [hit.path.name for hit in hits]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path)
    yield library
    library.store.close()


def never(_: str) -> np.ndarray:
    raise AssertionError("asked for an embedding")


def test_search_by_words_never_asks_for_an_embedding(library: Library) -> None:
    library.add(a="the walrus sleeps")
    hits = Retriever(library.store, never, SearchConfig()).search("walrus", mode="keyword")
    assert [(hit.path.name, hit.keyword_rank, hit.semantic_rank, hit.distance) for hit in hits] == [
        ("a", 1, None, None)
    ]


def test_index_without_embeddings_is_searched_by_words(library: Library) -> None:
    library.add(a="the walrus sleeps")
    library.store.clear_embeddings()
    retriever = Retriever(library.store, never, SearchConfig())
    assert [hit.path.name for hit in retriever.search("walrus")] == ["a"]
    assert retriever.search("walrus", mode="semantic") == []


def test_search_by_meaning_ranks_by_distance_alone(library: Library) -> None:
    library.add(a="walrus penguin seal", b="walrus penguin otter", c="unrelated things entirely")
    hits = library.retriever().search("penguin seal walrus", mode="semantic")
    assert hits[0].path.name == "a"
    assert [hit.semantic_rank for hit in hits] == [1, 2, 3]
    distances = [hit.distance for hit in hits if hit.distance is not None]
    assert len(distances) == 3 and distances == sorted(distances)
    assert all(hit.keyword_rank is None for hit in hits)


def test_hybrid_search_finds_by_either_and_says_how(library: Library) -> None:
    library.add(a="walrus", b="something else altogether")
    hits = {hit.path.name: hit for hit in library.retriever().search("walrus")}
    assert (hits["a"].keyword_rank, hits["a"].semantic_rank) == (1, 1)
    assert (hits["b"].keyword_rank, hits["b"].semantic_rank) == (None, 2)
    assert hits["b"].distance is not None


def test_weights_decide_between_words_and_meaning(library: Library) -> None:
    library.add(words="seal " + "filler " * 40, meaning="walrus penguin otter")
    query = "seal walrus-penguin-otter"
    nearest = library.store.nearest(library.engine.embed_query(query), 1)[0].path.name
    by_words = library.store.keyword(query, 1)[0].path.name
    assert library.found(query, keyword_weight=1.0, semantic_weight=0.0)[0] == by_words
    assert library.found(query, keyword_weight=0.0, semantic_weight=1.0)[0] == nearest


def test_hybrid_search_adds_up_how_well_words_and_meaning_fit(library: Library) -> None:
    library.add(
        rare="walrus penguin",
        often="seal walrus walrus walrus otter",
        other="something else altogether",
    )
    query = "walrus penguin lagoon"
    words = {hit.path.name: hit.score for hit in library.store.keyword(query, 9, all_first=False)}
    cosines = {hit.path.name: hit.score for hit in library.store.nearest(library.engine.embed_query(query), 9)}
    least, best = min(cosines.values()), max(cosines.values())
    expected = {
        name: (3 * words.get(name, 0) / max(words.values()) + (cosine - least) / (best - least)) / 4
        for name, cosine in cosines.items()
    }
    hits = library.retriever(keyword_weight=3.0, semantic_weight=1.0).search(query)
    assert {hit.path.name: hit.score for hit in hits} == pytest.approx(expected)


def test_search_by_words_alone_puts_chunks_with_all_words_first(library: Library) -> None:
    library.add(both="penguin " + "filler " * 45 + "walrus", one="walrus walrus walrus")
    assert library.found("penguin walrus", "keyword") == ["both", "one"]


def test_index_without_embeddings_is_searched_as_by_words_alone(library: Library) -> None:
    library.add(both="penguin " + "filler " * 45 + "walrus", one="walrus walrus walrus")
    library.store.clear_embeddings()
    assert library.found("penguin walrus") == library.found("penguin walrus", "keyword") == ["both", "one"]


def test_first_hits_do_not_depend_on_how_many_are_asked_for(library: Library) -> None:
    words = ["walrus", "penguin", "seal", "otter", "heron", "lagoon"]
    library.add(**{f"f{n}": " ".join(words[(n * k) % 6] for k in range(1, 4 + n % 5)) + f" {n}" for n in range(120)})
    retriever = library.retriever()
    few, many = (retriever.search("walrus heron lagoon", n) for n in (10, 60))
    assert [(hit.path, hit.score) for hit in few] == [(hit.path, hit.score) for hit in many[:10]]


def test_other_words_count_beside_a_quoted_part(library: Library) -> None:
    library.add(phrase="a token bucket is here", both="a token bucket and the walrus of a pond with seals")
    assert library.found('"token bucket" walrus', semantic_weight=0.0) == ["both", "phrase"]


def test_phrase_far_down_takes_nothing_from_the_words_of_others(library: Library) -> None:
    common = {f"f{n}": f"bucket token, token {n}: bucket" for n in range(70)}
    library.add(**common, phrase="filler " * 40 + "the token bucket")
    assert "phrase" not in [hit.path.name for hit in library.store.keyword("token bucket", 50, all_first=False)]
    first, second, *_ = library.retriever(keyword_weight=1.0, semantic_weight=0.0).search("token bucket")
    assert (first.path.name, first.keyword_rank) == ("phrase", 51)
    assert second.score > 0.9  # of the best among the words


def test_exact_phrase_stays_on_top_whatever_the_weights(library: Library) -> None:
    library.add(
        phrase="a very long text about many things in which the token bucket is mentioned once " + "filler " * 30,
        near="bucket token, token: a bucket",
        far="token of a bucket",
    )
    for weights in ({}, {"keyword_weight": 0.0, "semantic_weight": 5.0}):
        assert library.found("token bucket", **weights)[0] == "phrase"
        assert library.found('decided "token bucket"', **weights)[0] == "phrase"


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_quoted_parts_bind_every_hit_in_every_mode(library: Library, mode: str) -> None:
    library.add(
        both="a token bucket and a walrus pond here",
        one="a token bucket",
        other="a walrus pond",
        neither="bucket of a token, pond of a walrus",
    )
    assert library.found('"token bucket"', mode) in (["one", "both"], ["both", "one"])
    assert library.found('"token bucket" "walrus pond"', mode) == ["both"]
    assert library.found('seal "walrus pond" "token bucket"', mode) == ["both"]
    assert library.found('"no such words"', mode) == []


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_quoted_part_of_a_script_without_spaces_is_found_letter_by_letter(library: Library, mode: str) -> None:
    library.add(a="東京都の天気は晴れ", b="walrus")
    assert library.found('"天気"', mode) == ["a"]


def test_quotation_mark_that_is_never_closed_binds_nothing(library: Library) -> None:
    library.add(a="walrus", b="penguin")
    assert sorted(library.found('the "walrus')) == ["a", "b"]


def test_phrase_as_it_is_spelled_comes_before_its_other_forms(library: Library) -> None:
    library.add(other="tokens bucket tokens bucket", literal="about the token bucket of this long text here")
    assert library.found("token bucket") == ["literal", "other"]


def test_copies_of_a_text_are_one_hit(library: Library) -> None:
    library.add(a="walrus facts", b="walrus facts", c="walrus fiction")
    found = library.found("walrus")
    assert len(found) == 2 and "c" in found


def test_no_more_hits_than_asked_for(library: Library) -> None:
    library.add(**{f"f{n}": f"walrus {n}" for n in range(9)})
    assert len(library.retriever().search("walrus", 4)) == 4
    assert library.retriever().search("walrus", 0) == []


@pytest.mark.parametrize("query", ["", "  ", "\n"])
def test_empty_query_finds_nothing_and_asks_nothing(library: Library, query: str) -> None:
    library.add(a="walrus")
    assert Retriever(library.store, never, SearchConfig()).search(query) == []
