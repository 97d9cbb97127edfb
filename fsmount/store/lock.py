"""The lock file: it allows one writer at a time, and names that writer.

The kernel's flock(2) is exact if both writers use the same kernel, and ends with the process. Some
paths do not pass it on: sshfs, virtiofs, NFS without locks, a FUSE folder bound into a container.
So the holder also writes its name and a heartbeat into the file. `docs/format.md` specifies the
line.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fsmount.errors import LockUnclear, StoreLocked

_log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between two heartbeats."""

# A heartbeat has stopped if it does not change for this long: two missed beats and a slow disk.
_WATCH_S = 2.5 * BEAT_S
_POLL_S = 0.5
_WAIT_POLL_S = 0.05
_MOST_BYTES = 4096
# The heartbeat comes first, with a fixed width, and is written in place. So a late writer changes
# nothing else in the line of a process that has taken the lock meanwhile.
_BEAT_AT = len('{"beat":')
_BEAT_WIDTH = 13
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
# Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from the field after the program's name.
_STARTED = 19

_BY_ANOTHER_PATH = (
    ", which reached it by another path; if this is a copy of that store, add --force-lock"
)

# Tests replace this by a virtual clock.
_sleep = time.sleep


class HolderState(Enum):
    """What this process can tell about a holder.

    PROBABLY_GONE: the holder's host was rebooted since, unless another host has the same name.
    """

    GONE = "gone"
    ALIVE = "alive"
    PROBABLY_GONE = "gone if its heartbeat does not move"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock.

    Attributes
    ----------
    beat : its last heartbeat in ms since 1970, by its clock.
    boot : boot id of its kernel.
    namespace : PID namespace of `pid`.
    started : start time of the process in clock ticks of its kernel.
    device, inode : numbers of the lock file in its kernel.
    """

    beat: int
    token: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    device: int
    inode: int

    def line(self) -> bytes:
        """The line in the lock file."""
        rest = {name: getattr(self, name) for name in self.__slots__ if name != "beat"}
        return f'{{"beat":{self.beat:<{_BEAT_WIDTH}},{json.dumps(rest)[1:]}\n'.encode()

    def __str__(self) -> str:
        here = socket.gethostname()
        return f"process {self.pid}" + (f" on {self.host}" if self.host != here else "")

    def state(self, here: Holder) -> HolderState:
        """Whether the holder still runs. `here` is this process, which has the flock."""
        if self.boot and self.boot == here.boot:
            lives = None if self.namespace != here.namespace else _lives(self.pid, self.started)
            if lives is None and (self.device, self.inode) == (here.device, here.inode):
                # Same file and same kernel: a living holder would still have the flock.
                lives = False
            if lives is not None:
                return HolderState.ALIVE if lives else HolderState.GONE
        elif self.boot and self.host == here.host:
            booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            return HolderState.GONE if self.beat < 1000 * booted else HolderState.PROBABLY_GONE
        return HolderState.UNKNOWN


def _parse(data: bytes) -> Holder | None:
    """The holder in a lock file; None if the file is empty or comes from an early build."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _myself(fd: int, token: str) -> Holder:
    """Describe this process as the holder of the lock file `fd`."""
    found = os.fstat(fd)
    pid = os.getpid()
    return Holder(
        beat=_now(),
        token=token,
        host=socket.gethostname(),
        boot=_text(_BOOT_ID),
        namespace=_link(_PID_NAMESPACE),
        pid=pid,
        started=int(_stat(pid)[_STARTED]),
        device=found.st_dev,
        inode=found.st_ino,
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the program's name. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _lives(pid: int, started: int) -> bool | None:
    """Whether a process of this PID namespace runs; None if the system hides it."""
    try:
        state, *fields = _stat(pid)
    except OSError:
        # The system may hide the processes of other users.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return None
        return None
    return state not in (b"Z", b"X") and int(fields[_STARTED - 1]) == started


def _read(path: Path) -> bytes:
    """The present bytes of the lock file. A new open does not use the cache of an older one."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST_BYTES)
    finally:
        os.close(fd)


class Lock:
    """The lock of the one process that may write.

    `unproved`: whether it was taken from a holder that may still run.
    """

    def __init__(self, path: Path, wait_s: float = 0.0, *, force: bool = False) -> None:
        """Take the lock; wait at most `wait_s` seconds for a process that is about to end.

        `force`: take it also from an unknown holder whose heartbeat has stopped; that takes some
        25 seconds to see. Raises :class:`StoreLocked`, or :class:`LockUnclear` if only `force`
        would take the lock.
        """
        self.path = path
        self._token = secrets.token_hex(16)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.unproved = self._take(wait_s, force)
            self.note()
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, wait_s: float, force: bool) -> bool:
        """Wait until the lock is free or its heartbeat has stopped; returns whether it stopped."""
        end = time.monotonic() + wait_s
        here = _myself(self._fd, self._token)
        while True:
            granted = self._flock()
            data = _read(self.path)
            holder = _parse(data)
            state = HolderState.GONE if holder is None else holder.state(here)
            if granted and (force or state is not HolderState.ALIVE):
                break
            if time.monotonic() >= end:
                named = str(holder or data.decode(errors="replace").strip() or "unknown")
                raise StoreLocked(self.path.parent, holder=named + granted * _BY_ANOTHER_PATH)
            _sleep(_WAIT_POLL_S)
        if holder is None or state is HolderState.GONE:
            return False
        return self._watch(holder, state, force)

    def _flock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _watch(self, holder: Holder, state: HolderState, force: bool) -> bool:
        """Whether the holder's heartbeat has stopped; False if it released the lock meanwhile."""
        known = force or state is HolderState.PROBABLY_GONE
        # An old beat needs no watching: without `force` the lock is not taken anyway.
        if known or abs(_now() - holder.beat) < 1000 * _WATCH_S:
            _log.info("%s: waiting for a heartbeat of %s", self.path, holder)
            for _ in range(int(_WATCH_S / _POLL_S)):
                _sleep(_POLL_S)
                data = _read(self.path)
                if not data.strip():
                    return False
                now = _parse(data)
                # A line that is being written cannot be parsed; ignore it.
                if now is not None and now != holder:
                    raise StoreLocked(self.path.parent, holder=str(now))
        alive = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(holder.beat / 1000))
        if not known:
            raise LockUnclear(self.path.parent, holder=str(holder), alive=alive)
        _log.warning("%s is taken from %s, last alive at %s", self.path, holder, alive)
        return True

    def note(self) -> None:
        """Write the holder into the file. Call it again after a fork, which keeps the lock."""
        line = _myself(self._fd, self._token).line()
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))

    def beat(self) -> None:
        """Show that the holder is alive."""
        os.pwrite(self._fd, f"{_now():<{_BEAT_WIDTH}}".encode(), _BEAT_AT)

    def is_ours(self) -> bool:
        """Whether the lock file still names this holder. Raises OSError if it cannot be read."""
        try:
            data = _read(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # This process has no free descriptor to open the file again.
            data = os.pread(self._fd, _MOST_BYTES, 0)
        return self._token.encode() in data

    def other(self) -> str:
        """The present holder, for messages."""
        try:
            data = _read(self.path)
        except OSError:
            return "unknown; the lock file is gone"
        return str(_parse(data) or data.decode(errors="replace").strip() or "it has ended since")

    def release(self) -> None:
        """Let another process write. The file of another holder stays as it is."""
        try:
            if self.is_ours():
                os.ftruncate(self._fd, 0)
        except OSError as error:
            _log.warning("%s still names this process: %s", self.path, error)
        finally:
            os.close(self._fd)
