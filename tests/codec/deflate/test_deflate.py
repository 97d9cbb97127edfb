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
from fsmount.codec.deflate.deflate import Corrections, DeflateParams, deflate, known_answer, search
from tests.codec.deflate.test_firstblock import PARAMS, texture

MAIM = DeflateParams(6, zlib.Z_FILTERED, 8, 15)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[DeflateParams]:
    """Fills with the parameters that were tried."""
    tried: list[DeflateParams] = []
    trial = module._trial

    def noting(raw: bytes, body: bytes, params: DeflateParams, *how: int) -> tuple[bool, int]:
        tried.append(params)
        return trial(raw, body, params, *how)

    monkeypatch.setattr(module, "_trial", noting)
    return tried


def header_of(params: DeflateParams) -> int:
    engine = zlib.compressobj(
        params.level, zlib.DEFLATED, params.window_bits, params.mem_level, params.strategy
    )
    return int.from_bytes((engine.compress(b"") + engine.flush())[:2], "big")


@given(PARAMS, st.integers(0, 99), st.sampled_from([0, 5, 700, 30_000]), st.integers(0, 5000))
@settings(deadline=None, max_examples=60)
def test_finds_any_parameters(params: DeflateParams, seed: int, size: int, idat: int) -> None:
    raw = texture(seed, size, 200)
    body = deflate(raw, params)
    assert zlib.decompress(body, -15) == raw
    found = search(raw, body, header_of(params), idat)
    assert found is not None
    assert deflate(raw, found) == body


@given(PARAMS)
@settings(deadline=None, max_examples=20)
def test_header_does_not_matter(params: DeflateParams) -> None:
    raw = texture(3, 5_000, 200)
    body = deflate(raw, params)
    header = header_of(DeflateParams(1, 0, 8, 15))
    found = search(raw, body, header, 1)
    # A window that no header names is not searched for.
    if found is None:
        assert params.window_bits < 15
    else:
        assert deflate(raw, found) == body


@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_zlib_fed_at_once(seed: int) -> None:
    raw = texture(seed, 400_000, 64)
    for params in (MAIM, DeflateParams(1, 0, 9, 15), DeflateParams(9, 0, 9, 15)):
        engine = zlib.compressobj(
            params.level, zlib.DEFLATED, -params.window_bits, params.mem_level, params.strategy
        )
        assert deflate(raw, params) == engine.compress(raw) + engine.flush()


@pytest.mark.parametrize(
    ("idat_size", "params"),
    [
        (8192, MAIM),
        (8192, DeflateParams(6, zlib.Z_RLE, 8, 15)),
        (8192, DeflateParams(2, 0, 8, 15)),
        (4096, DeflateParams(6, 0, 8, 15)),
        (65536, DeflateParams(6, zlib.Z_FILTERED, 9, 15)),
        (65536, DeflateParams(1, 0, 9, 15)),
        (32768, DeflateParams(7, zlib.Z_FILTERED, 9, 15)),
        (301_234, DeflateParams(6, 0, 8, 15)),
    ],
)
def test_common_tools_at_the_first_try(
    trials: list[DeflateParams], idat_size: int, params: DeflateParams
) -> None:
    raw = texture(5, 300_000, 64)
    assert search(raw, deflate(raw, params), header_of(params), idat_size) == params
    assert trials == [params]


def test_hints_come_first(trials: list[DeflateParams]) -> None:
    params = DeflateParams(5, zlib.Z_FIXED, 7, 15)
    raw = texture(6, 100_000, 64)
    header = header_of(params)
    assert search(raw, deflate(raw, params), header, 8192, [params, MAIM]) == params
    assert trials == [params]
    trials.clear()
    # One that is nonsense, one twice.
    hints = [DeflateParams(0, 9, 0, 0), MAIM, DeflateParams(6, 0, 9, 15), MAIM, params]
    assert search(raw, deflate(raw, params), header, 8192, hints) == params
    assert trials == [MAIM, DeflateParams(6, 0, 9, 15), params]


@pytest.mark.parametrize("shown", [8, 9, 12])
def test_headers_with_another_window(shown: int) -> None:
    raw = random.Random(1).randbytes(300) * 40
    body = deflate(raw, MAIM)
    header = (shown - 8) << 12 | 0x800 | 2 << 6
    found = search(raw, body, header, 8192)
    assert found is not None
    assert deflate(raw, found) == body


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
    raw = texture(7, 120_000, 64)
    found = search(raw, foreign(raw), 0x789C, 8192)
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
    raw = texture(7, 120_000, 64)
    assert search(raw, foreign(raw), 0x789C, 8192) is None


def test_a_record_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = texture(7, 120_000, 64)
    monkeypatch.setattr(engine, "apply", lambda record, raw: _stored(raw) + b"\0")
    assert search(raw, _stored(raw), 0x789C, 8192) is None


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch, trials: list[DeflateParams]) -> None:
    monkeypatch.setattr(engine, "NATIVE", False)
    # A stream where every trial goes on to the end.
    raw = bytes(engine.SLICE * 2)
    body = deflate(raw, MAIM) + b"\0"
    assert search(raw, body, 0x789C, 8192) is None
    assert len(trials) > 20
    trials.clear()
    monkeypatch.setattr(module, "WORK_FACTOR", 3)
    monkeypatch.setattr(module, "WORK_FREE", 1)
    assert search(raw, body, 0x789C, 8192) is None
    assert len(trials) == 4


def test_bad_parameters() -> None:
    for bad in ((0, 0, 8, 15), (10, 0, 8, 15), (6, 5, 8, 15), (6, 0, 0, 15), (6, 0, 8, 8)):
        with pytest.raises(ValueError, match="parameters"):
            deflate(b"", DeflateParams(*bad))


def test_known_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_answer()
    monkeypatch.setattr(engine, "NATIVE", False)
    assert known_answer()
    genuine = zlib.compressobj

    def other(level: int, *args: Any) -> object:
        return genuine(8 if level == 7 else level, *args)

    monkeypatch.setattr(zlib, "compressobj", other)
    assert not known_answer()
