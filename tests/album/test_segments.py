"""The head in front of the pixels comes back unchanged except for the orientation."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fsmount.album.segments import (
    SOI,
    head_of_image,
    head_of_jpeg,
    reset_orientation,
    rotate_upright,
    segments_of,
    trailing_bytes,
)
from tests.support.photos import MAKER_TEXT, camera, exif, jpeg, scene, srgb

EXIF_BYTES = len(b"Exif\0\0")


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def body_of(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        stream = io.BytesIO()
        image.convert("RGB").resize((8, 8)).save(stream, "JPEG")
    return stream.getvalue()[2:]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_only_the_orientation_changes(order: str, orientation: int) -> None:
    tags = exif(orientation, order=order)[EXIF_BYTES:]
    patched, was = reset_orientation(tags)
    assert was == orientation
    assert len(patched) == len(tags)
    changed = [at for at in range(len(tags)) if tags[at] != patched[at]]
    assert len(changed) == (0 if orientation == 1 else 1)
    assert reset_orientation(patched) == (patched, 1)


def test_a_thumbnail_is_turned_with_the_photo() -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 40:] = 250
    tags = exif(6, thumbnail=jpeg(pixels))[EXIF_BYTES:]
    patched, _ = reset_orientation(tags)
    assert len(patched) == len(tags)
    start = patched.index(b"\xff\xd8\xff")
    with Image.open(io.BytesIO(patched[start:])) as small:
        assert small.size == (48, 64)
        got = np.asarray(small.convert("L"))
    assert got[:30].mean() < 20
    assert got[45:].mean() > 230
    # The bytes around the thumbnail stay in place: offsets in the maker note count from the header.
    assert patched.index(MAKER_TEXT) == tags.index(MAKER_TEXT)


def test_a_thumbnail_that_is_none_stays() -> None:
    tags = exif(6, thumbnail=b"\xff\xd8\xff nothing")[EXIF_BYTES:]
    assert b"\xff\xd8\xff nothing" in reset_orientation(tags)[0]


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_any_bytes_are_taken_for_exif(data: bytes, start: bytes) -> None:
    patched, orientation = reset_orientation(start + data)
    assert len(patched) == len(start + data)
    assert 1 <= orientation <= 8


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_for_a_jpeg(data: bytes) -> None:
    head, _, _ = head_of_jpeg(b"\xff\xd8" + data, rgb_profile=True)
    assert head.startswith(b"\xff\xd8")


def test_a_head_has_the_segments_in_their_order() -> None:
    data = camera(1, orientation=6)
    head, orientation, _ = head_of_jpeg(data, rgb_profile=True)
    assert orientation == 6
    before = [(marker, content) for marker, content in segments_of(data) if marker >= 0xE0]
    after = list(segments_of(head + body_of(data)))
    assert [marker for marker, _ in before] == [marker for marker, _ in after[: len(before)]]
    assert [b for b in before if b[0] != 0xE1] == [a for a in after[: len(before)] if a[0] != 0xE1]


def test_what_speaks_of_the_old_pixels_is_left_out() -> None:
    data = jpeg(scene(1, 16, 16))
    more = segment(0xE2, b"MPF\0II*\0") + segment(0xEE, b"Adobe\0d\0\0\0\0\2")
    more += segment(0xED, b"Photoshop 3.0\0iptc") + segment(0xEB, b"JP gain")
    head, _, _ = head_of_jpeg(data[:2] + more + data[2:], rgb_profile=True)
    assert b"MPF" not in head
    assert b"Adobe" not in head
    assert b"iptc" in head
    assert b"JP gain" in head


@pytest.mark.parametrize(
    ("marker", "kind"), [(0xE1, b"http://ns.adobe.com/xmp/extension/\0"), (0xE2, b"FPXR\0")]
)
def test_what_is_bulky_is_kept_unless_it_outweighs_the_photo(marker: int, kind: bytes) -> None:
    data = jpeg(scene(1, 16, 16))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    more = segment(marker, kind + b"x" * 40_000)
    head, _, left_out = head_of_jpeg(data[:2] + xmp + more + data[2:], rgb_profile=True)
    assert (more in head, left_out) == (True, 0)
    head, _, left_out = head_of_jpeg(data[:2] + xmp + more * 2 + data[2:], rgb_profile=True)
    assert (more in head, xmp in head) == (False, True)
    assert left_out == 2 * (len(more) - 4)


@pytest.mark.parametrize(
    "more",
    [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"comment": b"\xff\xd9 \xff\xda"}],
)
def test_what_stands_behind_the_picture_is_counted(more: dict[str, Any]) -> None:
    data = jpeg(scene(3, 90, 70), exif=exif(1, thumbnail=jpeg(scene(4, 16, 12))), **more)
    assert trailing_bytes(data) == trailing_bytes(data + bytes(500)) == 0
    assert trailing_bytes(data + b"a video") == 7
    assert trailing_bytes(data + jpeg(scene(1, 16, 16))) > 300
    assert head_of_jpeg(data + b"a video", rgb_profile=True)[2] == 7
    assert trailing_bytes(data[:-2]) == 0


@given(st.binary(max_size=300))
def test_any_bytes_end_somewhere(tail: bytes) -> None:
    assert 0 <= trailing_bytes(SOI + tail) <= len(tail)


def test_a_profile_for_other_colours_is_left_out() -> None:
    data = jpeg(scene(1, 16, 16), icc_profile=srgb())
    assert b"ICC_PROFILE" in head_of_jpeg(data, rgb_profile=True)[0]
    assert b"ICC_PROFILE" not in head_of_jpeg(data, rgb_profile=False)[0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_heads_of_other_formats(kind: str) -> None:
    stream = io.BytesIO()
    profile = srgb() * 40 if kind == "PNG" else srgb()
    picture = Image.fromarray(scene(1, 16, 16))
    picture.save(stream, kind, exif=exif(6), icc_profile=profile)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        image.load()
        head = head_of_image(image, rgb_profile=True)
    with Image.open(io.BytesIO(head + body_of(stream.getvalue()))) as made:
        tags = made.getexif()
        assert tags[0x010F] == "Canon"
        assert tags.get(0x0112, 1) == 1
        assert made.info["icc_profile"] == profile


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_takes_orientations_for(orientation: int) -> None:
    data = jpeg(scene(2, 40, 24), exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(np.asarray(rotate_upright(image, orientation)), wanted)
