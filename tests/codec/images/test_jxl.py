from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsmount.codec.images import jxl
from fsmount.codec.images.jxl_header import codestream
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    dtype: Any = draw(st.sampled_from([np.uint8, np.uint16]))
    top = int(np.iinfo(dtype).max)
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)))
    elements = st.integers(0, top)
    image: Frame = draw(hnp.arrays(dtype, shape, elements=elements, fill=st.sampled_from([0, top])))
    return image


LIBRARIES = ["imagecodecs", "jxlpy"]


def use(monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    """Encode and decode by one library, as if the other was not installed."""
    pytest.importorskip(only)
    if only == "jxlpy":
        monkeypatch.setattr(jxl, "imagecodecs", lambda part: None)
    else:
        monkeypatch.setattr(jxl, "jxlpy", lambda: None)


@pytest.fixture(params=[*LIBRARIES, "both"], autouse=True, name="library")
def each_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test with either library, and with both, which share the work."""
    name = str(request.param)
    if name == "both":
        for one in LIBRARIES:
            pytest.importorskip(one)
    else:
        use(monkeypatch, name)
    return name


def check(image: Frame, effort: int = 1) -> bytes:
    data = jxl.encode(image, effort)
    back = jxl.decode(data, image.shape[2])
    assert back.dtype == image.dtype
    assert back.shape == image.shape
    assert back.flags.c_contiguous
    assert np.array_equal(back, image)
    return data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames(), st.sampled_from([1, 2, 3, 5, 7]))
def test_round_trip(image: Frame, effort: int) -> None:
    check(image, effort)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_constant(channels: int, dtype: type[np.uint8] | type[np.uint16]) -> None:
    for value in (0, 1, np.iinfo(dtype).max):
        check(np.full((1, 1, channels), value, dtype))
        assert len(check(np.full((300, 200, channels), value, dtype))) < 500


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("effort", [1, 3])
def test_larger_than_one_group(dtype: type[np.uint8] | type[np.uint16], effort: int) -> None:
    image: Frame = np.random.default_rng(1).integers(0, 256, (300, 520, 4), dtype)
    image[..., 3] = 0
    check(image, effort)


def test_sides_above_those_of_webp() -> None:
    check((np.arange(20000) % 256).astype(np.uint8).reshape(1, 20000, 1))


def test_views_are_encoded_as_they_look() -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 50, 4), np.uint8)
    check(image[::2, 10:40, :3])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint32),
        np.broadcast_to(np.zeros(3, np.uint8), (20000, 20000, 3)),
    ],
    ids=["empty", "uint32", "large"],
)
def test_what_does_not_fit(image: Frame) -> None:
    assert not jxl.fits(image)
    with pytest.raises(ValueError, match="no JPEG XL"):
        jxl.encode(image)


@pytest.mark.parametrize("data", [b"", b"\xff\x0a", bytes(100), b"\xff\x0a" + b"\x55" * 60])
def test_what_is_not_jpeg_xl_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        jxl.decode(data, 3)


@pytest.mark.parametrize("claimed", [1, 2, 4])
def test_other_channels_are_damaged(claimed: int) -> None:
    with pytest.raises(Damaged, match="channels"):
        jxl.decode(jxl.encode(np.zeros((4, 4, 3), np.uint8)), claimed)


def test_a_claimed_size_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl.encode(np.zeros((40, 50, 3), np.uint8))
    monkeypatch.setattr(jxl, "MAX_SAMPLES", 40 * 50 * 3 - 1)
    with pytest.raises(Damaged, match="50 x 40 pixels are too many"):
        jxl.decode(data, 3)


def test_hostile_bytes_raise_nothing_but_damaged() -> None:
    choose = random.Random(3)
    noise = np.random.default_rng(2)
    good = [
        (jxl.encode(noise.integers(0, 40, (40, 50, channels)).astype(dtype), effort), channels)
        for channels in (1, 2, 3, 4)
        for dtype in (np.uint8, np.uint16)
        for effort in (1, 5)
    ]
    refused = 0
    for _ in range(400):
        original, channels = choose.choice(good)
        data = bytearray(original)
        for _ in range(choose.choice((1, 2, 5))):
            data[choose.randrange(min(len(data), choose.choice((20, 10000))))] ^= 1 << (
                choose.randrange(8)
            )
        try:
            jxl.decode(bytes(data), channels)
        except Damaged:
            refused += 1
    assert refused > 200


def turned(stream: bytes) -> bytes:
    """Put an orientation into a bare codestream. Each side of its picture is below 512 pixels."""
    bits = int.from_bytes(stream[2:], "little")
    head = 1 + 2 + 9 + 3 + 2 + 9  # two sides: neither is a multiple of 8 or a ratio of the other
    fields = bits & ((1 << head) - 1) | 0b0_0_0_101_1_0 << head  # turned by 90 degrees
    rest = bits >> (head + 2)  # skips two bits: "not all defaults", "no more fields"
    whole = fields | rest << (head + 8)
    return stream[:2] + whole.to_bytes(len(stream), "little")


def test_a_picture_that_is_to_be_turned_is_damaged() -> None:
    data = jxl.encode(np.zeros((41, 57, 3), np.uint8))
    with pytest.raises(Damaged, match="turns or mirrors"):
        jxl.read(turned(data))


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 30)])
@pytest.mark.parametrize("long", [False, True])
def test_files_in_containers(cuts: tuple[int, ...], long: bool) -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 50, 3), np.uint8)
    stream = jxl.encode(image)
    ends = [*cuts, len(stream)]
    parts = [stream[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    if len(parts) == 1:
        boxes = [(b"jxlc", stream)]
    else:
        last = len(parts) - 1
        numbers = [(at | (at == last) << 31).to_bytes(4, "big") for at in range(len(parts))]
        boxes = [(b"jxlp", number + part) for number, part in zip(numbers, parts, strict=True)]
    data = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    for kind, body in boxes:
        if long:
            data += b"\0\0\0\1" + kind + (len(body) + 16).to_bytes(8, "big") + body
        else:
            data += (len(body) + 8).to_bytes(4, "big") + kind + body
    assert codestream(data) == stream
    assert np.array_equal(jxl.read(data), image)


def test_a_container_without_a_picture_is_damaged() -> None:
    for rest in (b"", b"\0\0\0\3jxlc", bytes(40), b"\0\0\0\1jxlp" + bytes(20)):
        with pytest.raises(Damaged):
            jxl.read(b"\0\0\0\x0cJXL \r\n\x87\n" + rest)
