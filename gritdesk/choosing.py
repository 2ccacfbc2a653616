"""Choosing a model: bring one here, prove that it does what it says, measure it, and set it in config.toml."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gritdesk import importing
from gritdesk.config import Config, set_model
from gritdesk.desk import Desk
from gritdesk.engine.host import EngineHost
from gritdesk.errors import FingerprintMismatch, GritDeskError, ModelError
from gritdesk.estimating import SENTENCE, embedding_speed, sentences
from gritdesk.grit_format import query_input
from gritdesk.models import find_model, setting_for
from gritdesk.records import Sampling, Turn

DEFAULT = "default"
"""What a person says for the model that comes with gritdesk."""

_QUESTIONS = (
    "Tell a long story about a lighthouse and the people who live in it.",
    "Describe how a harbour works, step by step, in many sentences.",
    "Write down everything you know about the sea.",
    "Explain how bread is baked, from the field to the table.",
)
_MEASURED_S = 3.0
"""Each speed is measured for about so long, or for one call if that takes longer."""
_MEASURED_PIECES = 24


@dataclasses.dataclass(frozen=True)
class Choice:
    """A model that was chosen."""

    path: Path
    embeds_anew: bool
    """Whether the index holds embeddings of another one."""
    generates: bool
    """False for an encoder, which only embeds."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a model does on this machine, with the configured threads, beside whatever else runs."""

    embedding_tokens_per_s: float
    generation_tokens_per_s: float | None
    """None if it only embeds, or ended every answer before there was anything to measure."""
    load_s: float


def asking_for(config: Config, wanted: str) -> Config:
    """The configuration with another model: a name, a path, or "default"."""
    model = "" if wanted == DEFAULT else wanted
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, model=model))


def use_model(config: Config, wanted: str) -> Choice:
    """Set `engine.model`, once the model has proved itself. What is in the index is embedded anew by the next `index`.

    Raises: ModelError if there is no such model or it does not work; ConfigError if config.toml cannot be written.
        Nothing is changed then.
    """
    chosen = asking_for(config, wanted)
    path = find_model(chosen)
    generates = prove(config, path)
    choice = Choice(path, _embeds_anew(chosen), generates)
    set_model(config, setting_for(config, path))
    return choice


def import_model(
    config: Config,
    source: Path,
    name: str | None = None,
    *,
    frames: str | None = None,
    replace: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
    by_link: bool = False,
) -> Path:
    """Copy a GGUF into HOME/models; see importing.placing. It takes its place once it has proved itself.

    Args:
        name: of the model; the file's own if there is none.
    Returns: where it is now.
    Raises: ModelError or ConfigError for all that stands in the way; what was there is then as it was.
    """
    target = importing.target_for(config, name if name is not None else source.stem, replace=replace)
    with importing.placing(config, source, target, frames=frames, by_link=by_link, is_stopped=is_stopped) as whole:
        with _blamed_on(source, whole):
            prove(config, whole)
    return target


def pull_model(
    config: Config,
    address: str,
    name: str | None = None,
    *,
    frames: str | None = None,
    replace: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """Download OWNER/REPO[:FILE] from the hub and import it; a download that is broken off is gone on with next time.

    Returns, raises: as import_model, and ModelError if it cannot be downloaded.
    """
    from gritdesk import hub

    if name is not None:
        importing.target_for(config, name, replace=replace)  # before gigabytes are fetched in vain
    downloads = config.models_dir / ".downloads"
    whole = hub.fetch_gguf(address, downloads, lambda num_bytes: importing.check_room(config.models_dir, num_bytes))
    target = import_model(config, whole, name, frames=frames, replace=replace, is_stopped=is_stopped, by_link=True)
    whole.unlink()
    for folder in (whole.parent, downloads):
        if not any(folder.iterdir()):
            folder.rmdir()
    return target


def fetch_checkpoint(config: Config, repo: str, say: Callable[[str], None]) -> Path:
    """Download OWNER/REPO from the hub for a conversion, or the rest of it; it is kept in HOME/checkpoints.

    Returns: its folder.
    Raises: ModelError if it cannot be downloaded.
    """
    from gritdesk import hub

    folder = config.home / "checkpoints"
    return hub.fetch_checkpoint(repo, folder, lambda num_bytes: importing.check_room(config.home, num_bytes), say)


def prove(config: Config, path: Path) -> bool:
    """Load a model in the engine, which tests its attention, embed a text and, unless it only embeds, generate a token.

    Returns: whether it generates.
    Raises: ModelError with the reason if one of them fails.
    """
    with _engine(config, path) as engine:
        engine.embed([query_input(_QUESTIONS[0]), ("", SENTENCE)])
        if not engine.info().generates:
            return False
        for _ in engine.stream([Turn("user", _QUESTIONS[0])], Sampling(max_tokens=1)):
            pass
        return True


def measure(config: Config, path: Path) -> Speed:
    """Measure a model for some seconds. Raises: ModelError if it does not work."""
    with _engine(config, path) as engine:
        info = engine.info()
        generation_speed = _generation_speed(engine) if info.generates else None
        speed = embedding_speed(engine.embed, [sentences(engine.count_tokens)], _MEASURED_S)
        return Speed(speed, generation_speed, info.self_test["load_s"])


def _generation_speed(engine: EngineHost) -> float | None:
    """Tokens per second after the first one, whose time is that of reading the prompt."""
    num_tokens, seconds = 0, 0.0
    for seed, question in enumerate(_QUESTIONS):
        sampling = Sampling(max_tokens=_MEASURED_PIECES, temperature=1.0, seed=seed)
        # a character of several tokens arrives as one piece, which few are
        arrived = [time.perf_counter() for _ in engine.stream([Turn("user", question)], sampling)]
        if len(arrived) > 1:
            num_tokens, seconds = num_tokens + len(arrived) - 1, seconds + arrived[-1] - arrived[0]
        if seconds > _MEASURED_S:
            break
    return num_tokens / seconds if num_tokens >= _MEASURED_PIECES / 4 and seconds > 0 else None


@contextmanager
def _engine(config: Config, path: Path) -> Iterator[EngineHost]:
    with EngineHost(path, config.engine, config.log_dir) as engine:
        yield engine


@contextmanager
def _blamed_on(source: Path, whole: Path) -> Iterator[None]:
    """Name the file a person gave where the engine names the copy it was shown."""
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(str(whole), str(source))) from error


def _embeds_anew(chosen: Config) -> bool:
    if not chosen.index.store and not chosen.index_path.exists():
        return False
    try:
        with Desk(chosen) as desk:
            desk.check_fingerprint()
    except FingerprintMismatch:
        return True
    except GritDeskError:  # a damaged index keeps nobody from another model
        return False
    return False
