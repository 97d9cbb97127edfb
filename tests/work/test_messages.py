from __future__ import annotations

import os
import pickle
import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.work.messages import (
    HEAD,
    MOST_PIECES,
    MOST_SEALED,
    Packed,
    descriptors,
    pack,
    rest_of,
    sizes_layout,
    unpack,
)
from fsmount.work.sealed import Sealed
from fsmount.work.worker_process import _receive, _send
from fsmount.work.workers import Workers
from tests.support import worker_jobs


def received(packed: Packed) -> list[bytearray]:
    """The parts that a receiver makes of a message."""
    stream = b"".join(packed.pieces)
    count, sealed = HEAD.unpack_from(stream)
    assert sealed == len(packed.sealed)
    layout = sizes_layout(count)
    start = HEAD.size + layout.size
    parts = []
    for size in layout.unpack_from(stream, HEAD.size):
        parts.append(bytearray(stream[start : start + size]))
        start += size
    assert start == len(stream)
    return parts


def sealed(data: bytes) -> Sealed:
    made = Sealed.of([memoryview(data)], "x")
    assert made is not None
    return made


def open_here() -> int:
    """The number of descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@given(st.recursive(st.none() | st.binary() | st.integers(), st.lists))
def test_messages_round_trip(message: object) -> None:
    assert unpack(received(pack(message))) == message


def test_arrays_are_not_copied_into_the_pickle() -> None:
    array = np.arange(1000, dtype=np.uint16).reshape(10, 100)
    packed = pack((array, array[:0]))
    assert len(packed.pieces[1]) < 1000
    assert np.shares_memory(np.asarray(packed.pieces[2]), array)
    back, empty = unpack(received(packed))
    assert np.array_equal(back, array)
    assert empty.shape == (0, 100)
    assert back.flags.writeable


@given(st.lists(st.binary(max_size=5)), st.integers(0, 40))
def test_what_is_left_of_pieces(pieces: list[bytes], count: int) -> None:
    left = rest_of([memoryview(piece) for piece in pieces], count)
    assert b"".join(left) == b"".join(pieces)[count:]
    assert all(left)


def test_a_message_of_more_pieces_than_a_call_takes_through_a_small_socket() -> None:
    """Each call sends and receives a part of it, and the parts end anywhere."""
    arrays = [np.full(size % 400, size, np.uint16) for size in range(2 * MOST_PIECES)]
    one, two = socket.socketpair()
    with one, two:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = threading.Thread(target=_send, args=(one, pack((sealed(b"abc"), arrays))))
        sender.start()
        memory, back = unpack(*_receive(two))
        sender.join()
    assert bytes(memory.map("x")) == b"abc"
    assert all(map(np.array_equal, back, arrays))
    assert len(back) == len(arrays)


def test_sealed_memory_goes_along() -> None:
    one, two = socket.socketpair()
    with one, two:
        before = open_here()
        _send(one, pack({"a": sealed(b"abc"), "b": [sealed(b"")]}))
        parts, found = _receive(two)
        message = unpack(parts, found)
        assert bytes(message["a"].map("x")) == b"abc"
        assert bytes(message["b"][0].map("x")) == b""
        assert not os.get_inheritable(message["a"].fd)
        del message
        assert open_here() == before


def test_a_descriptor_that_got_lost_is_no_memory() -> None:
    back = unpack(received(pack([sealed(b"abc"), 7])))
    assert back[1] == 7
    with pytest.raises(OSError):
        back[0].map("x")


def test_descriptors_that_no_message_names_are_closed() -> None:
    before = open_here()
    assert unpack(received(pack(1)), [os.open("/dev/null", os.O_RDONLY)]) == 1
    assert open_here() == before


def test_more_than_the_kernel_sends_is_refused() -> None:
    with pytest.raises(ValueError, match="254 pieces"):
        pack([sealed(b"") for _ in range(MOST_SEALED + 1)])
    one, two = socket.socketpair()
    with one, two:
        _send(one, pack([sealed(b"x") for _ in range(MOST_SEALED)]))
        assert len(unpack(*_receive(two))) == MOST_SEALED


def test_other_ancillary_data_is_ignored() -> None:
    assert descriptors([(socket.SOL_SOCKET, socket.SO_PASSCRED, b"\1\2\3\4")]) == []


def test_sealed_memory_is_not_pickled_by_itself() -> None:
    with pytest.raises(TypeError, match="messages only"):
        pickle.dumps(sealed(b"abc"))


async def test_memory_of_one_worker_is_read_by_another() -> None:
    """The memory lives after the worker that made it has ended."""
    before = open_here()
    async with Workers(1) as workers:
        made = await workers.run(worker_jobs.make_sealed, b"from a worker")
        (maker,) = workers.pids()
    assert made is not None
    assert bytes(made.map("x")) == b"from a worker"
    async with Workers(1) as workers:
        assert await workers.run(worker_jobs.read_sealed, made) == (b"from a worker", True)
        assert maker not in workers.pids()
        # The worker keeps no descriptor of it.
        first = await workers.run(worker_jobs.count_descriptors)
        for _ in range(5):
            await workers.run(worker_jobs.read_sealed, made)
        assert await workers.run(worker_jobs.count_descriptors) == first
    del made
    assert open_here() == before
