"""Frames are cut into tiles and put together again.

A tile is made of own pixels, a copy, a fill or a residual.
"""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import shake_128
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import TILE, Copy, Fill, Layer, Source, TileLayout
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 4))
DTYPES: st.SearchStrategy[np.dtype[Any]] = st.sampled_from(
    [np.dtype(np.uint8), np.dtype(np.uint16)]
)


def noise(shape: tuple[int, int, int], dtype: np.dtype[Any], seed: int) -> Frame:
    source = np.random.default_rng(seed)
    return source.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def whole(frame: Frame) -> Layer:
    """The layer of an object that codes all tiles of a frame."""
    height, width, channels = frame.shape
    nothing = np.zeros(delta.tile_grid(frame.shape), np.uint8)
    layout = TileLayout((height, width, channels), frame.dtype, nothing, (), nothing)
    return delta.layer(layout, delta.own_tiles(frame, layout, {}), {})


@settings(deadline=None)
@given(SHAPES, DTYPES, st.integers(0, 1 << 30))
def test_join_is_the_inverse_of_split(
    shape: tuple[int, int, int], dtype: np.dtype[Any], seed: int
) -> None:
    frame = noise(shape, dtype, seed)
    tiles = delta.split(frame)
    assert tiles.shape == (*delta.tile_grid(shape), TILE, TILE, shape[2])
    back = delta.join(tiles, shape)
    assert back.flags.c_contiguous
    assert back.dtype == frame.dtype
    assert np.array_equal(back, frame)
    edge = tiles[-1, -1]
    inside = (shape[0] - 1) % TILE + 1, (shape[1] - 1) % TILE + 1
    assert not edge[inside[0] :].any()
    assert not edge[:, inside[1] :].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_changed_sample_changes_the_signature_of_its_tile_alone(
    dtype: type[Any], channels: int
) -> None:
    frame = noise((TILE * 2, TILE + 5, channels), np.dtype(dtype), channels)
    before = delta.signatures(frame)
    assert len(np.unique(before)) == before.size
    for row in range(TILE):
        for column in range(TILE):
            for channel in range(channels):
                bit = (row * 7 + column * 3 + channel) % (8 * frame.dtype.itemsize)
                other = frame.copy()
                other[row, column, channel] ^= 1 << bit
                changed = delta.signatures(other) != before
                assert changed[0, 0]
                assert np.count_nonzero(changed) == 1


def test_signatures_tell_samples_that_change_places() -> None:
    frame = np.zeros((TILE, TILE, 1), np.uint8)
    seen = set()
    for row in range(TILE):
        for column in range(TILE):
            other = frame.copy()
            other[row, column] = 1
            seen.add(int(delta.signatures(other)[0, 0]))
    assert len(seen) == TILE * TILE


def test_signatures_do_not_depend_on_the_process() -> None:
    frame = np.arange(TILE * TILE * 3, dtype=np.uint16).astype(np.uint8).reshape(TILE, TILE, 3)
    assert int(delta.signatures(frame)[0, 0]) == int(delta.signatures(frame.copy())[0, 0])


@settings(deadline=None)
@given(SHAPES, DTYPES, st.integers(0, 1 << 30))
def test_flat_finds_tiles_of_one_colour(
    shape: tuple[int, int, int], dtype: np.dtype[Any], seed: int
) -> None:
    frame = noise(shape, dtype, seed)
    choice = random.Random(seed)
    rows, columns = delta.tile_grid(shape)
    for row in range(rows):
        for column in range(columns):
            part = frame[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            if choice.random() < 0.5:
                part[:] = part[0, 0]
                if choice.random() < 0.3 and part.size > shape[2]:
                    part[-1, -1, -1] ^= 1
    is_flat, colours = delta.flat(frame)
    for row in range(rows):
        for column in range(columns):
            part = frame[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            assert is_flat[row, column] == (part == part[0, 0]).all()
            assert np.array_equal(colours[row, column], part[0, 0])


@st.composite
def compositions(draw: st.DrawFn) -> tuple[Frame, TileLayout, dict[int, Layer]]:
    """A frame, a layout that describes it, and the layers that the layout takes tiles from."""
    shape = draw(SHAPES)
    dtype = draw(DTYPES)
    seed = draw(st.integers(0, 1 << 30))
    choice = random.Random(seed)
    frame = noise(shape, dtype, seed)
    rows, columns = delta.tile_grid(shape)
    sources: list[Source] = []
    others: dict[int, Frame] = {}
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["same", "moved", "other size", "fill", "empty"]))
        if kind == "empty":
            sources.append(None)
        elif kind == "fill":
            most = np.iinfo(dtype).max
            sources.append(Fill(tuple(choice.randint(0, most) for _ in range(shape[2]))))
        else:
            high, wide = shape[0], shape[1]
            if kind == "other size":
                high, wide = choice.randint(1, 80), choice.randint(1, 80)
            dx, dy = (
                (choice.randint(-40, 40), choice.randint(-40, 40)) if kind == "moved" else (0, 0)
            )
            others[number + 10] = noise((high, wide, shape[2]), dtype, seed + number + 1)
            sources.append(Copy(number + 10, dx, dy))
    tiles = np.zeros((rows, columns), np.uint8)
    prediction = np.zeros((rows, columns), np.uint8)
    share = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    for row in range(rows):
        for column in range(columns):
            slot = choice.randint(0, len(sources))
            if not slot:
                continue
            source = sources[slot - 1]
            area = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            part = frame[area]
            if source is None:
                continue
            if isinstance(source, Copy):
                top, left = row * TILE + source.dy, column * TILE + source.dx
                other = others[source.object]
                aligned = not (source.dx or source.dy or other.shape != shape)
                if top < 0 or left < 0:
                    continue
                found = other[top : top + part.shape[0], left : left + part.shape[1]]
                if found.shape != part.shape:
                    continue
                assert not aligned or np.array_equal(found, other[area])
            if choice.random() < share:
                tiles[row, column] = slot
                part[:] = source.colour if isinstance(source, Fill) else found
            else:
                prediction[row, column] = slot
    layout = TileLayout(shape, dtype, tiles, tuple(sources), prediction)
    return frame, layout, {number: whole(other) for number, other in others.items()}


@settings(deadline=None, max_examples=300)
@given(compositions())
def test_what_is_composed_is_the_frame(made: tuple[Frame, TileLayout, dict[int, Layer]]) -> None:
    frame, layout, layers = made
    before = frame.copy()
    own_tiles = delta.own_tiles(frame, layout, layers)
    assert np.array_equal(frame, before), "the caller's frame was written to"
    assert len(own_tiles) == np.count_nonzero(layout.own())
    if len(own_tiles):
        image = delta.arrange(own_tiles, layout.own(), layout.shape)
        assert image.shape[0] <= frame.shape[0]
        assert image.shape[1] <= frame.shape[1]
        own_tiles = delta.arranged(np.ascontiguousarray(image), layout.own(), layout.shape)
    own = delta.layer(layout, own_tiles, layers)
    assert np.array_equal(delta.compose(layout, own, layers), frame)
    assert layout.copied() | layout.predicting() <= set(layers)


@settings(deadline=None, max_examples=60)
@given(compositions(), compositions())
def test_a_layer_serves_as_source_where_it_has_pixels(
    made: tuple[Frame, TileLayout, dict[int, Layer]], _: object
) -> None:
    """A second frame copies all tiles that a first one codes.

    Some of these are residual tiles, some stand at edges.
    """
    frame, layout, layers = made
    own = delta.layer(layout, delta.own_tiles(frame, layout, layers), layers)
    tiles = layout.own().astype(np.uint8)
    nothing = np.zeros_like(tiles)
    second = TileLayout(layout.shape, layout.dtype, tiles, (Copy(99),), nothing)
    shown = noise(layout.shape, layout.dtype, 5)
    mask = tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)[: frame.shape[0], : frame.shape[1]] == 1
    shown[mask] = frame[mask]
    own_tiles = delta.own_tiles(shown, second, {})
    result = delta.compose(second, delta.layer(second, own_tiles, {}), {99: own})
    assert np.array_equal(result, shown)


def test_a_frame_one_tile_wide_is_not_written_to() -> None:
    frame = noise((TILE * 3, TILE, 3), np.dtype(np.uint8), 1)
    before = frame.copy()
    tiles = np.array([[0], [1], [0]], np.uint8)
    prediction = np.array([[1], [0], [0]], np.uint8)
    layout = TileLayout((TILE * 3, TILE, 3), frame.dtype, tiles, (Copy(1),), prediction)
    delta.own_tiles(frame, layout, {1: whole(noise(frame.shape, frame.dtype, 2))})
    assert np.array_equal(frame, before)


def test_residuals_wrap_around() -> None:
    for dtype in (np.uint8, np.uint16):
        most = np.iinfo(dtype).max
        frame = np.zeros((20, 20, 2), dtype)
        other = np.full_like(frame, most)
        tiles = np.zeros((2, 2), np.uint8)
        layout = TileLayout((20, 20, 2), frame.dtype, tiles, (Copy(1),), tiles + 1)
        layers = {1: whole(other)}
        own_tiles = delta.own_tiles(frame, layout, layers)
        image = delta.arrange(own_tiles, layout.own(), layout.shape)
        assert (image == 1).all()
        own = delta.layer(layout, own_tiles, layers)
        assert np.array_equal(delta.compose(layout, own, layers), frame)
        assert not own.pixels[-1][4:].any(), "padding must stay zero"


def test_padding_of_residual_tiles_is_zero() -> None:
    frame = np.full((20, 20, 1), 3, np.uint8)
    tiles = np.zeros((2, 2), np.uint8)
    layout = TileLayout((20, 20, 1), frame.dtype, tiles, (Fill((9,)),), tiles + 1)
    own = delta.layer(layout, delta.own_tiles(frame, layout, {}), {})
    assert own.pixels.sum() == frame.sum()


def test_an_image_of_tiles_leaves_out_rows_and_columns_without_own_tiles() -> None:
    tiles = np.ones((4, 5), np.uint8)
    tiles[1, 2] = tiles[3, 4] = 0
    layout = TileLayout((60, 75, 1), np.dtype(np.uint8), tiles, (Fill((9,)),), np.zeros_like(tiles))
    own_tiles = delta.own_tiles(noise((60, 75, 1), np.dtype(np.uint8), 1), layout, {})
    image = delta.arrange(own_tiles, layout.own(), layout.shape)
    assert image.shape == (16 + 12, 16 + 11, 1)


# -- parts that do not fit together


def a_copy(**change: Any) -> tuple[TileLayout, dict[int, Layer]]:
    """A layout of 3 x 3 tiles that copies the middle one from object 7, and the layers."""
    shape = (40, 40, 3)
    tiles = np.zeros((3, 3), np.uint8)
    tiles[1, 1] = 1
    layout = TileLayout(shape, np.dtype(np.uint8), tiles, (Copy(7),), np.zeros_like(tiles))
    return replace(layout, **change), {7: whole(noise(shape, np.dtype(np.uint8), 1))}


def own_of(layout: TileLayout) -> Layer:
    frame = noise(layout.shape, layout.dtype, 3)
    plain = replace(layout, prediction=np.zeros_like(layout.prediction))
    return delta.layer(plain, delta.own_tiles(frame, plain, {}), {})


def test_a_copy_that_fits_raises_nothing() -> None:
    layout, layers = a_copy()
    delta.compose(layout, own_of(layout), layers)


@pytest.mark.parametrize(
    "source",
    [
        Copy(8),
        None,
        Copy(7, 0, -17),
        Copy(7, -17, 0),
        Copy(7, 9, 0),
        Copy(7, 0, 9),
        Copy(7, 10**9, 0),
        Fill((1,)),
        Fill((1, 2, 3, 4)),
        Fill((256, 0, 0)),
        Fill((-1, 0, 0)),
    ],
)
def test_sources_that_are_wrong(source: Source) -> None:
    layout, layers = a_copy(sources=(source,))
    with pytest.raises(Damaged):
        delta.compose(layout, own_of(layout), layers)
    predicted = replace(layout, tiles=np.zeros_like(layout.tiles), prediction=layout.tiles)
    frame = noise(layout.shape, layout.dtype, 3)
    with pytest.raises(Damaged):
        delta.own_tiles(frame, predicted, layers)
    plain = replace(predicted, prediction=np.zeros_like(layout.tiles))
    with pytest.raises(Damaged):
        delta.layer(predicted, delta.own_tiles(frame, plain, {}), layers)


@pytest.mark.parametrize("move", [(0, 0), (1, 0), (0, -5)])
def test_tiles_that_were_never_coded(move: tuple[int, int]) -> None:
    layout, layers = a_copy(sources=(Copy(7, *move),))
    half, _ = a_copy(sources=(Fill((1, 2, 3)),))
    layers[7] = own_of(half)
    with pytest.raises(Damaged):
        delta.compose(layout, own_of(layout), layers)


@pytest.mark.parametrize("move", [(0, 0), (3, 3)])
def test_layers_with_other_samples(move: tuple[int, int]) -> None:
    layout, _ = a_copy(sources=(Copy(7, *move),))
    for shape, dtype in (
        ((40, 40, 1), np.uint8),
        ((40, 40, 4), np.uint8),
        ((40, 40, 3), np.uint16),
    ):
        layers = {7: whole(noise(shape, np.dtype(dtype), 1))}
        with pytest.raises(Damaged):
            delta.compose(layout, own_of(layout), layers)


def test_an_image_that_does_not_fit_its_map() -> None:
    layout, _ = a_copy()
    own_tiles = delta.own_tiles(noise(layout.shape, layout.dtype, 1), layout, {})
    for wrong in (
        own_tiles[:-1],
        own_tiles[:, 1:],
        own_tiles[..., :2],
        own_tiles.astype(np.uint16),
        np.concatenate([own_tiles, own_tiles]),
    ):
        with pytest.raises(Damaged):
            delta.layer(layout, wrong, {})
    with pytest.raises(Damaged):
        delta.layer(replace(layout, tiles=np.ones_like(layout.tiles)), own_tiles, {})
    image = delta.arrange(own_tiles, layout.own(), layout.shape)
    for other in (image[:-1], image[:, 1:], image[..., :2], np.concatenate([image, image])):
        with pytest.raises(Damaged):
            delta.arranged(other, layout.own(), layout.shape)
    with pytest.raises(Damaged):
        delta.arranged(image, np.zeros_like(layout.own()), layout.shape)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (40, 50, 3)},
        {"shape": (0, 40, 3)},
        {"shape": (-1, 40, 3)},
        {"shape": (40, 40, 0)},
        {"shape": (40, 40, 10**9)},
        {"tiles": np.full((3, 3), 2, np.uint8)},
        {"prediction": np.full((3, 3), 2, np.uint8)},
        {"prediction": np.zeros((3, 2), np.uint8)},
        {"sources": ()},
    ],
)
def test_maps_that_are_no_maps(change: dict[str, Any]) -> None:
    with pytest.raises(Damaged):
        a_copy(**change)


@given(st.integers(0, 1 << 32), st.sampled_from(["uint8", "uint16"]), st.integers(1, 4))
def test_signatures_like_numpy(seed: int, dtype: str, channels: int) -> None:
    """The index holds signatures. If they changed, no tile of earlier frames would be found."""
    source = np.random.default_rng(seed)
    shape = (int(source.integers(1, 60)), int(source.integers(1, 60)), channels)
    frame = source.integers(0, 2, shape).astype(dtype)
    frame[:33] = frame[0, 0]
    other = frame.copy()
    other[-1, -1, -1] ^= seed & 1
    assert delta.equal(frame, other) == (not seed & 1)
    tiles = np.ascontiguousarray(delta.split(frame))
    words = tiles.reshape(*tiles.shape[:2], -1).view(np.uint64)
    digest = shake_128(b"fsmount tiles").digest(8 * words.shape[2])
    keys = np.frombuffer(digest, "<u8").astype(np.uint64) | np.uint64(1)
    mixed = (words ^ (words >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * keys
    total = mixed.sum(axis=2, dtype=np.uint64)
    assert np.array_equal(delta.signatures(frame), total ^ (total >> np.uint64(32)))
