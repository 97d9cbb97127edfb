"""The lock file: it keeps a store to one writer, and says who that is.

The kernel's flock(2) is exact where both writers reach the file through the same kernel: it ends
with the process. Some paths do not pass it on: sshfs, virtiofs, NFS without locks, a FUSE folder
bound into a container. So the file also names its holder, and the holder's heartbeat moves in it.
`docs/format.md` has the line to the byte.
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

# A heartbeat that has not moved for so long has stopped: two are missed, and a slow disk.
_WATCH_S = 2.5 * BEAT_S
_POLL_S = 0.5
_WAIT_POLL_S = 0.05
_MOST_BYTES = 4096
# The heartbeat stands first, in so many characters, and is written in place: a writer that is late
# changes nothing else in the line of one that has taken the store meanwhile.
_BEAT_AT = len('{"beat":')
_BEAT_WIDTH = 13
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
# Field 22 of /proc/PID/stat, counted from behind the program's name, which is the second.
_STARTED = 19

_BY_ANOTHER_PATH = (
    ", which reached it by another path; if this is a copy of that store, add --force-lock"
)

# Tests let this be a clock of their own.
_sleep = time.sleep


class Verdict(Enum):
    """What can be said of a holder from here.

    `STOPPED_IF_STILL`: its host was started anew, unless another host has the same name.
    """

    GONE = "gone"
    LIVES = "lives"
    STOPPED_IF_STILL = "stopped if its heartbeat does not move"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock. `beat`: its last heartbeat in ms since 1970, by its clock.

    `boot`: of the kernel it runs on; `namespace`: in which its `pid` counts; `started`: when, in
    ticks of that kernel; `device` and `inode`: of the lock file, as that kernel numbers them.
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
        """What stands in the lock file."""
        rest = {name: getattr(self, name) for name in self.__slots__ if name != "beat"}
        return f'{{"beat":{self.beat:<{_BEAT_WIDTH}},{json.dumps(rest)[1:]}\n'.encode()

    def __str__(self) -> str:
        here = socket.gethostname()
        return f"process {self.pid}" + (f" on {self.host}" if self.host != here else "")

    def verdict(self, here: Holder) -> Verdict:
        """Whether it still runs, as process `here` can tell, which has the flock of the file."""
        if self.boot and self.boot == here.boot:
            lives = None if self.namespace != here.namespace else _lives(self.pid, self.started)
            if lives is None and (self.device, self.inode) == (here.device, here.inode):
                # The same file of the same kernel: its flock would have kept us out.
                lives = False
            if lives is not None:
                return Verdict.LIVES if lives else Verdict.GONE
        elif self.boot and self.host == here.host:
            booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            return Verdict.GONE if self.beat < 1000 * booted else Verdict.STOPPED_IF_STILL
        return Verdict.UNKNOWN


def _parse(data: bytes) -> Holder | None:
    """The holder that a lock file names; None for a file that is empty, or of an earlier build."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _myself(fd: int, token: str) -> Holder:
    """This process, as the holder of the lock file `fd`."""
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
    """Whether a process of this pid namespace runs; None if the system does not let us know."""
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
    """The lock file as it is now: what is opened anew comes from no cache of an older open."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST_BYTES)
    finally:
        os.close(fd)


class Lock:
    """Held by the one process that may write.

    `unproved`: it was taken from a holder of which nobody could tell whether it has ended.
    """

    def __init__(self, path: Path, wait_s: float = 0.0, *, force: bool = False) -> None:
        """Take the lock, waiting at most `wait_s` for a process that is about to end.

        `force`: also from a holder of which nothing can be told from here, if its heartbeat has
        stopped; watching it takes some 25 seconds. Raises :class:`StoreLocked`, or
        :class:`LockUnclear` where only `force` would take it.
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
        """Wait until the lock is free or its holder's heartbeat has stopped: whether the latter."""
        end = time.monotonic() + wait_s
        here = _myself(self._fd, self._token)
        while True:
            granted = self._flock()
            data = _read(self.path)
            holder = _parse(data)
            verdict = Verdict.GONE if holder is None else holder.verdict(here)
            if granted and (force or verdict is not Verdict.LIVES):
                break
            if time.monotonic() >= end:
                named = str(holder or data.decode(errors="replace").strip() or "unknown")
                raise StoreLocked(self.path.parent, holder=named + granted * _BY_ANOTHER_PATH)
            _sleep(_WAIT_POLL_S)
        if holder is None or verdict is Verdict.GONE:
            return False
        return self._watch(holder, verdict, force)

    def _flock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _watch(self, holder: Holder, verdict: Verdict, force: bool) -> bool:
        """Whether the holder's heartbeat has stopped; False if it let the lock go meanwhile."""
        known = force or verdict is Verdict.STOPPED_IF_STILL
        # A beat of long ago needs no look: without `force` it is not taken anyway.
        if known or abs(_now() - holder.beat) < 1000 * _WATCH_S:
            _log.info("%s: waiting for a heartbeat of %s", self.path, holder)
            for _ in range(int(_WATCH_S / _POLL_S)):
                _sleep(_POLL_S)
                data = _read(self.path)
                if not data.strip():
                    return False
                now = _parse(data)
                # A line that is being written says nothing.
                if now is not None and now != holder:
                    raise StoreLocked(self.path.parent, holder=str(now))
        alive = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(holder.beat / 1000))
        if not known:
            raise LockUnclear(self.path.parent, holder=str(holder), alive=alive)
        _log.warning("%s is taken from %s, last alive at %s", self.path, holder, alive)
        return True

    def note(self) -> None:
        """Write who holds the lock; again after a fork, which keeps it."""
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
            # No descriptor is left to open it anew.
            data = os.pread(self._fd, _MOST_BYTES, 0)
        return self._token.encode() in data

    def other(self) -> str:
        """Whom the lock file names, for messages."""
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
