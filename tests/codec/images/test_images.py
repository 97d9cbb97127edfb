from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fsmount.codec.images import images, jxl, webp
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged


def check(image: Frame) -> tuple[str, int]:
    suffix, data = images.encode(image)
    back = images.decode(suffix, data, image.shape[2])
    assert back.dtype == image.dtype
    assert np.array_equal(back, image)
    return suffix, len(data)


def text(height: int, width: int, channels: int = 3) -> Frame:
    """A picture like a screen: flat, with rows of small repeated marks."""
    image = np.full((height, width, channels), 250, np.uint8)
    marks = np.random.default_rng(1).integers(0, 2, (height // 12, width)).astype(bool)
    for row, mark in enumerate(marks):
        image[row * 12 : row * 12 + 6, mark] = 20
    return image


def photograph(height: int, width: int) -> Frame:
    """A picture like a photograph.

    It has smooth light. Its texture is a few pixels wide and equal in all channels.
    """
    y, x = np.mgrid[:height, :width] / 80.0
    light = 120 + 60 * np.sin(x[..., None] + [0, 1, 2]) * np.cos(y[..., None])
    texture = np.random.default_rng(1).normal(0, 40, (height, width, 1))
    for axis in (0, 1, 0, 1):
        texture = (np.roll(texture, 1, axis) + 2 * texture + np.roll(texture, -1, axis)) / 4
    image: Frame = np.clip(light + texture, 0, 255).astype(np.uint8)
    return image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (16, 16), (33, 40), (270, 300)])
def test_constant(
    size: tuple[int, int], channels: int, dtype: type[np.uint8] | type[np.uint16]
) -> None:
    for value in (0, 255):
        check(np.full((*size, channels), value, dtype))


def test_screens_are_webp() -> None:
    small, large = text(200, 300), text(300, 400)
    assert check(small) == (".webp", len(webp.encode(small)))
    assert check(large) == (".webp", len(webp.encode(large, webp.QUICK)))
    assert images.encode(large, fast=False) == (".webp", webp.encode(large))


@pytest.mark.parametrize("size", [(400, 640), (100, 17_000)])
def test_more_effort_makes_scattered_dots_smaller(size: tuple[int, int]) -> None:
    """Palette indices and grey samples of few levels look like this.

    A picture with a long side becomes JPEG XL.
    """
    chance = np.random.default_rng(1)
    image = np.where(chance.random((*size, 1)) < 0.02, chance.integers(1, 16, (*size, 1)), 0)
    suffix, data = images.encode(image.astype(np.uint8), fast=False)
    assert np.array_equal(images.decode(suffix, data, 1), image)
    assert len(data) < 0.8 * len(images.encode(image.astype(np.uint8))[1])


def test_sixteen_bits_and_long_sides_are_jpeg_xl() -> None:
    assert check(np.zeros((40, 40, 3), np.uint16))[0] == ".jxl"
    assert check(np.zeros((1, 16384, 3), np.uint8))[0] == ".jxl"


def test_noise_of_sixteen_bits_harms_no_process() -> None:
    """libjxl 0.10.1 at effort 1 writes behind its buffer for such a picture."""
    program = (
        "import numpy as np; from fsmount.codec.images import images;"
        "noise = np.random.default_rng(1);"
        "[images.encode(noise.integers(0, 65536, (93, 180, channels), np.uint16))"
        " for channels in (1, 1, 2, 2)]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("side", [1, 4, 8, 16, 32])
def test_tiny_images_are_the_smaller_of_both(side: int) -> None:
    image = np.random.default_rng(side).integers(0, 4, (side, side, 3), np.uint8)
    _, size = check(image)
    assert size == min(len(webp.encode(image)), len(jxl.encode(image, 5)))


def test_one_pixel_is_jpeg_xl() -> None:
    suffix, size = check(np.full((1, 1, 3), 77, np.uint8))
    assert suffix == ".jxl"
    assert size < 30


def test_a_photograph_is_webp_at_ingest() -> None:
    assert check(photograph(300, 400))[0] == ".webp"


def test_noise_is_webp_where_jpeg_xl_gains_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    assert check(image)[0] == ".webp"


def test_unknown_suffix() -> None:
    with pytest.raises(Damaged, match="suffix"):
        images.decode(".png", b"", 3)


def test_empty_image() -> None:
    with pytest.raises(ValueError, match="no JPEG XL"):
        images.encode(np.zeros((0, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        photograph(40, 40),
        photograph(300, 300),
        photograph(300, 300)[:, :, :1],
        np.zeros((300, 300, 4), np.uint8),
        photograph(60, 60).astype(np.uint16) * 257,
    ],
)
def test_again_is_exact_and_a_large_image_gains_by_jpeg_xl(image: Frame) -> None:
    suffix, data = images.encode_again(image)
    assert np.array_equal(images.decode(suffix, data, image.shape[2]), image)
    if webp.fits(image):
        plain = len(webp.encode(image, webp.Effort(4, 100)))
        assert len(data) <= plain
        if suffix == images.JXL:
            assert len(data) + 0.05 * image.shape[0] * image.shape[1] < plain
    else:
        assert suffix == images.JXL


def test_again_chooses_both() -> None:
    assert images.encode_again(photograph(300, 300))[0] == images.JXL
    assert images.encode_again(text(300, 300))[0] == images.WEBP


@pytest.mark.parametrize("content", ["drawn", "mixed"])
def test_again_tries_jpeg_xl_for_photographs_alone(content: images.Content) -> None:
    image = photograph(300, 300)
    suffix, data = images.encode_again(image, content)
    assert suffix == images.WEBP
    assert np.array_equal(images.decode(suffix, data, 3), image)


def test_again_takes_the_highest_efforts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For large drawn images, and for photographs that become JPEG XL."""
    efforts: list[object] = []
    by_webp, by_jxl = webp.encode, jxl.encode

    def note_webp(image: Frame, effort: webp.Effort = webp.NORMAL) -> bytes:
        efforts.append(effort)
        return by_webp(image, effort)

    def note_jxl(image: Frame, effort: int = 1) -> bytes:
        efforts.append(effort)
        return by_jxl(image, effort)

    monkeypatch.setattr(webp, "encode", note_webp)
    monkeypatch.setattr(jxl, "encode", note_jxl)
    images.encode_again(text(300, 300), "drawn")
    images.encode_again(text(60, 60), "drawn")
    images.encode_again(photograph(300, 300))
    assert efforts == [(6, 100), (4, 100), (4, 100), 7, 9]


def test_a_huge_image_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_REPACK_MAX", 1000)
    image = photograph(40, 40)
    assert images.encode_again(image) == images.encode(image, fast=False)
