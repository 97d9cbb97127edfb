"""JPEGs become JPEG XL files only if the same bytes come back."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsmount.codec.images import jpeg, jxl
from fsmount.errors import Damaged, NeedsExtra, NotExact
from tests.support.photos import camera, scene

pytest.importorskip("imagecodecs")


def saved(image: Image.Image, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 92, **more})
    return stream.getvalue()


PICTURE = Image.fromarray(scene(3, 237, 163))
WHOLE: dict[str, bytes] = {
    "camera": camera(1),
    "baseline": saved(PICTURE),
    "progressive": saved(PICTURE, progressive=True),
    "optimized": saved(PICTURE, optimize=True),
    "4:4:4": saved(PICTURE, subsampling=0),
    "4:2:2": saved(PICTURE, subsampling=1),
    "rgb": saved(PICTURE, keep_rgb=True),
    "grey": saved(PICTURE.convert("L")),
    "restart marks": saved(PICTURE, restart_marker_blocks=3),
    "comment": saved(PICTURE, comment=b"c" * 300),
    "a second picture behind": camera(1) + camera(2),
    "zeros behind": saved(PICTURE) + bytes(5000),
}
NOT_THERE: dict[str, bytes] = {
    "cmyk": saved(PICTURE.convert("CMYK")),
    "cut off": camera(1)[:-700],
    "head only": camera(1)[:400],
    "start mark only": b"\xff\xd8\xff",
    "rubbish": b"\xff\xd8\xff" + random.Random(1).randbytes(3000),
    "empty": b"",
    "not a JPEG": b"text" * 100,
}


@pytest.mark.parametrize("kind", list(WHOLE))
def test_every_byte_comes_back(kind: str) -> None:
    data = WHOLE[kind]
    payload = jpeg.encode(data)
    assert len(payload) < 0.95 * len(data)
    assert jpeg.decode(payload, "it") == data


@pytest.mark.parametrize("kind", list(NOT_THERE))
def test_what_has_no_such_form_is_refused(kind: str) -> None:
    with pytest.raises(NotExact) as error:
        jpeg.encode(NOT_THERE[kind])
    assert error.value.detail in jpeg.REASONS


def test_what_gets_no_smaller_is_refused() -> None:
    with pytest.raises(NotExact) as error:
        jpeg.encode(saved(PICTURE.resize((1, 1))))
    assert error.value.detail == jpeg.NO_GAIN


def test_what_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("L", (16_400, 4_200), 7)
    for more in ({}, {"progressive": True}, {"comment": b"x" * 60_000}):
        with pytest.raises(NotExact) as error:
            jpeg.encode(saved(picture, **more))
        assert error.value.detail == jpeg.TOO_LARGE
    monkeypatch.setattr(jpeg, "_MOST_PIXELS", 237 * 163)
    jpeg.encode(WHOLE["baseline"])
    monkeypatch.setattr(jpeg, "_MOST_PIXELS", 237 * 163 - 1)
    for kind, data in WHOLE.items():
        with pytest.raises(NotExact):
            jpeg.encode(data)
        assert jpeg._pixels(data) >= 237 * 163, kind
    # A false header costs at most the worker process.
    assert jpeg._pixels(b"\xff\xd8" + b"\xff" * 50) == 0
    assert jpeg._pixels(b"") == 0


class _Library:
    """A stand-in for imagecodecs that decodes to a given answer."""

    def __init__(self, answer: bytes | Exception) -> None:
        self._answer = answer

    def jpegxl_encode_jpeg(self, *_: object, **__: object) -> bytes:
        return b"small"

    def jpegxl_decode_jpeg(self, *_: object, **__: object) -> bytes:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize("answer", [camera(1)[:-1], b"", RuntimeError("no"), ValueError("no")])
def test_a_library_that_gives_other_bytes_is_noticed(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception
) -> None:
    monkeypatch.setattr(jpeg, "imagecodecs", lambda part: _Library(answer))
    with pytest.raises(NotExact):
        jpeg.encode(camera(1))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = jpeg.encode(camera(1))
    monkeypatch.setattr(jpeg, "imagecodecs", lambda part: None)
    assert not jpeg.available()
    with pytest.raises(NotExact):
        jpeg.encode(camera(1))
    with pytest.raises(NeedsExtra, match=r"object 7 is whole.*imagecodecs.*fsmount\[jpeg\]"):
        jpeg.decode(payload, "object 7")


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.booleans())
def test_a_damaged_file_is_damage_or_the_same(source: random.Random, cut: bool) -> None:
    data = WHOLE["camera"]
    payload = bytearray(jpeg.encode(data))
    for _ in range(source.randint(1, 4)):
        payload[source.randrange(len(payload))] ^= 1 << source.randrange(8)
    if cut:
        del payload[source.randrange(len(payload)) :]
    try:
        # A reader of the store compares the hash. So this test only forbids other exceptions.
        jpeg.decode(bytes(payload), "it")
    except Damaged as error:
        assert "it" in str(error)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=2000))
def test_any_bytes_come_back_or_are_refused(tail: bytes) -> None:
    for data in (tail, b"\xff\xd8\xff" + tail, WHOLE["grey"] + tail, WHOLE["grey"][:-2] + tail):
        try:
            payload = jpeg.encode(data)
        except NotExact:
            continue
        assert jpeg.decode(payload, "it") == data


def test_a_picture_that_was_no_jpeg_is_damage() -> None:
    payload = jxl.encode(np.zeros((20, 30, 1), np.uint8))
    with pytest.raises(Damaged):
        jpeg.decode(payload, "it")


def test_any_viewer_shows_it() -> None:
    """The decoder of another library gives the pixels of the JPEG."""
    data = WHOLE["4:4:4"]
    pixels = jxl.read(jpeg.encode(data)).astype(int)
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(pixels - np.asarray(image)).mean() < 2


def test_the_tool_of_libjxl_gives_the_jpeg_back(tmp_path: Path) -> None:
    if shutil.which("djxl") is None:
        pytest.skip("djxl is not installed (libjxl-tools)")
    for number, data in enumerate(WHOLE.values()):
        source, target = tmp_path / f"{number}.jxl", tmp_path / f"{number}.jpg"
        source.write_bytes(jpeg.encode(data))
        subprocess.run(["djxl", source, target], check=True, capture_output=True)
        assert target.read_bytes() == data
