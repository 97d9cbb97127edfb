from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.png import filters
from fsmount.errors import NotExact
from tests.support.pngs import filter_rows, undo_rows

BPPS = [1, 2, 3, 4, 6, 8]


def picture(
    seed: int, height: int, width: int, bpp: int, spread: int = 256
) -> tuple[list[bytes], bytes]:
    """Random rows and filter types. Rows of fewer values cause more ties in Paeth."""
    source = random.Random(seed)
    rows = [
        bytes(source.randrange(256 - spread, 256) for _ in range(width * bpp))
        for _ in range(height)
    ]
    return rows, bytes(source.randrange(5) for _ in range(height))


def as_array(rows: list[bytes]) -> filters.Bytes2:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


@given(
    st.integers(0, 1 << 32),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(BPPS),
    st.sampled_from([2, 4, 256]),
)
def test_both_ways_like_the_specification(
    seed: int, height: int, width: int, bpp: int, spread: int
) -> None:
    rows, types = picture(seed, height, width, bpp, spread)
    filtered = filters.apply(as_array(rows), np.frombuffer(types, np.uint8), bpp)
    assert filtered == filter_rows(rows, types, bpp)
    undone, found = filters.undo(filtered, height, width * bpp, bpp)
    assert found.tobytes() == types
    assert undone.shape == (height, width * bpp)
    assert undone.tobytes() == b"".join(rows)


@given(st.integers(0, 1 << 32), st.sampled_from(BPPS), st.integers(0, 4))
def test_undo_any_bytes(seed: int, bpp: int, kind: int) -> None:
    # No filter made these bytes: every byte is valid behind a filter type.
    source = random.Random(seed)
    row_bytes = 5 * bpp
    filtered = b"".join(bytes([kind]) + source.randbytes(row_bytes) for _ in range(6))
    rows, _ = filters.undo(filtered, 6, row_bytes, bpp)
    assert rows.tobytes() == b"".join(undo_rows(filtered, row_bytes, bpp))


@pytest.mark.parametrize("bpp", BPPS)
def test_every_paeth_decision(bpp: int) -> None:
    # These values give all orders and ties of a, b and c, at both ends of the range and amid it.
    # The bytes of a pixel are decided at once: each byte of a pixel has another triple.
    values = [0, 1, 2, 3, 127, 128, 129, 253, 254, 255]
    triples = list(itertools.product(values, repeat=3))
    above, row = bytearray(), bytearray()
    for number in range(len(triples)):
        lanes = [triples[(number + 271 * lane) % len(triples)] for lane in range(bpp)]
        above += bytes(c for _, _, c in lanes) + bytes(b for _, b, _ in lanes)
        row += bytes(a for a, _, _ in lanes) + bytes(range(bpp))
    rows, types = [bytes(above), bytes(row)], b"\0\4"
    filtered = filters.apply(as_array(rows), np.frombuffer(types, np.uint8), bpp)
    assert filtered == filter_rows(rows, types, bpp)
    undone, _ = filters.undo(filtered, 2, len(row), bpp)
    assert undone.tobytes() == b"".join(rows)


@pytest.mark.parametrize(("bpp", "alpha"), [(2, 1), (4, 1), (4, 2), (8, 2)])
@given(seed=st.integers(0, 1 << 32), height=st.integers(1, 9), width=st.integers(1, 9))
def test_alpha_that_is_not_there(bpp: int, alpha: int, seed: int, height: int, width: int) -> None:
    rows, types = picture(seed, height, width, bpp - alpha)
    colours = as_array(rows).reshape(height, width, bpp - alpha)
    opaque = np.full((height, width, alpha), 255, np.uint8)
    whole = np.concatenate((colours, opaque), axis=2).reshape(height, -1)
    filtered = filters.apply(as_array(rows), np.frombuffer(types, np.uint8), bpp, alpha)
    assert filtered == filter_rows([row.tobytes() for row in whole], types, bpp)


def test_no_such_filter() -> None:
    with pytest.raises(NotExact, match="filter type"):
        filters.undo(b"\0ab\5cd", 2, 2, 1)
    with pytest.raises(ValueError, match="filter type"):
        filters.apply(np.zeros((1, 4), np.uint8), np.array([5], np.uint8), 1)
