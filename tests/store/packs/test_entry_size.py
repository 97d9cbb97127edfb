"""A picture never takes more than its file and a small fixed overhead."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsmount.errors import NotExact
from fsmount.store.frames import jobs
from fsmount.store.packs.pack import build_entry
from fsmount.store.store import Store
from tests.support.encoding import Line, put, reopened, settled
from tests.support.frames import png
from tests.support.pngs import IEND, SIGNATURE, chunk


def allowed(size: int) -> int:
    """Bytes of an entry: file, headers, record and path, and what it may cost to help others."""
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
    store = Store.open(root)
    async with store.running(count=1):
        put(store, b"a.png", data)
        await settled(store, {b"a.png": data})
    (found,) = store.index.all_objects()
    assert found.length <= allowed(len(data))
    reasons = store.stats()["raw_reasons"]
    assert reasons in ({}, {jobs.LARGER: 1})
    store.close()
    await reopened(root, {b"a.png": data})


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
    store = Store.open(root)
    async with store.running(count=1):
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    for found in store.index.all_objects():
        assert found.length <= allowed(found.size)
    store.close()


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
            encoded = jobs.encode(order, 1 << 20)
        except NotExact as error:
            assert error.detail == jobs.LARGER or "encoder" in str(error.detail)
            continue
        assert len(build_entry(encoded.entry)) <= allowed(len(file))


@pytest.mark.usefixtures("inline")
async def test_a_screen_that_compresses_well_still_helps_the_next(root: Path) -> None:
    """Kept raw, it could not be taken tiles from."""
    frame = np.full((300, 400, 3), 255, np.uint8)
    frame[::9, ::5] = 0
    files = {}
    for number in range(4):
        frame[100:108, 10 * number : 10 * number + 8] = 90
        files[b"%d.png" % number] = png(frame, level=9)
    store = Store.open(root)
    async with store.running(count=1):
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    assert [found.kind for found in store.index.all_objects()] == ["key", *["delta"] * 3]
    store.close()
