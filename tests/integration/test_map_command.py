"""`gritdesk map` over a real index with the default model."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gritdesk.cli import main

SAMPLE = Path(__file__).parents[2] / "assets" / "sample"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path / "home"))
    runner = CliRunner()
    assert runner.invoke(main, ["index", str(SAMPLE)]).exit_code == 0
    return runner


def test_map_groups_all_documents_and_writes_a_page(run: CliRunner, tmp_path: Path) -> None:
    found = json.loads(run.invoke(main, ["map", "--json"]).stdout)
    num_files = sum(1 for path in SAMPLE.iterdir() if path.is_file())
    assert {Path(point["path"]).name for point in found["points"]} == {path.name for path in SAMPLE.iterdir()}
    assert sum(cluster["documents"] for cluster in found["clusters"]) == num_files
    listed = run.invoke(main, ["map", "--clusters", "2"])
    assert listed.exit_code == 0 and len([line for line in listed.stdout.splitlines() if line[0] != " "]) == 2
    target = tmp_path / "map.html"
    written = run.invoke(main, ["map", "--html", str(target)])
    assert written.exit_code == 0 and f"{num_files} documents" in written.stdout
    assert "keepers-handbook.md" in target.read_text("utf-8")


def test_page_that_cannot_be_written_is_one_line(run: CliRunner, tmp_path: Path) -> None:
    result = run.invoke(main, ["map", "--html", str(tmp_path / "none" / "map.html")])
    assert result.exit_code == 1
    assert "cannot write" in result.stderr and "choose another file" in result.stderr


def test_map_of_an_empty_index_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(main, ["map"])
    assert result.exit_code == 0 and "gritdesk status" in result.stdout
