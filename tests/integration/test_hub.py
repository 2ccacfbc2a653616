"""Models from a hub, as a person pulls them: a real server on this machine, real downloads, and what breaks them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serving
from person import Person
from tiny import make_checkpoint

from converters.hf_to_gguf import convert

NO_LIBRARY = (
    "import sys; sys.modules['huggingface_hub'] = None\nfrom gritdesk.cli import main; main(prog_name='gritdesk')"
)
CHUNK_BYTES = 10 << 20
"""What the library writes at a time: less than that is not kept of a download that is broken off."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of several such chunks."""
    folder = tmp_path_factory.mktemp("large")
    checkpoint = make_checkpoint(folder / "checkpoint", intermediate_size=8192)
    convert(checkpoint, folder / "large.gguf", "F32")
    assert (folder / "large.gguf").stat().st_size > 4 * CHUNK_BYTES
    return folder / "large.gguf"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def person(tmp_path: Path, tiny_gguf: Path) -> Person:
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    return person


def add(hub: Hub, tmp_path: Path, repo: str, *files: Path) -> None:
    folder = tmp_path / "hub" / repo
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    (folder / "README.md").write_text("# a model")
    hub.repositories[repo] = folder


def models(person: Person) -> set[str]:
    """The files in the folder of models that are not hidden."""
    folder = person.home / "models"
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()


def kept_bytes(person: Person) -> int:
    """What is kept of downloads that are not whole."""
    return sum(path.stat().st_size for path in person.home.rglob("*.part"))


# ---------------------------------------------------------------- pull


def test_pulled_model_is_listed_and_nothing_else_is_left(
    person: Person, hub: Hub, tiny_gguf_q8: Path, tmp_path: Path
) -> None:
    add(hub, tmp_path, "mill/small", tiny_gguf_q8)
    done = person.run("models", "pull", "mill/small", "--name", "small", **hub.environment)
    assert done.code == 0 and done.errors == "to search and answer with it: gritdesk models use small\n"
    assert (person.home / "models" / "small.gguf").read_bytes() == tiny_gguf_q8.read_bytes()
    assert [path.name for path in (person.home / "models").iterdir()] == ["small.gguf"]
    assert person.json("models", "info", "small")["can"] == ["embed", "generate"]
    asked = len(hub.requests)
    assert (
        "give --replace" in person.run("models", "pull", "mill/small", "--name", "small", **hub.environment).failure()
    )
    assert len(hub.requests) == asked, "what cannot be placed is not fetched"


def test_broken_off_download_goes_on_where_it_was(person: Person, hub: Hub, large: Path, tmp_path: Path) -> None:
    add(hub, tmp_path, "mill/large", large)
    hub.breaks_after_bytes = 2 * CHUNK_BYTES + (5 << 20)
    line = person.run("models", "pull", "mill/large", **hub.environment).failure()
    assert "cannot reach mill/large" in line and "what has come is kept: run the same command again" in line
    kept = kept_bytes(person)
    assert kept >= CHUNK_BYTES and models(person) == set()
    hub.heal()
    assert person.run("models", "pull", "mill/large", **hub.environment).code == 0
    assert hub.ranges()[-1] == f"bytes={kept}-" and hub.sent_bytes == large.stat().st_size - kept
    assert (person.home / "models" / "large.gguf").read_bytes() == large.read_bytes() and kept_bytes(person) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_download_says_so_and_keeps_what_has_come(
    person: Person, hub: Hub, large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    add(hub, tmp_path, "mill/large", large)
    hub.stalls_after_bytes = 2 * CHUNK_BYTES + (1 << 20)
    code = "from gritdesk.cli import main; main(prog_name='gritdesk')"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "models", "pull", "mill/large"],
        env=person.environment(**hub.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert hub.stalled.wait(90)
    until = time.monotonic() + 30
    while kept_bytes(person) < CHUNK_BYTES and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors == "gritdesk: stopped; what has come of mill/large is kept, and the same command goes on with it\n"
    assert models(person) == set() and (kept := kept_bytes(person)) >= CHUNK_BYTES
    hub.heal()
    assert person.run("models", "pull", "mill/large", **hub.environment).code == 0
    assert hub.ranges()[-1] == f"bytes={kept}-" and models(person) == {"large.gguf"}


def test_file_that_is_not_what_was_promised_is_thrown_away(
    person: Person, hub: Hub, tiny_gguf_q8: Path, tmp_path: Path
) -> None:
    add(hub, tmp_path, "mill/small", tiny_gguf_q8)
    hub.corrupts = True
    line = person.run("models", "pull", "mill/small", **hub.environment).failure()
    assert f"what came is not {tiny_gguf_q8.name}" in line and models(person) == set() and kept_bytes(person) == 0
    hub.heal()
    assert person.run("models", "pull", "mill/small", **hub.environment).code == 0


def test_what_the_hub_does_not_have_is_said_in_one_line(
    person: Person, hub: Hub, tiny_gguf: Path, tiny_gguf_q8: Path, tmp_path: Path
) -> None:
    add(hub, tmp_path, "mill/two", tiny_gguf, tiny_gguf_q8)
    add(hub, tmp_path, "mill/none")
    add(hub, tmp_path, "mill/gated", tiny_gguf)
    hub.gated.add("mill/gated")
    for address, said in (
        ("mill/nothing", "the hub has no mill/nothing"),
        ("mill/none", "mill/none has no GGUF; if it is a checkpoint, download it"),
        ("mill/two", f"has 2 GGUF files; name one, as in mill/two:{tiny_gguf.name}"),
        ("mill/two:other.gguf", "mill/two has no file other.gguf"),
        ("mill/two:model.safetensors", "model.safetensors is no GGUF"),
        ("mill/gated", "asks for your consent"),
        ("a/b/c", "'a/b/c' is no name of a repository"),
    ):
        assert said in person.run("models", "pull", address, **hub.environment).failure()
    assert not (person.home / "models").exists() or models(person) == set()
    assert person.run("models", "pull", f"mill/two:{tiny_gguf_q8.name}", **hub.environment).code == 0
    assert models(person) == {tiny_gguf_q8.name}


def test_without_network_or_library_a_person_is_told_what_to_do(person: Person, tmp_path: Path) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
    line = person.run("models", "pull", "mill/small", **nobody).failure()
    assert "cannot reach mill/small" in line and "when you are online, or `gritdesk models import`" in line
    line = person.run("models", "pull", "mill/small", HF_HUB_OFFLINE="1", **nobody).failure()
    assert "HF_HUB_OFFLINE forbids the network; unset it, or `gritdesk models import` a file that is here" in line
    line = person.run("models", "pull", "mill/small", code=NO_LIBRARY).failure()
    assert 'pip install "gritdesk[pull]"; or `gritdesk models import`' in line
    assert models(person) == set()
