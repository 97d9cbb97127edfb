"""The socket on which systemd hears of its services."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path


class NotifySocket:
    """A datagram socket. `variable` is the value of NOTIFY_SOCKET for it."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        name = f"fsmount-test-{uuid.uuid4()}" if abstract else str(folder / "notify")
        self.variable = f"@{name}" if abstract else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}" if abstract else name)

    def next(self, seconds: float = 20.0) -> str:
        """The next message. Raises TimeoutError."""
        self._socket.settimeout(seconds)
        return self._socket.recv(65536).decode()

    def rest(self) -> list[str]:
        """All messages that have come."""
        found = []
        try:
            while True:
                found.append(self.next(0.01))
        except TimeoutError:
            return found

    def close(self) -> None:
        self._socket.close()
