"""Photo files of every kind are decoded upright in RGB, or refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from fsmount.album.photos import SNIFF_BYTES, Photo, Unfit, is_photo, read, shown_name
from tests.support.photos import Pixels, camera, exif, jpeg, scene, srgb

BOX = 128


def rgb(photo: Photo) -> Pixels:
    bands = [Image.fromarray(plane) for plane in photo.planes]
    return np.asarray(Image.merge("YCbCr", bands).convert("RGB"))


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def near(got: Pixels, wanted: Pixels, most: float = 4) -> bool:
    return bool(np.abs(got.astype(int) - wanted).mean() < most)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_from_every_orientation(orientation: int) -> None:
    data = jpeg(scene(5, 100, 60), exif=exif(orientation))
    photo = read(data, BOX)
    with Image.open(io.BytesIO(data)) as image:
        wanted = ImageOps.exif_transpose(image)
    assert (photo.rect.width, photo.rect.height) == wanted.size
    assert near(rgb(photo), np.asarray(wanted))
    assert (photo.orientation, photo.size) == (orientation, (100, 60))


def test_large_ones_are_shrunk_and_small_ones_not_enlarged() -> None:
    large = read(jpeg(scene(1, 400, 300)), BOX)
    assert (large.rect.width, large.rect.height) == (128, 96)
    wanted = Image.fromarray(scene(1, 400, 300)).resize((128, 96), Image.Resampling.BICUBIC)
    assert near(rgb(large), np.asarray(wanted))
    small = read(jpeg(scene(1, 40, 30)), BOX)
    assert (small.rect.width, small.rect.height) == (40, 30)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_modes(mode: str) -> None:
    picture = Image.fromarray(scene(2, 60, 40)).convert(mode)
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    more = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    photo = read(saved(picture, kind, **more), BOX)
    assert near(rgb(photo), np.asarray(picture.convert("RGB")), 8)


def test_what_is_transparent_lies_on_black() -> None:
    clear = np.full((40, 60, 4), 200, np.uint8)
    clear[:, :, 3] = 255
    clear[:20, :, 3] = 0
    pixels = rgb(read(saved(Image.fromarray(clear), "PNG"), BOX))
    assert pixels[:20].max() == 0
    assert near(pixels[20:], clear[20:, :, :3])


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 60).astype(np.uint16)
    picture = Image.fromarray(np.tile(ramp, (40, 1)))
    for kind in ("PNG", "TIFF"):
        photo = read(saved(picture, kind), BOX)
        assert near(photo.planes[0], np.tile(ramp >> 8, (40, 1)).astype(np.uint8), 2)


def test_a_cmyk_profile_is_applied_and_not_kept() -> None:
    data = saved(Image.fromarray(scene(2, 60, 40)).convert("CMYK"), "JPEG", icc_profile=b"x" * 200)
    photo = read(data, BOX)
    assert b"ICC_PROFILE" not in photo.head


def test_a_profile_for_rgb_is_kept() -> None:
    assert srgb() in read(jpeg(scene(1, 40, 30), icc_profile=srgb()), BOX).head


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (900, 90), (7, 5), (4001, 1)])
def test_sizes(size: tuple[int, int]) -> None:
    photo = read(jpeg(scene(1, *size)), BOX)
    assert photo.planes[0].shape == (photo.rect.height, photo.rect.width)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_formats(kind: str) -> None:
    data = saved(Image.fromarray(scene(3, 80, 60)), kind)
    name = f"a.{kind[:4].lower()}".encode()
    assert is_photo(name, data[:SNIFF_BYTES])
    assert near(rgb(read(data, BOX)), scene(3, 80, 60), 8)


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = saved(Image.fromarray(scene(3, 80, 60)), "HEIF", exif=exif(1)[6:])
    assert is_photo(b"a.HEIC", data[:SNIFF_BYTES])
    photo = read(data, BOX)
    assert near(rgb(photo), scene(3, 80, 60), 8)
    assert b"Canon" in photo.head


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a picture"),
        (b"just text", "not a picture"),
        (camera(1)[:20], "not a picture"),
        (camera(1)[:10_000], "cleanly"),
        (camera(1)[:-2000], "cleanly"),
        (saved(Image.fromarray(scene(1, 60, 40)), "PNG")[:-400], "cleanly"),
        (saved(Image.new("P", (10, 10)), "GIF"), "GIF"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        read(data, BOX)


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(scene(seed, 40, 30)) for seed in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(Unfit, match="more than one"):
        read(stream.getvalue(), BOX)


def test_a_picture_too_large_to_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(scene(1, 400, 300))
    read(data, BOX)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Unfit):
        read(data, BOX)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"IMG_1.JPG", b"IMG_1.JPG"),
        (b"a.jpeg", b"a.jpeg"),
        (b"IMG_1.HEIC", b"IMG_1.HEIC.jpg"),
        (b"\xff\xfe.png", b"\xff\xfe.png.jpg"),
        (b"none", b"none.jpg"),
        (b"x" * 253, b"x" * 253),
    ],
)
def test_names(name: bytes, shown: bytes) -> None:
    assert shown_name(name) == shown


def test_raw_files_of_cameras_are_no_photos() -> None:
    data = saved(Image.fromarray(scene(1, 60, 40)), "TIFF")[:SNIFF_BYTES]
    assert not is_photo(b"IMG.NEF", data)
    assert not is_photo(b"IMG.mov", b"\0\0\0\x14ftypqt  \0\0\0\0")
    assert is_photo(b"IMG.tif", data)
