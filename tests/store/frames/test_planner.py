"""Plans never cost a byte, and they stay within their bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import OWN, Copy, Fill, TileLayout
from fsmount.codec.png.samples import Frame
from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import known_tiles
from fsmount.store.frames import planner as planning
from fsmount.store.frames.features import FrameFeatures
from fsmount.store.frames.planner import Plan, Planner
from fsmount.store.frames.tile_keys import (
    KEY_BITS,
    dump_keys,
    load_keys,
    tile_keys,
)
from fsmount.store.index import Index, Object
from fsmount.store.ingest import committer
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import Inline, Line, forget_caches, get, put
from tests.support.frames import png, screens
from tests.support.pngs import chunk


def features_of(frame: Frame) -> FrameFeatures:
    is_flat, colours = delta.flat(frame)
    height, width, channels = frame.shape
    shape = (height, width, channels)
    return FrameFeatures(shape, frame.dtype.name, delta.signatures(frame), is_flat, colours)


def follow(planner: Planner, frame: Frame, number: int) -> Plan:
    """Plan a frame, and note that it was encoded exactly as planned."""
    features = features_of(frame)
    plan = planner.plan(features)
    plan = planner.note(features, plan, number)
    planner.coded(features, plan, layout(features, plan), number)
    return plan


def layout(features: FrameFeatures, plan: Plan) -> TileLayout:
    """The layout of a frame encoded as planned, without residuals."""
    dtype = np.dtype(np.uint8) if features.dtype == "uint8" else np.dtype(np.uint16)
    return TileLayout(features.shape, dtype, plan.tiles, plan.sources, np.zeros_like(plan.tiles))


def noise(seed: int, rows: int = 6, columns: int = 8) -> Frame:
    source = np.random.default_rng(seed)
    return source.integers(0, 256, (16 * rows, 16 * columns, 3), np.uint8)


def objects(plan: Plan) -> set[int]:
    return {source.object for source in plan.sources if isinstance(source, Copy)}


def test_the_first_frame_is_coded_whole() -> None:
    plan = Planner().plan(features_of(noise(1)))
    assert (plan.tiles == OWN).all()
    assert plan.sources == ()
    assert not plan.guess.any()
    assert plan.anchor == 0


def test_an_equal_frame_is_all_copies() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    plan = follow(planner, noise(1), 2)
    assert (plan.tiles == 1).all()
    assert plan.sources == (Copy(1),)
    assert plan.anchor == 1
    assert follow(planner, noise(1), 3).sources == (Copy(1),), "copies name who coded the pixels"


def test_only_what_is_new_is_coded() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    changed = noise(1)
    changed[20, 40] ^= 1
    plan = follow(planner, changed, 2)
    assert np.argwhere(plan.tiles == OWN).tolist() == [[1, 2]]
    assert plan.guess[1, 2] == 1, "predicted from what stood there"
    back = follow(planner, noise(1), 3)
    assert objects(back) == {1}
    again = follow(planner, changed, 4)
    assert objects(again) == {1, 2}
    assert not (again.tiles == OWN).any()


def changed(times: int) -> Frame:
    """A picture whose tile (1, 2) is another one after each change."""
    frame = noise(1)
    frame[20, 40] ^= np.uint8(times)
    return frame


def test_residuals_do_not_nest_deep() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    for times in range(1, planning.MAX_LEVEL + 1):
        plan = planner.plan(features_of(changed(times)))
        assert plan.guess.any()
        assert follow_with_residuals(planner, changed(times), 1 + times) == times
    assert not planner.plan(features_of(changed(99))).guess.any()


def follow_with_residuals(planner: Planner, frame: Frame, number: int) -> int | None:
    """Note that a frame was coded with residuals wherever the plan allows it. Its level."""
    features = features_of(frame)
    plan = planner.note(features, planner.plan(features), number)
    coded = replace(layout(features, plan), prediction=plan.guess)
    planner.coded(features, plan, coded, number)
    return planner.level(features.geometry, number)


def test_a_tile_whose_key_is_that_of_another_is_known_when_it_is_coded() -> None:
    """The plan copies a tile that looks equal by its key. The job finds that it is not."""
    planner = Planner()
    follow(planner, noise(1), 1)
    features = features_of(noise(1))
    plan = planner.note(features, planner.plan(features), 2)
    assert plan.sources == (Copy(1),)
    tiles = plan.tiles.copy()
    tiles[2, 3] = OWN
    planner.coded(features, plan, layout(features, replace(plan, tiles=tiles)), 2)
    assert objects(planner.plan(features)) == {1, 2}


def test_a_frame_mostly_new_is_coded_whole() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    frame = noise(2)
    frame[:16, :32] = noise(1)[:16, :32]
    assert (planner.plan(features_of(frame)).tiles == OWN).all()


def test_flat_tiles_that_nobody_coded_are_fills() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    frame = noise(1)
    frame[:16, :64] = 7
    frame[16:32, :16] = (1, 2, 3)
    plan = planner.plan(features_of(frame))
    assert not (plan.tiles == OWN).any()
    fills = {source for source in plan.sources if isinstance(source, Fill)}
    assert fills == {Fill((7, 7, 7)), Fill((1, 2, 3))}


def test_the_number_of_fills_is_bounded() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    frame = noise(1)
    for column in range(8):
        frame[:16, 16 * column : 16 * column + 16] = column
        frame[16:32, 16 * column : 16 * column + 16] = 100 + column
    plan = planner.plan(features_of(frame))
    assert sum(isinstance(source, Fill) for source in plan.sources) == planning.MAX_FILLS


def test_no_frame_touches_too_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_OBJECTS", 5)
    planner = Planner()
    frame = noise(1)
    follow(planner, frame, 1)
    for number in range(2, 40):
        row, column = divmod(number, 8)
        frame = frame.copy()
        frame[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = noise(number, 1, 1)
        plan = follow(planner, frame, number)
        assert len(objects(plan)) <= 5
        assert 1 in objects(plan), "the object that covers most was dropped"


def test_slots_never_run_out() -> None:
    planner = Planner()
    frame = noise(1)
    for number in range(1, 120):
        frame = frame.copy()
        source = np.random.default_rng(number)
        for _ in range(4):
            row, column = source.integers(0, 6), source.integers(0, 8)
            area = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            frame[area] = number if source.random() < 0.3 else noise(number * 7, 1, 1)
        plan = follow(planner, frame, number)
        assert len(plan.sources) <= delta.MAX_SLOTS
        assert_newest(planner.known_tiles(features_of(frame).geometry))
        used = set(np.unique(plan.tiles).tolist()) | set(np.unique(plan.guess).tolist())
        assert all(plan.sources[slot - 1] is not None for slot in used - {0})
        assert len(objects(plan)) <= planning.MAX_OBJECTS
        filled = [source for source in plan.sources if source is not None]
        assert len(filled) == len(set(filled)), "one source in two slots"


def test_frames_of_another_geometry_share_nothing() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    wide = np.zeros((96, 144, 3), np.uint8)
    wide[:, :128] = noise(1)
    for other in (wide, noise(1).astype(np.uint16), np.dstack([noise(1), noise(1)[..., :1]])):
        assert planner.plan(features_of(other)).sources == ()


def test_the_same_tile_at_another_place_is_another_key() -> None:
    frame = np.zeros((32, 32, 1), np.uint8)
    assert len(np.unique(tile_keys(delta.signatures(frame)))) == 4


def assert_newest(known: known_tiles.KnownTiles) -> None:
    """Check that the record of the newest frame equals a look-up of each of its tiles."""
    if known.newest is not None:
        keys, origins = known.newest
        wanted = [known.origin.get(key, 0) for key in keys.ravel().tolist()]
        assert origins.ravel().tolist() == wanted


def test_known_tiles_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_tiles, "MAX_TILES", 200)
    planner = Planner()
    for number in range(1, 30):
        features = features_of(noise(number))
        follow(planner, noise(number), number)
        known = planner.known_tiles(features.geometry)
        assert len(known.origin) <= 200
        assert sum(map(len, known.keys_of.values())) <= 200
        assert_newest(known)
    assert len(known.keys_of) == 4
    assert (planner.plan(features_of(noise(1))).tiles == OWN).all(), "long forgotten"
    assert not (planner.plan(features_of(noise(28))).tiles == OWN).any()


def test_known_tiles_forget_what_objects_without_tiles_leave() -> None:
    planner = Planner()
    for number in range(1, 200):
        follow(planner, noise(1), number)
    known = planner.known_tiles(features_of(noise(1)).geometry)
    assert list(known.keys_of) == [1]
    assert known.levels == {1: 0}


def test_tiles_that_frames_show_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A desktop stays the same for days, while the clock in front of it changes each minute."""
    monkeypatch.setattr(known_tiles, "MAX_TILES", 80)
    planner = Planner()
    frame = noise(1)
    follow(planner, frame, 1)
    chance = np.random.default_rng(2)
    for number in range(2, 100):
        frame = frame.copy()
        frame[:16, :16] = chance.integers(0, 256, (16, 16, 3), np.uint8)
        plan = follow(planner, frame, number)
        assert np.count_nonzero(plan.tiles == OWN) == 1
    assert len(planner.known_tiles(features_of(frame).geometry).keys_of) < 50


def test_geometries_that_are_unused_for_longest_are_surplus() -> None:
    planner = Planner()
    geometries = []
    for columns in range(1, planning.MAX_GEOMETRIES + 3):
        features = features_of(noise(1, 1, columns))
        geometries.append(features.geometry)
        planner.plan(features)
        planner.plan(features_of(noise(1, 1, 1)))
    assert planner.surplus() == geometries[1:3]
    assert planner.to_save() == geometries[1:3]
    for geometry in planner.surplus():
        planner.drop(geometry)
    assert not planner.surplus()
    assert planner.knows(geometries[0])
    assert not planner.knows(geometries[1])


def test_many_frames_are_due_to_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SAVE_EVERY", 3)
    planner = Planner()
    geometry = features_of(noise(1)).geometry
    for number in range(1, 3):
        follow(planner, noise(number), number)
        assert planner.to_save() == []
    assert planner.to_save(everything=True) == [geometry]
    follow(planner, noise(3), 3)
    assert planner.to_save() == [geometry]
    planner.dump(geometry, lambda number: number < 3)
    assert planner.to_save() == []
    assert planner.to_save(everything=True) == [geometry], "object 3 did not exist"
    planner.dump(geometry, lambda _: True)
    assert planner.to_save(everything=True) == []


def test_a_forgotten_object_is_not_used_again() -> None:
    planner = Planner()
    follow(planner, noise(1), 1)
    changed = noise(1)
    changed[0, 0] ^= 1
    follow(planner, changed, 2)
    planner.forget(1)
    planner.forget(77)
    plan = planner.plan(features_of(changed))
    assert 1 not in objects(plan)
    assert plan.anchor != 1


def test_what_is_dumped_loads() -> None:
    planner, other = Planner(), Planner()
    frames = screens(6)
    for number, frame in enumerate(frames, start=1):
        features = features_of(frame)
        planner.note(features, planner.plan(features), number)
    geometry = features_of(frames[0]).geometry
    assert not other.knows(geometry)
    other.load(geometry, planner.dump(geometry, lambda _: True), lambda _: True)
    assert other.knows(geometry)
    known, loaded = planner.known_tiles(geometry), other.known_tiles(geometry)
    assert loaded.origin == known.origin
    assert list(loaded.keys_of) == list(known.keys_of), "in the same order"
    plan = other.plan(features_of(frames[3]))
    assert not (plan.tiles == OWN).any()
    assert plan.anchor == 0
    other.load("none", b"", lambda _: True)
    assert other.knows("none")


def test_only_objects_that_exist_are_saved_and_loaded() -> None:
    planner = Planner()
    for number in range(1, 4):
        follow(planner, noise(number), number)
    geometry = features_of(noise(1)).geometry
    data = planner.dump(geometry, lambda number: number != 2)
    for there in ([1, 3], [1]):
        other = Planner()
        other.load(geometry, data, there.__contains__)
        assert list(other.known_tiles(geometry).keys_of) == there


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1 << 30), st.integers(1, 4), st.data())
def test_no_plan_ever_costs_a_byte(
    tmp_path_factory: pytest.TempPathFactory, seed: int, channels: int, data: st.DataObject
) -> None:
    """Random frames share parts, come in any order, and are forgotten at any time."""
    line = Line(tmp_path_factory.mktemp("line"))
    source = np.random.default_rng(seed)
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    dtype: type[Any] = data.draw(st.sampled_from([np.uint8, np.uint16]))
    most = data.draw(st.sampled_from([1, 3, np.iinfo(dtype).max]))
    frames: list[Frame] = [
        source.integers(0, most, (height, width, channels), dtype, endpoint=True)
    ]
    for _ in range(7):
        frame = frames[source.integers(len(frames))].copy()
        top, left = source.integers(height), source.integers(width)
        area = frame[top : top + source.integers(1, 40), left : left + source.integers(1, 40)]
        kind = source.integers(3)
        if kind == 0:
            area[:] = source.integers(0, most, channels, dtype, endpoint=True)
        elif kind == 1:
            area += dtype(1)
        else:
            area[:] = source.integers(0, most, area.shape, dtype, endpoint=True)
        frames.append(frame)
        if source.random() < 0.2 and line.places:
            line.planner.forget(int(source.integers(1, len(line.places) + 1)))
        line.add(png(frame))
        line.add(png(frames[source.integers(len(frames))]))
    line.check()
    assert not any(encoded.fell_back for encoded in line.encoded.values())
    line.pack.close()


_COPIES = st.builds(
    Copy, st.integers(1, 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-9, 9)
)
_KEYS = st.lists(st.integers(0, (1 << 20 + KEY_BITS) - 1), min_size=1, unique=True).map(sorted)
_GROUPS = st.lists(st.tuples(_COPIES, _KEYS), max_size=4)


@given(_GROUPS, st.binary(min_size=1, max_size=9))
def test_keys_come_back(groups: list[tuple[Copy, list[int]]], rest: bytes) -> None:
    data = dump_keys([(copy, np.array(keys, np.int64)) for copy, keys in groups])
    assert load_keys(data) == groups
    assert load_keys(data + rest) == []
    assert load_keys(data[: len(data) // 2]) == []


@given(st.lists(st.tuples(st.integers(1, 2**31 - 1), _KEYS), max_size=4))
def test_keys_of_an_earlier_build_come_back(groups: list[tuple[int, list[int]]]) -> None:
    """It kept 24 bits of each signature. The keys here have the lowest 20."""
    old = [[(key >> KEY_BITS, key & (1 << KEY_BITS) - 1) for key in keys] for _, keys in groups]
    heads = np.array([(number, 0, 0, len(keys)) for number, keys in groups], "<i4").reshape(-1, 4)
    steps = [np.diff([place for place, _ in each], prepend=0) for each in old]
    contents = np.array([0x500000 | content for each in old for _, content in each], "<u4")
    planes = [np.array([*map(int, part)], "<u4") for part in steps]
    whole = np.concatenate([np.empty(0, "<u4"), *planes])
    parts = heads.T, whole.view(np.uint8).reshape(-1, 4).T, contents.view(np.uint8).reshape(-1, 4).T
    plain = len(groups).to_bytes(4, "little")
    plain += parts[0].tobytes() + parts[1].tobytes() + parts[2][:3].tobytes()
    expected = [(Copy(number), keys) for number, keys in groups]
    assert load_keys(zstandard.ZstdCompressor().compress(plain)) == expected


@given(st.binary(), st.booleans())
def test_other_data_has_no_keys(data: bytes, is_packed: bool) -> None:
    packed = zstandard.ZstdCompressor().compress(data) if is_packed else data
    assert load_keys(packed) in ([], [] if data[:4] != bytes(4) else load_keys(packed))


def test_a_bomb_has_no_keys() -> None:
    data = zstandard.ZstdCompressor().compress(bytes((64 << 20) + 1))
    assert load_keys(data) == []


# -- in a store


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store. Its jobs run in this process."""
    forget_caches()
    monkeypatch.setattr(store_module, "Workers", Inline)
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
    config.make(tmp_path / "store", Disk())
    return tmp_path / "store"


async def fill(root: Path, files: dict[bytes, bytes]) -> dict[bytes, Object]:
    """Open a store, put files into it, and check their bytes. Returns the object of each file."""
    opened = open_store(root)
    async with opened.running(count=1) as store:
        inodes = {}
        for name, data in files.items():
            inodes[name] = put(store, name, data)
            await store.drain()
        for name, ino in inodes.items():
            assert await get(store, ino) == files[name]
    shown = {name: opened.index.inode(ino).object_id or 0 for name, ino in inodes.items()}
    found = {name: opened.index.object(number) for name, number in shown.items()}
    opened.close()
    return found


def saved(index: Index, frame: Frame) -> dict[int, int]:
    """The number of saved tiles of each object, in the order in which they were saved."""
    groups = load_keys(index.known_tiles(features_of(frame).geometry))
    return {copy.object: len(keys) for copy, keys in groups}


async def test_what_stood_there_before_is_known_after_a_new_start(root: Path) -> None:
    frames = screens(6)
    await fill(root, {b"%d" % number: png(frame) for number, frame in enumerate(frames)})
    frame = frames[0].copy()
    frame[64:] = frames[5][64:]
    found = await fill(root, {b"again": png(frame)})
    assert found[b"again"].kind == "delta"
    assert found[b"again"].length < 600
    assert len(png(frame)) > 20_000


async def test_tiles_are_saved_now_and_then_and_at_the_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SAVE_EVERY", 2)
    counts = []
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            for number in range(5):
                put(store, b"%d" % number, png(noise(number)))
                await store.drain()
                counts.append(len(saved(opened.index, noise(0))))
    assert counts == [0, 2, 2, 4, 4]
    with open_read_store(root) as closed:
        assert saved(closed.index, noise(0)) == dict.fromkeys(range(1, 6), 48)


async def test_damaged_tiles_cost_a_keyframe_and_no_picture(root: Path) -> None:
    await fill(root, {b"a": png(noise(1))})
    with open_store(root) as opened:
        opened.index.save_tiles(features_of(noise(1)).geometry, b"nonsense")
    found = await fill(root, {b"b": png(noise(1), head=chunk(b"tEXt", b"Time\0now"))})
    assert found[b"b"].kind == "key"


async def test_tiles_of_objects_that_no_file_shows_are_coded_again(root: Path) -> None:
    """Some of their pixels may be gone: see Index.trim_objects."""
    await fill(root, {b"a": png(noise(1))})
    with open_store(root) as opened:
        opened.index._run("UPDATE objects SET sha256 = x''")
    found = await fill(root, {b"b": png(noise(1), head=chunk(b"tEXt", b"Time\0now"))})
    assert found[b"b"].kind == "key"


async def test_an_index_of_an_earlier_build_gets_the_table(root: Path) -> None:
    await fill(root, {b"a": png(noise(1))})
    with open_store(root) as opened:
        opened.index._run("DROP TABLE known_tiles")
        opened.index._run("CREATE TABLE signatures (object INTEGER PRIMARY KEY, data BLOB)")
    await fill(root, {b"b": png(noise(2))})
    with open_store(root) as opened:
        assert len(saved(opened.index, noise(1))) == 1
        tables = opened.index._all("SELECT name FROM sqlite_schema WHERE name = 'signatures'")
        assert not tables


async def test_identical_frames_cost_a_few_bytes(root: Path) -> None:
    files = {b"%03d.png" % number: png(noise(1)) for number in range(100)}
    before = await fill(root, {b"first": png(noise(1))})
    size = sum(path.stat().st_size for path in (root / "packs").glob("*.zip"))
    index = (root / "index.sqlite").stat().st_size
    found = await fill(root, files)
    assert {one.id for one in found.values()} == {before[b"first"].id}
    assert sum(path.stat().st_size for path in (root / "packs").glob("*.zip")) == size
    assert (root / "index.sqlite").stat().st_size - index < 300 * len(files)
    # The files differ, but have the same pixels, for example with a time written into each.
    texts = [chunk(b"tEXt", b"Time\0%d" % number) for number in range(20)]
    found = await fill(root, {b"t%d" % n: png(noise(1), head=t) for n, t in enumerate(texts)})
    assert len({one.id for one in found.values()}) == 20
    lengths = sorted(one.length for one in found.values())
    assert lengths[-2] < 260
    with open_read_store(root) as store:
        assert len(saved(store.index, noise(1))) == 1
