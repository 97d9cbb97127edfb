"""Tell systemd the state of this process, as sd_notify(3) does.

systemd names a socket in the variable NOTIFY_SOCKET of a service of ``Type=notify``. Without it
nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

READY, STOPPING = "READY=1", "STOPPING=1"

_VARIABLE = "NOTIFY_SOCKET"
_PERIOD_S = 2.0
# systemd reads its socket at once. This is for one that hangs.
_WAIT_S = 1.0


def notify(*lines: str) -> None:
    """Send lines such as READY. An error is no error of the mount, and is ignored."""
    address = os.environ.get(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        # The name of an abstract socket begins with a null byte.
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_WAIT_S)
        sender.sendto("\n".join(lines).encode(), address)


def forget() -> None:
    """Send nothing from now on: systemd watches another process."""
    os.environ.pop(_VARIABLE, None)


async def report(pending: Callable[[], int]) -> None:
    """Send a status line whenever the number of files to encode has changed, until cancelled.

    `pending` returns this number. A line is sent every two seconds at most.
    """
    told = None
    while _VARIABLE in os.environ:
        count = pending()
        if count != told:
            notify(f"STATUS={_status(count)}")
            told = count
        await trio.sleep(_PERIOD_S)


def _status(count: int) -> str:
    files = "1 file" if count == 1 else f"{count} files"
    return f"mounted, {files} to encode" if count else "mounted, all files are encoded"
