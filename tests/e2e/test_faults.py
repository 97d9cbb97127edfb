"""Faults under a real mount: killed workers and a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.measure import descendants
from tests.e2e.mounts import Mount, missing
from tests.support.paths import DATA

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

FRAMES = sorted((DATA / "desk").glob("*.png"))


def kinds(mount: Mount, names: list[str]) -> set[bytes]:
    return {os.getxattr(mount.path / name, "user.fsmount.kind") for name in names}


def workers(mount: Mount) -> list[int]:
    """All current worker processes, and their template."""
    return descendants(mount.pid)


def kill_workers(mount: Mount) -> int:
    """Kill all current worker processes and their template. Returns their number."""
    found = workers(mount)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def test_killed_workers_cost_no_file(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    mount.start()
    try:
        killed = 0
        for frame in FRAMES:
            (mount.path / frame.name).write_bytes(frame.read_bytes())
        end = time.monotonic() + 60
        while int(os.getxattr(mount.path, "user.fsmount.staged")):
            assert time.monotonic() < end
            killed += kill_workers(mount) if killed < 12 else 0
            time.sleep(0.15)
        assert killed
        names = [frame.name for frame in FRAMES]
        assert kinds(mount, names) <= {b"key", b"delta", b"raw"}
        for frame in FRAMES:
            assert (mount.path / frame.name).read_bytes() == frame.read_bytes()
        mount.stop()
        mount.start()
        kill_workers(mount)
        for frame in FRAMES:
            assert (mount.path / frame.name).read_bytes() == frame.read_bytes()
            kill_workers(mount)
        mount.stop()
    finally:
        mount.clean()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a filesystem of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    mount = Mount(small_disk)
    mount.start()
    written: dict[str, bytes] = {}
    refused = 0
    try:
        for number in range(40):
            data = os.urandom(400_000)
            name = f"{number}.bin"
            try:
                fd = os.open(mount.path / name, os.O_WRONLY | os.O_CREAT)
                try:
                    os.write(fd, data)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                written[name] = data
            except OSError as error:
                assert error.errno == errno.ENOSPC
                refused += 1
        assert refused
        assert len(written) > 5
        for name, data in written.items():
            assert (mount.path / name).read_bytes() == data
        # On a full disk files can be deleted. Afterwards files can be written.
        for name in [path.name for path in mount.path.iterdir()][len(written) // 2 :]:
            (mount.path / name).unlink()
            written.pop(name, None)
        mount.stop()
        mount.start()
        (mount.path / "small.txt").write_bytes(b"fits")
        written["small.txt"] = b"fits"
        mount.stop()
        mount.start()
        for name, data in written.items():
            assert (mount.path / name).read_bytes() == data
        mount.stop()
    finally:
        mount.clean()


def staged(mount: Mount) -> int:
    return int(os.getxattr(mount.path, "user.fsmount.staged"))


def test_what_is_deleted_from_a_full_disk_makes_room_for_more(small_disk: Path) -> None:
    """The space is free at once, although most files are encoded, and also after a crash."""
    chance = random.Random(2)
    mount = Mount(small_disk)
    mount.start()
    written: dict[str, bytes] = {}

    def write(name: str, size: int) -> None:
        data = chance.randbytes(size)
        (mount.path / name).write_bytes(data)
        written[name] = data

    try:
        for turn in range(3):
            numbers = iter(range(2000))
            # While files wait to be encoded the disk holds two copies, so it is full too early.
            for _ in range(3):
                with contextlib.suppress(OSError):
                    for number in numbers:
                        write(f"{turn}.{number}.bin", chance.randrange(1000, 40_000))
                        while staged(mount) > 10:
                            time.sleep(0.01)
                until = time.monotonic() + 3
                while staged(mount) and time.monotonic() < until:
                    time.sleep(0.01)
            for path in list(mount.path.iterdir()):
                if path.name not in written:
                    path.unlink()
            assert staged(mount) < len(written) // 4
            gone = 0
            for name in list(written)[::2]:
                (mount.path / name).unlink()
                gone += len(written.pop(name))
            assert gone > 1 << 20
            # The space is free at once. What waits to be encoded takes twice its size, and holes
            # are made in whole blocks, so the rest is written when nothing waits any more.
            write(f"{turn}.large.bin", gone // 4)
            until = time.monotonic() + 60
            while staged(mount):
                assert time.monotonic() < until, "there is room for what waits"
                time.sleep(0.01)
            for number in range(10):
                write(f"{turn}.again.{number}.bin", gone // 40)
            if turn == 1:
                mount.crash()
                mount.clear()
                mount.start()
            if turn == 2:
                mount.stop()
                mount.start()
            for name, data in written.items():
                assert (mount.path / name).read_bytes() == data
        mount.stop()
        command = [sys.executable, "-m", "fsmount", "check", "--full", str(mount.store)]
        subprocess.run(command, check=True)
    finally:
        mount.clean()


def test_a_disk_that_is_filled_again_and_again_lets_files_be_deleted(small_disk: Path) -> None:
    chance = random.Random(1)
    mount = Mount(small_disk)
    mount.start()
    written: dict[str, bytes] = {}
    try:
        for turn in range(8):
            with contextlib.suppress(OSError):
                for number in range(2000):
                    name, data = f"{turn}.{number}.bin", chance.randbytes(chance.randrange(9000))
                    with (mount.path / name).open("wb", buffering=0) as file:
                        file.write(data)
                    written[name] = data
            for path in list(mount.path.iterdir())[::2]:
                path.unlink()
                written.pop(path.name, None)
            if turn % 4 == 3:
                mount.crash()
                mount.clear()
                mount.start()
        for name, data in written.items():
            assert (mount.path / name).read_bytes() == data
        mount.stop()
    finally:
        mount.clean()
