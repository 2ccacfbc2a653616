"""Examines an installation part by part; each finding stands alone, so that one fault hides no other."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gritdesk.config import load_config
from gritdesk.desk import Desk
from gritdesk.errors import GritDeskError
from gritdesk.store import place
from gritdesk.walking import is_folder


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    found: str
    """What was found; where it is wrong, with what to do."""


def examine(desk: Desk | None = None) -> Iterator[Check]:
    """Every check, in the order a person would make them, each as soon as it is made.

    Args:
        desk: the one whose index and model are looked at; None opens one, and loads the model for it.
    """
    yield Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}")
    yield _check("sqlite", _sqlite_versions)
    try:
        config = load_config()
    except GritDeskError as error:
        yield Check("config", False, str(error))
        return
    yield Check("config", True, f"{config.path}" if config.path.exists() else f"defaults ({config.path} is not there)")
    if desk is not None:
        yield from _checks_of(desk)
        return
    with Desk(config) as own:  # not `open`, which a damaged index refuses: the model is to be looked at all the same
        yield from _checks_of(own)


def _checks_of(desk: Desk) -> Iterator[Check]:
    yield _check("machine", lambda: _machine(desk))
    yield _check("index", lambda: _index(desk))
    yield _check("folders", lambda: _folders(desk))
    yield _check("chats", lambda: _chats(desk))
    yield _check("model", lambda: _model(desk))
    if desk.config.engine.embed_url:
        yield _check("embeddings", lambda: _embeddings(desk))
    yield _check("fingerprint", lambda: _fingerprint(desk))


def _check(name: str, examine_part: Callable[[], str]) -> Check:
    try:
        return Check(name, True, examine_part())
    except GritDeskError as error:
        return Check(name, False, " ".join(str(error).split()))


def _sqlite_versions() -> str:
    import apsw
    import sqlite_vec

    return f"SQLite {apsw.sqlite_lib_version()} by apsw, sqlite-vec {sqlite_vec.__version__}"


def _machine(desk: Desk) -> str:
    machine = desk.machine()
    memory = f"{machine.memory_bytes / 1e9:.1f} GB of memory, {machine.memory_free_bytes / 1e9:.1f} GB of it free"
    return f"{machine.name}, {machine.num_cores} cores; {memory}; {machine.disk_free_bytes / 1e9:.1f} GB of disk free"


def _index(desk: Desk) -> str:
    problems = desk.check()
    if problems:
        remedy = "have its schema dropped" if desk.config.index.store else f"move {place(desk.config)} away"
        raise GritDeskError(f"{problems[0]} ({len(problems)} problems); {remedy} and run `gritdesk index`")
    status = desk.status()
    held = f"{status.files} files, {status.chunks} passages, {len(status.failed)} files not readable"
    return f"{held}, in {place(desk.config)}" if desk.config.index.store else held


def _folders(desk: Desk) -> str:
    gone = [str(folder) for folder in desk.folders if not is_folder(folder)]
    if gone:
        raise GritDeskError(f"not to be seen now: {', '.join(gone)}; connect it, or take it out of {desk.config.path}")
    return ", ".join(map(str, desk.folders)) or "none yet; add one with `gritdesk index FOLDER`"


def _chats(desk: Desk) -> str:
    num, size = desk.chats.count()
    told = f"{num} kept, {size / 1e6:.1f} MB"
    if not desk.config.answer.keep_chats:
        told += "; none are kept any more (answer.keep_chats)"
    return "; ".join([told, *desk.chats.problems()])  # what is lost is lost: nothing can be done about it


def _model(desk: Desk) -> str:
    info = desk.engine_info()
    tests = ", ".join(f"{name} {value:.4g}" for name, value in info.self_test.items())
    jobs = f"context {info.n_ctx}" if info.generates else f"only embeds, texts of {info.max_text_tokens} tokens"
    where = "on the GPU" if info.on_gpu else "on the processor"
    return f"{info.model_path.name}: {info.description}; {where}; {jobs}; self-test: {tests}"


def _embeddings(desk: Desk) -> str:
    endpoint = desk.endpoint()
    assert endpoint is not None
    return f"{endpoint.fingerprint}: {endpoint.dimension()} numbers; {desk.sends}"


def _fingerprint(desk: Desk) -> str:
    desk.check_fingerprint()
    return desk.fingerprint
