"""How GRIT spells what a model reads, and the metadata by which a GGUF says so.

The one file that knows the frames. Trainer, converters and app all import it, so a text is spelled and cut
into tokens in exactly one way. The frames (GRIT paper, arXiv 2402.09906, figure 3):

    embedding, with instruction     <s><|user|>\\n{instruction}\\n<|embed|>\\n{text}
    embedding, without              <s><|embed|>\\n{text}
    chat                            <s><|user|>\\n{user}\\n<|assistant|>\\n{assistant}</s>\\n<|user|>\\n...
    passage as a block of a chat    ...[1] <s><|embed|>\\n{text}\\n[1]\\n\\n[2] <s>...
    question as a block of a chat   ...Question: <s><|user|>\\n{instruction}\\n<|embed|>\\n{question}\\n...

A model that only embeds (BGE, E5 and other encoders) reads no GRIT frame but its own, and its GGUF says so:

    query or passage of an encoder  <s>{prompt}{text}</s>

Two rules are owned here:
- which tokens count: when embedding, the text's own tokens are pooled and nothing of the frame is (in an encoder
  all tokens are, or the first alone, as it was trained); when training generation, each assistant text and its
  </s> are targets and nothing else is;
- a text is never a frame: markers inside a person's text stay text. Where the markers are special tokens this
  is exact; for a model with plain-text markers (GritLM-7B) a text that spells one is given a space in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from gritdesk.records import Chunk, EmbeddingInput, Turn

BOS, EOS = "<s>", "</s>"
USER, EMBED, ASSISTANT = "<|user|>", "<|embed|>", "<|assistant|>"
MARKERS = (USER, EMBED, ASSISTANT)

QUERY_INSTRUCTION = "Given a question, retrieve passages that answer the question"
"""What gritdesk puts before a question; the default model was trained with it."""

REFUSAL = "The documents do not say."
"""What the default model was trained to say when its passages hold no answer."""

Markers = Literal["special", "text"]
"""Whether <|user|>, <|embed|> and <|assistant|> are tokens of their own or ordinary text."""

Passages = Literal["plain", "causal_blocks", "bidirectional_blocks"]
"""How a chat's passages are read. plain: as any text. Blocks are embedding frames that see themselves alone, and all
that follows sees them: causally, or both ways, exactly as an embedding pass reads that passage, so that its keys and
values from indexing serve the answer."""

Pooling = Literal["mean", "cls"]
"""Which last hidden states make an embedding: the average of those that count, or the first token's alone."""

_SPELLED_MARKER = re.compile(rf"<(?={'|'.join(re.escape(each[1:]) for each in MARKERS)})")
Caching = Literal["none", "query", "doc", "query-doc", "doc-query"]
"""Of what an answer takes keys and values that were computed before: nothing, the question, the passages, or both. The
first named stands first in the prompt. Source: GRIT paper (arXiv 2402.09906), section 5."""

Cache = Literal["auto"] | Caching
"""auto: what is best for the model, see `GritMetadata.caching`."""

_PASSAGE = re.compile(r"^\[(\d{1,2})\] (?=\S)(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Segment:
    """A piece of a frame. `control` is BOS or EOS, `marker` one of MARKERS, `text` everything else."""

    text: str
    kind: Literal["control", "marker", "text"]
    counts: bool = False
    """Pooled when embedding; a target of the loss when generating."""
    block: int = 0
    """Number of the passage, from 1 through the whole chat, whose embedding frame it belongs to; 0: the chat's own;
    from -1 downwards: a question's."""


@dataclass(frozen=True)
class EncodedFrame:
    ids: list[int]
    counts: list[bool]
    """One flag per id: pooled, or a target."""
    blocks: list[int] = field(default_factory=list)
    """One number per id: its passage's, or 0; empty where there is no passage."""

    @property
    def num_prefix(self) -> int:
        """Number of tokens before the first that counts."""
        return self.counts.index(True) if True in self.counts else len(self.ids)


class FrameTokenizer(Protocol):
    """What spelling a frame needs of a tokenizer."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: no BOS, and nothing in it parsed as a special token."""
        ...

    def control_id(self, token: str) -> int:
        """Id of a control token or special marker; BOS and EOS stand for the model's own, whatever their spelling."""
        ...


# ---------------------------------------------------------------- the frames


def clean_instruction(instruction: str) -> str:
    """Strip what the reference strips from instructions: tabs, newlines, spaces and colons at the ends."""
    return instruction.strip("\t\n :")


def embedding_frame(instruction: str, text: str) -> list[Segment]:
    """Frame of one text to embed.

    Raises: ValueError if the text is empty (nothing would be pooled).
    """
    if not text.strip():
        raise ValueError("cannot embed an empty text: give at least one visible character")
    instruction = clean_instruction(instruction)
    opening = [Segment(BOS, "control")]
    if instruction:
        opening += [Segment(USER, "marker"), Segment(f"\n{instruction}\n", "text")]
    return [*opening, Segment(EMBED, "marker"), Segment("\n", "text"), Segment(text, "text", counts=True)]


def encoder_frame(prompt: str, text: str, pooling: Pooling) -> list[Segment]:
    """Frame of one text for a model that only embeds.

    Args:
        prompt: what the model was trained to read before a text of this kind, such as "query: "; perhaps nothing.
        text: without the spaces at its ends, which some tokenizers give a token and llama.cpp none.
    Raises: ValueError if the text is empty.
    """
    if not text.strip():
        raise ValueError("cannot embed an empty text: give at least one visible character")
    every = pooling == "mean"
    return [
        Segment(BOS, "control", True),
        Segment(f"{prompt}{text}".strip(), "text", every),
        Segment(EOS, "control", every),
    ]


def chat_frame(turns: Sequence[Turn], *, blocks: bool = False, caching: Caching = "none") -> list[Segment]:
    """Frame of a conversation; one that ends with a user turn is left open for the assistant's answer.

    Args:
        blocks: put the passages of user turns, lines that begin with [1], [2] and so on, into embedding frames.
        caching: puts what is cached into embedding frames, and the question of a `documents_turn` to its place.
    Raises: ValueError unless turns alternate user, assistant, user, ... beginning with the user.
    """
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if not turns or [turn.role for turn in turns] != expected[: len(turns)]:
        raise ValueError("a chat must alternate user and assistant turns, beginning with the user")
    segments = [Segment(BOS, "control")]
    num_blocks = 0
    for position, turn in enumerate(turns):
        if turn.role == "user":
            if position:
                segments.append(Segment("\n", "text"))
            asked = list(_asked(turn.text, num_blocks, -1 - position // 2, blocks, caching))
            segments += [Segment(USER, "marker"), *asked]
            num_blocks = max(num_blocks, *(segment.block for segment in asked))
            segments += [Segment(ASSISTANT, "marker"), Segment("\n", "text")]
        else:
            segments += [Segment(turn.text.strip(), "text", counts=True), Segment(EOS, "control", counts=True)]
    return segments


def _asked(text: str, num_before: int, question_block: int, blocks: bool, caching: Caching) -> Iterator[Segment]:
    """A user turn, what is cached in embedding frames."""
    found = _DOCUMENTS_FIRST.fullmatch(text)
    if found and caching in ("query", "query-doc"):
        text = f"{_QUESTION}{found['question']}\n\n{found['documents']}\n\n{_ANSWER_FIRST_QUESTION}"
    found = _DOCUMENTS_FIRST.fullmatch(text) or _QUESTION_FIRST.fullmatch(text)
    parts = [f"\n{text}\n"]
    if found and "query" in caching and found["question"].strip():
        start, end = found.span("question")
        parts = [f"\n{text[:start]}", text[start:end], f"{text[end:]}\n"]
    for number, part in enumerate(parts):
        if number == 1:
            for segment in embedding_frame(*query_input(part)):
                yield replace(segment, block=question_block)
        elif blocks or "doc" in caching:
            yield from _with_blocks(part, num_before)
        else:
            yield Segment(part, "text")


def _with_blocks(text: str, num_before: int) -> Iterator[Segment]:
    """The blocks of a turn are numbered on from those before it: two with one number would see each other."""
    at = 0
    for number, found in enumerate(_PASSAGE.finditer(text), start=1):
        if int(found.group(1)) != number:
            break  # a list of somebody's own
        yield Segment(text[at : found.start(2)], "text")
        for segment in embedding_frame("", found.group(2)):
            yield replace(segment, block=num_before + number)
        at = found.end(2)
    yield Segment(text[at:], "text")


_DOCUMENTS, _QUESTION = "Documents:\n", "Question: "
_ANSWER = "Answer from the documents and cite them."
_ANSWER_FIRST_QUESTION = "Answer the question from the documents and cite them."
_DOCUMENTS_FIRST = re.compile(
    rf"(?P<documents>{_DOCUMENTS}.*)\n\n{_QUESTION}(?P<question>.*)\n{re.escape(_ANSWER)}", re.DOTALL
)
_QUESTION_FIRST = re.compile(
    rf"{_QUESTION}(?P<question>.*?)\n\n(?P<documents>{_DOCUMENTS}.*)\n\n{re.escape(_ANSWER_FIRST_QUESTION)}", re.DOTALL
)


def documents_turn(passages: Sequence[str], question: str, *, question_first: bool = False) -> str:
    """The user turn of a question about passages: numbered documents, then the question.

    One of the layouts the default model was trained with: the documents can be read before the question is known.
    Each has its number before and behind it. A passage read as a block does not see the number before it, so the
    one behind is where a small model can gather what the passage was about and which number it has.

    Args:
        question_first: the other order, in which a question can be read before its documents are known.
    """
    if question_first:
        return f"{_QUESTION}{question.strip()}\n\n{_documents(passages)}\n\n{_ANSWER_FIRST_QUESTION}"
    return f"{_documents(passages)}\n\n{_QUESTION}{question.strip()}\n{_ANSWER}"


def _documents(passages: Sequence[str]) -> str:
    return _DOCUMENTS + "\n\n".join(f"[{n}] {block_text(text)}\n[{n}]" for n, text in enumerate(passages, start=1))


def block_text(text: str) -> str:
    """A passage as it stands in a prompt: in one line, for a line is what a passage is found by."""
    return " ".join(text.split())


def likelihood_frame(passage: str, question: str, *, blocks: bool = False) -> list[Segment]:
    """The question of a passage, as `documents_turn` asks it, up to its last word; the question counts.

    How likely a model finds it there tells how well the passage fits it.

    Args:
        blocks: as for `chat_frame`.
    """
    # a word has the space before it in its first token, so that the space counts with the question
    opening = f"\n{_documents([passage])}\n\n{_QUESTION.rstrip()}"
    asked = list(_with_blocks(opening, 0)) if blocks else [Segment(opening, "text")]
    counted = Segment(f" {' '.join(question.split())}", "text", counts=True)
    return [Segment(BOS, "control"), Segment(USER, "marker"), *asked, counted]


def render(segments: Iterable[Segment]) -> str:
    """The frame as one string, as the paper prints it."""
    return "".join(segment.text for segment in segments)


def query_input(question: str) -> EmbeddingInput:
    """A question as the embedder takes it: with the instruction, as GRIT embeds the asking side."""
    return QUERY_INSTRUCTION, question.strip()


MAX_TITLE_BYTES = 120
"""No token is shorter than a byte, so that a title takes no more tokens than this from its passage."""


def passage_input(chunk: Chunk) -> EmbeddingInput:
    """A chunk as the embedder takes it: no instruction, its innermost heading, cut short, as the title in front."""
    title = chunk.heading.rsplit(" > ", 1)[-1]
    title = title.encode()[:MAX_TITLE_BYTES].decode(errors="ignore").rstrip()
    text = chunk.text.strip()
    return "", f"{title} {text}" if title and title not in text else text


# ---------------------------------------------------------------- frames to token ids


def encode(segments: Sequence[Segment], tokenizer: FrameTokenizer, markers: Markers) -> EncodedFrame:
    """Token ids of a frame, and which of them count.

    Control tokens, and markers where they are special, become single ids. What lies between them is a run,
    tokenized as a whole so that the ids are those of the whole string. Within a run the tokens that count are a
    suffix; where a merge would reach across that border (a text that begins with newlines), both sides are
    tokenized on their own, so that no pooled token holds a part of the frame. A block is a run of its own: its ids
    are those of the same passage embedded.
    """
    ids: list[int] = []
    counts: list[bool] = []
    blocks: list[int] = []
    run: list[Segment] = []

    def add(found: list[int], counted: bool, block: int) -> None:
        ids.extend(found)
        counts.extend([counted and not block] * len(found))  # what a chat's passage pools is no target
        blocks.extend([block] * len(found))

    def close_run() -> None:
        for run_ids, counted in _encode_run(run, tokenizer) if run else ():
            add(run_ids, counted, run[0].block)
        run.clear()

    for segment in segments:
        if run and run[0].block != segment.block:
            close_run()
        if segment.kind == "control" or (segment.kind == "marker" and markers == "special"):
            close_run()
            add([tokenizer.control_id(segment.text)], segment.counts, segment.block)
        elif segment.kind == "text" and markers == "text":
            run.append(replace(segment, text=_SPELLED_MARKER.sub("< ", segment.text)))
        else:
            run.append(segment)
    close_run()
    return EncodedFrame(ids, counts, blocks if any(blocks) else [])


def _encode_run(run: Sequence[Segment], tokenizer: FrameTokenizer) -> list[tuple[list[int], bool]]:
    frame = "".join(segment.text for segment in run if not segment.counts)
    text = "".join(segment.text for segment in run if segment.counts)
    assert [segment.counts for segment in run] == sorted(segment.counts for segment in run)
    frame_ids = tokenizer.tokenize(frame) if frame else []
    if not text:
        return [(frame_ids, False)]
    whole = tokenizer.tokenize(frame + text)
    if whole[: len(frame_ids)] == frame_ids and len(whole) > len(frame_ids):
        return [(frame_ids, False), (whole[len(frame_ids) :], True)]
    return [(frame_ids, False), (tokenizer.tokenize(text), True)]


def strip_accents(text: str) -> str:
    """What an uncased BERT reads of a text: characters taken apart, and the marks that take no space of their own gone.

    llama.cpp would also take away marks that do, vowels of Hindi and Korean among them.
    Source: tokenizers normalizers/bert.rs, `do_strip_accents`.
    """
    if text.isascii():
        return text
    return "".join(each for each in unicodedata.normalize("NFD", text) if unicodedata.category(each) != "Mn")


LONG_WORD = re.compile(r"[^\W_\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]{101,}")
"""What BERT takes for one unknown token, whatever it spells; Chinese characters are words of their own."""


# ---------------------------------------------------------------- metadata of a GGUF

CONFIG_KEY = "grit"
"""Key of a checkpoint's config.json under which the trainer keeps these values."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|user|>\\n' + message['content'] + '\\n<|assistant|>\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""The chat frame as the Jinja template other programs read from a checkpoint or a GGUF."""


LLAMA_TWIN = "llama-embed"
"""llama.cpp's name of a llama without output head and KV cache, which it builds from the same keys and tensors."""

BOTH_JOBS, EMBEDS_ONLY = "embedding, generation", "embedding"
"""Values of grit.jobs; files from before there was this key do both."""


@dataclass(frozen=True)
class GritMetadata:
    """What a program must know to use one file; written as `grit.*` keys of a GGUF."""

    dimension: int
    """Length of an embedding: so many of the hidden states' dimensions, the first ones, are pooled."""
    markers: Markers = "special"
    pooling: Pooling = "mean"
    normalize: bool = True
    embedding_attention: Literal["bidirectional"] = "bidirectional"
    generation_attention: Literal["causal", "none"] = "causal"
    """none: the model only embeds."""
    is_encoder: bool = False
    """Texts are read in `encoder_frame`, not in GRIT's; such a model only embeds."""
    passages: Passages = "plain"
    """How the model learned to read the passages of a question."""
    query_prompt: str = ""
    """What a model that only embeds reads before a text that comes with an instruction, in its place."""
    passage_prompt: str = ""
    """What it reads before other texts."""
    embedding_architecture: str = ""
    """Name of the embedding twin: loaded under it in place of general.architecture, the file embeds from the same
    weights without an output head or a KV cache. Empty where llama.cpp has no twin, or the file lacks its keys."""

    @property
    def generates(self) -> bool:
        return self.generation_attention != "none"

    def caching(self, cache: Cache) -> Caching:
        """What `cache` means for this model: passages that it learned to read as blocks cost nothing to keep."""
        if cache != "auto":
            return cache
        return "none" if self.passages == "plain" else "doc"

    @property
    def num_closing(self) -> int:
        """Tokens of a frame behind its text, which stay where a text is cut."""
        return 1 if self.is_encoder else 0

    def frame(self, instruction: str, text: str) -> list[Segment]:
        """Frame of one text to embed with this model. Raises: ValueError if the text is empty."""
        if not self.is_encoder:
            return embedding_frame(instruction, text)
        prompt = self.query_prompt if clean_instruction(instruction) else self.passage_prompt
        return encoder_frame(prompt, text, self.pooling)

    def to_gguf(self) -> dict[str, str | int | bool]:
        """Keys and values as they stand in the file."""
        values: dict[str, str | int | bool] = {
            "grit.version": 1,
            "grit.jobs": BOTH_JOBS if self.generates else EMBEDS_ONLY,
            "grit.embedding.frame": render(self.frame("{instruction}", "{text}")),
            "grit.embedding.frame_without_instruction": render(self.frame("", "{text}")),
            "grit.embedding.attention": self.embedding_attention,
            "grit.embedding.pooling": self.pooling,
            "grit.embedding.normalize": self.normalize,
            "grit.embedding.dimension": self.dimension,
            "grit.generation.attention": self.generation_attention,
        }
        if self.embedding_architecture:
            values["grit.embedding.architecture"] = self.embedding_architecture
        if self.is_encoder:
            return values | {"grit.embedding.pooled_tokens": "all" if self.pooling == "mean" else "first"}
        values |= {"grit.markers": self.markers, "grit.embedding.pooled_tokens": "text"}
        if not self.generates:
            return values
        return values | {
            "grit.generation.frame": render(chat_frame([Turn("user", "{user}"), Turn("assistant", "{assistant}")])),
            "grit.generation.turn_separator": "\n",
            "grit.generation.passages": self.passages,
        }

    @staticmethod
    def from_gguf(values: Mapping[str, Any]) -> GritMetadata:
        """Read the keys back.

        Raises: ValueError if they are missing, of a newer version, or ask for what this program cannot do.
        """
        version = values.get("grit.version")
        if version is None:
            raise ValueError("it has no grit.* metadata; make it with `gritdesk convert CHECKPOINT OUT.gguf`")
        if int(version) != 1:
            raise ValueError(f"it has grit.version {version}, this program reads version 1; update gritdesk")
        found = GritMetadata(
            dimension=int(values["grit.embedding.dimension"]),
            markers=values.get("grit.markers", "special"),
            passages=values.get("grit.generation.passages", "plain"),
            embedding_architecture=values.get("grit.embedding.architecture", ""),
        )
        if values.get("grit.jobs") == EMBEDS_ONLY:
            is_encoder = values.get("grit.embedding.pooled_tokens") != "text"
            found = (
                _encoder_metadata(found.dimension, values)
                if is_encoder
                else replace(found, generation_attention="none")
            )
        if found.passages not in get_args(Passages):
            raise ValueError(f"its passages are {found.passages!r}, this program knows {', '.join(get_args(Passages))}")
        for key, expected in found.to_gguf().items():
            if key in values and values[key] != expected:
                raise ValueError(f"its {key} is {values[key]!r}, this program does {expected!r}")
        return found


def _encoder_metadata(dimension: int, values: Mapping[str, Any]) -> GritMetadata:
    """Metadata of an encoder's file; its prompts are what its frames hold before the text."""
    opening, closing = BOS, f"{{text}}{EOS}"
    frames = [values["grit.embedding.frame"], values["grit.embedding.frame_without_instruction"]]
    for frame in frames:
        if not (frame.startswith(opening) and frame.endswith(closing)):
            raise ValueError(f"its embedding frame is {frame!r}, this program does {opening}PROMPT{closing}")
    query_prompt, passage_prompt = (frame.removeprefix(opening).removesuffix(closing) for frame in frames)
    if (pooling := values["grit.embedding.pooling"]) not in get_args(Pooling):
        raise ValueError(f"its pooling is {pooling!r}, this program knows {', '.join(get_args(Pooling))}")
    return GritMetadata(
        dimension,
        pooling=pooling,
        generation_attention="none",
        is_encoder=True,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
    )
