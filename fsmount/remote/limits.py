"""Transports that send slowly, or not at all, for the one below them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from fsmount.remote.pacing import Pace, PacedProxy, has_proxy
from fsmount.remote.transport import Patience, Transport, transport_to

# With a limit, an object of a pack or file has as many bytes as may be sent in this time. So a push
# that is stopped has sent little in vain.
_PART_S = 4
_LEAST_PART = 1 << 20
# The objects of an index have up to 16 MiB, with what encryption adds.
_MOST_OTHERS = 20 << 20
# As in `fsmount.remote.s3`.
_CONNECT_S, _RETRY_S, _REQUEST_S = 10, 60, 300


def part_bytes(rate: int) -> int:
    """The largest object to make if `rate` bytes a second may be sent."""
    return max(_LEAST_PART, _PART_S * rate)


@contextmanager
def limited(url: str, rate: int, *, pack_class: str | None = None) -> Iterator[Transport]:
    """In the block, the transport to a URL that sends at most `rate` bytes a second.

    If the user has named a proxy, an object goes out at full speed, with a pause behind it.
    `pack_class`: see :func:`transport_to`, which says what it raises.
    """
    pace = Pace(rate)
    # A request takes as long as its bytes at this rate.
    longest = max(part_bytes(rate), _MOST_OTHERS) / rate
    patience = Patience(_CONNECT_S, _RETRY_S + longest, _REQUEST_S + longest)
    with PacedProxy(pace) as running:
        proxy = None if has_proxy() else running.url
        yield Slow(transport_to(url, patience, pack_class=pack_class, pace=pace, proxy=proxy), rate)


class _Passing:
    """Passes all calls on."""

    def __init__(self, remote: Transport) -> None:
        self.url = remote.url
        self._remote = remote

    @property
    def keeps_versions(self) -> bool:
        """Whether what is removed stays as an older version."""
        return self._remote.keeps_versions

    def put(self, name: str, data: bytes) -> bool:
        """Make an object."""
        return self._remote.put(name, data)

    def get(self, name: str) -> bytes:
        """Return an object."""
        return self._remote.get(name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of an object."""
        return self._remote.get_range(name, start, length)

    def size(self, name: str) -> int | None:
        """Bytes of an object."""
        return self._remote.size(name)

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the objects below a folder."""
        return self._remote.list(folder)

    def folders(self) -> Sequence[str]:
        """Return the folders at the URL."""
        return self._remote.folders()

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._remote.delete(name)


class Slow(_Passing):
    """Sends at most `rate` bytes a second, over more than one object.

    An object goes out as fast as the transport below takes it. Then nothing is sent until its time
    at this rate is over.
    """

    def __init__(
        self,
        remote: Transport,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(remote)
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._turn = Lock()

    def put(self, name: str, data: bytes) -> bool:
        """Wait until more may be sent, and make an object."""
        # One at a time: what others send meanwhile waits, too.
        with self._turn:
            now = self._clock()
            if now < self._free_at:
                self._sleep(self._free_at - now)
            self._free_at = max(now, self._free_at) + len(data) / self._rate
            return self._remote.put(name, data)


class Dry(_Passing):
    """Sends and removes nothing, as if it did."""

    def put(self, name: str, data: bytes) -> bool:
        """Do nothing."""
        return True

    def delete(self, name: str) -> None:
        """Do nothing."""
