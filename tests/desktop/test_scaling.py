"""Scaling: every kind of picture becomes a PNG of 8 bits with alpha, with its colours."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fsmount.desktop.scaling import NotAPictureError, is_picture, scale
from tests.support.pngs import chunk

Pixels = npt.NDArray[np.uint8]


def saved(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def shown(png: bytes) -> Pixels:
    """The pixels of a thumbnail. Asserts its form."""
    # IHDR: 8 bits, RGBA, not interlaced.
    assert struct.unpack(">BBBBB", png[24:29]) == (8, 6, 0, 0, 0)
    with Image.open(io.BytesIO(png)) as image:
        assert image.info == {}
        return np.asarray(image)


def near(found: Pixels, wanted: tuple[int, ...]) -> bool:
    return bool((np.abs(found.astype(int) - wanted) <= 3).all())


def two_halves(mode: str, left: object, right: object) -> Image.Image:
    image = Image.new(mode, (400, 200), left)  # type: ignore[arg-type]
    image.paste(right, (200, 0, 400, 200))  # type: ignore[arg-type]
    return image


RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)
PALETTE = two_halves("P", 1, 2)
PALETTE.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
GREY_16 = np.repeat([[50 << 8, 200 << 8]], 200, axis=1).repeat(200, axis=0).astype(np.uint16)


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (saved(two_halves("RGB", RED[:3], BLUE[:3])), RED, BLUE),
        (saved(two_halves("RGBA", (255, 0, 0, 100), BLUE)), (255, 0, 0, 100), BLUE),
        (saved(PALETTE), RED, BLUE),
        (saved(PALETTE, transparency=2), RED, None),
        (saved(two_halves("1", 0, 1)), (0, 0, 0, 255), (255, 255, 255, 255)),
        (saved(two_halves("L", 50, 200)), (50, 50, 50, 255), (200, 200, 200, 255)),
        (saved(two_halves("L", 50, 200), transparency=50), None, (200, 200, 200, 255)),
        (saved(two_halves("LA", (50, 80), (200, 255))), (50, 50, 50, 80), (200, 200, 200, 255)),
        (saved(Image.fromarray(GREY_16)), (50,) * 3 + (255,), (200,) * 3 + (255,)),
        (saved(two_halves("RGB", RED[:3], BLUE[:3]), "JPEG", quality=95), RED, BLUE),
        (saved(two_halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "TIFF"), RED, BLUE),
        (saved(two_halves("RGB", RED[:3], BLUE[:3]), "WEBP", lossless=True), RED, BLUE),
        (saved(two_halves("RGB", RED[:3], BLUE[:3]), "GIF"), RED, BLUE),
        (saved(two_halves("RGB", RED[:3], BLUE[:3]), "BMP"), RED, BLUE),
    ],
)
def test_kinds_of_pictures(
    data: bytes, left: tuple[int, ...] | None, right: tuple[int, ...] | None
) -> None:
    large, normal = map(shown, scale(data, [256, 128]))
    assert (large.shape, normal.shape) == ((128, 256, 4), (64, 128, 4))
    for found in (large, normal):
        width = found.shape[1]
        for part, wanted in (
            (found[:, : width // 2 - 8], left),
            (found[:, width // 2 + 8 :], right),
        ):
            assert near(part, wanted) if wanted else not part[..., 3].any()


def test_a_picture_of_16_bits_and_colours() -> None:
    samples = np.zeros((300, 300, 3), ">u2")
    samples[:] = (0x12FF, 0x8000, 0xFE00)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 300, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (found,) = map(shown, scale(data, [128]))
    assert found.shape == (128, 128, 4)
    assert near(found, (0x12, 0x80, 0xFE, 255))


def test_a_small_picture_stays_as_it_is() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (90, 100, 4), np.uint8)
    for png in scale(saved(Image.fromarray(picture)), [256, 128]):
        assert np.array_equal(shown(png), picture)


def test_the_longer_side_fits() -> None:
    tall = saved(Image.new("RGB", (50, 1000)))
    assert [shown(png).shape for png in scale(tall, [256, 128])] == [(256, 13, 4), (128, 6, 4)]


def test_a_photo_is_turned_as_its_exif_data_say() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(two_halves("RGB", RED[:3], BLUE[:3]), "JPEG", quality=95, exif=exif)
    (found,) = map(shown, scale(data, [128]))
    assert found.shape == (128, 64, 4)
    assert near(found[:56], RED)
    assert near(found[72:], BLUE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a note",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        saved(Image.new("RGB", (400, 400)))[:100],
        saved(Image.effect_noise((400, 400), 50))[:20000],
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 99999, 99999, 8, 2, 0, 0, 0)),
    ],
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(NotAPictureError, match="no picture that can be read"):
        scale(data, [128])


def test_names_of_pictures() -> None:
    assert is_picture(b"a.png")
    assert is_picture(b"a.b.JPG")
    assert not is_picture(b"png")
    assert not is_picture(b"a.txt")
    assert not is_picture(b"a.png.part")
