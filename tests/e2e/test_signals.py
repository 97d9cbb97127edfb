"""Signals to a process that serves a mount, and to its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from fsmount.work.worker_process import IGNORED
from tests.e2e.commands import Server, well
from tests.e2e.mounts import missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def test_all_that_would_kill_and_mean_nothing_here_are_named() -> None:
    """IGNORED lacks only signals that end a mount, faults, and harmless ones as of job control."""
    meant = {"HUP", "INT", "QUIT", "TERM", "XCPU"}
    meant |= {"ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "SYS", "KILL"}
    harmless = {"CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH"}
    named = {signal.Signals[f"SIG{name}"] for name in meant | harmless}
    assert set(IGNORED) == signal.valid_signals() - named


def test_they_do_nothing(root: Path, place: Path) -> None:
    well("mount", root, place)
    server = Server(place)
    pictures = [png(frame) for frame in screens(3)]
    for at, picture in enumerate(pictures):
        (place / f"{at}.png").write_bytes(picture)
        for number in IGNORED:
            os.kill(server.pid, number)
            for worker in server._workers():
                os.kill(worker, number)
    # Signals that are sent to a process group.
    for number in IGNORED:
        os.killpg(os.getpgid(server.pid), number)
    assert [(place / f"{at}.png").read_bytes() for at in range(3)] == pictures
    well("umount", place)
    assert server.ended(0)
    well("check", root, "--full")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_a_process_group_is_told_to_end(root: Path, place: Path, number: signal.Signals) -> None:
    well("mount", root, place)
    server = Server(place)
    (place / "a.png").write_bytes(png(screens(1)[0]))
    os.killpg(os.getpgid(server.pid), number)
    assert server.ended(60)
    assert mounted_at(place) is None
    well("check", root, "--full")


def test_nohup(root: Path, place: Path) -> None:
    """A mount in the foreground continues when its terminal is closed."""
    command = [sys.executable, "-m", "fsmount", "mount", "-f", str(root), str(place)]
    with subprocess.Popen(["nohup", *command], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while not run.stderr.readline().endswith("is mounted\n"):
            assert run.poll() is None
        run.send_signal(signal.SIGHUP)
        (place / "a").write_bytes(b"x")
        well("umount", place)
        assert run.wait(60) == 0
