"""Previews of pictures of all kinds, and what changed between two."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged
from fsmount.store.frames.previews import Preview, View, preview_of_file
from fsmount.store.store import open_read_store
from fsmount.store.transfer.tree import find
from tests.support.frames import png, screens
from tests.support.trees import import_into, make_store

WHOLE = View(4000, quality=95)


@pytest.fixture(name="root")
def a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_store(tmp_path / "store", monkeypatch)


def shown(found: Preview) -> Frame:
    return np.asarray(Image.open(io.BytesIO(found.data)).convert("RGB"))


def smooth(channels: int, dtype: type = np.uint8) -> Frame:
    """A gradient, which JPEG keeps well."""
    most = np.iinfo(dtype).max
    ramp: Frame = np.linspace(0, most, 120).astype(dtype)
    frame: Frame = np.zeros((64, 120, channels), dtype)
    for channel in range(channels):
        frame[..., channel] = ramp if channel % 2 == 0 else ramp[::-1]
    return frame


def files() -> dict[str, tuple[bytes, Frame]]:
    """PNGs of several kinds, and the pixels (RGB) that people see of them."""
    rgb = smooth(3)
    grey = np.repeat(smooth(1), 3, axis=2)
    deep = smooth(3, np.uint16)
    clear = np.dstack([rgb, np.full((64, 120), 255, np.uint8)])
    half = clear.copy()
    half[:32, :, 3] = 0
    white = rgb.copy()
    white[:32] = 255
    palette = Image.fromarray(rgb).quantize(200, dither=Image.Dither.NONE)
    out = io.BytesIO()
    palette.save(out, "PNG")
    return {
        "rgb": (png(rgb), rgb),
        "grey": (png(smooth(1)), grey),
        "deep": (png(deep), (deep >> 8).astype(np.uint8)),
        "clear": (png(clear), rgb),
        "half": (png(half), white),
        "palette": (out.getvalue(), np.asarray(palette.convert("RGB"))),
    }


@pytest.mark.parametrize("kind", files())
async def test_all_kinds_of_pngs(root: Path, tmp_path: Path, kind: str) -> None:
    data, wanted = files()[kind]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(data)
    await import_into(root, str(tmp_path / "in"))
    with open_read_store(root) as opened:
        async with opened.running(count=1) as store:
            inode = find(store, b"in/a.png")
            assert inode is not None and inode.object_id is not None
            assert store.index.object(inode.object_id).has_layer
            found = await store.preview(inode.object_id, WHOLE, urgent=True)
            assert (found.width, found.height) == (120, 64)
            # As Pillow shows the file itself.
            for each in (found, preview_of_file(data, WHOLE)):
                assert np.abs(shown(each).astype(int) - wanted).mean() < 3, kind
            small = await store.preview(inode.object_id, View(30), urgent=False)
            assert shown(small).shape == (16, 30, 3)
            assert (small.width, small.height) == (120, 64)
            cut = await store.preview(inode.object_id, View(320, box=(20, 8, 40, 30)), urgent=True)
            assert np.abs(shown(cut).astype(int) - wanted[8:38, 20:60]).mean() < 5


async def test_changes_cover_what_changed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = screens(2)
    frames.append(frames[0][:80])
    for name, frame in zip("abc", frames, strict=True):
        (tmp_path / "in" / f"{name}.png").write_bytes(png(np.ascontiguousarray(frame)))
    await import_into(root, str(tmp_path / "in"))
    with open_read_store(root) as opened:
        async with opened.running(count=1) as store:
            inodes = [find(store, f"in/{name}.png".encode()) for name in "abc"]
            a, b, c = (inode.object_id or 0 for inode in inodes if inode is not None)
            boxes = await store.changes(b, a)
            covered = np.zeros((100, 150), bool)
            for x, y, width, height in boxes:
                covered[y : y + height, x : x + width] = True
            differs = (frames[0] != frames[1]).any(axis=2)
            assert covered[differs].all()
            assert covered.sum() < covered.size
            assert await store.changes(a, a) == []
            assert await store.changes(c, a) == [(0, 0, 150, 80)], "another size"
            assert len(await store.signature(a)) == 32 * 18 * 3
            assert await store.signature(a) == await store.signature(a)


@pytest.mark.parametrize("data", [b"", b"not a picture", png(screens(1)[0])[:-200]])
def test_files_that_are_no_pictures(data: bytes) -> None:
    with pytest.raises(Damaged, match="no picture that can be shown"):
        preview_of_file(data, View(100))


def test_photos_are_turned_as_their_exif_says() -> None:
    image = Image.fromarray(smooth(3))
    exif = Image.Exif()
    exif[274] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    found = preview_of_file(out.getvalue(), WHOLE)
    assert shown(found).shape == (120, 64, 3)
    assert (found.width, found.height) == (64, 120)
