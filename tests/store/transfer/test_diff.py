"""Diff: the changes between pictures, and their times."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import FsmountError
from fsmount.store.frames.changes import rectangles
from fsmount.store.store import open_read_store
from fsmount.store.transfer.diff import Change, change, stretches
from tests.support.frames import png, screens
from tests.support.trees import import_into


async def changed(root: Path, path: bytes) -> Change:
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            return await change(store, path)
    finally:
        opened.close()


async def test_what_changed_is_shown_and_nothing_else(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    first = screens(1)[0]
    second = first.copy()
    second[50:60, 100:130] = (1, 2, 3)
    second[99, 149] += 1
    for name, frame in (("a.png", first), ("b.png", second), ("c.png", second[:90])):
        (source / name).write_bytes(png(np.ascontiguousarray(frame)))
    (source / "aa.txt").write_text("no picture")
    await import_into(root, str(source))
    found = await changed(root, b"in/b.png")
    assert (found.before, found.size) == (b"in/a.png", (150, 100))
    shown = np.array(Image.open(BytesIO(found.picture)))
    inside = np.zeros((100, 150), bool)
    for x, y, width, height in found.rectangles:
        assert not inside[y : y + height, x : x + width].any()
        inside[y : y + height, x : x + width] = True
    assert inside[(first != second).any(axis=2)].all()
    assert inside.sum() < 4000
    assert np.array_equal(shown[..., 3], np.where(inside, 255, 0))
    assert np.array_equal(shown[inside][:, :3], second[inside])
    for path in (b"in/a.png", b"in/c.png"):
        whole = await changed(root, path)
        assert whole.before is None
        assert whole.rectangles == [(0, 0, 150, 100 if path == b"in/a.png" else 90)]
    for path, why in ((b"in/aa.txt", "not a PNG"), (b"in/none", "no picture"), (b"in", "no pic")):
        with pytest.raises(FsmountError, match=why):
            await changed(root, path)


async def test_palette_and_grey_pictures(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image = Image.fromarray(screens(1)[0]).quantize(16)
    image.save(source / "a.png")
    image.convert("L").save(source / "b.png")
    await import_into(root, f"{source}/")
    for name, wanted in ((b"a.png", image.convert("RGB")), (b"b.png", image.convert("L"))):
        found = await changed(root, name)
        shown = Image.open(BytesIO(found.picture)).convert("RGB")
        if name == b"a.png":
            assert np.array_equal(np.array(shown), np.array(wanted))
        else:
            assert found.before == b"a.png"


def test_rectangles() -> None:
    nothing = np.zeros((40, 50), bool)
    assert rectangles(nothing) == []
    nothing[39, 49] = True
    assert rectangles(nothing) == [(48, 32, 2, 8)]
    nothing[0:17, 0:17] = True
    assert rectangles(nothing) == [(0, 0, 32, 32), (48, 32, 2, 8)]
    many = np.zeros((640, 640), bool)
    many[5::32, 20::32] = True
    assert rectangles(many) == [(20, 5, 609, 609)]


async def test_idle_and_busy(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "day"
    source.mkdir(parents=True)
    frames = screens(3)
    noise = np.random.default_rng(77).integers(0, 256, (100, 150, 3), np.uint8)
    shots = [frames[0], frames[0], frames[0], noise, frames[0]]
    for number, frame in enumerate(shots):
        (source / f"{number}.png").write_bytes(png(frame))
    (source / "zz.txt").write_text("no picture")
    await import_into(root, f"{tmp_path / 'in'}/")
    store = open_read_store(root)
    try:
        found = list(stretches(store))
        assert list(stretches(store, b"day")) == found
    finally:
        store.close()
    told = [(one.idle, one.first, one.last, one.pictures) for one in found]
    assert told == [
        (False, b"day/0.png", b"day/0.png", 1),
        (True, b"day/1.png", b"day/2.png", 2),
        (False, b"day/3.png", b"day/3.png", 1),
        (True, b"day/4.png", b"day/4.png", 1),
    ]
    assert found[1].bytes == 0 < found[0].bytes
