"""What is drawn reaches the terminal whole, however slow it is and whatever it signals meanwhile."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time

import pytest

fcntl, pty, termios = (pytest.importorskip(each) for each in ("fcntl", "pty", "termios"))

NUM_LINES = 500_000
WRITER = f"""
import signal, sys, threading, tty
from gritdesk.tui.whole_writes import write_whole
signal.signal(signal.SIGWINCH, lambda *_: None)
tty.setraw(0)
write_whole()
def draw():
    for first in range(0, {NUM_LINES}, 500):
        sys.__stderr__.write("".join(f"{{number:06d}}\\n" for number in range(first, first + 500)))
        sys.__stderr__.flush()
drawing = threading.Thread(target=draw)
drawing.start()
while drawing.is_alive():
    drawing.join(0.05)
"""


def test_a_slow_terminal_that_is_resized_gets_every_byte() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    got = b""
    num_reads = 0
    try:
        while select.select([ours], [], [], 0.5)[0] or child.poll() is None:
            if not select.select([ours], [], [], 0)[0]:
                continue
            got += os.read(ours, 1 << 16)
            num_reads += 1
            if num_reads % 20 == 0:  # the writer waits for room by now, in the middle of a write
                time.sleep(0.01)
                size = struct.pack("HHHH", 30, 100 + num_reads // 20 % 2, 0, 0)
                fcntl.ioctl(ours, termios.TIOCSWINSZ, size)
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGWINCH)
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)
    assert child.returncode == 0
    assert got == b"".join(b"%06d\n" % number for number in range(NUM_LINES))
