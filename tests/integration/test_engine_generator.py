"""Turns to text: repeatable, stoppable, whole characters, and nothing read twice without need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import LlamaModel
from gritdesk.errors import ContextOverflow, ModelError
from gritdesk.grit_format import chat_frame, encode
from gritdesk.records import Sampling, Turn

LONG = " ".join(f"Sentence {number} tells of ship {number}." for number in range(20))
CHANCE = Sampling(max_tokens=40, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[LlamaModel]:
    with LlamaModel(tiny_gguf) as model:
        yield model


@pytest.fixture
def generator(model: LlamaModel) -> Iterator[Generator]:
    generator = Generator(model, n_ctx=1024)
    yield generator
    generator.context.close()


@pytest.fixture
def num_read(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tokens of each call to llama.cpp."""
    numbers: list[int] = []
    real = generator.context.decode

    def counting(ids: list[int], **settings: bool) -> None:
        numbers.append(len(ids))
        real(ids, **settings)

    monkeypatch.setattr(generator.context, "decode", counting)
    return numbers


def user(text: str) -> list[Turn]:
    return [Turn("user", text)]


def text_of(generator: Generator, turns: list[Turn], sampling: Sampling = CHANCE) -> str:
    return "".join(generator.stream(turns, sampling))


def test_greedy_text_follows_the_largest_logits(generator: Generator, model: LlamaModel) -> None:
    ids = encode(chat_frame(user("hello")), model, "special").ids
    expected = b""
    for _ in range(12):
        best = int(generator.context.prefill(ids).argmax())
        if model.is_end(best):
            break
        ids.append(best)
        expected += model.piece(best)
    greedy = Sampling(max_tokens=12, temperature=0, repeat_penalty=1.0)
    text = text_of(generator, user("hello"), greedy)
    assert text and expected.decode("utf-8", "replace").startswith(text)


def test_same_seed_gives_the_same_text_and_another_seed_another(generator: Generator) -> None:
    texts = [text_of(generator, user(LONG), Sampling(max_tokens=40, temperature=1.0, seed=seed)) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_repeat_penalty_is_felt(generator: Generator) -> None:
    plain, penalized = (
        text_of(generator, user("hello"), Sampling(max_tokens=60, repeat_penalty=each)) for each in (1.0, 1.5)
    )
    assert plain != penalized


def test_stop_ends_before_the_next_token(generator: Generator, num_read: list[int]) -> None:
    pieces: list[str] = []
    for piece in generator.stream(user("hello"), CHANCE, lambda: len(pieces) >= 3):
        pieces.append(piece)
    num_prompt = generator.count_prompt_tokens(user("hello"))
    assert len(pieces) == 3
    assert num_read[0] == num_prompt and set(num_read[1:]) <= {1}
    calls = len(num_read)
    assert text_of(generator, user("hello")).startswith("".join(pieces))
    assert calls < len(num_read)


def test_stop_ends_between_the_batches_of_a_prompt(generator: Generator, num_read: list[int]) -> None:
    assert generator.count_prompt_tokens(user(LONG)) > 192
    assert list(generator.stream(user(LONG), CHANCE, lambda: len(num_read) >= 2)) == []
    assert num_read == [64, 64]


def test_closing_the_stream_ends_it_and_the_next_text_is_unharmed(generator: Generator) -> None:
    expected = text_of(generator, user("hello"))
    stream = generator.stream(user("hello"), CHANCE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert text_of(generator, user("hello")) == expected


def test_earlier_turn_is_not_read_again(generator: Generator, model: LlamaModel, num_read: list[int]) -> None:
    answer = text_of(generator, user(LONG), Sampling(max_tokens=8))
    follow_up = [*user(LONG), Turn("assistant", answer or "Yes."), Turn("user", "And then?")]
    num_read.clear()
    continued = text_of(generator, follow_up)
    num_prompt = generator.count_prompt_tokens(follow_up)
    assert max(num_read[0], 64) < num_prompt / 3
    fresh = Generator(model, n_ctx=1024)
    assert continued == text_of(fresh, follow_up)
    fresh.context.close()


def test_same_question_again_gives_the_same_text_from_the_kept_state(generator: Generator, num_read: list[int]) -> None:
    first = text_of(generator, user(LONG))
    calls = len(num_read)
    num_read.clear()
    assert text_of(generator, user(LONG)) == first
    assert len(num_read) < calls


def test_text_ends_with_max_tokens(generator: Generator, num_read: list[int]) -> None:
    assert text_of(generator, user("hello"), Sampling(max_tokens=0)) == ""
    num_read.clear()
    text_of(generator, user("hello"), Sampling(max_tokens=5, temperature=1.0, seed=3))
    assert sum(each == 1 for each in num_read) <= 4  # the fifth token is given, not read


def test_text_ends_where_the_context_is_full(model: LlamaModel) -> None:
    generator = Generator(model, n_ctx=64)
    prompt = user("hello")
    for seed in range(20):
        pieces = generator.stream(prompt, Sampling(max_tokens=10**6, temperature=1.0, seed=seed))
        assert len("".join(pieces)) > 0
        if generator.context.num_tokens == 63:  # the last token is given, not read
            break
    else:
        pytest.fail("no seed filled the context")
    generator.context.close()


def test_prompt_that_does_not_fit_is_refused(generator: Generator) -> None:
    with pytest.raises(ContextOverflow, match="does not fit the context of 1024"):
        text_of(generator, user(LONG * 10))


def test_turns_that_do_not_alternate_are_refused(generator: Generator) -> None:
    with pytest.raises(ModelError, match="must alternate"):
        text_of(generator, [Turn("assistant", "hello")])


def test_text_ends_at_the_end_token_and_at_a_marker(
    generator: Generator, model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text_of(generator, user("hello"))
    for token in ("</s>", "<|user|>"):
        number = iter(range(10**6))
        real = generator.context.sample
        monkeypatch.setattr(
            generator.context,
            "sample",
            lambda sampler, n=number, r=real, t=token: r(sampler) if next(n) < 4 else model.control_id(t),
        )
        text = text_of(generator, user("hello"))
        assert text and whole.startswith(text) and len(text) < len(whole)
        monkeypatch.undo()


def test_no_piece_holds_half_a_character(
    generator: Generator, model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "né€ 😀"
    some_bytes = iter(text.encode() + b"\xe2\x82" + b"\0" * 100)
    monkeypatch.setattr(model, "piece", lambda _: bytes([next(some_bytes)]))
    num_bytes = len(text.encode())
    # the two bytes that follow are the beginning of a character that never comes
    pieces = list(generator.stream(user("hello"), Sampling(max_tokens=num_bytes + 2, temperature=1.0, seed=3)))
    assert pieces == list(text)


def test_bytes_that_are_no_text_become_replacement_characters(
    generator: Generator, model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "piece", lambda _: b"\xff")
    assert set(text_of(generator, user("hello"))) == {"\ufffd"}


def test_space_that_the_vocabulary_puts_in_front_is_not_shown(tmp_path: Path) -> None:
    from tiny import make_checkpoint

    from converters.hf_to_gguf import convert

    checkpoint = make_checkpoint(tmp_path / "checkpoint", tokenizer="sentencepiece")
    convert(checkpoint, tmp_path / "model.gguf", "F32")
    with LlamaModel(tmp_path / "model.gguf") as model:
        assert model.adds_space_prefix and model.grit.markers == "text"
        generator = Generator(model)
        pieces: list[bytes] = []
        real = model.piece
        model.piece = lambda each: pieces.append(real(each)) or pieces[-1]  # type: ignore[method-assign,func-returns-value]
        spaced = 0
        for seed in range(30):
            pieces.clear()
            text = text_of(generator, user("hello"), Sampling(max_tokens=8, temperature=1.0, seed=seed))
            raw = b"".join(pieces).decode("utf-8", "replace")
            spaced += raw.startswith(" ")
            assert raw.removeprefix(" ").startswith(text)
        assert spaced
