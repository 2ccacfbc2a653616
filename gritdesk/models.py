"""Which GGUF files are here, which one is meant, and which is which.

A model is known by the sha256 of its file: two files of one name may embed differently, and an index must never
mix them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gritdesk.config import Config, home_dir
from gritdesk.errors import CHOOSE_MODEL, ModelError
from gritdesk.gguf_file import read_header, read_opening
from gritdesk.grit_format import EMBEDS_ONLY

DEFAULT_MODEL = "grit-nano"


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file that a person may choose."""

    name: str
    """What `engine.model` may say to choose it: the file's name without its suffix."""
    path: Path
    size_bytes: int
    is_default: bool
    """Whether it is the model that comes with gritdesk."""


def default_model() -> Path:
    """The model that comes with gritdesk: beside this file in a wheel, in the checkout's assets otherwise.

    Raises: ModelError if the installation has lost it.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "assets", here.parent / "assets"):
        path = folder / f"{DEFAULT_MODEL}.gguf"
        if path.is_file():
            return path
    raise ModelError(
        f"the default model {DEFAULT_MODEL}.gguf is missing from this installation; install gritdesk again, "
        "or choose a GGUF of your own by `gritdesk models use PATH`, or download one by `gritdesk models pull`"
    )


def list_models(config: Config) -> list[ModelFile]:
    """The default model, if it is there, then those in HOME/models by name."""
    found = []
    with contextlib.suppress(ModelError):
        found.append(_model_file(default_model(), is_default=True))
    return found + [_model_file(path) for path in sorted(config.models_dir.glob("*.gguf")) if path.is_file()]


def find_model(config: Config) -> Path:
    """The file that `engine.model` means: nothing is the default, then a name in HOME/models, then a path.

    A relative path counts from where the program was started. A model in HOME/models hides a default of its name.

    Raises: ModelError if there is no such file.
    """
    wanted = config.engine.model
    if not wanted:
        return default_model()
    known = {model.name: model.path for model in list_models(config)}
    by_name = known.get(wanted.removesuffix(".gguf"))
    if by_name:
        return by_name
    path = Path(wanted).expanduser().absolute()
    if path.is_file():
        return path
    names = ", ".join(sorted(known)) or "none"
    raise ModelError(
        f"there is no model {wanted!r}, neither as a name (known: {names}) nor as a file {path}; {CHOOSE_MODEL}"
    )


def setting_for(config: Config, path: Path) -> str:
    """What `engine.model` says for this file: nothing for the default, a name in HOME/models, otherwise its path."""
    by_name = {model.path: model.name for model in list_models(config) if not model.is_default}
    try:
        is_default = path == default_model()
    except ModelError:
        is_default = False
    return "" if is_default else by_name.get(path, str(path))


def model_in_use(config: Config) -> ModelFile | None:
    """The model that is searched and answered with, wherever it lies; None if it is not there."""
    try:
        path = find_model(config)
        found = [each for each in list_models(config) if each.path.samefile(path)]
        return found[0] if found else _model_file(path)
    except (ModelError, OSError):
        return None


def only_embeds(path: Path) -> bool:
    """Whether the file says that it embeds and does not generate; what cannot be read says nothing.

    Such a file says so ahead of its vocabulary: no more is read than what stands before the first list.
    """
    try:
        return read_opening(path).get("grit.jobs") == EMBEDS_ONLY
    except ModelError:
        return False


def removable(config: Config, name: str) -> ModelFile:
    """The file in HOME/models that `name` means, if nothing needs it.

    Raises: ModelError if there is none, or it is in use.
    """
    own = [each for each in list_models(config) if not each.is_default]
    found = next((each for each in own if each.name == name.removesuffix(".gguf")), None)
    if found is None:
        if name.removesuffix(".gguf") == DEFAULT_MODEL:
            raise ModelError(f"{DEFAULT_MODEL} is a part of gritdesk and goes with it; remove models of your own")
        names = ", ".join(each.name for each in own) or "none"
        raise ModelError(f"there is no model {name!r} in {config.models_dir}; those there: {names}")
    if found == model_in_use(config):
        raise ModelError(f"{found.name} is in use; choose another first, such as by `gritdesk models use default`")
    return found


def remove_model(model: ModelFile) -> None:
    """Delete a file that `removable` gave. Raises: ModelError if it cannot be deleted."""
    try:
        model.path.unlink()
    except OSError as error:
        raise ModelError(f"cannot remove {model.path}: {error.strerror}; check that you may write there") from error


def model_identity(path: Path, home: Path | None = None) -> str:
    """What tells this model from every other: 16 hex digits of the sha256 of its file.

    Raises: ModelError if the file cannot be read.
    """
    return _remembered("", path, home, lambda: file_sha256(path)[:16])


def tokenizer_identity(path: Path, home: Path | None = None) -> str:
    """What tells how this model counts tokens: another file of one identity counts as this one does.

    Its kind and its size tell it: models that share both and count in other ways count much alike.

    Raises: ModelError if the file cannot be read.
    """

    def describe() -> str:
        header = read_header(path)
        kind = [str(header.values.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre")]
        return "-".join([*kind, str(header.lengths.get("tokenizer.ggml.tokens", 0))])

    return _remembered("#tokenizer", path, home, describe)


def _remembered(what: str, path: Path, home: Path | None, find: Callable[[], str]) -> str:
    """What was found of a file. Finding takes seconds, so HOME keeps it for as long as size and time stay."""
    cache_path = (home or home_dir()) / "model_identities.json"
    try:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        cached = _read_cache(cache_path)
        key = f"{path.resolve()}{what}"
        entry = cached.get(key)
        if isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3:
            return str(entry[2])
        found = find()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    _write_cache(cache_path, {**cached, key: [*stamp, found]})
    return found


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex. Raises: OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_file(path: Path, *, is_default: bool = False) -> ModelFile:
    return ModelFile(path.stem, path, path.stat().st_size, is_default)


def _read_cache(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is made anew
        return {}
    return values if isinstance(values, dict) else {}


def _write_cache(path: Path, values: dict[str, object]) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a home that cannot be written costs time, not the search
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(values, indent=1), encoding="utf-8")
        beside.replace(path)
