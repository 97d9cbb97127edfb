"""A guard that ends a test that hangs, and reports what the system did at that time.

A program that waits for a mount whose server hangs cannot be killed: the kernel waits for the
server's answer. So the guard aborts the FUSE connections below the folder of the tests first; then
it kills the processes that the test has started. The test itself then fails with an error of its
own. If it does not end even then, this process exits, and pytest-xdist reports which test crashed
it. Without the guard one test that hangs takes the report of all other tests with it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The longest test takes about three minutes on a machine with two busy cores.
LIMIT_S = float(os.environ.get("FSMOUNT_TEST_HANGS_AFTER_S", "900"))
_LAST_WORDS_S = 60.0
_CONNECTIONS = Path("/sys/fs/fuse/connections")
# Threads in the report, those with the most CPU time first.
_ROWS = 60


@contextmanager
def guarded(name: str, folder: Path, limit_s: float = LIMIT_S) -> Iterator[None]:
    """Run a test in the context: after `limit_s` seconds it is reported and ended.

    `folder` holds all mountpoints of the test.
    """
    over = threading.Event()
    guard = threading.Thread(target=_watch, args=(name, folder, limit_s, over), daemon=True)
    guard.start()
    try:
        yield
    finally:
        over.set()


def _watch(name: str, folder: Path, limit_s: float, over: threading.Event) -> None:
    if over.wait(limit_s):
        return
    # Descriptor 2 is captured; it comes with the report of this test.
    for stream in (2, _own_report(folder)):
        os.write(stream, f"\n{name} did not end within {limit_s:g} s\n{_threads()}\n".encode())
        faulthandler.dump_traceback(stream)
    abort_mounts(folder)
    for pid in _descendants(os.getpid()) | _named(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not over.wait(_LAST_WORDS_S):
        sys.stderr.flush()
        os._exit(70)


def _own_report(folder: Path) -> int:
    """A file that outlives this process."""
    return os.open(folder / "hang.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def abort_mounts(folder: Path) -> None:
    """Abort the FUSE connections of all mounts below a folder: each waiting call gets an error."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        inside = fields[4].startswith(str(folder))
        if inside and (kind == "fuse" or kind.startswith("fuse.")):
            with suppress(OSError):
                (_CONNECTIONS / fields[2].partition(":")[2] / "abort").write_text("1")


def _threads() -> str:
    columns = "pid,tid,ppid,stat,pcpu,etimes,wchan:20,comm,args"
    table = subprocess.run(
        ["ps", "-eL", "-o", columns, "--sort=-pcpu"], capture_output=True, check=False
    ).stdout.decode(errors="replace")
    return "\n".join(line[:240] for line in table.splitlines()[:_ROWS])


def _descendants(parent: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The name, in parentheses, may hold spaces.
            state = stat.read_bytes().rpartition(b")")[2].split()
            parents[int(stat.parent.name)] = int(state[1])
    found = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return found - {parent}


def _named(folder: Path) -> set[int]:
    """Processes with the folder in their arguments: servers have no parent here."""
    found = set()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(folder) + b"/" in command.read_bytes():
                found.add(int(command.parent.name))
    return found - {os.getpid()}
