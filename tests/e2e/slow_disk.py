"""In a process that serves a mount: calls for files of the store hang while a control file exists.

The environment names the control file. It lists folders of the store, separated by spaces; "." is
the store itself. Calls for files in these folders wait on every thread, as with a disk that does
not answer.
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

# Variables: the path of the control file, and the path of the store.
HANG, BELOW = "FSMOUNT_TEST_HANG", "FSMOUNT_TEST_HANG_BELOW"
# If set: the thread that answers requests makes all calls itself, as if it were the only one.
NO_THREADS = "FSMOUNT_TEST_NO_THREADS"


def install() -> None:
    """Patch this process as the environment variables say."""
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
