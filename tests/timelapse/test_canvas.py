"""Pictures of all kinds on a canvas of one size."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import FsmountError
from fsmount.timelapse.canvas import Canvas

NOON = 1_717_675_200 * 10**6


def file(picture: Image.Image, form: str = "PNG") -> bytes:
    out = BytesIO()
    picture.save(out, form)
    return out.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    data = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(data).convert(mode)


def test_a_picture_comes_as_it_is() -> None:
    picture = noise(40, 30)
    frame = Canvas(height=None, clock=False).frame(file(picture), 0)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, np.asarray(picture))


def test_odd_sides_are_cut() -> None:
    picture = noise(41, 31)
    canvas = Canvas(height=None, clock=False)
    frame = canvas.frame(file(picture), 0)
    assert np.array_equal(frame, np.asarray(picture)[:30, :40])
    assert np.array_equal(canvas.frame(file(picture), 0), frame)


@pytest.mark.parametrize(("size", "wanted"), [((200, 100), (50, 100)), ((33, 77), (50, 20))])
def test_heights(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    frame = Canvas(height=50, clock=False).frame(file(noise(*size)), 0)
    assert frame.shape[:2] == wanted


def test_other_sizes_are_fitted_in() -> None:
    canvas = Canvas(height=None, clock=False)
    canvas.frame(file(noise(80, 40)), 0)
    white = Image.new("RGB", (40, 40), "white")
    frame = canvas.frame(file(white), 0)
    assert frame.shape == (40, 80, 3)
    assert (frame[:, 20:60] == 255).all()
    assert (frame[:, :20] == 0).all()
    assert (frame[:, 60:] == 0).all()
    # Larger ones shrink.
    assert canvas.frame(file(Image.new("RGB", (800, 800), "white")), 0).shape == (40, 80, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_all_kinds_of_png(mode: str) -> None:
    picture = noise(20, 20, mode)
    frame = Canvas(height=None, clock=False).frame(file(picture), 0)
    assert np.array_equal(frame, np.asarray(picture.convert("RGB")))


def test_16_bits_and_transparency() -> None:
    wide = Image.fromarray(np.array([[0, 0x8000], [0xFFFF, 0x1234]], np.uint16))
    frame = Canvas(height=None, clock=False).frame(file(wide), 0)
    assert frame[..., 0].tolist() == [[0, 0x80], [0xFF, 0x12]]
    clear = Image.new("RGBA", (2, 2), (255, 255, 255, 0))
    assert not Canvas(height=None, clock=False).frame(file(clear), 0).any()


def test_jpegs_and_damage() -> None:
    canvas = Canvas(height=None, clock=False)
    assert canvas.frame(file(noise(32, 32), "JPEG"), 0).shape == (32, 32, 3)
    for data in (b"", b"text", file(noise(32, 32))[:200]):
        with pytest.raises(FsmountError, match="cannot be decoded"):
            canvas.frame(data, 0)


def test_the_clock_is_in_its_corner() -> None:
    picture = noise(640, 400)
    plain = np.asarray(picture)
    frames = [Canvas(height=None, clock=True).frame(file(picture), when) for when in
              (NOON, NOON + 10**6)]  # fmt: skip
    rows, columns = np.nonzero((frames[0] != plain).any(axis=2))
    assert rows.min() > 350
    assert columns.max() < 250
    assert len(rows) > 500
    assert (frames[0] != frames[1]).any()
