"""llama.cpp's own converter as the reference for ours.

It lies in the source package of llama-cpp-python, which pip downloads once for an environment (77 MB), of the version
that is installed. It runs in a child: it brings a gguf package of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGE = f"llama_cpp_python-{version('llama_cpp_python')}"
FOLDER = Path(sys.prefix) / "llama.cpp" / PACKAGE
_PARTS = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")


@dataclass(frozen=True)
class Conversion:
    checkpoint: str
    out: str
    type: str
    """As the converter calls it: f32, f16, bf16."""
    pre: str
    """What a byte-level tokenizer is taken for: the converter knows those of real models only, by hashes of ids."""


def convert(conversions: Sequence[Conversion]) -> None:
    """Have llama.cpp's converter write all of them, in one process.

    Raises: RuntimeError if it cannot be had, or with the end of what it said if it fails.
    """
    job = {"folder": str(installed()), "conversions": [asdict(each) for each in conversions]}
    done = subprocess.run([sys.executable, __file__], input=json.dumps(job), text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"llama.cpp's converter failed:\n{done.stderr[-3000:]}")


def installed(folder: Path = FOLDER) -> Path:
    """The folder that holds convert_hf_to_gguf.py, downloaded if this environment has not got it yet.

    Raises: RuntimeError that says what to do where there is no network.
    """
    if folder.is_dir():
        return folder
    archive = folder.with_name(f"{PACKAGE}.tar.gz")
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        _download(archive)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:  # so that the folder is there whole or not at all
        with tarfile.open(archive) as package:
            inside = f"{PACKAGE}/vendor/llama.cpp/"
            wanted = [each for each in package if each.name.startswith(tuple(inside + part for part in _PARTS))]
            package.extractall(scratch, wanted, filter="data")
        os.replace(Path(scratch) / inside, folder)
    archive.unlink()
    return folder


def _download(archive: Path) -> None:
    requirement = PACKAGE.replace("-", "==")
    command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python", requirement]
    options = ["--dest", str(archive.parent), "--retries", "1", "--disable-pip-version-check"]
    done = subprocess.run([sys.executable, "-m", *command, *options], text=True, capture_output=True)
    if done.returncode or not archive.exists():
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), done.stderr)
        raise RuntimeError(
            f"llama.cpp's converter is compared with ours, and its source cannot be downloaded ({reason.strip()}). "
            f"Run this once with network; or run `{' '.join(command)}` where there is one, and bring {archive.name} "
            f"to {archive.parent}"
        )


def _main() -> None:
    job = json.load(sys.stdin)
    sys.path[:0] = [job["folder"], f"{job['folder']}/gguf-py"]
    import convert_hf_to_gguf  # type: ignore[import-not-found]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    for each in job["conversions"]:
        TextModel.get_vocab_base_pre = lambda self, tokenizer, pre=each["pre"]: pre
        sys.argv[1:] = [each["checkpoint"], "--outfile", each["out"], "--outtype", each["type"]]
        convert_hf_to_gguf.main()


if __name__ == "__main__":
    _main()
