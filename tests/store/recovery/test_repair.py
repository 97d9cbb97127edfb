"""Repair: it saves and lists files, one repair is enough, and it never guesses."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
import trio

from fsmount.codec.png import png as png_module
from fsmount.errors import Damaged
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies
from fsmount.store.recovery.check import Report
from fsmount.store.recovery.repair import Repairs, rebuild_index
from fsmount.store.store import open_read_store, open_store
from tests import repairing
from tests.crash.rot import Reference, look
from tests.support.encoding import Inline, forget_caches, put
from tests.support.frames import png, screens
from tests.support.packs import drop_parity, flip
from tests.support.trees import import_into, make_store, make_tree


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with files of all kinds."""
    root = make_store(tmp_path / "store", monkeypatch)
    trio.run(import_into, root, f"{make_tree(tmp_path / 'in')}/")
    return root


def repair(root: Path) -> tuple[Repairs, Report]:
    return trio.run(repairing.repair, root)


def contents(root: Path) -> Reference:
    forget_caches()
    return trio.run(look, root)


def objects(root: Path) -> list[Object]:
    store = open_read_store(root)
    try:
        return list(store.index.all_objects())
    finally:
        store.close()


def test_a_whole_store_stays_as_it_is(root: Path) -> None:
    before = contents(root)
    repairs, report = repair(root)
    assert repairs == Repairs()
    assert report.findings == []
    assert contents(root) == before
    assert not (root / "lost").exists()


@pytest.mark.parametrize("how", ["deleted", "zeroed", "a page"])
def test_an_index_comes_back_with_everything(root: Path, how: str) -> None:
    before = contents(root)
    index = root / "index.sqlite"
    if how == "deleted":
        index.unlink()
    elif how == "zeroed":
        index.write_bytes(bytes(index.stat().st_size))
    else:
        flip(index, index.stat().st_size - 4000, 0x40)
    repairs, report = repair(root)
    assert repairs.rebuilt
    assert (repairs.lost, repairs.renamed, report.findings) == ([], [], [])
    assert contents(root) == before
    again, report = repair(root)
    assert (again, report.findings) == (Repairs(), [])


def test_what_came_after_the_copy_keeps_its_first_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are encoded, staged and renamed after the copy. Repair loses none and lists all."""
    before = contents(root)
    copy = (root / "packs" / "names.gz").read_bytes()
    picture = png(screens(5)[4])

    async def later() -> None:
        opened = open_store(root)
        async with opened.running(count=1) as store:
            put(store, b"new.png", picture)
            await store.drain()
        opened.index.rename(1, b"new.png", 1, b"newer.png", 1)
        put(opened, b"staged", b"not encoded yet")
        opened.close()

    trio.run(later)
    (root / "packs" / "names.gz").write_bytes(copy)
    (root / "index.sqlite").unlink()
    repairs, report = repair(root)
    assert report.findings == []
    (staged,) = [name for name in repairs.renamed if name.startswith("lost+found/staged-")]
    assert set(repairs.renamed) == {"new.png", staged}
    found = contents(root)
    assert found.bodies[b"new.png"] == picture
    assert found.bodies[os.fsencode(staged)] == b"not encoded yet"
    named = {path: facts for path, facts in before.facts.items() if path}
    assert {path: found.facts[path] for path in named} == named


async def repack(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        await store.repack(lambda count: None)
    opened.close()


def test_a_copy_older_than_a_repack_finds_the_entries_where_they_are(root: Path) -> None:
    before = contents(root)
    copy = (root / "packs" / "names.gz").read_bytes()
    old = {path.name: path.read_bytes() for path in (root / "packs").glob("*.zip")}
    forget_caches()
    trio.run(repack, root)
    assert not {path.name for path in (root / "packs").glob("*.zip")} & old.keys()
    (root / "packs" / "names.gz").write_bytes(copy)
    (root / "index.sqlite").unlink()
    repairs, report = repair(root)
    assert (repairs.lost, repairs.renamed, report.findings) == ([], [], [])
    assert contents(root) == before

    # A repack that was killed before it removed the old packs leaves every entry twice.
    for name, data in old.items():
        (root / "packs" / name).write_bytes(data)
    (root / "index.sqlite").unlink()
    repairs, report = repair(root)
    assert (repairs.lost, repairs.renamed, report.findings) == ([], [], [])
    assert contents(root) == before


def test_without_any_copy_every_body_comes_back(root: Path) -> None:
    before = contents(root)
    (root / "index.sqlite").unlink()
    (root / "packs" / "names.gz").unlink()
    repairs, report = repair(root)
    assert (repairs.lost, report.findings) == ([], [])
    found = contents(root).bodies
    assert set(before.bodies.values()) == set(found.values())
    # Of equal files, one is left. All others are at their old paths.
    assert all(before.bodies[path] == data for path, data in found.items())


def test_a_damaged_entry_costs_what_hangs_on_it(root: Path) -> None:
    drop_parity(root)
    before = contents(root)
    key = next(found for found in objects(root) if found.kind == "key")
    flip(root / "packs" / "00000001.zip", key.offset + key.length // 2, 0x40)
    hit = {found.id for found in objects(root) if key.id in (found.id, *found.needs)}
    repairs, report = repair(root)
    assert report.findings == []
    (listed,) = [path for path in (root / "lost").iterdir() if path.suffix == ".json"]
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["object"] for line in lines} <= hit
    assert {line["path"] for line in lines} == set(repairs.lost)
    left = contents(root).bodies
    lost = {os.fsencode(name) for name in repairs.lost}
    assert left == {path: data for path, data in before.bodies.items() if path not in lost}
    assert (repair(root)[0], contents(root).bodies) == (Repairs(), left)


def keep_twice(root: Path, *numbers: int) -> None:
    """Write second copies of entries, as earlier builds did."""
    store = open_read_store(root)
    with Layout(root).second_entries.open("wb") as file:
        for found in map(store.index.object, numbers):
            pack = Layout(root).pack(found.pack).read_bytes()
            file.write(pack[found.offset : found.offset + found.length])
    store.close()


def test_second_copies_of_an_earlier_build_heal(root: Path) -> None:
    drop_parity(root)
    before = contents(root)
    key = next(found for found in objects(root) if found.kind == "key")
    keep_twice(root, key.id)
    flip(root / "packs" / "00000001.zip", key.offset + key.length // 2, 0x40)
    repairs, report = repair(root)
    assert (repairs.healed, repairs.lost, report.findings) == ([key.id], [], [])
    assert contents(root) == before


def test_second_copies_go_when_packs_have_parity(root: Path) -> None:
    key, other = [found for found in objects(root) if found.kind != "raw"][:2]
    keep_twice(root, key.id)
    open_store(root).close()
    assert not Layout(root).second_entries.exists()
    # They stay as long as an entry is damaged.
    keep_twice(root, key.id, other.id)
    flip(root / "packs" / "00000001.zip", other.offset + other.length // 2, 0x40)
    open_store(root).close()
    assert Layout(root).second_entries.exists()
    assert repair(root)[0].healed == [other.id]
    assert not Layout(root).second_entries.exists()


def test_other_bytes_of_whole_entries_remove_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another zlib or a bug of fsmount may be fixed later. Then the names must still be there."""
    before = contents(root)
    real = png_module.assemble
    monkeypatch.setattr(jobs, "assemble", lambda *a, **k: real(*a, **k) + b"!")
    repairs, report = repair(root)
    assert repairs.lost == []
    assert report.findings
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "Workers", Inline)
    assert contents(root) == before


def test_a_disk_that_cannot_be_read_removes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, length: int, offset: int) -> bytes:
        raise OSError(5, "told to fail")

    monkeypatch.setattr("fsmount.store.packs.pack.os.pread", fail)
    repairs, report = repair(root)
    assert repairs.lost == []
    assert report.findings


def test_the_copy_of_another_store_is_not_taken(root: Path, tmp_path: Path) -> None:
    data = (root / "packs" / "names.gz").read_bytes()
    with pytest.raises(Damaged):
        copies.load(data, "another")
    for cut in range(0, len(data), 37):
        with pytest.raises(Damaged):
            copies.load(data[:cut], json.loads((root / "fsmount.json").read_text())["uuid"])


def test_damage_of_the_copies_is_found_and_mended(root: Path) -> None:
    path = root / "packs" / "names.gz"
    good = path.read_bytes()
    flip(path, len(good) // 2, 0x40)
    repairs, report = repair(root)
    assert [what for what, _, _ in report.findings] == ["packs/names.gz"]
    assert repairs == Repairs()
    assert repair(root)[1].findings == []
    shutil.rmtree(root / "packs")
    with pytest.raises(Damaged, match="the folder is missing"):
        repair(root)


async def _fill(root: Path, size: int) -> None:
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            for number in range(40):
                put(store, b"%d.bin" % number, os.urandom(size))
            await store.drain()


@pytest.mark.parametrize("copy", [True, False])
def test_the_memory_of_a_rebuilt_index_does_not_grow_with_the_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: bool
) -> None:
    peaks = []
    for size in (30_000, 600_000):
        root = make_store(tmp_path / f"{size}", monkeypatch)
        trio.run(_fill, root, size)
        (root / "index.sqlite").write_bytes(b"")
        if not copy:
            (root / "packs" / "names.gz").unlink()
        tracemalloc.start()
        repairs = rebuild_index(root, Disk())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (len(repairs.renamed), repairs.lost) == (0 if copy else 40, [])
    # The difference is about one entry. All entries together have 24 MB.
    assert peaks[1] < peaks[0] + 4 * 600_000
