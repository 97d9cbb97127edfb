from __future__ import annotations

import random

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


def edited(source: random.Random, rows: list[bytes], opaque: bool) -> list[bytes]:
    """The rows with a few changes: a changed byte, a random row, or a copy of another row."""
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
    if opaque:
        for row in out:
            row[3::4] = b"\xff" * (len(row) // 4)
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
        rows = edited(source, rows, opaque and kind == (6, 8) and number != 3)
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
