"""jxlpy and imagecodecs read each other's files. fsmount reads the head as jxlpy does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.images import jxl
from fsmount.codec.images.jxl_header import Header, codestream, header
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged, FsmountError
from tests.codec.images.test_jxl import frames, use

jxlpy = pytest.importorskip("jxlpy")
imagecodecs = pytest.importorskip("imagecodecs")

BOTH_WAYS = [("jxlpy", "imagecodecs"), ("imagecodecs", "jxlpy")]


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
@settings(deadline=None)
@given(image=frames(), effort=st.sampled_from([2, 3, 5, 7]))
def test_one_reads_what_the_other_writes(
    writer: str, reader: str, image: Frame, effort: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(patch, writer)
        data = jxl.encode(image, effort)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, reader)
        for back in (jxl.decode(data, image.shape[2]), jxl.read(data)):
            assert back.dtype == image.dtype
            assert np.array_equal(back, image)


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("effort", [1, 3, 9])
def test_larger_ones(
    monkeypatch: pytest.MonkeyPatch, writer: str, reader: str, channels: int, effort: int
) -> None:
    noise = np.random.default_rng(channels)
    image: Frame = (noise.integers(0, 256, (300, 520, channels)) // 40).astype(np.uint8)
    use(monkeypatch, writer)
    data = jxl.encode(image, effort)
    monkeypatch.undo()
    use(monkeypatch, reader)
    assert np.array_equal(jxl.decode(data, channels), image)


def told_by_jxlpy(data: bytes) -> Header:
    decoder = jxlpy.JXLPyDecoder(data, num_threads=1)
    try:
        info = decoder.get_info()
    finally:
        decoder.close()
    return Header(
        height=info["ysize"],
        width=info["xsize"],
        colours=info["num_color_channels"],
        extra=info["num_extra_channels"],
        bits=info["bits_per_sample"],
        alpha_bits=info["alpha_bits"],
    )


@settings(deadline=None)
@given(image=frames(), lossless=st.booleans(), boxes=st.booleans())
def test_heads_are_read_as_jxlpy_reads_them(image: Frame, lossless: bool, boxes: bool) -> None:
    data = imagecodecs.jpegxl_encode(
        image if image.shape[2] > 1 else image[:, :, 0],
        effort=3,
        lossless=lossless,
        planar=False,
        usecontainer=boxes,
        numthreads=1,
    )
    assert header(data) == told_by_jxlpy(data)
    assert header(codestream(data)) == header(data)


@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((8, 8), (256, 256), (264, 8), (40, 48), (48, 64), (64, 96), (90, 160), (40, 50)),
        *((50, 100), (1, 2000), (9000, 1), (600, 9000), (1, 300000)),
    ],
)
def test_sides_of_all_forms(height: int, width: int) -> None:
    data = jxl.encode(np.zeros((height, width, 1), np.uint8))
    assert (header(data).height, header(data).width) == (height, width)
    assert header(data) == told_by_jxlpy(data)


@settings(deadline=None, max_examples=400)
@given(st.binary(min_size=1, max_size=60))
def test_any_head_is_refused_or_read_as_jxlpy_reads_it(rest: bytes) -> None:
    data = b"\xff\x0a" + rest
    try:
        ours = header(data)
    except Damaged:
        return
    try:
        theirs = told_by_jxlpy(data)
    except Exception:
        return  # jxlpy reads on, and finds an error behind the head
    if theirs.bits:  # else jxlpy needs more of the file
        assert ours == theirs


def test_without_either_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    data = jxl.encode(image)
    monkeypatch.setattr(jxl, "imagecodecs", lambda part: None)
    monkeypatch.setattr(jxl, "jxlpy", lambda: None)
    for call in (lambda: jxl.encode(image), lambda: jxl.decode(data, 3)):
        with pytest.raises(FsmountError, match="neither is installed"):
            call()
