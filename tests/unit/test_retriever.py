import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine, read_plain

from gritdesk.config import IndexConfig, SearchConfig
from gritdesk.indexer import Indexer
from gritdesk.records import Misses
from gritdesk.retriever import Retriever
from gritdesk.store.sqlite import SqliteStore


class Library:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(":memory:")
        self.engine = FakeEngine()
        self.embeds = True

    def add(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        engine, config = self.engine, IndexConfig(chunk_tokens=50)
        parts = (self.store, engine.embed, engine.count_tokens, read_plain, "fake", config)
        Indexer(*parts, embeds=lambda: self.embeds).run([self.folder])

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
    library.embeds = False
    library.add(a="the walrus sleeps")
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
    library.embeds = False
    library.add(both="penguin " + "filler " * 45 + "walrus", one="walrus walrus walrus")
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
    first, second = sorted(library.found("walrus"))
    assert first in ("a", "b") and second == "c"


def test_no_more_hits_than_asked_for(library: Library) -> None:
    library.add(**{f"f{n}": f"walrus {n}" for n in range(9)})
    assert len(library.retriever().search("walrus", 4)) == 4
    assert library.retriever().search("walrus", 0) == []


@pytest.mark.parametrize("query", ["", "  ", "\n"])
def test_empty_query_finds_nothing_and_asks_nothing(library: Library, query: str) -> None:
    library.add(a="walrus")
    assert Retriever(library.store, never, SearchConfig()).search(query) == []


# ---------------------------------------------------------------- the search language


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_filters_hold_inside_the_scan_in_every_mode(library: Library, mode: str) -> None:
    library.add(**{f"near{n}.txt": f"walrus {n}" for n in range(120)})
    library.add(**{"far.md": "one walrus in a long text about other things " * 5})
    assert library.found("walrus type:md", mode) == ["far.md"]
    assert library.found("walrus name:far", mode) == ["far.md"]
    assert library.found("walrus -type:txt", mode) == ["far.md"]
    assert library.found("walrus in:nowhere", mode) == []


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_what_is_left_out_is_in_no_hit_and_hides_none(library: Library, mode: str) -> None:
    library.add(**{f"f{n}": f"walrus drafts {n}" for n in range(90)})
    library.add(final="the walrus in its last form, at some length", plan="the old plan of a walrus")
    assert sorted(library.found("walrus -draft", mode)) == ["final", "plan"]
    assert library.found('walrus -draft -"old plan"', mode) == ["final"]
    assert library.found("walrus -draft -lit:PLAN", mode) == ["final"]


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_literal_part_is_found_wherever_it_stands(library: Library, mode: str) -> None:
    library.add(**{f"f{n}": f"user name {n}" for n in range(120)})
    library.add(a="call getUserName() first", b="std::vector<int> of users")
    assert library.found("lit:serNam", mode) == ["a"]
    assert library.found("user lit:::vec", mode) == ["b"]
    assert library.found('lit:"rName() f" lit:CALL', mode) == ["a"]
    assert library.found("user lit:nowhere", mode) == []


def test_literal_part_alone_asks_for_no_embedding(library: Library) -> None:
    library.add(a="call getUserName() first")
    retriever = Retriever(library.store, never, SearchConfig())
    assert [hit.path.name for hit in retriever.search("lit:serNam")] == ["a"]


def test_filters_alone_list_the_newest_files_by_their_beginning(library: Library) -> None:
    library.add(
        **{"a.md": "first words " + "and more of them " * 60, "b.md": "walrus", "c.txt": "seal", "d.md": "draft"}
    )
    for n, name in enumerate(["b.md", "a.md", "c.txt", "d.md"], start=1):
        os.utime(library.folder / name, (n * 1_000_000, n * 1_000_000))
    library.add()
    hits = Retriever(library.store, never, SearchConfig()).search("type:md -draft")
    assert [(hit.path.name, hit.chunk.char_start) for hit in hits] == [("a.md", 0), ("b.md", 0)]
    assert library.found("after:1970-01-16 type:md") == ["d.md", "a.md"]
    assert library.found("before:1970-01-16") == ["b.md"]


@pytest.mark.parametrize("query", ["天気", "東京の天気", "今日の天気予報は"])
def test_script_without_spaces_is_found_by_its_parts(library: Library, query: str) -> None:
    library.add(weather="明日の東京の天気は晴れです", food="大阪の料理はおいしいです", english="the weather is fine")
    assert library.found(query, "keyword")[0] == "weather"
    assert "english" not in library.found(query, "keyword")


def test_word_is_left_out_of_a_script_without_spaces(library: Library) -> None:
    library.add(a="明日の東京の天気は晴れです", b="大阪の天気は雨です")
    assert library.found("天気 -大阪", "keyword") == ["a"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("getUserName", "call getUserName here"),
        ("snake_case_name", "a snake_case_name in code"),
        ("1.2.3", "version 1.2.3 is out"),
        ("C++", "notes about C++ and its templates"),
        ("std::vector", "use std::vector for it"),
        ("--force", "git push --force overwrites"),
        ("re-index", "to re-index all of it"),
        ("user@example.org", "write to user@example.org now"),
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "keyword"])
def test_name_with_signs_is_found_as_it_is_spelled(library: Library, query: str, text: str, mode: str) -> None:
    library.add(
        wanted=text,
        letters="c c c c: get user name, snake case name, version 1 2 3, force, vector std, re index, user example org",
        other="unrelated things",
    )
    assert library.found(query, mode)[0] == "wanted"
    assert library.found(f"notes on {query}", mode)[0] == "wanted"


def test_word_with_signs_is_found_behind_many_of_its_letters(library: Library) -> None:
    library.add(**{f"f{n}": f"c c c {n}" for n in range(230)}, wanted="of C++ in a long text about other things " * 4)
    assert library.found("C++", "keyword")[0] == library.found("C++")[0] == "wanted"


def test_part_of_a_word_is_found_beside_words_that_are_nowhere(library: Library) -> None:
    library.add(a="call getUserName here", b="unrelated things")
    assert library.found("serNam qwertz", "keyword") == ["a"]


def test_lines_of_all_kinds_are_searched(library: Library) -> None:
    library.add(a="walrus")
    for line in [
        '"',
        '""',
        "-",
        "-x",
        "🦉",
        ":",
        "lit:",
        'in:"',
        "C:\\x",
        "12:30",
        "'",
        "%",
        "_",
        "\\",
        "\0",
        "*" * 5000,
    ]:
        for mode in ("hybrid", "semantic", "keyword"):
            library.found(line, mode)


# ---------------------------------------------------------------- why


def test_explained_hit_says_how_its_score_came_about(library: Library) -> None:
    library.add(a="the token buckets are here", b="one bucket", c="unrelated things entirely")
    hits = library.retriever(keyword_weight=2.0, semantic_weight=1.0).search("token bucket -xy name:a", explain=True)
    (why,) = [hit.explanation for hit in hits]
    assert why is not None and why.words + why.meaning + why.bonus == hits[0].score
    assert (why.words, why.meaning, why.bonus) == pytest.approx((2 / 3, 1 / 3, 4.0))
    assert (why.keyword_weight, why.semantic_weight) == (2.0, 1.0)
    assert why.bm25 == library.store.keyword("token bucket", 1, all_first=False)[0].score
    assert (why.terms_found, why.terms_missing) == (("token", "bucket"), ())
    assert why.restrictions == ("-xy", "name:a")


def test_explained_hit_names_the_words_it_lacks(library: Library) -> None:
    library.add(a="the walrus", b="unrelated things")
    (hit,) = library.retriever().search('walrus seal "the walrus" unrelated', explain=True)
    assert hit.explanation is not None
    assert hit.explanation.terms_found == ("walrus", "the walrus")
    assert hit.explanation.terms_missing == ("seal", "unrelated")
    assert library.retriever().search("walrus")[0].explanation is None


def test_search_that_found_nothing_says_what_removed_the_hits(library: Library) -> None:
    library.add(**{f"{n}.txt": f"walrus draft {n}" for n in range(3)})
    library.add(**{"a.md": "seal"})
    for mode in ("hybrid", "keyword"):
        misses = library.retriever().misses("walrus type:md", mode)  # type: ignore[arg-type]
        assert misses.removed == (("type:md", 3),)
        assert len(misses.nearest) == 3 and "walrus" in misses.nearest[0].chunk.text
    assert library.retriever().misses("walrus -draft type:txt").removed == (("-draft", 3),)
    assert library.retriever().misses('"draft walrus"').removed == (('the quotation marks of "draft walrus"', 3),)
    assert library.retriever().misses("type:pdf").removed == (("type:pdf", 4),)
    assert library.retriever().misses("xylophone", "keyword") == Misses((), ())


def test_restrictions_of_which_none_alone_left_nothing_are_named_together(library: Library) -> None:
    library.add(**{f"{n}.txt": f"donkey draft {n}" for n in range(3)})
    library.add(**{"a.md": "seal"})
    retriever = library.retriever()
    for mode in ("hybrid", "keyword", "semantic"):
        misses = retriever.misses("donkey type:pdf after:2090", mode)  # type: ignore[arg-type]
        assert misses.removed == (("type:pdf after:2090", 3),) and len(misses.nearest) == 3
    # a seal is near in meaning without -draft, but says nothing of donkeys
    assert retriever.misses("donkey -draft type:md").removed == (("-draft type:md", 3),)
    together = 'type:pdf and the quotation marks of "draft donkey"'
    assert retriever.misses('"draft donkey" type:pdf', "keyword").removed == ((together, 3),)
    assert retriever.misses("type:pdf after:2090").removed == (("type:pdf after:2090", 4),)
    assert retriever.misses("xylophone type:pdf after:2090", "keyword") == Misses((), ())
