"""Layers cross from process to process unchanged, or are decoded anew."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from fsmount.codec.delta.delta import TILE, Layer
from fsmount.codec.memory import WorkerMemory
from fsmount.store.frames.layers import DecodedLayer, JobLayers, Loan, LruLayers, SharedLayer, share
from fsmount.work.sealed import Sealed


def known(tiles: int, dtype: Any = np.uint8, channels: int = 3, seed: int = 1) -> DecodedLayer:
    """A layer of a frame of 5 by 7 tiles, with `tiles` own ones."""
    chance = np.random.default_rng(seed)
    index = np.full((5, 7), -1, np.int32)
    places = chance.permutation(35)[:tiles]
    index.flat[places] = np.arange(tiles, dtype=np.int32)
    most = np.iinfo(dtype).max
    pixels = chance.integers(0, most, (tiles, TILE, TILE, channels), dtype, endpoint=True)
    return DecodedLayer(Layer((5 * TILE - 3, 7 * TILE, channels), pixels, index), 2)


def shared(tiles: int, seed: int = 1) -> SharedLayer:
    made = share(("packs/1.zip", 7 + seed), known(tiles, seed=seed))
    assert made is not None
    return made


def equal(one: DecodedLayer | None, other: DecodedLayer) -> bool:
    return (
        one is not None
        and (one.level, one.layer.shape) == (other.level, other.layer.shape)
        and np.array_equal(one.layer.index, other.layer.index)
        and one.layer.pixels.dtype == other.layer.pixels.dtype
        and np.array_equal(one.layer.pixels, other.layer.pixels)
    )


@pytest.mark.parametrize("tiles", [0, 1, 3, 30])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 4])
def test_it_comes_back(tiles: int, dtype: Any, channels: int) -> None:
    whole = known(tiles, dtype, channels)
    made = share(("p", 1), whole)
    assert made is not None
    assert equal(made.known(), whole)
    assert made.nbytes == whole.layer.nbytes
    assert isinstance(made.tiles, Sealed) == (made.nbytes > 16 << 10)


@pytest.mark.parametrize("tiles", [2, 30])
def test_a_record_that_changed_gives_nothing(tiles: int) -> None:
    """Wrong facts of a layer would give a frame that rests on it wrong needs, or wrong pixels."""
    made = shared(tiles)
    other: dict[str, Any] = {
        "key": ("packs/1.zip", 9),
        "shape": (5 * TILE - 2, 7 * TILE, 3),
        "dtype": "int8",
        "count": tiles - 1,
        "level": 1,
        "proof": bytes(32),
    }
    for name, value in other.items():
        assert replace(made, **{name: value}).known() is None, name
    assert set(other) | {"tiles"} == {field.name for field in fields(made)}
    if isinstance(made.tiles, bytes):
        changed = bytearray(made.tiles)
        changed[-1] ^= 1
        assert replace(made, tiles=bytes(changed)).known() is None


def test_memory_that_is_not_available_gives_nothing() -> None:
    made = shared(30)
    assert isinstance(made.tiles, Sealed)
    assert replace(made, tiles=Sealed(-1, made.tiles.size)).known() is None


def test_tiles_of_another_layer_give_nothing() -> None:
    one, two = shared(30, 1), shared(30, 2)
    assert one.nbytes == two.nbytes
    assert replace(one, tiles=two.tiles).known() is None


def test_a_system_without_memory_shares_small_layers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert share(("p", 1), known(30)) is None
    assert share(("p", 1), known(2)) is not None
    layers = JobLayers(Loan())
    layers.put(("p", 1), known(30))
    layers.put(("p", 2), known(2))
    assert [layer.key for layer in layers.made()] == [("p", 2)]


def test_a_job_has_what_is_lent_and_gives_back_what_it_made() -> None:
    lent = shared(30)
    layers = JobLayers(Loan(0, (lent,)))
    assert lent.key in layers
    found = layers.get(lent.key)
    assert equal(found, known(30))
    assert layers.get(lent.key) is found
    assert layers.get(("p", 1)) is None
    layers.put(("p", 1), known(3))
    assert ("p", 1) in layers
    assert [layer.key for layer in layers.made()] == [("p", 1)]


def test_the_next_job_has_what_is_lent_again() -> None:
    memory, lent, inline = WorkerMemory(), shared(30), shared(2, 3)
    assert isinstance(lent.tiles, Sealed) and isinstance(inline.tiles, bytes)
    first = JobLayers(Loan(0, (lent,)), memory)
    found = first.get(lent.key)
    assert equal(found, known(30))
    again = JobLayers(Loan(0, (lent,)), memory)
    assert again.get(lent.key) is found
    # What travels as bytes is checked each time.
    assert equal(JobLayers(Loan(0, (inline,)), memory).get(inline.key), known(2, seed=3))
    assert not memory.lent


def test_another_layer_of_the_same_object_is_not_mixed_up() -> None:
    memory = WorkerMemory()
    for seed in (1, 2):
        whole = known(30, seed=seed)
        made = share(("p", 1), whole)
        assert made is not None
        assert equal(JobLayers(Loan(0, (made,)), memory).get(made.key), whole)


def test_memory_that_does_not_arrive_again_is_not_used() -> None:
    memory, lent = WorkerMemory(), shared(30)
    assert isinstance(lent.tiles, Sealed)
    JobLayers(Loan(0, (lent,)), memory).get(lent.key)
    lost = replace(lent, tiles=Sealed(-1, lent.tiles.size))
    assert JobLayers(Loan(0, (lost,)), memory).get(lent.key) is None


def test_a_lent_layer_that_is_of_no_use_is_as_if_not_lent() -> None:
    layers = JobLayers(Loan(0, (replace(shared(3), level=7),)))
    assert layers.get(shared(3).key) is None
    assert shared(3).key not in layers


def test_layers_for_one_process_stay_within_their_budget() -> None:
    layers = LruLayers(2 * known(3).layer.nbytes)
    for number in range(3):
        layers.put(("p", number), known(3))
    assert [("p", number) in layers for number in range(3)] == [False, True, True]
    assert layers.get(("p", 2)) is not None
