"""The served JPEG has the recorded length with every library that makes it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fsmount.album import jpeg
from fsmount.album.canvas import Planes
from fsmount.errors import NotExact
from tests.support.photos import scene

SOI = b"\xff\xd8"


@pytest.fixture(scope="module", name="planes")
def made() -> Planes:
    bands = Image.fromarray(scene(3, 101, 67)).convert("YCbCr").split()
    y, cb, cr = (np.asarray(band) for band in bands)
    return y, cb, cr


@pytest.mark.parametrize("halve_height", [True, False])
def test_a_body_behind_a_start_mark_is_a_jpeg(planes: Planes, halve_height: bool) -> None:
    data = SOI + jpeg.body(planes, 90, halve_height=halve_height)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (101, 67)
        assert "jfif" not in image.info
        got = np.asarray(image.convert("YCbCr"))[:, :, 0].astype(int)
    assert np.abs(got - planes[0]).mean() < 2


def test_what_is_shorter_is_padded_and_shows_the_same(planes: Planes) -> None:
    body = jpeg.body(planes, 90, halve_height=True)
    padded = jpeg.body_of_size(planes, 90, len(body) + 1000, halve_height=True)
    assert padded == body + b"\0" * 1000
    whole, same = (np.asarray(Image.open(io.BytesIO(SOI + data))) for data in (body, padded))
    assert np.array_equal(whole, same)


def test_what_is_longer_is_made_coarser_until_it_fits(planes: Planes) -> None:
    size = len(jpeg.body(planes, 90, halve_height=True)) - 1
    data = jpeg.body_of_size(planes, 90, size, halve_height=True)
    assert len(data) == size
    got = np.asarray(Image.open(io.BytesIO(SOI + data)).convert("YCbCr"))[:, :, 0].astype(int)
    assert np.abs(got - planes[0]).mean() < 3


def test_what_never_fits_is_an_error(planes: Planes) -> None:
    with pytest.raises(NotExact):
        jpeg.body_of_size(planes, 90, 100, halve_height=True)
