"""The write lock: flock(2), and the lock file, which names a holder that flock does not show."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fsmount.errors import LockUnclear, StoreLocked
from fsmount.store import lock as lock_module
from fsmount.store.lock import Holder, HolderState, Lock

_HOLDER = """
import sys, pathlib
from fsmount.store.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Start a process that holds a lock, and kill it at the end."""
    command: list[str | Path] = [sys.executable, "-c", _HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a path that does not pass flock on: every caller gets the lock."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Replace sleep: each call runs the next function of this list instead, once."""
    todo: list[Callable[[], object]] = []

    def sleep(_: float) -> None:
        if todo:
            todo.pop(0)()

    monkeypatch.setattr(lock_module, "_sleep", sleep)
    return todo


def someone(path: Path, **fields: object) -> Holder:
    """A holder like this process except for `fields`, as the file at `path` names it."""
    lock = Lock(path)
    found = lock_module._parse(path.read_bytes())
    assert found is not None
    lock.release()
    # Simulate another path: the inode is not the one that this process sees.
    found = replace(found, **{"inode": found.inode + 1, "token": "other"} | fields)  # type: ignore[arg-type]
    path.write_bytes(found.line())
    return found


def take(path: Path, *, force: bool = False) -> bool:
    """Take a lock and release it. Returns whether it was taken on a guess."""
    lock = Lock(path, force=force)
    assert lock.is_ours()
    lock.release()
    return lock.unproved


def test_one_process_holds_the_lock(path: Path) -> None:
    with held(path) as pid, pytest.raises(StoreLocked, match=rf"\(process {pid}\)"):
        Lock(path)
    lock = Lock(path)
    named = lock_module._parse(path.read_bytes())
    assert named is not None
    assert (named.pid, named.inode) == (os.getpid(), path.stat().st_ino)
    assert abs(named.beat / 1000 - time.time()) < 3600
    for force in (False, True):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Lock(path, force=force)
    lock.release()
    assert path.read_bytes() == b"", "another host can take it at once"
    assert not take(path)


def test_a_process_that_reached_it_by_another_path_is_seen(path: Path, unshared: None) -> None:
    with held(path) as pid, pytest.raises(StoreLocked, match=f"process {pid}, .*another path"):
        Lock(path)
    assert not take(path), "it was killed, and is known to be gone"


def test_it_waits_for_a_process_that_ends(
    path: Path, unshared: None, slept: list[Callable[[], object]]
) -> None:
    first = Lock(path)
    slept.append(first.release)
    second = Lock(path, wait_s=60)
    assert second.is_ours()
    assert not second.unproved


def test_another_process_with_the_same_number(path: Path) -> None:
    someone(path, started=1)
    assert not take(path)


def test_a_process_that_waits_to_be_reaped_is_gone(path: Path, unshared: None) -> None:
    child = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(5)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not take(path)
    child.stdout.close()
    child.wait()


def test_a_hidden_process_is_not_taken_for_one_that_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[Callable[[], object]]
) -> None:
    someone(path)
    stat = lock_module._stat
    asked: list[int] = []

    def hidden(pid: int) -> list[bytes]:
        # The first question is about this process itself.
        asked.append(pid)
        if len(asked) > 1:
            raise FileNotFoundError
        return stat(pid)

    monkeypatch.setattr(lock_module, "_stat", hidden)
    with pytest.raises(LockUnclear):
        Lock(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "elsewhere", "boot": "another"},
        {"namespace": "pid:[1]"},
        {"namespace": "pid:[1]", "host": "a container"},
        {"host": "elsewhere", "boot": ""},
    ],
)
class TestNobodyKnows:
    """Holders about which this process can find out nothing."""

    def test_it_is_named(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        holder = someone(path, **fields, beat=1_700_000_000_000)
        before = path.read_bytes()
        slept.append(lambda: pytest.fail("a beat of long ago needs no look"))
        with pytest.raises(LockUnclear) as caught:
            Lock(path)
        assert caught.value.exit_code == 11
        told = str(caught.value)
        assert f"{path.parent} was not closed by {holder}, last alive at 2023-11-1" in told
        assert "--force-lock" in told
        assert path.read_bytes() == before

    def test_one_that_beats_is_in_use(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        holder = someone(path, **fields)
        slept += [
            lambda: None,
            lambda: path.write_bytes(replace(holder, beat=holder.beat + 1).line()),
        ]
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Lock(path)

    def test_force_takes_one_that_has_stopped(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        someone(path, **fields)
        assert take(path, force=True), "that is a guess"
        assert not take(path)

    def test_force_does_not_take_one_that_beats(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        # The clock of the holder may show any time.
        holder = someone(path, **fields, beat=5)
        beat = replace(holder, beat=6).line()
        slept += [lambda: None] * 40 + [lambda: path.write_bytes(beat)]
        with pytest.raises(StoreLocked):
            Lock(path, force=True)
        assert path.read_bytes() == beat

    def test_one_that_ends_meanwhile(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        someone(path, **fields)
        slept.append(lambda: path.write_bytes(b""))
        assert not take(path)

    def test_another_that_comes_first(
        self, path: Path, fields: dict[str, object], slept: list[Callable[[], object]]
    ) -> None:
        holder = someone(path, **fields)
        slept.append(lambda: path.write_bytes(replace(holder, token="third").line()))
        with pytest.raises(StoreLocked):
            Lock(path, force=True)


def test_force_takes_a_copy_of_a_store_in_use(
    path: Path, tmp_path: Path, slept: list[Callable[[], object]]
) -> None:
    lock = Lock(path)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "lock"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(StoreLocked, match=r"copy .* --force-lock"):
        Lock(copy)
    assert take(copy, force=True)
    lock.release()


def test_another_container_of_the_same_kernel(path: Path) -> None:
    """The same file of the same kernel: flock is exact there, whatever the pid namespace is."""
    found = path.parent.stat()
    path.touch()
    someone(path, namespace="pid:[1]", host="c0ffee", inode=path.stat().st_ino)
    assert found.st_dev == path.stat().st_dev
    assert not take(path)


def test_after_a_crash_of_the_host(path: Path, slept: list[Callable[[], object]]) -> None:
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    someone(path, boot="before", beat=int(1000 * booted) - 60_000)
    slept.append(lambda: pytest.fail("a start after a crash waits for nobody"))
    assert not take(path)


def test_another_host_of_the_same_name(path: Path, slept: list[Callable[[], object]]) -> None:
    """The heartbeat is younger than the start of this host, or the clock of this host is wrong."""
    holder = someone(path, boot="another")
    slept.append(lambda: path.write_bytes(replace(holder, beat=holder.beat + 1).line()))
    with pytest.raises(StoreLocked):
        Lock(path)
    someone(path, boot="another")
    assert take(path), "it has stopped, and no help is needed"


@pytest.mark.parametrize(
    "data", [b"process 1\n", b"", b"\0" * 300, b'{"beat":1', b"[]", b"7", b'{"beat":1}', b"\xff"]
)
def test_what_names_no_holder_keeps_nobody_out(path: Path, data: bytes) -> None:
    """An earlier build wrote this data, or a power cut left it. Then flock alone decides."""
    path.write_bytes(data)
    assert not take(path)


def test_an_earlier_build_that_writes_is_named(path: Path) -> None:
    with path.open("wb", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"process 4711\n")
        with pytest.raises(StoreLocked, match=r"\(process 4711\)"):
            Lock(path)


def test_a_heartbeat_moves_in_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(path)
    before = path.read_bytes()
    monkeypatch.setattr(lock_module, "_now", lambda: 12345)
    lock.beat()
    after = path.read_bytes()
    found = lock_module._parse(after)
    assert found is not None
    assert found.beat == 12345
    assert re.sub(rb"\d+ *", b"", after, count=1) == re.sub(rb"\d+ *", b"", before, count=1)
    assert len(after) == len(before)
    lock.release()


def test_a_late_heartbeat_does_not_take_a_lock_back(path: Path, unshared: None) -> None:
    first = Lock(path)
    path.write_bytes(b"")
    second = Lock(path)
    first.beat()
    assert second.is_ours()
    assert not first.is_ours()
    first.release()
    assert second.is_ours(), "what is another's is not emptied"
    second.release()


def test_of_two_that_find_it_free_the_last_has_it(path: Path, unshared: None) -> None:
    first = Lock(path)
    path.write_bytes(b"")
    second = Lock(path)
    assert (first.is_ours(), second.is_ours()) == (False, True)
    assert f"process {os.getpid()}" in first.other()
    second.release()
    assert not first.is_ours()
    assert "ended" in first.other()
    path.unlink()
    assert not first.is_ours()
    assert "gone" in first.other()
    first.release()


def test_a_fork_keeps_the_lock(path: Path) -> None:
    lock = Lock(path)
    child = os.fork()
    if child == 0:
        lock.note()
        named = lock_module._parse(path.read_bytes())
        right = named is not None and named.pid == os.getpid() and lock.is_ours()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.is_ours()
    lock.release()


def test_without_a_descriptor_to_spare_it_is_still_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(path)
    codes = [errno.EMFILE, errno.ENFILE, errno.EIO]

    def fail(_: Path) -> bytes:
        raise OSError(codes.pop(0), "no")

    monkeypatch.setattr(lock_module, "_read", fail)
    assert lock.is_ours()
    assert lock.is_ours()
    with pytest.raises(OSError, match="no"):
        lock.is_ours()
    monkeypatch.undo()
    lock.release()


def test_no_descriptor_is_left_by_a_lock_that_is_refused(path: Path) -> None:
    lock = Lock(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(StoreLocked):
            Lock(path)
    assert os.listdir("/proc/self/fd") == before
    lock.release()


def test_states(path: Path) -> None:
    """The lock looks up a process of this kernel and namespace, whatever inode that process saw."""
    here = someone(path)
    assert here.state(here) is HolderState.ALIVE
    assert replace(here, inode=1).state(here) is HolderState.ALIVE
    assert replace(here, started=1).state(here) is HolderState.GONE
    assert replace(here, boot="x", host="y").state(here) is HolderState.UNKNOWN
    assert replace(here, boot="").state(replace(here, boot="")) is HolderState.UNKNOWN
