"""The place of photos on the canvas, and the way back from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.album.canvas import Planes, Rect, Samples, centred_rect, crop, paint

BOX = 64


def planes(rect: Rect, seed: int = 1) -> Planes:
    rng = np.random.default_rng(seed)
    shape = rect.height, rect.width
    y, cb, cr = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(3))
    return y, cb, cr


def as_bytes(canvas: list[Samples]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return [np.minimum((plane + 2) >> 2, 255).astype(np.uint8) for plane in canvas]


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_photo_fits_and_is_never_enlarged(width: int, height: int) -> None:
    rect = centred_rect(width, height, BOX)
    assert rect.x % 2 == rect.y % 2 == 0
    assert 1 <= rect.width <= min(BOX, width)
    assert 1 <= rect.height <= min(BOX, height)
    # The pixel that repeats an odd edge fits, too.
    assert rect.x + rect.width + rect.width % 2 <= BOX
    assert rect.y + rect.height + rect.height % 2 <= BOX
    if max(width, height) >= BOX:
        assert max(rect.width, rect.height) == BOX


@pytest.mark.parametrize(
    ("size", "rect"),
    [
        ((9000, 900), Rect(0, 28, 64, 6)),
        ((1, 1), Rect(30, 30, 1, 1)),
        ((64, 64), Rect(0, 0, 64, 64)),
        ((4001, 1), Rect(0, 30, 64, 1)),
        ((30, 20), Rect(16, 22, 30, 20)),
    ],
)
def test_places(size: tuple[int, int], rect: Rect) -> None:
    assert centred_rect(*size, BOX) == rect


@pytest.mark.parametrize("halve_height", [True, False])
@pytest.mark.parametrize("size", [(30, 20), (31, 21), (1, 1), (64, 63)])
def test_luma_comes_back_and_chroma_is_the_mean(size: tuple[int, int], halve_height: bool) -> None:
    rect = centred_rect(*size, BOX)
    given_planes = planes(rect)
    canvas = paint(given_planes, rect, BOX, halve_height=halve_height)
    y, cb, _ = crop(as_bytes(canvas), rect)
    assert np.array_equal(y, given_planes[0])
    assert cb.shape == y.shape
    down = 2 if halve_height else 1
    corner = given_planes[1][:down, :2].astype(float)
    assert abs(float(cb[0, 0]) - corner.mean()) <= 0.5


def test_around_the_photo_it_is_black() -> None:
    rect = centred_rect(30, 20, BOX)
    y, cb, _ = paint(planes(rect), rect, BOX, halve_height=True)
    outside = np.ones((BOX, BOX), bool)
    outside[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = False
    assert not y[outside].any()
    assert (cb[outside[::2, ::2]] == 512).all()


def test_an_odd_edge_is_repeated_once() -> None:
    rect = centred_rect(31, 21, BOX)
    y, _, _ = paint(planes(rect), rect, BOX, halve_height=True)
    right, below = rect.x + rect.width, rect.y + rect.height
    assert np.array_equal(y[rect.y : below, right], y[rect.y : below, right - 1])
    assert np.array_equal(y[below, rect.x : right], y[below - 1, rect.x : right])
    assert not y[:, right + 1 :].any()
    assert not y[below + 1 :].any()
