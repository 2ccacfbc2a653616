"""Models from a hub, as a person pulls them: a real server on this machine, real downloads, and what breaks them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hub_server import COMMIT, Hub, serving
from person import Person
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch_file
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
        ("mill/none", "mill/none has no GGUF; if it is a checkpoint, `gritdesk convert mill/none OUT.gguf`"),
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


# ---------------------------------------------------------------- convert


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of several files, and among them what a conversion does not read."""
    folder = make_checkpoint(tmp_path_factory.mktemp("hub") / "checkpoint", shard_size="2MB")
    (folder / "consolidated.safetensors").write_bytes(bytes(1000))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(bytes(1000))
    return folder


def test_named_checkpoint_is_fetched_and_converted_as_a_folder_is(
    person: Person, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    hub.repositories["mill/stone"] = checkpoint
    done = person.run("convert", "mill/stone", tmp_path / "out.gguf", "--type", "F32", **hub.environment)
    assert done.code == 0, done.errors
    convert(checkpoint, tmp_path / "expected.gguf", "F32")
    found, expected = (gguf.GGUFReader(tmp_path / name) for name in ("out.gguf", "expected.gguf"))
    assert found.fields["general.name"].contents() == "stone"
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        assert one.name == other.name and one.data.tobytes() == other.data.tobytes()
    kept = person.home / "checkpoints" / "mill--stone" / COMMIT / "stone"
    assert f"it is kept in {kept}; delete it when you need it no more" in done.errors
    assert {path.name for path in kept.rglob("*")} & {"consolidated.safetensors", "onnx", "README.md"} == set()
    hub.heal()
    assert person.run("convert", "mill/stone", tmp_path / "again.gguf", **hub.environment).code == 0
    assert hub.sent_bytes == 0, "what is here is not fetched again"


def test_named_checkpoint_that_was_broken_off_goes_on(
    person: Person, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    hub.repositories["mill/stone"] = checkpoint
    hub.breaks_after_bytes = 3 << 20
    done = person.run("convert", "mill/stone", tmp_path / "out.gguf", **hub.environment)
    assert done.code == 1 and not (tmp_path / "out.gguf").exists()
    assert "cannot reach mill/stone" in done.errors.splitlines()[-1] and "online, or give a " in done.errors
    whole = {path.name for path in (person.home / "checkpoints").rglob("*.*") if path.suffix != ".part"}
    assert "config.json" in whole
    hub.heal()
    assert person.run("convert", "mill/stone", tmp_path / "out.gguf", **hub.environment).code == 0
    assert whole & {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"} == set()


def test_weights_that_are_there_as_torch_pickled_them_only_are_fetched_too(
    person: Person, hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "pickled"))
    torch.save(load_torch_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.repositories["mill/pickled"] = folder
    done = person.run("convert", "mill/pickled", tmp_path / "out.gguf", **hub.environment)
    assert done.code == 0, done.errors


def test_adapter_on_the_hub_is_merged_with_a_base_here(
    person: Person, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    weights = {name.format("A"): np.ones((1, 256), np.float32), name.format("B"): np.ones((256, 1), np.float32)}
    (tmp_path / "adapter").mkdir()
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "init_lora_weights": True}
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "mill/stone"})
    )
    hub.repositories |= {"mill/adapter": tmp_path / "adapter", "mill/stone": checkpoint}
    done = person.run("convert", "mill/adapter", tmp_path / "out.gguf", **hub.environment)
    assert "whose base 'mill/stone' is no folder here; give the base with --base" in done.errors.splitlines()[-1]
    for base in ("mill/stone", checkpoint):
        done = person.run("convert", "mill/adapter", tmp_path / "out.gguf", "--base", base, **hub.environment)
        assert done.code == 0 and "an adapter of 1 weights" in done.errors, done.errors


def test_what_cannot_be_fetched_for_a_conversion_is_said_before_anything_else(
    person: Person, hub: Hub, tiny_gguf: Path, tmp_path: Path
) -> None:
    add(hub, tmp_path, "mill/quantized", tiny_gguf)

    def last_line(*arguments: str | Path, **environment: str) -> str:
        done = person.run("convert", *arguments, **environment)
        assert done.code == 1 and done.output == "" and "Traceback" not in done.errors
        return done.errors.splitlines()[-1]

    out = tmp_path / "out.gguf"
    assert "`gritdesk models pull mill/quantized`" in last_line("mill/quantized", out, **hub.environment)
    assert "the hub has no mill/nothing" in last_line("mill/nothing", out, **hub.environment)
    line = last_line("mill/stone", out, **hub.environment, HF_HUB_OFFLINE="1")
    assert line.endswith("HF_HUB_OFFLINE forbids the network; unset it, or give a checkpoint folder that is here")
    hub.requests.clear()
    assert "make it first" in last_line("mill/stone", tmp_path / "gone" / "out.gguf", **hub.environment)
    (tmp_path / "here").mkdir()
    assert "here/stone is not a folder" in last_line("here/stone", out, **hub.environment)
    assert hub.requests == [], "nothing is asked for a folder that is misspelled, or a target that cannot be written"
