"""Own tiles in one or two images: any tiles come back, and photographs are told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.delta import payload
from fsmount.codec.delta.payload import NOTHING, PAM, Own, Payload, Photographs
from fsmount.codec.images import pam
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged


def photograph(count: int, channels: int, source: np.random.Generator) -> Frame:
    """Tiles with a slope and a little noise."""
    down, across = np.mgrid[:16, :16]
    slope = source.integers(0, 5, (count, 1, 1, channels)) * down[None, :, :, None]
    slope = slope + source.integers(0, 5, (count, 1, 1, channels)) * across[None, :, :, None]
    noise = source.integers(0, 4, (count, 16, 16, channels))
    return np.asarray((50 + slope + noise).astype(np.uint8))


def drawn(count: int, channels: int, source: np.random.Generator) -> Frame:
    """Tiles of two colours."""
    bits = source.integers(0, 2, (count, 16, 16, 1), np.uint8)
    return np.repeat(bits * np.uint8(200), channels, axis=3)


def mixed(grid: tuple[int, int], channels: int, photographs: float, seed: int) -> Own:
    source = np.random.default_rng(seed)
    places = source.random(grid) < 0.8
    count = int(np.count_nonzero(places))
    tiles = drawn(count, channels, source)
    which = source.random(count) < photographs
    tiles[which] = photograph(int(np.count_nonzero(which)), channels, source)
    return Own(tiles, places, (grid[0] * 16, grid[1] * 16, channels))


def decoded(coded: Payload, own: Own, dictionary: Dictionary | None = None) -> Frame:
    return payload.decode(coded, own.places, own.shape, own.tiles.dtype, dictionary)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(0, 1 << 20),
    st.sampled_from([payload.encode, payload.encode_again]),
)
def test_tiles_come_back(
    grid: tuple[int, int],
    channels: int,
    photographs: float,
    seed: int,
    encode: Callable[..., Payload],
) -> None:
    own = mixed(grid, channels, photographs, seed)
    dictionary = Dictionary(pam.picture(drawn(8, channels, np.random.default_rng(1))))
    for known in (None, dictionary):
        assert np.array_equal(decoded(encode(own, known), own, known), own.tiles)


@pytest.mark.parametrize("encode", [payload.encode, payload.encode_again])
def test_edges_of_the_frame(encode: Callable[..., Payload]) -> None:
    """Tiles at the lower and right edge are padded with zeros, and images leave the padding out."""
    own = mixed((5, 7), 3, 0.5, 1)
    tiles = own.tiles.copy()
    rows, columns = np.nonzero(own.places)
    tiles[rows == 4, 3:] = 0
    tiles[columns == 6, :, 9:] = 0
    own = Own(tiles, own.places, (4 * 16 + 3, 6 * 16 + 9, 3))
    assert np.array_equal(decoded(encode(own), own), tiles)


def test_photographs_and_drawn_tiles_are_told_apart() -> None:
    source = np.random.default_rng(3)
    assert payload.photographs(photograph(40, 3, source)).all()
    assert not payload.photographs(drawn(40, 3, source)).any()
    noise = source.integers(0, 256, (40, 16, 16, 3), np.uint8)
    assert not payload.photographs(noise).any()
    assert not payload.photographs(np.full((2, 16, 16, 4), 7, np.uint8)).any()
    wraps = drawn(1, 1, source)
    wraps[wraps != 0] = 255
    assert not payload.photographs(wraps).any()


def test_both_kinds_are_coded_apart() -> None:
    own = mixed((20, 20), 3, 0.3, 1)
    coded = payload.encode(own)
    assert coded.suffix == PAM
    assert coded.photographs is not None
    assert coded.photographs.suffix == ".webp"
    which = payload.unpack_bits(coded.photographs.tiles, len(own.tiles))
    assert np.array_equal(which, payload.photographs(own.tiles))
    only = payload.encode(mixed((20, 20), 3, 1.0, 1))
    assert (only.suffix, only.photographs) == (".webp", None)
    none = payload.encode(mixed((20, 20), 3, 0.0, 1))
    assert (none.suffix, none.photographs) == (PAM, None)


def test_noise_goes_to_the_smaller_format() -> None:
    source = np.random.default_rng(1)
    tiles = source.integers(0, 256, (400, 16, 16, 3), np.uint8)
    own = Own(tiles, np.ones((20, 20), np.bool_), (320, 320, 3))
    coded = payload.encode(own)
    assert coded.cost < 1.01 * tiles.nbytes
    assert np.array_equal(decoded(coded, own), tiles)


def test_no_tile_and_deep_samples() -> None:
    nothing = Own(np.zeros((0, 16, 16, 3), np.uint8), np.zeros((2, 2), np.bool_), (20, 20, 3))
    for encode in (payload.encode, payload.encode_again):
        assert encode(nothing) == Payload()
    assert decoded(Payload(), nothing).shape == (0, 16, 16, 3)
    deep = Own(np.full((4, 16, 16, 3), 40_000, np.uint16), np.ones((2, 2), np.bool_), (32, 32, 3))
    for encode in (payload.encode, payload.encode_again):
        assert encode(deep).suffix == ".jxl"
        assert np.array_equal(decoded(encode(deep), deep), deep.tiles)


def wrong_payloads(coded: Payload, count: int) -> list[Payload]:
    second = coded.photographs
    assert second is not None
    bits = payload.unpack_bits(second.tiles, count)
    return [
        Payload(),
        replace(coded, photographs=None),
        replace(coded, suffix=NOTHING),
        replace(coded, suffix=".webp"),
        replace(coded, suffix=".png"),
        replace(coded, data=coded.data[:-1]),
        *(
            replace(coded, photographs=changed)
            for changed in (
                replace(second, tiles=payload.pack_bits(~bits)),
                replace(second, tiles=payload.pack_bits(bits[:-8])),
                replace(second, tiles=payload.pack_bits(np.append(bits, [True] * 8))),
                replace(second, tiles=payload.pack_bits(np.zeros_like(bits))),
                replace(second, tiles=payload.pack_bits(np.ones_like(bits))),
                replace(second, tiles=second.tiles[:-1]),
                replace(second, tiles=second.tiles + b"\0"),
                replace(second, tiles=b""),
                replace(second, data=second.data[:-1]),
                replace(second, suffix=NOTHING),
                replace(second, suffix=PAM),
            )
        ),
    ]


def test_images_that_are_not_those_of_the_tiles_are_damage() -> None:
    own = mixed((20, 20), 3, 0.3, 1)
    coded = payload.encode(own)
    for wrong in wrong_payloads(coded, len(own.tiles)):
        with pytest.raises(Damaged):
            decoded(wrong, own)
    with pytest.raises(Damaged):
        payload.decode(coded, own.places, own.shape, np.dtype(np.uint16))
    with pytest.raises(Damaged):
        decoded(Payload(".webp", b"", Photographs(".webp", b"", b"")), own)


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back(bits: list[bool]) -> None:
    mask = np.array(bits, np.bool_)
    assert np.array_equal(payload.unpack_bits(payload.pack_bits(mask), len(bits)), mask)


def test_bits_of_a_bomb() -> None:
    huge: Any = np.zeros(1 << 26, np.bool_)
    with pytest.raises(Damaged):
        payload.unpack_bits(payload.pack_bits(huge), 100)
