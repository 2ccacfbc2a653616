"""Names on the Hugging Face hub -> files here. The only place where gritdesk asks a network, and only when told.

What has come is kept until all is there, so that a download goes on where it was broken off: the library's own
downloads begin anew. It is named by what the hub calls this content, so that no two versions are ever joined.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gritdesk.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

CheckRoom = Callable[[int], None]
"""Called with the bytes that are still to come; raises if there is no room for them."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_CHECKPOINT_FILES = re.compile(
    r"[^/]+\.(json|txt|jinja)|tokenizer\.model|\d+_\w+/config\.json"  # a folder of sentence-transformers has modules
    r"|(model(-\d+-of-\d+)?|adapter_model)\.safetensors"  # not consolidated.safetensors: the same weights once more
)
_PICKLED_FILES = re.compile(r"(pytorch_model(-\d+-of-\d+)?|adapter_model)\.bin")
_MAX_NAMES = 12
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def is_name(text: str) -> bool:
    """Whether it is spelled OWNER/REPO, as names on the hub are, and no path that begins here is meant."""
    owner = text.partition("/")[0]
    return _NAME.fullmatch(text) is not None and owner not in (".", "..") and not Path(owner).exists()


def fetch_gguf(address: str, folder: Path, check_room: CheckRoom) -> Path:
    """Download one GGUF, or the rest of it.

    Args:
        address: OWNER/REPO if it has one GGUF, otherwise OWNER/REPO:FILE.
        folder: made if it is not there; the file lies in a folder of its own inside.
    Returns: the whole file, of the name it has on the hub.
    Raises: ModelError if the library is not installed, the hub not reached, the file not there or not the one promised,
        or a person stopped it.
    """
    repo, _, name = address.partition(":")
    if name and not name.endswith(".gguf"):
        raise ModelError(f"{name} is no GGUF; give OWNER/REPO:FILE.gguf, or `gritdesk convert {repo} OUT.gguf`")
    instead = "`gritdesk models import` a file that is here"
    hub = _Hub(repo, instead)
    commit, names = hub.listing()
    name = name or _only_gguf(repo, names)
    found = hub.describe(name, commit)
    return hub.fetch(found, folder / re.sub(r"\W", "", found.etag)[:32] / Path(name).name, check_room)


def fetch_checkpoint(repo: str, folder: Path, check_room: CheckRoom, say: Callable[[str], None]) -> Path:
    """Download what a conversion reads of a checkpoint or an adapter, or the rest of it.

    Args:
        repo: OWNER/REPO.
        folder: made if it is not there; the checkpoint lies in a folder of its own inside.
        say: called with a line for each file that is fetched.
    Returns: a folder with files of one version.
    Raises: as fetch_gguf.
    """
    hub = _Hub(repo, "give a checkpoint folder that is here")
    commit, names = hub.listing()
    wanted = sorted(name for name in names if _CHECKPOINT_FILES.fullmatch(name))
    if not any(name.endswith(".safetensors") for name in wanted):
        wanted += sorted(name for name in names if _PICKLED_FILES.fullmatch(name))
    if not any(name.endswith((".safetensors", ".bin")) for name in wanted):
        has_gguf = any(name.endswith(".gguf") for name in names)
        advice = f"; it has GGUF files: `gritdesk models pull {repo}`" if has_gguf else ""
        raise ModelError(
            f"{repo} has no weights that `gritdesk convert` reads, neither safetensors nor pytorch_model.bin{advice}"
        )
    target = folder / repo.replace("/", "--") / commit / repo.rpartition("/")[2]  # a model is called as its folder is
    # by size, so that what is wrong with a small file shows before gigabytes have come
    files = sorted((hub.describe(name, commit) for name in wanted), key=lambda file: file.size_bytes)
    missing = [file for file in files if not (target / file.name).is_file()]
    for number, file in enumerate(missing, start=1):
        say(f"fetching {repo} {number}/{len(missing)} {file.name} ({file.size_bytes / 1e6:.1f} MB)")
        hub.fetch(file, target / file.name, check_room)
    return target


@dataclass(frozen=True)
class _RemoteFile:
    """A file as the hub describes it."""

    name: str
    url: str
    etag: str
    size_bytes: int


class _Hub:
    """One repository, seen through huggingface_hub."""

    def __init__(self, repo: str, instead: str) -> None:
        """Arguments: `instead` says what a person can do without the hub. Raises: ModelError without the library."""
        try:
            import huggingface_hub
            import huggingface_hub.file_download
            from huggingface_hub.utils import logging
        except ImportError as error:
            raise ModelError(
                f'to fetch {repo} from the hub install huggingface_hub: pip install "gritdesk[pull]"; or {instead}'
            ) from error
        logging.set_verbosity_error()  # of what it tries again nobody need know
        self._library = huggingface_hub
        self._repo = repo
        self._instead = instead

    def listing(self) -> tuple[str, list[str]]:
        """The newest commit, and the names of its files."""
        with self._translated(""):
            found = self._library.HfApi().model_info(self._repo)
            return str(found.sha), [each.rfilename for each in found.siblings or []]

    def describe(self, name: str, commit: str) -> _RemoteFile:
        """What the hub says of a file before it sends it."""
        url = self._library.hf_hub_url(self._repo, name, revision=commit)
        with self._translated(name):
            found = self._library.get_hf_file_metadata(url)
        if found.size is None or not found.etag:
            raise ModelError(f"the hub does not say how large {self._repo}:{name} is; download it yourself")
        return _RemoteFile(name, url, found.etag, found.size)

    def fetch(self, file: _RemoteFile, whole: Path, check_room: CheckRoom) -> Path:
        """Download a file, or the rest of it, as `whole`, which has this name only once it is all there."""
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        part = whole.with_name(f"{whole.name}.part")
        if whole.is_file():
            return whole
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as stream:
                have_bytes = stream.tell()
                if have_bytes < file.size_bytes:
                    check_room(file.size_bytes - have_bytes)
                    options = {"resume_size": have_bytes, "expected_size": file.size_bytes}
                    with self._translated(file.name):
                        http_get(file.url, stream, headers=build_hf_headers(), **options)
            _check_content(part, file)
            return part.replace(whole)
        except OSError as error:
            raise ModelError(f"cannot write {whole}: {error.strerror or error}; may you write there?") from error

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        repo = self._repo
        try:
            yield
        except KeyboardInterrupt as error:
            raise ModelError(
                f"stopped; what has come of {repo} is kept, and the same command goes on with it"
            ) from error
        except GatedRepoError as error:
            raise ModelError(f"{repo} asks for your consent; give it on its page, then `hf auth login`") from error
        except RepositoryNotFoundError as error:
            raise ModelError(f"the hub has no {repo}, or not for you; check the name, or `hf auth login`") from error
        except EntryNotFoundError as error:
            raise ModelError(f"{repo} has no file {name}; `gritdesk models pull {repo}` names its GGUFs") from error
        except HFValidationError as error:
            raise ModelError(f"{repo!r} is no name of a repository; give OWNER/REPO or OWNER/REPO:FILE") from error
        except OfflineModeIsEnabled as error:
            raise ModelError(f"HF_HUB_OFFLINE forbids the network; unset it, or {self._instead}") from error
        except Exception as error:  # its network layer has been another library in each of its major versions
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"cannot reach {repo} on the hub ({reason}); what has come is kept: run the same command again when "
                f"you are online, or {self._instead}"
            ) from error


def _only_gguf(repo: str, names: list[str]) -> str:
    found = sorted(name for name in names if name.endswith(".gguf"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(f"{repo} has no GGUF; if it is a checkpoint, `gritdesk convert {repo} OUT.gguf` makes one")
    listed = ", ".join(found[:_MAX_NAMES]) + (", ..." if len(found) > _MAX_NAMES else "")
    raise ModelError(f"{repo} has {len(found)} GGUF files; name one, as in {repo}:{found[0]} (there are: {listed})")


def _check_content(part: Path, file: _RemoteFile) -> None:
    """Raises: ModelError, and the file is gone, if it is not what the hub promised."""
    is_good = part.stat().st_size == file.size_bytes
    if is_good and re.fullmatch(r"[0-9a-f]{64}", file.etag):  # large files are named by their sha256
        with part.open("rb") as stream:
            is_good = hashlib.file_digest(stream, "sha256").hexdigest() == file.etag
    elif is_good and re.fullmatch(r"[0-9a-f]{40}", file.etag):  # small ones as git names them
        digest = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
        digest.update(part.read_bytes())
        is_good = digest.hexdigest() == file.etag
    if not is_good:
        part.unlink()
        raise ModelError(f"what came is not {file.name} as the hub has it; run the same command again")
