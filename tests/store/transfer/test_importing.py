"""Import: every file goes in, once, and the source stays as it is."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import DiskFull
from fsmount.legacy import archive
from fsmount.store.index import Index
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer import importing
from fsmount.store.transfer.tree import Item
from tests.support.encoding import Inline, get
from tests.support.frames import FlakyDisk
from tests.support.legacies import convert, minutes, samples
from tests.support.trees import (
    REAL,
    export_from,
    facts,
    import_into,
    make_pictures,
    make_store,
    make_tree,
)

IS_ROOT = os.geteuid() == 0


async def contents(root: Path) -> dict[bytes, bytes]:
    """Path -> bytes of every regular file of a store."""
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            return {
                path: await get(store, inode.ino)
                for path, inode in store.index.walk()
                if inode.staged is not None or inode.object_id is not None
            }
    finally:
        opened.close()


def whole(root: Path) -> None:
    """Check that no work is left: all is encoded, staging is empty, all relations hold."""
    store = open_read_store(root)
    try:
        assert store.index.staged_inodes() == []
        assert store.staging.tokens() == []
        assert check_relations(store).findings == []
    finally:
        store.close()


async def test_everything_comes_back(root: Path, source: Path, tmp_path: Path) -> None:
    before = facts(source, ctimes=True)
    importer = await import_into(root, f"{source}/")
    assert importer.summary.problems == []
    links = sum(not entry["mode"].startswith("0o4") for entry in before.values())
    assert (importer.summary.files, importer.summary.skipped) == (links, 0)
    assert facts(source, ctimes=True) == before
    whole(root)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


async def test_a_second_run_skips_all(root: Path, source: Path, tmp_path: Path) -> None:
    await import_into(root, f"{source}/")
    again = await import_into(root, f"{source}/")
    assert (again.summary.files, again.summary.bytes, again.summary.problems) == (0, 0, [])
    assert again.summary.skipped == sum(not path.is_dir() for path in links_as_files(source))
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


def links_as_files(source: Path) -> Iterator[Path]:
    for path in source.rglob("*"):
        yield path.parent / "nowhere" if path.is_symlink() else path


async def test_the_slash_rule(root: Path, tmp_path: Path) -> None:
    for name in ("2023", "2024"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    (tmp_path / "single").write_text("one file")
    await import_into(root, tmp_path / "2023", f"{tmp_path}/2024/", tmp_path / "single")
    assert await contents(root) == {
        b"2023/2023.txt": b"2023",
        b"2024.txt": b"2024",
        b"single": b"one file",
    }


async def test_folders_keep_their_times_when_files_are_added(
    root: Path, source: Path, tmp_path: Path
) -> None:
    await import_into(root, f"{source}/")
    (source / "desk" / "more.txt").write_text("more")
    os.utime(source / "desk", ns=(5, 6_000_000_007))
    await import_into(root, f"{source}/")
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


async def test_what_changed_is_replaced(root: Path, source: Path, tmp_path: Path) -> None:
    await import_into(root, f"{source}/")
    (source / "zero").write_text("not empty any more")
    (source / "link").unlink()
    (source / "link").symlink_to("zero")
    (source / "pipe").unlink()
    (source / "pipe").write_text("a file now")
    picture = source / "desk" / "2024 June" / "01.png"
    when = picture.stat().st_mtime_ns
    shutil.copy(source / "desk" / "2024 June" / "02.png", picture)
    os.utime(picture, ns=(when, when + 1))
    again = await import_into(root, f"{source}/")
    assert (again.summary.files, again.summary.problems) == (4, [])
    whole(root)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)


async def test_a_hard_link_of_a_file_that_is_there_already(root: Path, tmp_path: Path) -> None:
    """This happens after an import that was killed between the two names."""
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_text("same inode")
    (source / "b").hardlink_to(source / "a")
    opened = open_store(root)
    async with opened.running(count=1) as store:
        importer = importing.Importer(store, lambda files, count: None)
        await importer.add(source / "a", b"a")
    opened.close()
    again = await import_into(root, f"{source}/")
    assert (again.summary.files, again.summary.skipped) == (1, 1)
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(source)
    whole(root)


async def test_a_replaced_file_leaves_other_names_alone(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_text("old")
    (source / "b").hardlink_to(source / "a")
    await import_into(root, f"{source}/")
    (source / "a").unlink()
    (source / "a").write_text("something new")
    await import_into(root, f"{source}/")
    assert await contents(root) == {b"a": b"something new", b"b": b"old"}
    whole(root)


async def test_folders_and_files_of_one_name(root: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "x").mkdir(parents=True)
    (one / "x" / "inside").write_text("1")
    (one / "y").write_text("1")
    (two / "y").mkdir(parents=True)
    (two / "y" / "inside").write_text("2")
    (two / "x").write_text("2")
    (two / "z").write_text("2")
    await import_into(root, f"{one}/")
    again = await import_into(root, f"{two}/")
    assert dict(again.summary.problems) == {
        str(two / "x"): "the store has a folder of this name",
        str(two / "y"): "the store has a file of this name",
        str(two / "y" / "inside"): "its folder could not be imported",
    }
    assert await contents(root) == {b"x/inside": b"1", b"y": b"1", b"z": b"2"}
    whole(root)


def link_all(source: Path, folder: Path) -> None:
    """Give each file below a folder a name elsewhere, so that an import stages a copy of it."""
    folder.mkdir()
    for number, path in enumerate(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            (folder / str(number)).hardlink_to(path)


async def test_what_vanishes_or_cannot_be_read_is_listed(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_all(source, tmp_path / "other names")
    copy = importing.Importer._copy

    def failing(
        importer: importing.Importer, item: Item, token: int, whole: bytes | None
    ) -> tuple[int, tuple[int, int, int]]:
        if item.source.name == "01.png":
            item.source.unlink()
        if item.source.name == "zero":
            importer._store.staging.remove(token)
            raise PermissionError(13, "Permission denied", str(item.source))
        return copy(importer, item, token, whole)

    monkeypatch.setattr(importing.Importer, "_copy", failing)
    importer = await import_into(root, f"{source}/")
    assert dict(importer.summary.problems) == {
        str(source / "desk" / "2024 June" / "01.png"): "No such file or directory",
        str(source / "zero"): "Permission denied",
    }
    found = await contents(root)
    assert b"desk/2024 June/02.png" in found
    assert b"desk/2024 June/01.png" not in found
    whole(root)


async def test_what_changes_while_it_is_read_is_listed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    make_pictures(source)
    link_all(source, tmp_path / "other names")
    copy = importing.Importer._copy

    def changing(
        importer: importing.Importer, item: Item, token: int, whole: bytes | None
    ) -> tuple[int, tuple[int, int, int]]:
        if item.source.name == "01.png":
            item.source.write_bytes(item.source.read_bytes() + b"more")
        return copy(importer, item, token, whole)

    with monkeypatch.context() as patch:
        patch.setattr(importing.Importer, "_copy", changing)
        importer = await import_into(root, f"{source}/", delete=True)
    named = [(path, why) for path, why in importer.summary.problems if "while it was read" in why]
    assert named == [(str(source / "01.png"), "it changed while it was read; import it again")]
    assert os.listdir(source) == ["01.png"]
    # The store has another time than the file, so import takes the file again.
    importer = await import_into(root, f"{source}/", delete=True)
    assert (importer.summary.files, importer.deleted, importer.summary.problems) == (1, 1, [])
    assert (await contents(root))[b"01.png"].endswith(b"more")
    whole(root)


async def test_attributes_that_cannot_be_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "b").write_text("b")

    def failing(path: Path, **options: object) -> list[str]:
        if path.name == "a":
            raise OSError(5, "Input/output error")
        return []

    monkeypatch.setattr(os, "listxattr", failing)
    importer = await import_into(root, f"{source}/")
    assert importer.summary.problems == [(str(source / "a"), "Input/output error")]
    assert await contents(root) == {b"b": b"b"}
    whole(root)


async def test_a_disk_that_fills_up(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    make_pictures(source)
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    disk.hook = lambda call, what: errno.ENOSPC if call == "pwrite" else 0
    async with opened.running(count=1) as store:
        importer = importing.Importer(store, lambda files, count: None)
        with pytest.raises(DiskFull, match=r"No space left.*Free some") as caught:
            await importer.add(source, b"in")
        assert caught.value.exit_code == 1
        assert str(root) in str(caught.value)
        assert store.staging.tokens() == []
        disk.hook = lambda call, what: 0
        importer = importing.Importer(store, lambda files, count: None)
        await importer.add(source, b"in")
    opened.close()
    assert len(await contents(root)) == 3
    whole(root)


async def test_an_index_that_cannot_be_written_is_no_fault_of_the_source(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(index: Index, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(index.file))

    monkeypatch.setattr(Index, "create", fail)
    with pytest.raises(ExceptionGroup) as caught:
        await import_into(root, f"{source}/")
    assert caught.group_contains(OSError, match=r"index\.sqlite")
    assert list((root / "staging").iterdir()) == []


def fsmount(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_killed_and_started_again(root: Path, tmp_path: Path) -> None:
    """kill -9 at any moment: the imported files are whole, and a second run imports the rest."""
    source = make_tree(tmp_path / "in")
    make_pictures(source / "many", 40)
    chance = random.Random(int(os.environ.get("FSMOUNT_SEED", "1")))
    command = [sys.executable, "-m", "fsmount", "import", f"{source}/", str(root)]
    killed = 0
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as run:
            time.sleep(chance.uniform(0.3, 1.6))
            run.send_signal(signal.SIGKILL)
        killed += run.returncode == -signal.SIGKILL
        store = open_read_store(root)
        try:
            for path, inode in store.index.walk():
                original = source / os.fsdecode(path)
                assert inode.mode == original.lstat().st_mode
                if inode.staged is not None:
                    staged = store.staging.path(inode.staged)
                    assert staged.read_bytes() == original.read_bytes(), path
        finally:
            store.close()
    assert killed
    done = fsmount("import", f"{source}/", root)
    assert (done.returncode, done.stderr) == (0, "")
    whole(root)
    assert fsmount("export", root, tmp_path / "out").returncode == 0
    assert facts(tmp_path / "out") == facts(source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB. A `remount` can make it larger."""
    if not IS_ROOT:
        pytest.skip("needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_in_truth(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_store(small_disk / "store", monkeypatch, inline=False)
    source = tmp_path / "in"
    make_pictures(source)
    for number in range(6):
        (source / f"noise {number}").write_bytes(os.urandom(700_000))
    done = fsmount("import", f"{source}/", root)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("fsmount: ")
    assert "No space left" in done.stderr or "disk full" in done.stderr
    listed = fsmount("ls", root)
    assert listed.returncode == 0
    assert "00.png" in listed.stdout
    assert fsmount("check", root).returncode == 0
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    again = fsmount("import", f"{source}/", root)
    assert (again.returncode, again.stderr) == (0, "")
    assert fsmount("verify", f"{source}/", root).stdout == "9/9 identical\n"
    assert fsmount("check", "--full", root).returncode == 0
    whole(root)


def test_a_disk_that_holds_the_encoded_pictures_only(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 MB of screenshots take much less when encoded. 3 MB of staged ones fill the disk."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(2):
        for path in sorted(REAL.glob("*.png")):
            (source / f"{number} {path.name}").write_bytes(path.read_bytes() + bytes(number))
    assert sum(path.stat().st_size for path in source.iterdir()) > 6_000_000
    root = make_store(small_disk / "store", monkeypatch, inline=False)
    done = fsmount("import", "--delete-source", f"{source}/", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(source) == []
    assert fsmount("check", "--full", root).returncode == 0
    whole(root)


# -- folders of differences, and removed sources


def make_legacy(folder: Path) -> dict[str, bytes]:
    """Make a folder of differences. Returns name -> bytes of the samples of each picture."""
    make_pictures(folder, 9)
    frames = {}
    for stem, path in zip(minutes(9), sorted(folder.iterdir()), strict=True):
        path.rename(folder / f"{stem}.png")
        frames[f"{stem}.png"] = samples(folder / f"{stem}.png").tobytes()
    (folder / "notes.txt").write_text("no picture")
    assert len(convert(folder)) == 8
    return frames


async def pixels(root: Path) -> dict[str, bytes]:
    """Path -> bytes of the samples of every PNG of a store."""
    return {
        os.fsdecode(path): np.array(Image.open(BytesIO(data))).tobytes()
        for path, data in (await contents(root)).items()
        if path.endswith(b".png")
    }


@pytest.fixture(name="legacy")
def _legacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, bytes]]:
    monkeypatch.setattr(archive, "Workers", Inline)
    return tmp_path / "old", make_legacy(tmp_path / "old")


async def test_differences_come_in_as_pictures(
    root: Path, legacy: tuple[Path, dict[str, bytes]]
) -> None:
    source, frames = legacy
    names = sorted(os.listdir(source))
    importer = await import_into(root, f"{source}/")
    assert (importer.summary.files, importer.summary.problems) == (10, [])
    assert await pixels(root) == frames
    assert (await contents(root))[b"notes.txt"] == b"no picture"
    assert sorted(os.listdir(source)) == names
    again = await import_into(root, f"{source}/")
    assert (again.summary.files, again.summary.skipped) == (0, 10)
    whole(root)


async def test_pictures_imported_before_they_became_differences_keep_their_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "Workers", Inline)
    source = tmp_path / "old"
    for stem, path in zip(minutes(3), make_pictures(source, 3), strict=True):
        path.rename(source / f"{stem}.png")
    await import_into(root, f"{source}/")
    before = await contents(root)
    for path in convert(source):
        os.utime(path, ns=(1, 1))
    importer = await import_into(root, f"{source}/", delete=True)
    assert (importer.summary.files, importer.deleted) == (0, 3)
    assert await contents(root) == before
    assert os.listdir(source) == []


async def test_a_damaged_difference_keeps_its_run(
    root: Path, legacy: tuple[Path, dict[str, bytes]]
) -> None:
    source, frames = legacy
    hurt = sorted(source.glob("*.jxl"))[3]
    hurt.write_bytes(hurt.read_bytes()[:50])
    names = set(os.listdir(source))
    importer = await import_into(root, f"{source}/", delete=True)
    kept = sorted(frames)[:4]
    assert await pixels(root) == {name: frames[name] for name in kept}
    listed = dict(importer.summary.problems)
    assert "damaged" in listed[str(hurt)]
    assert {Path(path).name for path in listed} == names - {"notes.txt"}
    assert set(os.listdir(source)) == names - {"notes.txt"}


async def test_sources_go_when_they_are_in_the_store(
    root: Path, source: Path, legacy: tuple[Path, dict[str, bytes]]
) -> None:
    before = {path: fact for path, fact in facts(source).items() if "sha256" in fact}
    importer = await import_into(root, f"{source}/", str(legacy[0]), delete=True)
    assert importer.summary.problems == []
    assert [path for path in source.rglob("*") if not path.is_dir()] == []
    assert list(legacy[0].rglob("*")) == []
    found = await contents(root)
    assert {
        path: hashlib.sha256(data).hexdigest()
        for path, data in found.items()
        if not path.startswith(b"old/")
    } == {path: fact["sha256"] for path, fact in before.items()}
    assert len(await pixels(root)) == len(legacy[1]) + 4


async def test_what_the_store_has_otherwise_does_not_go(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_text(name)
    await import_into(root, f"{source}/")
    info = (source / "a").stat()
    (source / "a").write_text("A")
    os.utime(source / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    importer = await import_into(root, f"{source}/", delete=True)
    assert importer.summary.problems == [(str(source / "a"), "kept: the store has other bytes")]
    assert os.listdir(source) == ["a"]
