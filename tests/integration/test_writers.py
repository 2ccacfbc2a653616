"""Every kind of model writes behind one method, and a checkpoint as its GGUF does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import copy_without_grit

from gritdesk.grit_format import chat_frame, encode
from gritdesk.records import Turn
from training.embedders import DecoderEmbedder, load_embedder
from training.gguf import GgufWriter
from training.writers import AnswerWriter, ChatWriter, FrameWriter, GritWriter, cut_at, writer_of

QUESTION = [Turn("user", "Where does the heron live?")]
ANSWERED = [*QUESTION, Turn("assistant", "By the river.")]
LONG = "The river is wide and the heron is patient. " * 60


def writer(model: Path) -> AnswerWriter:
    return writer_of(load_embedder(str(model), num_threads=1))


@pytest.fixture(scope="module")
def grit_writer(tiny_checkpoint: Path) -> AnswerWriter:
    return writer(tiny_checkpoint)


@pytest.fixture(scope="module")
def gguf_writer(tiny_gguf: Path) -> AnswerWriter:
    return writer(tiny_gguf)


@pytest.fixture(scope="module")
def chat_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` as a chat model that others made, with a template of its own."""
    folder = copy_without_grit(tiny_checkpoint, tmp_path_factory.mktemp("chat") / "model")
    template = "<s>{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_checkpoint_and_its_gguf_give_texts_the_same_nats(grit_writer: AnswerWriter, gguf_writer: AnswerWriter) -> None:
    assert isinstance(grit_writer, GritWriter) and isinstance(gguf_writer, GgufWriter)
    assert grit_writer.context_length == gguf_writer.context_length
    expected, found = grit_writer.text_nats(LONG), gguf_writer.text_nats(LONG)
    assert found[1] == expected[1] > grit_writer.context_length
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert gguf_writer.answer_nats(ANSWERED)[0] == pytest.approx(grit_writer.answer_nats(ANSWERED)[0], rel=1e-3)


def test_checkpoint_and_its_gguf_write_the_same(grit_writer: AnswerWriter, gguf_writer: AnswerWriter) -> None:
    answer = grit_writer.answer(QUESTION, 12)
    assert answer and gguf_writer.answer(QUESTION, 12) == answer


def test_nats_of_an_answer_are_those_of_its_own_tokens(grit_writer: AnswerWriter) -> None:
    assert isinstance(grit_writer, GritWriter)
    frame = encode(chat_frame(ANSWERED), grit_writer.frame_tokenizer, grit_writer.markers)
    with torch.no_grad():
        log_likely = grit_writer.decoder(torch.tensor([frame.ids])).logits[0].log_softmax(dim=-1)
    expected = -sum(
        float(log_likely[at - 1, token_id])
        for at, (token_id, counts) in enumerate(zip(frame.ids[:-1], frame.counts[:-1], strict=True))
        if counts
    )
    assert grit_writer.answer_nats(ANSWERED) == (pytest.approx(expected, rel=1e-4), False)


def test_greedy_answer_is_known_as_greedy(grit_writer: AnswerWriter, gguf_writer: AnswerWriter) -> None:
    assert isinstance(grit_writer, GritWriter) and isinstance(gguf_writer, GgufWriter)
    prompt, answer = grit_writer.encode_answer(ANSWERED)
    with torch.no_grad():
        greedy = grit_writer.decoder.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False)[0].tolist()
    for each in (grit_writer, gguf_writer):
        assert each.token_nats(greedy)[1][len(prompt) - 1 :].all()
        assert not each.token_nats([*prompt, *answer])[1][len(prompt) - 1 :].all()


def test_answer_of_one_token_costs_what_it_does_among_others(
    grit_writer: AnswerWriter, gguf_writer: AnswerWriter
) -> None:
    for each in (grit_writer, gguf_writer):
        assert isinstance(each, FrameWriter)
        for word in ("A", "B"):
            turns = [*QUESTION, Turn("assistant", word)]
            prompt, answer = each.encode_answer(turns)
            assert len(answer) == 1
            nats, is_best = each.token_nats([*prompt, *answer])
            assert each.answer_nats(turns) == (pytest.approx(nats[-1], rel=1e-3), is_best[-1])


def test_choices_of_one_question_are_asked_for_in_one_reading(
    grit_writer: AnswerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(grit_writer, GritWriter)
    read: list[int] = []
    next_nats = grit_writer.next_nats
    monkeypatch.setattr(grit_writer, "next_nats", lambda ids: read.append(len(ids)) or next_nats(ids))
    for question in ("Is it noon?", "Is it late?"):
        for word in "ABCD":
            grit_writer.answer_nats([Turn("user", question), Turn("assistant", word)])
    assert len(read) == 2


def test_windows_of_a_text_cost_what_each_costs_alone(grit_writer: AnswerWriter) -> None:
    assert isinstance(grit_writer, GritWriter)
    begin, ids = grit_writer.encode_text(LONG)
    window = grit_writer.context_length - 1
    parts = [grit_writer.token_nats([begin, *ids[at : at + window]])[0].sum() for at in range(0, len(ids), window)]
    assert len(parts) > 1 and grit_writer.text_nats(LONG)[0] == pytest.approx(sum(parts))


def test_prompt_longer_than_the_context_loses_its_beginning(
    grit_writer: AnswerWriter, gguf_writer: AnswerWriter
) -> None:
    asked = [Turn("user", LONG + "Where does the heron live?")]
    assert grit_writer.count_tokens(asked) > grit_writer.context_length
    assert grit_writer.answer(asked, 4) == gguf_writer.answer(asked, 4)
    assert np.isfinite(grit_writer.answer_nats([*asked, ANSWERED[1]])[0])


@pytest.mark.parametrize("which", ["grit_writer", "gguf_writer"])
def test_answer_ends_before_a_stop(which: str, request: pytest.FixtureRequest) -> None:
    chosen: AnswerWriter = request.getfixturevalue(which)
    whole = chosen.answer(QUESTION, 12)
    stop = whole[4:6]
    assert chosen.answer(QUESTION, 12, [stop, "never"]) == whole[: whole.index(stop)].strip()


def test_chat_model_reads_its_own_template(chat_checkpoint: Path) -> None:
    chat = writer(chat_checkpoint)
    assert isinstance(chat, ChatWriter)
    prompt, answer = chat.encode_answer(ANSWERED)
    assert chat.tokenizer.decode(prompt) == "<s>user: Where does the heron live?\nassistant:"
    assert chat.tokenizer.decode(answer) == "By the river."
    assert chat.answer(QUESTION, 4) and chat.answer_nats(ANSWERED)[0] > 0 and chat.text_nats("The river.")[1] > 2


def test_language_model_without_a_template_reads_plain_lines(chat_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(chat_checkpoint, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    plain = writer(tmp_path / "model")
    assert isinstance(plain, ChatWriter)
    assert plain.tokenizer.decode(plain.encode_answer(ANSWERED)[0]) == "<s>Where does the heron live?\n"


def test_model_that_only_embeds_writes_nothing() -> None:
    class Embeds:
        dimension = 3

    with pytest.raises(ValueError, match="embeds and does not write"):
        writer_of(Embeds())  # type: ignore[arg-type]


def test_text_is_cut_at_the_first_stop() -> None:
    assert cut_at("one two three", ["three", "two", "four"]) == "one "
    assert cut_at("one", []) == "one"


def test_checkpoint_writes_on_the_weights_it_embeds_with(tiny_checkpoint: Path) -> None:
    embedder = load_embedder(str(tiny_checkpoint))
    assert isinstance(embedder, DecoderEmbedder)
    found = writer_of(embedder)
    assert isinstance(found, GritWriter) and found.decoder is embedder.model.decoder
