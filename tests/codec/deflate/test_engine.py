"""Who makes deflate streams: the kernel or zlib, with the same bytes."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator

import pytest

from fsmount.codec.deflate import engine
from tests.codec.deflate.test_firstblock import texture

MAIM = (6, zlib.Z_FILTERED, 8, 15)


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    engine.remember(0)
    yield
    engine.remember(0)


def with_zlib(raw: bytes, level: int, strategy: int, mem_level: int, window_bits: int) -> bytes:
    maker = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level, strategy)
    return maker.compress(raw) + maker.flush()


def test_the_kernel_is_there_where_a_compiler_is() -> None:
    assert engine.NATIVE or shutil.which("cc") is None


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("budget", [0, 1 << 20, 1 << 30])
def test_the_same_bytes_whoever_makes_them(
    monkeypatch: pytest.MonkeyPatch, native: bool, budget: int
) -> None:
    monkeypatch.setattr(engine, "NATIVE", native and engine.NATIVE)
    engine.remember(budget)
    raw = texture(1, 600_000, 64)
    for number in range(4):
        edited = bytearray(raw)
        edited[number * 70_000 : number * 70_000 + 500] = bytes(500)
        for params in (MAIM, (9, 0, 9, 15), (1, 0, 8, 15), (6, 3, 8, 15)):
            made = engine.deflate(edited, *params, row_bytes=4001, threads=2)
            assert made == with_zlib(bytes(edited), *params)


def test_what_is_remembered_stays_within_the_budget() -> None:
    if not engine.NATIVE:
        pytest.skip("no kernel")
    engine.remember(2_000_000)
    for size in range(500_000, 900_000, 50_000):
        engine.deflate(texture(size, size, 64), *MAIM)
    assert 0 < engine._remembered.used <= 2_000_000
    engine.remember(0)
    assert engine._remembered.used == 0


def test_identify_leaves_it_to_others_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "NATIVE", False)
    assert engine.identify(b"", b"") is None
