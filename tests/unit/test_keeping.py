import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gritdesk import keeping
from gritdesk.config import Config, IndexConfig, write_setting
from gritdesk.errors import ConfigError, StoreBusy
from gritdesk.keeping import Keeper, Pace, find_keeper, find_pause, index_lock, pause, resume


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "home").mkdir()
    return Config(tmp_path / "home")


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_LOOK_EVERY_S", 0)
    monkeypatch.setattr(keeping, "_LOOK_AT_BATTERY_EVERY_S", 0)


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "on_battery", lambda: True)


# ---------------------------------------------------------------- who


def test_second_indexer_is_told_who_is_the_first(config: Config) -> None:
    assert find_keeper(config) is None
    with index_lock(config, watches=True):
        keeper = find_keeper(config)
        assert keeper is not None and (keeper.pid, keeper.watches) == (os.getpid(), True)
        with pytest.raises(StoreBusy, match=rf"process {os.getpid()}, watching since \d\d:\d\d"):
            with index_lock(config, watches=False):
                pass
        assert find_keeper(config) == keeper
    assert find_keeper(config) is None
    with index_lock(config, watches=False):
        pass


def test_indexer_that_was_killed_holds_nothing(config: Config) -> None:
    code = f"""
import os, signal
from pathlib import Path
from gritdesk.config import Config
from gritdesk.keeping import index_lock
with index_lock(Config(Path({str(config.home)!r})), watches=True):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code])
    assert config.keeper_path.exists() and find_keeper(config) is None
    with index_lock(config, watches=False):
        assert find_keeper(config) is not None


def test_process_that_got_the_number_of_an_earlier_one_is_not_taken_for_it(config: Config) -> None:
    with index_lock(config, watches=True):
        note = json.loads(config.keeper_path.read_text())
        config.keeper_path.write_text(json.dumps(note | {"started_at": note["started_at"] - 1000}))
        assert find_keeper(config) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"pid": "x"}', '{"pid": -1, "started_at": null, "since": 1, "watches": 1}']
)
def test_note_that_cannot_be_read_tells_nothing(config: Config, text: str) -> None:
    config.keeper_path.write_text(text)
    assert find_keeper(config) is None


def test_keeper_is_told_with_the_day_if_it_is_not_today() -> None:
    long_ago = str(Keeper(7, time.time() - 3 * 86400, False))
    assert long_ago.startswith("process 7, indexing since 20") and long_ago.count("-") == 2


# ---------------------------------------------------------------- when


def test_pause_holds_until_it_is_ended_or_over(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_pause(config) is None and not resume(config)
    pause(config)
    assert str(find_pause(config)).endswith("until `gritdesk resume`")
    assert resume(config) and find_pause(config) is None
    pause(config, 3600)
    assert find_pause(config) is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert find_pause(config) is None and not resume(config)


def test_pause_whose_file_is_damaged_holds(config: Config) -> None:
    config.pause_path.write_text("half a no")
    assert find_pause(config) is not None
    assert resume(config) and find_pause(config) is None


def test_pause_that_cannot_be_noted_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="write there"):
        pause(Config(tmp_path / "file"))


def test_paused_work_waits_and_says_so_once(config: Config) -> None:
    notices: list[str] = []
    pace = Pace(config, notices.append)
    assert not pace.holds()
    pause(config)
    assert pace.holds() and pace.holds()
    resume(config)
    assert not pace.holds()
    assert len(notices) == 1 and "paused since" in notices[0]


@pytest.mark.parametrize(
    ("on_battery", "holds", "embeds"), [("go on", False, True), ("words only", False, False), ("pause", True, True)]
)
def test_battery_counts_as_it_is_configured(
    config: Config, unplugged: None, on_battery: str, holds: bool, embeds: bool
) -> None:
    config = replace(config, index=IndexConfig(on_battery=on_battery))
    pace = Pace(config, lambda notice: None)
    assert (pace.holds(), pace.embeds()) == (holds, embeds)
    awaited = Pace(config, lambda notice: None, is_awaited=True)
    assert (awaited.holds(), awaited.embeds()) == (False, True)


def test_machine_without_a_battery_is_on_mains() -> None:
    assert keeping.on_battery() in (False, True)  # whatever it runs on, asking fails nowhere


def test_quiet_work_rests_longer_than_it_works(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    for quiet, rested in ((True, pytest.approx(2.0, abs=0.11)), (False, 0)):
        pace = Pace(replace(config, index=IndexConfig(quiet=quiet)), lambda notice: None)
        pace.rest(lambda: False)
        clock[0] += 1.0  # a slice of work
        before = clock[0]
        pace.rest(lambda: False)
        assert clock[0] - before == rested


def test_quiet_mode_counts_as_soon_as_any_process_writes_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def rested(pace: Pace) -> float:
        """After a second of work."""
        clock[0] += 1.0
        before = clock[0]
        pace.rest(lambda: False)
        return clock[0] - before

    watching, awaited = (Pace(config, lambda notice: None, is_awaited=each) for each in (False, True))
    assert [rested(watching), rested(awaited)] == [0, 0]
    write_setting(config, "index.quiet", True)
    assert rested(watching) > 1.9
    assert rested(awaited) > 1.9, "who asks for quiet while work is under way wants it now"
    assert rested(Pace(write_setting(config, "index.quiet", True), lambda notice: None, is_awaited=True)) == 0
    write_setting(config, "index.quiet", False)
    assert [rested(watching), rested(awaited)] == [0, 0]
    config.path.write_text("[index\n")
    assert rested(watching) == 0, "half a file changes nothing"
