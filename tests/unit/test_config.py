"""config.toml is read strictly, and what a person wrote in it survives the program's own changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from gritdesk.config import Config, add_folder, home_dir, load_config, set_model, with_setting, write_setting
from gritdesk.errors import ConfigError


def test_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    assert config.index_path == tmp_path / "index.sqlite" and config.index.folders == ()


def test_home_is_moved_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRITDESK_HOME", str(tmp_path / "elsewhere"))
    assert home_dir() == tmp_path / "elsewhere"


def test_values_are_read_and_whole_numbers_stand_for_fractions(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[search]\nsemantic_weight = 1\n[index]\nfolders = ["/a"]\n')
    config = load_config(tmp_path)
    assert config.search.semantic_weight == 1.0 and config.index.folders == ("/a",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engine]\nmodle = 1\n", "unknown key engine.modle"),
        ("[motor]\n", "unknown section"),
        ("[index]\nchunk_tokens = 'many'\n", "index.chunk_tokens must be int"),
        ("[index]\nfolders = [1]\n", "must be a list of strings"),
        ("[index]\nquiet = 1\n", "index.quiet must be bool"),
        ("[index]\non_battery = 'stop'\n", 'one of "go on", "words only", "pause"'),
        ("not toml", "cannot read"),
    ],
)
def test_mistake_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(tmp_path)
    assert "config.toml" in str(caught.value)


def test_added_folder_is_kept_beside_what_the_person_wrote(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("# mine\n[engine]\nn_threads = 3  # quiet\n")
    add_folder(load_config(tmp_path), tmp_path / "notes")
    text = (tmp_path / "config.toml").read_text()
    assert "# mine" in text and "# quiet" in text
    again = load_config(tmp_path)
    assert again.index.folders == (str(tmp_path / "notes"),) and again.engine.n_threads == 3


def test_listed_folder_is_not_added_again(tmp_path: Path) -> None:
    config = add_folder(load_config(tmp_path), tmp_path / "notes")
    assert add_folder(config, tmp_path / "notes") == config


def test_folder_that_another_process_added_is_kept(tmp_path: Path) -> None:
    opened_before = load_config(tmp_path)
    add_folder(load_config(tmp_path), tmp_path / "theirs")
    config = add_folder(opened_before, tmp_path / "ours")
    expected = (str(tmp_path / "theirs"), str(tmp_path / "ours"))
    assert config.index.folders == load_config(tmp_path).index.folders == expected


@pytest.mark.parametrize(
    "text",
    [
        "# mine\n[engine]\n# before\nmodel = 'old' # why\nn_threads = 3  # quiet\n\n[answer]\nmax_tokens = 9\n",
        "# mine\nengine.n_threads = 3  # quiet\n# before\nengine.model = 'old'  # why\n[answer]\nmax_tokens = 9\n",
        "# mine\n# quiet\n# before\n# why\nengine = { n_threads = 3 }\nanswer = { max_tokens = 9 }\n",
        "# mine\n# quiet\n# before\n# why\n[answer]\nmax_tokens = 9\n",
    ],
)
def test_chosen_model_is_all_that_changes(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    before = load_config(tmp_path)
    for model in ("/models/ä b.gguf", ""):
        assert set_model(before, model) == set_model(load_config(tmp_path), model) == load_config(tmp_path)
        assert load_config(tmp_path).engine.model == model
        written = (tmp_path / "config.toml").read_text()
        assert all(comment in written for comment in ("# mine", "# before", "# why", "# quiet"))
        assert load_config(tmp_path).answer.max_tokens == 9
        assert load_config(tmp_path).engine.n_threads == before.engine.n_threads


def test_default_model_needs_no_configuration(tmp_path: Path) -> None:
    set_model(load_config(tmp_path), "")
    assert not (tmp_path / "config.toml").exists()


def test_home_that_is_no_unicode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRITDESK_HOME", "/tmp/h\udcff")
    with pytest.raises(ConfigError, match="not valid Unicode"):
        home_dir()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\n[answer]\nmax_tokens = 9\n[engine]\nn_ctx = 99\n", "# mine\n[answer]\nmax_tokens = 9\n"),
        ("[engine]\n# slow\nn_ctx = 99\nn_threads = 3\n", "[engine]\n# slow\nn_threads = 3\n"),
        ("[engine]\nn_ctx = 99  # slow\n", "[engine]\nn_ctx = 2048  # slow\n"),
        ("[index]\nquiet = true  # at night\n[engine]\nn_ctx = 99", "[index]\nquiet = true  # at night\n"),
        ("engine.n_ctx = 99\nengine.n_threads = 3\n", "engine.n_threads = 3\n"),
        ("engine = { n_threads = 3, n_ctx = 99 }\n", "engine = { n_threads = 3 }\n"),
        ("[answer]\nmax_tokens = 9\n", "[answer]\nmax_tokens = 9\n"),
    ],
)
def test_setting_that_goes_back_to_its_default_leaves_no_line_but_a_remark(
    tmp_path: Path, before: str, after: str
) -> None:
    (tmp_path / "config.toml").write_text(before)
    for value in (None, 2048):
        config = write_setting(load_config(tmp_path), "engine.n_ctx", value)
        assert " ".join((tmp_path / "config.toml").read_text().split()) == " ".join(after.split())
        assert config == load_config(tmp_path) and config.engine.n_ctx == 2048


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("engine.n_ctx", 3, "engine.n_ctx must be 16 or more"),
        ("answer.cache", "some", 'one of "auto"'),
        ("engine.modle", "x", "unknown key engine.modle"),
        ("motor.x", 1, "unknown key motor.x"),
        ("engine.batch_tokens", 300, "at least 136 less than"),
        ("engine.n_threads", "many", "must be int"),
        ("engine.model", "\udcff", "not valid Unicode"),
    ],
)
def test_setting_that_config_toml_may_not_hold_is_not_written(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    text = "# mine\n[engine]\nn_threads = 3\n"
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        write_setting(load_config(tmp_path), key, value)
    assert (tmp_path / "config.toml").read_text() == text


def test_remark_behind_a_switch_stays_when_it_is_turned_back(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[index]\nquiet = true  # at night\n")
    write_setting(load_config(tmp_path), "index.quiet", None)
    assert (tmp_path / "config.toml").read_text() == "[index]\nquiet = false  # at night\n"


def test_folders_and_settings_that_threads_write_at_once_are_all_kept(tmp_path: Path) -> None:
    config = Config(tmp_path)
    changes = [partial(add_folder, config, tmp_path / str(number)) for number in range(8)]
    changes += [partial(write_setting, config, f"search.{key}", 7) for key in ("keyword_weight", "num_passages")]
    with ThreadPoolExecutor(len(changes)) as threads:
        for done in [threads.submit(change) for change in changes]:
            done.result()
    written = load_config(tmp_path)
    assert len(written.index.folders) == 8
    assert written.search.keyword_weight == 7 and written.search.num_passages == 7


def test_setting_is_tried_without_being_written(tmp_path: Path) -> None:
    assert with_setting(Config(tmp_path), "index.chunk_tokens", 128).index.chunk_tokens == 128
    assert not (tmp_path / "config.toml").exists()
