"""Tiles in PAM pictures compressed with zstd: any tiles, any damage, and the programs of others."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.images import pam
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged


def some(count: int, channels: int, seed: int = 1) -> Frame:
    source = np.random.default_rng(seed)
    return source.integers(0, 4, (count, 16, 16, channels), np.uint8) * np.uint8(85)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 19), st.booleans(), st.integers(0, 9))
def test_tiles_come_back(count: int, channels: int, level: int, known: bool, seed: int) -> None:
    tiles = some(count, channels, seed)
    dictionary = Dictionary(pam.picture(some(9, channels, seed))) if known else None
    data = pam.encode(tiles, level, dictionary)
    back = pam.decode(data, (count, 16, 16, channels), dictionary)
    assert np.array_equal(back, tiles)
    assert pam.unpack(data, len(pam.picture(tiles)), dictionary) == pam.picture(tiles)


def test_a_dictionary_of_the_same_tiles_leaves_little() -> None:
    tiles = some(20, 3)
    alone, known = pam.encode(tiles, 9), pam.encode(tiles, 9, Dictionary(pam.picture(tiles)))
    assert len(known) < 60 < len(alone) // 10


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_programs_open_the_picture(channels: int, tmp_path: Path) -> None:
    if shutil.which("zstd") is None or shutil.which("ffmpeg") is None:
        pytest.skip("zstd or ffmpeg is not installed")
    tiles = some(5, channels)
    dictionary = pam.picture(some(4, channels, 2))
    (tmp_path / "dictionary").write_bytes(dictionary)
    (tmp_path / "x.pam.zst").write_bytes(pam.encode(tiles, 9, Dictionary(dictionary)))
    command = ["zstd", "-d", "-q", "-D", "dictionary", "x.pam.zst"]
    subprocess.run(command, check=True, cwd=tmp_path)
    layout = {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"}[channels]
    command = ["ffmpeg", "-v", "error", "-i", "x.pam", "-f", "rawvideo", "-pix_fmt", layout, "-"]
    found = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert found.stdout == tiles.tobytes()


def test_any_change_of_a_byte_is_damage_or_harmless() -> None:
    """There is no checksum in the file: the hash of the whole picture decides."""
    tiles = some(3, 3)
    data = pam.encode(tiles, 9)
    for position in range(len(data)):
        for value in (0, 0xFF, data[position] ^ 1, data[position] ^ 0x80):
            wrong = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                assert pam.decode(wrong, (3, 16, 16, 3)).shape == (3, 16, 16, 3)
            except Damaged:
                continue
    for end in range(len(data)):
        with pytest.raises(Damaged):
            pam.decode(data[:end], (3, 16, 16, 3))
    with pytest.raises(Damaged):
        pam.decode(data + b"\0", (3, 16, 16, 3))


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (4, 16, 16, 3), (3, 16, 16, 4), (1, 48, 16, 3)])
def test_a_file_of_other_tiles_is_damage(shape: tuple[int, int, int, int]) -> None:
    data = pam.encode(some(3, 3), 9)
    if shape == (1, 48, 16, 3):
        # The same picture, so the same header.
        assert pam.decode(data, shape).shape == shape
        return
    with pytest.raises(Damaged):
        pam.decode(data, shape)


def test_a_bomb_allocates_nothing() -> None:
    tiles = some(1, 3)
    plain = pam.picture(tiles)
    out = io.BytesIO()
    with zstandard.ZstdCompressor(level=19).stream_writer(out, closefd=False) as coder:
        for _ in range(64):
            coder.write(bytes(1 << 20))
    no_size = out.getvalue()
    claims = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    lies = bytearray(zstandard.ZstdCompressor(level=1).compress(plain + bytes(1 << 22)))
    for data in (no_size, claims, bytes(lies), b"", b"\x28\xb5\x2f\xfd", plain):
        with pytest.raises(Damaged):
            pam.decode(data, (1, 16, 16, 3))
