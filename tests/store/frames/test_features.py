from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory
from fsmount.store.frames import features
from tests.support.frames import screens


@given(st.integers(0, 1 << 32), st.sampled_from(["uint8", "uint16"]), st.integers(1, 4))
def test_a_sequence_is_seen_as_each_frame_alone(seed: int, dtype: str, channels: int) -> None:
    source = random.Random(seed)
    shape = (source.randint(1, 70), source.randint(1, 70), channels)
    memory = WorkerMemory()
    frame = np.zeros(shape, dtype)
    for _ in range(5):
        frame = frame.copy()
        for _ in range(source.randint(0, 3)):
            y, x = source.randrange(shape[0]), source.randrange(shape[1])
            frame[y : y + source.randint(1, 30), x : x + 20] = source.randrange(250)
        seen, alone = features.of(frame, memory), features._whole(frame, shape)
        assert seen.geometry == alone.geometry
        assert np.array_equal(seen.signatures, alone.signatures)
        assert np.array_equal(seen.is_flat, alone.is_flat)
        assert np.array_equal(seen.colours, alone.colours)


def test_only_what_differs_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = WorkerMemory()
    frame = screens(1)[0]
    features.of(frame, memory)
    other = frame.copy()
    other[40, 3] ^= 1
    looked: list[int] = []
    genuine = engine.hash_tiles

    def look(pixels: memoryview, *args: object) -> bytes:
        looked.append(len(pixels))
        return genuine(pixels, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "hash_tiles", look)
    features.of(other, memory)
    assert looked == [16]
    features.of(other, memory)
    assert looked == [16]
