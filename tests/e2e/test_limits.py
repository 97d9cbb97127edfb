"""Limits of the system: descriptors, names, entries, times."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest

from fsmount.store.index import ROOT
from fsmount.store.store import open_store
from tests.e2e.mounts import Mount, missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def test_out_of_descriptors(mount: Mount) -> None:
    """An open beyond the limit fails. Other files stay usable, and later calls succeed."""
    limit = len(list(Path(f"/proc/{mount.pid}/fd").iterdir())) + 20
    resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (limit, limit))
    opened: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            for number in range(100):
                opened.append(os.open(mount.path / str(number), os.O_RDWR | os.O_CREAT))
        assert raised.value.errno in (errno.EMFILE, errno.ENFILE)
        assert len(opened) > 5
        for number, fd in enumerate(opened):
            assert os.write(fd, b"%d" % number)
    finally:
        for fd in opened:
            os.close(fd)
    for number in range(len(opened)):
        assert (mount.path / str(number)).read_bytes() == b"%d" % number
    mount.stop()
    mount.start()
    for number in range(len(opened)):
        assert (mount.path / str(number)).read_bytes() == b"%d" % number
    mount.stop(drain=True)


def test_a_hundred_thousand_entries(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    count = 100_000
    store = open_store(mount.store)
    with store.index.transaction():
        folder = store.index.create(ROOT, b"many", mode=0o40755, uid=0, gid=0, now_ns=0)
        for number in range(count):
            store.index.create(
                folder.ino, b"%06d" % number, mode=0o120777, uid=0, gid=0, now_ns=0, target=b"x"
            )
    store.close()
    mount.start()
    try:
        found = os.listdir(mount.path / "many")
        assert len(found) == count == len(set(found))
        assert (
            subprocess.run(
                ["find", mount.path / "many", "-type", "l", "-name", "09999?"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.count("\n")
            == 10
        )
        for name in found[::1000]:
            (mount.path / "many" / name).unlink()
        assert len(os.listdir(mount.path / "many")) == count - count // 1000
        mount.stop()
    finally:
        mount.clean()


def test_times_before_1970_and_after_2038(mount: Mount) -> None:
    times = [-1, -(10**18) - 1, 2**31 * 10**9 + 7, 2**32 * 10**9 + 123_456_789, 0]
    for number, ns in enumerate(times):
        path = mount.path / str(number)
        path.write_bytes(b"x")
        os.utime(path, ns=(ns, ns))
        assert path.stat().st_mtime_ns == path.stat().st_atime_ns == ns
    mount.stop(drain=True)
    mount.start()
    for number, ns in enumerate(times):
        assert (mount.path / str(number)).stat().st_mtime_ns == ns
    mount.stop()


def test_names(mount: Mount) -> None:
    top = os.fsencode(mount.path)
    names = [b"n" * 255, b"\xff\xfe\x80", "ü".encode() * 127, b" ", b"-rf", b"a\nb", b"%s\\"]
    for name in names:
        Path(os.fsdecode(top + b"/" + name)).write_bytes(name)
    with pytest.raises(OSError, match="too long"):
        Path(os.fsdecode(top + b"/" + b"n" * 256)).write_bytes(b"")
    mount.stop(drain=True)
    mount.start()
    assert sorted(os.listdir(top)) == sorted(names)
    for name in names:
        assert Path(os.fsdecode(top + b"/" + name)).read_bytes() == name
    mount.stop()
