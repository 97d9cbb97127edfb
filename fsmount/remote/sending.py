"""Sends the objects of a push: some at a time, so that no request waits for the one before.

A push reads, compares and names the next object meanwhile. A state is made when all have been sent.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from fsmount.errors import Damaged, RemoteArchived, RemoteFailed
from fsmount.remote.objects import CONTRADICTION, Part
from fsmount.remote.transport import Transport, where_of

# How many objects are sent at a time, and how many bytes they may have: memory holds them.
AT_ONCE = 4
MOST_BYTES = 128 << 20


class Sender:
    """Sends objects that are not there. Use it as a context manager: it ends its threads.

    sent_objects, sent_bytes : what was sent; complete after :meth:`finish`.

    Parameters
    ----------
    remote : Transport
        Where to.
    reread : bool
        Whether an object that is there is read and compared.
    """

    def __init__(self, remote: Transport, *, reread: bool) -> None:
        self.sent_objects = 0
        self.sent_bytes = 0
        self._remote = remote
        self._reread = reread
        self._threads = ThreadPoolExecutor(AT_ONCE, "push")
        # In the order in which they were given, with what they take of MOST_BYTES.
        self._under_way: deque[tuple[Future[bool], int]] = deque()
        self._bytes = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def send(self, part: Part, data: bytes) -> None:
        """Make an object, unless it is there. Waits if too much is under way.

        Raises errors of the transport, also those of objects that were given before.
        """
        while self._under_way and (
            len(self._under_way) >= AT_ONCE or self._bytes + len(data) > MOST_BYTES
        ):
            self._take_one()
        self._bytes += len(data)
        self._under_way.append((self._threads.submit(self._send, part, data), len(data)))

    def finish(self) -> None:
        """Wait until all objects are sent. Raises errors of the transport."""
        while self._under_way:
            self._take_one()

    def _take_one(self) -> None:
        future, length = self._under_way.popleft()
        self._bytes -= length
        if future.result():
            self.sent_objects += 1
            self.sent_bytes += length

    def _send(self, part: Part, data: bytes) -> bool:
        """Make an object in a thread; whether it was not there."""
        remote, name = self._remote, part.name
        size = remote.size(name)
        if size is not None and (size != part.length or self._is_damaged(part)):
            # The name says what must be there, so what is there is of no use to anybody.
            remote.delete(name)
            size = None
        if size is not None:
            return False
        if not remote.put(name, data) and remote.size(name) != part.length:
            raise RemoteFailed(where_of(remote, name), reason=CONTRADICTION)
        return True

    def _is_damaged(self, part: Part) -> bool:
        """Whether an object has other bytes than its name says. Reads it with `reread` only."""
        if not self._reread:
            return False
        try:
            return Part.of(part.folder, self._remote.get(part.name)) != part
        except Damaged:
            return True
        except RemoteArchived:
            # Its size is right; more cannot be said for some hours.
            return False
