"""`gritdesk models` as a person uses it: bring a model, look at it, choose it, remove it, and all that can go wrong."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import gguf
import pytest
from click.testing import CliRunner
from person import MAIN, ORDINARY_PERSON, Person, linux
from tiny import copy_gguf_without_grit, make_checkpoint, make_encoder

from converters.hf_to_gguf import convert
from gritdesk.cli import main
from gritdesk.cli_models import models
from gritdesk.gguf_file import read_header

SMALL_FILES = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
from gritdesk.cli import main
main(prog_name="gritdesk")
"""


@pytest.fixture
def person(tmp_path: Path, tiny_gguf: Path) -> Person:
    """Someone whose configuration names a file, with words of their own in it."""
    person = Person(tmp_path / "home")
    person.configure(tiny_gguf)
    config = person.home / "config.toml"
    config.write_text("# mine\n" + config.read_text())
    return person


@pytest.fixture(scope="module")
def foreign(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_gguf_without_grit(tiny_gguf, tmp_path_factory.mktemp("foreign") / "foreign.gguf")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that only embeds."""
    folder = tmp_path_factory.mktemp("encoder")
    convert(make_encoder(folder / "checkpoint"), folder / "encoder.gguf", "Q8_0")
    return folder / "encoder.gguf"


def model_in(person: Person) -> str:
    import tomllib

    return str(tomllib.loads((person.home / "config.toml").read_text()).get("engine", {}).get("model", ""))


def here(person: Person) -> set[str]:
    """What is in HOME/models, hidden or not."""
    folder = person.home / "models"
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.is_dir() else set()


# ---------------------------------------------------------------- info


def test_info_tells_shape_abilities_and_memory(person: Person, tiny_gguf_q8: Path) -> None:
    told = person.json("models", "info", tiny_gguf_q8)
    assert told["path"] == str(tiny_gguf_q8) and told["size_bytes"] == tiny_gguf_q8.stat().st_size
    assert (told["family"], told["layers"], told["hidden_size"], told["vocabulary"]) == ("llama", 2, 256, 600)
    assert (told["context"], told["file_type"], told["can"]) == (1024, "Q8_0", ["embed", "generate"])
    assert told["grit"]["grit.embedding.dimension"] == 256 and told["problem"] == "" and told["speed"] is None
    assert told["memory"]["n_ctx"] == 1024 and told["memory"]["weights_bytes"] < told["size_bytes"]
    lines = person.run("models", "info", tiny_gguf_q8)
    assert (lines.code, lines.errors) == (0, "")
    for said in (
        "bidirectional attention, mean over the text's tokens, 256 dimensions",
        "causal attention",
        r"<s><|user|>\n{instruction}\n<|embed|>\n{text}",
        "tokens of their own",
        "Q8_0",
        "--measure",
    ):
        assert said in lines.output


def test_info_shows_every_key_of_the_file_when_told(person: Person, tiny_gguf_q8: Path) -> None:
    told = person.json("models", "info", tiny_gguf_q8, "--metadata")["metadata"]
    assert told.keys() == {key for key in gguf.GGUFReader(tiny_gguf_q8).fields if not key.startswith("GGUF.")}
    assert (told["llama.rope.freq_base"], told["tokenizer.ggml.tokens"]) == (20000.0, "[600]")
    lines = person.run("models", "info", tiny_gguf_q8, "--metadata").output.splitlines()
    assert "llama.block_count = 2" in lines and lines[-1].count(" = ") == 1


def test_info_measures_when_told(person: Person, tiny_gguf_q8: Path) -> None:
    speed = person.json("models", "info", tiny_gguf_q8, "--measure")["speed"]
    assert list(speed) == ["embedding_tokens_per_s", "generation_tokens_per_s", "load_s"]
    assert speed["embedding_tokens_per_s"] > 0 and speed["load_s"] > 0
    assert speed["generation_tokens_per_s"] is None or speed["generation_tokens_per_s"] > 0


def test_info_of_the_default_needs_no_path(person: Person) -> None:
    assert person.json("models", "info", "default")["name"] == "grit-nano"
    assert person.json("models", "info", "grit-nano")["can"] == ["embed", "generate"]


def test_info_of_a_file_of_others_says_what_keeps_it_from_use(person: Person, foreign: Path) -> None:
    told = person.json("models", "info", foreign)
    assert (told["can"], told["grit"], told["layers"]) == ([], None, 2) and "grit" in told["problem"]
    assert "nothing here: " in person.run("models", "info", foreign).output
    assert str(foreign) in person.run("models", "info", foreign, "--measure").failure()


def test_encoder_is_shown_measured_and_chosen_as_what_only_embeds(person: Person, encoder: Path) -> None:
    told = person.json("models", "info", encoder, "--measure")
    assert told["can"] == ["embed"] and told["grit"]["grit.jobs"] == "embedding"
    assert (told["memory"]["kv_cache_bytes"], told["memory"]["n_ctx"]) == (0, 0)
    assert told["speed"]["embedding_tokens_per_s"] > 0 and told["speed"]["generation_tokens_per_s"] is None
    lines = person.run("models", "info", encoder).output
    assert "mean over all tokens" in lines and "<s>{text}</s>" in lines
    assert not {"generates", "chat", "cache"} & set(lines.split())
    assert person.run("models", "import", encoder, "--name", "small").code == 0
    assert {each["name"]: each["only_embeds"] for each in person.json("models")}["small"] is True
    assert "only embeds" in person.run("models").output
    assert "it only embeds: `gritdesk search` works" in person.run("models", "use", "small").output
    assert model_in(person) == "small"


# ---------------------------------------------------------------- use


def test_chosen_model_is_used_and_all_else_is_kept(person: Person, tiny_gguf_q8: Path, tmp_path: Path) -> None:
    assert person.run("models", "import", tiny_gguf_q8, "--name", "quick").code == 0
    before = (person.home / "config.toml").read_text()
    for wanted, written in (("quick", "quick"), (tiny_gguf_q8, str(tiny_gguf_q8)), ("default", "")):
        done = person.run("models", "use", wanted)
        assert (done.code, done.errors, done.output.count("\n")) == (0, "", 1)
        assert model_in(person) == written
        line = next(each for each in before.splitlines(keepends=True) if each.startswith("model = "))
        expected = before.replace(line, f"model = {json.dumps(written)}\n" if written else "")
        assert (person.home / "config.toml").read_text() == expected, "the default leaves no line"
    shutil.copy(tiny_gguf_q8, tmp_path / "near.gguf")
    assert person.run("models", "use", "near.gguf").code == 0
    assert model_in(person) == str(tmp_path / "near.gguf")  # wherever gritdesk is started next


def test_index_of_another_model_is_said_to_be_embedded_anew(
    person: Person, tiny_gguf: Path, tiny_gguf_q8: Path, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("The ferry leaves at noon.")
    assert person.json("index", tmp_path / "docs")["chunks_embedded"] == 1
    assert "anew" not in person.run("models", "use", tiny_gguf).output
    assert "`gritdesk index` embeds it anew" in person.run("models", "use", tiny_gguf_q8).output
    assert json.loads(person.run("index", "--json").output)["chunks_embedded"] == 1
    assert "anew" not in person.run("models", "use", tiny_gguf_q8).output


def test_model_that_does_not_work_is_not_chosen(person: Person, foreign: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    before = (person.home / "config.toml").read_text()
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:100_000])
    (tmp_path / "text.gguf").write_text("no model")
    for wanted, said in (
        (foreign, "grit"),
        ("cut.gguf", "cut.gguf"),
        ("text.gguf", "not a GGUF"),
        ("nothing", "no model"),
    ):
        assert said in person.run("models", "use", wanted).failure()
        assert (person.home / "config.toml").read_text() == before


# ---------------------------------------------------------------- remove


def test_removed_model_is_asked_for_first(person: Person, tiny_gguf_q8: Path) -> None:
    assert person.run("models", "import", tiny_gguf_q8, "--name", "quick").code == 0
    for answer, said in ((b"n\n", "was kept"), (b"", "--yes")):
        done = person.run("models", "remove", "quick", stdin=answer)
        assert (done.code, done.output) == (1, "") and said in done.errors and here(person) == {"quick.gguf"}
    done = person.run("models", "remove", "quick", stdin=b"y\n")
    assert done.code == 0 and "quick.gguf" in done.output and here(person) == set()


def test_model_in_use_and_default_are_not_removed(person: Person, tiny_gguf_q8: Path) -> None:
    assert person.run("models", "import", tiny_gguf_q8, "--name", "quick").code == 0
    assert person.run("models", "use", "quick").code == 0
    assert "models use default" in person.run("models", "remove", "quick", "--yes").failure()
    assert "a part of gritdesk" in person.run("models", "remove", "grit-nano", "--yes").failure()
    assert "no model 'nothing'" in person.run("models", "remove", "nothing", "--yes").failure()
    assert person.run("models", "use", "default").code == 0
    assert person.run("models", "remove", "quick", "--yes").code == 0


# ---------------------------------------------------------------- import


def test_imported_model_is_listed_and_embeds_as_before(person: Person, tmp_path: Path) -> None:
    """A model whose markers are ordinary text, as GritLM's are, stripped of what says so and told so again."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "mistral", tokenizer="sentencepiece")
    convert(checkpoint, tmp_path / "ours.gguf", "Q8_0")
    theirs = copy_gguf_without_grit(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")
    assert "--frames gritlm" in person.run("models", "import", theirs).failure()
    assert here(person) == set()
    done = person.run("models", "import", theirs, "--frames", "gritlm", "--name", "lm")
    assert done.code == 0 and "gritdesk models use lm" in done.errors and here(person) == {"lm.gguf"}
    assert "lm" in [each["name"] for each in person.json("models")]
    assert read_header(person.home / "models" / "lm.gguf").values == read_header(tmp_path / "ours.gguf").values
    ours, imported = (
        json.loads(person.run("embed", "--model", model, "--instruction", "Find it", stdin=b"a ship").output)
        for model in (tmp_path / "ours.gguf", "lm")
    )
    assert ours == imported and math.isclose(sum(value * value for value in ours), 1, abs_tol=1e-4)


def test_what_cannot_be_imported_is_said_in_one_line(
    person: Person, tiny_gguf: Path, foreign: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:-1000])
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "picture.gguf").write_bytes(b"PNG" * 1000)
    for arguments, said in (
        (["nothing.gguf"], "no model file at"),
        (["home"], "found a folder"),
        (["cut.gguf"], "is cut off"),
        (["empty.gguf"], "is empty"),
        (["picture.gguf"], "not a GGUF"),
        ([tiny_gguf, "--frames", "gritlm"], "leave --frames out"),
        ([tiny_gguf, "--name", "a/b"], "--name"),
    ):
        assert said in person.run("models", "import", *arguments).failure()
    assert here(person) == set()


def test_model_that_llama_cpp_does_not_load_is_blamed_by_its_own_name(
    person: Person, tiny_gguf: Path, tmp_path: Path
) -> None:
    strange = copy_gguf_without_grit(tiny_gguf, tmp_path / "strange.gguf", name="strange")
    data = strange.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight")
    strange.write_bytes(data)
    line = person.run("models", "import", strange, "--frames", "gritlm").failure()
    assert str(strange) in line and "attn_q" in line and here(person) == set()


@linux
def test_full_disk_and_read_only_home_leave_nothing(person: Person, tiny_gguf: Path) -> None:
    line = person.run("models", "import", tiny_gguf, code=SMALL_FILES).failure()
    assert "cannot write" in line and str(person.home) in line and here(person) == set()
    (person.home / "models" / "old.gguf").write_bytes(b"")
    before = (person.home / "config.toml").read_text()
    for folder in (person.home / "models", person.home):
        folder.chmod(0o500)
    for arguments in (["import", tiny_gguf], ["remove", "old", "--yes"], ["use", "default"]):
        line = person.run(MAIN, "models", *arguments, code=ORDINARY_PERSON).failure()
        assert str(person.home) in line and "write" in line
    for folder in (person.home, person.home / "models"):
        folder.chmod(0o700)
    assert here(person) == {"old.gguf"} and (person.home / "config.toml").read_text() == before


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("command", list(models.commands))
def test_every_command_of_models_explains_itself(command: str) -> None:
    done = CliRunner().invoke(main, ["models", command, "--help"], prog_name="gritdesk")
    assert (done.exit_code, done.stderr) == (0, "") and f"Usage: gritdesk models {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "info"], "Missing argument"),
        (["models", "frobnicate"], "No such command"),
        (["models", "--json", "info", "default"], "give --json after info"),
        (["models", "import", "a.gguf", "--frames", "magic"], "magic"),
    ],
)
def test_wrong_usage_of_models_is_one_line(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="gritdesk")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1) and said in done.stderr


def test_listing_and_info_load_no_engine(person: Person) -> None:
    code = (
        "import sys; from gritdesk.cli import main\n"
        "main(prog_name='gritdesk', standalone_mode=False)\n"
        "heavy = {'llama_cpp', 'torch', 'transformers', 'huggingface_hub', 'textual'}\n"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    for arguments in (["models"], ["models", "info", "default"]):
        done = person.run(*arguments, code=code)
        assert done.code == 0 and done.output and done.errors == ""
