"""Import and export of sparse files, and of files that do not fit."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from fsmount.errors import DiskFull
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import Item, find
from tests.cli.commands import process
from tests.store.disk.test_holes import MIB, on_disk, sparse, tells_holes
from tests.store.transfer.test_importing import contents, small_disk, whole
from tests.support.frames import FlakyDisk
from tests.support.trees import export_from, facts, import_into, make_pictures, make_store

__all__ = ["small_disk"]

SPARSE = {
    "small": ([], 1),
    "medium": ([0, 7], 20),
    "ends in a hole": ([0], 20),
    "begins with one": ([19], 20),
    "large": ([3, 39], 40),
    "a hole only": ([], 50),
}


def taken(folder: Path) -> int:
    """Bytes on the disk of everything below a folder."""
    return sum(on_disk(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("delete", [False, True])
async def test_holes_stay_holes(root: Path, tmp_path: Path, delete: bool) -> None:
    if not tells_holes(tmp_path):
        pytest.skip("this disk has no holes")
    source = tmp_path / "in"
    source.mkdir()
    for name, (at, size) in SPARSE.items():
        sparse(source / name, at, size)
    before, room = facts(source), taken(root)
    importer = await import_into(root, f"{source}/", delete=delete)
    assert importer.summary.problems == []
    assert importer.summary.bytes == sum(size for _, size in SPARSE.values()) * MIB
    assert importer.deleted == (len(SPARSE) if delete else 0)
    assert taken(root) - room < 4 * MIB
    assert {
        name: hashlib.sha256(data).hexdigest() for name, data in (await contents(root)).items()
    } == {name: entry["sha256"] for name, entry in before.items()}
    whole(root)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == before
    assert taken(tmp_path / "out") < MIB


async def test_what_is_larger_than_the_disk_with_its_holes(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "after").write_text("after")
    size = 1 << 42
    with (source / "a huge one").open("wb") as file:
        file.write(b"head")
        file.seek(size - 4)
        try:
            file.write(b"tail")
        except OSError:
            pytest.skip("this disk takes no such file")
    importer = await import_into(root, f"{source}/")
    assert importer.summary.problems == []
    opened = open_read_store(root)
    async with opened.running(count=1) as store:
        inode = find(store, b"a huge one")
        assert inode is not None and inode.object_id is not None
        assert inode.size == size
        body = await store.body(inode.object_id)
        assert await body.pread(0, 8) == b"head\0\0\0\0"
        assert await body.pread(size - 8, 99) == b"\0\0\0\0tail"
        assert find(store, b"after") is not None
    opened.close()
    whole(root)


def test_a_file_that_says_it_is_empty(root: Path) -> None:
    """Files of /proc report size 0, but have content."""
    source = Path("/proc/version")
    if not source.exists():
        pytest.skip("no /proc")
    assert process("import", source, root).code == 0
    assert f"{len(source.read_bytes()):>12} " in process("ls", root).out


# -- files that do not fit


def make_source(tmp_path: Path) -> Path:
    """Make pictures and small files, and between them a file of 3 MiB."""
    source = tmp_path / "in"
    make_pictures(source)
    (source / "huge").write_bytes(os.urandom(3 * MIB))
    (source / "zz small").write_text("small")
    return source


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["pwrite", "create"])
async def test_a_large_file_that_does_not_fit(
    root: Path, tmp_path: Path, code: int, call: str
) -> None:
    source = make_source(tmp_path)
    (tmp_path / "another name").hardlink_to(source / "huge")
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)

    def hook(name: str, what: object) -> int:
        """Refuse the large file each time it is tried."""
        return code if name == call and on_huge[0] and _is_staged(what) else 0

    on_huge = [False]
    file = Importer._file

    async def noted(importer: Importer, one: Item, *given: object) -> object:
        on_huge[0] = one.source.name == "huge"
        try:
            return await file(importer, one, *given)  # type: ignore[arg-type]
        finally:
            on_huge[0] = False

    disk.hook = hook
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Importer, "_file", noted)
        async with opened.running(count=1) as store:
            importer = Importer(store, lambda files, count: None)
            await importer.add(source, b"")
    opened.close()
    assert importer.summary.problems == [(str(source / "huge"), f"told to fail in {call}")]
    assert set(await contents(root)) == {b"00.png", b"01.png", b"02.png", b"zz small"}
    whole(root)
    again = await import_into(root, f"{source}/")
    assert (again.summary.files, again.summary.skipped) == (1, 4)


def _is_staged(what: object) -> bool:
    path = what if isinstance(what, Path) else Path(f"/proc/self/fd/{what}").readlink()
    return path.parent.name == "staging"


async def test_what_cannot_fit_is_not_begun(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file would first fill the disk, to which other programs write as well."""
    source = make_source(tmp_path)
    real = os.statvfs

    class Small:
        """A disk with 2 MiB left."""

        f_frsize, f_bavail = 512, 2 * MIB // 512

    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        monkeypatch.setattr(os, "statvfs", lambda path: Small if path == store.path else real(path))
        importer = Importer(store, lambda files, count: None)
        await importer.add(source / "huge", b"huge")
        assert [what for call, what in disk.calls if call == "create" and _is_staged(what)] == []
        monkeypatch.undo()
    opened.close()
    assert importer.summary.problems == [(str(source / "huge"), "No space left on device")]


async def test_a_disk_without_room_for_small_files_ends_the_import(
    root: Path, tmp_path: Path
) -> None:
    source = make_source(tmp_path)
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    disk.hook = lambda call, what: errno.ENOSPC if call == "pwrite" else 0
    async with opened.running(count=1) as store:
        importer = Importer(store, lambda files, count: None)
        with pytest.raises(DiskFull):
            await importer.add(source, b"")
        assert store.staging.tokens() == []
    opened.close()


@pytest.mark.parametrize("size", [4 * MIB, 40 * MIB])
def test_a_file_larger_than_the_disk_in_truth(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    root = make_store(small_disk / "store", monkeypatch, inline=False)
    source = make_source(tmp_path)
    (source / "huge").write_bytes(os.urandom(size))
    with (source / "sparse").open("wb") as file:
        file.truncate(100 * MIB)
    done = process("import", f"{source}/", root)
    assert done.code == 3
    assert done.out.startswith("5 files imported")
    assert done.err == f"1 left out:\n  {source / 'huge'}: No space left on device\n"
    assert process("check", "--full", root).code == 0
    whole(root)
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    assert process("import", f"{source}/", root).code == 0
    assert process("verify", f"{source}/", root).out == "6/6 identical\n"
