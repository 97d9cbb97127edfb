"""The search finds moved pixels at their new place, and finds nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from fsmount.codec.deflate import engine
from fsmount.codec.delta import delta, moves
from fsmount.codec.delta.delta import TILE, Copy, Layer
from fsmount.codec.png.samples import Frame
from fsmount.store.frames import planner as planning
from tests.support.encoding import Line
from tests.support.frames import png, scrolled


def layer(
    frame: Frame, own: np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None = None
) -> Layer:
    """A layer that codes the tiles of a frame that `own` marks; all tiles if `own` is None."""
    tiles = delta.split(frame)
    coded = np.ones(tiles.shape[:2], bool) if own is None else own
    index = np.full(coded.shape, -1, np.int32)
    index[coded] = np.arange(np.count_nonzero(coded))
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    return Layer(shape, np.ascontiguousarray(tiles[coded]), index)


def noise(seed: int, height: int = 128, width: int = 160, channels: int = 3) -> Frame:
    source = np.random.default_rng(seed)
    return source.integers(0, 256, (height, width, channels), np.uint8)


def every(frame: Frame) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.ones(delta.tile_grid(frame.shape), bool)


def hashed(tiles: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Hash tiles (n, TILE, TILE, channels) in plain numpy: sums of mixed pixels times powers."""
    mix = np.uint64(0xD6E8FEB86659FD93)
    packed = tiles[..., 0].astype(np.uint64)
    for channel in range(1, tiles.shape[-1]):
        packed = packed << np.uint64(8 * tiles.dtype.itemsize) | tiles[..., channel]
    packed = (packed + np.uint64(1)) * mix
    mixed = (((packed ^ packed >> np.uint64(32)) * mix) >> np.uint64(32)).astype(np.uint32)
    down, right = (
        np.array([pow(factor, power, 1 << 32) for power in range(TILE)], np.uint32)
        for factor in (0xD192ED03, 0x9E3779B1)
    )
    weights = down[:, np.newaxis] * right
    return np.asarray((mixed * weights).sum(axis=(1, 2), dtype=np.uint32))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_windows_are_hashed_as_tiles_are(
    kind: type[np.uint8] | type[np.uint16], channels: int
) -> None:
    top = np.iinfo(kind).max + 1
    source = np.random.default_rng(channels)
    for height, width in ((16, 16), (16, 40), (33, 16), (50, 61)):
        frame: Frame = source.integers(0, top, (height, width, channels)).astype(kind)
        found = moves._windows(frame)
        windows = sliding_window_view(frame, (TILE, TILE), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        flat = windows.reshape(-1, TILE, TILE, channels)
        assert np.array_equal(hashed(flat).reshape(found.shape), found)
        assert np.array_equal(moves._tiles(flat).reshape(found.shape), found)
        assert found.shape == (height - TILE + 1, width - TILE + 1)


def places(
    windows: np.ndarray[tuple[int, int], np.dtype[np.uint32]],
    coded: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    wanted: np.ndarray[tuple[int], np.dtype[np.uint32]],
) -> list[list[int]]:
    """The places of each wanted hash, in plain numpy."""
    down, right = np.indices(windows.shape)
    corners = [
        coded[(down + y) // TILE, (right + x) // TILE] for y in (0, TILE - 1) for x in (0, TILE - 1)
    ]
    usable = np.logical_and.reduce(corners)
    return [np.flatnonzero((windows == value) & usable).tolist() for value in wanted]


@settings(deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    height=st.integers(TILE, 70),
    width=st.integers(TILE, 70),
    share=st.sampled_from([0.3, 0.9, 1.0]),
    most=st.integers(1, 20),
)
def test_windows_are_found(seed: int, height: int, width: int, share: float, most: int) -> None:
    source = np.random.default_rng(seed)
    # Few values: many windows share the upper half of a wanted hash, and most repeat.
    some = source.integers(0, 1 << 32, 9, np.uint32) & np.uint32(0x8001FFFF)
    windows = source.choice(some, (height - TILE + 1, width - TILE + 1))
    coded = source.random((-(-height // TILE), -(-width // TILE))) < share
    wanted = np.unique(source.choice([*some, *(some ^ np.uint32(1))], 6))
    counts, found = (
        np.frombuffer(numbers, np.uint32)
        for numbers in engine.find_windows(
            windows.data, windows.shape[1], coded.data, wanted.data, most
        )
    )
    right = places(windows, coded, wanted)
    assert counts.tolist() == [len(of_one) for of_one in right]
    for of_one, row in zip(right, found.reshape(-1, most).tolist(), strict=True):
        assert row[: len(of_one)] == of_one[:most]
        assert not any(row[len(of_one) :])


@settings(deadline=None, max_examples=30)
@given(
    dx=st.integers(-40, 40),
    dy=st.integers(-40, 40),
    channels=st.integers(1, 4),
    wide=st.booleans(),
)
def test_a_shifted_frame_is_found(dx: int, dy: int, channels: int, wide: bool) -> None:
    before = noise(1, channels=channels)
    if wide:
        before = before.astype(np.uint16) * 257
    frame = np.roll(before, (-dy, -dx), (0, 1))
    found = moves.find(frame, every(frame), {7: layer(before)})
    assert found[0][0] == Copy(7, dx, dy)
    for copy, mask in found:
        for row, column in np.argwhere(mask) * TILE:
            top, left = row + copy.dy, column + copy.dx
            shown = before[top : top + TILE, left : left + TILE]
            assert (frame[row : row + TILE, column : column + TILE] == shown).all()
    assert not np.logical_and.reduce([mask for _, mask in found]).any() or len(found) == 1


def test_nothing_is_found_in_other_pixels() -> None:
    assert moves.find(noise(1), every(noise(1)), {7: layer(noise(2))}) == []


def test_only_what_is_wanted_is_looked_for() -> None:
    wanted = every(noise(1))
    wanted[3:] = False
    ((copy, mask),) = moves.find(noise(1), wanted, {7: layer(noise(1))})
    assert copy == Copy(7)
    assert (mask == wanted).all()
    wanted[1:] = False
    assert moves.find(noise(1), wanted, {7: layer(noise(1))}) == [], "too few to be worth it"


def test_pixels_that_were_not_coded_are_not_used() -> None:
    own = every(noise(1))
    own[:, 5:] = False
    frame = np.roll(noise(1), (-3, 5), (0, 1))
    ((copy, mask),) = moves.find(frame, every(frame), {7: layer(noise(1), own)})
    assert copy == Copy(7, -5, 3)
    assert not mask[:, 6:].any()
    assert mask[1:6, 1:5].all()


@pytest.mark.parametrize(
    "other", [noise(1, channels=4), noise(1).astype(np.uint16), noise(1, 8, 160), noise(1, 160, 8)]
)
def test_layers_of_another_kind_are_left_out(other: Frame) -> None:
    assert moves.find(noise(1), every(noise(1)), {7: layer(other)}) == []


def test_a_layer_without_tiles_is_left_out() -> None:
    frame = noise(1)
    nothing = np.zeros_like(every(frame))
    assert moves.find(frame, every(frame), {7: layer(frame, nothing)}) == []


def test_a_frame_of_one_pattern_takes_its_time_but_ends() -> None:
    """All tiles are equal, so that no tile tells its origin."""
    frame = np.tile(noise(1, 8, 8), (40, 40, 1))
    found = moves.find(frame, every(frame), {7: layer(frame)})
    assert len(found) <= moves.MAX_MOVES


def test_a_page_that_scrolls_is_coded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "without").mkdir()
    line, without = Line(tmp_path), Line(tmp_path / "without")
    frames = scrolled(6)
    for frame in frames:
        line.add(png(frame))
    line.check()
    sizes = [len(encoded.entry.payload) for encoded in line.encoded.values()]
    assert not any(encoded.fell_back for encoded in line.encoded.values())
    # The planner remembers moved tiles: a frame that stands still codes no part of the page again.
    assert max(sizes[3::2]) < 300
    monkeypatch.setattr(planning, "MAX_NEAR", 0)
    for frame in frames:
        without.add(png(frame))
    assert sum(sizes) < 0.6 * sum(len(e.entry.payload) for e in without.encoded.values())


def test_what_moved_survives_a_new_start(tmp_path: Path) -> None:
    line = Line(tmp_path)
    frames = scrolled(3)
    for frame in frames[:5]:
        seen = line.look(png(frame)).features
        line.add(png(frame))
    assert seen is not None
    fresh = planning.Planner()
    saved = line.planner.dump(seen.geometry, line.places.__contains__)
    fresh.load(seen.geometry, saved, line.places.__contains__)
    plan = fresh.plan(seen)
    assert not (plan.tiles == delta.OWN).any()
    assert any(isinstance(s, Copy) and s.dy for s in plan.sources)
    line.planner = fresh
    line.add(png(frames[5]))
    line.check()
