"""A mount that ends while the kernel still has changed pages, on a disk that hangs."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import slow_disk
from tests.e2e.mounts import Mount, missing
from tests.support.calls import raises

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

CHANGED = b"x" * (64 * mmap.PAGESIZE)


@pytest.fixture(name="hung")
def mount_on_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """A mount with a mapped file whose changed pages the disk does not take."""
    monkeypatch.setenv(slow_disk.HANG, str(tmp_path / "hang"))
    monkeypatch.setenv(slow_disk.BELOW, str(tmp_path / "store"))
    mount = Mount(tmp_path)
    mount.start()
    (mount.path / "a.bin").write_bytes(bytes(len(CHANGED)))
    fd = os.open(mount.path / "a.bin", os.O_RDWR)
    mapped = mmap.mmap(fd, 0)
    (tmp_path / "hang.new").write_text("staging")
    (tmp_path / "hang.new").rename(tmp_path / "hang")
    mapped[:] = CHANGED
    yield mount
    (tmp_path / "hang").unlink(missing_ok=True)
    mapped.close()
    # The server may have been killed.
    with suppress(OSError):
        os.close(fd)
    mount.clean()


def children(pid: int, name: str) -> list[int]:
    """The child processes of a process that have this name."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            if Path(f"/proc/{child}/comm").read_text() == f"{name}\n":
                found.append(child)
    return found


def wait_for_sync(server: int) -> int:
    """Wait until the server has started sync(1), and sync waits. Returns a pidfd of sync."""
    end = time.monotonic() + 20
    while not (found := children(server, "sync")):
        assert time.monotonic() < end
        time.sleep(0.01)
    sync = os.pidfd_open(found[0])
    assert not has_ended(sync, 0.5)
    return sync


def has_ended(process: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends within this time."""
    return bool(select.select([process], [], [], seconds)[0])


def test_it_can_be_killed_while_it_waits(hung: Mount) -> None:
    """The server has no thread that waits for its own mount. It would keep /dev/fuse open, so that
    the kernel would not end the process.
    """
    server = os.pidfd_open(hung.pid)
    os.kill(hung.pid, signal.SIGTERM)
    sync = wait_for_sync(hung.pid)
    os.kill(hung.pid, signal.SIGKILL)
    assert has_ended(server, 10)
    assert has_ended(sync, 10)
    hung.signal(signal.SIGKILL)
    with raises(errno.ENOTCONN):
        os.statvfs(hung.path)
    os.close(server)
    os.close(sync)


def test_it_ends_well_when_the_disk_answers(hung: Mount) -> None:
    os.kill(hung.pid, signal.SIGTERM)
    sync = wait_for_sync(hung.pid)
    (hung.path.parent / "hang").unlink()
    assert has_ended(sync, 20)
    # The test has the file open, so the folder stays mounted for the test alone.
    assert hung.signal(signal.SIGTERM) == 0
    hung.start()
    assert (hung.path / "a.bin").read_bytes() == CHANGED
    hung.stop()
    os.close(sync)
