"""A real mount on a disk that hangs: only calls that need the disk wait."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e import mounts, slow_disk
from tests.e2e.mounts import Mount, missing
from tests.support.calls import raises

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

HANG_SECONDS = 4.0
OPERATIONS = 600
P99_SECONDS = 0.02
_AT_FDCWD, _FORCE_SYNC, _BASIC = -100, 0x2000, 0x7FF
_libc = ctypes.CDLL(None, use_errno=True)
_noise = random.Random(3)
LARGE = _noise.randbytes(3 << 20)
NOTES = {f"{number}.txt": _noise.randbytes(5000) for number in range(40)}


def getattr_now(path: Path) -> None:
    """A stat(2) that the kernel cannot answer by itself."""
    found = ctypes.create_string_buffer(256)
    code = _libc.statx(_AT_FDCWD, os.fsencode(path), _FORCE_SYNC, _BASIC, found)
    assert code == 0, os.strerror(ctypes.get_errno())


def lookup_now(path: Path) -> None:
    """A lookup that the kernel cannot answer by itself: it does not remember missing names."""
    assert not os.path.lexists(path.with_name(path.name + ".missing"))


def list_now(path: Path) -> None:
    assert path.name in os.listdir(path.parent)


def times(folder: Path, count: int) -> list[float]:
    """The durations of single calls for files of a folder, sorted, in seconds."""
    start = time.perf_counter()
    files = sorted(folder.iterdir())
    took = [time.perf_counter() - start]
    calls = [getattr_now, lookup_now, list_now]
    for number in range(count):
        start = time.perf_counter()
        calls[number % 3](files[number // 3 % len(files)])
        took.append(time.perf_counter() - start)
    return sorted(took)


def p99(took: list[float]) -> float:
    return took[len(took) * 99 // 100]


class Programs:
    """Programs that use the disk, each in a thread of its own, with their errors and durations."""

    def __init__(self) -> None:
        self._running: list[threading.Thread] = []
        self.wrong: list[str] = []
        self.took: dict[str, float] = {}

    def start(self, name: str, work: Callable[[], object]) -> None:
        def run() -> None:
            start = time.monotonic()
            try:
                work()
            except Exception as error:
                self.wrong.append(f"{name}: {error!r}")
            self.took[name] = time.monotonic() - start

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._running.append(thread)

    def wait(self) -> None:
        for thread in self._running:
            thread.join(60)
            assert not thread.is_alive(), thread.name
        assert self.wrong == []


def same(path: Path, data: bytes) -> None:
    assert path.read_bytes() == data


@contextmanager
def mounted(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[Mount]:
    monkeypatch.setenv(slow_disk.HANG, str(folder / "hang"))
    monkeypatch.setenv(slow_disk.BELOW, str(folder / "store"))
    monkeypatch.setenv(mounts.KEEP_BYTES, str(1 << 20))
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    mount = Mount(folder)
    mount.start()
    try:
        yield mount
    finally:
        (folder / "hang").unlink(missing_ok=True)
        mount.clean()


@contextmanager
def hanging(folder: Path, what: str) -> Iterator[None]:
    """The disk hangs for HANG_SECONDS. The block ends no earlier than the hang."""
    control = folder / "hang"
    control.with_name("hang.new").write_text(what)
    control.with_name("hang.new").rename(control)
    timer = threading.Timer(HANG_SECONDS, lambda: control.unlink(missing_ok=True))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def fill(mount: Mount) -> None:
    """Make files of all kinds in busy/ and in quiet/, and wait until they are encoded."""
    for name in ("busy", "quiet"):
        (mount.path / name).mkdir()
        for note, data in NOTES.items():
            (mount.path / name / note).write_bytes(data)
    (mount.path / "busy" / "large").write_bytes(LARGE)
    settle(mount)


def settle(mount: Mount) -> None:
    end = time.monotonic() + 120
    while int(os.getxattr(mount.path, "user.fsmount.staged")):
        assert time.monotonic() < end
        time.sleep(0.05)


def statvfs(path: Path) -> None:
    assert os.statvfs(path).f_blocks


def test_a_disk_that_hangs_stops_only_those_who_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path, monkeypatch) as mount:
        fill(mount)
        mount.stop()
        # The caches of the kernel and of fsmount are empty.
        mount.start()
        busy, quiet = mount.path / "busy", mount.path / "quiet"
        before = p99(times(quiet, OPERATIONS))
        fd = os.open(busy / "open", os.O_RDWR | os.O_CREAT)
        programs = Programs()
        with hanging(tmp_path, "staging packs raw reserve ."):
            programs.start("large file", lambda: same(busy / "large", LARGE))
            programs.start("entry of a pack", lambda: same(busy / "1.txt", NOTES["1.txt"]))
            programs.start("write", lambda: os.pwrite(fd, b"x" * 300_000, 0))
            programs.start("new file", lambda: (busy / "new").write_bytes(b"new"))
            programs.start("free space", lambda: statvfs(mount.path))
            for number in range(20, 40):
                name = f"{number}.txt"
                programs.start(name, lambda name=name: same(busy / name, NOTES[name]))  # type: ignore[misc]
            time.sleep(0.5)
            took = times(quiet, OPERATIONS)
            assert (tmp_path / "hang").exists(), "the calls were no faster than the disk"
        programs.wait()
        os.fsync(fd)
        os.close(fd)
        waited = [name for name, seconds in programs.took.items() if seconds > HANG_SECONDS / 2]
        assert {"large file", "entry of a pack", "write", "new file", "free space"} <= {*waited}
        limit = max(P99_SECONDS, 3 * before)
        text = f"p99 {1000 * p99(took):.1f} ms, longest {1000 * took[-1]:.1f} ms"
        assert p99(took) < limit, text
        assert took[-1] < 1.0, text
        settle(mount)
        same(busy / "new", b"new")
        same(busy / "open", b"x" * 300_000)
        mount.stop()


def test_what_hangs_is_seen_by_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without threads the mount answers nothing until the disk continues."""
    with mounted(tmp_path, monkeypatch, **{slow_disk.NO_THREADS: "1"}) as mount:
        fill(mount)
        mount.stop()
        mount.start()
        programs = Programs()
        with hanging(tmp_path, "raw"):
            programs.start("large", lambda: same(mount.path / "busy" / "large", LARGE))
            took = []
            while (tmp_path / "hang").exists():
                took += times(mount.path / "quiet", 3)
        programs.wait()
        assert max(took) > HANG_SECONDS / 2
        mount.stop()


def test_a_mount_that_only_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted(tmp_path, monkeypatch) as mount:
        fill(mount)
        mount.stop()
        mount.options = "ro"
        mount.start()
        busy, quiet = mount.path / "busy", mount.path / "quiet"
        before = p99(times(quiet, OPERATIONS))
        programs = Programs()
        with hanging(tmp_path, "staging packs raw ."):
            programs.start("large file", lambda: same(busy / "large", LARGE))
            programs.start("entry of a pack", lambda: same(busy / "1.txt", NOTES["1.txt"]))
            programs.start("free space", lambda: statvfs(mount.path))
            time.sleep(0.5)
            took = times(quiet, OPERATIONS)
            assert (tmp_path / "hang").exists(), "the calls were no faster than the disk"
        programs.wait()
        assert min(programs.took.values()) > HANG_SECONDS / 2
        assert p99(took) < max(P99_SECONDS, 3 * before), f"p99 {1000 * p99(took):.1f} ms"
        with suppress(OSError):
            mount.stop()


def read_all(reader: int) -> str:
    """All that is in a FIFO until nobody writes to it."""
    os.set_blocking(reader, True)
    with open(reader, "rb", closefd=False) as file:
        return file.read().decode()


@pytest.mark.parametrize("taken", [True, False])
def test_a_log_that_nobody_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """A log on a disk that hangs is like a pipe that is full."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with mounted(tmp_path, monkeypatch) as mount:
        fill(mount)
        mount.stop()
        for pack in (mount.store / "packs").glob("*.zip"):
            pack.write_bytes(bytes(pack.stat().st_size))
        monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "fifo"))
        mount.start()
        for name in NOTES:
            for folder in ("busy", "quiet"):
                with raises(errno.EIO):
                    (mount.path / folder / name).read_bytes()
        took = times(mount.path / "quiet", OPERATIONS)
        assert p99(took) < P99_SECONDS * 5, f"p99 {1000 * p99(took):.1f} ms"
        assert took[-1] < 1.0
        (mount.path / "new").write_bytes(b"new")
        assert (mount.path / "new").read_bytes() == b"new"
        if taken:
            programs = Programs()
            text: list[str] = []
            programs.start("reader", lambda: text.append(read_all(reader)))
        mount.stop()
        if taken:
            programs.wait()
            assert text[0].count(" ERROR fsmount.mount.fuse: ") >= 2 * len(NOTES)
            assert text[0].endswith(f"{mount.path} is unmounted\n")
    os.close(reader)
