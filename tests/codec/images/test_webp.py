from __future__ import annotations

import io
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fsmount.codec.images import webp
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

frames = st.integers(1, 4).flatmap(
    lambda channels: hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(channels)),
        elements=st.integers(0, 255),
        fill=st.sampled_from([0, 255]),
    )
)


@pytest.fixture(params=["imagecodecs", "Pillow"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with either library."""
    if request.param == "Pillow":
        monkeypatch.setattr(webp, "imagecodecs", lambda part: None)
    else:
        pytest.importorskip("imagecodecs")


def check(image: Frame, effort: webp.Effort = webp.NORMAL) -> bytes:
    data = webp.encode(image, effort)
    back = webp.decode(data, image.shape[2])
    assert back.dtype == np.uint8
    assert back.shape == image.shape
    assert back.flags.c_contiguous
    assert np.array_equal(back, image)
    return data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames, st.sampled_from([webp.Effort(0, 50), webp.NORMAL, webp.Effort(6, 99)]))
def test_round_trip(image: Frame, effort: webp.Effort) -> None:
    check(image, effort)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("value", [0, 127, 255])
def test_constant(channels: int, value: int) -> None:
    check(np.full((1, 1, channels), value, np.uint8))
    assert len(check(np.full((300, 200, channels), value, np.uint8))) < 100


@pytest.mark.parametrize("channels", [2, 4])
def test_colours_of_transparent_pixels_are_kept(channels: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 50, channels), np.uint8)
    image[..., -1] = 0
    check(image)


def test_views_are_encoded_as_they_look() -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 50, 4), np.uint8)
    check(image[::2, 10:40, :3])


def test_side_limit() -> None:
    assert webp.fits(np.zeros((1, webp.MAX_SIDE, 3), np.uint8))
    check(np.zeros((1, webp.MAX_SIDE, 3), np.uint8))
    for image in (
        np.zeros((1, webp.MAX_SIDE + 1, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
        np.broadcast_to(np.zeros(3, np.uint8), (webp.MAX_SIDE, webp.MAX_SIDE, 3)),
    ):
        assert not webp.fits(image)
        with pytest.raises(ValueError, match="WebP cannot hold"):
            webp.encode(image)


def lossy() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "WEBP", quality=50)
    return out.getvalue()


def animated() -> bytes:
    out = io.BytesIO()
    pictures = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    pictures[0].save(out, "WEBP", lossless=True, save_all=True, append_images=pictures[1:])
    return out.getvalue()


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes(100), lossy(), animated()])
def test_what_is_not_ours_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        webp.decode(data, 3)


def test_a_claimed_size_takes_no_memory() -> None:
    data = bytearray(webp.encode(np.zeros((4, 4, 3), np.uint8)))
    data[21:25] = (0x0FFFFFFF | data[24] >> 4 << 28).to_bytes(4, "little")
    with pytest.raises(Damaged, match="16384 x 16384 pixels are too many"):
        webp.decode(bytes(data), 3)


def test_hostile_bytes_raise_nothing_but_damaged() -> None:
    image = np.random.default_rng(2).integers(0, 40, (40, 50, 4), np.uint8)
    good = webp.encode(image)
    choose = random.Random(3)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(choose.choice((1, 2, 5))):
            data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        try:
            webp.decode(bytes(data[: choose.choice((len(data), choose.randrange(len(data))))]), 4)
        except Damaged:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_either_library_reads_what_the_other_wrote(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imagecodecs")
    image = np.random.default_rng(channels).integers(0, 9, (70, 90, channels), np.uint8)
    written = webp.encode(image)
    monkeypatch.undo()
    assert np.array_equal(webp.decode(written, channels), image)
    other = webp.encode(image)
    monkeypatch.setattr(webp, "imagecodecs", lambda part: None)
    assert np.array_equal(webp.decode(other, channels), image)
