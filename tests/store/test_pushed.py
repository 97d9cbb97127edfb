"""Notes of pushes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.pushed import Pushed, all_pushed, known_blocks, note

URL = "s3://bucket/grün"
SHA = "ab" * 32
BLOCKS = {0: b"0" * 32, 1: b"1" * 32}


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_there_and_back(layout: Layout) -> None:
    assert all_pushed(layout) == []
    assert known_blocks(layout, URL, SHA) is None
    first = Pushed(URL, 3, 1_700_000_000, SHA, {1: 100, 12: 7})
    other = Pushed("file:///x", 1, 5, "00" * 32)
    for each in (first, other):
        note(layout, Disk(), each, BLOCKS)
    assert all_pushed(layout) == [other, first]
    assert known_blocks(layout, URL, SHA) == BLOCKS
    # The same URL with a slash.
    assert known_blocks(layout, f"{URL}/", SHA) == BLOCKS
    assert [first.has(1, 100), first.has(1, 101), first.has(2, 1)] == [True, False, False]


def test_blocks_of_another_index_are_not_taken(layout: Layout) -> None:
    note(layout, Disk(), Pushed(URL, 3, 1, SHA), BLOCKS)
    assert known_blocks(layout, URL, "cd" * 32) is None
    (path,) = (layout.root / "pushed").glob("*.blocks")
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert known_blocks(layout, URL, SHA) is None, at
    for length in (0, 5, 32, 64, len(data) - 1):
        path.write_bytes(data[:length])
        assert known_blocks(layout, URL, SHA) is None, length


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "x": 2}'])
def test_a_damaged_note_is_none(layout: Layout, text: str) -> None:
    (layout.root / "pushed").mkdir()
    (layout.root / "pushed" / "x.json").write_text(text)
    assert all_pushed(layout) == []
