from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import scanlines
from fsmount.codec.png.samples import SampleLayout
from fsmount.errors import NotExact
from tests.support.pngs import filter_rows

KINDS = [(2, 8), (6, 8), (0, 8), (4, 8), (3, 4), (0, 1), (6, 16)]


def edited(source: random.Random, rows: list[bytes], alpha: int) -> list[bytes]:
    """The rows with a few changes: a changed byte, a random row, or a copy of another row.

    `alpha` is the number of bytes of a pixel whose last byte becomes 255, or 0.
    """
    out = [bytearray(row) for row in rows]
    for _ in range(source.randint(0, 3)):
        row = source.choice(out)
        how = source.randrange(3)
        if how == 0:
            row[source.randrange(len(row))] ^= 1 << source.randrange(8)
        elif how == 1:
            row[:] = source.randbytes(len(row))
        else:
            row[:] = source.choice(out)
    if alpha:
        for row in out:
            row[alpha - 1 :: alpha] = b"\xff" * (len(row) // alpha)
    return [bytes(row) for row in out]


@given(st.integers(0, 1 << 32), st.sampled_from(KINDS), st.booleans())
def test_a_sequence_reads_as_each_picture_alone(
    seed: int, kind: tuple[int, int], opaque: bool
) -> None:
    source = random.Random(seed)
    layout = SampleLayout(source.randint(1, 9), source.randint(1, 9), *kind)
    memory = WorkerMemory()
    rows = [source.randbytes(layout.row_bytes) for _ in range(layout.height)]
    types = bytes(source.randrange(5) for _ in rows)
    given_out = []
    for number in range(6):
        alpha = layout.pixel_bytes if layout.has_alpha and opaque and number != 3 else 0
        rows = edited(source, rows, alpha if layout.bit_depth == 8 else 0)
        if source.random() < 0.2:
            types = bytes(source.randrange(5) for _ in rows)
        raw = filter_rows(rows, types, layout.pixel_bytes)
        try:
            wanted = scanlines._read_whole(raw, layout)
        except NotExact:
            with pytest.raises(NotExact):
                scanlines.read(raw, layout, memory)
            continue
        frame, dropped, found = scanlines.read(raw, layout, memory)
        assert (dropped, found) == wanted[1:] == (wanted[1], types)
        assert frame.shape == wanted[0].shape
        given_out.append((frame, wanted[0]))
        for earlier, as_it_was in given_out:
            assert np.array_equal(earlier, as_it_was), "a frame given out has changed"


def test_unchanged_rows_are_not_undone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = SampleLayout(30, 40, 6, 8)
    memory = WorkerMemory()
    rows = [bytes([y, 1, 2, 255]) * 30 for y in range(40)]
    types = b"\1" + b"\4" * 39
    frame, _, _ = scanlines.read(filter_rows(rows, types, 4), layout, memory)
    undone = []
    genuine = engine.undo_filters

    def undo(*args: object) -> bytes:
        undone.append(sum(genuine(*args)))  # type: ignore[arg-type]
        return b"\0" * 7 + b"\1" + b"\0" * 32

    monkeypatch.setattr(engine, "undo_filters", undo)
    rows[7] = bytes([99, 1, 2, 255]) * 30
    after, _, _ = scanlines.read(filter_rows(rows, types, 4), layout, memory)
    assert undone == [1]
    assert np.flatnonzero((after != frame).any(axis=(1, 2))).tolist() == [7]


def test_bad_filter_type_leaves_nothing_wrong_behind() -> None:
    layout = SampleLayout(3, 2, 2, 8)
    memory = WorkerMemory()
    good = filter_rows([b"abcdefghi", b"ihgfedcba"], b"\1\2", 3)
    frame = scanlines.read(good, layout, memory)[0].copy()
    with pytest.raises(NotExact, match="filter type"):
        scanlines.read(good[:1] + b"x" * 9 + b"\7" + good[11:], layout, memory)
    assert np.array_equal(scanlines.read(good, layout, memory)[0], frame)


@given(st.integers(0, 1 << 32), st.sampled_from([2, 4]))
def test_alpha_is_dropped_where_every_pixel_is_opaque(seed: int, pixel: int) -> None:
    source = random.Random(seed)
    height, width = source.randint(1, 5), source.randint(1, 9)
    whole = np.frombuffer(source.randbytes(height * width * pixel), np.uint8).copy()
    whole[pixel - 1 :: pixel] = 255
    colours = np.ascontiguousarray(whole.reshape(height, width, pixel)[..., :-1])
    changed = bytes(source.randrange(2) for _ in range(height))
    before = bytearray(source.randbytes(colours.nbytes))
    out = bytearray(colours.nbytes)
    assert engine.drop_alpha(whole.data, pixel, changed, None, out)
    assert out == colours.tobytes()
    row = width * (pixel - 1)
    mixed = b"".join(
        (colours.tobytes() if new else before)[y * row : (y + 1) * row]
        for y, new in enumerate(changed)
    )
    assert engine.drop_alpha(whole.data, pixel, changed, before, out)
    assert out == mixed
    at = source.randrange(height * width)
    whole[at * pixel + pixel - 1] = source.randrange(255)
    assert not engine.drop_alpha(whole.data, pixel, b"\1" * height, None, out)
    # Only rows that changed are looked at.
    assert engine.drop_alpha(whole.data, pixel, changed, before, out) == (not changed[at // width])


def test_rows_that_do_not_fit_keep_their_alpha() -> None:
    fits: list[Any] = [bytes(24), 4, bytes(2), None, bytearray(18)]
    assert not engine.drop_alpha(*fits)
    wrong: list[tuple[int, object]] = [
        *((0, bytes(23)), (1, 3), (1, 0), (2, b""), (2, bytes(7))),
        *((3, bytes(17)), (4, bytearray(19))),
    ]
    for place, other in wrong:
        one_wrong = list(fits)
        one_wrong[place] = other
        with pytest.raises(ValueError, match="rows"):
            engine.drop_alpha(*one_wrong)
