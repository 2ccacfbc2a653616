"""REPO[:FILE] on the Hugging Face hub -> a file here. The only place where gritdesk asks a network, and only when told.

What has come is kept until all is there, so that a download goes on where it was broken off: the library's own
downloads begin anew. It is named by what the hub calls this content, so that no two versions are ever joined.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_INSTALLED = (
    'to pull models install huggingface_hub: pip install "gritdesk[pull]"; or download the file yourself and '
    "run `gritdesk models import FILE`"
)
_MAX_NAMES = 12
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def fetch(address: str, folder: Path, check_room: Callable[[int], None]) -> Path:
    """Download one GGUF, or the rest of it.

    Args:
        address: OWNER/REPO if it has one GGUF, otherwise OWNER/REPO:FILE.
        folder: made if it is not there; the file lies in a folder of its own inside.
        check_room: called with the bytes that are still to come; raises if there is no room for them.
    Returns: the whole file, of the name it has on the hub.
    Raises: ModelError if the library is not installed, the hub not reached, the file not there or not the one promised.
    """
    try:
        import huggingface_hub
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise ModelError(_NOT_INSTALLED) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # of what it tries again nobody need know
    repo, _, name = address.partition(":")
    if name and not name.endswith(".gguf"):
        raise ModelError(f"{name} is no GGUF; give OWNER/REPO:FILE.gguf, or `gritdesk convert` a checkpoint's folder")
    with _translated(repo, name):
        name = name or _only_gguf(repo, huggingface_hub.HfApi().list_repo_files(repo))
        found = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, name))
    if not found.size or not found.etag:
        raise ModelError(f"the hub does not say how large {repo}:{name} is; download it yourself and import it")
    whole = folder / re.sub(r"\W", "", found.etag)[:32] / Path(name).name
    part = whole.with_name(f"{whole.name}.part")
    if whole.is_file():
        return whole
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            have_bytes = file.tell()
            if have_bytes < found.size:
                check_room(found.size - have_bytes)
                url = huggingface_hub.hf_hub_url(repo, name, revision=found.commit_hash)
                with _translated(repo, name):
                    http_get(url, file, resume_size=have_bytes, headers=build_hf_headers(), expected_size=found.size)
        _check_content(part, found.size, found.etag)
        return part.replace(whole)
    except OSError as error:
        raise ModelError(f"cannot write {whole}: {error.strerror or error}; may you write there?") from error


def _only_gguf(repo: str, names: list[str]) -> str:
    found = sorted(name for name in names if name.endswith(".gguf"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(f"{repo} has no GGUF; if it is a checkpoint, download it and `gritdesk convert` it")
    listed = ", ".join(found[:_MAX_NAMES]) + (", ..." if len(found) > _MAX_NAMES else "")
    raise ModelError(f"{repo} has {len(found)} GGUF files; name one, as in {repo}:{found[0]} (there are: {listed})")


def _check_content(part: Path, size_bytes: int, etag: str) -> None:
    """Raises: ModelError, and the file is gone, if it is not what the hub promised."""
    is_good = part.stat().st_size == size_bytes
    if is_good and re.fullmatch(r"[0-9a-f]{64}", etag):  # large files are named by their sha256
        with part.open("rb") as file:
            is_good = hashlib.file_digest(file, "sha256").hexdigest() == etag
    if not is_good:
        part.unlink()
        raise ModelError(f"what came is not {part.stem} as the hub has it; run the same command again")


@contextmanager
def _translated(repo: str, name: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except ModelError:
        raise
    except GatedRepoError as error:
        raise ModelError(f"{repo} asks for your consent; give it on its page, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no {repo}, or not for you; check the name, or `hf auth login`") from error
    except EntryNotFoundError as error:
        raise ModelError(f"{repo} has no file {name}; `gritdesk models pull {repo}` names those it has") from error
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is no name of a repository; give OWNER/REPO or OWNER/REPO:FILE") from error
    except OfflineModeIsEnabled as error:
        raise ModelError("HF_HUB_OFFLINE forbids the network; unset it, or import a file that is here") from error
    except Exception as error:  # its network layer has been another library in each of its major versions
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"cannot reach {repo} on the hub ({reason}); what has come is kept: run the same command again when you "
            "are online, or `gritdesk models import` a file that is here"
        ) from error
