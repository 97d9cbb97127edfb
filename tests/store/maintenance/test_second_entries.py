"""Which second copies the file has, when it is written anew, and what is never left out."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import second_entries
from fsmount.store.maintenance.second_entries import Wanted, held, read, superseded
from fsmount.store.packs.pack import Entry, Pack
from tests.support.frames import FlakyDisk

COUNT = 32


class Scene:
    """A pack with entries of 32 objects. Each wanted object gets a copy."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.layout.packs.mkdir()
        self.disk: Disk = Disk()
        self.many = set(range(1, COUNT + 1))
        self.rows: dict[int, Object] = {}
        self.entries: dict[int, Entry] = {}
        self.repack({number: 1000 + number for number in self.many}, pack=1)

    def repack(self, sizes: dict[int, int], *, pack: int) -> None:
        """Give objects new entries, with payloads of these sizes, in a new pack."""
        opened = Pack(self.layout.pack(pack), pack, Disk(), 0)
        for number, size in sizes.items():
            payload = np.random.default_rng(size).bytes(size)
            entry = Entry(f"{number:08x}.webp", b"record", payload)
            at, length = opened.append(entry)
            self.rows[number] = Object(number, "key", pack, at, length, 1, b"sum", 0)
            self.entries[number] = entry
        opened.close()

    def update(self, waste: float = second_entries.WASTE) -> None:
        wanted = Wanted(self.many, self.rows, waste)
        second_entries.update(self.layout, self.disk, held(self.layout), wanted)

    def copies(self) -> list[int]:
        """The objects with a copy, in the order of the file. Checks that each copy is right."""
        copies = [(copy.object_id, copy.length) for copy in held(self.layout)]
        assert sum(length for _, length in copies) == self.size
        return [number for number, length in copies if self.rows[number].length == length]

    @property
    def size(self) -> int:
        return self.layout.second_entries.stat().st_size

    def damage(self, number: int) -> None:
        """Flip a bit of an entry in its pack."""
        row = self.rows[number]
        path = self.layout.pack(row.pack)
        data = bytearray(path.read_bytes())
        data[row.offset + row.length - 3] ^= 1
        path.write_bytes(data)


@pytest.fixture(name="scene")
def a_scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    scene.update()
    assert scene.copies() == sorted(scene.many)
    return scene


def test_what_is_as_wanted_is_not_touched(scene: Scene) -> None:
    scene.disk = FlakyDisk()
    scene.update(0.0)
    assert scene.disk.calls == []


def test_smaller_entries_take_the_place_of_the_old_copies(scene: Scene) -> None:
    before = scene.size
    scene.repack({number: 900 + number for number in range(1, 17)}, pack=2)
    scene.update()
    assert scene.copies() == sorted(scene.many)
    assert scene.size == before - 16 * 100
    assert superseded(scene.layout) == 0


def test_a_little_waste_stays_unless_none_may(scene: Scene) -> None:
    before = scene.size
    scene.repack({7: 900}, pack=2)
    scene.update()
    assert scene.size == before + scene.rows[7].length
    assert set(scene.copies()) == scene.many
    scene.update(0.0)
    assert scene.size == before - 107
    assert scene.copies() == sorted(scene.many)


def test_what_an_early_build_left_counts(scene: Scene) -> None:
    """An early build only appended."""
    old = scene.layout.second_entries.read_bytes()
    scene.repack({number: 900 + number for number in scene.many}, pack=2)
    scene.update()
    new = scene.layout.second_entries.read_bytes()
    scene.layout.second_entries.write_bytes(old + new)
    assert superseded(scene.layout) == len(old)
    scene.update()
    assert scene.layout.second_entries.read_bytes() == new


def test_copies_go_that_nothing_needs(scene: Scene) -> None:
    for number in range(1, 17):
        scene.many.discard(number)
        if number % 2:
            # Nothing shows the object any more, and it was dropped.
            del scene.rows[number]
    scene.update()
    assert scene.copies() == list(range(17, 33))
    scene.many.clear()
    scene.update()
    assert not scene.layout.second_entries.exists()


def test_the_only_whole_copy_is_never_left_out(scene: Scene) -> None:
    copies = dict(read(scene.layout))
    scene.repack(dict.fromkeys(range(1, 17), 500), pack=2)
    # Damaged where it is, with a copy of another length; damaged, and no longer needed by many;
    # needed by many, but without a row.
    scene.damage(1)
    scene.many -= {20, 21}
    scene.damage(20)
    scene.many.add(30)
    del scene.rows[30]
    scene.update()
    found = dict(read(scene.layout))
    assert set(found) == set(range(1, 33)) - {21}
    assert all(found[number] == copies[number] for number in (1, 20, 30))
    assert len(found[2]) == scene.rows[2].length


def test_the_copy_that_can_heal_is_kept(scene: Scene) -> None:
    """Of two copies of a damaged entry, a repair needs the one of the same length."""
    scene.repack({7: 900}, pack=2)
    scene.update()
    scene.repack({7: 1007}, pack=3)
    scene.damage(7)
    scene.update(0.0)
    assert len(dict(read(scene.layout))[7]) == scene.rows[7].length


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync"])
def test_a_disk_without_space_for_a_new_file_gets_what_fits(scene: Scene, call: str) -> None:
    old = scene.layout.second_entries.read_bytes()
    scene.repack({number: 900 + number for number in range(1, 17)}, pack=2)
    scene.disk = disk = FlakyDisk()
    disk.fail_once(call, errno.ENOSPC)
    scene.update()
    assert scene.layout.second_entries.read_bytes().startswith(old)
    assert set(scene.copies()) == scene.many
    assert [path.name for path in scene.layout.packs.glob("*.new")] == []
    scene.update()
    assert scene.copies() == sorted(scene.many)
    assert scene.size < len(old)


def test_damaged_bytes_are_written_again(scene: Scene) -> None:
    before = scene.layout.second_entries.read_bytes()
    data = bytearray(before)
    data[len(data) - 40] ^= 1
    scene.layout.second_entries.write_bytes(data)
    scene.update()
    assert scene.layout.second_entries.read_bytes() == before
    data[90] ^= 1
    scene.layout.second_entries.write_bytes(data)
    scene.update()
    assert scene.layout.second_entries.read_bytes() == before
