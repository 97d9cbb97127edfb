"""Messages between this process and a worker. Imports no trio: both sides use it.

A message is a number of parts and a number of descriptors (4 bytes each), the size of each part (8
bytes each, all little endian), and the parts: a pickle (protocol 5) and its out-of-band buffers
(PEP 574). So arrays are not copied into the pickle, and arrive in memory of their own. The
descriptors of :class:`~fsmount.work.sealed.Sealed` memory in the message come with its first bytes
(SCM_RIGHTS, unix(7)).

A request is ``(function, args)``. A reply is an :class:`Answer`. Only the first message of a worker
is another one: PID.
"""

from __future__ import annotations

import array
import copyreg
import io
import os
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from fsmount.work.sealed import Sealed

HEAD = struct.Struct("<II")
PID = struct.Struct("<I")
"""A worker's process id. A descriptor of the process comes with it."""
MOST_SEALED = 253
"""Most pieces of sealed memory in one message: SCM_MAX_FD of the kernel."""
MOST_PIECES = 1024
"""Most pieces in one call of sendmsg or recvmsg_into: IOV_MAX of the kernel."""
ANCILLARY_BYTES = socket.CMSG_SPACE(MOST_SEALED * array.array("i").itemsize)
"""Size of the buffer that takes the descriptors of a message."""

_Ancillary = Sequence[tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a function, or its error and where it was raised."""

    result: Any = None
    error: Exception | None = None
    where: str = ""


class Packed(NamedTuple):
    """A message to send.

    pieces : what to send, in order. The descriptors go with the first call of sendmsg.
    sealed : the memory whose descriptors go along.
    """

    pieces: list[memoryview]
    sealed: list[Sealed]

    def ancillary(self) -> list[tuple[int, int, array.array[int]]]:
        """Return the ancillary data for the first call of sendmsg."""
        if not self.sealed:
            return []
        numbers = array.array("i", [memory.fd for memory in self.sealed])
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]


class _Pickler(pickle.Pickler):
    """Replaces sealed memory by its place in `sealed` and its size."""

    def __init__(self, file: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers.append)
        self.sealed: list[Sealed] = []
        # Not `persistent_id`, which is called for each of some thousand objects of a message.
        self.dispatch_table = {**copyreg.dispatch_table, Sealed: partial(_by_place, self.sealed)}


def _by_place(
    sealed: list[Sealed], memory: Sealed
) -> tuple[Callable[..., Sealed], tuple[int, int]]:
    """Append memory to `sealed`, and return what stands in the pickle for it."""
    sealed.append(memory)
    return _received, (len(sealed) - 1, memory.size)


def _received(left: dict[int, int], place: int, size: int) -> Sealed:
    """Return the memory at a place of the message. Takes its descriptor out of `left`."""
    return Sealed(left.pop(place, -1), size)


class _Unpickler(pickle.Unpickler):
    """Makes sealed memory of received descriptors. A descriptor that got lost becomes -1."""

    def __init__(self, parts: Sequence[bytearray], descriptors: Sequence[int]) -> None:
        super().__init__(io.BytesIO(parts[0]), buffers=parts[1:])
        self._left = dict(enumerate(descriptors))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, _received.__name__):
            return partial(_received, self._left)
        return super().find_class(module, name)

    def close_rest(self) -> None:
        """Close the descriptors that the message did not name."""
        for fd in self._left.values():
            os.close(fd)


def pack(message: object) -> Packed:
    """Return a message as it is sent.

    Buffers are not copied: leave them unchanged until they are sent. Raises ValueError if the
    message has more than MOST_SEALED pieces of sealed memory, and what pickling raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    pickler = _Pickler(head, buffers)
    pickler.dump(message)
    if len(pickler.sealed) > MOST_SEALED:
        raise ValueError(f"{len(pickler.sealed)} pieces of sealed memory in one message")
    # Not a view of `head`: Python 3.13 complains if the file goes before the view.
    parts = [memoryview(head.getvalue()), *(buffer.raw() for buffer in buffers)]
    sizes = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
    first = memoryview(HEAD.pack(len(parts), len(pickler.sealed)) + sizes)
    return Packed([first, *parts], pickler.sealed)


def rest_of(pieces: Sequence[memoryview], count: int) -> list[memoryview]:
    """Return what is left of some pieces behind their first `count` bytes, without empty pieces."""
    left = []
    for piece in pieces:
        if count < piece.nbytes:
            left.append(piece[count:])
        count = max(0, count - piece.nbytes)
    return left


def sizes_layout(count: int) -> struct.Struct:
    """Return the layout of the sizes of `count` parts."""
    return struct.Struct(f"<{count}Q")


def descriptors(ancillary: _Ancillary) -> list[int]:
    """Return the descriptors of received ancillary data. The caller owns them."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def unpack(parts: Sequence[bytearray], received: Sequence[int] = ()) -> Any:
    """Return the message of received parts. Arrays in it are views of the parts.

    `received` are the descriptors that came with it; the message owns them from here on. Raises
    what unpickling raises.
    """
    unpickler = _Unpickler(parts, received)
    try:
        return unpickler.load()
    finally:
        unpickler.close_rest()
