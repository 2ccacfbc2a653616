"""A GGUF that somebody else made -> a model in HOME/models.

A file that does not say how GRIT spells what it reads gets these keys on the way, if it is a known model or a person
says so. Whatever goes wrong, the model of that name is the old one, or none, as before.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gritdesk.config import Config
from gritdesk.errors import ConfigError, ModelError
from gritdesk.gguf_file import GgufHeader, Value, read_header, write_with
from gritdesk.grit_format import LLAMA_TWIN, GritMetadata, Markers
from gritdesk.model_facts import ModelFacts, describe

FRAMES: dict[str, Markers] = {"gritlm": "text"}
"""How models of others are read, by the name a person gives it: GritLM's markers are ordinary text to its tokenizer."""


@dataclass(frozen=True)
class KnownModel:
    """A model known by what its file says of itself; by its shape alone it would be its base model, too."""

    title: re.Pattern[str]
    family: str
    num_layers: int
    hidden_size: int
    num_kv_heads: int
    num_experts: int
    frames: str

    def is_it(self, facts: ModelFacts) -> bool:
        """Whether name and shape are those of this model."""
        shape = (facts.family, facts.num_layers, facts.hidden_size, facts.num_kv_heads, facts.num_experts)
        ours = (self.family, self.num_layers, self.hidden_size, self.num_kv_heads, self.num_experts)
        return shape == ours and self.title.search(facts.title) is not None


KNOWN_MODELS = (
    KnownModel(re.compile(r"grit-?lm", re.IGNORECASE), "llama", 32, 4096, 8, 0, "gritlm"),  # GritLM-7B
    KnownModel(re.compile(r"grit-?lm", re.IGNORECASE), "llama", 32, 4096, 8, 8, "gritlm"),  # GritLM-8x7B
)
"""They were trained from Mistral 7B v0.1 and Mixtral 8x7B v0.1, and have their shapes: those that transformers'
MistralConfig and MixtralConfig have without arguments. Source: GRIT paper (arXiv 2402.09906) for the base models."""


@contextmanager
def placing(
    config: Config,
    source: Path,
    target: Path,
    *,
    frames: str | None = None,
    by_link: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """The model as it will be, in a folder beside `target`, whose place it takes once the `with` ends without an error.

    Args:
        target: as `target_for` gives it.
        frames: one of FRAMES, for a file that does not say how it is read.
        by_link: give the file a second name where nothing is added to it, in place of a copy.
        is_stopped: asked between some megabytes.
    Raises: ModelError if the file is damaged, cannot be used, does not fit the disk, or it was stopped.
    """
    header = read_header(source)
    added = _added_values(header, frames)
    try:
        config.models_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=config.models_dir, prefix=f".{target.stem}.") as folder:
            whole = Path(folder) / target.name
            if not (by_link and not added and _link(source, whole)):
                check_room(config.models_dir, header.size_bytes)
                if not write_with(header, added, whole, is_stopped):
                    raise ModelError(f"stopped; {target.name} was not imported, and nothing of it is kept")
            yield whole
            whole.replace(target)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}; may you write there?") from error


def target_for(config: Config, name: str, *, replace: bool) -> Path:
    """Where a model of this name lies.

    Raises: ConfigError if it cannot be a name; ModelError if it is taken and not to be replaced.
    """
    name = name.removesuffix(".gguf")
    if not name.strip() or name != name.strip() or name.startswith(".") or not name.isprintable() or len(name) > 100:
        raise ConfigError(f"{name!r} cannot be a model's name; give another with --name")
    if set(name) & set('/\\:*?"<>|') or name == "default":
        what = "means the model that comes with gritdesk" if name == "default" else "would be a path"
        raise ConfigError(f"{name!r} {what}, and cannot be a model's name; give another with --name")
    target = config.models_dir / f"{name}.gguf"
    if os.path.lexists(target) and not (replace and target.is_file()):
        raise ModelError(f"{target} is there already; give --replace, or another name with --name")
    return target


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raises: ModelError if the disk of a folder has no room for so many bytes."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ModelError(
            f"{folder} has {free_bytes / 1e6:.1f} MB free and {needed_bytes / 1e6:.1f} MB are needed; make room, "
            "or set GRITDESK_HOME elsewhere"
        )


def _added_values(header: GgufHeader, frames: str | None) -> dict[str, Value]:
    """The keys the file lacks; none if it has them. Raises: ModelError if it is not known how it is read."""
    facts = describe(header)
    if int(header.values.get("split.count", 1)) > 1:
        raise ModelError(f"{header.path} is one part of several; join them with `llama-gguf-split --merge` first")
    if any(key.startswith("grit.") for key in header.values):
        if facts.grit is None:
            raise ModelError(f"{header.path} cannot be used by gritdesk: {facts.problem}")
        if frames is not None:
            raise ModelError(f"{header.path} says itself how it is read; leave --frames out")
        return {}
    frames = frames or next((known.frames for known in KNOWN_MODELS if known.is_it(facts)), None)
    if frames is None:
        raise ModelError(
            f"{header.path} does not say how it embeds (it has no grit.* keys) and is no model that gritdesk knows; "
            "if it is a GritLM give --frames gritlm, otherwise `gritdesk convert` its checkpoint"
        )
    if not facts.hidden_size:
        raise ModelError(f"{header.path} does not say how wide its embeddings are; `gritdesk convert` its checkpoint")
    twin = _twin_values(header) if facts.family == "llama" else {}
    grit = GritMetadata(facts.hidden_size, markers=FRAMES[frames], embedding_architecture=LLAMA_TWIN if twin else "")
    return {**grit.to_gguf(), **twin}


def _twin_values(header: GgufHeader) -> dict[str, Value]:
    """The keys of a llama once more, for its embedding twin; none if some cannot be said twice."""
    of_layers = [key for key in header.lengths if key.startswith("llama.")]
    keys = {key.removeprefix("llama."): value for key, value in header.values.items() if key.startswith("llama.")}
    too_large = [key for key, value in keys.items() if isinstance(value, int) and not 0 <= value < 1 << 32]
    if of_layers or too_large or any(key.startswith(f"{LLAMA_TWIN}.") for key in header.values):
        return {}
    return {f"{LLAMA_TWIN}.{key}": value for key, value in {**keys, "attention.causal": False}.items()}


def _link(source: Path, whole: Path) -> bool:
    """Give a file a second name; False on a file system that knows no such thing."""
    try:
        os.link(source, whole)
    except OSError:
        return False
    return True
