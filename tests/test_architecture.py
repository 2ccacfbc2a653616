"""What README, docstrings and settings promise of the whole house."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gritdesk import errors
from gritdesk.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN_COMMANDS = sorted(set(re.findall(r"^\.venv/bin/gritdesk[^#\n]*", README, flags=re.MULTILINE)))


def test_every_subcommand_is_in_the_readme() -> None:
    table = README.split("## The command line")[1].split("For scripts")[0]
    assert [name for name in main.commands if f"gritdesk {name}" not in table] == []


@pytest.mark.parametrize("shown", SHOWN_COMMANDS)
def test_command_shown_in_the_readme_is_one_the_program_takes(shown: str) -> None:
    words = shown.split()[1:]
    if words:
        options = [option for parameter in main.commands[words[0]].params for option in parameter.opts]
        assert all(word in options for word in words if word.startswith("--"))


def test_every_error_is_in_the_tree_its_module_draws() -> None:
    names = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert names and [name for name in names if name not in (errors.__doc__ or "")] == []


def test_app_loads_no_torch_and_help_loads_no_engine_and_no_ui() -> None:
    code = """
import sys
from click.testing import CliRunner
from gritdesk.cli import main
assert CliRunner().invoke(main, ["--help"]).exit_code == 0
heavy = {"numpy", "apsw", "textual", "llama_cpp", "torch"} & set(sys.modules)
assert not heavy, heavy
import gritdesk.answerer, gritdesk.desk, gritdesk.doctor, gritdesk.indexer, gritdesk.retriever, gritdesk.tui.app
import gritdesk.engine.host, gritdesk.extract.worker, gritdesk.watcher, converters.hf_to_gguf
heavy = {"llama_cpp", "torch", "transformers", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pinned_versions_hold_every_dependency_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    named += [each for each in project["optional-dependencies"]["dev"] if not each.startswith("gritdesk")]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    known = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for requirement in named:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None and name.group().lower().replace("_", "-") in known, requirement
        if "==" in requirement:
            assert known[name.group().lower().replace("_", "-")] == requirement.split("==")[1], requirement


def test_wheel_carries_the_default_model() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    for source in wheel["wheel"]["force-include"]:
        assert (ROOT / source).stat().st_size > 1000, source
