from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fsmount.work.worker_process import COUNT, pack, sizes_layout, unpack


def received(pieces: list[memoryview]) -> list[bytearray]:
    """The parts that a receiver makes of the pieces."""
    stream = b"".join(pieces)
    (count,) = COUNT.unpack_from(stream)
    layout = sizes_layout(count)
    start = COUNT.size + layout.size
    parts = []
    for size in layout.unpack_from(stream, COUNT.size):
        parts.append(bytearray(stream[start : start + size]))
        start += size
    assert start == len(stream)
    return parts


@given(st.recursive(st.none() | st.binary() | st.integers(), st.lists))
def test_messages_round_trip(message: object) -> None:
    assert unpack(received(pack(message))) == message


def test_arrays_are_not_copied_into_the_pickle() -> None:
    array = np.arange(1000, dtype=np.uint16).reshape(10, 100)
    pieces = pack((array, array[:0]))
    assert len(pieces[1]) < 1000
    assert np.shares_memory(np.asarray(pieces[2]), array)
    back, empty = unpack(received(pieces))
    assert np.array_equal(back, array)
    assert empty.shape == (0, 100)
    assert back.flags.writeable
