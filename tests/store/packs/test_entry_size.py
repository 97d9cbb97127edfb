"""A picture never takes more than its file and a small fixed overhead."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsmount.codec.delta import payload
from fsmount.codec.delta.payload import Own, Payload
from fsmount.codec.zstd import Dictionary
from fsmount.errors import NotExact
from fsmount.store.frames import jobs
from fsmount.store.packs.pack import build_entry
from fsmount.store.store import open_store
from tests.support.encoding import Line, encode, put, reopened, settled
from tests.support.frames import png, screens
from tests.support.pngs import IEND, SIGNATURE, Plan, build, chunk


def allowed(size: int) -> int:
    """Bytes allowed for an entry: file, headers, record, path, and the price of helping others."""
    return size + 300 + min(512 + size // 4, 2048)


def picture(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of filtered scanlines, 8-bit RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + IEND


SHAPES = [(3, 100_000), (1, 30_000), (30_000, 1), (1, 1), (16, 16), (1, 65_535), (17_000, 2)]
CONTENTS = ["flat", "steps", "noise"]


def rows(width: int, height: int, content: str) -> bytes:
    if content == "flat":
        return (b"\1" + bytes(3 * width)) * height
    if content == "noise":
        chance = random.Random(width)
        return b"".join(b"\0" + chance.randbytes(3 * width) for _ in range(height))
    return b"".join(b"\2" + bytes([y % 7 == 0] * 3 * width) for y in range(height))


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(("width", "height"), SHAPES)
async def test_odd_shapes(root: Path, width: int, height: int, content: str) -> None:
    data = picture(width, height, rows(width, height, content))
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a.png", data)
        await settled(store, {b"a.png": data})
    (found,) = opened.index.all_objects()
    assert found.length <= allowed(len(data))
    reasons = opened.stats()["raw_reasons"]
    assert reasons in ({}, {jobs.LARGER: 1})
    opened.close()
    await reopened(root, {b"a.png": data})


Pixels = NDArray[np.integer]


def checks(x: Pixels, y: Pixels) -> Pixels:
    return x // 4 + y // 4


def gradient(x: Pixels, y: Pixels) -> Pixels:
    """A gradient in two directions, dithered."""
    return (x + y) // 40 + ((7 * x + 13 * y) % 4 > 1)


def crosses(x: Pixels, y: Pixels) -> Pixels:
    return x ^ y


def rings(x: Pixels, y: Pixels) -> Pixels:
    return ((x - 300) ** 2 + (y - 200) ** 2) // 64


def dots(x: Pixels, y: Pixels) -> Pixels:
    """Scattered dots, one in fifty pixels. Little effort makes them larger than deflate does."""
    chance = np.random.default_rng(1)
    return np.where(chance.random(x.shape) < 0.02, chance.integers(0, 16, x.shape), 0)


PATTERNS = [checks, gradient, crosses, rings, dots]
FEW_COLOURS = [(3, 1), (3, 2), (3, 4), (3, 8), (0, 1), (0, 2), (0, 4), (0, 8)]
"""(colour type, bit depth) for palette and grey."""


def few_colours(kind: tuple[int, int], size: tuple[int, int], pattern: Pixels) -> bytes:
    """A PNG of at most 16 colours; `pattern` (height, width)."""
    (colour_type, depth), (width, height) = kind, size
    samples = (pattern % (1 << min(depth, 4))).astype(np.uint8)
    bits = np.unpackbits(samples[:, :, None], axis=2)[:, :, 8 - depth :]
    packed = np.packbits(bits.reshape(height, -1), axis=1)
    palette = (bytes(range(48)) * 16)[: 3 << depth]
    head = chunk(b"PLTE", palette) if colour_type == 3 else b""
    lines = tuple(line.tobytes() for line in packed)
    plan = Plan(width, height, lines, bytes(height), colour_type, depth, head=head, level=9)
    return build(plan)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(5, 3), (32, 32), (640, 400), (1600, 900)])
@pytest.mark.parametrize("kind", FEW_COLOURS)
def test_a_picture_of_few_colours_can_help_the_next(
    tmp_path: Path,
    kind: tuple[int, int],
    size: tuple[int, int],
    pattern: Callable[[Pixels, Pixels], Pixels],
) -> None:
    """No picture of few colours is kept raw."""
    y, x = np.mgrid[: size[1], : size[0]]
    data = few_colours(kind, size, pattern(x, y))
    line = Line(tmp_path)
    encoded = line.add(data)
    assert len(build_entry(encoded.entry)) <= allowed(len(data))
    line.check()


def test_more_effort_comes_only_where_little_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[:900, :1600]
    genuine, efforts = payload.encode, []

    def encode(own: Own, dictionary: Dictionary | None = None, *, fast: bool) -> Payload:
        efforts.append(fast)
        return genuine(own, dictionary, fast=fast)

    monkeypatch.setattr(payload, "encode", encode)
    line = Line(tmp_path)
    line.add(few_colours((3, 4), (1600, 900), checks(x, y)))
    assert efforts == [True]
    line.add(few_colours((3, 4), (1600, 900), dots(x, y)))
    assert efforts == [True, True, False]


def test_no_effort_is_wasted_on_a_record_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, _ = Line(tmp_path).order(png(screens(1)[0]))
    order = replace(order, about=replace(order.about, size=1))
    efforts = []

    def encode(own: Own, dictionary: Dictionary | None = None, *, fast: bool) -> Payload:
        efforts.append(fast)
        return Payload(".webp", b"image")

    monkeypatch.setattr(payload, "encode", encode)
    monkeypatch.setattr(jobs, "raw_length", lambda about, reason: -9999)
    with pytest.raises(NotExact, match=jobs.LARGER):
        jobs.encode(order)
    assert efforts == [True]


def solid(width: int, height: int, number: int) -> bytes:
    """A picture of one colour. Each number has another colour."""
    return picture(width, height, (b"\0" + bytes([number, 7, 9]) * width) * height)


def sparse(width: int, height: int, number: int) -> bytes:
    """One tile in four has a pixel of its own. Each number has these pixels in other places."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[number::32, number::32] = (number, 1, 2)
    return png(frame, level=9)


def stored(root: Path) -> int:
    """Bytes of all files of a closed store."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


COSTLY = [(3, 100_000), (100_000, 3), (1, 30_000), (1, 1), (32, 32), (1920, 1080), (2000, 2000)]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("make", [solid, sparse])
@pytest.mark.parametrize(("width", "height"), COSTLY)
async def test_the_whole_store_costs_little_more_than_the_files(
    root: Path, width: int, height: int, make: Callable[[int, int, int], bytes]
) -> None:
    """The planner's keys of a picture take up to 4 KiB. Its entry and rows take up to 2 KiB."""
    open_store(root).close()
    empty = stored(root)
    files = {b"%d.png" % number: make(width, height, number) for number in range(4)}
    await encode(root, files)
    most = sum(len(data) + 4096 + 2048 for data in files.values())
    # The trees of the index grow by whole pages.
    assert stored(root) - empty <= most + 4 * 4096
    await reopened(root, files)


@pytest.mark.usefixtures("inline")
async def test_small_icons(root: Path) -> None:
    files = {
        b"icon%03d.png" % i: picture(
            16,
            16,
            b"".join(
                b"\0" + bytes((x * 7 * i + y * 3) % 256 for x in range(16) for _ in range(3))
                for y in range(16)
            ),
        )
        for i in range(60)
    }
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    for found in opened.index.all_objects():
        assert found.length <= allowed(found.size)
    opened.close()


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_an_entry_is_never_much_larger_than_its_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    line = Line(tmp_path_factory.mktemp("line"))
    width, height = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    colours = data.draw(st.sampled_from([1, 2, 5, 256]))
    chance = np.random.default_rng(data.draw(st.integers(0, 99)))
    level = data.draw(st.sampled_from([1, 6, 9]))
    for _ in range(2):
        frame = chance.integers(0, colours, (height, width, 3), dtype=np.uint8)
        file = png(frame, level=level)
        order, _ = line.order(file)
        try:
            encoded = jobs.encode(order).result
        except NotExact as error:
            assert error.detail == jobs.LARGER or "encoder" in str(error.detail)
            continue
        assert len(build_entry(encoded.entry)) <= allowed(len(file))


@pytest.mark.usefixtures("inline")
async def test_a_screen_that_compresses_well_still_helps_the_next(root: Path) -> None:
    """If the screen were kept raw, no tiles could be taken from it."""
    frame = np.full((300, 400, 3), 255, np.uint8)
    frame[::9, ::5] = 0
    files = {}
    for number in range(4):
        frame[100:108, 10 * number : 10 * number + 8] = 90
        files[b"%d.png" % number] = png(frame, level=9)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    assert [found.kind for found in opened.index.all_objects()] == ["key", *["delta"] * 3]
    opened.close()
