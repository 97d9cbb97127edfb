"""The native deflate kernel against classic zlib, golden vectors and itself."""

from __future__ import annotations

import random
import threading
import time
import zlib
from typing import Any

import numpy as np
import pytest

from fsmount.codec import _kernel
from tests.fuzz import edges
from tests.support.deflate_inputs import edge_inputs, edited, oracle, stored, texture

kernel: Any = _kernel

LIKE_MAIM = (6, zlib.Z_FILTERED, 8, 15)

# Each input takes its turn of these parameters, so that a run takes seconds. The fuzzer and the
# long run try all of them.
PARAMS = [
    *(
        (level, strategy, mem, 15)
        for level in range(1, 10)
        for strategy in (0, 1, 4)
        for mem in (8, 9)
    ),
    *((level, strategy, mem, 15) for level in (1, 6) for strategy in (2, 3) for mem in (1, 8, 9)),
    *((level, mem % 2, mem, 15) for level in (1, 3, 4, 6, 9) for mem in range(1, 8)),
    *((level, bits % 4, 8 + bits % 2, bits) for level in (1, 2, 4, 6, 9) for bits in range(8, 15)),
]


def test_inflate() -> None:
    rng = random.Random(7)
    for raw in (b"", b"a", bytes(70_000), texture(rng, 90_000), rng.randbytes(70_000)):
        for level, strategy, mem_level, bits in [*PARAMS[::5], (0, 0, 8, 15)]:
            maker = zlib.compressobj(level, zlib.DEFLATED, -max(bits, 9), mem_level, strategy)
            body = maker.compress(raw[:50]) + maker.flush(rng.choice((0, 2, 3))) if raw else b""
            body += maker.compress(raw[50:]) + maker.flush()
            tail = rng.randbytes(rng.randrange(20))
            assert kernel.inflate(body + tail, len(raw)) == (raw, len(body))
            with pytest.raises(ValueError, match="truncated"):
                kernel.inflate(body, len(raw) + 1)
            with pytest.raises(ValueError, match="truncated"):
                kernel.inflate(body[:-1], len(raw))
            if raw:
                with pytest.raises(ValueError, match="more image data"):
                    kernel.inflate(body, len(raw) - 1)


def test_inflate_damaged_streams_like_zlib() -> None:
    rng = random.Random(8)
    raw = texture(rng, 20_000)
    body = zlib.compress(raw, 6, -15)
    for _ in range(500):
        damaged = bytearray(body)
        damaged[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        try:
            found, used = kernel.inflate(damaged, len(raw))
        except ValueError:
            continue
        decoder = zlib.decompressobj(-15)
        assert found == decoder.decompress(damaged)
        assert decoder.eof
        assert len(decoder.unused_data) == len(damaged) - used


def test_adler32() -> None:
    rng = random.Random(9)
    for size in [*range(70), 4095, 4096, 4097, 65_521, 200_000]:
        for data in (rng.randbytes(size), b"\xff" * size):
            assert kernel.adler32(data) == zlib.adler32(data)


def test_differing_rows() -> None:
    assert kernel.differing_rows(b"abcdef", b"abcxef", 2) == b"\0\1\0"
    for one, other, size in ((b"ab", b"a", 1), (b"abc", b"abc", 2), (b"a", b"a", 0)):
        with pytest.raises(ValueError, match="rows"):
            kernel.differing_rows(one, other, size)


def test_rows_and_tiles_that_do_not_fit_are_refused() -> None:
    rows = bytearray(64)
    for size, pixel in ((0, 1), (8, 3), (8, 5), (8, 0), (-1, 1), (1 << 40, 1)):
        with pytest.raises(ValueError, match="rows"):
            kernel.apply_filters(bytes(64), bytes(8), size, pixel)
        with pytest.raises(ValueError, match="rows"):
            kernel.undo_filters(bytes(72), None, rows, size, pixel)
    for alpha in (-1, 4, 5, 1 << 62, 1):
        with pytest.raises(ValueError, match="rows"):
            kernel.apply_filters(bytes(64), bytes(16), 4, 4, alpha)
    with pytest.raises(ValueError, match="filter type for each"):
        kernel.apply_filters(bytes(64), bytes(7), 8, 1)
    with pytest.raises(ValueError, match="rows"):
        kernel.undo_filters(bytes(72), bytes(71), rows, 8, 1)
    with pytest.raises(ValueError, match="rows"):
        kernel.undo_filters(bytes(72), None, bytearray(63), 8, 1)
    index = np.zeros(1, np.int32)
    for row, tile, pixels in ((0, 16, 256), (64, 4, 64), (60, 16, 256), (64, 16, 255)):
        with pytest.raises(ValueError, match="tiles"):
            kernel.paint_tiles(rows, row, tile, index, bytes(pixels))
        with pytest.raises(ValueError, match="tiles"):
            kernel.cut_tiles(rows, row, tile, index, bytearray(pixels))
    for wrong in (np.full(4, 1, np.int32), np.zeros(5, np.int32)):
        with pytest.raises(ValueError, match="tiles"):
            kernel.paint_tiles(rows, 64, 16, wrong, bytes(256))
        with pytest.raises(ValueError, match="tiles"):
            kernel.cut_tiles(rows, 64, 16, wrong, bytearray(256))
    with pytest.raises(ValueError, match="tiles"):
        kernel.hash_tiles(bytes(64), 64, 16, bytes(8))
    for size, row, tile in ((64, 63, 16), (50, 10, 48), (64, 64, 24)):
        with pytest.raises(ValueError, match="tiles"):
            kernel.flat_tiles(bytes(size), row, tile)
    for size, row, channels, sample in (
        (15 * 48, 48, 3, 1),
        (16 * 45, 45, 3, 1),
        (16 * 48, 48, 3, 2),
        (16 * 48 + 1, 48, 3, 1),
        (16 * 48, 48, 0, 1),
        (16 * 48, 48, 1, 3),
        (16 * 48, 0, 1, 1),
    ):
        with pytest.raises(ValueError, match="window"):
            kernel.hash_windows(bytes(size), row, channels, sample)
    for windows, width, tiles, wanted, most in (
        (6, 0, 4, [1], 1),
        (6, -3, 4, [1], 1),
        (6, 4, 4, [1], 1),
        (0, 3, 4, [1], 1),
        (6, 3, 3, [1], 1),
        (6, 3, 5, [1], 1),
        (6, 3, 4, [1, 1], 1),
        (6, 3, 4, [2, 1], 1),
        (6, 3, 4, [1], 0),
        (6, 3, 4, [1], 257),
    ):
        hashes = np.array(wanted, np.uint32).data
        with pytest.raises(ValueError, match="windows"):
            kernel.find_windows(bytes(4 * windows), width, bytes(tiles), hashes, most)
    for sizes in ((25, 4), (24, 5)):
        with pytest.raises(ValueError, match="windows"):
            kernel.find_windows(bytes(sizes[0]), 3, bytes(4), bytes(sizes[1]), 1)
    assert kernel.find_windows(bytes(24), 3, b"\1" * 4, b"", 1) == (b"", b"")


def test_golden() -> None:
    """The kernel must never make other bytes: stores hold streams that only these re-create."""
    assert edges.golden_differences(edges.Native()) == []


def test_edge_cases() -> None:
    """The kernel passes a sample of the cases of `python -m tests.fuzz.edges`."""
    kernel_here = edges.Native()
    for turn, (name, raw, params) in zip(range(400), edges.cases(seed=1), strict=False):
        assert not edges.difference(kernel_here, raw, params, turn), (name, params)


@pytest.mark.parametrize("seed", [1, 2])
def test_like_zlib(seed: int) -> None:
    for turn, (name, raw) in enumerate(edge_inputs(seed)):
        for params in PARAMS[(turn + seed) % 12 :: 12]:
            body, _ = kernel.deflate(raw, *params)
            assert body == oracle(raw, *params), (name, params)


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 200_000])
def test_stored(size: int) -> None:
    raw = random.Random(size).randbytes(size)
    assert kernel.deflate(raw, 0, 0, 8, 15)[0] == stored(raw)


@pytest.mark.parametrize("seed", range(40))
def test_delta(seed: int) -> None:
    rng = random.Random(seed)
    raw = texture(rng, rng.choice((0, 1, 2, 300, 5000, 100_000, 300_000)))
    params = rng.choice(((6, 1, 8, 15), (6, 0, 8, 15), (9, 0, 9, 15), (4, 1, 2, 12), (2, 0, 8, 15)))
    body, tokens = kernel.deflate(raw, *params)
    for turn in range(4):
        changed = edited(rng, raw) if raw else raw
        expected = kernel.deflate(changed, *params)
        assert expected[0] == oracle(changed, *params)
        old_body = body if turn % 2 else None
        result = kernel.deflate_delta(raw, tokens, changed, *params, reference_body=old_body)
        assert result[0] == expected[0]
        assert kernel.deflate_delta(changed, result[1], raw, *params)[0] == body
        raw, (body, tokens) = changed, result


def test_delta_of_equal_inputs_copies() -> None:
    raw = texture(random.Random(5), 500_000)
    body, tokens = kernel.deflate(raw, *LIKE_MAIM)
    again = kernel.deflate_delta(raw, tokens, raw, *LIKE_MAIM, reference_body=body)
    assert again == (body, tokens)


def test_delta_falls_back() -> None:
    """The kernel does a full parse if the parameters or the size of the input differ."""
    raw = texture(random.Random(6), 50_000)
    _, tokens = kernel.deflate(raw, *LIKE_MAIM)
    other = (9, 0, 9, 14)
    assert kernel.deflate_delta(raw, tokens, raw, *other)[0] == oracle(raw, *other)
    longer = raw + b"more"
    assert kernel.deflate_delta(raw, tokens, longer, *LIKE_MAIM)[0] == oracle(longer, *LIKE_MAIM)
    none, no_tokens = kernel.deflate(raw, 0, 0, 8, 15)
    assert kernel.deflate_delta(raw, no_tokens, raw, 0, 0, 8, 15)[0] == none
    assert kernel.deflate_delta(raw, no_tokens, raw, *other)[0] == oracle(raw, *other)


def test_damaged_tokens_are_refused() -> None:
    raw = texture(random.Random(7), 50_000)
    _, tokens = kernel.deflate(raw, *LIKE_MAIM)
    for damaged in (b"", tokens[:-1], tokens[4:], bytes(len(tokens)), tokens[:40] + b"\xff" * 8):
        with pytest.raises(ValueError, match="tokens"):
            kernel.deflate_delta(raw, damaged, raw, *LIKE_MAIM)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("params", [LIKE_MAIM, (6, 0, 8, 15), (9, 0, 9, 12), (1, 0, 8, 15)])
def test_threads(threads: int, params: tuple[int, int, int, int]) -> None:
    raw = texture(random.Random(threads), 1_500_000) + bytes(700_000)
    one = kernel.deflate(raw, *params)
    assert kernel.deflate(raw, *params, threads=threads) == one
    assert kernel.deflate(raw, *params, threads=threads, row_bytes=6401) == one
    assert one[0] == oracle(raw, *params)


@pytest.mark.parametrize("data", [bytes(3_000_000), random.Random(8).randbytes(1_200_000)])
def test_threads_where_segments_never_meet(data: bytes) -> None:
    assert kernel.deflate(data, 6, 0, 8, 15, threads=3)[0] == oracle(data, 6, 0, 8, 15)


@pytest.mark.parametrize(
    "params",
    [LIKE_MAIM, (6, 0, 8, 15), (9, 1, 9, 15), (9, 0, 8, 15), (1, 0, 8, 15), (2, 0, 9, 15),
     (6, 3, 8, 15), (7, 1, 9, 15), (4, 0, 3, 13), (6, 2, 8, 15), (6, 4, 8, 15)],
)  # fmt: skip
def test_identify(params: tuple[int, int, int, int]) -> None:
    raw = texture(random.Random(9), 400_000)
    body = oracle(raw, *params)
    found = kernel.identify(body, raw)
    if params[1] != zlib.Z_FIXED:  # else the tokens fit other strategies as well
        found = found[:1]
    assert any(kernel.deflate(raw, *guess)[0] == body for guess in found)


def test_identify_refuses() -> None:
    raw = texture(random.Random(10), 100_000)
    body = oracle(raw, *LIKE_MAIM)
    assert kernel.identify(body + b"x", raw) == []
    assert kernel.identify(body[:-1], raw) == []
    assert kernel.identify(body, raw[:-1]) == []
    assert kernel.identify(b"", raw) == []
    assert kernel.identify(stored(raw), raw) == [(0, 0, 8, 15)]
    flush = zlib.compressobj(6, zlib.DEFLATED, -15)
    foreign = flush.compress(raw[:50_000]) + flush.flush(zlib.Z_SYNC_FLUSH)
    foreign += flush.compress(raw[50_000:]) + flush.flush()
    assert kernel.identify(foreign, raw) == []


def test_buffers() -> None:
    raw = texture(random.Random(11), 100_000)
    expected = kernel.deflate(raw, *LIKE_MAIM)
    assert kernel.deflate(bytearray(raw), *LIKE_MAIM) == expected
    assert kernel.deflate(memoryview(b"x" + raw)[1:], *LIKE_MAIM) == expected
    with pytest.raises(BufferError):
        kernel.deflate(memoryview(raw)[::2], *LIKE_MAIM)
    with pytest.raises(TypeError):
        kernel.deflate("text", *LIKE_MAIM)


@pytest.mark.parametrize(
    "params", [(-1, 0, 8, 15), (10, 0, 8, 15), (6, 5, 8, 15), (6, 0, 0, 15), (6, 0, 10, 15),
               (6, 0, 8, 7), (6, 0, 8, 16)],
)  # fmt: skip
def test_wrong_parameters(params: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="parameters"):
        kernel.deflate(b"", *params)
    with pytest.raises(ValueError, match="threads"):
        kernel.deflate(b"", *LIKE_MAIM, threads=0)


def test_no_gil_while_working() -> None:
    """Another Python thread runs while the kernel works, not only before the kernel begins."""
    raw = texture(random.Random(12), 3_000_000)
    times: list[float] = []

    def work() -> None:
        times.append(time.perf_counter())
        kernel.deflate(raw, 9, 0, 9, 15)
        times.append(time.perf_counter())

    # Other processes may keep the processors from this thread during a whole attempt.
    for _ in range(20):
        times.clear()
        steps = []
        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            steps.append(time.perf_counter())
        worker.join()
        # Python itself lets other threads run for some milliseconds before and after the call.
        start, third = times[0], (times[1] - times[0]) / 3
        if sum(start + third < step < start + 2 * third for step in steps) > 1000:
            return
    pytest.fail("this thread stood still")
