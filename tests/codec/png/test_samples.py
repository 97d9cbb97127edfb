from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.png import samples
from fsmount.codec.png.samples import SampleLayout
from tests.support.pngs import KINDS, make_rows


def read_bits(row: bytes, depth: int, count: int) -> list[int]:
    number = int.from_bytes(row, "big")
    total = len(row) * 8
    return [number >> (total - depth * (at + 1)) & ((1 << depth) - 1) for at in range(count)]


@given(st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 5), st.integers(0, 1 << 32))
def test_rows_and_frames(kind: tuple[int, int], width: int, height: int, seed: int) -> None:
    layout = SampleLayout(width, height, *kind)
    rows = make_rows(random.Random(seed), width, height, *kind, "noise")
    array = np.frombuffer(b"".join(rows), np.uint8).reshape(height, layout.row_bytes)

    frame = samples.from_rows(array, layout)
    assert frame.shape == (height, width, layout.channels)
    assert frame.dtype == layout.dtype
    assert frame.flags.c_contiguous
    assert frame.nbytes == layout.frame_bytes
    for row, pixels in zip(rows, frame, strict=True):
        assert pixels.ravel().tolist() == read_bits(row, kind[1], width * layout.channels)
    assert samples.to_rows(frame, layout).tobytes() == b"".join(rows)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha(dtype: type[np.uint8] | type[np.uint16], channels: int) -> None:
    frame: samples.Frame = np.arange(5 * 7 * channels).reshape(5, 7, channels).astype(dtype)
    frame[..., -1] = np.iinfo(dtype).max
    assert samples.is_opaque(frame)
    dropped = samples.drop_alpha(frame)
    assert dropped.flags.c_contiguous
    assert np.array_equal(dropped, frame[..., :-1])
    frame[4, 6, -1] -= 1
    assert not samples.is_opaque(frame)
