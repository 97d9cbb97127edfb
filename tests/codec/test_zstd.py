"""zstd frames: round trips, and nothing is allocated for a size that a frame only claims."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec import zstd
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged

DATA = st.binary(max_size=2000)


@given(DATA, DATA, st.sampled_from([1, 9, 19]))
def test_round_trip(data: bytes, known: bytes, level: int) -> None:
    dictionary = Dictionary(known)
    assert zstd.decompress(zstd.compress(data, level), len(data)) == data
    for frame in (zstd.compress(data, level, dictionary), dictionary.compress(data, level)):
        assert frame.startswith(zstd.MAGIC)
        assert zstd.decompress(frame, len(data), dictionary) == data


def test_a_dictionary_pays() -> None:
    known = bytes(range(256)) * 2
    assert len(zstd.compress(known, 19, Dictionary(known))) < len(zstd.compress(known, 19)) / 4


@given(st.binary(min_size=1, max_size=200), st.data())
def test_other_frames_are_damaged(data: bytes, draw: st.DataObject) -> None:
    frame = zstd.compress(data, 3)
    for other in (
        frame[: draw.draw(st.integers(0, len(frame) - 1))],
        frame + b"\0",
        frame + frame,
        draw.draw(st.binary(max_size=40)),
        zstandard.ZstdCompressor(write_content_size=False).compress(data),
    ):
        with pytest.raises(Damaged):
            zstd.decompress(other, 1 << 20)
    with pytest.raises(Damaged):
        zstd.decompress(frame, len(data) - 1)


def test_a_claimed_size_is_refused_before_memory_is_taken() -> None:
    # RFC 8878, section 3.1.1.1: a single segment whose content has 2^62 bytes.
    claim = zstd.MAGIC + b"\xe0" + (1 << 62).to_bytes(8, "little")
    with pytest.raises(Damaged):
        zstd.decompress(claim, 1 << 30)
