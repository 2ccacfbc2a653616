import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gritdesk.cli import main
from gritdesk.config import Config, EngineConfig, IndexConfig
from gritdesk.errors import ConfigError
from gritdesk.service import ServiceFile, install, secrets, service_file, uninstall


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return Config(tmp_path / 'a "home" of 100% $HOME\\x')


@pytest.fixture(params=["linux", "darwin"])
def service(config: Config, request: pytest.FixtureRequest) -> ServiceFile:
    return service_file(config, request.param)


def test_service_is_written_written_again_and_removed(service: ServiceFile) -> None:
    assert not uninstall(service)
    install(service)
    assert service.path.read_bytes() == service.content
    install(service)
    assert uninstall(service)
    assert list(service.path.parent.iterdir()) == []


def test_file_of_another_is_never_touched(service: ServiceFile) -> None:
    service.path.parent.mkdir(parents=True)
    service.path.write_text("mine")
    for act in (install, uninstall):
        with pytest.raises(ConfigError, match="left as it is"):
            act(service)
    assert service.path.read_text() == "mine"
    service.path.unlink()
    service.path.symlink_to(service.path.with_name("elsewhere"))
    with pytest.raises(ConfigError, match="left as it is"):
        install(service)


def test_folder_that_cannot_be_made_is_said(service: ServiceFile, tmp_path: Path) -> None:
    (tmp_path / "person").write_text("")
    with pytest.raises(ConfigError, match=r"write there|move it away"):
        install(service)


def test_unit_is_one_that_systemd_takes(config: Config) -> None:
    service = service_file(config, "linux")
    assert service.path == Path.home() / ".config/systemd/user/gritdesk.service"
    text = service.content.decode()
    for line in ("Nice=10", "IOSchedulingClass=idle", "CPUWeight=20", "Restart=on-failure", "WantedBy=default.target"):
        assert f"\n{line}\n" in text
    quoted = str(config.home).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    assert f'\nEnvironment="GRITDESK_HOME={quoted}"\n' in text
    if shutil.which("systemd-analyze"):
        install(service)
        done = subprocess.run(["systemd-analyze", "verify", "--user", service.path], capture_output=True, text=True)
        assert service.path.name not in done.stderr, done.stderr  # it may have complaints of the machine itself


def test_link_that_starts_the_unit_at_login_goes_with_it(config: Config) -> None:
    service = service_file(config, "linux")
    install(service)
    assert service.enabled_at is not None
    service.enabled_at.parent.mkdir()
    service.enabled_at.symlink_to(service.path)
    assert uninstall(service)
    assert not service.enabled_at.is_symlink()


def test_place_of_units_is_asked_of_the_environment(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert service_file(config, "linux").path == Path("/somewhere/systemd/user/gritdesk.service")


def test_agent_is_one_that_launchd_takes(config: Config) -> None:
    service = service_file(config, "darwin")
    assert service.path.parent == Path.home() / "Library/LaunchAgents"
    values = plistlib.loads(service.content)
    assert values["Label"] == service.path.stem
    assert values["ProgramArguments"] == [sys.executable, "-P", "-m", "gritdesk.cli", "watch"]
    assert values["EnvironmentVariables"] == {"GRITDESK_HOME": str(config.home)}
    assert (values["ProcessType"], values["Nice"], values["RunAtLoad"]) == ("Background", 10, True)


def test_other_systems_are_told_what_to_start(config: Config) -> None:
    with pytest.raises(ConfigError, match="task scheduler.*gritdesk.cli watch"):
        service_file(config, "win32")


def test_name_that_no_unit_can_hold_is_said(config: Config) -> None:
    with pytest.raises(ConfigError, match="printable"):
        service_file(Config(Path("/two\nlines")), "linux")


def test_variables_are_named_that_a_service_has_to_be_given(service: ServiceFile) -> None:
    engine = EngineConfig(embed_url="http://host/v1", embed_model="m", embed_key_env="TEAM_KEY")
    config = Config(Path("/home"), engine=engine, index=IndexConfig(store="postgresql://db/notes"))
    assert secrets(config) == ["TEAM_KEY", "PGPASSWORD"] and secrets(Config(Path("/home"))) == []
    assert "systemctl --user edit" in service.environment or "launchctl setenv" in service.environment


def test_installing_says_which_variables_the_service_needs(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform not in ("linux", "darwin"):
        return
    monkeypatch.setenv("GRITDESK_HOME", str(config.home))
    config.home.mkdir(parents=True)
    assert "variable" not in CliRunner().invoke(main, ["watch", "--install"], catch_exceptions=False).output
    config.path.write_text('[engine]\nembed_url = "http://host/v1"\nembed_model = "m"\n')
    told = CliRunner().invoke(main, ["watch", "--install"], catch_exceptions=False).output.splitlines()
    assert told[-1].startswith("it sees no variable of your shell; give it OPENAI_API_KEY: `")
