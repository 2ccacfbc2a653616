"""`gritdesk watch` as a service of the person's own: a systemd user unit on Linux, a launchd agent on macOS.

One file is written or removed, and nothing is started: the command that does it is told. A file that gritdesk did
not write is left alone.
"""

from __future__ import annotations

import os
import plistlib
import sys
from dataclasses import dataclass
from pathlib import Path

from gritdesk.config import Config
from gritdesk.errors import ConfigError

_UNIT = "gritdesk.service"
_LABEL = "gritdesk.watch"
_MARK = "Written by `gritdesk watch --install`"


@dataclass(frozen=True)
class ServiceFile:
    """What the system's own service manager reads, and the commands that a person gives it."""

    path: Path
    content: bytes
    start: str
    stop: str
    environment: str
    """The command that gives the service a variable of the environment."""
    enabled_at: Path | None = None
    """The link that the manager makes to start it at login, which has to go with the file."""


def service_file(config: Config, platform: str = sys.platform) -> ServiceFile:
    """The service that watches with this Python and this home. Raises: ConfigError where there is no such manager."""
    if platform == "darwin":
        return _launchd_agent(config)
    if platform.startswith("linux"):
        return _systemd_unit(config)
    raise ConfigError(
        "no service is installed on this system; have its task scheduler start "
        f"`{' '.join(_command())}` when you log on"
    )


def secrets(config: Config) -> list[str]:
    """Names of the variables of the environment that hold what the configured servers may ask for."""
    key = [config.engine.embed_key_env] if config.engine.embed_url else []
    return [*key, *(["PGPASSWORD"] if config.index.store else [])]


def install(service: ServiceFile) -> None:
    """Write the file, over an older one of gritdesk's own. Raises: ConfigError if another's is there."""
    _check_own(service.path)
    try:
        service.path.parent.mkdir(parents=True, exist_ok=True)
        beside = service.path.with_name(f"{service.path.name}.new")
        beside.write_bytes(service.content)
        beside.replace(service.path)
    except OSError as error:
        raise ConfigError(f"cannot write {service.path}: {error.strerror}; may you write there?") from error


def uninstall(service: ServiceFile) -> bool:
    """Remove the file; False if there was none. Raises: ConfigError if it is another's."""
    _check_own(service.path)
    try:
        was_there = service.path.exists()
        service.path.unlink(missing_ok=True)
        if service.enabled_at is not None and service.enabled_at.is_symlink():
            service.enabled_at.unlink()
    except OSError as error:
        raise ConfigError(f"cannot remove {service.path}: {error.strerror}; may you write there?") from error
    return was_there


def _check_own(path: Path) -> None:
    """Raise ConfigError if the file is there and gritdesk did not write it."""
    try:
        is_own = not path.is_symlink() and _MARK.encode() in path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; move it away first") from error
    if not is_own:
        raise ConfigError(f"{path} was not written by gritdesk and is left as it is; move it away first")


def _command() -> list[str]:
    return [sys.executable, "-P", "-m", "gritdesk.cli", "watch"]


def _systemd_unit(config: Config) -> ServiceFile:
    config_home = os.environ.get("XDG_CONFIG_HOME", "")
    folder = (Path(config_home) if config_home.startswith("/") else Path.home() / ".config") / "systemd" / "user"
    command = " ".join(_systemd_quoted(each).replace("$", "$$") for each in _command())
    content = f"""# {_MARK}; `gritdesk watch --uninstall` removes it.
[Unit]
Description=gritdesk keeps its index up with your folders

[Service]
ExecStart={command}
Environment={_systemd_quoted(f"GRITDESK_HOME={config.home}")}
Nice=10
IOSchedulingClass=idle
CPUWeight=20
Restart=on-failure
RestartSec=60

[Install]
WantedBy=default.target
"""
    return ServiceFile(
        folder / _UNIT,
        content.encode(),
        f"systemctl --user daemon-reload && systemctl --user enable --now {_UNIT}",
        f"systemctl --user stop {_UNIT} && systemctl --user daemon-reload",
        f"`systemctl --user edit {_UNIT.removesuffix('.service')}`, under [Service] a line Environment=NAME=VALUE",
        folder / "default.target.wants" / _UNIT,
    )


def _systemd_quoted(word: str) -> str:
    """One word as a unit file has it. Source: systemd.syntax(7), systemd.unit(5) on specifiers."""
    if not word.isprintable():
        raise ConfigError(f"a service cannot be told of the path {word!r}; move it to one of printable letters")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _launchd_agent(config: Config) -> ServiceFile:
    path = Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    values = {
        "Label": _LABEL,
        "Comment": f"{_MARK}; `gritdesk watch --uninstall` removes it.",
        "ProgramArguments": _command(),
        "EnvironmentVariables": {"GRITDESK_HOME": str(config.home)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 60,
        "ProcessType": "Background",
        "Nice": 10,
        "LowPriorityIO": True,
        "StandardErrorPath": str(config.log_dir / "watch.log"),
    }
    domain = "gui/$(id -u)"
    return ServiceFile(
        path,
        plistlib.dumps(values),
        f"launchctl bootstrap {domain} '{path}'",
        f"launchctl bootout {domain}/{_LABEL}",
        "`launchctl setenv NAME VALUE` before it starts, after every login",
    )
