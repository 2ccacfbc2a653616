"""The folder of states: what is found, what goes first, and what damage, crowds and full disks do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gritdesk.engine.states import StateStore, clear_states, state_use

SIZE = 10_000
PLENTY = 10**9


def state_of(number: int, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)


def ids_of(number: int) -> list[int]:
    return [1, number, 7]


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def test_state_is_found_as_it_was_kept_and_by_other_processes(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "states", PLENTY, "model")
    for number in range(3):
        store.keep(ids_of(number), state_of(number, SIZE + number))
    again = StateStore(tmp_path / "states", PLENTY, "model")
    for number in range(3):
        found = again.find(ids_of(number))
        assert found is not None and ids_of(number) in again
        np.testing.assert_array_equal(found, state_of(number, SIZE + number))
    assert again.find([1, 2]) is None and [1, 2] not in again


def test_state_of_other_ids_or_another_fingerprint_is_not_found(tmp_path: Path) -> None:
    StateStore(tmp_path, PLENTY, "model/f16").keep([1, 2, 3], state_of(0))
    assert StateStore(tmp_path, PLENTY, "model/q8_0").find([1, 2, 3]) is None
    for ids in ([1, 2], [1, 2, 3, 0], [3, 2, 1], []):
        assert StateStore(tmp_path, PLENTY, "model/f16").find(ids) is None


def test_longest_unused_goes_first_and_the_limit_is_kept(tmp_path: Path) -> None:
    store = StateStore(tmp_path, 3 * (SIZE + 100), "model")
    for number in range(3):
        store.keep(ids_of(number), state_of(number))
        file = max(files_of(tmp_path), key=lambda each: each.stat().st_mtime_ns)
        os.utime(file, (1000 + number, 1000 + number))
    assert store.find(ids_of(0)) is not None, "used now, so the second is the one unused for longest"
    store.keep(ids_of(3), state_of(3))
    assert [ids_of(number) in store for number in range(4)] == [True, False, True, True]
    assert state_use(tmp_path).size_bytes <= 3 * (SIZE + 100)
    assert not store.is_full_for(100 - 40 * 3) and store.is_full_for(SIZE)


def test_state_larger_than_the_limit_is_not_kept_and_removes_nothing(tmp_path: Path) -> None:
    store = StateStore(tmp_path, SIZE + 100, "model")
    store.keep(ids_of(0), state_of(0))
    store.keep(ids_of(1), state_of(1, 2 * SIZE))
    assert ids_of(0) in store and ids_of(1) not in store


def test_any_flipped_byte_is_noticed_and_the_file_is_removed(tmp_path: Path) -> None:
    store = StateStore(tmp_path, PLENTY, "model")
    for at in (0, 9, 30, 40, 41, 5000, SIZE, SIZE + 39):
        store.keep(ids_of(0), state_of(0))
        (file,) = files_of(tmp_path)
        data = bytearray(file.read_bytes())
        data[at] ^= 0x10
        file.write_bytes(data)
        assert store.find(ids_of(0)) is None and not file.exists(), at


@pytest.mark.parametrize("left", [0, 7, 39, 40, 41, SIZE])
def test_cut_file_is_noticed(tmp_path: Path, left: int) -> None:
    store = StateStore(tmp_path, PLENTY, "model")
    store.keep(ids_of(0), state_of(0))
    (file,) = files_of(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    assert store.find(ids_of(0)) is None
    store.keep(ids_of(0), state_of(0))
    np.testing.assert_array_equal(store.find(ids_of(0)), state_of(0))


def test_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "states"
    folder.write_text("a file in its place")
    told: list[str] = []
    store = StateStore(folder, PLENTY, "model", told.append)
    for number in range(3):
        assert store.find(ids_of(number)) is None
        store.keep(ids_of(number), state_of(number))
    assert len(told) == 1 and str(folder) in told[0] and "answers come all the same" in told[0]
    assert (state_use(folder).num_states, clear_states(tmp_path / "nowhere").num_states) == (0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit on a process's files")
def test_full_disk_leaves_no_half_file_and_is_told_once(tmp_path: Path) -> None:
    """A limit that the system sets on a file's size fails a write in its middle, as a full disk does."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        from gritdesk.engine.states import StateStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        told = []
        store = StateStore(Path(sys.argv[1]), 10**9, "model", told.append)
        store.keep([1], np.ones(10_000, np.uint8))
        store.keep([2], np.ones(90_000, np.uint8))
        store.keep([3], np.ones(90_000, np.uint8))
        assert store.find([1]) is not None and store.find([2]) is None
        print(len(told), told[0])
    """
    told = run(script, tmp_path)
    assert told.startswith("1 ") and "File too large" in told
    assert [file.suffix for file in tmp_path.iterdir() if file.name != "uses"] == [".state"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_kill_while_writing_leaves_nothing_that_is_taken_for_a_state(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from gritdesk.engine.states import StateStore
        store = StateStore(Path(sys.argv[1]), 10**9, "model")
        print("ready", flush=True)
        for number in range(10**6):
            store.keep([number], np.full(2_000_000, number % 251, np.uint8))
    """
    for round_number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        while len(files_of(tmp_path)) < 3 * (round_number + 1):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = StateStore(tmp_path, PLENTY, "model")
    num_found = 0
    for number in range(len(files_of(tmp_path)) + 2):
        found = store.find([number])
        assert found is None or (len(found) == 2_000_000 and (found == number % 251).all())
        num_found += found is not None
    assert num_found == len(files_of(tmp_path)) > 0, "what has a state's name is one"


def test_what_a_killed_process_left_unfinished_is_swept(tmp_path: Path) -> None:
    store = StateStore(tmp_path, PLENTY, "model")
    store.keep(ids_of(0), state_of(0))
    old, new = tmp_path / "aa.1.unfinished", tmp_path / "bb.2.unfinished"
    for file in (old, new):
        file.write_bytes(bytes(100))
    os.utime(old, (1000, 1000))
    store.keep(ids_of(1), state_of(1))
    assert not old.exists() and new.exists(), "another process may be writing it"
    assert ids_of(0) in store


def test_two_processes_at_once_lose_and_mix_nothing(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from gritdesk.engine.states import StateStore
        store = StateStore(Path(sys.argv[1]), 400_000, "model")
        for round_number in range(300):
            number = round_number * 7 % 20
            found = store.find([number])
            if found is None:
                store.keep([number], np.full(40_000, number, np.uint8))
            else:
                assert len(found) == 40_000 and (found == number).all()
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    processes = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    use = state_use(tmp_path)
    assert use.num_asked == 900 and use.size_bytes <= 400_000 + 2 * 40_100, "each may write one that others do not see"


def test_uses_are_counted_and_cleared_with_the_states(tmp_path: Path) -> None:
    store = StateStore(tmp_path, PLENTY, "model")
    store.keep(ids_of(0), state_of(0))
    assert state_use(tmp_path).hit_rate is None
    for number in (0, 0, 0, 1):
        store.find(ids_of(number))
    assert state_use(tmp_path).hit_rate == 0.75
    (tmp_path / "uses").write_bytes(b"-" * 49_999)
    store.find(ids_of(0))
    store.find(ids_of(0))
    use = state_use(tmp_path)
    assert (use.num_found, use.num_asked) == (2, 10_000) and (tmp_path / "uses").stat().st_size == 10_000
    assert clear_states(tmp_path).num_states == 1
    assert list(tmp_path.iterdir()) == [] and state_use(tmp_path).hit_rate is None


def run(script: str, folder: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
