"""Trimming: of objects that no file shows, what nobody takes goes; all files stay as they are."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from fsmount.store.frames import needed_tiles
from fsmount.store.frames.needed_tiles import without_unneeded
from fsmount.store.index import ROOT
from fsmount.store.maintenance import trimming
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import build_entry
from fsmount.store.retention import pruning
from fsmount.store.retention.pictures import objects_of
from tests.support.encoding import ino_of
from tests.support.frames import png, screens, scrolled
from tests.support.repacking import (
    delete,
    fill,
    opening,
    opening_to_read,
    packed,
    pictures,
    stored_as,
    whole,
)


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trim small entries, too, and move the rest of every pack with garbage."""
    monkeypatch.setattr(trimming, "_LEAST_BYTES", 1)
    monkeypatch.setattr(pruning, "WASTE", 0.0)


async def give_back(root: Path) -> None:
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            await store.give_back()


async def test_an_old_keyframe_loses_what_nobody_takes(root: Path) -> None:
    """Of a wallpaper of noise, the next pictures only show a quarter."""
    chance = np.random.default_rng(3)
    first = chance.integers(0, 256, (128, 128, 3), np.uint8)
    second = chance.integers(0, 256, (128, 128, 3), np.uint8)
    second[:64, :64] = first[:64, :64]
    files = {b"0.png": png(first), b"1.png": png(second)}
    await fill(root, files)
    keyframe, _ = stored_as(root, b"0.png")
    await delete(root, b"0.png")
    await give_back(root)
    with opening_to_read(root) as store:
        found = store.index.object(keyframe.id)
        assert found.is_layer_only
        assert keyframe.length / 5 < found.length < keyframe.length / 3
    del files[b"0.png"]
    await whole(root, files)
    # An equal picture comes again: it must not find the object that has lost pixels.
    await fill(root, {b"again.png": png(first)})
    await whole(root, files | {b"again.png": png(first)})


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_goes_the_others_stay(root: Path, seed: int) -> None:
    """Windows, moved tiles, residuals and dictionaries; several rounds of deletions."""
    chance = random.Random(seed)
    frames = [*screens(12, seed=seed, height=64), *scrolled(8)]
    files = {b"%02d.png" % n: png(frame) for n, frame in enumerate(frames)}
    await fill(root, files)
    size = packed(root)
    for _ in range(3):
        gone = chance.sample(sorted(files), 5)
        await delete(root, *gone)
        for name in gone:
            del files[name]
        await give_back(root)
        await whole(root, files)
    assert packed(root) < size
    # New pictures take no pixels from what has lost some.
    new = {b"new%02d.png" % n: png(frame) for n, frame in enumerate(frames)}
    await fill(root, new)
    await whole(root, files | new)


async def test_residuals_of_residuals(root: Path) -> None:
    """Object 4 is predicted from 3, 3 from 2, and 2 from 1; the last pictures take tiles of all."""
    files = {b"%02d.png" % n: png(frame) for n, frame in enumerate(screens(24, height=64))}
    await fill(root, files)
    gone = sorted(files)[:11] + sorted(files)[12:23]
    await delete(root, *gone)
    await give_back(root)
    await whole(root, {name: files[name] for name in (b"11.png", b"23.png")})


async def test_objects_are_looked_at_again_when_they_are_needed_less(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(12)
    await fill(root, files)
    await delete(root, b"00.png")
    await give_back(root)
    looked: list[int] = []
    coded = without_unneeded

    def counted(number: int, *rest: object) -> object:
        looked.append(number)
        return coded(number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(trimming, "without_unneeded", counted)
    await give_back(root)
    assert looked == []
    await delete(root, *(b"%02d.png" % number for number in range(1, 9)))
    await give_back(root)
    assert 1 in looked
    await whole(root, {name: files[name] for name in sorted(files)[9:]})


async def test_damage_keeps_objects_as_they_are(root: Path) -> None:
    files = pictures(4)
    await fill(root, files)
    await delete(root, b"00.png", b"01.png")
    kept, path = stored_as(root, b"03.png")
    data = bytearray(path.read_bytes())
    data[kept.offset + kept.length - 3] ^= 1
    path.write_bytes(data)
    for parity in path.parent.glob("*.parity"):
        parity.unlink()
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            await store.give_back()
            first = store.index.object(1)
            assert not first.is_layer_only


async def test_a_wrong_mask_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: no tile is marked. Then check must find pictures that changed."""
    files = pictures(8)
    await fill(root, files)
    await delete(root, b"00.png")
    monkeypatch.setattr(needed_tiles, "_mark", lambda *_: None)
    await give_back(root)
    del files[b"00.png"]
    with pytest.raises(ExceptionGroup) as caught:
        await whole(root, files)
    assert "the rendered bytes have another hash" in str(caught.value.exceptions)


async def test_an_entry_that_gets_no_smaller_stays(root: Path) -> None:
    await fill(root, pictures(1))
    found, path = stored_as(root, b"00.png")
    place = Location(found.id, str(path), found.offset, found.length)
    grid = (4, 10)
    assert without_unneeded(found.id, [place], np.ones(grid, bool)) is None
    smaller = without_unneeded(found.id, [place], None)
    assert smaller is not None
    assert len(build_entry(smaller)) < found.length / 3


async def test_the_forecast_of_a_prune_holds(root: Path) -> None:
    """What a plan says beforehand is what packs get smaller by, to two percent."""
    frames = [*screens(30, seed=5), *scrolled(8)]
    await fill(root, {b"%02d.png" % n: png(frame) for n, frame in enumerate(frames)})
    before = packed(root)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            objects = objects_of(store.index)
            gone_names = {b"%02d.png" % n for n in range(20)}
            shown = objects.uses.copy()
            for name in gone_names:
                number = store.index.inode(ino_of(store, name)).object_id
                assert number is not None
                shown[objects.rows(np.array([number]))] -= 1
            needed = {
                n
                for row in store.index.all_objects()
                if shown[objects.rows(np.array([row.id]))][0] > 0
                for n in row.needs
            }
            gone = (shown <= 0) & ~np.isin(objects.ids, sorted(needed))
            stays = ~gone
            work = trimming.Trimming(store.layout, store.index, store.workers, 1)
            hidden = trimming.find_hidden(store.index, objects, (shown > 0) & stays, stays)
            sizes = await trimming.forecast(work, store.index, hidden, 60)
            lengths = {n: length for n, (length, _) in store.index.packs().items()}
            expected = pruning.freed_bytes(objects, gone, lengths, 0, sizes)
    with opening(root) as store:
        for name in gone_names:
            store.index.purge(store.index.unlink(ROOT, name, 1).ino)
    await give_back(root)
    freed = before - packed(root)
    assert expected > 0.1 * before
    assert abs(freed - expected) <= 0.02 * freed
