"""kill -9 of `fsmount backup` at random moments, beside a mount that rsync writes to.

What is in the folder of the backup restores to the last complete backup each time.
FSMOUNT_KILLS sets the number of kills (default 5), FSMOUNT_SEED their moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.store import store as store_module
from fsmount.store.layout import Layout
from tests.e2e.mounts import KEEP_BYTES, SEAL_BYTES, Mount, missing
from tests.support.backups import faults, shown
from tests.support.encoding import Inline
from tests.support.frames import png, screens

KILLS = int(os.environ.get("FSMOUNT_KILLS", "5"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))
pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed"),
]


class Traffic:
    """Makes files in a folder and brings them into a mount with rsync, until it is stopped.

    made : bytes of each file by name.
    arrived : names of the files that rsync has brought in.
    going : cleared while the thread is to rest.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.made: dict[bytes, bytes] = {}
        self.arrived: set[bytes] = set()
        self._source, self._target = source, target
        source.mkdir()
        self._stopped = threading.Event()
        self.going = threading.Event()
        self.going.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for turn in range(10_000):
            self.going.wait()
            if self._stopped.is_set():
                return
            for number, frame in enumerate(screens(5, seed=turn)):
                self._make(f"{turn:04d} {number}.png", png(frame, level=1))
            self._make(f"{turn:04d} large", random.Random(turn).randbytes(30_000))
            subprocess.run(["rsync", "-a", f"{self._source}/", self._target], check=True)
            self.arrived |= self.made.keys()

    def _make(self, name: str, data: bytes) -> None:
        self.made[os.fsencode(name)] = data
        (self._source / name).write_bytes(data)

    def stop(self) -> None:
        self._stopped.set()
        self.going.set()
        self._thread.join()


@pytest.fixture(name="mount")
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """A mount with small packs, which repacks when it is idle."""
    monkeypatch.setenv(SEAL_BYTES, "60000")
    monkeypatch.setenv(KEEP_BYTES, "20000")
    monkeypatch.setattr(store_module, "Workers", Inline)
    made = Mount(tmp_path, "repack=1")
    made.start()
    yield made
    made.clean()


def backup(mount: Mount, dest: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fsmount", "backup", str(mount.path), str(dest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def restored(dest: Path, copy: Path, traffic: Traffic, least: set[bytes]) -> None:
    """Restore a backup with cp, and compare it. It has at least the files `least`."""
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-a", dest, copy], check=True)
    assert faults(copy) == []
    found = {path: data for path, data in shown(copy).items() if not path.startswith(b".")}
    assert least <= found.keys()
    # While rsync writes a file it has another name, which begins with a dot.
    assert found == {path: traffic.made[path] for path in found}


def test_kills_of_a_backup(mount: Mount, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    dest, copy = tmp_path / "backup", tmp_path / "copy"
    traffic = Traffic(tmp_path / "in", mount.path)
    least: set[bytes] = set()
    killed, complete, longest = 0, 0, 1.0
    try:
        while killed < KILLS or not complete:
            before = set(traffic.arrived)
            traffic.going.set()
            start = time.monotonic()
            running = backup(mount, dest)
            try:
                # Every third backup may end by itself.
                out, _ = running.communicate(timeout=chance.uniform(0.2, 1.2 * longest)
                                             if (killed + complete) % 3 else 60)  # fmt: skip
                assert running.returncode == 0, out
                least, complete = before, complete + 1
                longest = time.monotonic() - start
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.communicate()
                killed += 1
            traffic.going.clear()
            if Layout(dest).config.exists():
                restored(dest, copy, traffic, least)
            else:
                assert not complete
    finally:
        traffic.stop()
    assert least
    last = backup(mount, dest)
    assert last.communicate()[0]
    assert last.returncode == 0
    restored(dest, copy, traffic, set(traffic.made))
    mount.stop()
