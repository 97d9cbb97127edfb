from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.deflate import deflate as module
from fsmount.codec.deflate import engine
from fsmount.codec.deflate.deflate import Corrections, DeflateParams, deflate, search
from tests.support.deflate_inputs import mixture

PARAMS = st.builds(
    DeflateParams, st.integers(1, 9), st.integers(0, 4), st.integers(1, 9), st.integers(9, 15)
)
MAIM = DeflateParams(6, zlib.Z_FILTERED, 8, 15)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[DeflateParams]:
    """A list that collects the parameters that a search tries."""
    tried: list[DeflateParams] = []

    def noting(raw: bytes, params: DeflateParams, **how: Any) -> bytes:
        tried.append(params)
        return deflate(raw, params, **how)

    monkeypatch.setattr(module, "deflate", noting)
    return tried


@given(PARAMS, st.integers(0, 99), st.sampled_from([0, 5, 700, 30_000]))
@settings(deadline=None, max_examples=60)
def test_finds_any_parameters(params: DeflateParams, seed: int, size: int) -> None:
    raw = mixture(seed, size, 200)
    body = deflate(raw, params)
    assert zlib.decompress(body, -15) == raw
    found = search(raw, body)
    assert isinstance(found, DeflateParams)
    assert deflate(raw, found) == body


@pytest.mark.parametrize("size", [300, 9000, 40_000, 70_000])
@pytest.mark.parametrize("level", [1, 4, 6, 7, 9])
@pytest.mark.parametrize("mem_level", [8, 9])
def test_finds_what_made_stored_blocks(size: int, level: int, mem_level: int) -> None:
    """The input is noise: the stream equals one of level 0, or has no matches to tell the level."""
    raw = random.Random(size).randbytes(size)
    body = deflate(raw, DeflateParams(level, 0, mem_level, 15))
    found = search(raw, body)
    assert isinstance(found, DeflateParams)
    assert deflate(raw, found) == body


@pytest.mark.parametrize("level", [1, 3, 6, 9])
@pytest.mark.parametrize("window_bits", [9, 10, 12])
@pytest.mark.parametrize("mem_level", [1, 2, 3])
@pytest.mark.parametrize("seed", [1, 5, 15])
def test_the_header_says_how_noise_was_deflated(
    level: int, window_bits: int, mem_level: int, seed: int
) -> None:
    """The stream fits more parameters than the kernel names.

    In scanlines of the seeds 5 and 15, level 1 has matches that a window of 512 bytes hides.
    """
    chance = random.Random(seed)
    raw = b"".join(b"\0" + chance.randbytes(132) for _ in range(29 << (window_bits - 9)))
    params = DeflateParams(level, 0, mem_level, window_bits)
    header = zlib.compressobj(level, zlib.DEFLATED, window_bits, mem_level).compress(b"")[:2]
    body = deflate(raw, params)
    found = search(raw, body, header=int.from_bytes(header, "big"))
    assert isinstance(found, DeflateParams)
    assert deflate(raw, found) == body


def test_a_header_may_say_less_than_is_true() -> None:
    """As libpng does for small pictures."""
    raw = mixture(7, 700, 64) * 3
    for params in (MAIM, DeflateParams(9, 0, 9, 15)):
        found = search(raw, deflate(raw, params), header=0x1819)
        assert isinstance(found, DeflateParams)
        assert deflate(raw, found) == deflate(raw, params)


def test_what_differs_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates give the same bytes in the part that the search compares first."""
    monkeypatch.setattr(module, "_FIRST_LOOK", 60_000)
    raw = bytes(60_000) + mixture(1, 60_000, 64)
    params = DeflateParams(5, 0, 9, 12)
    found = search(raw, deflate(raw, params))
    assert isinstance(found, DeflateParams)
    assert deflate(raw, found) == deflate(raw, params)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_zlib_fed_at_once(seed: int) -> None:
    raw = mixture(seed, 400_000, 64)
    for params in (MAIM, DeflateParams(1, 0, 9, 15), DeflateParams(9, 0, 9, 15)):
        engine = zlib.compressobj(
            params.level, zlib.DEFLATED, -params.window_bits, params.mem_level, params.strategy
        )
        assert deflate(raw, params) == engine.compress(raw) + engine.flush()


@pytest.mark.parametrize(
    "params",
    [
        MAIM,
        DeflateParams(6, zlib.Z_RLE, 8, 15),
        DeflateParams(2, 0, 8, 15),
        DeflateParams(6, 0, 8, 15),
        DeflateParams(6, zlib.Z_FILTERED, 9, 15),
        DeflateParams(1, 0, 9, 15),
        DeflateParams(7, zlib.Z_FILTERED, 9, 15),
    ],
)
def test_common_tools_at_the_first_try(trials: list[DeflateParams], params: DeflateParams) -> None:
    raw = mixture(5, 300_000, 64)
    assert search(raw, deflate(raw, params)) == params
    assert trials == [params]


def test_hints_come_first(trials: list[DeflateParams]) -> None:
    params = DeflateParams(5, zlib.Z_FIXED, 7, 15)
    raw = mixture(6, 100_000, 64)
    assert search(raw, deflate(raw, params), [params, MAIM]) == params
    assert trials == [params]
    trials.clear()
    # One hint has no valid parameters, and one stands twice.
    hints = [DeflateParams(0, 9, 0, 0), MAIM, DeflateParams(6, 0, 9, 15), MAIM, params]
    assert search(raw, deflate(raw, params), hints) == params
    assert trials == [MAIM, DeflateParams(6, 0, 9, 15), params]


def _stored(raw: bytes) -> bytes:
    return zlib.compress(raw, 0)[2:-4]


def _flushed(raw: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return engine.compress(raw[:500]) + engine.flush(zlib.Z_FULL_FLUSH) + _end(engine, raw[500:])


def _with_dictionary(raw: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=raw[1000:3000])
    return _end(engine, raw)


def _last_byte_changed(raw: bytes) -> bytes:
    body = deflate(raw, MAIM)
    return body[:-1] + bytes([body[-1] ^ 1])


def _end(engine: zlib._Compress, raw: bytes) -> bytes:
    return engine.compress(raw) + engine.flush()


@pytest.mark.parametrize("foreign", [_stored, _flushed])
def test_corrections_for_other_encoders(foreign: Callable[[bytes], bytes]) -> None:
    raw = mixture(7, 120_000, 64)
    found = search(raw, foreign(raw))
    assert isinstance(found, Corrections)
    assert len(found.record) < 200
    assert deflate(raw, found) == foreign(raw)


@pytest.mark.parametrize(
    "foreign",
    [
        _with_dictionary,
        _last_byte_changed,
        lambda raw: deflate(raw, MAIM)[:-1],
        lambda raw: deflate(raw, MAIM) + b"\0",
        lambda raw: b"",
        lambda raw: b"\xff" * 99,
    ],
)
def test_none_for_what_is_no_stream(foreign: Callable[[bytes], bytes]) -> None:
    raw = mixture(7, 120_000, 64)
    assert search(raw, foreign(raw)) is None


def test_a_record_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = mixture(7, 120_000, 64)
    monkeypatch.setattr(engine, "apply", lambda record, raw: _stored(raw) + b"\0")
    assert search(raw, _stored(raw)) is None


def test_bad_parameters() -> None:
    for bad in ((0, 0, 8, 15), (10, 0, 8, 15), (6, 5, 8, 15), (6, 0, 0, 15), (6, 0, 8, 8)):
        with pytest.raises(ValueError, match="parameters"):
            deflate(b"", DeflateParams(*bad))
