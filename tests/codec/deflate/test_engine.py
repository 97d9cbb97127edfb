"""The kernel makes the same streams as zlib, with and without earlier streams in memory."""

from __future__ import annotations

import zlib

import pytest

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory
from tests.support.deflate_inputs import mixture, oracle

MAIM = (6, zlib.Z_FILTERED, 8, 15)


@pytest.mark.parametrize("budget", [0, 1 << 20, 1 << 30])
def test_the_same_bytes_as_zlib_whatever_is_remembered(budget: int) -> None:
    memory = WorkerMemory()
    memory.streams.resize(budget)
    raw = mixture(1, 600_000, 64)
    for number in range(4):
        edited = bytearray(raw)
        edited[number * 70_000 : number * 70_000 + 500] = bytes(500)
        for params in (MAIM, (9, 0, 9, 15), (1, 0, 8, 15), (6, 3, 8, 15)):
            made = engine.deflate(edited, *params, row_bytes=4001, threads=2, memory=memory)
            assert made == oracle(bytes(edited), *params)


def test_what_is_remembered_stays_within_the_budget() -> None:
    memory = WorkerMemory()
    memory.streams.resize(2_000_000)
    for size in range(500_000, 900_000, 50_000):
        engine.deflate(mixture(size, size, 64), *MAIM, memory=memory)
    assert 0 < memory.streams.used <= 2_000_000
    memory.streams.resize(0)
    assert memory.streams.used == 0
