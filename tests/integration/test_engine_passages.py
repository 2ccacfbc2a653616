"""Passages as blocks in the engine: read as training read them, kept between prompts, and never too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import HIDDEN, make_checkpoint

from converters.hf_to_gguf import convert
from gritdesk.engine.generator import Generator, cut_blocks
from gritdesk.engine.llama import GenerationContext, LlamaModel
from gritdesk.errors import ContextOverflow, ModelError
from gritdesk.grit_format import EncodedFrame, Passages, chat_frame, documents_turn, encode
from gritdesk.records import Sampling, Turn

PASSAGES = (
    "The lamp is cleaned every Monday before ten, and the fog horn is tested on Fridays.",
    "The boat is called Marigold, has a crew of three and lies in the harbour all winter. " * 2,
    "Tea is at four.",
)
QUESTION = "When is tea, and who has it?"
GREEDY = Sampling(max_tokens=12, temperature=0, repeat_penalty=1.0)


@dataclass
class Pair:
    """One model twice: in transformers and in llama.cpp."""

    passages: Passages
    reference: Any
    gguf: LlamaModel

    def frame(self, *turns: Turn) -> EncodedFrame:
        return encode(chat_frame(turns, blocks=True), self.gguf, "special")

    def reference_logits(self, frame: EncodedFrame) -> NDArray[np.float32]:
        """float32[V], of the token after the last, under the mask that training uses."""
        import torch

        from training.attention import passage_mask

        ids_1T, block_1T = torch.tensor([frame.ids]), torch.tensor([frame.blocks])
        both_ways = self.passages == "bidirectional_blocks"
        mask = passage_mask(torch.ones_like(ids_1T), block_1T, torch.float32, bidirectional=both_ways)
        with torch.no_grad():
            logits: NDArray[np.float32] = self.reference(ids_1T, attention_mask=mask).logits[0, -1].numpy()
        return logits


@pytest.fixture(scope="module", params=["causal_blocks", "bidirectional_blocks"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    grit = {"dimension": HIDDEN, "markers": "special", "passages": request.param}
    folder = make_checkpoint(tmp_path_factory.mktemp("blocks") / "checkpoint", grit=grit)
    convert(folder, folder.parent / "blocks.gguf", "F32")
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with LlamaModel(folder.parent / "blocks.gguf") as gguf:
        yield Pair(request.param, reference, gguf)


@pytest.fixture
def context(pair: Pair) -> Iterator[GenerationContext]:
    with closing(GenerationContext(pair.gguf, n_ctx=1024, kv_type="f32")) as context:
        yield context


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


def asked(*passages: str, question: str = QUESTION) -> Turn:
    return Turn("user", documents_turn(passages, question))


def fresh_logits(pair: Pair, frame: EncodedFrame, **settings: Any) -> NDArray[np.float32]:
    with closing(GenerationContext(pair.gguf, n_ctx=1024, **settings)) as context:
        return context.prefill(frame.ids, frame.blocks)


# ---------------------------------------------------------------- what is computed


def test_logits_after_three_passages_equal_those_of_training(pair: Pair, context: GenerationContext) -> None:
    frame = pair.frame(asked(*PASSAGES))
    assert max(frame.blocks) == 3
    expected = pair.reference_logits(frame)
    assert expected.std() > 0.1, "the checkpoint's logits must vary for this to mean anything"
    np.testing.assert_allclose(context.prefill(frame.ids, frame.blocks), expected, atol=1e-4)
    assert np.abs(context.prefill(frame.ids) - expected).max() > 1e-2, "read plainly they must differ"
    assert np.abs(fresh_logits(pair, frame) - expected).max() < 1e-2  # f16 cache, as the app has it


def test_blocks_of_several_turns_equal_those_of_training(pair: Pair, context: GenerationContext) -> None:
    frame = pair.frame(asked(*PASSAGES[:2]), Turn("assistant", "At four [1]."), asked(PASSAGES[2], PASSAGES[0]))
    assert max(frame.blocks) == 4
    found = context.prefill(frame.ids, frame.blocks)
    np.testing.assert_allclose(found, pair.reference_logits(frame), atol=1e-4)


def test_tokens_written_after_blocks_see_all_before_them(pair: Pair, context: GenerationContext) -> None:
    frame = pair.frame(asked(*PASSAGES))
    context.prefill(frame.ids, frame.blocks)
    written = pair.gguf.tokenize("Tea is at four")
    for each in written:
        context.decode([each])
    whole = EncodedFrame(frame.ids + written, [], frame.blocks + [0] * len(written))
    np.testing.assert_allclose(context.logits(), pair.reference_logits(whole), atol=1e-4)


def test_block_does_not_see_the_one_before_it(pair: Pair, context: GenerationContext) -> None:
    frame = pair.frame(asked(*PASSAGES))
    end = len(frame.blocks) - frame.blocks[::-1].index(2)
    ids, blocks = frame.ids[:end], frame.blocks[:end]  # ends with the second passage, which thus gives the logits
    others = [pair.gguf.n_vocab - 1 - each if block == 1 else each for each, block in zip(ids, blocks, strict=True)]
    found = context.prefill(ids, blocks)
    np.testing.assert_array_equal(context.prefill(others, blocks), found)
    assert np.abs(context.prefill(others) - found).max() > 1e-2, "read plainly they must differ"


# ---------------------------------------------------------------- the KV cache


def test_kept_blocks_give_bit_for_bit_the_logits_of_a_fresh_prompt(pair: Pair, num_read: list[int]) -> None:
    first, second = (pair.frame(asked(*PASSAGES, question=each)) for each in (QUESTION, "What is the boat called?"))
    expected = fresh_logits(pair, second)
    with closing(GenerationContext(pair.gguf, n_ctx=1024)) as context:
        context.prefill(first.ids, first.blocks)
        context.decode(first.ids[:1])
        num_read.clear()
        np.testing.assert_array_equal(context.prefill(second.ids, second.blocks), expected)
        assert sum(num_read) == len(second.ids) - (len(second.blocks) - second.blocks[::-1].index(3))
        num_read.clear()
        np.testing.assert_array_equal(context.prefill(second.ids, second.blocks), expected)
        assert len(num_read) == 1, "the last call is made again for its logits, and no other"


def test_prefix_is_kept_up_to_the_first_changed_passage(pair: Pair, num_read: list[int]) -> None:
    first, second = pair.frame(asked(*PASSAGES)), pair.frame(asked(PASSAGES[0], PASSAGES[2], PASSAGES[1]))
    expected = fresh_logits(pair, second)
    with closing(GenerationContext(pair.gguf, n_ctx=1024)) as context:
        context.prefill(first.ids, first.blocks)
        num_read.clear()
        np.testing.assert_array_equal(context.prefill(second.ids, second.blocks), expected)
        assert sum(num_read) == len(second.ids) - second.blocks.index(2)


def test_state_read_as_a_block_does_not_serve_the_same_ids_as_plain_text(
    pair: Pair, context: GenerationContext
) -> None:
    frame = pair.frame(asked(*PASSAGES))
    plain = EncodedFrame(frame.ids, frame.counts)
    for one, other in ((frame, plain), (plain, frame)):
        expected = fresh_logits(pair, other, kv_type="f32")
        context.prefill(one.ids, one.blocks)
        assert context.reuse_prefix(other.ids, other.blocks) <= frame.blocks.index(1)
        np.testing.assert_array_equal(context.prefill(other.ids, other.blocks), expected)


def test_prompt_given_up_between_two_blocks_leaves_a_sound_cache(pair: Pair) -> None:
    frame = pair.frame(asked(*PASSAGES))
    expected = fresh_logits(pair, frame)
    for num_steps in range(1, 7):
        with closing(GenerationContext(pair.gguf, n_ctx=1024)) as context:
            steps = context.prefill_steps(frame.ids, frame.blocks)
            for _ in range(num_steps):
                next(steps)
            steps.close()  # type: ignore[attr-defined]
            assert context.num_tokens < len(frame.ids)
            np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks), expected)


# ---------------------------------------------------------------- guards


def test_block_longer_than_one_call_is_refused_and_the_context_lives(pair: Pair) -> None:
    frame = pair.frame(asked(*PASSAGES))
    longest = max(frame.blocks.count(number) for number in (1, 2, 3))
    expected = fresh_logits(pair, frame)
    with closing(GenerationContext(pair.gguf, n_ctx=1024, block_tokens=longest)) as context:
        np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks), expected)
        long = pair.frame(asked(PASSAGES[1] + "ab"))
        with pytest.raises(ContextOverflow, match=f"a passage of .* tokens is longer than the {longest} that fit"):
            context.prefill(long.ids, long.blocks)
        np.testing.assert_array_equal(context.prefill(frame.ids, frame.blocks), expected)


def test_wrong_block_tokens_are_refused(pair: Pair) -> None:
    for wrong in (15, 10**6):
        with pytest.raises(ModelError, match=f"block_tokens is {wrong}"):
            GenerationContext(pair.gguf, block_tokens=wrong)


def test_blocks_that_do_not_fit_the_context_are_refused(pair: Pair) -> None:
    frame = pair.frame(asked(*PASSAGES))
    with closing(GenerationContext(pair.gguf, n_ctx=len(frame.ids))) as context:
        with pytest.raises(ContextOverflow, match="does not fit the context"):
            context.prefill(frame.ids, frame.blocks)
    with closing(GenerationContext(pair.gguf, n_ctx=len(frame.ids) + 1)) as context:
        context.prefill(frame.ids, frame.blocks)
        context.decode([7])
        with pytest.raises(ContextOverflow, match="full"):
            context.decode([7])


def test_model_of_plain_passages_reads_a_block_both_ways(tiny_gguf: Path, pair: Pair) -> None:
    """As it embeds: the same weights that have learned bidirectional blocks give the same logits."""
    with LlamaModel(tiny_gguf) as model, closing(GenerationContext(model, n_ctx=1024, kv_type="f32")) as context:
        frame = pair.frame(asked(*PASSAGES))
        found = context.prefill(frame.ids, frame.blocks)
        expected = fresh_logits(pair, frame, kv_type="f32")
        assert np.array_equal(found, expected) == (pair.passages == "bidirectional_blocks")


# ---------------------------------------------------------------- generation


def test_answer_follows_the_largest_logits_of_training(pair: Pair) -> None:
    turn = asked(*PASSAGES)
    frame = pair.frame(turn)
    generator = Generator(pair.gguf, n_ctx=1024, kv_type="f32")
    assert generator.count_prompt_tokens([turn]) == len(frame.ids)
    ids, blocks = list(frame.ids), list(frame.blocks)
    expected = b""
    for _ in range(GREEDY.max_tokens):
        best = int(pair.reference_logits(EncodedFrame(ids, [], blocks)).argmax())
        if pair.gguf.is_end(best) or not pair.gguf.piece(best):
            break
        ids, blocks = [*ids, best], [*blocks, 0]
        expected += pair.gguf.piece(best)
    text = "".join(generator.stream([turn], GREEDY))
    assert text and expected.decode("utf-8", "replace").startswith(text)
    assert "".join(generator.stream([turn], GREEDY)) == text
    generator.context.close()


def test_passage_too_long_for_a_block_is_cut_at_its_end(pair: Pair) -> None:
    turn = asked("word " * 300, "Tea is at four.")
    generator = Generator(pair.gguf, n_ctx=1024, block_tokens=64)
    frame = generator.encode([turn])
    assert [frame.blocks.count(number) for number in (1, 2)] == [64, pair.frame(turn).blocks.count(2)]
    assert generator.count_prompt_tokens([turn]) == len(frame.ids) < len(pair.frame(turn).ids)
    pieces = list(generator.stream([turn], Sampling(max_tokens=4, temperature=1.0, seed=1)))
    assert generator.context.num_tokens >= len(frame.ids) and isinstance(pieces, list)
    generator.context.close()


def test_stop_ends_between_two_blocks(pair: Pair, num_read: list[int]) -> None:
    turn = asked(*PASSAGES)
    generator = Generator(pair.gguf, n_ctx=1024)
    assert list(generator.stream([turn], GREEDY, lambda: len(num_read) >= 3)) == []
    assert len(num_read) == 3
    generator.context.close()


def test_cutting_keeps_short_blocks_and_plain_text() -> None:
    frame = EncodedFrame([1, 2, 3, 4, 5, 6], [False] * 6, [0, 1, 1, 1, 0, 2])
    assert cut_blocks(frame, 2) == EncodedFrame([1, 2, 3, 5, 6], [False] * 5, [0, 1, 1, 0, 2])
    assert cut_blocks(frame, 3) is frame
    plain = EncodedFrame([1], [True])
    assert cut_blocks(plain, 0) is plain


def test_file_under_measurement_reads_passages_as_its_checkpoint_does(pair: Pair) -> None:
    from training.gguf import GgufWriter

    writer = GgufWriter(pair.gguf)
    turn = asked(*PASSAGES)
    assert writer.count_tokens([turn]) == len(pair.frame(turn).ids)
    long = asked("word " * 300)
    assert writer.count_tokens([long]) == writer._generator.count_prompt_tokens([long]), "no passage that fits is cut"
