"""The encoder reads new files where they lie: nothing is staged, and sources may do anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.errors import DiskFull, FsmountError
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT, Index
from fsmount.store.ingest import prove
from fsmount.store.ingest.frames import Frames
from fsmount.store.packs.staging import Staging
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import Summary, find, walk
from tests.store.transfer.test_importing import contents, whole
from tests.support.frames import FlakyDisk, png, screens
from tests.support.trees import (
    export_from,
    facts,
    import_into,
    make_pictures,
)


def quiet(files: int, count: int) -> None:
    return


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of all staged files that are made."""
    tokens: list[int] = []
    create = Staging.create_open

    def noted(staging: Staging) -> tuple[int, int]:
        made = create(staging)
        tokens.append(made[0])
        return made

    monkeypatch.setattr(Staging, "create_open", noted)
    return tokens


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five pictures, a text, an empty file, and what is no picture although it says so."""
    folder = tmp_path / "in"
    make_pictures(folder, 5)
    (folder / "note").write_text("a note")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "elsewhere").write_text("elsewhere")
    (tmp_path / "a link").symlink_to(tmp_path / "elsewhere")
    (folder / "empty").write_bytes(b"")
    (folder / "zz damaged.png").write_bytes((folder / "00.png").read_bytes()[:-20])
    return folder


async def test_nothing_is_staged(
    root: Path, source: Path, tmp_path: Path, staged: list[int]
) -> None:
    importer = await import_into(root, f"{source}/")
    assert (importer.summary.files, importer.summary.problems, staged) == (8, [], [])
    assert importer.summary.bytes == sum(path.stat().st_size for path in source.iterdir())
    assert len(importer.added) == 8
    whole(root)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


async def test_a_file_appears_when_it_is_committed(root: Path, source: Path) -> None:
    """Before that the index knows nothing of it."""
    known: list[int] = []
    with open_store(root) as opened:
        async with opened.running(count=1) as store:

            def look(files: int, count: int) -> None:
                known.append(len(opened.index.children(ROOT)))
                assert opened.index.staged_inodes() == []

            await Importer(store, look).add(source, b"")
    assert known[-1] == 8
    whole(root)


def replace(path: Path, other: str) -> None:
    """Move a file out of the source, and something else into its place."""
    path.rename(path.parent.parent / "old")
    (path.parent.parent / other).rename(path)


# What may happen to a source, after which the import finds another one or none.
CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shrinks": lambda path: os.truncate(path, path.stat().st_size - 5),
    "other bytes": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "same size, later": lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns + 1)),
    "vanishes": lambda path: path.unlink(),
    "becomes a folder": lambda path: replace(path, "a folder"),
    "becomes a link": lambda path: replace(path, "a link"),
    "is replaced": lambda path: (
        path.with_name("new").write_bytes(path.read_bytes()),
        path.with_name("new").rename(path),
    ),
}


@pytest.mark.parametrize("name", ["02.png", "note", "zz damaged.png"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["before the look", "after the look"])
async def test_a_source_that_changes(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: str, when: str
) -> None:
    """It is listed, and imported later. The store has bytes that the file had at one time."""
    old = (source / name).read_bytes()
    changed: list[bool] = []

    def spoil(path: Path) -> None:
        if path == source / name and not changed:
            changed.append(True)
            CHANGES[change](path)

    look, compare = jobs.look, prove.is_staged

    def before(path: str, *given: object, **named: object) -> jobs.Look:
        spoil(Path(path))
        return look(path, *given, **named)  # type: ignore[arg-type]

    def after(path: Path, *given: object) -> bool:
        spoil(path)
        return compare(path, *given)  # type: ignore[arg-type]

    if when == "before the look":
        monkeypatch.setattr(jobs, "look", before)
    else:
        monkeypatch.setattr(prove, "is_staged", after)
    importer = await import_into(root, f"{source}/", delete=True)
    assert changed
    assert [path for path, _ in importer.summary.problems][:1] == [str(source / name)]
    assert importer.deleted == 7
    whole(root)
    shown = await contents(root)
    assert len(shown) >= 7
    if not (source / name).is_file():
        return
    assert shown[os.fsencode(name)] in (old, (source / name).read_bytes())
    again = await import_into(root, f"{source}/")
    assert [why for _, why in again.summary.problems] == []
    if not (source / name).is_symlink():
        assert (await contents(root))[os.fsencode(name)] == (source / name).read_bytes()


async def test_a_change_after_the_proof_is_imported_next_time(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (source / "02.png").read_bytes()
    new = png(screens(9)[8])
    append = Frames.append

    async def late(frames: Frames, *given: Any) -> object:
        (source / "02.png").write_bytes(new)
        return await append(frames, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Frames, "append", late)
        importer = await import_into(root, f"{source}/", delete=True)
    assert (await contents(root))[b"02.png"] == old
    assert importer.summary.problems == [
        (str(source / "02.png"), "kept: the store has other bytes")
    ]
    assert os.listdir(source) == ["02.png"]
    await import_into(root, f"{source}/")
    assert (await contents(root))[b"02.png"] == new
    whole(root)


async def test_a_raw_file_that_changes_before_it_is_appended(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are read once more for the entry. The stamp is as before here."""
    info = (source / "note").stat()
    new = b"A NOTE"
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        if path == source / "note" and seen and read(path) != new:
            path.write_bytes(new)
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        return read(path)

    seen: list[bool] = []
    compare = prove.is_staged

    def compared(path: Path, *given: object) -> bool:
        same = compare(path, *given)  # type: ignore[arg-type]
        seen.extend([True] * (path == source / "note"))
        return same

    monkeypatch.setattr(Path, "read_bytes", late)
    monkeypatch.setattr(prove, "is_staged", compared)
    importer = await import_into(root, f"{source}/")
    assert (importer.summary.files, importer.summary.problems) == (8, [])
    assert (await contents(root))[b"note"] == new
    whole(root)


@pytest.mark.parametrize("call", ["pwrite", "fsync", "create"])
@pytest.mark.parametrize("skip", [0, 1, 3])
async def test_a_disk_that_fails_once(
    root: Path, source: Path, tmp_path: Path, call: str, skip: int
) -> None:
    """The encoder refuses the sources that it had then, and copies of them are staged."""
    disk = FlakyDisk()
    with open_store(root, disk=disk) as opened:
        disk.fail_once(call, errno.EIO, skip=skip)
        async with opened.running(count=1) as store:
            importer = Importer(store, quiet)
            await importer.add(source, b"")
    assert importer.summary.files + len(importer.summary.problems) == 8
    await import_into(root, f"{source}/")
    whole(root)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


async def test_a_commit_that_fails(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, staged: list[int]
) -> None:
    add = Index.add_object
    failed: list[bool] = []

    def fail(index: Index, new: object) -> None:
        if not failed:
            failed.append(True)
            raise FsmountError("told to fail")
        add(index, new)  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "add_object", fail)
    importer = await import_into(root, f"{source}/")
    assert failed
    assert staged
    assert (importer.summary.files, importer.summary.problems) == (8, [])
    assert (await contents(root)).keys() == {os.fsencode(path.name) for path in source.iterdir()}
    whole(root)


async def test_a_full_disk_ends_the_import(root: Path, source: Path) -> None:
    disk = FlakyDisk()
    with open_store(root, disk=disk) as opened:
        disk.hook = lambda call, what: errno.ENOSPC if call == "pwrite" else 0
        async with opened.running(count=1) as store:
            with pytest.raises(DiskFull):
                await Importer(store, quiet).add(source, b"")
    disk.hook = lambda call, what: 0
    assert await contents(root) == {}
    await import_into(root, f"{source}/")
    assert len(await contents(root)) == 8
    whole(root)


async def test_two_sources_of_one_name(root: Path, tmp_path: Path) -> None:
    """The second one replaces the first, as if they came one after the other."""
    for folder in ("a", "b"):
        make_pictures(tmp_path / folder, 3)
        (tmp_path / folder / "note").write_text(folder)
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            importer = Importer(store, quiet)
            summary = Summary()
            items = [*walk(tmp_path / "a", b"", summary), *walk(tmp_path / "b", b"", summary)]
            await importer.take(items)
    assert importer.summary.problems == []
    assert (await contents(root))[b"note"] == b"b"
    whole(root)


@pytest.mark.parametrize("taken", ["file", "folder", "parent gone"])
async def test_a_name_that_is_taken_meanwhile(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Nothing else changes a store during an import today; the commit must not count on it."""
    add = Importer._add_source

    def late(importer: Importer, item: object) -> None:
        add(importer, item)  # type: ignore[arg-type]
        index = importer._store.index
        if item.source.name == "note":  # type: ignore[attr-defined]
            parent = find(importer._store, b"in")
            assert parent is not None
            if taken == "parent gone":
                index.rename(ROOT, b"in", ROOT, b"other", 5)
                index.unlink(ROOT, b"other", 5)
                return
            mode = stat.S_IFDIR if taken == "folder" else stat.S_IFIFO
            index.create(parent.ino, b"note", mode=mode | 0o700, uid=0, gid=0, now_ns=5)

    monkeypatch.setattr(Importer, "_add_source", late)
    if taken == "parent gone":
        for path in source.iterdir():
            if path.name != "note":
                path.unlink()
    importer = await import_into(root, source)
    why = dict(importer.summary.problems).get(str(source / "note"))
    assert (
        why
        == {
            "file": None,
            "folder": "the store has a folder of this name",
            "parent gone": "its folder could not be imported",
        }[taken]
    )
    found = await contents(root)
    assert (found.get(b"in/note") == b"a note") == (taken == "file")


async def test_an_import_that_is_cancelled_leaves_whole_files(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            with trio.CancelScope() as scope:

                def stop(files: int, count: int) -> None:
                    scope.cancel()

                await Importer(store, stop).add(source, b"")
            assert scope.cancelled_caught
            there = len(opened.index.children(ROOT))
            await store.drain()
            assert len(opened.index.children(ROOT)) == there, "nobody waits for the others"
            again = Importer(store, quiet)
            await again.add(source / "note", b"other")
            assert (again.summary.files, again.summary.problems) == (1, [])
    with open_read_store(root) as left:
        assert left.staging.tokens() == []
        assert left.index.staged_inodes() == []
    await import_into(root, f"{source}/")
    assert len(await contents(root)) == 9
    whole(root)


class CountingDisk(FlakyDisk):
    """A disk that counts the bytes that are written by pwrite."""

    written = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self.written += len(data)
        return super().pwrite(fd, data, offset)


async def test_bytes_that_an_import_writes(root: Path, source: Path) -> None:
    """Packs and their copies are written once. SQLite writes its files itself."""
    disk = CountingDisk()
    with open_store(root, disk=disk) as opened:
        async with opened.running(count=1) as store:
            await Importer(store, quiet).add(source, b"")
    packs = sum(path.stat().st_size for path in (root / "packs").iterdir())
    assert packs < disk.written < packs + 200, "the lock and the number of the opening are short"
