"""In a process that serves a mount: calls for the store's files hang while a file says so.

The file that the environment names lists folders of the store, in words; "." is the store itself.
Whatever thread calls waits, as with a disk that does not answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsmount import threads
from fsmount.threads import Kind
from tests.support.watch import never_waits, path_of, seams

# The path of the file, and of what the calls are for.
HANG, BELOW = "FSMOUNT_TEST_HANG", "FSMOUNT_TEST_HANG_BELOW"
# Set: all calls are made on the thread that answers, as if there were no others.
NO_THREADS = "FSMOUNT_TEST_NO_THREADS"


def install() -> None:
    """Do as the environment says."""
    control, top = os.environ.get(HANG), os.environ.get(BELOW)
    if control and top:
        _hang(control, str(Path(top).resolve()))
    if NO_THREADS in os.environ:
        _set(threads, "call", _here)


def _hang(control: str, top: str) -> None:
    opened, read, close = os.open, os.read, os.close

    def hangs(path: str) -> bool:
        folder = path[len(top) + 1 :].partition("/")[0] or "."
        try:
            fd = opened(control, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return folder in read(fd, 1000).decode().split()
        finally:
            close(fd)

    def seam(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if args and not never_waits(name, args):
                path = path_of(args[0])
                while (path == top or path.startswith(top + "/")) and hangs(path):
                    time.sleep(0.01)
            return real(*args, **named)

        return call

    for owner, name in seams():
        _set(owner, name, seam(getattr(owner, name), name))


async def _here(kind: Kind, function: Callable[..., object], *args: object) -> object:
    return function(*args)


def _set(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)
