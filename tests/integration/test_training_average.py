"""The mean of checkpoints is a checkpoint like any other, and of those that do not belong together there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training_run import small_config
from tiny import make_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from converters.hf_to_gguf import convert
from gritdesk.engine.llama import LlamaModel
from training import checkpoint
from training.average import average, main
from training.model import PROJECTION_FILE
from training.train import train


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of one shape: whole and float32, in several files, in bfloat16."""
    folder = tmp_path_factory.mktemp("parts")
    return [
        make_checkpoint(folder / "first", seed=0),
        make_checkpoint(folder / "second", seed=1, shard_size="300KB"),
        make_checkpoint(folder / "third", seed=2, dtype="bfloat16"),
    ]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


@pytest.fixture
def changed(parts: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts[0], tmp_path / "changed"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0], [0.0, 1.0, 0.0]])
def test_each_tensor_is_the_weighted_mean(parts: list[Path], tmp_path: Path, weights: list[float] | None) -> None:
    average(parts, tmp_path / "mean", weights)
    found, every = weights_of(tmp_path / "mean"), [weights_of(folder) for folder in parts]
    shares = torch.tensor(weights or [1.0, 1.0, 1.0])
    for name, tensor in found.items():
        expected = sum(share * each[name] for share, each in zip(shares / shares.sum(), every, strict=True))
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)


def test_mean_is_an_ordinary_checkpoint_that_converts(parts: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "mean"
    (parts[0] / checkpoint.STATE_FILE).write_bytes(b"what resuming needs")
    assert main([*map(str, parts), "--output", str(folder), "--weights", "1", "1", "2"]) == 0
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32
    assert AutoTokenizer.from_pretrained(folder)("a word")["input_ids"]
    assert not (folder / checkpoint.STATE_FILE).exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mean"]
    convert(folder, tmp_path / "model.gguf", "Q8_0")
    with LlamaModel(tmp_path / "model.gguf") as gguf:
        assert gguf.grit.dimension == 256


def test_other_config_is_named(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    edit_json(changed / "config.json", rms_norm_eps=0.5)
    with pytest.raises(ValueError, match=r"config.json: rms_norm_eps is 1e-06 in .*first and 0.5 in .*changed"):
        average([parts[0], changed], tmp_path / "mean")


def test_other_way_to_embed_is_named(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    edit_json(changed / "config.json", grit={"dimension": 256, "markers": "special", "pooling": "last_token"})
    with pytest.raises(ValueError, match=r"config.json: grit is .*last_token"):
        average([parts[0], changed], tmp_path / "mean")


def test_heads_are_averaged_with_their_models(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    for folder, value in ((parts[1], 1.0), (changed, 4.0)):
        save_file({"weight": torch.full((8, 256), value)}, folder / PROJECTION_FILE)
    average([parts[1], changed], tmp_path / "mean", [2.0, 1.0])
    assert torch.equal(load_file(tmp_path / "mean" / PROJECTION_FILE)["weight"], torch.full((8, 256), 2.0))
    (parts[1] / PROJECTION_FILE).unlink()


def test_other_tokenizer_is_named(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    with (changed / "tokenizer.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="tokenizer.json is not the same in"):
        average([parts[0], changed], tmp_path / "mean")


def test_other_tensors_are_named(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    tensors = load_file(changed / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.ones(300)}, changed / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights: model.norm.weight is \(256,\) in .* and \(300,\) in"):
        average([parts[0], changed], tmp_path / "mean")
    del tensors["model.norm.weight"]
    save_file(tensors, changed / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights: model.norm.weight is \(256,\) in .* and None in"):
        average([parts[0], changed], tmp_path / "mean")


def test_weights_that_are_not_finite_leave_no_folder(parts: list[Path], changed: Path, tmp_path: Path) -> None:
    tensors = load_file(changed / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.full((256,), torch.nan)}, changed / "model.safetensors")
    with pytest.raises(ValueError, match="model.norm.weight holds NaN"):
        average([parts[0], changed], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    average(parts[:2], tmp_path / "mean")  # what the first one left does not stand in the way
    assert not (tmp_path / "mean.new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least two"),
        (["SECOND", "--weights", "1"], "as many weights, found 1"),
        (["SECOND", "--weights", "1", "nan"], "numbers from 0"),
        (["SECOND", "--weights", "0", "0"], "sum above 0"),
        (["nowhere"], "cannot read nowhere/config.json"),
    ],
)
def test_what_cannot_be_averaged_ends_with_one_line(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [str(parts[1]) if each == "SECOND" else each for each in arguments]
    assert main([str(parts[0]), *given, "--output", str(tmp_path / "mean")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("average: ") and error.count("\n") == 1


def test_output_that_exists_is_left_alone(parts: list[Path], changed: Path) -> None:
    with pytest.raises(ValueError, match="exists"):
        average(parts[:2], changed)
    assert weights_of(changed).keys() == weights_of(parts[0]).keys()


def test_run_keeps_copies_to_average(tmp_path: Path) -> None:
    folder = train(small_config(tmp_path, max_steps=6, save_every_steps=1, keep_every_steps=2))
    kept = [folder.with_name(f"model-step-{step}") for step in (2, 4, 6)]
    assert sorted(tmp_path.glob("model-*")) == kept
    assert (folder / checkpoint.STATE_FILE).exists()
    assert not any((each / checkpoint.STATE_FILE).exists() for each in kept)
    last, earlier = weights_of(folder), weights_of(kept[0])
    assert all(torch.equal(last[name], tensor) for name, tensor in weights_of(kept[2]).items())
    assert not all(torch.equal(last[name], tensor) for name, tensor in earlier.items())
    average(kept, tmp_path / "mean")
    assert weights_of(tmp_path / "mean").keys() == last.keys()


def test_what_is_kept_must_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_every_steps must be a multiple of save_every_steps"):
        small_config(tmp_path, save_every_steps=4, keep_every_steps=6)
