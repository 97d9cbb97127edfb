"""Which blocks are there, which are chosen to go, and which requests bring others."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier

import pytest

from fsmount.errors import UsageError
from fsmount.remote import blocks
from fsmount.remote.blocks import BLOCK, Block, Files, Note, Table
from fsmount.remote.fetching import joined
from fsmount.store.disk.disk import Disk

PACK = "packs/00000001.zip"
SIZE = 5 * BLOCK + 100


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    for name in ("packs", "staging", "raw", "notes"):
        (tmp_path / name).mkdir()
    return Files(tmp_path, tmp_path / "notes", {PACK: SIZE, "staging/7": 10}, Disk())


def bytes_of(number: int, length: int = BLOCK) -> bytes:
    return random.Random(number).randbytes(length)


def test_blocks_are_written_noted_and_dropped(files: Files, tmp_path: Path) -> None:
    assert files.prepare() == {}
    assert (tmp_path / PACK).stat().st_size == SIZE
    assert (tmp_path / PACK).stat().st_blocks == 0
    files.write(Block(PACK, 1), bytes_of(1) + bytes_of(2))
    files.write(Block(PACK, 5), bytes_of(5, 100))
    files.write(Block("staging/7", 0), b"x" * 10)
    notes = files.prepare()
    # A staged file is not believed after a start.
    assert sorted(notes) == [Block(PACK, 1), Block(PACK, 2), Block(PACK, 5)]
    assert all(files.is_whole(block, note) for block, note in notes.items())
    assert (tmp_path / PACK).read_bytes()[BLOCK : 2 * BLOCK] == bytes_of(1)
    files.drop([Block(PACK, 1)])
    assert sorted(files.prepare()) == [Block(PACK, 2), Block(PACK, 5)]
    assert (tmp_path / PACK).read_bytes()[: 2 * BLOCK] == bytes(2 * BLOCK)
    assert (tmp_path / PACK).stat().st_blocks * 512 <= BLOCK + 4096


class MetDisk(Disk):
    """Two threads that are about to create a file wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self._met = Barrier(2, timeout=20)

    def create(self, path: Path) -> int:
        if path.parent.name == "notes":
            self._met.wait()
        return super().create(path)


def test_two_threads_bring_the_first_blocks_of_a_file(files: Files, tmp_path: Path) -> None:
    files.prepare()
    together = Files(tmp_path, tmp_path / "notes", files.sizes, MetDisk())
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda n: together.write(Block(PACK, n), bytes_of(n)), (0, 3)))
    notes = files.prepare()
    assert sorted(notes) == [Block(PACK, 0), Block(PACK, 3)]
    assert all(files.is_whole(block, note) for block, note in notes.items())


def test_a_longer_file_has_another_last_block(files: Files) -> None:
    files.prepare()
    files.write(Block(PACK, 5), bytes_of(5, 100))
    files.sizes[PACK] = SIZE + 50
    (note,) = files.prepare().values()
    assert not files.is_whole(Block(PACK, 5), note)


def test_times_of_use_are_noted(files: Files) -> None:
    files.prepare()
    files.write(Block(PACK, 0), bytes_of(0) + bytes_of(1))
    files.touch({Block(PACK, 0): 7})
    notes = files.prepare()
    assert notes[Block(PACK, 0)].used == 7
    assert notes[Block(PACK, 1)].used > 7


def test_a_disk_that_cannot_free_parts_is_refused(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def punch(self: Disk, fd: int, start: int, length: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(Disk, "punch", punch)
    with pytest.raises(UsageError, match="cache_dir="):
        files.prepare()


def test_what_was_used_longest_ago_goes_first(files: Files) -> None:
    notes = {Block(PACK, number): Note(b"d" * 16, 100 - number) for number in range(4)}
    table = Table(files, notes, 2 * BLOCK)
    assert table.used == 4 * BLOCK
    assert table.too_many() == [Block(PACK, 3), Block(PACK, 2)]
    table.touch([Block(PACK, 3)])
    assert table.too_many() == [Block(PACK, 2), Block(PACK, 1)]
    with table.pinned([Block(PACK, 2), Block(PACK, 1)]):
        assert table.too_many() == [Block(PACK, 0), Block(PACK, 3)]
    assert table.too_many() == [Block(PACK, 2), Block(PACK, 1)]
    assert list(table.unproved(notes)) == list(notes)
    table.add(Block(PACK, 2))
    assert Block(PACK, 2) not in table.unproved(notes)
    table.add(Block(PACK, 5))
    assert table.used == 4 * BLOCK + 100
    for number in range(6):
        table.remove(Block(PACK, number))
    assert (table.used, table.too_many()) == (0, [])


def test_requests_cover_all_blocks_and_are_few() -> None:
    assert joined([1, 2, 3], 9) == [(1, 4)]
    # Two blocks between cost less than another request.
    assert joined([1, 4, 8], 9) == [(1, 5), (8, 9)]
    assert joined([], 9) == []
    chance = random.Random(1)
    for _ in range(200):
        wanted = {chance.randrange(300) for _ in range(chance.randrange(1, 60))}
        runs = joined(wanted, 5)
        assert len(runs) <= 5
        assert wanted <= {number for first, end in runs for number in range(first, end)}
        assert all(a[1] < b[0] for a, b in pairwise(runs))
        assert all(first in wanted and end - 1 in wanted for first, end in runs)
    assert blocks.BLOCK == 256 << 10
