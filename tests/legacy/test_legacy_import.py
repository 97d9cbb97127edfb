"""Import of folders of differences: the order of names, and which sources may be deleted."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import trio
from PIL import Image

from fsmount.codec.images import jxl
from fsmount.codec.png.samples import Frame
from fsmount.legacy import archive, decoding
from fsmount.legacy.decoding import Decoded
from fsmount.legacy.order import OrderedFile, sort_by_time
from fsmount.legacy.runs import Run
from fsmount.store.store import open_read_store
from fsmount.store.transfer.deleting import SourceDeleter
from fsmount.store.transfer.exporting import Exporter
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.missing import MissingCounter
from fsmount.work.workers import Workers
from tests.support.encoding import Inline, forget_caches, get
from tests.support.legacies import (
    BERLIN,
    convert,
    convert_all,
    desk,
    folder_of,
    minutes,
    samples,
    save,
)
from tests.support.trees import export_from, import_into, make_store

NOT_DIFFERENCE = "kept: it is not the difference of the pictures in the store"


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(archive, "Workers", Inline)
    forget()
    return make_store(tmp_path / "store", monkeypatch)


@contextmanager
def in_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put this process into a time zone inside the block."""
    try:
        with monkeypatch.context() as changed:
            changed.setenv("TZ", zone)
            time.tzset()
            yield
    finally:
        time.tzset()


def forget() -> None:
    """Empty the caches, as in a process that has just started."""
    forget_caches()


async def stored(root: Path) -> dict[str, Frame]:
    """Stem -> samples of every PNG of a store."""
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            return {
                os.fsdecode(path[:-4]): np.array(Image.open(BytesIO(await get(store, inode.ino))))
                for path, inode in store.index.walk()
                if path.endswith(b".png") and inode.object_id is not None
            }
    finally:
        opened.close()


async def brought(root: Path, source: Path, *, delete: bool = True) -> Importer:
    forget()
    return await import_into(root, f"{source}/", delete=delete)


def missing(root: Path, source: Path) -> tuple[int, int]:
    """The numbers of files to import and of files that the store has, as a dry run counts them."""
    with open_read_store(root) as opened:
        found = MissingCounter(opened)
        found.add(source, b"")
        return found.summary.files, found.summary.skipped


def test_a_dry_run_knows_the_pictures_of_differences(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    folder_of(source, desk(4))
    assert len(convert(source)) == 3
    assert missing(root, source) == (4, 0)

    async def bring() -> Importer:
        return await brought(root, source, delete=False)

    assert trio.run(bring).summary.files == 4
    assert missing(root, source) == (0, 4)
    last = max(source.glob("*.jxl"))
    os.utime(last, (1, 1))
    assert missing(root, source) == (1, 3)


def whys(importer: Importer) -> dict[str, str]:
    return {Path(path).name: why for path, why in importer.summary.problems}


# -- a wrong order


async def test_pictures_made_in_a_wrong_order_keep_their_sources(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store shows the decoded pictures. They are not the pictures of the differences."""
    source = tmp_path / "old"
    stems = list(minutes(6))
    folder_of(source, desk(6), stems)
    convert(source)
    names = sorted(os.listdir(source))

    def make(run: Run, *rest: Any) -> Decoded:
        """Decode each picture on top of the one two before it."""
        return decoding.decode((*run[:-2], run[-1]) if len(run) > 2 else run, *rest)

    with monkeypatch.context() as planted:
        planted.setattr(archive, "decode", make)
        importer = await brought(root, source)
    assert importer.deleted == 0
    assert sorted(os.listdir(source)) == names
    found = whys(importer)
    assert NOT_DIFFERENCE in found.values()
    assert sorted(found) == names


async def test_pictures_that_an_earlier_import_took_for_others_keep_their_sources(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "old"
    folder_of(source, desk(6))
    convert(source)
    names = sorted(os.listdir(source))

    def otherwise(files: Any) -> list[OrderedFile]:
        found = sort_by_time(files)
        return [found[0], found[2], found[1], *found[3:]]

    with monkeypatch.context() as planted:
        planted.setattr("fsmount.legacy.runs.sort_by_time", otherwise)
        assert (await brought(root, source, delete=False)).summary.problems == []
    importer = await brought(root, source)
    assert importer.deleted == 0
    assert sorted(os.listdir(source)) == sorted(whys(importer)) == names


async def test_the_first_picture_of_a_run_is_proved(root: Path, tmp_path: Path) -> None:
    """The changed file has the same size and time, and one other byte."""
    source = tmp_path / "old"
    stems = list(minutes(3))
    folder_of(source, desk(3), stems)
    convert(source)
    await brought(root, source, delete=False)
    first = source / f"{stems[0]}.png"
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    info = first.stat()
    first.write_bytes(data)
    os.utime(first, ns=(info.st_atime_ns, info.st_mtime_ns))
    names = sorted(os.listdir(source))
    importer = await brought(root, source)
    assert importer.deleted == 0
    assert sorted(whys(importer)) == names
    assert whys(importer)[first.name] == "kept: the store has other bytes"


async def test_a_source_that_changed_keeps_what_it_hangs_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "old"
    stems = list(minutes(5))
    frames = folder_of(source, desk(5), stems)
    convert(source)
    unlink = SourceDeleter._unlink

    def touched(self: SourceDeleter, item: Any) -> bool:
        if item.source.stem == stems[3]:
            os.utime(item.source)
        return unlink(self, item)

    monkeypatch.setattr(SourceDeleter, "_unlink", touched)
    importer = await brought(root, source)
    kept = [f"{stems[0]}.png", *(f"{stem}.jxl" for stem in stems[1:4])]
    assert sorted(os.listdir(source)) == sorted(whys(importer)) == kept
    assert importer.deleted == 1
    monkeypatch.undo()
    monkeypatch.setattr(archive, "Workers", Inline)
    shown = await stored(root)
    assert all(np.array_equal(shown[stem], frame) for stem, frame in frames.items())


# -- proved sources are deleted


async def test_runs_of_all_kinds_go_once_they_are_proved(root: Path, tmp_path: Path) -> None:
    """The runs have a palette, RGB differences of RGBA pictures, a picture of its own, a stopped
    conversion and a single PNG."""
    source = tmp_path / "old"
    stems = list(minutes(16))
    frames = desk(16)
    folder_of(source, frames, stems)
    for at in (1, 2):
        narrow = np.ascontiguousarray((frames[at] - frames[at - 1])[..., :3])
        (source / f"{stems[at]}.jxl").write_bytes(jxl.encode(narrow, 1))
        (source / f"{stems[at]}.png").unlink()
    rgb = [np.ascontiguousarray(frame[..., :3]) for frame in frames]
    image = Image.fromarray(rgb[3]).quantize(64)
    image.save(source / f"{stems[3]}.png")
    table = np.array(image.convert("RGB"))
    changed = table.copy()
    changed[:4] = table[90:94]
    (source / f"{stems[4]}.jxl").write_bytes(jxl.encode(changed - table, 1))
    (source / f"{stems[4]}.png").unlink()
    rest = [source / f"{stem}.png" for stem in stems[5:]]
    photo = np.random.default_rng(3).integers(0, 255, (200, 240, 4), np.uint8)
    rest[3].unlink()
    convert_all([*rest[:3], *rest[4:]])
    (source / f"{stems[8]}.jxl").write_bytes(jxl.encode(photo, 3))
    save(source, stems[12], frames[12])
    importer = await brought(root, source)
    assert importer.summary.problems == []
    assert os.listdir(source) == []
    shown = await stored(root)
    assert np.array_equal(shown.pop(stems[4]), changed)
    shown.pop(stems[3])
    assert len(shown) == 13
    for stem, frame in shown.items():
        assert np.array_equal(frame, frames[stems.index(stem)])


# -- uncertain sources stay


def tie(folder: Path) -> None:
    save(folder, "20240606T000200Z", desk(4, 5)[1])


def other_case(folder: Path) -> None:
    path = save(folder, "20240606T000230Z", desk(4, 5)[1])
    path.rename(path.with_suffix(".PNG"))


def other_kind(folder: Path) -> None:
    save(folder, "2024-06-06T10:00:00", desk(4, 5)[1])


def date_alone(folder: Path) -> None:
    save(folder, "2024-06-06", desk(4, 5)[1])


def link(folder: Path) -> None:
    (folder / "20240606T000230Z.png").symlink_to(f"{minutes(1)[0]}.png")


def other_twin(folder: Path) -> None:
    save(folder, minutes(3)[2], desk(4, 5)[1])


@pytest.mark.parametrize("leave", [tie, other_case, other_kind, date_alone, link, other_twin])
async def test_what_leaves_doubt_stays_with_all_it_may_belong_to(
    leave: Callable[[Path], None], root: Path, tmp_path: Path
) -> None:
    """If one of these files was deleted, a second import would not see the doubt."""
    source = tmp_path / "old"
    stems = list(minutes(6))
    frames = folder_of(source, desk(6), stems)
    convert(source)
    leave(source)
    names = sorted(os.listdir(source))
    for _ in range(2):
        importer = await brought(root, source)
        assert importer.deleted == 0
        assert sorted(os.listdir(source)) == sorted(whys(importer)) == names
        shown = await stored(root)
        right = [stem for stem in stems[1:] if stem in shown]
        assert stems[4] not in right
        if leave is other_twin:
            right.remove(stems[2])
        assert all(np.array_equal(shown[stem], frames[stem]) for stem in right)


@pytest.mark.parametrize("seed", range(8))
async def test_every_picture_is_in_the_store_or_its_source_stays(
    seed: int, root: Path, tmp_path: Path
) -> None:
    """Import a folder of mixed names twice. Its names are in the real order of the pictures."""
    source = tmp_path / "old"
    chance = random.Random(seed)
    zone = timezone(timedelta(hours=chance.randint(-12, 14)))
    when = datetime(2024, 6, 6, tzinfo=UTC)
    frames = desk(20, seed)
    stems = []
    for _ in frames:
        when += timedelta(hours=chance.choice((1, 1, 5, 40)))
        with_zone = chance.random() < 0.25
        told = when if with_zone else when.astimezone(zone).replace(tzinfo=None)
        stems.append(told.isoformat())
    by_stem = folder_of(source, frames, stems)
    taken = [source / f"{stem}.png" for stem in stems]
    convert_all(taken[: chance.randint(3, 20)])
    for _ in range(2):
        before = {name[:-4] for name in os.listdir(source)}
        importer = await brought(root, source)
        left = {name[:-4] for name in os.listdir(source)}
        shown = await stored(root)
        assert set(shown) | left == set(stems)
        assert all(np.array_equal(frame, by_stem[stem]) for stem, frame in shown.items())
        assert importer.deleted == len(before - left)


async def test_what_an_earlier_version_took_for_certain_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "old"
    stems = list(minutes(4))
    folder_of(source, desk(4), stems)
    convert(source)
    tie(source)

    def certain(files: Any) -> list[OrderedFile]:
        return [OrderedFile(one.file, "") for one in sort_by_time(files)]

    with monkeypatch.context() as planted:
        planted.setattr("fsmount.legacy.runs.sort_by_time", certain)
        assert (await brought(root, source, delete=False)).summary.problems == []
    importer = await brought(root, source, delete=False)
    assert sorted(whys(importer)) == [f"{stem}.jxl" for stem in stems[2:]]


# -- export as differences and import again


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_exported_as_differences_comes_back_whole(
    seed: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder has names of all kinds. A picture whose place they leave open stays a PNG."""
    chance = random.Random(seed)
    when = datetime(2024, 3, 31, 1, tzinfo=UTC)
    stems: list[str] = []
    while len(stems) < 24:
        when += timedelta(minutes=chance.choice((1, 7, 30, 30, 3000)))
        local = when.astimezone(timezone(timedelta(hours=chance.choice((0, 1, 2)))))
        naive = when.replace(tzinfo=None)
        forms = (local.isoformat(), local.isoformat(), naive.isoformat(), f"{naive:%Y%m%dT%H%M%S}")
        stems += chance.sample(forms, chance.choice((1, 1, 1, 2)))
    stems = list(dict.fromkeys([*stems, "2024-04-01"]))
    source, legacy, back = tmp_path / "in", tmp_path / "legacy", tmp_path / "back"
    frames = folder_of(source, desk(len(stems), seed), stems)
    odd = source / f"{chance.choice(stems)}.png"
    odd.rename(odd.with_suffix(".PNG"))
    photo = np.random.default_rng(seed).integers(0, 255, (200, 240, 4), np.uint8)
    (source / f"{chance.choice(stems)}.jxl").write_bytes(jxl.encode(photo, 3))
    await brought(root, source, delete=False)
    with in_zone(BERLIN, monkeypatch):
        await export_differences(root, legacy)
    assert list(legacy.glob("*.jxl"))
    other = make_store(tmp_path / "other", monkeypatch)
    with in_zone("UTC", monkeypatch):
        importer = await brought(other, legacy)
    assert importer.summary.problems == []
    assert os.listdir(legacy) == []
    await export_from(other, back)
    assert sorted(os.listdir(back)) == sorted(os.listdir(source))
    for stem, frame in frames.items():
        name = odd.with_suffix(".PNG").name if stem == odd.stem else f"{stem}.png"
        assert np.array_equal(samples(back / name), frame)


async def export_differences(root: Path, folder: Path) -> None:
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            folder.mkdir()
            exporter = Exporter(store, folder, lambda files, size: None, force=False)
            await exporter.export(b"")
            async with Inline(1) as workers:
                await exporter.to_differences(cast(Workers, workers))
    finally:
        opened.close()


# -- time zones


@pytest.mark.parametrize("zones", [("UTC", BERLIN), ("EST5EDT,M3.2.0,M11.1.0", "JST-9")])
async def test_pixels_and_times_are_the_same_in_every_zone(
    zones: tuple[str, str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "old"
    minutes_of = range(90, 190, 9)
    stems = [f"2024-03-{d}T0{m // 60}:{m % 60:02}:00" for d in (10, 31) for m in minutes_of]
    frames = folder_of(source, desk(len(stems)), stems)
    convert(source)
    times = {path.stem: path.stat().st_mtime_ns for path in source.iterdir()}
    for zone in zones:
        with in_zone(zone, monkeypatch):
            importer = await brought(root, source, delete=zone == zones[1])
        assert importer.summary.problems == []
    assert os.listdir(source) == []
    shown = await stored(root)
    assert sorted(shown) == stems
    assert all(np.array_equal(shown[stem], frame) for stem, frame in frames.items())
    store = open_read_store(root)
    try:
        kept = {os.fsdecode(path[:-4]): inode.mtime_ns for path, inode in store.index.walk()}
        assert {stem: kept[stem] for stem in stems} == times
    finally:
        store.close()
