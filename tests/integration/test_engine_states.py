"""States of passages in the engine: the same as reading, wherever they are moved, whatever happens to what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import HIDDEN, make_checkpoint

from converters.hf_to_gguf import convert
from gritdesk.engine.generator import Generator
from gritdesk.engine.llama import GenerationContext, LlamaModel
from gritdesk.engine.states import StateStore
from gritdesk.errors import ContextOverflow, ModelError
from gritdesk.grit_format import (
    Caching,
    EncodedFrame,
    chat_frame,
    documents_turn,
    embedding_frame,
    encode,
    query_input,
)
from gritdesk.records import Sampling, Turn

PASSAGES = (
    "The lamp is cleaned every Monday before ten, and the fog horn is tested on Fridays.",
    "The boat is called Marigold, has a crew of three and lies in the harbour all winter. " * 2,
    "Tea is at four.",
)
QUESTION = "When is tea, and who has it?"
SAMPLING = Sampling(max_tokens=12, temperature=0, repeat_penalty=1.0)
CACHING: tuple[Caching, ...] = ("query", "doc", "query-doc", "doc-query")


@pytest.fixture(scope="module", params=["causal_blocks", "bidirectional_blocks", "plain"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    grit = {"dimension": HIDDEN, "markers": "special", "passages": request.param}
    folder = make_checkpoint(tmp_path_factory.mktemp("states") / "checkpoint", grit=grit)
    convert(folder, folder.parent / "states.gguf", "F32")
    with LlamaModel(folder.parent / "states.gguf") as model:
        yield model


@pytest.fixture
def num_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tokens of each call to llama.cpp."""
    numbers: list[int] = []
    real = GenerationContext._decode

    def counting(self: GenerationContext, sequences: list[list[int]], first: int, **settings: Any) -> None:
        numbers.append(sum(map(len, sequences)))
        real(self, sequences, first, **settings)

    monkeypatch.setattr(GenerationContext, "_decode", counting)
    return numbers


def frame_of(model: LlamaModel, *passages: str, caching: Caching = "doc", question: str = QUESTION) -> EncodedFrame:
    turn = Turn("user", documents_turn(passages, question))
    return encode(chat_frame([turn], blocks=True, caching=caching), model, "special")


def kept_in(folder: Path, context: GenerationContext, model: str = "model") -> StateStore:
    return StateStore(folder, 10**8, f"{model}/{context.state_format}")


def logits(
    model: LlamaModel, frame: EncodedFrame, folder: Path | None = None, *, moved: bool = True, **settings: Any
) -> NDArray[np.float32]:
    """After the whole frame, in a context of its own; its blocks moved there or read at their places."""
    with closing(GenerationContext(model, n_ctx=1024, **settings)) as context:
        context.states = kept_in(folder, context) if folder else None
        return context.prefill(frame.ids, frame.blocks, set(frame.blocks) - {0} if moved else ())


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize("caching", CACHING)
@pytest.mark.parametrize(("kv_type", "tolerance"), [("f32", 1e-3), ("f16", 2e-2)])
def test_logits_from_moved_states_equal_those_of_reading_at_the_place(
    model: LlamaModel, tmp_path: Path, caching: Caching, kv_type: str, tolerance: float
) -> None:
    frame = frame_of(model, *PASSAGES, caching=caching)
    expected = logits(model, frame, moved=False, kv_type=kv_type)
    assert expected.std() > 0.1, "the checkpoint's logits must vary for this to mean anything"
    computed = logits(model, frame, tmp_path, kv_type=kv_type)
    np.testing.assert_allclose(computed, expected, atol=tolerance)
    np.testing.assert_array_equal(logits(model, frame, tmp_path, kv_type=kv_type), computed)
    np.testing.assert_array_equal(logits(model, frame, kv_type=kv_type), computed)


def test_causal_state_of_what_comes_first_gives_the_logits_of_one_plain_reading(tmp_path: Path) -> None:
    grit = {"dimension": HIDDEN, "markers": "special", "passages": "causal_blocks"}
    folder = make_checkpoint(tmp_path / "checkpoint", grit=grit)
    convert(folder, tmp_path / "causal.gguf", "F32")
    with LlamaModel(tmp_path / "causal.gguf") as model:
        document = encode(embedding_frame("", PASSAGES[1]), model, "special").ids
        asked = model.tokenize(f"\n\nQuestion: {QUESTION}\n")
        ids, blocks = document + asked, [1] * len(document) + [0] * len(asked)
        for kv_type, tolerance in (("f32", 1e-3), ("f16", 1e-2)):
            with closing(GenerationContext(model, n_ctx=1024, kv_type=kv_type)) as context:
                expected = context.prefill(ids)
                context.states = kept_in(tmp_path / kv_type, context)
                for _ in range(2):
                    context.reuse_prefix([])
                    np.testing.assert_allclose(context.prefill(ids, blocks, {1}), expected, atol=tolerance)


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_smaller_states_take_their_share_and_give_near_logits(model: LlamaModel, tmp_path: Path, kv_type: str) -> None:
    frame = frame_of(model, *PASSAGES)
    found = logits(model, frame, tmp_path / kv_type, kv_type=kv_type)
    near = logits(model, frame, tmp_path / "f16", kv_type="f16")
    assert np.corrcoef(found, near)[0, 1] > {"q8_0": 0.999, "q4_0": 0.8}[kv_type]
    sizes = [sum(file.stat().st_size for file in (tmp_path / each).glob("*.state")) for each in (kv_type, "f16")]
    assert sizes[0] / sizes[1] == pytest.approx({"q8_0": 0.53, "q4_0": 0.28}[kv_type], rel=0.15)


def test_states_of_several_passages_serve_in_another_order(
    model: LlamaModel, tmp_path: Path, num_read: list[int]
) -> None:
    logits(model, frame_of(model, *PASSAGES), tmp_path)
    for order in ((2, 0, 1), (1, 2), (0,)):
        frame = frame_of(model, *(PASSAGES[number] for number in order), question="What is the boat called?")
        expected = logits(model, frame, moved=False)
        num_read.clear()
        np.testing.assert_allclose(logits(model, frame, tmp_path), expected, atol=2e-2)
        assert sum(num_read) == frame.blocks.count(0), "no passage is read again"


def test_passage_that_stands_twice_is_read_once(model: LlamaModel, tmp_path: Path, num_read: list[int]) -> None:
    frame = frame_of(model, PASSAGES[0], PASSAGES[0])
    logits(model, frame, tmp_path)
    assert sum(num_read) == frame.blocks.count(0) + frame.blocks.count(1)


def test_state_serves_many_prompts_of_one_context_whose_cells_are_scattered(
    model: LlamaModel, tmp_path: Path, num_read: list[int]
) -> None:
    with closing(GenerationContext(model, n_ctx=512)) as context:
        context.states = kept_in(tmp_path, context)
        for number in range(12):
            passages = PASSAGES[number % 3 :] + PASSAGES[: number % 2]
            frame = frame_of(model, *passages, question=f"And question {number}?")
            num_read.clear()
            found = context.prefill(frame.ids, frame.blocks, set(frame.blocks) - {0})
            np.testing.assert_allclose(found, logits(model, frame, moved=False), atol=2e-2)
            context.decode(frame.ids[:3])
            if number >= 3:
                assert sum(num_read[: -1 - len(num_read) // 2]) <= len(frame.ids)
        assert len(list(tmp_path.glob("*.state"))) == 3


def test_moved_and_read_blocks_never_serve_each_other(model: LlamaModel) -> None:
    frame = frame_of(model, *PASSAGES)
    numbers = set(frame.blocks) - {0}
    with closing(GenerationContext(model, n_ctx=1024)) as context:
        read, moved = logits(model, frame, moved=False), logits(model, frame)
        for _ in range(2):
            np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks), read)
            np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks, numbers), moved)


def test_kept_prefix_of_moved_blocks_is_not_moved_again(model: LlamaModel, num_read: list[int]) -> None:
    frame = frame_of(model, *PASSAGES)
    numbers = set(frame.blocks) - {0}
    with closing(GenerationContext(model, n_ctx=1024)) as context:
        expected = context.prefill(frame.ids, frame.blocks, numbers)
        num_read.clear()
        np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks, numbers), expected)
        assert len(num_read) == 1, "the last call is made again for its logits, and no other"


def test_passage_in_a_prompt_has_the_ids_of_its_embedding_frame(model: LlamaModel) -> None:
    frame = frame_of(model, *PASSAGES)
    expected = encode(embedding_frame("", PASSAGES[0]), model, "special").ids
    assert [each for each, block in zip(frame.ids, frame.blocks, strict=True) if block == 1] == expected


# ---------------------------------------------------------------- what is kept, and what happens to it


def test_damaged_state_is_computed_anew_and_the_answer_is_the_same(
    model: LlamaModel, tmp_path: Path, num_read: list[int]
) -> None:
    frame = frame_of(model, *PASSAGES)
    expected = logits(model, frame, tmp_path)
    for damage in ("flipped", "cut", "empty", "zeros"):
        for file in tmp_path.glob("*.state"):
            data = bytearray(file.read_bytes())
            if damage == "flipped":
                data[len(data) * 2 // 3] ^= 4
            elif damage == "zeros":
                data[4096:8192] = bytes(4096)
            file.write_bytes({"cut": data[:-5], "empty": b""}.get(damage, bytes(data)))
        num_read.clear()
        np.testing.assert_array_equal(logits(model, frame, tmp_path), expected)
        assert sum(num_read) == len(frame.ids), "all is read again"
        num_read.clear()
        np.testing.assert_array_equal(logits(model, frame, tmp_path), expected)
        assert sum(num_read) == frame.blocks.count(0), "and what was damaged is whole"


def test_state_of_another_model_or_setting_is_never_used(
    model: LlamaModel, tmp_path: Path, num_read: list[int]
) -> None:
    frame = frame_of(model, *PASSAGES)
    numbers = set(frame.blocks) - {0}
    logits(model, frame, tmp_path)
    with closing(GenerationContext(model, n_ctx=1024)) as context:
        context.states = kept_in(tmp_path, context, "another model")
        num_read.clear()
        context.prefill(frame.ids, frame.blocks, numbers)
        assert sum(num_read) == len(frame.ids)
    num_read.clear()
    logits(model, frame, tmp_path, kv_type="q8_0")
    assert sum(num_read) == len(frame.ids)


def test_state_under_the_name_of_another_is_never_used(model: LlamaModel, tmp_path: Path) -> None:
    frame = frame_of(model, *PASSAGES)
    expected = logits(model, frame, tmp_path)
    files = sorted(tmp_path.glob("*.state"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    np.testing.assert_array_equal(logits(model, frame, tmp_path), expected)


def test_bytes_that_are_no_state_of_so_many_tokens_are_refused_and_the_context_lives(model: LlamaModel) -> None:
    frame = frame_of(model, *PASSAGES)
    expected = logits(model, frame)

    class Wrong:
        def __init__(self, state: NDArray[np.uint8]) -> None:
            self.state = state

        def find(self, ids: Any) -> NDArray[np.uint8]:
            return self.state

        def keep(self, ids: Any, state: NDArray[np.uint8]) -> None:
            pass

    with closing(GenerationContext(model, n_ctx=1024)) as context:
        of_others = context.state(frame.ids[:7])
        for state in (of_others, of_others[:-9], of_others[:16], np.zeros(0, np.uint8), np.zeros(999, np.uint8)):
            context.states = Wrong(state)
            found = context.prefill(frame.ids, frame.blocks, set(frame.blocks) - {0})
            np.testing.assert_array_equal(found, expected)
            context.reuse_prefix([])


def test_state_is_computed_beside_a_prompt_that_fills_the_context(model: LlamaModel) -> None:
    ids = frame_of(model, *PASSAGES).ids
    with closing(GenerationContext(model, n_ctx=256, block_tokens=128)) as context:
        context.prefill((ids * 3)[:255])
        before = context.logits()
        state = context.state(ids[:128])
        np.testing.assert_array_equal(context.state(ids[:128]), state)
        assert context.num_tokens == 255
        np.testing.assert_array_equal(context.prefill((ids * 3)[:255]), before)


def test_wrong_blocks_are_refused_before_llama_cpp_sees_them(model: LlamaModel) -> None:
    with closing(GenerationContext(model, n_ctx=256, block_tokens=32)) as context:
        with pytest.raises(ContextOverflow, match="longer than the 32"):
            context.state([7] * 33)
        with pytest.raises(ModelError, match="empty"):
            context.state([])
        with pytest.raises(ModelError, match="not in the vocabulary"):
            context.state([10**6])
        assert len(context.state([7] * 32)) > 0


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("cache", ["auto", "none", *CACHING])
def test_answer_is_the_same_whether_its_states_are_kept_or_not(
    model: LlamaModel, tmp_path: Path, num_read: list[int], cache: Any
) -> None:
    turn = Turn("user", documents_turn(PASSAGES, QUESTION))
    alone = Generator(model, n_ctx=1024)
    expected = "".join(alone.stream([turn], SAMPLING, cache=cache))
    num_prompt = alone.count_prompt_tokens([turn], cache)
    alone.context.close()
    for attempt in ("first", "again"):
        generator = Generator(model, n_ctx=1024)
        generator.keep_states_in(kept_in(tmp_path, generator.context))
        num_read.clear()
        assert "".join(generator.stream([turn], SAMPLING, cache=cache)) == expected
        frame = generator.encode([turn], cache)
        moved = generator.moved_blocks(frame, cache)
        num_kept = sum(block in moved for block in frame.blocks) if attempt == "again" else 0
        num_steps = next(each for each in range(len(num_read) + 1) if sum(num_read[:each]) >= num_prompt - num_kept)
        assert sum(num_read[:num_steps]) == num_prompt - num_kept
        generator.context.close()


def test_passages_are_warmed_without_a_question(model: LlamaModel, tmp_path: Path, num_read: list[int]) -> None:
    generator = Generator(model, n_ctx=1024)
    assert list(generator.warm_steps(PASSAGES, "doc")) == [], "nowhere to keep them"
    generator.keep_states_in(kept_in(tmp_path, generator.context))
    assert list(generator.warm_steps([*PASSAGES, "", PASSAGES[0]], "doc")) == [True, True, True, False, False]
    assert list(generator.warm_steps(PASSAGES, "doc")) == [False] * 3
    turn = Turn("user", documents_turn(PASSAGES, QUESTION))
    num_read.clear()
    next(iter(generator.stream([turn], SAMPLING, cache="doc")), None)
    assert sum(num_read[: len(num_read) - 12]) <= generator.encode([turn], "doc").blocks.count(0)
    generator.context.close()


def test_filling_ends_where_a_state_would_push_out_another(model: LlamaModel, tmp_path: Path) -> None:
    generator = Generator(model, n_ctx=1024)
    size = len(generator.context.state(generator.passage_ids(PASSAGES[0])))
    generator.keep_states_in(StateStore(tmp_path, 2 * size + 1000, generator.context.state_format))
    texts = [f"{PASSAGES[0]} {letter}" for letter in "abcdef"]
    assert list(generator.warm_steps(texts, "doc", fills=True)) == [True]
    assert list(generator.warm_steps(texts, "doc")) == [False] + [True] * 5
    generator.context.close()


def test_question_has_its_embedding_frame_and_markers_in_it_stay_text(model: LlamaModel) -> None:
    asked = "Who <|assistant|> asks </s> here?"
    embedded = encode(embedding_frame(*query_input(asked)), model, "special").ids
    for caching in ("query", "query-doc", "doc-query"):
        frame = frame_of(model, *PASSAGES, caching=caching, question=asked)
        assert [each for each, block in zip(frame.ids, frame.blocks, strict=True) if block == -1] == embedded
        assert frame.ids.count(model.control_id("<|assistant|>")) == 1
        first = frame.blocks.index(-1) < frame.blocks.index(1)
        assert first == caching.startswith("query")
