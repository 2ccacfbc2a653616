"""Fixtures every folder of tests may use: a tiny real checkpoint and the GGUF files made from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from postgres_server import PostgresServer

# Before torch is imported: it brings an OpenMP that reads these once, and that llama.cpp then takes, too. Threads that
# spin while they wait for each other need 20 times as long on a machine that does anything else, such as other tests.
# Tiny tensors gain nothing by a second thread; llama.cpp still gets as many as a test asks for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# the same examples at every run: a new one that fails belongs into a test, not into somebody else's change
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer Llama checkpoint with byte-level BPE and GRIT's markers as special tokens."""
    from tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_gguf(tiny_checkpoint: Path) -> Path:
    """`tiny_checkpoint` as F32."""
    return _converted(tiny_checkpoint, "F32")


@pytest.fixture(scope="session")
def tiny_gguf_q8(tiny_checkpoint: Path) -> Path:
    """`tiny_checkpoint` as Q8_0."""
    return _converted(tiny_checkpoint, "Q8_0")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server with pgvector, for the whole session."""
    from postgres_server import PostgresServer

    server = PostgresServer()
    yield server
    server.close()


def _converted(checkpoint: Path, quantization_type: str) -> Path:
    from converters.hf_to_gguf import convert

    out = checkpoint.parent / f"tiny-{quantization_type}.gguf"
    convert(checkpoint, out, quantization_type)
    return out
